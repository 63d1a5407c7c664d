"""Where episodes end in flat arrays: from flags, and from jumps of the state.

Flags are not always right: some files lack them, in others they stand a row beside the reset. A
reset shows in the states, so both are compared::

    row            0    1    2    3    4    5    6
    position       0.0  0.1  0.2  5.0  5.1  5.2  5.3      a jump between rows 2 and 3
    flag                     *                            end at 2: both agree
    flag                *                                 end at 2: moved by one row
    flag                          *                       end at 2: moved by one row
    flag                                    *             ends at 2 (added) and 5 (kept)

Everything here is a pure function of arrays of ``N`` rows; a flag of row ``t`` means that row
``t + 1`` begins another episode.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gcrl_gym.datasets.columns import Array

Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

JUMP_FACTOR = 5.0
"""A step this many times longer than its neighbours is a jump."""
_PIECE = 2**16  # rows compared at a time, so that checks take little memory


@dataclass(frozen=True)
class Bounds:
    """Where the episodes of a file are.

    Args:
        starts: first row of each episode.
        stops: row after the last one of each episode.
        terminated: whether each episode's last row is terminated (else it is truncated).
        tail: first row after the last end, the number of rows where nothing follows it.
        repaired: a sentence for each kind of end that was moved or added.
    """

    starts: Rows
    stops: Rows
    terminated: Flags
    tail: int
    repaired: tuple[str, ...]


def state_jumps(observations: Array, positions: int) -> Flags:
    """Find the rows between which and the next one the state jumps.

    Each position column is measured in units of its own median step (columns that rest half of
    the time are left out). A row jumps when its step is `JUMP_FACTOR` times as long as the longer
    of the steps before and after it, and as the median step of the file: a body speeds up and
    slows down over several rows, a reset moves it in one. On the files tried, ordinary steps
    reach 2.2 and resets begin at 10. What the rule misses: two resets in a row, and many resets of
    bodies that thrash as fast as a reset moves them (random policies of halfcheetah and ant), for
    which `find_bounds` has the time limit.

    Args:
        observations: ``(N, D)``.
        positions: how many leading columns are positions.

    Returns:
        ``(N,)`` booleans; the last row is False.
    """
    jumps = np.zeros(len(observations), bool)
    if len(observations) < 3:
        return jumps
    steps = np.abs(np.diff(observations[:, :positions].astype(np.float64), axis=0))
    scale = np.median(steps, axis=0)
    lengths = np.linalg.norm(steps[:, scale > 0] / scale[scale > 0], axis=1)
    usual = float(np.median(lengths))
    padded = np.concatenate(([0.0], lengths, [0.0]))
    around = np.maximum(np.maximum(padded[:-2], padded[2:]), usual)
    jumps[:-1] = (lengths > JUMP_FACTOR * around) & (around > 0)
    return jumps


def broken_rows(observations: Array, next_observations: Array) -> Flags:
    """Find the rows whose next observation is not the observation of the next row.

    Differences of a rounding to float32 are none.

    Args:
        observations: ``(N, D)``.
        next_observations: ``(N, D)``.

    Returns:
        ``(N,)`` booleans; the last row is False.
    """
    broken = np.zeros(len(observations), bool)
    for start in range(0, len(observations) - 1, _PIECE):
        stop = min(start + _PIECE, len(observations) - 1)
        same = np.isclose(
            next_observations[start:stop], observations[start + 1 : stop + 1], 1e-6, 1e-6
        )
        broken[start:stop] = ~same.all(axis=1)
    return broken


def align_flags(flags: Flags, jumps: Flags) -> tuple[Flags, Rows, Rows]:
    """Move flags that stand one row beside a jump to it.

    Args:
        flags: where the file says that episodes end, ``(N,)``.
        jumps: where the state jumps, ``(N,)``.

    Returns:
        The flags after moving; the rows flags came from; the jumps that have no flag.
    """
    aligned, came_from, unflagged = flags.copy(), [], []
    lone = flags & ~jumps
    for row in np.flatnonzero(jumps & ~flags):
        beside = [at for at in (row + 1, row - 1) if 0 <= at < len(flags) and lone[at]]
        if not beside:
            unflagged.append(row)
            continue
        lone[beside[0]] = aligned[beside[0]] = False
        aligned[row] = True
        came_from.append(beside[0])
    return aligned, np.array(came_from, np.int64), np.array(unflagged, np.int64)


def cut_at_limit(ends: Flags, limit: int) -> Rows:
    """Return the rows at which runs without an end reach ``limit`` rows, as D4RL cuts them.

    Args:
        ends: where episodes end, ``(N,)``.
        limit: most rows of an episode.
    """
    rows = np.arange(len(ends))
    starts = np.zeros(len(ends), np.int64)
    starts[1:] = np.maximum.accumulate(np.where(ends[:-1], rows[1:], 0))
    return np.flatnonzero(((rows - starts + 1) % limit == 0) & ~ends)


def find_bounds(
    terminals: Flags, timeouts: Flags, jumps: Flags, *, limit: int | None = None
) -> Bounds:
    """Combine flags and jumps to episodes.

    A row with both flags is terminated: where the task ended there is nothing to bootstrap from.
    A jump without a flag is a truncation.

    Args:
        terminals: ends of the task, ``(N,)``.
        timeouts: ends of the recording, ``(N,)``.
        jumps: rows after which the state jumps, ``(N,)``.
        limit: most rows of an episode, for files that do not flag time limits.
    """
    repaired = []
    both = np.flatnonzero(terminals & timeouts)
    if len(both):
        repaired.append(
            f"{_count(both, 'row')} with a terminal and a timeout at once: taken as terminated, "
            "since nothing follows the end of a task"
        )
    flags = terminals | timeouts
    ends, came_from, unflagged = align_flags(flags, jumps)
    if len(came_from):
        repaired.append(f"{_count(came_from, 'end')} moved by one row to where the state jumps")
    if len(unflagged):
        ends[unflagged] = True
        repaired.append(f"{_count(unflagged, 'end')} without a flag added where the state jumps")
    if limit is not None:
        late = cut_at_limit(ends, limit)
        ends[late] = True
        if len(late):
            repaired.append(f"{_count(late, 'end')} added after {limit} rows, the time limit")
    rows = np.flatnonzero(ends)
    # A terminal that was moved stands a row beside the end now.
    moved = np.zeros(len(terminals) + 2, bool)
    moved[came_from + 1] = terminals[came_from]
    beside = (moved[:-2] | moved[2:])[rows] & ~flags[rows]
    return Bounds(
        starts=np.concatenate((np.zeros(1, np.int64), rows + 1))[: len(rows)],
        stops=rows + 1,
        terminated=terminals[rows] | beside,
        tail=int(rows[-1]) + 1 if len(rows) else 0,
        repaired=tuple(repaired),
    )


def _count(rows: Rows, noun: str) -> str:
    """Say how many rows there are and which is the first."""
    return f"{len(rows)} {noun}{'s' if len(rows) != 1 else ''} (first: row {rows[0]})"
