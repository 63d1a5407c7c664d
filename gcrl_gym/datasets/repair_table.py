"""Arrays of a damaged source file: read what can be read, mark what is bad, write what is kept."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.finite import first_bad_row
from gcrl_gym.datasets.ogbench_reader import INFO_KEYS
from gcrl_gym.errors import UserError

Mask = npt.NDArray[np.bool_]

NEEDED = {
    ".npz": ("observations", "actions", "terminals"),
    ".hdf5": ("observations", "actions", "rewards", "terminals"),
}
_OPTIONAL = {
    ".npz": ("next_observations", "valids", *INFO_KEYS),
    ".hdf5": ("timeouts", "next_observations"),  # and infos/*
}


@dataclass
class Table:
    """The arrays of a file.

    Args:
        path: the file, for messages.
        rows: arrays with a row per state or transition, equally long, by key.
        others: what is kept as it is (npz only; the rest of an HDF5 file is copied).
        bad: rows that hold bad values, whose episodes are left out.
        left_out: keys that the copy does not have.
        done: one sentence per repair.
    """

    path: Path
    rows: dict[str, Array]
    others: dict[str, Array] = field(default_factory=dict)
    bad: Mask = field(default_factory=lambda: np.zeros(0, bool))
    left_out: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)

    def refuse(self, why: str) -> UserError:
        """Return the error for a file that cannot be repaired."""
        return UserError(f"{self.path} cannot be repaired: {why}.")


def read_npz(path: Path) -> dict[str, Array | str]:
    """Return the arrays by key, and why a key cannot be read in place of its array."""
    found: dict[str, Array | str] = {}
    key = ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive:
                try:
                    value = archive[key]
                except (ValueError, EOFError):  # pickled objects, or an empty member
                    value = None
                found[key] = value if isinstance(value, np.ndarray) else "it is no plain array"
    except MemoryError as error:
        raise UserError(f"{path}: {key} does not fit into memory; nothing is repaired.") from error
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        where = f" at {key!r}" if key else ""
        raise UserError(
            f"{path} cannot be repaired: it is damaged or incomplete{where}; download it again."
        ) from error
    return found


def read_hdf5(path: Path) -> dict[str, Array | str]:
    """Return the arrays with rows by path; what is left is copied later."""
    import h5py

    found: dict[str, Array | str] = {}
    key = ""

    def visit(name: str, item: Any) -> None:
        nonlocal key
        key = name
        if name in (*NEEDED[".hdf5"], *_OPTIONAL[".hdf5"]) and isinstance(item, h5py.Group):
            found[name] = "it is a group"
        elif isinstance(item, h5py.Dataset) and not name.startswith("metadata/"):
            plain = item.dtype.kind in "fiubSUc" and item.shape is not None
            found[name] = np.asarray(item[()]) if plain else "it is no plain array"

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
            for prefix, group in (("", file), ("infos/", file.get("infos"))):
                for name in group if isinstance(group, h5py.Group) else ():
                    item = group.get(name)  # also by links, which visititems does not follow
                    if item is None:
                        found[prefix + name] = "it leads nowhere"
                    elif prefix + name not in found:
                        visit(prefix + name, item)
    except MemoryError as error:
        raise UserError(f"{path}: {key} does not fit into memory; nothing is repaired.") from error
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        where = f" at {key!r}" if key else ""
        raise UserError(
            f"{path} cannot be repaired: it is damaged or incomplete{where}; download it again."
        ) from error
    return found


def make_table(path: Path, kind: str, arrays: Mapping[str, Array | str]) -> Table:
    """Take apart what is known and what is not, and cut the known arrays to one length."""
    table = Table(path, {})
    for key in NEEDED[kind]:
        array = arrays.get(key)
        if array is None:
            raise table.refuse(f"it has no {key!r}; download it again")
        wrong = _unusable(array)
        if wrong is not None or isinstance(array, str):
            raise table.refuse(f"{key} has no rows of numbers ({wrong}); download it again")
        table.rows[key] = array
    rows = min(len(array) for array in table.rows.values())
    names = [key for key in arrays if key in _OPTIONAL[kind]]
    if kind == ".hdf5":
        names += [key for key in arrays if key.startswith("infos/") or key == "infos"]
    for key in names:
        array = arrays[key]
        wrong = _unusable(array)
        if wrong is None and len(array) < rows / 2:
            wrong = f"it has {len(array)} of {rows} rows"
        if wrong is not None or isinstance(array, str):
            table.done.append(f"{key} left out: {wrong}")
            table.left_out.add(key)
        else:
            table.rows[key] = array
    _cut(table)
    _sort_others(table, {key: a for key, a in arrays.items() if key not in (*table.rows, *names)})
    return table


def _unusable(array: Array | str) -> str | None:
    """Say why an array cannot hold rows of numbers."""
    if isinstance(array, str):
        return array
    if array.dtype.kind not in "fiub":
        return f"dtype {array.dtype}"
    if array.ndim == 0:
        return "it is a single number"
    return "it is empty" if len(array) == 0 else None


def _cut(table: Table) -> None:
    lengths = {key: len(array) for key, array in table.rows.items()}
    rows = min(lengths.values())
    longer = sorted(key for key, length in lengths.items() if length != rows)
    if longer:
        table.done.append(
            f"{', '.join(longer)} cut to {rows} rows, the length of the shortest array"
        )
    table.rows = {key: array[:rows] for key, array in table.rows.items()}
    table.bad = np.zeros(rows, bool)


def _sort_others(table: Table, arrays: Mapping[str, Array | str]) -> None:
    """Unknown arrays as long as the rows lose rows with them; the others are kept as they are."""
    rows = len(table.bad)
    for key, array in arrays.items():
        if isinstance(array, str):
            continue  # HDF5: copied with the rest; npz: it cannot be written
        if array.ndim and len(array) == rows:
            table.rows[key] = array
        else:
            table.others[key] = array
    if table.path.suffix.lower() == ".npz":
        lost = sorted(key for key, array in arrays.items() if isinstance(array, str))
        table.done += [f"{key} left out: it is no plain array" for key in lost]


def read_flags(table: Table, key: str) -> Mask:
    """Return booleans for a flag that may be stored as other numbers, and say so."""
    array = table.rows[key]
    if array.size != len(array):
        raise table.refuse(f"{key} has shape {array.shape}; expected one number per row")
    values = array.reshape(-1)
    unknown = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    if unknown.any():
        table.bad |= unknown
        row = int(np.argmax(unknown))
        table.done.append(f"episodes with NaN in {key} left out, first row {row}")
    flags: Mask = (values != 0) & ~unknown
    marks = np.unique(values[flags])
    if len(marks) > 1:
        row = int(np.argmax(flags & (values != 1)))
        raise table.refuse(
            f"{key} holds several numbers besides 0, such as {values[row]} in row {row}; set it to "
            "0 or 1 by hand"
        )
    if len(marks) == 1 and marks[0] != 1:
        table.done.append(f"{key} holds {marks[0]} where it should be 1: replaced by 1")
    return flags


def mark_bad(table: Table, keys: tuple[str, ...]) -> None:
    """Mark the rows of some arrays that hold NaN, infinity or more than float32 can."""
    largest = np.finfo(np.float32).max
    for key in keys:
        array = table.rows.get(key)
        row = None if array is None else first_bad_row(array)
        if array is not None and row is not None:
            good = np.abs(array.reshape(len(array), -1)) <= largest
            table.bad |= ~good.all(axis=1)
            table.done.append(f"episodes with NaN or infinity in {key} left out, first row {row}")


def kept_rows(table: Table, ends: Mask, shortest: Mask) -> Mask:
    """Return the rows to keep: those of episodes without bad rows and of sufficient length.

    Args:
        table: the arrays.
        ends: rows that end an episode; the last one must.
        shortest: rows which, alone, are an episode too short.
    """
    episode: npt.NDArray[np.int64] = np.cumsum(ends) - ends
    count = int(episode[-1]) + 1
    sound = np.ones(count, bool)
    sound[np.unique(episode[table.bad])] = False
    short = (np.bincount(episode, minlength=count) < 2)[episode] & shortest
    short &= sound[episode]
    if short.any():
        table.done.append(
            f"{int(short.sum())} episode(s) of a single row left out, first row {np.argmax(short)}"
        )
    keep: Mask = sound[episode] & ~short
    if not keep.any():
        raise table.refuse("no episode is sound")
    return keep


def write_npz(table: Table, path: Path) -> None:
    """Write the mended arrays, and those that are no rows as they are."""
    with open(path, "wb") as file:
        np.savez_compressed(file, **table.rows, **table.others)  # type: ignore[arg-type]


def write_hdf5(table: Table, path: Path) -> None:
    """Write the mended arrays, and everything else of the original as it is."""
    import h5py

    with h5py.File(table.path, "r") as source, h5py.File(path, "w") as file:
        file.attrs.update(source.attrs)
        for key, array in table.rows.items():
            file.create_dataset(key, data=array, compression="gzip")

        def copy(name: str, item: Any) -> None:
            if name in table.rows or any(f"{name}/".startswith(f"{k}/") for k in table.left_out):
                return
            if isinstance(item, h5py.Group):
                file.require_group(name).attrs.update(item.attrs)
            else:
                parent, _, last = name.rpartition("/")
                source.copy(item, file.require_group(parent) if parent else file, name=last)

        source.visititems(copy)
