"""Flat column cache beside a Minari dataset: later loads read one array instead of many episodes.

Files in ``<dataset folder>/gcrl_cache``, ``<key>`` being a checksum of the data files::

    manifest.json        layout, key, size and time of each data file; written last
    <key>-rows.npy       packed float rows
    <key>-lengths.npy    transitions of each episode
    <key>-<column>.npy   integer columns

A cache is used when the data files have the recorded sizes and times, or, where only the times
differ, the recorded checksum. Anything unexpected in it means: read the episodes again.

Columns above a limit (4 GiB, or the environment variable ``GCRL_MMAP_GIB``) are memory-mapped. Then
the first load fills temporary files in that folder, ``.rows.npy.<host>-<pid>.part``, which are
renamed when they are complete. A load that is killed leaves only those, and the next one, finding
their process gone, removes them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gcrl_gym.checkpoint import atomic_write, orphans, process_name
from gcrl_gym.datasets.columns import Array, Columns, Layout
from gcrl_gym.errors import UserError

logger = logging.getLogger(__name__)

MMAP_BYTES = 4 * 2**30
"""Columns above this size are memory-mapped instead of read; GCRL_MMAP_GIB replaces it."""

_FORMAT = 1


def mmap_limit() -> float:
    """Return the size in bytes above which columns are memory-mapped.

    Raises:
        UserError: GCRL_MMAP_GIB is not a number >= 0.
    """
    text = os.environ.get("GCRL_MMAP_GIB", "").strip()
    if not text:
        return MMAP_BYTES
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not gib >= 0:
        raise UserError(
            f"GCRL_MMAP_GIB={text!r} in the environment is not a number >= 0; set it to the size "
            "in GiB above which datasets are memory-mapped, or unset it."
        )
    return gib * 2**30


def load(data_folder: Path, layout: Layout) -> Columns | None:
    """Return the cached columns of a Minari data folder, or None when there is no valid cache."""
    folder, limit = _cache_folder(data_folder), mmap_limit()
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["format"] != _FORMAT or manifest["layout"] != _plain(layout):
            return None
        files = _signature(data_folder)
        if manifest["files"] != files:
            if manifest["key"] != checksum(data_folder):
                return None
            _write_manifest(folder, manifest | {"files": files})
        return _read(folder, manifest["key"], layout, limit)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


class Draft:
    """Columns that a first load fills, and what becomes of them.

    Args:
        columns: zeroed columns, in memory or mapped from ``parts``.
        data_folder: the Minari data folder they come from, None where no cache is wanted.
        parts: the temporary file of each mapped table, empty for columns in memory.
    """

    def __init__(
        self, columns: Columns, data_folder: Path | None, parts: dict[str, Path] | None = None
    ) -> None:
        self.columns, self.data_folder, self.parts = columns, data_folder, parts or {}

    def keep(self) -> Columns:
        """Make the filled columns the cache; return them, memory-mapped where they are large.

        A folder that cannot be written, or a full disk, leaves no cache and does no harm.
        """
        columns = self.columns
        if self.data_folder is None:
            return columns
        folder = _cache_folder(self.data_folder)
        try:
            key = checksum(self.data_folder)
            arrays = {"lengths": columns.lengths}
            if self.parts:
                self._place_parts(folder, key)
            else:
                arrays |= {"rows": columns.rows, **columns.integers}
            for name, array in arrays.items():
                with atomic_write(folder / f"{key}-{name}.npy") as path, open(path, "wb") as file:
                    np.save(file, array, allow_pickle=False)
            manifest = {
                "format": _FORMAT,
                "key": key,
                "layout": _plain(columns.layout),
                "files": _signature(self.data_folder),
            }
            _write_manifest(folder, manifest)
            for path in folder.glob("*.npy"):
                if not path.name.startswith(f"{key}-"):
                    path.unlink(missing_ok=True)
            # Mapped anew: what is handed out must not be able to change the cache.
            return _read(folder, key, columns.layout, limit=0) if self.parts else columns
        except OSError as error:
            logger.info("No column cache in %s: %s", folder, error)
            return columns

    def _place_parts(self, folder: Path, key: str) -> None:
        """Flush the mapped tables to disk and give them their final names."""
        for name, part in self.parts.items():
            table = self.columns.rows if name == "rows" else self.columns.integers[name]
            assert isinstance(table, np.memmap)
            table.flush()
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, folder / f"{key}-{name}.npy")


@contextmanager
def draft(data_folder: Path | None, layout: Layout, steps: int, episodes: int) -> Iterator[Draft]:
    """Yield zeroed columns for a first load; unless they are kept, nothing remains on disk.

    Args:
        data_folder: the Minari data folder that is read, None where it takes no cache.
        layout: of the columns.
        steps: number of transitions.
        episodes: number of episodes, each of which takes one row more.
    """
    mapped = None
    if data_folder is not None and layout.nbytes(steps + episodes) > mmap_limit():
        mapped = _mapped_draft(data_folder, layout, steps, episodes)
    try:
        yield mapped or Draft(Columns.allocate(layout, steps, episodes), data_folder)
    finally:
        _remove(mapped.parts if mapped else {})


def _mapped_draft(data_folder: Path, layout: Layout, steps: int, episodes: int) -> Draft | None:
    """Return zeroed columns mapped from temporary files, None where these cannot be made."""
    folder, rows = _cache_folder(data_folder), steps + episodes
    tables, gib = layout.tables(rows), layout.nbytes(rows) / 2**30
    parts = {name: folder / f".{name}.npy.{process_name()}.part" for name in tables}
    logger.warning("Mapping %.1f GiB for %d dataset rows in %s.", gib, rows, folder)
    try:
        folder.mkdir(exist_ok=True)
        for left in orphans(folder, ".", ".part"):
            left.unlink(missing_ok=True)
        arrays = {name: _map(parts[name], *table) for name, table in tables.items()}
    except OSError as error:
        _remove(parts)
        logger.warning("Cannot write %s (%s): the dataset is read into memory.", folder, error)
        return None
    columns = Columns(layout, arrays.pop("rows"), np.zeros(episodes, np.int64), arrays)
    return Draft(columns, data_folder, parts)


def _remove(parts: dict[str, Path]) -> None:
    for part in parts.values():
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _map(part: Path, shape: tuple[int, ...], dtype: str) -> Array:
    """Return a zeroed array mapped from a new file whose blocks the disk has promised.

    Raises:
        OSError: no permission, or not enough space.
    """
    array: Array = np.lib.format.open_memmap(part, "w+", dtype=np.dtype(dtype), shape=shape)
    if hasattr(os, "posix_fallocate"):
        # Without its blocks, writing to the map of a full disk kills the process (SIGBUS).
        with open(part, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
    return array


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


def _read(folder: Path, key: str, layout: Layout, limit: float) -> Columns:
    """Read the arrays, or map them when they take more than ``limit`` bytes.

    Raises:
        OSError, ValueError: missing, truncated or foreign files.
    """
    names = ["rows", "lengths", *layout.integer_columns()]
    paths = {name: folder / f"{key}-{name}.npy" for name in names}
    size = sum(path.stat().st_size for path in paths.values())
    # Copy on write: torch wants writable memory, and nothing here ever writes.
    mode: Literal["c"] | None = "c" if size > limit else None
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
