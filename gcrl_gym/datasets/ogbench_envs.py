"""Environments of OGBench's single-task and oracle-goal sets, as agents expect them.

Their entry points stand in the environment specs that are stored with the data.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from gcrl_gym.datasets.columns import Array
from gcrl_gym.wrappers.goal_dict import make_goal_dict_env, seeded


class _OGBench(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Float32 observations, ``is_success`` in the info and resets that obey their seed.

    See `gcrl_gym.wrappers.goal_dict.GoalDict` for how resets are seeded.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        box = env.observation_space
        assert isinstance(box, spaces.Box)  # as all of OGBench's are
        self._dtype: Any = np.float32 if np.issubdtype(box.dtype, np.floating) else box.dtype
        # Gymnasium warns about bounds wider than the dtype, so they are cast first.
        low, high = box.low.astype(self._dtype), box.high.astype(self._dtype)
        self._box = spaces.Box(low, high, dtype=self._dtype)
        self.observation_space = self._box
        self._reset_rng = np.random.default_rng()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the same seed gives the same start."""
        if seed is not None:
            self._reset_rng = np.random.default_rng(seed)
        with seeded(self._reset_rng, self.env.unwrapped.action_space):
            observation, info = self.env.reset(seed=seed, options=options)
        self._take_goal(info)
        return self._convert(observation), {**info, "success": 0.0, "is_success": False}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, "is_success": bool(info["success"])}
        return self._convert(observation), float(reward), terminated, truncated, info

    def _take_goal(self, info: dict[str, Any]) -> None:
        """Note the goal of the episode."""

    def _convert(self, observation: Any) -> Any:
        return np.array(observation, dtype=self._dtype)


class SingleTask(_OGBench):
    """One of OGBench's single-task environments: a plain Box, and the reward of the data.

    Rewards are 0 or negative, and an episode terminates at the goal; OGBench judges the state
    before the step, as the rewards of the data do.
    """


class OracleGoals(_OGBench):
    """An OGBench environment made with ``use_oracle_rep=True``, with Dict goal observations.

    ``observation`` is the environment's; ``achieved_goal`` and ``desired_goal`` are oracle
    representations (float32) of the state and of the goal.
    """

    def __init__(self, env: gym.Env[Any, Any], goal_dim: int) -> None:
        super().__init__(env)
        goals = spaces.Box(-np.inf, np.inf, (goal_dim,), np.float32)
        self._goal: Array = np.zeros(goal_dim, np.float32)
        self.observation_space = spaces.Dict(
            {"observation": self._box, "achieved_goal": goals, "desired_goal": goals}
        )

    @property
    def num_tasks(self) -> int:
        """Number of evaluation tasks."""
        return int(self.env.get_wrapper_attr("num_tasks"))

    def _take_goal(self, info: dict[str, Any]) -> None:
        self._goal = np.array(info["goal"], np.float32)

    def _convert(self, observation: Any) -> Any:
        return {
            "observation": super()._convert(observation),
            "achieved_goal": np.array(self._achieved(), np.float32),
            "desired_goal": self._goal.copy(),
        }

    def _achieved(self) -> Any:
        """Oracle representation of the current state; only OGBench's tables have a method."""
        inner: Any = self.env.unwrapped
        if hasattr(inner, "compute_oracle_observation"):
            return inner.compute_oracle_observation()
        if hasattr(inner, "get_agent_ball_xy"):
            return inner.get_agent_ball_xy()[1]
        return inner.get_xy()


def make_singletask_env(env_id: str, render_mode: str | None = None, **kwargs: Any) -> SingleTask:
    """Make one of OGBench's single-task environments.

    Args:
        env_id: OGBench's name, for example ``pointmaze-medium-singletask-task2-v0``.
        render_mode: passed on when given.
        **kwargs: passed on to the environment.

    Raises:
        UserError: OGBench is not installed, or has no such environment.
    """
    return SingleTask(_make(env_id, render_mode, **kwargs))


def make_oracle_env(
    env_id: str, goal_dim: int, render_mode: str | None = None, **kwargs: Any
) -> OracleGoals:
    """Make an OGBench environment whose goals are oracle representations.

    Args:
        env_id: OGBench's name, for example ``pointmaze-medium-v0``.
        goal_dim: width of a goal.
        render_mode: passed on when given.
        **kwargs: passed on to the environment.

    Raises:
        UserError: OGBench is not installed, or has no such environment.
    """
    return OracleGoals(_make(env_id, render_mode, use_oracle_rep=True, **kwargs), goal_dim)


def _make(env_id: str, render_mode: str | None, **kwargs: Any) -> gym.Env[Any, Any]:
    """Return OGBench's own environment, which `make_goal_dict_env` checks and then wraps."""
    made = make_goal_dict_env(env_id, render_mode, **kwargs)
    assert isinstance(made, gym.Wrapper)
    inner: gym.Env[Any, Any] = made.env
    return inner
