"""Episodes for evaluation and video: environment copies, fixed tasks and private randomness."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import gymnasium as gym
import numpy as np
from numpy.random import MT19937, SeedSequence, mtrand

from gcrl_gym.errors import UserError

Task: TypeAlias = int | str  # 1, 2, .. or "default"
MAX_EPISODE_STEPS = 100_000  # an episode longer than this is an environment without a time limit
_MONITOR = "stable_baselines3.common.monitor"


class Predictor(Protocol):
    """Anything that acts: our agents, Stable-Baselines3 models and policies, scripted policies."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Return the actions for a batch of observations and the next recurrent state."""


@dataclass(frozen=True)
class Job:
    """One episode to run: the task and the seed of everything random in it."""

    task: Task
    seed: SeedSequence


@dataclass(frozen=True)
class Episode:
    """What one episode gave; ``None`` where the environment does not say.

    Attributes:
        task: the task it was reset to.
        episode_return: undiscounted sum of rewards.
        length: number of steps.
        success: success in the info of the last step.
        steps_to_goal: steps until success was first reported; only for successful episodes.
        final_distance: distance between achieved and desired goal after the last step.
    """

    task: Task
    episode_return: float
    length: int
    success: bool | None
    steps_to_goal: int | None
    final_distance: float | None


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


def task_ids(env: gym.Env[Any, Any], tasks: Any = "all") -> list[Task]:
    """Return the evaluation tasks of ``env``: 1..num_tasks, or ``["default"]`` without tasks.

    Args:
        env: environment, possibly wrapped; ``num_tasks`` is found through the wrappers.
        tasks: ``"all"``, one task id or a list of them.

    Raises:
        UserError: for an id the environment does not have.
    """
    count = int(env.get_wrapper_attr("num_tasks")) if env.has_wrapper_attr("num_tasks") else 0
    if getattr(env.unwrapped, "_reward_task_id", None) is not None:
        count = 0  # OGBench's single-task variants ignore task_id: five tasks would be one, 5 times
    known: list[Task] = list(range(1, count + 1)) or ["default"]
    if isinstance(tasks, str) and tasks == "all":
        return known
    wanted = [tasks] if isinstance(tasks, (int, str)) else list(tasks)
    unknown = [task for task in wanted if task not in known]
    if unknown or not wanted:
        raise UserError(f"Unknown evaluation task {unknown}: this environment has {known}.")
    return wanted


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


@contextlib.contextmanager
def isolated_rng(seed: SeedSequence) -> Iterator[None]:
    """Seed the process-wide generators (Python, NumPy, torch) inside; put them back after.

    OGBench draws from NumPy's global generator, other libraries' agents from torch's: neither
    may see the caller's stream, nor change it.
    """
    numbers = [int(word) for word in seed.generate_state(2)]
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    bit_generator = mtrand.get_bit_generator()
    torch = sys.modules.get("torch")  # not imported: nothing can draw from it
    with contextlib.ExitStack() as stack:
        if torch is not None:
            cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
            stack.enter_context(torch.random.fork_rng(devices=list(cuda)))
            torch.manual_seed(numbers[0])
        try:
            random.seed(numbers[1])
            mtrand.set_bit_generator(MT19937(seed))
            yield
        finally:
            random.setstate(python_state)
            mtrand.set_bit_generator(bit_generator)
            np.random.set_state(numpy_state)  # noqa: NPY002 - the swap drops a pending gaussian


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
        for space in (env.action_space, env.unwrapped.action_space):
            space.seed(number)  # OGBench's resets draw stabilising actions from it
        if job.task != "default":
            options["task_id"] = job.task
        with self._own_numpy(index):
            return env.reset(seed=number, options=options or None)

    def step(self, index: int, action: Any) -> tuple[Any, float, bool, dict[str, Any]]:
        """Step copy ``index``: observation, reward, whether the episode ended, info."""
        with self._own_numpy(index):
            obs, reward, terminated, truncated, info = self._copies[index].step(action)
        return obs, float(reward), bool(terminated or truncated), info

    def close(self) -> None:
        """Close the copies; never the environment that was given."""
        for env in self._copies:
            if env is not self.env:
                env.close()
        self._copies, self._generators = [], []

    @contextlib.contextmanager
    def _own_numpy(self, index: int) -> Iterator[None]:
        shared = mtrand.get_bit_generator()
        mtrand.set_bit_generator(self._generators[index])
        try:
            yield
        finally:
            mtrand.set_bit_generator(shared)


def make_jobs(tasks: Sequence[Task], episodes: int, seed: int) -> list[Job]:
    """Return ``episodes`` jobs per task, each with a seed that no other choice changes."""
    if episodes < 1:
        raise UserError(f"The number of episodes must be at least 1, got {episodes}.")
    return [
        Job(task, SeedSequence(seed, spawn_key=(task if isinstance(task, int) else 0, episode)))
        for task in tasks
        for episode in range(episodes)
    ]


def actor_keywords(agent: Predictor, actor: int) -> dict[str, int]:
    """Return ``{"actor": actor}`` for agents with a chain, ``{}`` for all others."""
    return {"actor": actor} if hasattr(agent, "num_actors") else {}


class EpisodeLog:
    """Collects one running episode into an ``Episode``."""

    def __init__(self, task: Task) -> None:
        """Start an episode of ``task``."""
        self.task = task
        self.episode_return = 0.0
        self.length = 0
        self._reached: int | None = None

    def add(self, reward: float, info: dict[str, Any]) -> None:
        """Count one step."""
        self.episode_return += reward
        self.length += 1
        if self._reached is None and success_of(info):
            self._reached = self.length
        if self.length >= MAX_EPISODE_STEPS:
            raise UserError(
                f"An episode did not end within {MAX_EPISODE_STEPS} steps: "
                "wrap the environment in gymnasium.wrappers.TimeLimit."
            )

    def finish(self, obs: Any, info: dict[str, Any]) -> Episode:
        """Return the finished episode, judged by its last observation and info."""
        success = success_of(info)
        reached = self._reached if success else None
        distance = distance_of(obs, info)
        return Episode(self.task, self.episode_return, self.length, success, reached, distance)


def success_of(info: dict[str, Any]) -> bool | None:
    """Return ``info["success"]``, else ``info["is_success"]``, else ``None``."""
    value = info.get("success", info.get("is_success"))
    return None if value is None else bool(value)


def distance_of(obs: Any, info: dict[str, Any]) -> float | None:
    """Return ``info["distance_to_goal"]``, else the Euclidean distance of the goal vectors."""
    if info.get("distance_to_goal") is not None:
        return float(info["distance_to_goal"])
    if not isinstance(obs, dict) or not {"achieved_goal", "desired_goal"} <= obs.keys():
        return None
    achieved, desired = np.asarray(obs["achieved_goal"]), np.asarray(obs["desired_goal"])
    if achieved.ndim != 1 or achieved.shape != desired.shape:
        return None  # images have no meaningful distance
    return float(np.linalg.norm(achieved.astype(np.float64) - desired))


def run_episodes(
    agent: Predictor, pool: EnvPool, jobs: Sequence[Job], *, actor: int, deterministic: bool
) -> list[Episode]:
    """Run all jobs, the pool's copies in lock step with one batched ``predict`` per step.

    A copy whose episode ends takes the next job; ``episode_start`` tells recurrent agents.

    Returns:
        One episode per job, in the order of the jobs.
    """
    count = pool.grow(len(jobs))
    keywords = actor_keywords(agent, actor)
    waiting = list(range(len(jobs)))[::-1]
    running: dict[int, tuple[int, EpisodeLog]] = {}  # copy -> (job number, its log)
    observations: list[Any] = [None] * count
    done: dict[int, Episode] = {}

    def start(copy: int) -> None:
        number = waiting.pop()
        observations[copy], _ = pool.reset(copy, jobs[number])
        running[copy] = (number, EpisodeLog(jobs[number].task))

    for copy in range(count):
        start(copy)
    state, episode_start = None, np.ones(count, dtype=bool)
    while running:
        # Idle copies keep their last observation: the rows of a recurrent state must not move.
        actions, state = agent.predict(
            stack(observations), state, episode_start, deterministic, **keywords
        )
        episode_start = np.zeros(count, dtype=bool)
        for copy, (number, log) in list(running.items()):
            observations[copy], reward, ended, info = pool.step(copy, actions[copy])
            log.add(reward, info)
            if ended:
                done[number] = log.finish(observations[copy], info)
                del running[copy]
                if waiting:
                    start(copy)
                    episode_start[copy] = True
    return [done[number] for number in range(len(jobs))]


def stack(observations: Sequence[Any]) -> Any:
    """Stack observations (arrays or dicts of arrays) along a new first axis."""
    if isinstance(observations[0], dict):
        return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
    return np.stack(observations)
