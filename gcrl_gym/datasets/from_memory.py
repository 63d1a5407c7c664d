"""Build flat columns from arrays or episodes in memory, checking what the user passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gcrl_gym.datasets.columns import (
    Array,
    Columns,
    Layout,
    as_actions,
    as_numbers,
    column_dtype,
)
from gcrl_gym.errors import UserError

GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")


def columns_from_arrays(
    observations: npt.ArrayLike,
    actions: npt.ArrayLike,
    scalars: Mapping[str, npt.ArrayLike | None],
    *,
    next_observations: npt.ArrayLike | None,
    goals: Mapping[str, npt.ArrayLike | None],
) -> Columns:
    """Build columns from flat transitions; see `OfflineDataset.from_arrays` for the rules."""
    arrays = {
        "observations": as_numbers("observations", observations),
        "actions": as_actions("actions", actions),
    }
    count = len(arrays["observations"])
    if count == 0:
        raise UserError("observations is empty; a dataset needs at least one transition.")
    _require_rows("actions", arrays["actions"], count)
    rewards, terminated, truncated = (
        _scalar_column(name, scalars[name], count)
        for name in ("rewards", "terminated", "truncated")
    )
    arrays |= {"rewards": rewards, "terminated": terminated}
    arrays |= _goal_columns(goals, count, next_observations is not None)
    ends = _episode_ends(terminated != 0, truncated != 0)
    if next_observations is None:
        columns, rows = _place_without_next(arrays, ends)
    else:
        following = _checked_next(next_observations, arrays["observations"], ends)
        columns, rows = _place_with_next(arrays, following, ends)
    bad = columns.first_bad_value()
    if bad is not None:
        name, row, value = bad
        source = int(np.searchsorted(rows, row, side="right")) - 1
        raise UserError(
            f"{name}[{source}] holds {value}; remove or repair that row (values must fit float32)."
        )
    return columns


def columns_from_episodes(episodes: Sequence[Mapping[str, Any]]) -> Columns:
    """Build columns from whole episodes; see `OfflineDataset.from_episodes` for the rules."""
    if len(episodes) == 0:
        raise UserError("episodes is empty; a dataset needs at least one episode.")
    parts = [_episode_arrays(index, episode) for index, episode in enumerate(episodes)]
    layout = _layout(parts[0])
    for index, part in enumerate(parts):
        if _layout(part) != layout:
            raise UserError(
                f"episodes[{index}] has {_layout(part)} but episodes[0] has {layout}; "
                "every episode needs the same keys, shapes and dtypes."
            )
    lengths = [len(part["actions"]) for part in parts]
    columns = Columns.allocate(layout, sum(lengths), len(lengths))
    columns.lengths[:] = lengths
    views = {name: columns[name] for name in layout.slices}
    start = 0
    for part in parts:
        for name, array in part.items():
            put(views[name], slice(start, start + len(array)), array)
        start += len(part["actions"]) + 1
    columns.require_finite("episodes")
    return columns


def put(column: Array, rows: Any, values: Array) -> None:
    """Store ``values`` in ``column[rows]``, narrowing silently: `require_finite` checks later."""
    with np.errstate(over="ignore"):
        column[rows] = values.reshape(len(values), *column.shape[1:])


def _episode_arrays(index: int, episode: Mapping[str, Any]) -> dict[str, Array]:
    """Return the checked columns of one episode by column name."""
    name = f"episodes[{index}]"
    for key in ("observations", "actions"):
        if key not in episode:
            raise UserError(f"{name} has no {key!r}; it holds {sorted(episode)}.")
    arrays = {"actions": as_actions(f"{name}['actions']", episode["actions"])}
    steps = len(arrays["actions"])
    if steps == 0:
        raise UserError(f"{name} has no actions; an episode needs at least one transition.")
    states = episode["observations"]
    if isinstance(states, Mapping):
        if set(states) != set(GOAL_KEYS):
            raise UserError(
                f"{name}['observations'] has the keys {sorted(states)}; expected {list(GOAL_KEYS)}."
            )
        states = dict(zip(("observations", "achieved_goals", "desired_goals"),
                          (states[key] for key in GOAL_KEYS)))  # fmt: skip
    else:
        states = {"observations": states}
    for key, values in states.items():
        arrays[key] = as_numbers(f"{name} {key}", values)
        if len(arrays[key]) != steps + 1:
            raise UserError(
                f"{name} {key} has {len(arrays[key])} rows; expected {steps + 1}: one more than "
                f"its {steps} actions (the state after the last action)."
            )
    for key, source in (("rewards", "rewards"), ("terminated", "terminations")):
        if episode.get(source) is not None:
            arrays[key] = _scalar_column(f"{name} {source}", episode[source], steps)
    return arrays


def _layout(arrays: Mapping[str, Array]) -> Layout:
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


def _require_rows(name: str, array: Array, count: int) -> None:
    if array.ndim == 0 or len(array) != count:
        raise UserError(
            f"{name} has shape {array.shape}; expected {count} rows, as many as its transitions."
        )


def _scalar_column(name: str, values: npt.ArrayLike | None, count: int) -> Array:
    """Return one number per row, flattening ``(N, 1)``; zeros when None."""
    if values is None:
        return np.zeros(count, np.float32)
    array = as_numbers(name, values)
    if array.shape == (count, 1):
        array = array[:, 0]
    if array.shape != (count,):
        raise UserError(f"{name} has shape {array.shape}; expected ({count},).")
    return array


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
        _require_rows(name, array, count)
    shapes = {array.shape for array in given.values()}
    if len(shapes) > 1:
        raise UserError(
            f"achieved_goals has shape {given['achieved_goals'].shape} but desired_goals "
            f"{given['desired_goals'].shape}; expected equal shapes."
        )
    return given


def _episode_ends(terminated: Array, truncated: Array) -> Array:
    """Return int codes per row: 0 goes on, 1 ends by truncation, 2 by termination."""
    ends = np.where(terminated, 2, np.where(truncated, 1, 0))
    if ends[-1] == 0:
        raise UserError(
            f"row {len(ends) - 1}, the last one, is neither terminated nor truncated; set "
            "truncated=True there or drop the unfinished episode."
        )
    return ends


def _checked_next(values: npt.ArrayLike, observations: Array, ends: Array) -> Array:
    """Return next observations after checking that they continue the rows."""
    following = as_numbers("next_observations", values)
    if following.shape != observations.shape:
        raise UserError(
            f"next_observations has shape {following.shape}; expected {observations.shape}."
        )
    inside = np.flatnonzero(ends[:-1] == 0)
    differs = following[inside] != observations[inside + 1]
    differs &= ~(np.isnan(following[inside]) & np.isnan(observations[inside + 1]))
    broken = inside[differs.reshape(len(inside), -1).any(axis=1)]
    if len(broken):
        raise UserError(
            f"next_observations[{broken[0]}] differs from observations[{broken[0] + 1}] although "
            f"row {broken[0]} ends no episode; set truncated=True where the recording jumps."
        )
    return following


def _place_with_next(
    arrays: dict[str, Array], following: Array, ends: Array
) -> tuple[Columns, Array]:
    """Put each transition in a row and each episode's last next observation behind it."""
    last = np.flatnonzero(ends)
    rows = np.arange(len(ends)) + np.searchsorted(last, np.arange(len(ends)))
    columns = Columns.allocate(_layout(arrays), len(ends), len(last))
    columns.lengths[:] = np.diff(last, prepend=-1)
    for name, array in arrays.items():
        put(columns[name], rows, array)
    put(columns["observations"], rows[last] + 1, following[last])
    return columns, rows


def _place_without_next(arrays: dict[str, Array], ends: Array) -> tuple[Columns, Array]:
    """Turn truncated last rows into final states, and repeat the state of terminated ones."""
    last = np.flatnonzero(ends)
    terminal = np.flatnonzero(ends == 2)
    rows = np.arange(len(ends)) + np.searchsorted(terminal, np.arange(len(ends)))
    lengths = np.diff(last, prepend=-1) - (ends[last] == 1)
    if (lengths == 0).any():
        row = int(last[np.argmax(lengths == 0)])
        raise UserError(
            f"row {row} is an episode of its own that is truncated, so its next state is unknown; "
            "pass next_observations or drop the row."
        )
    columns = Columns.allocate(_layout(arrays), int(lengths.sum()), len(lengths))
    columns.lengths[:] = lengths
    is_step = ends != 1
    for name, array in arrays.items():
        states = name in ("observations", "achieved_goals", "desired_goals")
        put(columns[name], rows if states else rows[is_step], array if states else array[is_step])
        if states:
            put(columns[name], rows[terminal] + 1, array[terminal])
    return columns, rows
