"""The base of our goal environments: Dict observations, rewards that follow from goals alone."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gcrl_gym.errors import UserError, nearest

ActT = TypeVar("ActT")
GoalObservation = dict[str, Any]
RewardKind = Literal["sparse", "penalty", "dense"]


class GoalEnv(gym.Env[GoalObservation, ActT]):
    """An environment whose observation is a dict of observation, achieved goal and desired goal.

    Reward and termination are functions of (achieved goal, desired goal) alone, so that hindsight
    relabelling can recompute them for any goal. Both are judged on the float32 goals that the
    environment returns: what ``step`` reports and what ``compute_reward`` says of the returned
    observation is always the same, also on the edge of the tolerance.

    ``info`` has the same keys at every reset and step: ``success`` (1.0 or 0.0), ``is_success``
    (bool) and ``distance_to_goal`` (world units).

    Attributes:
        num_tasks: number of fixed evaluation tasks, ``reset(options={"task_id": 1 .. num_tasks})``.
        goal_tolerance: success is a distance to the goal of at most this, in world units.
        reward_kind: ``sparse`` 1 on success, else 0; ``penalty`` 0 on success, else -1; ``dense``
            minus the distance to the goal.
        terminate_at_goal: whether success ends the episode.
    """

    num_tasks: int
    goal_tolerance: float
    reward_kind: RewardKind
    terminate_at_goal: bool

    def goal_distance(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> NDArray[Any]:
        """Euclidean distance of goals (..., G), shape (...), in float64."""
        difference = np.asarray(achieved_goal, np.float64) - np.asarray(desired_goal, np.float64)
        return np.asarray(np.sqrt(np.sum(difference * difference, axis=-1)))

    def is_success(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> NDArray[np.bool_]:
        """Whether achieved goals (..., G) lie within the tolerance, shape (...)."""
        return np.asarray(self.goal_distance(achieved_goal, desired_goal) <= self.goal_tolerance)

    def compute_reward(
        self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any = None
    ) -> float | NDArray[np.float64]:
        """Reward of having achieved one goal while another was desired.

        Args:
            achieved_goal: (..., G) achieved after the step.
            desired_goal: (..., G), same shape.
            info: ignored; the infos of the steps, as hindsight replay buffers pass them.

        Returns:
            A float for one goal, an array (...) for several.
        """
        if self.reward_kind == "dense":
            reward = -self.goal_distance(achieved_goal, desired_goal)
        else:
            reached = self.is_success(achieved_goal, desired_goal)
            reward = np.asarray(reached - float(self.reward_kind == "penalty"))
        return float(reward) if reward.ndim == 0 else reward

    def compute_terminated(
        self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any = None
    ) -> bool | NDArray[np.bool_]:
        """Whether that step ends the episode; arguments as in ``compute_reward``."""
        reached = self.is_success(achieved_goal, desired_goal) & self.terminate_at_goal
        return bool(reached) if reached.ndim == 0 else reached


def require_running(running: bool) -> None:
    """Refuse a step before the first reset, or after an episode has ended.

    Raises:
        UserError: no episode goes on.
    """
    if not running:
        raise UserError("No episode is running, it has ended or not begun; call reset() first.")


def check_reward_kind(reward: str) -> RewardKind:
    """Return ``reward`` when it is a known kind.

    Raises:
        UserError: unknown kind; names the nearest one.
    """
    kinds: tuple[RewardKind, ...] = get_args(RewardKind)
    for kind in kinds:
        if kind == reward:
            return kind
    raise UserError(
        f"Unknown reward {reward!r}; choose one of {', '.join(kinds)}.{nearest(reward, kinds)}"
    )


def check_task_id(task_id: Any, num_tasks: int) -> int:
    """Return the reset option ``task_id`` as an int.

    Raises:
        UserError: not a whole number in 1 .. num_tasks.
    """
    whole = isinstance(task_id, int | np.integer) and not isinstance(task_id, bool)
    if not whole or not 1 <= task_id <= num_tasks:
        raise UserError(f"task_id must be a whole number from 1 to {num_tasks}, got {task_id!r}.")
    return int(task_id)


def check_count(name: str, value: Any, low: int, high: int) -> int:
    """Return a keyword as a whole number in low .. high.

    Raises:
        UserError: it is none.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise UserError(f"{name} must be a whole number from {low} to {high}, got {value!r}.")
    return int(value)


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return a keyword as a float in [low, high].

    Raises:
        UserError: it is none.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise UserError(f"{name} must be a number from {low:g} to {high:g}, got {value!r}.")
    return number
