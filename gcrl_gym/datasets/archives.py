"""Unpacking of archives from elsewhere: nothing outside the folder, nothing but plain files."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from gcrl_gym.errors import UserError

MAX_BYTES = 2**38
"""Bytes that an archive may unpack to, 256 GiB."""
MAX_RATIO = 200
"""How many times its own size an archive may unpack to; data compress 2 to 20 times."""
MAX_MEMBERS = 100_000

_FLOOR = 2**24  # bytes; small archives of zeros are no bombs
_CHUNK = 2**20


def extract(
    archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO
) -> Path:
    """Unpack a ``.zip``, ``.tar``, ``.tar.gz`` or ``.tgz`` into a new folder.

    All is unpacked into a temporary folder beside it, which is renamed at the end, so that the
    folder holds everything or is not there. Only plain files and folders are unpacked, without the
    owners, permissions and times in the archive.

    Args:
        archive: the file.
        folder: what to make; it must not exist, or be empty.
        max_bytes: limit of the bytes unpacked.
        max_ratio: limit of the bytes unpacked per byte of the archive, from 16 MiB on.

    Returns:
        The folder.

    Raises:
        UserError: a missing, damaged or encrypted archive; absolute paths, ``..``, links, devices
            or repeated names in it; too many or too large members; a folder with files in it, or
            one that cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    if not archive.is_file():
        raise UserError(f"No archive at {archive}; download it first.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name another folder to unpack into.")
    size = archive.stat().st_size
    limit = int(min(max_bytes, max(max_ratio * size, _FLOOR)))
    with _one_sentence(archive, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(
            tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent)
        )
        try:
            writer = _Writer(archive, temporary, limit)
            if archive.suffix.lower() == ".zip":
                _unzip(archive, writer)
            else:
                _untar(archive, writer)
            # mkdtemp's folders are for the owner only, unlike those users make.
            temporary.chmod(0o755)
            if folder.exists():
                folder.rmdir()  # empty; renaming onto it works on POSIX only
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


@dataclass
class _Writer:
    """Writes members into a folder, counting their bytes as they come."""

    archive: Path
    root: Path
    limit: int
    written: int = 0
    members: int = 0

    def add(self, name: str, *, is_folder: bool, content: IO[bytes] | None) -> None:
        """Write one member.

        Raises:
            UserError: a name that leaves the folder, or one that was there before; the limits.
        """
        self.members += 1
        if self.members > MAX_MEMBERS:
            self.refuse(f"it has more than {MAX_MEMBERS} members")
        parts = self._parts(name)
        if not parts and is_folder:
            return  # the "./" most tar files begin with
        path = self.root.joinpath(*parts)
        if is_folder:
            path.mkdir(parents=True, exist_ok=True)
            return
        if not parts or content is None:
            self.refuse(f"it has a file without a name or content, {name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "xb")  # noqa: SIM115 - closed below; only this line may say "exists"
        except FileExistsError:
            self.refuse(f"it has {name!r} twice")
        with file:
            self._copy(cast(IO[bytes], content), file)

    def refuse(self, why: str) -> None:
        """Raise: the archive is not one to trust."""
        raise UserError(
            f"{self.archive} was not unpacked: {why}; get the archive from another source."
        )

    def count(self, size: int) -> None:
        """Add to the bytes unpacked, which have a limit."""
        self.written += size
        if self.written > self.limit:
            self.refuse(
                f"it unpacks to more than {self.limit / 2**20:,.0f} MiB, which for an archive of "
                "its size is a decompression bomb"
            )

    def _parts(self, name: str) -> list[str]:
        if name.startswith("/") or "\\" in name or re.match("[A-Za-z]:", name) or "\0" in name:
            self.refuse(f"its member {name!r} has an absolute path, a drive or a backslash")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            self.refuse(f"its member {name!r} leaves the folder with '..'")
        return parts

    def _copy(self, source: IO[bytes], file: BinaryIO) -> None:
        # The sizes an archive declares may be lies, so what comes out is counted.
        while chunk := source.read(_CHUNK):
            self.count(len(chunk))
            file.write(chunk)


def _unzip(archive: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(archive) as container:
        for member in container.infolist():
            name = member.orig_filename  # as written; ``filename`` is cut at a zero byte
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                writer.refuse(f"its member {name!r} is a link or device")
            if member.flag_bits & 1:
                writer.refuse(f"its member {name!r} is encrypted")
            if member.is_dir():
                writer.add(name, is_folder=True, content=None)
                continue
            with container.open(member) as content:
                writer.add(name, is_folder=False, content=content)


def _untar(archive: Path, writer: _Writer) -> None:
    with open(archive, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            _untar_stream(file, writer)
            return
        # What tarfile reads of headers never reaches a file, so it is counted on its way in.
        with gzip.GzipFile(fileobj=file) as unpacked:
            limit = 2 * writer.limit + _FLOOR
            counter = _Writer(archive, writer.root, limit)
            _untar_stream(cast(BinaryIO, _Counted(cast(IO[bytes], unpacked), counter)), writer)


def _untar_stream(file: BinaryIO, writer: _Writer) -> None:
    with tarfile.open(fileobj=file, mode="r|") as container:
        for member in container:
            if not (member.isreg() or member.isdir()):
                writer.refuse(f"its member {member.name!r} is a link or device")
            content = container.extractfile(member) if member.isreg() else None
            writer.add(member.name, is_folder=member.isdir(), content=content)


@dataclass
class _Counted:
    """The reading half of a file, for tarfile."""

    file: IO[bytes]
    counter: _Writer

    def read(self, size: int = -1) -> bytes:
        chunk = self.file.read(size)
        self.counter.count(len(chunk))
        return chunk


@contextmanager
def _one_sentence(archive: Path, folder: Path) -> Iterator[None]:
    """Turn what the standard library raises into one sentence."""
    damaged = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile)
    try:
        yield
    except (*damaged, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{archive} is not a readable archive ({error}); download it again."
        ) from error
    except OSError as error:
        raise UserError(
            f"Cannot unpack {archive} into {folder} ({error.strerror or error}); free some space "
            "or name another folder."
        ) from error
