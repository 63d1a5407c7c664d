"""One HTTP request that starts or continues a partial file; `download` decides what comes next.

Beside ``name.part`` lies ``name.part.json``, which tells the version of the file that the bytes
received so far belong to. A later request, also of another process, asks for the rest of that very
version (``If-Range``); a server that has another one by then, or that ignores ranges, answers with
the whole file, which replaces the part.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests

from gcrl_gym.datasets.signatures import HEAD_BYTES, expected, looks_like
from gcrl_gym.errors import UserError

logger = logging.getLogger(__name__)

_CHUNK = 1 << 14  # bytes; what has come of a chunk is lost when the server stalls or dies in it
_REDIRECTS = 10
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # may be over in a second


class TransferError(Exception):
    """Why an address did not give the file.

    Args:
        reason: for the message to the user.
        retry: whether asking the same address again may help.
    """

    def __init__(self, reason: str, *, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


@dataclass(frozen=True)
class Wanted:
    """What is to be received.

    Args:
        name: final name of the file, whose suffix tells its format.
        size: bytes, where they must be so many.
        trusted: whether a checksum will tell bytes of different versions in one file.
        timeout: seconds without a byte after which the server has stalled.
        progress: show a bar (on a terminal).
    """

    name: str
    size: int | None
    trusted: bool
    timeout: float
    progress: bool


@dataclass(frozen=True)
class Version:
    """Which bytes a partial file has the beginning of.

    Args:
        url: where they came from.
        tag: strong ETag or date of modification there, "" when the server tells neither.
        total: bytes of the whole file, None when the server does not tell.
    """

    url: str
    tag: str
    total: int | None


class Partial:
    """A partial file with its version.

    Args:
        target: what it will be renamed to.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self._notes = target.with_name(target.name + ".part.json")

    @property
    def length(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> Version | None:
        """What the bytes belong to, None when that is unknown."""
        try:
            return Version(**json.loads(self._notes.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, version: Version) -> None:
        """Empty the file for the bytes of a version."""
        self._notes.unlink(missing_ok=True)  # never the old version beside the new bytes
        self.path.write_bytes(b"")
        self._notes.write_text(json.dumps(asdict(version)), encoding="utf-8")

    def forget(self) -> None:
        """Remove the version only, once the file itself is renamed."""
        self._notes.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove all of it."""
        self.forget()
        self.path.unlink(missing_ok=True)


def receive(session: requests.Session, url: str, part: Partial, wanted: Wanted) -> bool:
    """Request the file, or the rest of it, and write what comes to the partial file.

    Returns:
        Whether the file was continued rather than received from its beginning.

    Raises:
        TransferError: the server did not give the file, or not all of it.
        UserError: it does not fit the disk.
        OSError: it cannot be written.
    """
    offset, version = _resume_point(url, part, wanted)
    if offset and offset in (wanted.size, version.total if version else None):
        return True  # a process killed between the last byte and the renaming
    headers = {} if not offset else {"Range": f"bytes={offset}-"}
    if offset and version is not None and version.tag and version.url == url:
        headers["If-Range"] = version.tag
    with _network(wanted.timeout), _get(session, url, headers, wanted.timeout) as response:
        if response.status_code == 206 and offset:
            total = _continued(response, url, offset, part)
        elif response.status_code == 200:
            offset, total = 0, _length(response)
        else:
            raise _refusal(response, part)
        if wanted.size is not None and total not in (None, wanted.size):
            raise TransferError(f"has {total} bytes, the published file has {wanted.size}")
        _check_space(part.path.parent, total, offset, wanted.name)
        _write(response, url, part, wanted, offset, total)
    if total is not None and part.length != total:
        raise TransferError(f"connection lost after {part.length} of {total} bytes", retry=True)
    return offset > 0


def check_scheme(url: str, previous: str | None = None) -> None:
    """Refuse an address, or a redirect to it, that is not HTTP or gives up encryption.

    Raises:
        TransferError: saying so.
    """
    scheme = urlsplit(url).scheme.lower()
    if scheme not in ("http", "https") or not urlsplit(url).hostname:
        kind = "redirected to" if previous else "is"
        raise TransferError(f"{kind} {url!r}, which is not an http or https address")
    if previous and urlsplit(previous).scheme.lower() == "https" and scheme == "http":
        raise TransferError(f"redirected from https to unprotected {url}, which is refused")


def _resume_point(url: str, part: Partial, wanted: Wanted) -> tuple[int, Version | None]:
    offset, version = part.length, part.version
    if wanted.size is not None and offset > wanted.size:
        return 0, None
    # Without a checksum only the server's tag tells that the file is still the same.
    known = version is not None and bool(version.tag) and version.url == url
    return (offset, version) if known or wanted.trusted else (0, None)


def _get(
    session: requests.Session, url: str, headers: dict[str, str], timeout: float
) -> requests.Response:
    # Compressed transfer would make lengths and ranges those of other bytes.
    headers = {"Accept-Encoding": "identity", "User-Agent": "gcrl_gym", **headers}
    for _ in range(_REDIRECTS):
        try:
            response = session.get(
                url, headers=headers, stream=True, allow_redirects=False, timeout=timeout
            )
        except requests.RequestException:
            raise
        except OSError as error:  # such as a CA bundle that is not there
            raise TransferError(str(error)) from error
        if not response.is_redirect:
            return response
        response.close()
        following = urljoin(url, response.headers["Location"])
        check_scheme(following, url)
        url = following
    raise TransferError(f"redirects more than {_REDIRECTS} times")


@contextmanager
def _network(timeout: float) -> Iterator[None]:
    """Turn the exceptions of requests into reasons."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        text = _innermost(error)
        lost = "certificate" not in text.lower()  # a connection can break in TLS's own words
        raise TransferError(f"no protected connection ({text})", retry=lost) from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise TransferError(str(error)) from error
    except requests.RequestException as error:
        text = _innermost(error)
        if isinstance(error, requests.Timeout) or "timed out" in text.lower():
            text = f"nothing received for {timeout:g} s"
        raise TransferError(f"connection failed ({text})", retry=True) from error


def _innermost(error: requests.RequestException) -> str:
    inner = error.args[0] if error.args else error
    inner = getattr(inner, "reason", None) or inner
    text = inner.args[0] if getattr(inner, "args", ()) else inner
    return str(text).rpartition("): ")[2]


def _refusal(response: requests.Response, part: Partial) -> TransferError:
    status = response.status_code
    if status in (206, 416):  # our offset does not fit the file there
        part.discard()
        return TransferError(f"cannot continue the partial file (HTTP {status})", retry=True)
    text = f"HTTP {status} {response.reason or ''}".strip()
    return TransferError(text, retry=status in _BUSY)


def _length(response: requests.Response) -> int | None:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return None
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _tag(response: requests.Response) -> str:
    etag = str(response.headers.get("ETag", ""))
    if etag and not etag.startswith("W/"):  # weak tags say nothing of bytes
        return etag
    return str(response.headers.get("Last-Modified", ""))


def _continued(response: requests.Response, url: str, offset: int, part: Partial) -> int | None:
    """Check that the answer continues the partial file; return the bytes of the whole one."""
    text = str(response.headers.get("Content-Range", ""))
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", text.strip())
    if match is None or int(match[1]) != offset:
        raise _refusal(response, part)
    total = None if match[2] == "*" else int(match[2])
    version = part.version
    if version is not None and version.url == url:
        same_tag = not version.tag or not _tag(response) or _tag(response) == version.tag
        if not same_tag or (None not in (total, version.total) and total != version.total):
            part.discard()
            raise TransferError("the file there changed since the download began", retry=True)
    return total


def _check_space(folder: Path, total: int | None, offset: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if total is not None and total - offset > free:
        raise UserError(
            f"{name} needs {(total - offset) / 1e6:,.1f} MB more, but {folder} has only "
            f"{free / 1e6:,.1f} MB free; free some, or name another folder with --data-dir or "
            "GCRL_DATA_DIR."
        )


def _write(
    response: requests.Response,
    url: str,
    part: Partial,
    wanted: Wanted,
    offset: int,
    total: int | None,
) -> None:
    from tqdm import tqdm

    chunks: Iterator[bytes] = response.iter_content(_CHUNK)
    if not offset:
        chunks = _with_whole_head(chunks)
    first = next(chunks, b"")
    if not offset:
        # Before anything is overwritten: error pages come with status 200, too.
        kind = expected(wanted.name)
        if kind is not None and not first.startswith(kind.signature):
            raise TransferError(f"gives {looks_like(first)}, not {kind.name}")
        part.begin(Version(url, _tag(response), total))
    logger.info("Downloading %s from %s, byte %d on", wanted.name, url, offset)
    with (
        open(part.path, "ab") as file,
        tqdm(
            total=total or wanted.size,
            initial=offset,
            desc=wanted.name,
            unit="B",
            unit_scale=True,
            disable=None if wanted.progress else True,
        ) as bar,
    ):
        chunk, received = first, offset
        while chunk:
            received += len(chunk)
            if wanted.size is not None and received > wanted.size:
                raise TransferError(f"gives more than the published {wanted.size} bytes")
            file.write(chunk)
            bar.update(len(chunk))
            chunk = next(chunks, b"")


def _with_whole_head(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Join the first chunks until they can be recognised; later ones as they come."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    yield head
    yield from (chunk for chunk in chunks if chunk)
