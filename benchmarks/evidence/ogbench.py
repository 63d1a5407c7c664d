"""OGBench's six agents, ours against OGBench's own: reduced runs, losses at full size, chains.

    python -m benchmarks.evidence.ogbench              # run what is missing (hours), write the page
    python -m benchmarks.evidence.ogbench --table      # only write docs/ogbench.md
    python -m benchmarks.evidence.ogbench --published  # full size on a GPU, ours only

The runs of OGBench's agents and the losses need PEERS_PYTHON and OGBENCH_DIR (benchmarks/README.md)
and the sets' .npz files; without them these rows stay empty. The published protocol is that of the
paper: batch 1024, three layers of 512, a million updates, 50 episodes of each task.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evidence.ogbench_page import write
from benchmarks.evidence.ogbench_results import (
    EARLY,
    FULL_SIZE_UPDATES,
    MANIPULATION,
    MAZE,
    SEEDS,
)
from benchmarks.evidence.runner import Job, Task, run_all
from benchmarks.peers.controller import FOLDER, SkippedError, WorkerSpec
from gcrl_gym.datasets.catalog import fetch_file
from gcrl_gym.experiments.spec import RunSpec

ROOT = Path(__file__).parent.parent.parent
STORE = ROOT / "docs" / "results" / "ogbench"

UPDATES = {"gcbc": 25_000, "gcivl": 25_000, "gciql": 25_000, "crl": 25_000, "hiql": 25_000,
           "qrl": 15_000}  # fmt: skip
EPISODES = 20  # of each task

REDUCED: dict[str, Any] = {"batch_size": 256, "hidden_sizes": (256, 256)}
NARROW: dict[str, dict[str, Any]] = {"qrl": {"latent_dim": 128}}
# Energies are divided by mean |Q|, which changes by a few percent over the range of actions: with a
# weight of 1 an actor could hardly leave its predecessor (by gradient / 2 w), with 0.1 by a tenth.
CHAIN: dict[str, Any] = {"w2_weights": (0.1, 0.1), "normalize_energy": True}
CHAINED = ("gciql", "crl")


@dataclass(frozen=True)
class Reference:
    """A run of OGBench's own agent by the reduced protocol.

    Attributes:
        agent: its name.
        dataset: id of the dataset.
        updates: number of updates.
        seed: of the run.
    """

    agent: str
    dataset: str
    updates: int
    seed: int = 0

    def file(self, store: Path) -> Path:
        """Return where the result is kept."""
        return store / self.dataset.replace("/", "_") / self.agent / f"reference_{self.seed}.json"

    def command(self, target: Path, runs_dir: Path) -> list[str]:
        """Return the command in the peers' interpreter.

        Raises:
            SkippedError: there is none here.
        """
        sizes = {"batch_size": REDUCED["batch_size"], "actor_hidden_dims": REDUCED["hidden_sizes"]}
        if self.agent != "gcbc":
            sizes["value_hidden_dims"] = REDUCED["hidden_sizes"]
        sizes |= NARROW.get(self.agent, {})
        return [
            *_peer("ogbench_train.py"), self.agent, self.dataset.removeprefix("ogbench/"),
            str(fetch_file(self.dataset)), str(target),
            "--steps", str(self.updates), "--seed", str(self.seed), "--episodes", str(EPISODES),
            "--evaluate", *map(str, evaluations(self.updates)), "--set", json.dumps(sizes),
        ]  # fmt: skip


@dataclass(frozen=True)
class Losses:
    """The losses of both sides at full size.

    Attributes:
        agent: its name.
    """

    agent: str

    def file(self, store: Path) -> Path:
        """Return where the result is kept."""
        return store / f"losses_{self.agent}.json"

    def command(self, target: Path, runs_dir: Path) -> list[str]:
        """Return the command.

        Raises:
            SkippedError: there is no peers' interpreter here.
        """
        _peer("ogbench_losses.py")
        module = "benchmarks.evidence.ogbench_losses"
        options = ["--dataset", MAZE, "--updates", str(FULL_SIZE_UPDATES)]
        return [sys.executable, "-m", module, self.agent, str(target), *options]


def _peer(script: str) -> list[str]:
    spec = WorkerSpec(script, (script,), peer=True, checkout="OGBENCH_DIR")
    return [spec.interpreter(), str(FOLDER / script)]


def evaluations(updates: int) -> list[int]:
    """Return after which updates a run is evaluated."""
    return sorted({*range(EARLY, updates + 1, EARLY), updates})


KINDS: dict[type, str] = {Job: "ours", Reference: "reference", Losses: "losses"}


def jobs() -> list[Task]:
    """Return every run of the reduced protocol."""
    found: list[Task] = []
    for agent, updates in UPDATES.items():
        found += [Losses(agent), Reference(agent, MAZE, updates)]
        found += [_ours(agent, MAZE, updates, seed) for seed in range(SEEDS[MAZE])]
    for dataset in MANIPULATION:
        for agent in ("gcivl", "gciql"):
            updates = UPDATES[agent]
            found += [Reference(agent, dataset, updates), _ours(agent, dataset, updates, 0)]
    return found


def _ours(agent: str, dataset: str, updates: int, seed: int) -> Job:
    # Actor 0 is the same to the bit with and without a chain: its run gives both tables.
    chain = CHAIN if agent in CHAINED and dataset == MAZE else {}
    keywords = REDUCED | NARROW.get(agent, {}) | chain
    return Job(
        RunSpec(
            agent, dataset, updates, seed, preset="auto", agent_kwargs=keywords,
            eval_freq=EARLY, eval_episodes=EPISODES, checkpoint_freq=5_000, video_episodes=0,
            variant=agent,
        )
    )  # fmt: skip


def published() -> list[Task]:
    """Return the runs of the published protocol."""
    return [
        Job(
            RunSpec(
                agent, MAZE, 1_000_000, seed, preset="auto", eval_episodes=50, video_episodes=0,
                agent_kwargs={"batch_size": 1024, "hidden_sizes": (512, 512, 512)},
                variant=f"{agent}-published",
            )
        )
        for agent in UPDATES
        for seed in range(SEEDS[MAZE])
    ]  # fmt: skip


def _runnable(task: Task) -> bool:
    """Say which peers' runs cannot be made here."""
    try:
        task.command(task.file(STORE), ROOT)
    except SkippedError as reason:
        print(f"skipped {task.file(STORE).relative_to(STORE)}: {reason}", flush=True)
        return False
    return True


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--published", action="store_true", help="published protocol, on a GPU")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument(
        "--only", nargs="*", default=[], choices=[*UPDATES, *KINDS.values()], help="agents, kinds"
    )
    parser.add_argument("--runs-dir", default=str(ROOT / "runs"), help="folder of the runs")
    chosen = parser.parse_args()
    if not chosen.table:
        todo = [
            task
            for task in (published() if chosen.published else jobs())
            if _matches(task, set(chosen.only))
        ]
        missing = [task for task in todo if task.file(STORE).is_file() or _runnable(task)]
        run_all(missing, STORE, Path(chosen.runs_dir), chosen.workers, gpu=chosen.published)
    write(STORE, ROOT / "docs")


def _matches(task: Task, only: set[str]) -> bool:
    agent = task.spec.agent if isinstance(task, Job) else task.agent
    kinds, agents = only & set(KINDS.values()), only & set(UPDATES)
    return (not kinds or KINDS[type(task)] in kinds) and (not agents or agent in agents)


if __name__ == "__main__":
    main()
