"""What is wrong with the arrays of one Minari episode, in the words of ``check`` and of loading.

An episode of ``T`` steps holds ``T + 1`` observations and ``T`` of everything else; its infos have
``T + 1`` rows, or ``T``. Its group is the episode, so a last step without a flag is truncated. A
termination before the last step marks a state from which no bootstrap goes on (single-task OGBench,
D4RL's antmaze); a truncation there is an error. A step with both flags, which Gymnasium allows, is
terminated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.finite import first_bad_row

STEP_KEYS = ("actions", "rewards", "terminations", "truncations")
FLAGS = ("terminations", "truncations")
STATE_INFOS = ("achieved_goal", "desired_goal", "goal", "qpos", "qvel", "state")
"""Infos that tell a state or goal, in which a bad value is a defect; elsewhere it is a note."""

Spaces = dict[str, gym.Space[Any] | None]
"""Space of each array of an episode by its path; None for one number per step."""


def leaf_spaces(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> Spaces:
    """Return the arrays that an episode must have."""
    found: Spaces = {}

    def visit(key: str, space: gym.Space[Any]) -> None:
        if isinstance(space, spaces.Dict):
            for name, part in space.items():
                visit(f"{key}/{name}", part)
        elif isinstance(space, spaces.Tuple):
            for place, part in enumerate(space.spaces):
                visit(f"{key}/_index_{place}", part)
        else:
            found[key] = space

    visit("observations", observation_space)
    visit("actions", action_space)
    return {**found, "rewards": None, "terminations": None, "truncations": None}


def leaves(key: str, value: Any) -> Iterator[tuple[str, Array]]:
    """Yield the arrays of nested dictionaries and tuples by their path."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(f"{key}/{name}", part)
    elif isinstance(value, tuple):
        for place, part in enumerate(value):
            yield from leaves(f"{key}/_index_{place}", part)
    else:
        try:
            yield key, np.asarray(value)
        except ValueError:  # rows of different lengths
            yield key, np.empty(len(value), object)


def episode_arrays(episode: Any) -> dict[str, Array]:
    """Return the arrays of an episode as Minari reads it, infos aside, by their path."""
    arrays = dict(leaves("observations", episode.observations))
    for name in STEP_KEYS:
        arrays |= leaves(name, getattr(episode, name))
    return arrays


def count_steps(arrays: Mapping[str, Array]) -> int:
    """Return the number of steps that most of the arrays of an episode have."""
    found = [len(a) for key, a in arrays.items() if not is_state(key) and a.ndim]
    found += [max(len(a) - 1, 0) for key, a in arrays.items() if is_state(key) and a.ndim]
    return Counter(found).most_common(1)[0][0] if found else 0


def is_state(key: str) -> bool:
    """Return whether an array has a row for the last state of an episode too."""
    return key.split("/")[0] == "observations"


def episode_defects(
    arrays: Mapping[str, Array], expected: Spaces, state_only: bool = False, finite: bool = True
) -> Iterator[str]:
    """Yield the defects of the arrays of an episode, one sentence each.

    Args:
        arrays: what the episode holds, by path.
        expected: see `leaf_spaces`.
        state_only: the actions are to be NaN.
        finite: look for NaN and infinity in floats too.
    """
    steps = count_steps(arrays)
    if steps == 0:
        yield "it has no steps"
        return
    for key, space in expected.items():
        found = list(_defects(key, arrays.get(key), space, steps, state_only, finite))
        yield from found
        if not found and key == "truncations":
            early = np.flatnonzero(arrays[key].reshape(-1)[:-1])
            if len(early):
                yield f"truncations is set at step {early[0]}, before its last step {steps - 1}"


def _defects(
    key: str,
    array: Array | None,
    space: gym.Space[Any] | None,
    steps: int,
    state_only: bool,
    finite: bool,
) -> Iterator[str]:
    if array is None:
        yield f"it has no {key!r}"
        return
    layout = layout_defect(key, array.shape, array.dtype, space)
    if layout is not None:
        yield layout
        return
    rows = steps + is_state(key)
    if len(array) != rows:
        yield f"{key} has {len(array)} rows; expected {rows} (it has {steps} steps)"
        return
    if state_only and key == "actions":
        known = ~np.isnan(array).reshape(steps, -1).all(axis=1)
        if known.any():
            yield f"the dataset is state_only, but actions is not NaN at step {np.argmax(known)}"
        return
    value = value_defect(key, array, space, finite)
    if value is not None:
        yield value


def layout_defect(
    key: str, shape: tuple[int, ...], dtype: np.dtype[Any], space: gym.Space[Any] | None
) -> str | None:
    """Say what is wrong with the shape or dtype of an array, None where nothing is.

    Axes of length 1 are no difference, nor are widths of numbers: what counts is that the values
    can be those of the space.
    """
    if not shape:
        return f"{key} is a single value; expected a row per step"
    known = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    if space is not None and not isinstance(space, known):
        return None
    row = () if space is None or space.shape is None else tuple(space.shape)
    if [n for n in shape[1:] if n != 1] != [n for n in row if n != 1]:
        return f"{key} has shape {shape}; expected rows of shape {row}"
    if dtype.kind not in "fiub":
        return f"{key} has dtype {dtype}; expected numbers"
    if isinstance(space, spaces.Box) and space.dtype.kind in "iu" and dtype.kind == "f":
        return f"{key} has dtype {dtype}; expected {space.dtype}"
    return None


def value_defect(
    key: str, array: Array, space: gym.Space[Any] | None, finite: bool = True
) -> str | None:
    """Say which value of an array of the right shape is bad, None where none is."""
    if key in FLAGS:
        return _range_defect(key, array, 0, 1, "expected 0 or 1")
    limits = _limits(space)
    if limits is not None:
        if isinstance(space, spaces.Box) and array.dtype == space.dtype:
            return None
        return _range_defect(key, array, *limits, f"the space is {describe(space)}")
    row = first_bad_row(array) if finite else None
    return None if row is None else f"{key} holds NaN or infinity (in float32) at step {row}"


def _limits(space: gym.Space[Any] | None) -> tuple[Any, Any] | None:
    """Return the smallest and the largest value of a space of whole numbers."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    if isinstance(space, spaces.Box) and space.dtype.kind in "iu":
        limits = np.iinfo(space.dtype)
        return limits.min, limits.max
    return None


def _range_defect(key: str, array: Array, low: Any, high: Any, expected: str) -> str | None:
    """Say which value is no whole number from ``low`` to ``high``."""
    if array.dtype.kind == "b":
        return None
    rows = array.reshape(len(array), *np.shape(low))
    wrong = ~((rows >= low) & (rows <= high))
    if array.dtype.kind == "f":
        wrong |= rows != np.floor(rows)
    if not wrong.any():
        return None
    place = tuple(int(index[0]) for index in np.nonzero(wrong))
    return f"{key} holds {rows[place]} at step {place[0]}; {expected}"


def describe(space: gym.Space[Any] | None) -> str:
    """Describe a space in one line; the bounds of a Box take many."""
    if isinstance(space, spaces.Box):
        return f"Box of shape {space.shape} ({space.dtype})"
    return "missing" if space is None else " ".join(str(space).split())


def ends_with(arrays: Mapping[str, Array]) -> tuple[bool, bool]:
    """Return whether the last step of a sound episode is terminated, and whether truncated."""
    terminated, truncated = (bool(arrays[key].reshape(-1)[-1]) for key in FLAGS)
    return terminated, truncated


def marks_success(metadata: Mapping[str, Any]) -> bool:
    """Return whether terminations may mark success while the recording goes on to its end.

    That is so in what we convert (OGBench's single tasks, antmaze), where both flags at the end are
    no surprise; the conversion has told of those that are.
    """
    return "report" in metadata


def episode_notes(arrays: Mapping[str, Array], success_marks: bool = False) -> Iterator[str]:
    """Yield what is unusual in a sound episode and how it is read."""
    terminated, truncated = ends_with(arrays)
    if terminated and truncated and not success_marks:
        yield "both flags are set on the last step, which is taken as terminated,"
    if not (terminated or truncated):
        yield "the last step has no flag and is taken as truncated"


def info_defects(infos: Any, steps: int) -> Iterator[tuple[str, str, bool]]:
    """Yield ``(path, sentence, whether it is a defect)`` for the infos of an episode.

    Infos of other kinds than arrays of numbers are not looked at, as no agent reads them.
    """
    for key, array in leaves("infos", (infos or {}) if steps else {}):
        if array.ndim == 0:
            continue
        if len(array) not in (steps, steps + 1):
            yield key, f"{key} has {len(array)} rows; expected {steps + 1}", True
            continue
        row = first_bad_row(array)
        if row is not None:
            state = key.split("/")[-1] in STATE_INFOS
            text = f"{key} holds NaN or infinity"
            yield key, f"{text} at step {row}" if state else text, state
