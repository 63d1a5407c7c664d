"""Record episodes of any policy in any environment as Minari episode buffers and datasets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from gcrl_gym.datasets.minari_io import check_new_id, write_minari
from gcrl_gym.envs.check import goal_function
from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym
    from gymnasium.envs.registration import EnvSpec
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

MAX_STEPS = 1_000_000
"""Length at which an episode is given up: the environment neither terminates nor truncates."""


def collect_dataset(
    dataset_id: str,
    env: gym.Env[Any, Any],
    policy: Any,
    episodes: int,
    seed: int = 0,
    metadata: Mapping[str, Any] | None = None,
) -> MinariDataset:
    """Roll out a policy and write the episodes as a new local Minari dataset.

    Args:
        dataset_id: ``[namespace/]name-vN``.
        env: as for `collect`; inside `gcrl_gym.wrappers.StateOnly` the actions are left out.
        policy: as for `collect`.
        episodes: number of episodes.
        seed: as for `collect`.
        metadata: JSON values kept with the dataset.

    Raises:
        UserError: see `collect` and `write_minari`; an id that exists is refused at once.
    """
    check_new_id(dataset_id)
    recorded = collect(env, policy, episodes, seed)
    return write_episodes(dataset_id, env, recorded, {"seed": seed, **(metadata or {})})


def write_episodes(
    dataset_id: str,
    env: gym.Env[Any, Any],
    episodes: Iterable[EpisodeBuffer],
    metadata: Mapping[str, Any],
) -> MinariDataset:
    """Write episodes with the spaces and the spec of ``env``.

    What `gcrl_gym.wrappers.StateOnly` around it leaves out is left out of them, and marked. So are
    goals that the environment has no ``compute_reward`` for, such as OGBench's: ``goal: oracle``
    has samplers judge them by their rows.

    Raises:
        UserError: see `write_minari`.
    """
    marks: dict[str, Any] = {"state_only": True} if "actions" in _unrecorded(env) else {}
    goals = isinstance(env.observation_space, spaces.Dict)
    if goals and goal_function(env, "compute_reward") is None:
        marks["goal"] = "oracle"
    return write_minari(
        dataset_id,
        (_leave_out(env, episode) for episode in episodes),
        observation_space=env.observation_space,
        action_space=env.action_space,
        metadata={"source": "collected", **metadata, **marks},
        env_spec=_spec(env),
    )


def _spec(env: gym.Env[Any, Any]) -> EnvSpec | None:
    """Return the spec without the render mode, which is of no use to those who train on data."""
    if env.spec is None:
        return None
    keywords = {key: value for key, value in env.spec.kwargs.items() if key != "render_mode"}
    return dataclasses.replace(env.spec, kwargs=keywords)


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
        One buffer per episode. Dict observations become dicts of arrays; infos are not recorded,
        nor is what `gcrl_gym.wrappers.StateOnly` around ``env`` leaves out.

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


def _unrecorded(env: gym.Env[Any, Any]) -> tuple[str, ...]:
    """Return what `gcrl_gym.wrappers.StateOnly`, if ``env`` is inside one, leaves out."""
    found: tuple[str, ...] = ()
    if env.has_wrapper_attr("unrecorded"):
        found = env.get_wrapper_attr("unrecorded")
    return found


def _leave_out(env: gym.Env[Any, Any], episode: EpisodeBuffer) -> EpisodeBuffer:
    """Return the episode without what is not to be recorded: NaN actions, rewards of 0."""
    blank: dict[str, Any] = {}
    for name in _unrecorded(env):
        shape = np.shape(getattr(episode, name))
        blank[name] = np.full(shape, np.nan if name == "actions" else 0.0, np.float32)
    return dataclasses.replace(episode, **blank)


class Recorder:
    """Collects the steps of one episode; an exception between two of them costs none.

    Args:
        observation: of the reset.
        seed: of the reset.
    """

    def __init__(self, observation: Any, seed: int | None = None) -> None:
        self._seed, self._first = seed, observation
        self._steps: list[tuple[Any, Any, float, bool, bool]] = []

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._steps)

    def add(
        self, action: Any, observation: Any, reward: float, terminated: bool, truncated: bool
    ) -> None:
        """Add a step and what it gave, wholly or, when interrupted, not at all."""
        self._steps.append((action, observation, float(reward), bool(terminated), bool(truncated)))

    def finish(self) -> EpisodeBuffer:
        """Return the episode, of one step at least; truncated where it has not ended."""
        from minari.data_collector import EpisodeBuffer

        actions, observations, rewards, terminated, truncated = map(list, zip(*self._steps))
        truncated[-1] = truncated[-1] or not terminated[-1]
        return EpisodeBuffer(
            seed=self._seed,
            observations=_stack([self._first, *observations]),
            actions=np.array(actions),
            rewards=np.array(rewards, np.float32),
            terminations=np.array(terminated, bool),
            truncations=np.array(truncated, bool),
        )


def _episode(env: gym.Env[Any, Any], act: Callable[[Any], Any], seed: int | None) -> EpisodeBuffer:
    observation, _ = env.reset(seed=seed)
    recorder = Recorder(observation, seed)
    terminated = truncated = False
    while not (terminated or truncated):
        if len(recorder) == MAX_STEPS:
            raise UserError(
                f"{env} has not ended its episode after {MAX_STEPS} steps; wrap it in "
                "gymnasium.wrappers.TimeLimit."
            )
        action = act(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        recorder.add(action, observation, float(reward), terminated, truncated)
    return _leave_out(env, recorder.finish())


def _stack(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([o[key] for o in observations]) for key in observations[0]}
    return np.stack(observations)
