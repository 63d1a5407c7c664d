"""Flat column cache beside a Minari dataset: later loads read one array instead of many episodes.

Files in ``<dataset folder>/gcrl_cache``, ``<key>`` being a checksum of the data files::

    manifest.json        layout, key, size and time of each data file; written last
    <key>-rows.npy       packed float rows
    <key>-lengths.npy    transitions of each episode
    <key>-<column>.npy   integer columns

A cache is used when the data files have the recorded sizes and times, or, where only the times
differ, the recorded checksum. Anything unexpected in it means: read the episodes again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gcrl_gym.checkpoint import atomic_write
from gcrl_gym.datasets.columns import Array, Columns, Layout

logger = logging.getLogger(__name__)

MMAP_BYTES = 4 * 2**30
"""Caches above this size are memory-mapped instead of read."""

_FORMAT = 1


def load(data_folder: Path, layout: Layout) -> Columns | None:
    """Return the cached columns of a Minari data folder, or None when there is no valid cache."""
    folder = _cache_folder(data_folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["format"] != _FORMAT or manifest["layout"] != _plain(layout):
            return None
        files = _signature(data_folder)
        if manifest["files"] != files:
            if manifest["key"] != checksum(data_folder):
                return None
            _write_manifest(folder, manifest | {"files": files})
        return _read(folder, manifest["key"], layout)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def store(data_folder: Path, columns: Columns) -> Columns:
    """Write the cache; return the columns, memory-mapped from it where they are large.

    A folder that cannot be written, or a full disk, leaves no cache and does no harm.
    """
    folder = _cache_folder(data_folder)
    try:
        key = checksum(data_folder)
        arrays = {"rows": columns.rows, "lengths": columns.lengths, **columns.integers}
        for name, array in arrays.items():
            with atomic_write(folder / f"{key}-{name}.npy") as path, open(path, "wb") as file:
                np.save(file, array, allow_pickle=False)
        manifest = {
            "format": _FORMAT,
            "key": key,
            "layout": _plain(columns.layout),
            "files": _signature(data_folder),
        }
        _write_manifest(folder, manifest)
        for path in folder.glob("*.npy"):
            if not path.name.startswith(f"{key}-"):
                path.unlink(missing_ok=True)
        return _read(folder, key, columns.layout) if columns.nbytes > MMAP_BYTES else columns
    except OSError as error:
        logger.info("No column cache in %s: %s", folder, error)
        return columns


def checksum(data_folder: Path) -> str:
    """SHA-256 over the names and contents of all files of a Minari data folder."""
    digest = hashlib.sha256()
    for path in _files(data_folder):
        digest.update(str(path.relative_to(data_folder)).encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _cache_folder(data_folder: Path) -> Path:
    return data_folder.parent / "gcrl_cache"


def _files(data_folder: Path) -> list[Path]:
    return sorted(path for path in data_folder.rglob("*") if path.is_file())


def _signature(data_folder: Path) -> dict[str, list[int]]:
    """Size and modification time of each data file by name."""
    result = {}
    for path in _files(data_folder):
        status = path.stat()
        result[str(path.relative_to(data_folder))] = [status.st_size, status.st_mtime_ns]
    return result


def _plain(layout: Layout) -> dict[str, Any]:
    """Layout as it looks after a round trip through JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(layout)))
    return plain


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with atomic_write(folder / "manifest.json") as path:
        path.write_text(json.dumps(manifest))


def _read(folder: Path, key: str, layout: Layout) -> Columns:
    """Read the arrays.

    Raises:
        OSError, ValueError: missing, truncated or foreign files.
    """
    names = ["rows", "lengths", *layout.integer_columns()]
    paths = {name: folder / f"{key}-{name}.npy" for name in names}
    size = sum(path.stat().st_size for path in paths.values())
    # Copy on write: torch wants writable memory, and nothing here ever writes.
    mode: Literal["c"] | None = "c" if size > MMAP_BYTES else None
    arrays: dict[str, Array] = {
        name: np.load(path, mmap_mode=mode, allow_pickle=False) for name, path in paths.items()
    }
    rows, lengths = arrays.pop("rows"), np.asarray(arrays.pop("lengths"))
    count = int(lengths.sum()) + len(lengths)
    expected = {name: (count, *layout.shape(name)) for name in arrays}
    if rows.shape != (count, layout.width) or rows.dtype != np.float32:
        raise ValueError("rows do not fit the layout")
    if {name: array.shape for name, array in arrays.items()} != expected:
        raise ValueError("integer columns do not fit the layout")
    return Columns(layout, rows, lengths, arrays)
