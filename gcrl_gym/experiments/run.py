"""One training run in a folder of its own, which can be killed at any time and started again.

    spec.json  metrics.csv  evaluations.csv  checkpoints/  best_model.zip        while it trains
    final_model.zip  learning_curve.png  videos/rollout.mp4  results.json        at the end

``results.json`` is written last: a folder that has it is finished.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger, make_output_format

from gcrl_gym.callbacks import (
    GoalEvalCallback,
    MetricsWriter,
    ProgressCallback,
    RunCheckpoint,
    checkpoints,
    latest_checkpoint,
    read_rows,
)
from gcrl_gym.errors import UserError
from gcrl_gym.evaluation import MODES, EvaluationResult
from gcrl_gym.experiments.folder import claim_folder, describe, peak_memory_mb, write_json
from gcrl_gym.experiments.spec import RunSpec
from gcrl_gym.plotting import plot_learning_curve
from gcrl_gym.video import prepare_rendering, record_video

if TYPE_CHECKING:
    from minari import MinariDataset
    from rich.table import Table

    from gcrl_gym.agents.base import OfflineAgent
    from gcrl_gym.datasets import OfflineDataset
    from gcrl_gym.experiments.finetune import FinetuneSpec


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: where everything is.
        results: the content of ``results.json``.
        already_finished: nothing was trained, the folder held the finished run.
    """

    folder: Path
    results: dict[str, Any]
    already_finished: bool = False


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal; ``str()`` says where it can go on."""


def train(
    spec: RunSpec,
    runs_dir: str | os.PathLike[str] = "runs",
    data_dir: str | Path | None = None,
    progress_bar: bool = True,
    folder: str | os.PathLike[str] | None = None,
) -> RunResult:
    """Train, evaluate and film ``spec``; resume it where an earlier start was stopped.

    A run that was killed goes on from its last checkpoint and ends with the same bits as an
    undisturbed one. The first Ctrl-C or SIGTERM saves a checkpoint before it stops.

    Args:
        spec: what to train.
        runs_dir: folder of all runs; this one is in ``spec.folder(runs_dir)``.
        data_dir: where to look for the dataset's source files.
        progress_bar: show one, with the last success rate.
        folder: the run's folder, instead of one below ``runs_dir``.

    Raises:
        UserError: an invalid spec, a folder that holds another run or cannot be written, data
            that does not fit. Nothing is trained in these cases.
        Interrupted: stopped by a signal; starting the run again continues it.
    """
    from gcrl_gym.datasets import OfflineDataset

    spec.validate()
    folder = spec.folder(runs_dir) if folder is None else Path(folder)
    with claim_folder(folder, spec):
        finished = folder / "results.json"
        if finished.is_file():
            return RunResult(folder, json.loads(finished.read_text("utf-8")), True)
        prepare_rendering()  # before MuJoCo is imported
        stored, env = open_dataset(spec.dataset, data_dir, spec.env)
        dataset = OfflineDataset.from_minari(stored)
        agent = _agent(spec, folder, env, dataset)
        write_json(folder / "spec.json", describe(spec, dataset, env))
        training = Training(spec, folder, agent, env)
        training.run(progress_bar)
        return RunResult(folder, training.finish())


class Training:
    """The callbacks of a run, and what happens after the last step."""

    unit = "update"

    def __init__(
        self,
        spec: RunSpec | FinetuneSpec,
        folder: Path,
        agent: OfflineAgent,
        env: gym.Env[Any, Any],
    ) -> None:
        self.spec, self.folder, self.agent, self.env = spec, folder, agent, env
        step = agent.num_timesteps
        self.metrics = MetricsWriter(folder / "metrics.csv", step)
        outputs: list[KVWriter] = [self.metrics]
        if agent.verbose:
            outputs.append(make_output_format("stdout", str(folder)))
        if agent.tensorboard_log:
            outputs.append(make_output_format("tensorboard", agent.tensorboard_log))
        agent.set_logger(Logger(None, outputs))
        self.evaluation = GoalEvalCallback(
            env,
            spec.eval_interval,
            spec.eval_episodes,
            spec.seed,
            csv_path=folder / "evaluations.csv",
            best_model_path=folder / "best_model.zip",
            # The evaluation after the last step is made by finish(), again if it was cut off.
            resume_step=min(step or self.first_kept, spec.steps - 1),
            final_step=spec.steps,
        )
        self.checkpoint = RunCheckpoint(folder / "checkpoints", spec.checkpoint_interval)

    first_kept = 0  # rows of evaluations.csv up to this step survive a start from the beginning

    def advance(self, remaining: int, callbacks: list[BaseCallback]) -> None:
        """Train for so many steps."""
        self.agent.learn(remaining, callbacks, self.spec.log_interval, reset_num_timesteps=False)

    def run(self, progress_bar: bool) -> None:
        """Train to the end of the run, or until a signal comes.

        Raises:
            Interrupted: a signal came.
        """
        remaining = self.spec.steps - self.agent.num_timesteps
        stop = _StopOnSignal()
        callbacks: list[BaseCallback] = [self.evaluation, self.checkpoint, stop]
        if progress_bar:
            callbacks.append(ProgressCallback(self.spec.steps, self.evaluation, self.unit))
        if remaining > 0:
            with stop.listening():
                self.advance(remaining, callbacks)
            path = self.checkpoint.save()
            if stop.received and self.agent.num_timesteps < self.spec.steps:
                where = f"{self.unit} {self.agent.num_timesteps}"
                raise Interrupted(f"Stopped at {where}, saved in {path}.")
        else:
            self.evaluation.init_callback(self.agent)
            self.evaluation.num_timesteps = self.agent.num_timesteps

    def finish(self) -> dict[str, Any]:
        """Write the final model, the final evaluation, figure, film and, last, the results."""
        spec, folder, agent = self.spec, self.folder, self.agent
        wall = self.metrics.seconds()
        agent.save(folder / "final_model.zip", buffer=False)
        self.evaluation.run(MODES)
        self.evaluation.pool.close()
        rows = read_rows(folder / "evaluations.csv")
        title = f"{agent.name} on {spec.dataset or spec.env}, seed {spec.seed}"
        plot_learning_curve(rows, folder / "learning_curve.png", title)
        if spec.video_episodes:
            _film(agent, self.env, folder / "videos" / "rollout.mp4", spec)
        results = {
            "dataset": agent.trained_on,
            "protocol": {
                "tasks": [r["task"] for r in block(rows, spec.steps)["per_task"]],
                "episodes_per_task": spec.eval_episodes,
                "evaluation_seed": spec.seed,
                "steps": spec.steps,
                "headline": f"last actor, deterministic actions, after the last {self.unit}",
                "best": "the earliest evaluation with the highest headline number",
            },
            **self.more_results(rows),
            "last": block(rows, spec.steps),
            "best": block(rows, self.evaluation.best_step),
            "wall_time_s": round(wall, 1),
            "peak_memory_mb": peak_memory_mb(),
        }
        write_json(folder / "results.json", results)
        return results

    def more_results(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what this kind of run adds to its results."""
        return {}


def results_table(results: dict[str, Any]) -> Table:
    """Return the last evaluation in ``results`` as a table; stand-in data is marked as such."""
    last, protocol = results["last"], results["protocol"]

    def by_task(entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {"per_task": {row["task"]: row for row in entry["per_task"]}}

    return EvaluationResult(
        last["success_rate"],
        last["mean_return"],
        last["normalized_score"],
        by_task(last)["per_task"],
        [by_task(entry) for entry in last["per_actor"]],
        protocol["episodes_per_task"],
        protocol["evaluation_seed"],
        results.get("dataset", {}),
    ).table()


def block(rows: list[dict[str, Any]], step: int) -> dict[str, Any]:
    """Return the evaluation at ``step`` from rows of ``evaluations.csv``, nested for reading."""

    def numbers(row: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in row.items() if k not in ("step", "actor", "mode")}

    here = [row for row in rows if row["step"] == step]
    actors = []
    for row in here:
        if row["task"] == "all":
            own = [r for r in here if (r["actor"], r["mode"]) == (row["actor"], row["mode"])]
            per_task = [numbers(r) for r in own if r["task"] != "all"]
            overall = {k: v for k, v in row.items() if k not in ("step", "task")}
            actors.append(overall | {"per_task": per_task})
    last = max(entry["actor"] for entry in actors)
    top = next(entry for entry in actors if entry["actor"] == last)
    head = {key: top[key] for key in ("success_rate", "mean_return", "normalized_score")}
    return {"step": step} | head | {"per_task": top["per_task"], "per_actor": actors}


def open_dataset(
    dataset: str, data_dir: str | Path | None = None, env: str | None = None
) -> tuple[MinariDataset, gym.Env[Any, Any]]:
    """Return the dataset of an id or folder, and the environment to evaluate on.

    Args:
        dataset: id, or folder of a Minari dataset.
        data_dir: where to look for source files.
        env: environment id, by default the dataset's own.

    Raises:
        UserError: unknown dataset or environment.
    """
    from gcrl_gym.agents.inputs import resolve_env
    from gcrl_gym.datasets import make_env

    stored = open_stored(dataset, data_dir)
    made = make_env(stored) if env is None else resolve_env(env)
    assert isinstance(made, gym.Env)
    return stored, made


def open_stored(dataset: str, data_dir: str | Path | None = None) -> MinariDataset:
    """Return the Minari dataset of an id or in a folder; see ``open_dataset``."""
    from gcrl_gym.datasets import load_dataset
    from gcrl_gym.datasets.minari_reader import open_minari

    return open_minari(dataset) if os.path.isdir(dataset) else load_dataset(dataset, data_dir)


def _agent(
    spec: RunSpec, folder: Path, env: gym.Env[Any, Any], dataset: OfflineDataset
) -> OfflineAgent:
    """Return a new agent, or the one of the last checkpoint."""
    from gcrl_gym.agents import get_agent

    kind = get_agent(spec.agent)
    path = latest_checkpoint(folder / "checkpoints")
    if path is None:
        return kind(env, dataset, seed=spec.seed, **spec.keywords())
    # Not in the archive, because they are about this machine and not about the result.
    local = {k: v for k, v in spec.keywords().items() if k in ("device", "verbose")}
    return kind.load(path, env=env, dataset=dataset, **local)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run folder without reading it."""
    return next(iter(checkpoints(folder / "checkpoints")), None)


def _film(
    agent: OfflineAgent, env: gym.Env[Any, Any], path: Path, spec: RunSpec | FinetuneSpec
) -> None:
    try:
        record_video(agent, env, path, spec.video_episodes, seed=spec.seed)
    except UserError as error:  # numbers matter more than pictures
        warnings.warn(f"No video: {error}", stacklevel=2)


class _StopOnSignal(BaseCallback):
    """Ends training after the running update when SIGINT or SIGTERM comes, once."""

    def __init__(self) -> None:
        super().__init__()
        self.received = False

    def _on_step(self) -> bool:
        return not self.received

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals; a second one acts as usual. Only possible in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def stop(number: int, frame: Any) -> None:
            self.received = True
            signal.signal(number, before[signal.Signals(number)])

        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
