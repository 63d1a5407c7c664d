"""Where episodes run: copies of an environment side by side, or a native vector environment.

Both do the same: an episode depends on its job alone, so that results are equal whichever is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from numpy.random import MT19937, SeedSequence, mtrand
from numpy.typing import NDArray

from gcrl_gym.envs.vector import GoalVectorEnv
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers.goal_dict import seeded

Task: TypeAlias = int | str  # 1, 2, .. or "default"
Step: TypeAlias = tuple[Any, float, bool, dict[str, Any]]  # observation, reward, ended, info
_MONITOR = "stable_baselines3.common.monitor"


@dataclass(frozen=True)
class Job:
    """One episode to run: the task and the seed of everything random in it."""

    task: Task
    seed: SeedSequence


def single_env(env: Any) -> gym.Env[Any, Any]:
    """Return the one Gymnasium environment inside ``env``.

    Stable-Baselines3's ``Monitor`` and ``DummyVecEnv`` are taken off: they only record or batch.

    Raises:
        UserError: for vector environments that cannot be copied and for anything else.
    """
    if type(env).__name__ == "DummyVecEnv":
        env = env.envs[0]
    while isinstance(env, gym.Wrapper) and type(env).__module__ == _MONITOR:
        env = env.env
    if isinstance(env, gym.Env):
        return env
    hint = f"pass gym.make({env!r})" if isinstance(env, str) else "pass one gymnasium environment"
    raise UserError(f"Cannot run episodes on a {type(env).__name__}: {hint}; it is copied inside.")


def rebuild(env: gym.Env[Any, Any], render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Build another ``env`` from its spec, with ``render_mode``.

    Raises:
        UserError: when it has no spec, or a wrapper that does not record its arguments.
    """
    spec = env.spec
    missing = [w.name for w in spec.additional_wrappers if w.kwargs is None] if spec else []
    if spec is None or missing:
        why = (
            f"its wrapper {missing[0]} does not record its arguments" if spec else "it has no spec"
        )
        raise UserError(f"{env} cannot be built again: {why}; make it with gym.make.")
    # Many environments do not take the keyword: give it only where it changes something.
    given = spec.kwargs.get("render_mode") != render_mode
    keywords: dict[str, Any] = {"render_mode": render_mode} if given else {}
    return gym.make(spec, disable_env_checker=True, **keywords)


class EnvPool:
    """Up to ``size`` copies of one environment, stepped side by side and used again and again.

    Each copy has a NumPy generator of its own, which stands in for the global one while that copy
    resets or steps: an episode depends on its seed only, not on what its neighbours draw. An
    environment that cannot be rebuilt is used itself, alone.
    """

    def __init__(self, env: Any, size: int = 25) -> None:
        """Copy ``env``; ``size`` bounds the number of copies, made when they are needed."""
        self.env = single_env(env)
        self.size = size
        self._copies: list[gym.Env[Any, Any]] = []
        self._generators: list[MT19937] = []
        self._observations: dict[int, Any] = {}

    def grow(self, count: int) -> int:
        """Make sure of ``count`` copies (at most ``size``) and return how many may be used."""
        while len(self._copies) < min(count, self.size):
            try:
                self._copies.append(rebuild(self.env))
            except UserError:
                self._copies, self.size = [self.env], 1
            self._generators.append(MT19937())
        return min(count, self.size)

    def reset(self, index: int, job: Job, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Start ``job`` in copy ``index``; ``options`` join the task in the reset options."""
        env = self._copies[index]
        number = int(job.seed.generate_state(1)[0])
        self._generators[index] = MT19937(job.seed)
        env.action_space.seed(number)
        if job.task != "default":
            options["task_id"] = job.task
        # OGBench's resets draw from numpy's generator and from action spaces made on the way.
        drawn = np.random.default_rng(job.seed)
        with self._own_numpy(index), seeded(drawn, env.unwrapped.action_space):
            return env.reset(seed=number, options=options or None)

    def step(self, index: int, action: Any) -> tuple[Any, float, bool, dict[str, Any]]:
        """Step copy ``index``: observation, reward, whether the episode ended, info."""
        with self._own_numpy(index):
            obs, reward, terminated, truncated, info = self._copies[index].step(action)
        return obs, float(reward), bool(terminated or truncated), info

    def begin(self, index: int, job: Job) -> None:
        """Start ``job`` in copy ``index``."""
        self._observations[index], _ = self.reset(index, job)

    def batch(self) -> Any:
        """Return the latest observations of all copies that were started, stacked."""
        return stack([self._observations[index] for index in sorted(self._observations)])

    def advance(self, copies: Sequence[int], actions: Any) -> list[Step]:
        """Step these copies; ``actions`` has a row for every copy that was started."""
        steps = []
        for index in copies:
            self._observations[index], *rest = self.step(index, actions[index])
            steps.append((self._observations[index], *rest))
        return steps

    def close(self) -> None:
        """Close the copies; never the environment that was given."""
        for env in self._copies:
            if env is not self.env:
                env.close()
        self._copies, self._generators, self._observations = [], [], {}

    @contextlib.contextmanager
    def _own_numpy(self, index: int) -> Iterator[None]:
        shared = mtrand.get_bit_generator()
        mtrand.set_bit_generator(self._generators[index])
        try:
            yield
        finally:
            mtrand.set_bit_generator(shared)


class NativePool:
    """The same on a native vector environment, which steps all copies in one NumPy program.

    Args:
        env: the environment to run episodes of.
        vector: its vector environment, whose copies do not begin anew by themselves.
    """

    def __init__(self, env: gym.Env[Any, Any], vector: GoalVectorEnv) -> None:
        self.env, self._vector = env, vector
        self._observations: Any = None
        self._begun: NDArray[np.bool_] = np.zeros(vector.num_envs, bool)

    def grow(self, count: int) -> int:
        """Return how many copies may be used, at most ``count``; they are there already."""
        self._begun[:] = False
        self._vector.reset(seed=0)  # those that are not used have to be started, too
        return min(count, self._vector.num_envs)

    def begin(self, index: int, job: Job) -> None:
        """Start ``job`` in copy ``index``."""
        self._begun[index] = True
        seeds: list[int | None] = [None] * self._vector.num_envs
        seeds[index] = int(job.seed.generate_state(1)[0])
        options: dict[str, Any] = {"reset_mask": np.arange(len(seeds)) == index}
        if job.task != "default":
            options["task_id"] = job.task
        self._observations, _ = self._vector.reset(seed=seeds, options=options)

    def batch(self) -> Any:
        """Return the latest observations of all copies that were started, stacked."""
        return _rows(self._observations, self._begun)

    def advance(self, copies: Sequence[int], actions: Any) -> list[Step]:
        """Step these copies; ``actions`` has a row for every copy that was started."""
        space = self._vector.action_space
        every = np.zeros(space.shape or (), space.dtype)
        every[self._begun] = actions
        observations, rewards, terminated, truncated, infos = self._vector.step(every)
        self._observations, ended = observations, terminated | truncated
        keys = [key for key in infos if not key.startswith("_")]
        told = [dict(zip(keys, row)) for row in zip(*(infos[key].tolist() for key in keys))]
        if ended.any():  # copies that have ended cannot be stepped on, even for nobody's sake
            self._observations, _ = self._vector.reset(options={"reset_mask": ended})
        return [
            (_rows(observations, index), float(rewards[index]), bool(ended[index]), told[index])
            for index in copies
        ]

    def close(self) -> None:
        """Close the vector environment; never the environment that was given."""
        self._vector.close()


Pool: TypeAlias = EnvPool | NativePool


def make_pool(env: Any, size: int = 100) -> Pool:
    """Return a pool for an environment: native where the environment has such a form.

    Args:
        env: one environment; see `single_env`.
        size: most copies of a native environment.
    """
    single = single_env(env)
    spec = single.spec
    entry = spec.vector_entry_point if spec is not None else None
    if spec is None or entry is None or spec.additional_wrappers:
        return EnvPool(single)
    creator: Any = load_env_creator(entry) if isinstance(entry, str) else entry
    ours = isinstance(creator, type) and issubclass(creator, GoalVectorEnv)
    if not ours or type(single.unwrapped) is not type(rebuild(single).unwrapped):
        return EnvPool(single)
    plain = EnvSpec(
        spec.id,
        vector_entry_point=spec.vector_entry_point,
        max_episode_steps=spec.max_episode_steps,
        kwargs={key: value for key, value in spec.kwargs.items() if key != "render_mode"},
    )
    vector = gym.make_vec(plain, num_envs=size, autoreset_mode="disabled")
    return NativePool(single, cast("GoalVectorEnv", vector))


def _rows(observations: Any, chosen: Any) -> Any:
    """Pick one or more rows of batched observations."""
    if isinstance(observations, dict):
        return {key: values[chosen] for key, values in observations.items()}
    return observations[chosen]


def stack(observations: Sequence[Any]) -> Any:
    """Stack observations (arrays or dicts of arrays) along a new first axis."""
    if isinstance(observations[0], dict):
        return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
    return np.stack(observations)
