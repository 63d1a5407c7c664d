"""Flat columns of an offline dataset: how one row is packed, and the checks on its numbers.

An episode of ``T`` transitions takes ``T + 1`` rows, so that the next observation of row ``t``
is row ``t + 1`` and no observation is stored twice. Every float column lives in one matrix::

    row   | observation (D) | action (A) | reward | terminated | achieved (G) | desired (G) |
    0     | s0              | a0         | r0     | 0          | ...
    1     | s1              | a1         | r1     | 1          | ...
    2     | s2              | 0          | 0      | 0          |  <- last state of the episode

so a batch is one gather and a cache is one file. Integer columns (images, discrete actions)
stay beside it in their own dtype.
"""

from __future__ import annotations

import logging
import math
import mmap
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gcrl_gym.errors import UserError

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
LARGE_BYTES = 2**30  # an allocation above this is announced
RELEASE_BYTES = 2**26
"""A pass over mapped columns gives its pages back to the system after so many bytes."""
_CHECK_ROWS = 2**14


@dataclass(frozen=True)
class Layout:
    """Shapes and dtypes of the columns, and where the float ones sit in a packed row.

    Args:
        observation_shape: shape of one observation, ``()`` for one integer.
        observation_dtype: ``"float32"`` (packed) or the integer dtype kept beside the rows.
        action_shape: ``(A,)``, or ``()`` for one integer.
        action_dtype: ``"float32"`` (packed) or ``"int64"``.
        achieved_dim: width of the achieved goal column, 0 when there is none.
        desired_dim: width of the desired goal column, 0 when there is none.
    """

    observation_shape: tuple[int, ...]
    observation_dtype: str
    action_shape: tuple[int, ...]
    action_dtype: str
    achieved_dim: int = 0
    desired_dim: int = 0

    @property
    def slices(self) -> dict[str, slice]:
        """Columns of a packed row by name, in row order."""
        widths = {
            "observations": self._packed_width(self.observation_shape, self.observation_dtype),
            "actions": self._packed_width(self.action_shape, self.action_dtype),
            "rewards": 1,
            "terminated": 1,
            "achieved_goals": self.achieved_dim,
            "desired_goals": self.desired_dim,
        }
        ends = np.cumsum(list(widths.values())).tolist()
        return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends)}

    @property
    def width(self) -> int:
        """Number of float32 values in one packed row."""
        width: int = self.slices["desired_goals"].stop
        return width

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one entry of column ``name``."""
        shapes: dict[str, tuple[int, ...]] = {
            "observations": self.observation_shape,
            "actions": self.action_shape,
            "achieved_goals": (self.achieved_dim,),
            "desired_goals": (self.desired_dim,),
        }
        return shapes.get(name, ())

    def integer_columns(self) -> dict[str, str]:
        """Names and dtypes of the columns kept outside the packed rows."""
        dtypes = {"observations": self.observation_dtype, "actions": self.action_dtype}
        return {name: dtype for name, dtype in dtypes.items() if dtype != "float32"}

    def tables(self, rows: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each array that holds ``rows`` rows: the packed matrix, integers."""
        tables: dict[str, tuple[tuple[int, ...], str]] = {"rows": ((rows, self.width), "float32")}
        for name, dtype in self.integer_columns().items():
            tables[name] = ((rows, *self.shape(name)), dtype)
        return tables

    def nbytes(self, rows: int) -> int:
        """Bytes taken by ``rows`` rows."""
        return sum(
            math.prod(shape) * np.dtype(dtype).itemsize
            for shape, dtype in self.tables(rows).values()
        )

    @staticmethod
    def _packed_width(shape: tuple[int, ...], dtype: str) -> int:
        return math.prod(shape) if dtype == "float32" else 0


@dataclass
class Columns:
    """The flat columns themselves.

    Args:
        layout: what the columns are.
        rows: packed float32 matrix ``(rows, layout.width)``.
        lengths: transitions of each episode, int64 ``(episodes,)``; an episode takes one row more.
        integers: columns outside the matrix by name, each ``(rows, *shape)``.
    """

    layout: Layout
    rows: Array
    lengths: npt.NDArray[np.int64]
    integers: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def allocate(cls, layout: Layout, steps: int, episodes: int) -> Columns:
        """Return zeroed columns in memory, lengths included, announcing a large allocation."""
        count = steps + episodes
        size = layout.nbytes(count)
        if size > LARGE_BYTES:
            logger.warning(
                "Allocating %.1f GiB of memory for %d dataset rows.", size / 2**30, count
            )
        arrays = {name: np.zeros(shape, dt) for name, (shape, dt) in layout.tables(count).items()}
        return cls(layout, arrays.pop("rows"), np.zeros(episodes, np.int64), arrays)

    def __getitem__(self, name: str) -> Array:
        """Column ``name`` as ``(rows, *shape)``: a view of the packed rows, or its own array."""
        if name in self.integers:
            return self.integers[name]
        packed = self.rows[:, self.layout.slices[name]]
        return packed.reshape(len(self.rows), *self.layout.shape(name))

    @property
    def nbytes(self) -> int:
        """Memory taken by the columns."""
        return int(self.rows.nbytes + sum(column.nbytes for column in self.integers.values()))

    @property
    def episode_ends(self) -> npt.NDArray[np.int64]:
        """Last row of each episode, int64 ``(episodes,)``."""
        ends: npt.NDArray[np.int64] = np.cumsum(self.lengths + 1) - 1
        return ends

    def first_bad_value(self, state_only: bool = False) -> tuple[str, int, float] | None:
        """Return ``(column, row, value)`` of the first value that must not be there, or None.

        Args:
            state_only: all actions may be NaN; then an action that is a number is what must not
                be there. Without it, or where the first action is a number: NaN and infinity.
        """
        actions = self.layout.slices["actions"]
        absent = state_only and bool(np.isnan(self.rows[0, actions]).any())
        ends, passed = self.episode_ends, 0
        for start in range(0, len(self.rows), _CHECK_ROWS):
            block = self.rows[start : start + _CHECK_ROWS]
            good = np.isfinite(block)
            if absent:
                good[:, actions] = np.isnan(block[:, actions])
                first, last = np.searchsorted(ends, (start, start + len(block)))
                good[ends[first:last] - start, actions] = True  # final states have no action
            if not good.all():
                row, position = (int(found[0]) for found in np.nonzero(~good))
                name = next(
                    n for n, s in self.layout.slices.items() if s.start <= position < s.stop
                )
                return name, start + row, float(block[row, position])
            passed += block.nbytes
            if passed > RELEASE_BYTES:
                passed = 0
                self.release()
        return None

    def release(self) -> None:
        """Drop the pages of columns mapped for writing from this process's resident memory.

        Nothing is lost: the pages stay in the system's page cache until they are on disk.
        """
        for array in (self.rows, *self.integers.values()):
            # Private ("copy on write") mappings would lose what was written to them.
            if isinstance(array, np.memmap) and array.mode in ("r+", "w+"):
                mapping = array.base
                if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                    mapping.madvise(mmap.MADV_DONTNEED)

    def place(self, row: int) -> tuple[int, int]:
        """Return ``(episode, step)`` of a row."""
        ends = self.episode_ends
        episode = int(np.searchsorted(ends, row))
        return episode, row - int(ends[episode] - self.lengths[episode])

    def require_finite(self, source: str, state_only: bool = False) -> None:
        """Raise UserError naming ``source``, column, episode and step of a NaN or infinity.

        Args:
            source: what the message begins with.
            state_only: the actions may be NaN, all of them; partly NaN is an error.
        """
        bad = self.first_bad_value(state_only)
        if bad is None:
            return
        name, row, value = bad
        episode, step = self.place(row)
        fix = "remove or repair that episode (values must also fit float32)."
        if state_only and name == "actions" and not math.isinf(value):
            fix = "state-only data has NaN in all of its actions or in none: correct that row."
        raise UserError(
            f"{source}: {name} holds {value} in episode {episode} at step {step} (row {row}); {fix}"
        )


def as_numbers(name: str, values: Any) -> Array:
    """Return ``values`` as a numeric or boolean array in this machine's byte order.

    Raises:
        UserError: for ragged, object or text arrays.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise UserError(f"{name} is ragged{_odd_row(values)}; give rows of one length.") from None
    except (TypeError, RuntimeError):  # what some tensors raise
        kind = type(values).__name__
        raise UserError(f"{name} is a {kind} that NumPy cannot read; pass an array.") from None
    if array.dtype.kind not in "fiub":
        raise UserError(f"{name} has dtype {array.dtype}; expected numbers or booleans.")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _odd_row(values: Any) -> str:
    """Say which row of a ragged list is not as long as the first, "" where that is not it."""
    if not isinstance(values, (list, tuple)):
        return ""
    sizes = [len(row) if hasattr(row, "__len__") else None for row in values]
    odd = next((row for row, size in enumerate(sizes) if size != sizes[0]), None)
    if odd is None:
        return ""
    found, usual = (
        "a single number" if size is None else f"of length {size}"
        for size in (sizes[odd], sizes[0])
    )
    return f" (row {odd} is {found}, row 0 {usual})"


def column_dtype(array: Array) -> str:
    """Dtype in which a column is kept: integers as stored, everything else float32."""
    return str(array.dtype) if array.dtype.kind in "iu" else "float32"
