"""Checks of arrays that a user passes: rows, flags, actions, spaces; and how messages name rows.

The functions return the array in the form that the columns take, or raise one `UserError` that
names the array, its first wrong row and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from gcrl_gym.datasets.columns import Array, as_numbers
from gcrl_gym.errors import UserError

Spaces = tuple[gym.Space[Any] | None, gym.Space[Any] | None]
"""Space of one observation (or a goal Dict) and of one action, None where the user gave none."""

Flags = npt.NDArray[np.bool_]

LARGEST_ACTION = 2**31 - 1
"""A discrete action above this is no action: it would be the width of a network."""

_ROUNDING = 1e-6  # relative; a float64 narrowed to float32 moves by up to 6e-8


class Places:
    """How messages name a row of what the user gave: ``rewards[3]``, ``row 3``.

    Args:
        prefix: what stands before the name of an array, such as ``"episodes[2] "``.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def at(self, name: str, row: int) -> str:
        """Name a row of an array."""
        return f"{self.prefix}{name}[{row}]"

    def row(self, row: int) -> str:
        """Name a row of all arrays."""
        return f"row {row}"


def as_rows(name: str, values: Any) -> Array:
    """Return numbers with one row per step, at least one number in each.

    Raises:
        UserError: no numbers, a single number, rows of no width.
    """
    array = as_numbers(name, values)
    if array.ndim == 0:
        raise UserError(f"{name} is a single number ({array}); give an array with a row per step.")
    if 0 in array.shape[1:]:
        raise UserError(
            f"{name} has shape {array.shape}, rows without a number; give at least one per row."
        )
    return array


def require_rows(name: str, array: Array, count: int) -> None:
    """Raise UserError unless the array has ``count`` rows."""
    if array.ndim == 0 or len(array) != count:
        raise UserError(
            f"{name} has shape {array.shape}; expected {count} rows, as many as its transitions."
        )


def as_column(name: str, values: Any, count: int) -> Array:
    """Return one number per row, flattening ``(N, 1)``; zeros when None."""
    if values is None:
        return np.zeros(count, np.float32)
    array = as_numbers(name, values)
    if array.shape == (count, 1):
        array = array[:, 0]
    if array.shape != (count,):
        raise UserError(f"{name} has shape {array.shape}; expected ({count},).")
    return array


def as_flags(name: str, values: Any, count: int, places: Places) -> Flags:
    """Return one boolean per row for booleans or 0 and 1; False when None.

    Raises:
        UserError: another shape, or another value (NaN, 0.5, -1), naming its row.
    """
    if values is None:
        return np.zeros(count, bool)
    array = as_column(f"{places.prefix}{name}", values, count)
    if array.dtype.kind != "b":
        wrong = np.flatnonzero((array != 0) & (array != 1))
        if len(wrong):
            raise UserError(
                f"{places.at(name, wrong[0])} is {array[wrong[0]]}; a flag must be 0 or 1 (or a "
                "boolean)."
            )
    flags: Flags = array != 0
    return flags


def as_actions(values: Any, space: gym.Space[Any] | None, places: Places) -> Array:
    """Return actions as float ``(N, A)`` or int64 ``(N,)``.

    Args:
        values: what the user gave.
        space: what one action must be in; without one, integers are discrete actions from 0.
        places: names the rows.

    Raises:
        UserError: several integers per action, more than two dimensions, no width, a shape other
            than that of the space, a discrete action that is negative or too large.
    """
    name = f"{places.prefix}actions"
    array = as_numbers(name, values)
    if array.dtype.kind not in "iub":
        if array.ndim != 2 or array.shape[1] == 0:
            raise UserError(
                f"{name} has shape {array.shape}; expected (N, action width), with a width of at "
                "least 1."
            )
        _require_action_space(name, array, space)
        return array
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UserError(
            f"{name} has dtype {array.dtype} and shape {array.shape}; discrete actions are "
            "one integer per row, shape (N,); pass continuous actions as floats."
        )
    _require_action_space(name, array, space)
    if isinstance(space, spaces.Discrete):
        _require_inside("actions", array, space, places)
    else:
        rule = f"a whole number from 0 to {LARGEST_ACTION}; pass continuous actions as floats"
        _require_between("actions", array, 0, LARGEST_ACTION, rule, places)
    return array.astype(np.int64)


def _require_action_space(name: str, array: Array, space: gym.Space[Any] | None) -> None:
    """Raise unless the rows have the kind and the width of the space."""
    if space is None:
        return
    if not isinstance(space, (spaces.Box, spaces.Discrete)):
        raise UserError(f"action_space is {space}; pass a Box or a Discrete space.")
    whole = array.ndim == 1
    if isinstance(space, spaces.Discrete):
        fits, expected = whole, "integers of shape (N,)"
    else:
        width = math.prod(space.shape)
        fits, expected = not whole and array.shape[1] == width, f"floats of shape (N, {width})"
    if not fits:
        raise UserError(
            f"{name} has dtype {array.dtype} and shape {array.shape}, but action_space is {space}; "
            f"expected {expected}."
        )


def require_observation_space(
    arrays: Mapping[str, Array], space: gym.Space[Any] | None, places: Places
) -> None:
    """Raise UserError unless states have the shape and the kind of their space.

    Args:
        arrays: ``observations`` and, where there are any, ``achieved_goals`` and
            ``desired_goals``, each ``(N, *shape)``.
        space: space of one observation or a Dict with the goal keys, None for any.
        places: names the rows.
    """
    if isinstance(space, spaces.Dict):
        for name in arrays.keys() & {"achieved_goals", "desired_goals"}:
            goal = space.spaces.get(name.removesuffix("s"))
            if goal is not None:
                _require_shape(f"{places.prefix}{name}", arrays[name], goal)
        space = observation_leaf(space)
    if space is None:
        return
    array = arrays["observations"]
    name = f"{places.prefix}observations"
    _require_shape(name, array, space)
    if space.dtype is not None and space.dtype.kind in "iu" and array.dtype.kind == "f":
        raise UserError(f"{name} has dtype {array.dtype}, but its space is {space}; pass integers.")
    if isinstance(space, spaces.Discrete):
        _require_inside("observations", array, space, places)


def _require_shape(name: str, array: Array, space: gym.Space[Any]) -> None:
    if space.shape is None:
        raise UserError(
            f"{name} has the space {space}; pass the space of an array, or a Dict with the goal "
            "keys."
        )
    if array.shape[1:] != space.shape:
        raise UserError(
            f"{name} has rows of shape {array.shape[1:]}, but its space is {space}; expected rows "
            f"of shape {space.shape}."
        )


def observation_leaf(space: gym.Space[Any] | None) -> gym.Space[Any] | None:
    """Return the space of the observation alone: of a goal Dict, its ``observation``.

    Raises:
        UserError: a Dict without that key.
    """
    if not isinstance(space, spaces.Dict):
        return space
    if "observation" not in space.spaces:
        raise UserError(
            f"observation_space is a Dict with the keys {sorted(space)}; pass the space of an "
            "array, or a Dict with the key 'observation'."
        )
    return space["observation"]


def _require_inside(name: str, array: Array, space: spaces.Discrete, places: Places) -> None:
    low, high = int(space.start), int(space.start + space.n) - 1
    rule = f"a whole number from {low} to {high}, as its space is {space}"
    _require_between(name, array, low, high, rule, places)


def _require_between(
    name: str, array: Array, low: int, high: int, rule: str, places: Places
) -> None:
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    wrong = np.flatnonzero((array < low) | (array > high))
    if len(wrong):
        raise UserError(f"{places.at(name, wrong[0])} is {array[wrong[0]]}; it must be {rule}.")


def first_break(following: Array, states: Array, inside: Flags | None = None) -> int | None:
    """Return the first row in which two arrays of states differ, None where they agree.

    Differences of a rounding to float32 (relative 1e-6) are none; NaN agrees with NaN.

    Args:
        following: ``(N, *shape)``.
        states: ``(N, *shape)``.
        inside: ``(N,)``, the rows to compare; all when None.
    """
    differs = following != states
    candidates = differs.any(axis=tuple(range(1, differs.ndim)))
    rows = np.flatnonzero(candidates if inside is None else candidates & inside)
    if len(rows) == 0:
        return None
    if following.dtype.kind != "f" and states.dtype.kind != "f":
        return int(rows[0])
    one, other = following[rows].astype(np.float64), states[rows].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.maximum(np.abs(one), np.abs(other))
        near = np.abs(one - other) <= _ROUNDING * size + np.finfo(np.float32).tiny
    near &= np.isfinite(size)
    near |= (one == other) | (np.isnan(one) & np.isnan(other))
    broken = rows[~near.all(axis=tuple(range(1, near.ndim)))]
    return int(broken[0]) if len(broken) else None
