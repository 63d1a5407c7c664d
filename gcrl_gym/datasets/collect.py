"""Record episodes of any policy in any environment as Minari episode buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym
    from minari.data_collector import EpisodeBuffer

MAX_STEPS = 1_000_000
"""Length at which an episode is given up: the environment neither terminates nor truncates."""


def collect(
    env: gym.Env[Any, Any], policy: Any, episodes: int, seed: int = 0
) -> list[EpisodeBuffer]:
    """Roll out a policy and return whole-array episodes, ready for `write_minari`.

    Args:
        env: any environment that ends its episodes; the first reset gets ``seed``.
        policy: an object with ``predict(observation) -> (action, state)`` such as an agent or a
            Stable-Baselines3 model, or a function of the observation that returns the action.
        episodes: number of episodes.
        seed: makes the starts reproducible (a policy's own randomness is its own affair).

    Returns:
        One buffer per episode. Dict observations become dicts of arrays; infos are not recorded.

    Raises:
        UserError: ``episodes`` below 1, a policy that is neither, or an endless episode.
    """
    if episodes < 1:
        raise UserError(f"episodes is {episodes}; expected at least 1.")
    act = _as_function(policy)
    return [_episode(env, act, seed if index == 0 else None) for index in range(episodes)]


def _as_function(policy: Any) -> Callable[[Any], Any]:
    if hasattr(policy, "predict"):
        return lambda observation: policy.predict(observation)[0]
    if callable(policy):
        return policy  # type: ignore[no-any-return]
    raise UserError(f"policy is {policy!r}; expected an object with predict, or a function.")


def _episode(env: gym.Env[Any, Any], act: Callable[[Any], Any], seed: int | None) -> EpisodeBuffer:
    from minari.data_collector import EpisodeBuffer

    observation, _ = env.reset(seed=seed)
    observations: list[Any] = [observation]
    actions: list[Any] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated):
        if len(actions) == MAX_STEPS:
            raise UserError(
                f"{env} has not ended its episode after {MAX_STEPS} steps; wrap it in "
                "gymnasium.wrappers.TimeLimit."
            )
        action = act(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(float(reward))
    ends = np.zeros((2, len(actions)), bool)
    ends[:, -1] = terminated, truncated
    return EpisodeBuffer(
        seed=seed,
        observations=_stack(observations),
        actions=np.array(actions),
        rewards=np.array(rewards, np.float32),
        terminations=ends[0],
        truncations=ends[1],
    )


def _stack(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([o[key] for o in observations]) for key in observations[0]}
    return np.stack(observations)
