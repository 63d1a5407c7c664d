"""Rewards and terminations of relabelled goals, as the environment judges them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from gcrl_gym.datasets.columns import Array
from gcrl_gym.envs.check import goal_function
from gcrl_gym.errors import UserError

logger = logging.getLogger(__name__)

Judge = Callable[[Array, Array], Array]


def judges(goal_env: Any, achieved: Array) -> tuple[Judge, Judge]:
    """Return batched reward and termination functions of a goal environment.

    Args:
        goal_env: environment, or any object, with ``compute_reward`` and ``compute_terminated``.
        achieved: some achieved goals, ``(rows, G)``, to try the functions on.

    Raises:
        UserError: it has no ``compute_reward``.
    """
    rewarding, ending = (_find(goal_env, name) for name in ("compute_reward", "compute_terminated"))
    if rewarding is None:
        raise UserError(
            f"Relabelled rewards need an environment with compute_reward, found {goal_env!r}; "
            "pass the goal environment, or GoalSampler(reward='index')."
        )
    reward = _batched(rewarding, achieved[:2])
    if ending is None:
        logger.info("The environment has no compute_terminated: relabelled steps never terminate.")
        return reward, lambda reached, goals: np.zeros(len(reached), np.float32)
    return reward, _batched(ending, achieved[:2])


def _find(goal_env: Any, name: str) -> Any:
    """Look for a function through wrappers, some of which judge batches where the env does not."""
    if isinstance(goal_env, gym.Env):
        return goal_function(goal_env, name)
    return getattr(goal_env, name, None)


def _batched(function: Callable[..., Any], example: Array) -> Judge:
    """Wrap ``function(achieved, desired, info)`` to return float32 ``(B,)``.

    Some environments judge one pair only and answer a whole batch with one number, which would
    be wrong without an error: such a function is called row by row.
    """
    try:
        vectorised = np.shape(function(example, example, {})) == (len(example),)
    except (ValueError, TypeError, IndexError):
        vectorised = False
    if vectorised:
        return lambda reached, goals: np.asarray(function(reached, goals, {}), np.float32)
    logger.info(
        "%s judges one row at a time, which is slow.", getattr(function, "__qualname__", "")
    )
    return lambda reached, goals: np.array(
        [function(a, b, {}) for a, b in zip(reached, goals)], np.float32
    )
