"""Run a list of training runs on a few processes, and keep one small JSON file for each.

A finished run is skipped, a stopped one goes on from its last checkpoint: start the same command
again. The JSON files (what was run, by which versions, and the scores) are committed; the run
folders with models and logs are not. Runs of others' code are jobs too: a file and a command.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.peers.controller import ONE_THREAD
from gcrl_gym.callbacks import read_rows
from gcrl_gym.datasets import OfflineDataset, load_dataset
from gcrl_gym.datasets.rewards import episode_returns
from gcrl_gym.experiments import run as runs
from gcrl_gym.experiments.folder import write_json
from gcrl_gym.experiments.spec import RunSpec


class Task(Protocol):
    """What can be run."""

    def file(self, store: Path) -> Path:
        """Return where the result is kept."""

    def command(self, target: Path, runs_dir: Path) -> list[str]:
        """Return the command that writes the result to ``target``."""


@dataclass(frozen=True)
class Job:
    """One training run of a table.

    Attributes:
        spec: what to train; its ``variant`` is the name of its row.
        note: what the row should say besides the scores.
    """

    spec: RunSpec
    note: str = ""

    def file(self, store: Path) -> Path:
        """Return where the result is kept."""
        spec = self.spec
        return store / spec.dataset.replace("/", "_") / str(spec.variant) / f"seed_{spec.seed}.json"

    def command(self, target: Path, runs_dir: Path) -> list[str]:
        """Return the command that trains it, or goes on with it."""
        order = {"spec": self.spec.to_dict(), "note": self.note}
        return [sys.executable, "-m", __name__, json.dumps(order), str(target), str(runs_dir)]


def run_all(
    jobs: Sequence[Task], store: Path, runs_dir: Path, workers: int, gpu: bool = False
) -> int:
    """Run what is not finished, in order, ``workers`` at a time; return how many failed.

    Args:
        jobs: the runs.
        store: folder of the JSON files.
        runs_dir: folder of the run folders.
        workers: processes, one thread each.
        gpu: let them see the GPU.
    """
    waiting = [job for job in jobs if not job.file(store).is_file()]
    print(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are finished.", flush=True)
    active: list[tuple[Task, subprocess.Popen[bytes], float]] = []
    failed = 0
    environment = os.environ | ONE_THREAD | ({} if gpu else {"CUDA_VISIBLE_DEVICES": ""})
    while waiting or active:
        while waiting and len(active) < workers:
            job = waiting.pop(0)
            command = job.command(job.file(store), runs_dir)
            active.append((job, subprocess.Popen(command, env=environment), time.monotonic()))
        time.sleep(1.0)
        for entry in [entry for entry in active if entry[1].poll() is not None]:
            active.remove(entry)
            job, process, start = entry
            took, good = time.monotonic() - start, process.returncode == 0
            failed += not good
            name = job.file(store).relative_to(store)
            verdict = "done" if good else "FAILED"
            print(f"{verdict} {name} in {took:.0f} s; {len(waiting)} wait", flush=True)
    return failed


def behaviour(dataset: str) -> float | None:
    """Return the normalised score of the data's own returns, None without references."""
    data = OfflineDataset.from_minari(load_dataset(dataset))
    low, high = (data.metadata.get(f"ref_{end}_score") for end in ("min", "max"))
    if low is None or high is None:
        return None
    return float(100 * (episode_returns(data).mean() - low) / (high - low))


def curve(folder: Path) -> list[dict[str, Any]]:
    """Return the evaluations on the way: deterministic actions, one entry for step and actor."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for row in read_rows(folder / "evaluations.csv"):
        if row["mode"] == "deterministic":
            key = {"step": row["step"], "actor": row["actor"]}
            entry = found.setdefault((row["step"], row["actor"]), key | {"per_task": []})
            if row["task"] == "all":
                entry |= {name: row[name] for name in ("success_rate", "normalized_score")}
            else:
                entry["per_task"].append(row["success_rate"])
    return list(found.values())


def one(order: dict[str, Any], target: Path, runs_dir: Path) -> None:
    """Train one run and write its result."""
    spec = RunSpec.from_dict(order["spec"])
    done = runs.train(spec, runs_dir, progress_bar=False)
    described = json.loads((done.folder / "spec.json").read_text("utf-8"))
    described["machine"].pop("system", None)  # of no use to a reader of the table
    with (done.folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        last: dict[str, str] = {}
        for row in csv.DictReader(file):  # the last value of each column; evaluations are rows too
            last |= {key: value for key, value in row.items() if value}
    kept = ("spread", "w2", "lambda", "energy", "updates_per_second")
    target.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "note": order["note"],
        "run": described,
        "protocol": done.results["protocol"],
        "dataset": done.results["dataset"],
        "behaviour": behaviour(spec.dataset),
        "last": done.results["last"],
        "curve": curve(done.folder),
        "metrics": {k: float(v) for k, v in last.items() if k.endswith(kept)},
        "wall_time_s": done.results["wall_time_s"],
    }
    write_json(target, result)


if __name__ == "__main__":
    one(json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
