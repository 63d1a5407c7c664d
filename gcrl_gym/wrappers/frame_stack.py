"""A wrapper that stacks the last observations of a goal environment, and leaves its goals alone.

Gymnasium's ``FrameStackObservation`` serves for Box observations. In a Dict it stacks every part:
goals become ``(frames, G)``, on which ``compute_reward`` and hindsight relabelling fail.
"""

from __future__ import annotations

from collections import deque
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from gcrl_gym.envs.goal_env import check_count
from gcrl_gym.errors import UserError


class FrameStack(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Join the last frames of ``observation`` along its last axis, the oldest first.

        frames=2    reset      step 1     step 2
                    [s0 s0]    [s0 s1]    [s1 s2]

    A vector ``(D,)`` becomes ``(frames * D,)``, a picture ``(H, W, C)`` becomes
    ``(H, W, frames * C)``: what networks take as it is.

    Args:
        env: an environment with Dict observations that have the part ``observation``.
        frames: how many.

    Raises:
        UserError: other observations, or no frames.
    """

    def __init__(self, env: gym.Env[Any, Any], frames: int) -> None:
        RecordConstructorArgs.__init__(self, frames=frames)
        super().__init__(env)
        check_count("frames", frames, 1, 1000)
        space = env.observation_space
        box = space.spaces.get("observation") if isinstance(space, spaces.Dict) else None
        if not isinstance(space, spaces.Dict) or not isinstance(box, spaces.Box):
            raise UserError(
                "FrameStack needs Dict observations with a Box 'observation'; this environment has "
                f"{space} (gymnasium.wrappers.FrameStackObservation stacks a Box)."
            )
        low, high = (np.concatenate([bound] * frames, axis=-1) for bound in (box.low, box.high))
        stacked = spaces.Box(low, high, dtype=box.dtype.type)
        self.observation_space = spaces.Dict({**space.spaces, "observation": stacked})
        self._frames: deque[NDArray[Any]] = deque(maxlen=frames)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; its first frame stands for those before it."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([observation["observation"]] * (self._frames.maxlen or 1))
        return self._stacked(observation), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(observation["observation"])
        return self._stacked(observation), reward, terminated, truncated, info

    def _stacked(self, observation: dict[str, Any]) -> dict[str, Any]:
        return {**observation, "observation": np.concatenate(self._frames, axis=-1)}
