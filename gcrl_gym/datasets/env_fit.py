"""Does data fit an environment: widths, numbers of actions, bounds of actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.minari_checks import describe

_ROUNDING = 1e-6  # of float32, relative to a bound or to 1


def space_defects(
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    env: gym.Env[Any, Any],
    *,
    counts: bool = True,
) -> list[str]:
    """Compare spaces with those of an environment, one sentence for each that differs.

    Args:
        observation_space: of the data.
        action_space: of the data.
        env: the environment.
        counts: how many values a Discrete space has must be equal too.
    """
    pairs: list[tuple[str, gym.Space[Any] | None, gym.Space[Any] | None]]
    pairs = [("actions", action_space, env.action_space)]
    theirs = env.observation_space
    if isinstance(observation_space, spaces.Dict) and isinstance(theirs, spaces.Dict):
        keys = sorted(set(observation_space) | set(theirs))
        pairs += [
            (f"observations/{key}", observation_space.spaces.get(key), theirs.spaces.get(key))
            for key in keys
        ]
    elif isinstance(theirs, spaces.Dict):  # goals that are observations
        pairs.append(("observations", observation_space, theirs.spaces.get("observation")))
    else:
        pairs.append(("observations", observation_space, theirs))
    return [
        f"{name} is {describe(ours)}, but the environment has {describe(theirs)}"
        for name, ours, theirs in pairs
        if _differ(ours, theirs, counts)
    ]


def _differ(ours: gym.Space[Any] | None, theirs: gym.Space[Any] | None, counts: bool) -> bool:
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return True
    if isinstance(ours, spaces.Discrete) and isinstance(theirs, spaces.Discrete):
        return counts and (ours.n, ours.start) != (theirs.n, theirs.start)
    return isinstance(ours, spaces.Discrete) != isinstance(theirs, spaces.Discrete)


def out_of_bounds(actions: Array, space: gym.Space[Any]) -> tuple[int, str] | None:
    """Return the first row whose action an environment does not take, and what is wrong with it.

    More than the rounding of float32 counts; NaN (an unknown action) does not.

    Args:
        actions: ``(N, A)`` floats or ``(N,)`` integers.
        space: action space of the environment; of another kind or width than the actions, nothing
            is compared.
    """
    if isinstance(space, spaces.Discrete):
        low, high = np.array(space.start), np.array(space.start + space.n - 1)
    elif isinstance(space, spaces.Box):
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    else:
        return None
    if actions.dtype.kind not in "fiu" or actions.shape[1:] != low.shape:
        return None
    below = actions < low - _ROUNDING * np.maximum(1, np.abs(low))
    above = actions > high + _ROUNDING * np.maximum(1, np.abs(high))
    wrong = np.nonzero(below | above)
    if not len(wrong[0]):
        return None
    place = tuple(int(index[0]) for index in wrong)
    under = bool(below[place])
    bound = (low if under else high)[place[1:]]
    column = f" (column {place[1]})" if len(place) > 1 else ""
    side = "below" if under else "above"
    return place[
        0
    ], f"actions is {actions[place]:g}{column}, {side} the environment's bound {bound:g}"
