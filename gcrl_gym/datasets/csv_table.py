"""A CSV file as text rows with their line numbers, and its cells as numbers.

Blank lines and lines that begin with ``#`` are skipped but counted, so that messages name the line
that an editor shows::

    line   1  observation_0,action_0,terminated      the header: the first line that is not skipped
           2  # recorded on Monday                   skipped
           3  0.5,1.0,0                              row 0
           4                                         skipped
           5  0.7,1.0,true                           row 1
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gcrl_gym.datasets.array_checks import Places
from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.signatures import HEAD_BYTES, looks_like
from gcrl_gym.errors import UserError

_WORDS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Table:
    """Header and rows of a CSV file, cells not yet read.

    Args:
        path: the file.
        header: names of the columns.
        rows: text of each row.
        lines: line number of each row, ``(rows,)``.
    """

    path: Path
    header: list[str]
    rows: list[str]
    lines: npt.NDArray[np.int64]

    def line(self, row: int) -> str:
        """Name the file and the line of a row."""
        return f"{self.path}, line {self.lines[row]}"


class LinePlaces(Places):
    """Names rows by file and line.

    Args:
        table: where the rows are from.
    """

    def __init__(self, table: Table) -> None:
        super().__init__(f"{table.path}: ")
        self.table = table

    def at(self, name: str, row: int) -> str:
        """Name a row of an array."""
        return f"{self.table.line(row)}: {name}"

    def row(self, row: int) -> str:
        """Name a row of all arrays; messages that begin so get the file's name before them."""
        return f"line {self.table.lines[row]}"


def read_table(path: Path) -> Table:
    """Read the header and the rows of a CSV file.

    Raises:
        UserError: no such file, another kind of file, no text, no header, no rows.
    """
    lines = _text_lines(path)
    kept = [n for n, text in enumerate(lines) if text.strip() and text.lstrip()[0] != "#"]
    if not kept:
        raise UserError(f"{path} is empty; its first line must name the columns.")
    header = [name.strip() for name in _split(path, kept[0] + 1, lines[kept[0]])]
    if all(_is_number(name) for name in header):
        raise UserError(
            f"{path}, line {kept[0] + 1} holds numbers only; the first line must name the columns "
            "(without a # before them)."
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise UserError(f"{path}: the header names {twice} twice; rename one of them.")
    if len(kept) == 1:
        raise UserError(f"{path} has a header but no rows; a dataset needs one transition or more.")
    rows = [lines[n].partition("#")[0] for n in kept[1:]]
    return Table(path, header, rows, np.array(kept[1:]) + 1)


def read_cells(table: Table, names: Sequence[str], flags: Sequence[str]) -> Array:
    """Return the columns ``names`` as float64 ``(rows, names)``; true and false are 1 and 0.

    Args:
        table: the file.
        names: columns to read; others may hold anything.
        flags: those of the columns in which true and false are likely, for speed.

    Raises:
        UserError: a cell that is not a finite number, a row of another width; naming its line.
    """
    columns = [table.header.index(name) for name in names]
    cells = _fast(table, [table.header.index(name) for name in flags])
    values = _slow(table, columns) if cells is None else cells[:, columns]
    finite = np.isfinite(values)
    if not finite.all():
        row, column = (int(found[0]) for found in np.nonzero(~finite))
        raise UserError(
            f"{table.line(row)}: {names[column]} holds {values[row, column]}; every cell must be a "
            "finite number."
        )
    return values


def _text_lines(path: Path) -> list[str]:
    """Return the lines of a text file, a byte-order mark left out."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a CSV file with a header.")
    try:
        with open(path, "rb") as binary:
            head = binary.read(HEAD_BYTES)
        kind = looks_like(head)
        if head and not kind.startswith("something"):
            fix = "run git lfs pull, or download it again" if "LFS" in kind else "give a CSV file"
            raise UserError(f"{path} is {kind}, not a CSV file; {fix}.")
        with open(path, encoding="utf-8-sig") as file:
            return file.readlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a CSV file.") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text; give a CSV file, saved with the encoding UTF-8."
        ) from error


def _split(path: Path, line: int, text: str) -> list[str]:
    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:
        raise UserError(f"{path}, line {line} is no row of a CSV file ({error}).") from error


def _fast(table: Table, flags: list[int]) -> Array | None:
    """All cells, or None where one of them is no number: `_slow` says which."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cells = np.loadtxt(
                table.rows,
                delimiter=",",
                ndmin=2,
                comments=None,
                quotechar='"',
                converters=dict.fromkeys(flags, _number),
            )
        except ValueError:
            return None
    return cells if cells.shape == (len(table.rows), len(table.header)) else None


def _slow(table: Table, columns: list[int]) -> Array:
    """Read the cells of some columns one by one."""
    values = np.empty((len(table.rows), len(columns)))
    width = len(table.header)
    for row, text in enumerate(table.rows):
        cells = _split(table.path, int(table.lines[row]), text)
        if len(cells) != width:
            last = " (the last line: is the file cut short?)" if row == len(values) - 1 else ""
            raise UserError(
                f"{table.line(row)} has {len(cells)} cells but the header names {width} columns"
                f"{last}; give every row one cell per column."
            )
        for at, column in enumerate(columns):
            try:
                values[row, at] = _number(cells[column])
            except ValueError:
                raise UserError(
                    f"{table.line(row)}: {table.header[column]} holds {cells[column].strip()!r}; "
                    "every cell must be a finite number."
                ) from None
    return values


def _number(cell: str) -> float:
    word = _WORDS.get(cell.strip().lower())
    return float(cell) if word is None else word


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True
