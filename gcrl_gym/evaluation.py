"""Evaluation on fixed tasks: success, return and steps to goal, per task and per actor.

The protocol is part of the result. Every task is run for the same number of episodes, every actor
of a chain is evaluated, with deterministic and with sampled actions. Two calls with the same seed
agree exactly, and neither the process-wide random generators nor the agent's own are changed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import numpy as np
from numpy.random import SeedSequence

from gcrl_gym.errors import UserError
from gcrl_gym.pools import EnvPool, NativePool, Pool, Task, make_pool
from gcrl_gym.rollout import (
    Episode,
    Predictor,
    isolated_rng,
    make_jobs,
    run_episodes,
    task_ids,
)

if TYPE_CHECKING:
    from rich.table import Table

Mode = Literal["deterministic", "sampled"]
MODES: tuple[Mode, ...] = ("deterministic", "sampled")


@dataclass(frozen=True)
class EvaluationResult:
    """What an agent achieves; the top-level numbers are the last actor's, deterministic.

    A group of numbers is a dict of ``episodes``, ``success_rate`` (share of episodes with success
    at the last step), ``mean_return`` (undiscounted), ``normalized_score``, ``mean_steps_to_goal``
    (over the successful episodes) and ``mean_final_distance``; ``None`` where it is not defined.

    Attributes:
        success_rate: in [0, 1]; ``None`` when the environment reports no success.
        mean_return: mean undiscounted return.
        normalized_score: 100 x (return - min) / (max - min), D4RL's score; ``None`` without
            reference returns.
        per_task: task (1, 2, .. or ``"default"``) -> numbers.
        per_actor: one dict per actor and mode: ``actor`` (0 is the first of a chain), ``mode``
            (``"deterministic"`` or ``"sampled"``), the numbers over all tasks, and ``per_task``.
        episodes_per_task: episodes per task, actor and mode.
        seed: the seed they were run with.
        dataset: what the agent was trained on, as far as its metadata tell: ``official`` is False
            for a stand-in of the published file, whose scores are not to be compared.
    """

    success_rate: float | None
    mean_return: float
    normalized_score: float | None
    per_task: dict[Task, dict[str, Any]]
    per_actor: list[dict[str, Any]]
    episodes_per_task: int
    seed: int
    dataset: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types; task ids become strings."""
        plain: dict[str, Any] = _string_keys(asdict(self))
        return plain

    def __str__(self) -> str:
        """Return the table as plain text."""
        from rich.console import Console

        console = Console(width=120, color_system=None)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get()

    def table(self) -> Table:
        """Return a rich table: one row per actor and mode, success per task, overall numbers."""
        from rich import box
        from rich.table import Table

        tasks = [task for task in self.per_task if task != "default"]
        what = "success in %" + (f" of all and tasks {tasks[0]} .. {tasks[-1]}" if tasks else "")
        caption = f"{what}; {self.episodes_per_task} episodes per task, seed {self.seed}"
        if self.dataset.get("official") is False:
            caption += "\nSTAND-IN DATA: not the official file"
        if "evaluation" in self.dataset:
            caption += f"\n{self.dataset['evaluation']}"
        table = Table(caption=caption, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("actor", no_wrap=True)
        scored = self.success_rate is None and self.normalized_score is not None
        middle = ["return ↑", *(["score ↑"] if scored else [])]
        for name in ["all ↑", *map(str, tasks), *middle, "steps ↓", "dist ↓"]:
            table.add_column(name, justify="right")
        for row in self.per_actor:
            table.add_row(
                f"{row['actor']} {row['mode']}",
                _percent(row["success_rate"]),
                *(_percent(row["per_task"][task]["success_rate"]) for task in tasks),
                _number(row["mean_return"], 2),
                *([_number(row["normalized_score"], 1)] if scored else []),
                _number(row["mean_steps_to_goal"], 1),
                _number(row["mean_final_distance"], 2),
            )
        return table


def _check_choice(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [one for one in given if one not in known]
    if isinstance(given, str) or unknown or not given:
        raise UserError(f"{name} is {given!r}; give some of {', '.join(map(repr, known))}.")


def evaluate(
    agent: Predictor,
    env: gym.Env[Any, Any] | Pool,
    tasks: Any = "all",
    episodes_per_task: int = 20,
    seed: int = 0,
    *,
    actors: Literal["all", "last"] = "all",
    modes: Sequence[Mode] = MODES,
    references: tuple[float, float] | None = None,
) -> EvaluationResult:
    """Evaluate an agent on the tasks of an environment.

    Works for the agents of this package, for Stable-Baselines3 models, and for anything else with
    their ``predict``. Copies of ``env`` are stepped in lock step with batched predictions, in a
    native vector environment where it has one.

    Args:
        agent: what acts. With ``num_actors``, every actor of its chain is evaluated.
        env: environment; what ``gcrl_gym.pools.make_pool`` makes of it saves building copies at
            every call.
        tasks: ``"all"``, one task id or a list of them. An environment without tasks has the
            single task ``"default"``.
        episodes_per_task: episodes per task, actor and mode.
        seed: seed of resets, environment noise and sampled actions.
        actors: ``"all"``, or only the ``"last"`` of a chain.
        modes: ``"deterministic"``, ``"sampled"`` or both; the first gives the top-level numbers.
        references: (min, max) returns for ``normalized_score``; by default those stored with the
            agent's dataset, if it belongs to this environment.

    Raises:
        UserError: unknown task, mode or actors, no episodes, vector environment, or spaces that do
            not match.
    """
    _check_choice("modes", modes, MODES)
    _check_choice("actors", [actors], ("all", "last"))
    pool = env if isinstance(env, (EnvPool, NativePool)) else make_pool(env)
    chosen = task_ids(pool.env, tasks)
    jobs = make_jobs(chosen, episodes_per_task, seed)
    check_observations(agent, pool.env)
    metadata = getattr(getattr(agent, "dataset", None), "metadata", {})
    references = references or stored_references(metadata, pool.env)
    count = int(getattr(agent, "num_actors", 1))
    rows: list[dict[str, Any]] = []
    try:
        for actor in range(count) if actors == "all" else [count - 1]:
            one_action = getattr(agent, "is_deterministic", lambda actor: False)(actor)
            for mode in modes:
                if one_action and mode != modes[0]:  # the same episodes again
                    rows.append(rows[-1] | {"mode": mode})
                    continue
                episodes = _run(agent, pool, jobs, actor, mode, seed)
                rows.append({"actor": actor, "mode": mode, **_numbers(episodes, references)})
                rows[-1]["per_task"] = {
                    task: _numbers([e for e in episodes if e.task == task], references)
                    for task in chosen
                }
    finally:
        if pool is not env:
            pool.close()
    top = next(row for row in rows if row["actor"] == count - 1)
    keys = ("success_rate", "mean_return", "normalized_score", "per_task")
    return EvaluationResult(
        **{key: top[key] for key in keys},
        per_actor=rows,
        episodes_per_task=episodes_per_task,
        seed=seed,
        dataset=dict(getattr(agent, "trained_on", {})),
    )


def stored_references(
    metadata: Mapping[str, Any], env: gym.Env[Any, Any]
) -> tuple[float, float] | None:
    """Return the reference returns of a dataset if it belongs to ``env``, else ``None``."""
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    stored = str(metadata.get("eval_env_spec") or metadata.get("env_spec") or "")
    if low is None or high is None or env.spec is None or f'"{env.spec.id}"' not in stored:
        return None
    return float(low), float(high)


def check_observations(agent: Predictor, env: gym.Env[Any, Any]) -> None:
    """Raise a ``UserError`` when the agent was made for observations of another shape."""
    space = getattr(agent, "observation_space", None)
    if space is not None and _shapes(space) != _shapes(env.observation_space):
        raise UserError(
            f"The agent expects observations {space}, but the environment gives "
            f"{env.observation_space}: use the environment it was trained for."
        )


def _shapes(space: gym.Space[Any]) -> Any:
    if isinstance(space, gym.spaces.Dict):
        return {key: _shapes(part) for key, part in space.items()}
    return sorted(space.shape or ())  # sorted: Stable-Baselines3 puts image channels first


def _run(
    agent: Predictor, pool: Pool, jobs: Any, actor: int, mode: Mode, seed: int
) -> list[Episode]:
    """Run one actor in one mode; its numbers do not depend on which others are run."""
    sampling: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if hasattr(agent, "sampling_seed"):
        sampling = agent.sampling_seed(seed)
    with isolated_rng(SeedSequence(seed)), sampling:
        return run_episodes(agent, pool, jobs, actor=actor, deterministic=mode == "deterministic")


def _numbers(
    episodes: Sequence[Episode], references: tuple[float, float] | None
) -> dict[str, float | int | None]:
    mean_return = float(np.mean([episode.episode_return for episode in episodes]))
    score = None
    if references is not None:
        low, high = references
        score = 100 * (mean_return - low) / (high - low)
    return {
        "episodes": len(episodes),
        "success_rate": _mean([episode.success for episode in episodes]),
        "mean_return": mean_return,
        "normalized_score": score,
        "mean_steps_to_goal": _mean([episode.steps_to_goal for episode in episodes]),
        "mean_final_distance": _mean([episode.final_distance for episode in episodes]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _string_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _string_keys(item) for key, item in value.items()}
    return [_string_keys(item) for item in value] if isinstance(value, list) else value


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
