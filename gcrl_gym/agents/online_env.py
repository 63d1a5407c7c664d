"""The environment of online training: a private copy whose episodes follow from their seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.random import SeedSequence

from gcrl_gym.pools import EnvPool, Job

TrainOptions = Callable[[gym.Env[Any, Any], np.random.Generator], dict[str, Any] | None]

MAX_EPISODE_STEPS = 10_000
"""Length at which an episode is cut off where the environment sets no limit."""


class TrainingEnv(EnvPool):
    """One copy of an environment, or the environment itself where it cannot be rebuilt.

    An episode depends on its seed and its actions alone, as far as the environment is
    deterministic: start and goal are drawn from the seed too, and NumPy's process-wide generator,
    which OGBench draws from, is replaced meanwhile.

    Args:
        env: the environment.
        options: of each reset, drawn from a generator.
    """

    def __init__(self, env: gym.Env[Any, Any], options: TrainOptions) -> None:
        super().__init__(env, size=1)
        self.grow(1)
        self._options, self._length = options, 0

    def start(self, seed: SeedSequence) -> Any:
        """Start the episode of this seed and return its first observation."""
        self._length = 0
        drawn = SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 1))
        options = self._options(self._copies[0], np.random.default_rng(drawn))
        observation, _ = self.reset(0, Job("default", seed), **(options or {}))
        return observation

    def take(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step: observation, reward, terminated, truncated, info."""
        self._length += 1
        with self._own_numpy(0):
            observation, reward, terminated, truncated, info = self._copies[0].step(action)
        truncated = bool(truncated) or self._length >= MAX_EPISODE_STEPS
        return observation, float(reward), bool(terminated), truncated, info


def recordable(space: gym.Space[Any]) -> Callable[[Any], Any]:
    """Return a function that puts an action inside of its space, exactly as it can be recorded.

    Floats are recorded as float32, so what is taken is a float32 number too, also where the space
    has a wider type; its bounds may lie between two of them.
    """
    if not isinstance(space, spaces.Box):
        return np.int64
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    low = np.where(low < space.low, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > space.high, np.nextafter(high, np.float32(-np.inf)), high)
    dtype = space.dtype
    return lambda action: np.clip(np.asarray(action, np.float32), low, high).astype(dtype)
