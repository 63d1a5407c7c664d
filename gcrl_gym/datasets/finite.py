"""Values no agent can learn from: NaN, infinity, more than float32 holds, odd flags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from gcrl_gym.datasets.columns import Array
from gcrl_gym.errors import UserError

Flags = npt.NDArray[np.bool_]
_PIECE = 2**16  # rows looked at together, so that the search takes little memory
_LARGEST = np.finfo(np.float32).max  # a float32 number, as float16 has none so large


def first_bad_row(array: Array) -> int | None:
    """Return the first row that holds NaN, infinity or more than float32 can, None without one.

    Args:
        array: ``(N, ...)``, of any type; only floats can be bad.
    """
    if array.dtype.kind != "f":
        return None
    for start in range(0, len(array), _PIECE):
        finite = np.abs(array[start : start + _PIECE]) <= _LARGEST
        if not finite.all():
            return start + int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
    return None


def require_finite(path: Path, key: str, array: Array) -> None:
    """Refuse an array of a file that holds NaN or infinity.

    Raises:
        UserError: naming file, key and row.
    """
    row = first_bad_row(array)
    if row is not None:
        raise UserError(
            f"{path}: {key} holds NaN or infinity in row {row} (as float32); repair or download it "
            "again."
        )


def as_flags(path: Path, key: str, array: Array) -> Flags:
    """Return booleans for the 0 and 1 of a file, whatever type they are stored in.

    Raises:
        UserError: other values, naming file, key and row.
    """
    wrong = np.flatnonzero((array != 0) & (array != 1))
    if len(wrong):
        raise UserError(
            f"{path}: {key} holds {array[wrong[0]]} in row {wrong[0]}; expected 0 or 1."
        )
    flags: Flags = array != 0
    return flags
