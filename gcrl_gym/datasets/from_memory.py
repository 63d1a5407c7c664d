"""Build flat columns from flat arrays in memory, checking what the user passed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gcrl_gym.datasets.array_checks import (
    Flags,
    Places,
    Spaces,
    as_actions,
    as_column,
    as_flags,
    as_rows,
    first_break,
    require_observation_space,
    require_rows,
)
from gcrl_gym.datasets.columns import Array, Columns, Layout, as_numbers, column_dtype
from gcrl_gym.errors import UserError

GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")


def columns_from_arrays(
    observations: npt.ArrayLike,
    actions: npt.ArrayLike,
    scalars: Mapping[str, npt.ArrayLike | None],
    *,
    next_observations: npt.ArrayLike | None,
    goals: Mapping[str, npt.ArrayLike | None],
    spaces: Spaces = (None, None),
    places: Places | None = None,
) -> Columns:
    """Build columns from flat transitions; see `OfflineDataset.from_arrays` for the rules.

    Args:
        observations: see there.
        actions: see there.
        scalars: ``rewards``, ``terminated`` and ``truncated``.
        next_observations: see there.
        goals: ``achieved_goals`` and ``desired_goals``.
        spaces: of one observation and one action, where the user gave them.
        places: how messages name a row.
    """
    places = places or Places()
    states = as_rows("observations", observations)
    count = len(states)
    if count == 0:
        raise UserError("observations is empty; a dataset needs at least one transition.")
    arrays = {"observations": states, "actions": as_actions(actions, spaces[1], places)}
    require_rows("actions", arrays["actions"], count)
    terminated, truncated = (
        as_flags(name, scalars[name], count, places) for name in ("terminated", "truncated")
    )
    arrays["rewards"] = as_column("rewards", scalars["rewards"], count)
    arrays["terminated"] = terminated
    arrays |= _goal_columns(goals, count, next_observations is not None)
    require_observation_space(arrays, spaces[0], places)
    ends = _episode_ends(terminated, truncated, places)
    following = None
    if next_observations is None:
        columns, rows = _place_without_next(arrays, ends, places)
    else:
        following = _checked_next(next_observations, states, ends, places)
        columns, rows = _place_with_next(arrays, following, ends)
    _require_finite(columns, rows, following is not None, places)
    return columns


def put(column: Array, rows: Any, values: Array) -> None:
    """Store ``values`` in ``column[rows]``, narrowing silently: `require_finite` checks later."""
    with np.errstate(over="ignore"):
        column[rows] = values.reshape(len(values), *column.shape[1:])


def layout_of(arrays: Mapping[str, Array]) -> Layout:
    """Layout that holds these arrays; a missing goal has width 0."""

    def width(name: str) -> int:
        return int(np.prod(arrays[name].shape[1:])) if name in arrays else 0

    return Layout(
        observation_shape=arrays["observations"].shape[1:],
        observation_dtype=column_dtype(arrays["observations"]),
        action_shape=arrays["actions"].shape[1:],
        action_dtype=column_dtype(arrays["actions"]),
        achieved_dim=width("achieved_goals"),
        desired_dim=width("desired_goals"),
    )


def warn_of_both_flags(what: str, first: str, stacklevel: int) -> None:
    """Warn, in one sentence, of rows with both flags: there `terminated` holds."""
    warnings.warn(
        f"{what} both terminated and truncated (first: {first}): taken as terminated, since "
        "nothing follows the end of a task.",
        stacklevel=stacklevel + 1,
    )


def _require_finite(columns: Columns, rows: Array, has_next: bool, places: Places) -> None:
    """Raise for the first value that is not finite, naming the array and row it came from."""
    bad = columns.first_bad_value()
    if bad is None:
        return
    name, row, value = bad
    source = int(np.searchsorted(rows, row, side="right")) - 1
    if has_next and name == "observations" and rows[source] != row:
        name = "next_observations"  # the last state of an episode
    raise UserError(
        f"{places.at(name, source)} holds {value}; remove or repair that row (values must fit "
        "float32)."
    )


def _goal_columns(
    goals: Mapping[str, npt.ArrayLike | None], count: int, has_next: bool
) -> dict[str, Array]:
    """Return both goal columns, or none."""
    given = {key: as_numbers(key, value) for key, value in goals.items() if value is not None}
    if not given:
        return {}
    if len(given) == 1:
        raise UserError(f"{next(iter(given))} is given alone; pass achieved and desired goals.")
    if has_next:
        raise UserError(
            "achieved_goals with next_observations leaves the last achieved goal of each episode "
            "unknown; pass whole episodes to OfflineDataset.from_episodes."
        )
    for name, array in given.items():
        require_rows(name, array, count)
    shapes = {array.shape for array in given.values()}
    if len(shapes) > 1:
        raise UserError(
            f"achieved_goals has shape {given['achieved_goals'].shape} but desired_goals "
            f"{given['desired_goals'].shape}; expected equal shapes."
        )
    return given


def _episode_ends(terminated: Flags, truncated: Flags, places: Places) -> Array:
    """Return int codes per row: 0 goes on, 1 ends by truncation, 2 by termination."""
    ends = np.where(terminated, 2, np.where(truncated, 1, 0))
    if ends[-1] == 0:
        raise UserError(
            f"{places.row(len(ends) - 1)}, the last one, is neither terminated nor truncated; set "
            "truncated=True there or drop the unfinished episode."
        )
    both = np.flatnonzero(terminated & truncated)
    if len(both):
        count = "1 row is" if len(both) == 1 else f"{len(both)} rows are"
        # Seen from here the caller of from_arrays is three calls up.
        warn_of_both_flags(f"{places.prefix}{count}", places.row(both[0]), stacklevel=4)
    return ends


def _checked_next(values: npt.ArrayLike, observations: Array, ends: Array, places: Places) -> Array:
    """Return next observations after checking that they continue the rows."""
    name = "next_observations"
    following = as_numbers(name, values)
    if following.shape != observations.shape:
        raise UserError(f"{name} has shape {following.shape}; expected {observations.shape}.")
    row = first_break(following[:-1], observations[1:], ends[:-1] == 0)
    if row is None:
        return following
    odd = following[row][~np.isfinite(following[row])]
    if odd.size:
        raise UserError(f"{places.at(name, row)} holds {odd[0]}; remove or repair that row.")
    raise UserError(
        f"{places.at(name, row)} differs from the observations of {places.row(row + 1)} although "
        f"{places.row(row)} ends no episode; set truncated=True where the recording jumps."
    )


def _place_with_next(
    arrays: dict[str, Array], following: Array, ends: Array
) -> tuple[Columns, Array]:
    """Put each transition in a row and each episode's last next observation behind it."""
    last = np.flatnonzero(ends)
    rows = np.arange(len(ends)) + np.searchsorted(last, np.arange(len(ends)))
    columns = Columns.allocate(layout_of(arrays), len(ends), len(last))
    columns.lengths[:] = np.diff(last, prepend=-1)
    for name, array in arrays.items():
        put(columns[name], rows, array)
    put(columns["observations"], rows[last] + 1, following[last])
    return columns, rows


def _place_without_next(
    arrays: dict[str, Array], ends: Array, places: Places
) -> tuple[Columns, Array]:
    """Turn truncated last rows into final states, and repeat the state of terminated ones."""
    last = np.flatnonzero(ends)
    terminal = np.flatnonzero(ends == 2)
    rows = np.arange(len(ends)) + np.searchsorted(terminal, np.arange(len(ends)))
    lengths = np.diff(last, prepend=-1) - (ends[last] == 1)
    if (lengths == 0).any():
        row = int(last[np.argmax(lengths == 0)])
        raise UserError(
            f"{places.row(row)} is an episode of its own that is truncated, so its next state is "
            "unknown; pass next_observations or drop the row."
        )
    columns = Columns.allocate(layout_of(arrays), int(lengths.sum()), len(lengths))
    columns.lengths[:] = lengths
    is_step = ends != 1
    for name, array in arrays.items():
        states = name in ("observations", "achieved_goals", "desired_goals")
        put(columns[name], rows if states else rows[is_step], array if states else array[is_step])
        if states:
            put(columns[name], rows[terminal] + 1, array[terminal])
    return columns, rows
