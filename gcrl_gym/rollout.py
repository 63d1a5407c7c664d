"""Episodes for evaluation and video: fixed tasks, private randomness, what an episode gave."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.random import MT19937, SeedSequence, mtrand

from gcrl_gym.errors import UserError
from gcrl_gym.pools import Job, Pool, Task

MAX_EPISODE_STEPS = 100_000  # an episode longer than this is an environment without a time limit


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
    agent: Predictor, pool: Pool, jobs: Sequence[Job], *, actor: int, deterministic: bool
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
    done: dict[int, Episode] = {}

    def start(copy: int) -> None:
        number = waiting.pop()
        pool.begin(copy, jobs[number])
        running[copy] = (number, EpisodeLog(jobs[number].task))

    for copy in range(count):
        start(copy)
    state, episode_start = None, np.ones(count, dtype=bool)
    while running:
        # Idle copies are predicted for as well: the rows of a recurrent state must not move.
        batch = pool.batch()
        actions, state = agent.predict(batch, state, episode_start, deterministic, **keywords)
        episode_start = np.zeros(count, dtype=bool)
        copies = list(running)
        for copy, (obs, reward, ended, info) in zip(copies, pool.advance(copies, actions)):
            number, log = running[copy]
            log.add(reward, info)
            if ended:
                done[number] = log.finish(obs, info)
                del running[copy]
                if waiting:
                    start(copy)
                    episode_start[copy] = True
    return [done[number] for number in range(len(jobs))]
