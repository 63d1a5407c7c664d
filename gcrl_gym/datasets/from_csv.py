"""Read transitions from a CSV file with a header, one row per step."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcrl_gym.datasets.columns import Array
from gcrl_gym.errors import UserError, nearest

Names = Mapping[str, str | Sequence[str]]

ARRAYS = ("observations", "actions", "next_observations", "achieved_goals", "desired_goals")
"""Parts of any width: by default the columns ``observation_0``, ``observation_1``, .."""

SCALARS = ("rewards", "terminated", "truncated", "episode")
"""Parts of one column: by default ``reward``, ``terminated``, ``truncated``, ``episode``."""


def arrays_from_csv(path: str | Path, columns: Names | None = None) -> dict[str, Array]:
    """Return the arguments of `OfflineDataset.from_arrays` that a CSV file holds.

    Args:
        path: the file; its first line names the columns.
        columns: part -> column or columns of the file, for names other than the default ones.

    Raises:
        UserError: no such file, unknown columns, or a cell that is not a number (naming its line).
    """
    path = Path(path)
    header = _header(path)
    chosen = _chosen(path, header, columns or {})
    table = _numbers(path, header)
    found: dict[str, Array] = {}
    for part, names in chosen.items():
        values = table[:, [header.index(name) for name in names]]
        is_index = part == "actions" and names == ["action"] and (values == np.rint(values)).all()
        found[part] = values[:, 0] if part in SCALARS or is_index else values
        if is_index:
            found[part] = found[part].astype(np.int64)
    return _with_ends(path, found)


def _header(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a CSV file with a header.")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header = [name.strip() for name in next(csv.reader(file), [])]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file ({error}); give a CSV file.") from error
    if not header:
        raise UserError(f"{path} is empty; its first line must name the columns.")
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise UserError(f"{path}: the header names {sorted(twice)} twice; rename one of them.")
    return header


def _chosen(path: Path, header: list[str], given: Names) -> dict[str, list[str]]:
    """Columns of the file that make up each part."""
    for part, names in given.items():
        if part not in (*ARRAYS, *SCALARS):
            raise UserError(
                f"columns has no part {part!r}; parts are {', '.join((*ARRAYS, *SCALARS))}."
                f"{nearest(part, (*ARRAYS, *SCALARS))}"
            )
        for name in [names] if isinstance(names, str) else names:
            if name not in header:
                raise UserError(f"{path} has no column {name!r}.{nearest(name, header)}")
    chosen = {}
    for part in (*ARRAYS, *SCALARS):
        names = given.get(part, _default_names(part, header))
        chosen[part] = [names] if isinstance(names, str) else list(names)
    for part in ("observations", "actions"):
        if not chosen[part]:
            raise UserError(
                f"{path} has no columns {part[:-1]}_0, {part[:-1]}_1, ..; it has "
                f"{', '.join(header)}. Pass columns={{{part!r}: [names]}}."
            )
    return {part: names for part, names in chosen.items() if names}


def _default_names(part: str, header: list[str]) -> list[str]:
    stem = part.removesuffix("s") if part != "episode" else part
    if part in SCALARS:
        return [stem] if stem in header else []
    numbered = [name for name in header if re.fullmatch(rf"{stem}_\d+", name)]
    numbered.sort(key=lambda name: int(name.rpartition("_")[2]))
    return numbered or ([stem] if stem in header else [])


def _numbers(path: Path, header: list[str]) -> Array:
    """All cells, float64; ``true`` and ``false`` count as 1 and 0."""
    with open(path, encoding="utf-8") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a file without rows, which is an error below
        try:
            table = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2, converters=_number)
        except ValueError as error:
            place = re.search(r"row (\d+)", str(error))
            first = 1 if "changed" in str(error) else 2  # numpy counts these rows from 1
            line = f"line {int(place[1]) + first}" if place else "a line"
            raise UserError(f"{path}, {line}: {error}; every cell must be a number.") from error
    if len(table) == 0:
        raise UserError(f"{path} has a header but no rows; a dataset needs one transition or more.")
    if table.shape[1] != len(header):
        raise UserError(
            f"{path} names {len(header)} columns but its rows have {table.shape[1]} cells."
        )
    return np.asarray(table)


def _number(cell: str) -> float:
    flags = {"true": 1.0, "false": 0.0}
    text = cell.strip()
    return flags[text.lower()] if text.lower() in flags else float(text)


def _with_ends(path: Path, arrays: dict[str, Array]) -> dict[str, Any]:
    """Turn the episode numbers, where there are any, into the flag of truncation."""
    episode = arrays.pop("episode", None)
    if episode is None:
        return arrays
    ends = np.append(episode[1:] != episode[:-1], True)
    order = episode[ends]
    if len(np.unique(order)) != len(order):
        again = int(np.flatnonzero(ends)[np.argmax([v in order[:i] for i, v in enumerate(order)])])
        raise UserError(
            f"{path}, line {again + 2}: episode {episode[again]:g} comes back after another one; "
            "sort the rows by episode and step."
        )
    terminated = arrays.get("terminated", np.zeros(len(ends))) != 0
    truncated = arrays.get("truncated", np.zeros(len(ends))) != 0
    arrays["truncated"] = (truncated | ends) & ~terminated
    return arrays
