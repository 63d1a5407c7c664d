"""Downloads against a real server on this machine that breaks off, lies and changes its mind."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from gcrl_gym.datasets import download as module
from gcrl_gym.datasets.download import download
from gcrl_gym.errors import UserError
from tests.datasets.conftest import EXCERPTS
from tests.datasets.http_server import CONTENT, OTHER, SHA256, serving


def fetch(server, folder, *ways, **options):
    urls = [f"{server.address}/{way}/file" for way in ways]
    return download(urls, folder / "file.npz", progress=False, **options)


def left(folder):
    """Files beside the lock."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


WAYS = ["good", "dies", "norange", "redirect", "busy", "stalls", "untagged", "unsized", "shifted"]


@pytest.mark.parametrize("way", WAYS)
def test_the_file_arrives(server, tmp_path, way):
    path = fetch(server, tmp_path / "new", way, size=len(CONTENT), sha256=SHA256, timeout=0.5)
    assert path.read_bytes() == CONTENT
    assert left(tmp_path / "new") == ["file.npz"]


def test_it_goes_on_where_it_broke_off(server, tmp_path):
    fetch(server, tmp_path, "dies", sha256=SHA256)
    ranges = [span for _, span in server.log]
    assert ranges[0] is None
    assert int(ranges[1].removeprefix("bytes=").rstrip("-")) > 1000


def test_a_later_start_goes_on_too(server, tmp_path):
    with pytest.raises(UserError, match="connection"):
        fetch(server, tmp_path, "truncated")
    assert left(tmp_path) == ["file.npz.part", "file.npz.part.json"]
    size = (tmp_path / "file.npz.part").stat().st_size
    assert fetch(server, tmp_path, "good", sha256=SHA256).read_bytes() == CONTENT
    assert server.log[-1] == ("good", f"bytes={size}-")


def test_two_versions_are_never_mixed(server, tmp_path):
    path = fetch(server, tmp_path, "changes")
    assert path.read_bytes() == server.content == OTHER


def test_without_a_tag_or_checksum_nothing_is_continued(server, tmp_path):
    assert fetch(server, tmp_path, "untagged").read_bytes() == CONTENT
    assert [span for _, span in server.log] == [None, None]


def test_length_untold_and_nothing_published(server, tmp_path):
    """Only opening the file tells that the first answer was cut."""
    assert fetch(server, tmp_path, "unsized").read_bytes() == CONTENT
    assert len(server.log) == 2


@pytest.mark.parametrize("accept", [False, True])
def test_a_mixture_is_found_by_its_checksum(server, tmp_path, accept):
    """Accepting other bytes does not mean accepting two halves of two versions."""
    sha256 = hashlib.sha256(OTHER).hexdigest()
    path = fetch(server, tmp_path, "secretly", sha256=sha256, accept_other_bytes=accept)
    assert path.read_bytes() == OTHER
    assert [span is None for _, span in server.log] == [True, False, True]


def test_a_slow_line_gets_there(server, tmp_path, monkeypatch):
    """More broken requests than are tried in vain, because each brings something."""
    monkeypatch.setattr(module, "_PROGRESS", 1)
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    monkeypatch.setattr("gcrl_gym.datasets.transfer._CHUNK", 100)
    path = fetch(server, tmp_path, "truncated", sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert len(server.log) > 4


def test_one_mirror_goes_on_for_another(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    assert fetch(server, tmp_path, "dies", "good", sha256=SHA256).read_bytes() == CONTENT
    assert server.log[1][1] is not None
    (tmp_path / "file.npz").unlink()
    server.log.clear()
    # Without a checksum nothing says that both have the same file.
    assert fetch(server, tmp_path, "dies", "good").read_bytes() == CONTENT
    assert [span for _, span in server.log] == [None, None]


def test_an_error_page_does_not_cost_the_part(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    with pytest.raises(UserError, match=r"connection.*a web page \(HTML\).*bytes are kept"):
        fetch(server, tmp_path, "dies", "page", "disguised", "forbidden", sha256=SHA256)
    assert fetch(server, tmp_path, "good", sha256=SHA256).read_bytes() == CONTENT
    assert server.log[-1][1] is not None


@pytest.mark.parametrize(("way", "reason"), [("pointer", "a Git LFS pointer"), ("empty", "empty")])
def test_what_is_no_dataset(server, tmp_path, way, reason):
    for name in ("file.npz", "file.hdf5"):
        with pytest.raises(UserError, match=reason):
            download([f"{server.address}/{way}/file"], tmp_path / name, progress=False)
    assert left(tmp_path) == []


def test_hdf5(online, tmp_path):
    with h5py.File(tmp_path / "made.hdf5", "w") as file:
        file["observations"] = np.ones((1000, 4))
    content = (tmp_path / "made.hdf5").read_bytes()
    with serving(content) as (server, address):
        path = download([f"{address}/good/x"], tmp_path / "file.hdf5", progress=False)
        assert path.read_bytes() == content
        server.content = content[: len(content) // 2]  # truncated on the server itself
        with pytest.raises(UserError, match="truncated"):
            download([f"{address}/good/x"], tmp_path / "other.hdf5", progress=False)
        with pytest.raises(UserError, match="an HDF5 file, not a NumPy npz file"):
            download([f"{address}/good/x"], tmp_path / "other.npz", progress=False)
    assert left(tmp_path) == ["file.hdf5", "made.hdf5"]


def test_a_file_that_is_there_is_checked(server, tmp_path):
    (tmp_path / "file.npz").write_bytes(CONTENT[:-100])
    with pytest.raises(UserError, match=r"truncated.*delete it to download it again"):
        fetch(server, tmp_path, "good")
    (tmp_path / "file.npz").write_bytes(OTHER)
    with pytest.raises(UserError, match="has SHA-256"):
        fetch(server, tmp_path, "good", sha256=SHA256)
    with pytest.warns(UserWarning, match="accepted as asked"):
        fetch(server, tmp_path, "good", sha256=SHA256, accept_other_bytes=True)
    assert server.log == []


def redirect_to(server, location):
    return f"{server.address}/elsewhere/{location.encode().hex()}"


def test_redirects_to_no_web_address(server, tmp_path):
    for location in ("file:///etc/passwd", "ftp://127.0.0.1/file"):
        with pytest.raises(UserError, match=f"redirected to '{location}'"):
            download([redirect_to(server, location)], tmp_path / "file.npz")
    assert left(tmp_path) == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command, "-keyout", str(path), "-out", str(path) + ".crt"],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def test_encryption_is_not_given_up(server, tmp_path, monkeypatch, certificate):
    with serving(CONTENT, certificate=certificate) as (secure, address):
        secure.address = address
        target = tmp_path / "file.npz"
        with pytest.raises(UserError, match=r"no protected connection.*certificate"):
            download([f"{address}/good/file"], target)
        assert secure.log == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
        with pytest.raises(UserError, match="from https to unprotected"):
            download([redirect_to(secure, f"{server.address}/good/file")], target)
        assert server.log == []
        upgraded = redirect_to(server, f"{address}/good/file")
        assert download([upgraded], target, progress=False).read_bytes() == CONTENT


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk(server, tmp_path):
    (tmp_path / "file.npz.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"No space left on device.*free some space"):
        fetch(server, tmp_path, "good")
    assert not (tmp_path / "file.npz").exists()


def test_too_little_space_is_told_before_the_first_byte(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"needs 0\.1 MB more.*0\.0 MB free"):
        fetch(server, tmp_path, "good")
    assert left(tmp_path) == []


def test_mirrors_are_tried_in_order(server, tmp_path):
    path = fetch(server, tmp_path, "forbidden", "missing", "page", "disguised", "loop", "good")
    assert path.read_bytes() == CONTENT
    ways = [way for way, _ in server.log]
    assert list(dict.fromkeys(ways)) == [
        "forbidden", "missing", "page", "disguised", "loop", "good",
    ]  # fmt: skip
    assert ways.count("forbidden") == 1  # an answer is an answer


def test_all_reasons_are_named(server, tmp_path):
    with pytest.raises(UserError) as caught:
        fetch(server, tmp_path, "forbidden", "missing", "page", "disguised", "loop")
    text = str(caught.value)
    for reason in (
        "403",
        "404",
        "gives a web page (HTML), not a NumPy npz file",
        "a web page (HTML) ('Sign in'), not",
        "redirects",
    ):
        assert reason in text
    assert str(tmp_path / "file.npz") in text
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("published", "reason"),
    [({"size": 7}, "published file has 7"), ({"sha256": "0" * 64}, "published file has 000")],
)
def test_other_bytes(server, tmp_path, published, reason):
    with pytest.raises(UserError, match=reason):
        fetch(server, tmp_path, "good", **published)
    assert left(tmp_path) == []
    with pytest.warns(UserWarning, match=reason):
        path = fetch(server, tmp_path, "good", accept_other_bytes=True, **published)
    assert path.read_bytes() == CONTENT


def test_addresses_and_folders(server, tmp_path):
    with pytest.raises(UserError, match="not an http or https address"):
        download(["file:///etc/passwd"], tmp_path / "file.npz")
    with pytest.raises(UserError, match="connection failed"):
        download(["http://127.0.0.1:9/file"], tmp_path / "file.npz", timeout=0.5)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="name a folder that can be written"):
        fetch(server, tmp_path / "taken", "good")


def test_offline(server, tmp_path, monkeypatch):
    monkeypatch.setenv("GCRL_OFFLINE", "1")
    with pytest.raises(UserError, match=r"being offline.*/good/file"):
        fetch(server, tmp_path, "good")
    assert server.log == []
    assert fetch(server, tmp_path, "good", offline=False).read_bytes() == CONTENT
    assert fetch(server, tmp_path, "good", offline=True).read_bytes() == CONTENT  # it is here


SCRIPT = (
    "import sys; from pathlib import Path; from gcrl_gym.datasets.download import download;"
    "download([sys.argv[1]], Path(sys.argv[2]), progress=False)"
)


def start(server, way, target):
    command = [sys.executable, "-c", SCRIPT, f"{server.address}/{way}/file", str(target)]
    root = os.fspath(EXCERPTS.parents[1])
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    return subprocess.Popen(command, env=environment | {"PYTHONPATH": root})


def test_two_processes_fetch_once(server, tmp_path):
    both = [start(server, "good", tmp_path / "file.npz") for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert (tmp_path / "file.npz").read_bytes() == CONTENT
    assert len(server.log) == 1


def test_a_killed_process_leaves_a_part_to_go_on_with(server, tmp_path):
    process = start(server, "stalls", tmp_path / "file.npz")
    part = tmp_path / "file.npz.part"
    end = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert left(tmp_path) == ["file.npz.part", "file.npz.part.json"]
    assert fetch(server, tmp_path, "good", sha256=SHA256).read_bytes() == CONTENT
    assert server.log[-1][1] is not None


def test_the_lock_of_a_killed_process_is_free(server, tmp_path):
    first = start(server, "hangs", tmp_path / "file.npz")
    while not server.log:
        time.sleep(0.01)
    second = start(server, "good", tmp_path / "file.npz")
    time.sleep(1.0)
    assert second.poll() is None  # it waits
    assert len(server.log) == 1
    first.kill()
    assert first.wait(10) != 0
    assert second.wait(60) == 0
    assert (tmp_path / "file.npz").read_bytes() == CONTENT
