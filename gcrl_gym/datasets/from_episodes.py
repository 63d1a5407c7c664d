"""Build flat columns from whole episodes in memory, checking what the user passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gcrl_gym.datasets.array_checks import (
    Places,
    Spaces,
    as_actions,
    as_column,
    as_flags,
    as_rows,
    first_break,
    require_observation_space,
)
from gcrl_gym.datasets.columns import Array, Columns, column_dtype
from gcrl_gym.datasets.from_memory import GOAL_KEYS, layout_of, put, warn_of_both_flags
from gcrl_gym.errors import UserError, nearest

Episode = Mapping[str, Any]

NEEDED = ("observations", "actions")
OPTIONAL = ("rewards", "terminations", "truncations", "next_observations")
UNREAD = ("id", "seed", "options", "infos")
"""Keys of Minari's episodes that the columns have no place for."""

_STATES = ("observations", "achieved_goals", "desired_goals")


def columns_from_episodes(episodes: Iterable[Episode], spaces: Spaces = (None, None)) -> Columns:
    """Build columns from whole episodes; see `OfflineDataset.from_episodes` for the rules.

    Args:
        episodes: see there.
        spaces: of one observation and one action, where the user gave them.
    """
    parts, both = [], []
    for index, episode in enumerate(_each(episodes)):
        part, has_both = _episode_arrays(index, episode, spaces)
        parts.append(part)
        both += [index] * has_both
    if not parts:
        raise UserError("episodes is empty; a dataset needs at least one episode.")
    _require_same(parts)
    if both:
        count = "1 episode ends" if len(both) == 1 else f"{len(both)} episodes end"
        # Seen from here the caller of from_episodes is two calls up.
        warn_of_both_flags(count, f"episodes[{both[0]}]", stacklevel=3)
    layout = layout_of(parts[0])
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


def _each(episodes: Iterable[Episode]) -> Iterable[Episode]:
    """Return what can be gone through once, one mapping after another."""
    if isinstance(episodes, (Mapping, str)) or not isinstance(episodes, Iterable):
        raise UserError(
            f"episodes is a {type(episodes).__name__}; pass a list of mappings, one per episode."
        )
    return episodes


def _episode_arrays(index: int, episode: Episode, spaces: Spaces) -> tuple[dict[str, Array], bool]:
    """Return the checked columns of one episode by name, and whether it ends with both flags."""
    name = f"episodes[{index}]"
    _require_keys(name, episode)
    places = Places(f"{name} ")
    arrays = {"actions": as_actions(episode["actions"], spaces[1], places)}
    steps = len(arrays["actions"])
    if steps == 0:
        raise UserError(f"{name} has no actions; an episode needs at least one transition.")
    states = _states(name, "observations", episode["observations"], steps + 1)
    require_observation_space(states, spaces[0], places)
    if episode.get("next_observations") is not None:
        _require_next(name, episode["next_observations"], states, steps)
    arrays |= states
    arrays["rewards"] = as_column(f"{name} rewards", episode.get("rewards"), steps)
    terminated = as_flags("terminations", episode.get("terminations"), steps, places)
    truncated = as_flags("truncations", episode.get("truncations"), steps, places)
    if truncated[:-1].any():
        raise UserError(
            f"{places.at('truncations', int(truncated.argmax()))} is set before the last step, "
            f"{steps - 1}; split the episode there."
        )
    return arrays | {"terminated": terminated}, bool(terminated[-1] and truncated[-1])


def _require_keys(name: str, episode: Episode) -> None:
    """Raise unless the episode is a mapping that has the keys it needs and no unknown one."""
    if not isinstance(episode, Mapping):
        raise UserError(
            f"{name} is a {type(episode).__name__}; pass a mapping with the keys "
            f"{', '.join(NEEDED)} (vars(episode) of a Minari episode)."
        )
    known = (*NEEDED, *OPTIONAL, *UNREAD)
    for key in episode:
        if key not in known:
            raise UserError(
                f"{name} has the unknown key {key!r}; known are {', '.join(known)}."
                f"{nearest(key, known)}"
            )
    for key in NEEDED:
        if key not in episode:
            raise UserError(f"{name} has no {key!r}; it holds {sorted(episode)}.")


def _states(name: str, key: str, values: Any, rows: int) -> dict[str, Array]:
    """Return states of ``rows`` rows by column: observations, and goals where there are any."""
    given = {"observations": values}
    names = {"observations": f"{name} {key}"}
    if isinstance(values, Mapping):
        if set(values) != set(GOAL_KEYS):
            raise UserError(
                f"{name}[{key!r}] has the keys {sorted(values)}; expected {list(GOAL_KEYS)}."
            )
        given = dict(zip(_STATES, (values[part] for part in GOAL_KEYS)))
        names = dict(zip(_STATES, (f"{name} {key} {part}" for part in GOAL_KEYS)))
    arrays = {column: as_rows(names[column], given[column]) for column in given}
    rule = f"one more than its {rows - 1} actions (the state after the last action)"
    if key == "next_observations":
        rule = "as many as its actions"
    for column, array in arrays.items():
        if len(array) != rows:
            raise UserError(f"{names[column]} has {len(array)} rows; expected {rows}: {rule}.")
    shapes = [arrays[column].shape for column in _STATES[1:] if column in arrays]
    if len(set(shapes)) > 1:
        raise UserError(
            f"{names['achieved_goals']} has shape {shapes[0]} but desired_goal {shapes[1]}; "
            "expected equal shapes."
        )
    return arrays


def _require_next(name: str, values: Any, states: dict[str, Array], steps: int) -> None:
    """Raise unless the next observations are the observations one row later."""
    following = _states(name, "next_observations", values, steps)
    if set(following) != set(states):
        raise UserError(
            f"{name} next_observations and observations differ in kind; pass two arrays or two "
            "mappings with the goal keys."
        )
    for column, array in following.items():
        later = states[column][1:]
        part = "" if len(states) == 1 else f" {GOAL_KEYS[_STATES.index(column)]}"
        if array.shape != later.shape:
            raise UserError(
                f"{name} next_observations{part} has shape {array.shape}; expected {later.shape}."
            )
        row = first_break(array, later)
        if row is not None:
            raise UserError(
                f"{name} next_observations{part}[{row}] differs from observations{part}"
                f"[{row + 1}]; the state after step {row} must be the next row, so correct it or "
                "leave next_observations out."
            )


def _require_same(parts: list[dict[str, Array]]) -> None:
    """Raise unless every episode has states and actions of the same shapes and dtypes."""
    first = _kinds(parts[0])
    for index, part in enumerate(parts):
        kinds = _kinds(part)
        if kinds == first:
            continue
        name = next(key for key in (*_STATES, "actions") if kinds.get(key) != first.get(key))
        found, usual = (
            f"rows of shape {own[name][0]} {own[name][1]}" if name in own else "none"
            for own in (kinds, first)
        )
        raise UserError(
            f"episodes[{index}] {name}: {found}, but episodes[0]: {usual}; every episode needs "
            "the same keys, shapes and dtypes."
        )


def _kinds(part: dict[str, Array]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of one row of each column; goals are always kept as float32."""
    return {
        name: (part[name].shape[1:], column_dtype(part[name]) if name in NEEDED else "float32")
        for name in (*_STATES, "actions")
        if name in part
    }
