"""Callbacks for training: evaluation on all tasks, checkpoints, metrics in CSV files, progress."""

from __future__ import annotations

import csv
import math
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, EventCallback
from stable_baselines3.common.logger import KVWriter, filter_excluded_keys
from tqdm.auto import tqdm

from gcrl_gym.checkpoint import atomic_write, read_archive
from gcrl_gym.errors import UserError
from gcrl_gym.evaluation import EvaluationResult, Mode, evaluate
from gcrl_gym.pools import make_pool


class CsvTable:
    """An append-only CSV file whose first column is ``step``; a killed process cannot spoil it.

    New columns may appear at any time: the file is then rewritten in one piece, and earlier rows
    are empty there.
    """

    def __init__(self, path: str | Path, keep_until: int = 0) -> None:
        """Open or make the file; drop half-written rows and rows of steps > ``keep_until``."""
        self.path = Path(path)
        rows = [row for row in read_rows(self.path) if row["step"] <= keep_until]
        self.columns: list[str] = list(rows[0]) if rows else ["step"]
        self._rewrite(rows)

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows (each with a ``step``) and flush them."""
        new = [key for row in rows for key in row if key not in self.columns]
        if new:
            self.columns += list(dict.fromkeys(new))
            self._rewrite(read_rows(self.path))
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerows(rows)

    def _rewrite(self, rows: Sequence[dict[str, Any]]) -> None:
        with atomic_write(self.path) as part, open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Read a table written by ``CsvTable``: numbers as int or float, empty cells as ``None``.

    Rows that a killed process left unfinished are skipped. A missing file has no rows.

    Raises:
        UserError: the file has no ``step`` column.
    """
    path = Path(path)
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        lines = [line for line in file if line.endswith("\n")]
    reader = csv.DictReader(lines)
    if lines and "step" not in (reader.fieldnames or ()):
        raise UserError(f"{path} has no column 'step': it is not a table of a run; move it away.")
    complete = [row for row in reader if None not in row.values() and None not in row]
    return [{key: _value(text) for key, text in row.items()} for row in complete]


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


class MetricsWriter(KVWriter):
    """Logger output that appends the numbers of every dump to ``metrics.csv``.

    ``wall_s`` counts the seconds of training, interruptions excluded.
    """

    def __init__(self, path: str | Path, resume_step: int = 0) -> None:
        """Append to ``path``, keeping rows up to ``resume_step``."""
        self.table = CsvTable(path, resume_step)
        walls = [row.get("wall_s") or 0.0 for row in read_rows(path)]
        self._start = time.monotonic() - max(walls, default=0.0)

    def seconds(self) -> float:
        """Return the seconds of training so far, those before a resumption included."""
        return time.monotonic() - self._start

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Append one row."""
        values = filter_excluded_keys(key_values, key_excluded, "csv")
        numbers = {
            key: value.item() if hasattr(value, "item") else value for key, value in values.items()
        }
        row = {"step": step, "wall_s": round(self.seconds(), 2)}
        self.table.append([row | {k: v for k, v in numbers.items() if isinstance(v, (int, float))}])

    def close(self) -> None:
        """Nothing stays open between rows."""


class GoalEvalCallback(EventCallback):
    """Evaluate every ``eval_freq`` updates on all tasks; keep the numbers and the best model.

    Every evaluation uses the same seed, so differences between two of them come from the agent.
    Logged: ``eval/success_rate`` and ``eval/mean_return`` (last actor) and
    ``eval/actor_<i>/success_rate``. The best model is the one with the highest success rate of the
    last actor (mean return where there is no success), the earliest of equals.

    Attributes:
        last_result: the latest evaluation.
        best_score: the highest score so far.
        best_step: the step it was reached at.
    """

    def __init__(
        self,
        env: Any,
        eval_freq: int = 10_000,
        episodes_per_task: int = 20,
        seed: int = 0,
        *,
        csv_path: str | Path | None = None,
        best_model_path: str | Path | None = None,
        resume_step: int = 0,
        final_step: int | None = None,
        modes: Sequence[Mode] = ("deterministic",),
        callback_after_eval: BaseCallback | None = None,
        verbose: int = 0,
    ) -> None:
        """Prepare; ``env`` is copied, never stepped.

        Args:
            env: environment to evaluate on.
            eval_freq: updates between evaluations.
            episodes_per_task: episodes per task, actor and mode.
            seed: seed of every evaluation.
            csv_path: where to keep the numbers (``evaluations.csv``).
            best_model_path: where to save the best model so far.
            resume_step: rows of later steps in ``csv_path`` are dropped.
            final_step: not evaluated here, because the caller calls ``run`` after training.
            modes: of the evaluations during training.
            callback_after_eval: called after every evaluation, such as SB3's
                ``StopTrainingOnNoModelImprovement`` and ``StopTrainingOnRewardThreshold``.
            verbose: 1 prints one line per evaluation.
        """
        super().__init__(callback_after_eval, verbose)
        self.pool = make_pool(env)
        self.eval_freq, self.episodes_per_task, self.seed = eval_freq, episodes_per_task, seed
        self.best_model_path, self.modes = best_model_path, modes
        self.final_step = final_step
        self.last_result: EvaluationResult | None = None
        self.last_mean_reward = self.best_mean_reward = -math.inf  # names of SB3's EvalCallback
        self.best_score, self.best_step = -math.inf, -1
        self.table = CsvTable(csv_path, resume_step) if csv_path else None
        earlier = (
            [row for row in read_rows(csv_path) if row["mode"] == modes[0]] if csv_path else []
        )
        last_actor = max((row["actor"] for row in earlier), default=0)
        for row in earlier:
            if row["task"] == "all" and row["actor"] == last_actor:
                self._note_best(row, row["step"])

    def _on_step(self) -> bool:
        if self.num_timesteps % self.eval_freq or self.num_timesteps == self.final_step:
            return True
        self.run()
        return self._on_event()

    def run(self, modes: Sequence[Mode] | None = None) -> EvaluationResult:
        """Evaluate the agent now; log, keep and compare the result."""
        result = evaluate(
            self.model,
            self.pool,
            episodes_per_task=self.episodes_per_task,
            seed=self.seed,
            modes=modes or self.modes,
        )
        self.last_result, self.last_mean_reward = result, result.mean_return
        if self.table:
            self.table.append(evaluation_rows(result, self.num_timesteps))
        if self._note_best(vars(result), self.num_timesteps) and self.best_model_path:
            save_to_act(self.model, self.best_model_path)
        self._log(result)
        return result

    def _note_best(self, numbers: dict[str, Any], step: int) -> bool:
        success = numbers["success_rate"]
        score = numbers["mean_return"] if success is None else success
        self.best_mean_reward = max(self.best_mean_reward, numbers["mean_return"])
        if score <= self.best_score:
            return False
        self.best_score, self.best_step = score, step
        return True

    def _log(self, result: EvaluationResult) -> None:
        for row in result.per_actor:
            if row["mode"] == self.modes[0] and row["success_rate"] is not None:
                self.logger.record(f"eval/actor_{row['actor']}/success_rate", row["success_rate"])
        if result.success_rate is not None:
            self.logger.record("eval/success_rate", result.success_rate)
        self.logger.record("eval/mean_return", result.mean_return)
        self.logger.dump(self.num_timesteps)
        if self.verbose:
            success = result.success_rate
            text = "" if success is None else f"success {100 * success:.1f} %, "
            print(f"update {self.num_timesteps}: {text}return {result.mean_return:.2f}")

    def _on_training_end(self) -> None:
        self.pool.close()


def save_to_act(model: Any, path: str | Path) -> None:
    """Save a model without the replay buffer that it may have, which only training needs."""
    if hasattr(model, "finetune"):
        model.save(path, buffer=False)
    else:
        model.save(path)


def evaluation_rows(result: EvaluationResult, step: int) -> list[dict[str, Any]]:
    """Return one flat row per actor, mode and task, with task ``"all"`` for the overall numbers."""
    rows = []
    for entry in result.per_actor:
        head = {"step": step, "actor": entry["actor"], "mode": entry["mode"]}
        overall = {k: v for k, v in entry.items() if k not in ("actor", "mode", "per_task")}
        rows.append(head | {"task": "all"} | overall)
        rows += [head | {"task": task} | numbers for task, numbers in entry["per_task"].items()]
    return rows


class RunCheckpoint(BaseCallback):
    """Save the agent every ``freq`` updates to ``step_<n>.zip``; keep the last two."""

    def __init__(self, folder: str | Path, freq: int, keep: int = 2) -> None:
        """Save to ``folder`` every ``freq`` updates, keeping the newest ``keep`` files."""
        super().__init__()
        self.folder, self.freq, self.keep = Path(folder), freq, keep

    def _on_step(self) -> bool:
        if self.num_timesteps % self.freq == 0:
            self.save()
        return True

    def save(self) -> Path:
        """Save the agent as it is now and return the file."""
        path = self.folder / f"step_{self.num_timesteps:09d}.zip"
        if not path.exists():
            self.model.save(path)
        for old in checkpoints(self.folder)[self.keep :]:
            old.unlink()
        return path


def checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoint files of a folder, the newest first."""
    return sorted(Path(folder).glob("step_*.zip"), reverse=True)


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest readable checkpoint; warn about damaged ones and take them away."""
    for path in checkpoints(folder):
        try:
            read_archive(path)
        except UserError as error:
            warnings.warn(f"Skipping a damaged checkpoint: {error}", stacklevel=2)
            path.rename(path.with_suffix(".damaged"))
        else:
            return path
    return None


class ProgressCallback(BaseCallback):
    """A progress bar over timesteps, with the last success rate."""

    def __init__(
        self, total: int, evaluation: GoalEvalCallback | None = None, unit: str = "update"
    ) -> None:
        """Count to ``total`` timesteps, each a ``unit``; show the results of ``evaluation``."""
        super().__init__()
        self.total, self.evaluation, self.unit = total, evaluation, unit
        self._shown: EvaluationResult | None = None

    def _on_training_start(self) -> None:
        self.bar = tqdm(
            total=self.total,
            initial=self.model.num_timesteps,
            unit=self.unit,
            desc=getattr(self.model, "name", "train"),
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 30.0,  # log files need few lines
        )

    def _on_step(self) -> bool:
        self.bar.update()
        result = self.evaluation.last_result if self.evaluation else None
        if result is not self._shown and result is not None:
            self._shown = result
            text = f"return {result.mean_return:.2f}"
            if result.success_rate is not None:
                text = f"success {100 * result.success_rate:.0f} %"
            self.bar.set_postfix_str(f"last {text}")
        return True

    def _on_training_end(self) -> None:
        self.bar.close()
