"""One fine-tuning run in a folder of its own, like ``run.py``: resumable, with the same files.

A step is an environment step. ``results.json`` has the evaluation just before the first one as
``before``. Checkpoints hold the replay buffer, the final and the best model do not.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback

from gcrl_gym.callbacks import latest_checkpoint
from gcrl_gym.errors import UserError
from gcrl_gym.evaluation import MODES
from gcrl_gym.experiments.folder import circumstances, claim_folder, run_of, write_json
from gcrl_gym.experiments.run import RunResult, Training, block, open_dataset
from gcrl_gym.experiments.spec import Intervals, safe, variant_name
from gcrl_gym.video import prepare_rendering

if TYPE_CHECKING:
    from gcrl_gym.agents.base import OfflineAgent
    from gcrl_gym.datasets import OfflineDataset


OPTIONS = (
    "learning_starts",
    "updates_per_step",
    "buffer_size",
    "exploration_noise",
    "actor",
    "learning_rate",
)
"""Arguments of ``OfflineAgent.finetune`` that a spec may set."""


@dataclass(frozen=True)
class FinetuneSpec(Intervals):
    """One fine-tuning run.

    Attributes:
        model: saved agent (.zip), or a run folder for its final model.
        steps: environment steps.
        seed: of all that is random online and of the evaluations.
        env: environment id to train and evaluate in; by default the run's.
        dataset: offline data to mix with, by default the run's; not read with mix "online" where
            ``env`` says where to train.
        mix: "symmetric", "online" or the share of offline transitions.
        options: further arguments of ``finetune``, see ``OPTIONS``.
        eval_freq: steps between evaluations, by default a tenth of ``steps``.
        eval_episodes: episodes per task, actor and mode in every evaluation.
        checkpoint_freq: steps between checkpoints, by default a tenth of ``steps``, at most 10,000.
        video_episodes: episodes filmed at the end, 0 for none.
        variant: name of the folder; by default made of what differs from the defaults.
    """

    model: str
    steps: int
    seed: int = 0
    env: str | None = None
    dataset: str | None = None
    mix: str | float = "symmetric"
    options: dict[str, Any] = field(default_factory=dict)
    eval_freq: int | None = None
    eval_episodes: int = 20
    checkpoint_freq: int | None = None
    video_episodes: int = 5
    variant: str | None = None

    def __post_init__(self) -> None:
        """Make 1e5 a whole number."""
        steps: Any = self.steps
        if isinstance(steps, float) and steps.is_integer():
            object.__setattr__(self, "steps", int(steps))

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def archive(self) -> Path:
        """Return the file of the model."""
        path = Path(self.model)
        return path / "final_model.zip" if path.is_dir() else path

    def resolved(self) -> FinetuneSpec:
        """Return the spec with what the model's run says about environment and data.

        Raises:
            UserError: a number out of range, or nothing that tells where to train.
        """
        self.check_numbers(
            "steps", "seed", "eval_freq", "eval_episodes", "checkpoint_freq", "video_episodes"
        )
        run = run_of(self.archive()) or {}
        env = self.env or run.get("env")
        dataset = self.dataset or run.get("dataset")
        if env is None and dataset is None:
            raise UserError(
                f"{self.model} is not in a run folder: name the environment with --env, and the "
                "data with --dataset where it is mixed with."
            )
        return dataclasses.replace(self, env=env, dataset=dataset)

    def folder(self, runs_dir: str | os.PathLike[str]) -> Path:
        """Return ``<the model's run>/finetune/<variant>/seed_<n>``, or one below ``runs_dir``."""
        run = run_of(self.archive())
        base = Path(runs_dir, "finetune", safe(self.archive().stem))
        if run is not None:
            base = Path(run["folder"], "finetune")
        differing = self.options | ({} if self.mix == "symmetric" else {"mix": self.mix})
        name = variant_name([] if differing else ["default"], differing)
        return base / (name if self.variant is None else safe(self.variant)) / f"seed_{self.seed}"


def finetune(
    spec: FinetuneSpec,
    runs_dir: str | os.PathLike[str] = "runs",
    data_dir: str | Path | None = None,
    progress_bar: bool = True,
    folder: str | os.PathLike[str] | None = None,
) -> RunResult:
    """Fine-tune, evaluate before and after, and film; resume where an earlier start was stopped.

    Args:
        spec: what to do.
        runs_dir: folder of runs of models that are in no run folder.
        data_dir: where to look for the dataset's source files.
        progress_bar: show one, with the last success rate.
        folder: the run's folder, instead of the one that ``spec`` gives.

    Raises:
        UserError: an invalid spec, a folder that holds another run or cannot be written, an agent
            that does not learn online, or data or an environment that do not fit it.
        Interrupted: stopped by a signal; starting the run again continues it.
    """
    from gcrl_gym.agents.inputs import check_unknown
    from gcrl_gym.agents.online_setup import Settings, prepare

    check_unknown(set(spec.options) - set(OPTIONS), OPTIONS, "finetune")
    spec = spec.resolved()
    folder = spec.folder(runs_dir) if folder is None else Path(folder)
    with claim_folder(folder, spec):
        finished = folder / "results.json"
        if finished.is_file():
            return RunResult(folder, json.loads(finished.read_text("utf-8")), True)
        prepare_rendering()  # before MuJoCo is imported
        dataset, env = _data(spec, data_dir)
        agent = _agent(spec, folder, env, dataset)
        # Mistakes leave no folder behind.
        prepare(agent, Settings.of(agent, spec.mix, **spec.options), env=None, dataset=None)
        write_json(folder / "spec.json", _describe(spec, agent, dataset, env))
        training = _Finetuning(spec, folder, agent, env)
        training.run(progress_bar)
        return RunResult(folder, training.finish())


class _Finetuning(Training):
    """The callbacks of a fine-tuning run, and what happens before and after."""

    spec: FinetuneSpec
    unit = "step"
    first_kept = -1

    def run(self, progress_bar: bool) -> None:
        """Evaluate what there is before the first step, then train."""
        if self.agent.num_timesteps == 0:
            self.evaluation.init_callback(self.agent)
            self.evaluation.num_timesteps = 0
            self.evaluation.run(MODES)
        super().run(progress_bar)

    def advance(self, remaining: int, callbacks: list[BaseCallback]) -> None:
        """Fine-tune for so many environment steps."""
        spec: Any = self.spec
        self.agent.finetune(
            remaining, mix=spec.mix, callback=callbacks, seed=spec.seed,
            log_interval=spec.log_interval, **spec.options,
        )  # fmt: skip

    def more_results(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the evaluation before the first step, and what it began with."""
        return {"model": self.spec.model, "before": block(rows, 0)}


def _data(
    spec: FinetuneSpec, data_dir: str | Path | None
) -> tuple[OfflineDataset | None, gym.Env[Any, Any]]:
    from gcrl_gym.agents.inputs import resolve_env
    from gcrl_gym.datasets import OfflineDataset

    if spec.dataset is None or (spec.mix == "online" and spec.env is not None):
        env = resolve_env(spec.env)
        assert isinstance(env, gym.Env)
        return None, env
    stored, env = open_dataset(spec.dataset, data_dir, spec.env)
    return OfflineDataset.from_minari(stored), env


def _agent(
    spec: FinetuneSpec, folder: Path, env: gym.Env[Any, Any], dataset: OfflineDataset | None
) -> OfflineAgent:
    """Return the agent of the last checkpoint, or the model, which then begins to count steps."""
    from gcrl_gym.agents import get_agent, load

    name = str((run_of(spec.archive()) or {}).get("agent", ""))
    read: Any = get_agent(name).load if ":" in name else load  # agents of third parties
    path = latest_checkpoint(folder / "checkpoints")
    agent: OfflineAgent = read(path or spec.archive(), env=env, dataset=dataset)
    if path is None:
        agent.num_timesteps, agent.online = 0, None
    return agent


def _describe(
    spec: FinetuneSpec, agent: OfflineAgent, dataset: OfflineDataset | None, env: gym.Env[Any, Any]
) -> dict[str, Any]:
    size = None
    if dataset is not None:
        size = {"steps": dataset.num_steps, "episodes": dataset.num_episodes}
    return {
        "spec": spec.to_dict(),
        "agent": agent.name,
        "hyperparameters": {name: repr(getattr(agent, name)) for name in agent.signature()},
        "environment": None if env.spec is None else env.spec.id,
        "dataset": size,
        **circumstances(),
    }
