"""Archives that want to write elsewhere, or to fill the disk."""

import gzip
import io
import os
import stat
import tarfile
import zipfile

import pytest

from gcrl_gym.datasets import archives
from gcrl_gym.datasets.archives import extract
from gcrl_gym.errors import UserError

FILES = {"experts/a.txt": b"first", "experts/deep/b.bin": bytes(1000), "c": b""}


def make_zip(path, files, **attributes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as container:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items():
                setattr(member, key, value)
            container.writestr(member, content)
    return path


def make_tar(path, files, compression="gz", **attributes):
    with tarfile.open(path, f"w:{compression}") as container:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in attributes.items():
                setattr(member, key, value)
            container.addfile(member, io.BytesIO(content))
    return path


def plain_tar(path, files, **attributes):
    return make_tar(path, files, compression="", **attributes)


MAKERS = [("x.zip", make_zip), ("x.tar", plain_tar), ("x.tar.gz", make_tar), ("x.tgz", make_tar)]
makers = pytest.mark.parametrize(("name", "make"), MAKERS)


def refused(archive, folder, reason, **limits):
    """Nothing may be left of it, in the folder or anywhere near."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(UserError, match=reason):
        extract(archive, folder, **limits)
    assert sorted(folder.parent.rglob("*")) == before


@makers
def test_everything_arrives(tmp_path, name, make):
    archive = make(tmp_path / name, FILES)
    folder = tmp_path / "new" / "folder"
    assert extract(archive, folder) == folder
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert found == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    with pytest.raises(UserError, match="not empty"):
        extract(archive, folder)
    (tmp_path / "empty").mkdir()
    assert (extract(archive, tmp_path / "empty") / "experts" / "a.txt").is_file()


def test_folders_and_dots(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as container:
        for name in ("./", "./experts", "./experts/empty"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE
            container.addfile(member)
        member = tarfile.TarInfo("./experts/a.txt")
        member.size = 5
        container.addfile(member, io.BytesIO(b"first"))
    folder = extract(tmp_path / "x.tar", tmp_path / "out")
    assert (folder / "experts" / "empty").is_dir()
    assert (folder / "experts" / "a.txt").read_bytes() == b"first"


@makers
@pytest.mark.parametrize(
    "member",
    [
        "../out.txt",
        "a/../../out.txt",
        "/tmp/out.txt",
        "C:/out.txt",
        "..\\out.txt",
        "a/..",
        "\\\\x\\y",
    ],
)
def test_nothing_leaves_the_folder(tmp_path, name, make, member):
    archive = make(tmp_path / name, {"good.txt": b"good", member: b"bad"})
    refused(archive, tmp_path / "out", "not unpacked: its member")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
@pytest.mark.parametrize("make", [make_tar, plain_tar])
def test_no_links_or_devices_in_tar(tmp_path, make, kind):
    archive = make(tmp_path / "x.tar.gz", {"bad": b""}, type=kind, linkname="/etc/passwd")
    refused(archive, tmp_path / "out", "link or device")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_no_links_or_devices_in_zip(tmp_path, kind):
    archive = make_zip(
        tmp_path / "x.zip", {"bad": b"/etc/passwd"}, external_attr=(kind | 0o777) << 16
    )
    refused(archive, tmp_path / "out", "link or device")


def test_permissions_are_not_taken_over(tmp_path):
    archive = make_tar(tmp_path / "x.tar.gz", {"a": b"#!"}, mode=0o6777)
    mode = (extract(archive, tmp_path / "out") / "a").stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


@makers
def test_bombs(tmp_path, name, make):
    archive = make(tmp_path / name, {"zeros": bytes(2**25)})
    if name != "x.tar":  # which is as large as what it holds
        refused(archive, tmp_path / "out", "decompression bomb")
    refused(archive, tmp_path / "out", "decompression bomb", max_bytes=2**20)
    assert extract(archive, tmp_path / "out", max_ratio=2000).is_dir()


def test_a_bomb_that_declares_a_small_size(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "x.zip", {"zeros": bytes(2**25)})
    content = archive.read_bytes().replace(
        (2**25).to_bytes(4, "little"), (10).to_bytes(4, "little")
    )
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"bomb|not a readable archive"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_in_a_tar_header(tmp_path):
    """What tarfile itself reads for a member's long name is counted too."""
    buffer = io.BytesIO()
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**26
    buffer.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(2**26))
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(buffer.getvalue()))
    refused(tmp_path / "x.tar.gz", tmp_path / "out", "decompression bomb")


@makers
def test_too_many_members(tmp_path, name, make, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    archive = make(tmp_path / name, {f"{n}": b"" for n in range(11)})
    refused(archive, tmp_path / "out", "more than 10 members")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@makers
def test_repeated_names(tmp_path, name, make):
    archive = make(tmp_path / name, {"a": b"one", "./a": b"two"})
    refused(archive, tmp_path / "out", r"'\./a' twice")
    archive = make(tmp_path / name, {"a": b"one", "a/b": b"two"})
    refused(archive, tmp_path / "out", "Cannot unpack")


@makers
def test_damaged_archives(tmp_path, name, make):
    archive = make(tmp_path / name, {"a": os.urandom(50_000), "b": os.urandom(50_000)})
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    refused(archive, tmp_path / "out", "not a readable archive.*download it again")
    archive.write_bytes(b"<html>no</html>")
    refused(archive, tmp_path / "out", "not a readable archive")


def test_encrypted_and_missing(tmp_path):
    # zipfile cannot write encrypted members, so the flag is set in both headers by hand.
    content = bytearray(make_zip(tmp_path / "x.zip", {"a": b"secret"}).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path / "x.zip", tmp_path / "out", "encrypted")
    refused(tmp_path / "none.zip", tmp_path / "out", "No archive at")


def test_unwritable(tmp_path):
    archive = make_zip(tmp_path / "x.zip", FILES)
    (tmp_path / "taken").write_text("a file")
    refused(archive, tmp_path / "taken" / "out", "Cannot unpack.*another folder")
    refused(archive, tmp_path / "taken", "not empty")
