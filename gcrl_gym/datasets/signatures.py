"""Is a file what its name says? What else it looks like, and whether it opens to its end."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from gcrl_gym.errors import UserError

_LFS = b"version https://git-lfs"
HEAD_BYTES = 1024
"""Leading bytes by which `looks_like` tells a page or pointer."""


@dataclass(frozen=True)
class Kind:
    """A file format.

    Args:
        name: for messages, with its article.
        signature: the bytes every such file begins with.
    """

    name: str
    signature: bytes


_HDF5 = Kind("an HDF5 file", b"\x89HDF\r\n\x1a\n")
_ZIP = Kind("a zip file", b"PK\x03\x04")
_NPZ = Kind("a NumPy npz file", _ZIP.signature)
_GZIP = Kind("a gzip file", b"\x1f\x8b")
_BY_SUFFIX = {
    ".hdf5": _HDF5,
    ".h5": _HDF5,
    ".npz": _NPZ,
    ".zip": _ZIP,
    ".gz": _GZIP,
    ".tgz": _GZIP,
}


def expected(name: str) -> Kind | None:
    """Return the format that a file name promises, None where any bytes will do."""
    return _BY_SUFFIX.get(Path(name).suffix.lower())


def looks_like(head: bytes) -> str:
    """Describe a file by its first bytes, `HEAD_BYTES` of them where there are so many."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "an empty file"
    if text.startswith((b"<!doctype", b"<html")) or b"<html" in text:
        title = re.search(rb"<title[^>]*>([^<]{1,80})", head, re.IGNORECASE)
        named = f" ({title[1].decode('utf-8', 'replace').strip()!r})" if title else ""
        return f"a web page (HTML){named}"
    if text.startswith(_LFS):
        return "a Git LFS pointer without the data"
    if text.startswith(b"<?xml"):
        return "an XML message"
    if text.startswith((b"{", b"[")):
        return "JSON text"
    for kind in (_HDF5, _ZIP, _GZIP):
        if head.startswith(kind.signature):
            return kind.name
    return f"something that begins with {head[:8]!r}"


def require(path: Path, suffix: str) -> None:
    """Check that there is a file, and that it begins as those of a format do.

    Args:
        path: the file, whatever its name.
        suffix: the format, by its usual ending, e.g. ".npz".

    Raises:
        UserError: there is none, it cannot be read, or it is something else.
    """
    kind = _BY_SUFFIX[suffix]
    if not path.is_file():
        raise UserError(f"{path} does not exist; put {kind.name} there.")
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); check its permissions.") from error
    if head.startswith(kind.signature):
        return
    fix = "run git lfs pull, or download it again" if head.startswith(_LFS) else "download it again"
    raise UserError(f"{path} is {looks_like(head)}, not {kind.name}; {fix}.")


def damage(path: Path, name: str | None = None) -> str | None:
    """Say what is wrong with a file by opening it, None where nothing is.

    Both formats tell their own length: HDF5 in its first block, zip by the directory at its end, so
    that a truncated file does not open.

    Args:
        path: the file.
        name: the name that tells its format, where that is not the path's.
    """
    kind = expected(name or path.name)
    if kind is None:
        return None
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if not head.startswith(kind.signature):
        return f"is {looks_like(head)}, not {kind.name}"
    try:
        if kind is _HDF5:
            import h5py

            h5py.File(path, "r").close()
        elif kind in (_NPZ, _ZIP):
            zipfile.ZipFile(path).close()
    except (OSError, zipfile.BadZipFile) as error:
        return f"is truncated or damaged ({error})"
    return None
