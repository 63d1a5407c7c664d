"""A real HTTP server that misbehaves in the ways real ones do."""

import contextlib
import hashlib
import io
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np


def npz(seed):
    buffer = io.BytesIO()
    np.savez(buffer, values=np.random.default_rng(seed).integers(256, size=50_000, dtype=np.uint8))
    return buffer.getvalue()


CONTENT, OTHER = npz(0), npz(1)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.content``; the first path element says how."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        way = self.path.split("/")[1]
        self.server.log.append((way, self.headers.get("Range")))
        count = sum(1 for seen, _ in self.server.log if seen == way)
        getattr(self, f"serve_{way}", self.serve_missing)(count)

    def serve_good(self, count):
        self.send_file()

    def serve_truncated(self, count):
        """Every answer dies half-way through what is left, until little is left."""
        self.send_file(stop=lambda rest: len(rest) if len(rest) < 1000 else len(rest) // 2)

    def serve_dies(self, count):
        """The first answer dies in the middle."""
        self.send_file(stop=lambda rest: len(rest) // 2 if count == 1 else len(rest))

    def serve_norange(self, count):
        """Dies once, then ignores Range."""
        self.send_file(stop=lambda rest: len(rest) // 2 if count == 1 else len(rest), ranges=False)

    def serve_changes(self, count):
        """Dies once; then the file is another one."""
        if count == 2:
            self.server.content = self.server.other
            self.server.tag = '"two"'
        self.serve_dies(count)

    def serve_stalls(self, count):
        if count == 1:
            self.send_file(stop=lambda rest: len(rest) // 2, wait=2.0)
        else:
            self.send_file()

    def serve_hangs(self, count):
        """Half of the file, then nothing for long."""
        self.send_file(stop=lambda rest: len(rest) // 2, wait=30.0)

    def serve_redirect(self, count):
        self.answer(302, {"Location": "/good/file", "Content-Length": "0"}, b"")

    def serve_loop(self, count):
        self.answer(302, {"Location": "/loop/file", "Content-Length": "0"}, b"")

    def serve_elsewhere(self, count):
        """Redirects to what the second path element says, an address in hexadecimal."""
        location = bytes.fromhex(self.path.split("/")[2]).decode()
        self.answer(302, {"Location": location}, b"")

    def serve_untagged(self, count):
        """Dies once, and never tells which version the file is."""
        self.server.tag = ""
        self.serve_dies(count)

    def serve_secretly(self, count):
        """Dies once; then the file is another one of the same size, and no tag tells."""
        self.server.tag = ""
        if count == 2:
            self.server.content = self.server.other
        self.serve_dies(count)

    def serve_unsized(self, count):
        """Ends the first answer early, and never tells its length, as HTTP/1.0 servers do."""
        content = self.server.content
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if count == 1 else content)
        self.close_connection = True

    def serve_shifted(self, count):
        """Dies once, then sends another range than the one asked for."""
        if count != 2:
            self.serve_dies(count)
            return
        rest = self.server.content[5:]
        span = f"bytes 5-{len(self.server.content) - 1}/{len(self.server.content)}"
        self.answer(206, {"Content-Range": span, "ETag": self.server.tag}, rest)

    def serve_pointer(self, count):
        self.answer(200, {}, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")

    def serve_empty(self, count):
        self.answer(200, {}, b"")

    def serve_forbidden(self, count):
        self.answer_page(403)

    def serve_missing(self, count):
        self.answer_page(404)

    def serve_page(self, count):
        """A web page with status 200, as login walls send it."""
        self.answer_page(200)

    def serve_disguised(self, count):
        """A web page that calls itself data."""
        page = b"<!DOCTYPE html><html><title>Sign in</title></html>"
        self.answer(200, {"Content-Type": "application/octet-stream"}, page)

    def serve_busy(self, count):
        if count == 1:
            self.answer(503, {}, b"later")
        else:
            self.send_file()

    def answer_page(self, status):
        self.answer(status, {"Content-Type": "text/html"}, b"<html>no</html>")

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, stop=len, ranges=True, wait=0.0):
        content, start, status = self.server.content, 0, 200
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range", self.server.tag) == self.server.tag
        if asked and ranges and same:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
        rest = content[start:]
        self.send_response(status)
        self.send_header("Content-Length", str(len(rest)))
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        if status == 206:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        self.end_headers()
        end = stop(rest)
        self.wfile.write(rest[:end])
        self.wfile.flush()
        if end < len(rest):
            time.sleep(wait)
            self.close_connection = True
            self.connection.close()

    def log_message(self, *_):
        """Keep quiet."""


class Server(ThreadingHTTPServer):
    """Says nothing when a client hangs up, which most tests make it do."""

    def handle_error(self, *_):
        pass


@contextlib.contextmanager
def serving(content, other=b"", certificate=None):
    """Yield ``(server, address)``; the server notes requests in ``server.log``.

    ``other`` is what the file changes to; with a ``certificate`` (file with its key) it is HTTPS.
    """
    server = Server(("127.0.0.1", 0), Handler)
    server.content, server.other, server.tag, server.log = content, other, '"one"', []
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server, f"{scheme}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
