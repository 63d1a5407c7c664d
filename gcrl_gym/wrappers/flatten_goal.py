"""A wrapper that makes one vector of a goal environment's Dict observation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from gcrl_gym.errors import UserError, nearest


class FlattenGoal(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Give observation and goal as one vector, for policies that take a Box, such as MlpPolicy.

    Args:
        env: an environment with Dict observations.
        keys: the parts to join, in this order. Gymnasium's ``FlattenObservation`` joins all, in
            alphabetic order.

    Raises:
        UserError: observations that are no Dict, or have no such part.
    """

    def __init__(
        self, env: gym.Env[Any, Any], keys: Sequence[str] = ("observation", "desired_goal")
    ) -> None:
        RecordConstructorArgs.__init__(self, keys=list(keys))
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Dict):
            raise UserError(f"FlattenGoal needs Dict observations; this environment has {space}.")
        for key in keys:
            if key not in space.spaces:
                hint = nearest(key, space.spaces)
                raise UserError(
                    f"FlattenGoal: observations have no {key!r}, only {[*space]}.{hint}"
                )
        self.keys = tuple(keys)
        self._parts = spaces.Tuple([space[key] for key in keys])
        self.observation_space = spaces.flatten_space(self._parts)

    def observation(self, observation: dict[str, Any]) -> Any:
        """Return the parts as one vector, ``(sum of their sizes,)``."""
        return spaces.flatten(self._parts, tuple(observation[key] for key in self.keys))
