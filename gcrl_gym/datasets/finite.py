"""Where an array holds NaN or infinity."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gcrl_gym.datasets.columns import Array
from gcrl_gym.errors import UserError

_PIECE = 2**16  # rows looked at together, so that the search takes little memory


def first_bad_row(array: Array) -> int | None:
    """Return the first row that holds NaN or infinity, None where there is none.

    Args:
        array: ``(N, ...)``, of any type; only floats can be bad.
    """
    if array.dtype.kind != "f":
        return None
    for start in range(0, len(array), _PIECE):
        finite = np.isfinite(array[start : start + _PIECE])
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
            f"{path}: {key} holds NaN or infinity in row {row}; repair or download it again."
        )
