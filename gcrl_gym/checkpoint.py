"""Crash-safe files, and agent archives that hold data only.

An archive is an uncompressed zip of ``agent.json`` (what the agent is) and ``tensors.safetensors``
(what it has learned). Reading one parses JSON and safetensors and runs no code: there is no pickle,
and members other than these two, or compressed ones, are refused.
"""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import platform
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1
_JSON_NAME = "agent.json"
_TENSORS_NAME = "tensors.safetensors"


def process_name() -> str:
    """Return a name of this process for temporary files: ``<host>-<pid>``."""
    return f"{platform.node()}-{os.getpid()}"


def orphans(folder: Path, prefix: str, suffix: str) -> list[Path]:
    """Return ``<prefix><host>-<pid><suffix>`` of processes of this host that run no more.

    Args:
        folder: where to look; it need not exist.
        prefix: how the names begin.
        suffix: how they end.
    """
    pattern = f"{glob.escape(prefix)}*{glob.escape(platform.node())}-*{glob.escape(suffix)}"
    found = []
    for path in folder.glob(pattern):
        process = path.name.removesuffix(suffix).rpartition("-")[2]
        if os.name == "posix" and process.isdecimal() and not _is_running(int(process)):
            found.append(path)
    return found


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` only when the block ends without an error.

    The file is flushed to disk before the rename, so a crash leaves either the old file or the
    new one, never half of one.

    Args:
        path: final file name; its folder is made when missing.

    Yields:
        The temporary path, in the same folder, to write to.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{final.name}."
    temporary = final.with_name(f"{prefix}{process_name()}.part")
    for left in orphans(final.parent, prefix, ".part"):
        left.unlink(missing_ok=True)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def write_archive(
    path: str | os.PathLike[str] | BinaryIO,
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write an agent archive, atomically where ``path`` is a file name.

    Args:
        path: file name (``.zip`` is added when it has no suffix) or writable binary file.
        header: JSON-serialisable description.
        tensors: named tensors of any shape.
    """
    from safetensors.torch import save

    payload = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        text = json.dumps({"format_version": FORMAT_VERSION, **header}, indent=1)
        archive.writestr(_JSON_NAME, text)
        archive.writestr(_TENSORS_NAME, payload)
    if isinstance(path, (str, os.PathLike)):
        with atomic_write(with_zip_suffix(path)) as temporary:
            temporary.write_bytes(buffer.getvalue())
    else:
        path.write(buffer.getvalue())


def read_archive(
    path: str | os.PathLike[str] | BinaryIO,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read an agent archive.

    Args:
        path: file name (tried with ``.zip`` added too) or readable binary file.

    Returns:
        The header and the named tensors, on the CPU.

    Raises:
        UserError: missing, truncated, hostile or newer than this version can read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    source: Any = path
    if isinstance(path, (str, os.PathLike)):
        source = Path(path) if Path(path).is_file() else with_zip_suffix(path)
        if not source.is_file():
            raise UserError(f"No agent archive at {source}; pass the path given to save().")
    try:
        with zipfile.ZipFile(source) as archive:
            _check_members(archive, source)
            header = json.loads(archive.read(_JSON_NAME))
            tensors = load(archive.read(_TENSORS_NAME))
    except (zipfile.BadZipFile, SafetensorError, json.JSONDecodeError, EOFError) as error:
        raise UserError(
            f"{source} is not a readable agent archive ({error}); is it truncated?."
        ) from error
    if not isinstance(header, dict) or not isinstance(header.get("format_version"), int):
        raise UserError(f"{source}: {_JSON_NAME} has no format_version; not made by save().")
    if header["format_version"] > FORMAT_VERSION:
        raise UserError(
            f"{source} has format {header['format_version']}, this version reads up to "
            f"{FORMAT_VERSION}; upgrade gcrl_gym."
        )
    return header, tensors


def with_zip_suffix(path: str | os.PathLike[str]) -> Path:
    """Return ``path``, with ``.zip`` added where it has no suffix (as Stable-Baselines3 does)."""
    target = Path(path)
    return target if target.suffix else target.with_name(target.name + ".zip")


def _check_members(archive: zipfile.ZipFile, source: object) -> None:
    # Stored members cannot grow on reading, so an archive is never larger in memory than on disk.
    names = sorted(member.filename for member in archive.infolist())
    if names != sorted([_JSON_NAME, _TENSORS_NAME]):
        raise UserError(
            f"{source} is not an agent archive of gcrl_gym: it holds {names[:5]}, expected "
            f"{_JSON_NAME} and {_TENSORS_NAME}."
        )
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"{source}: {member.filename} is compressed; agent archives are not.")
