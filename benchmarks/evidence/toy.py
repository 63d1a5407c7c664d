"""OGBench's six agents on Nav2D's medium maze, both kinds of actions: who solves it in 5 minutes?

    python -m benchmarks.evidence.toy            # run what is missing, write docs/toy.md
    python -m benchmarks.evidence.toy --table    # only write the page

Batch 256, two layers of 256, one process with one thread and as many updates as fit 300 seconds of
CPU time. The environment judges hindsight goals: 0 within its tolerance, else -1 per step.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.evidence.runner import run_all
from gcrl_gym.agents import get_agent
from gcrl_gym.datasets import GoalSampler, SubgoalSampler
from gcrl_gym.evaluation import MODES, evaluate
from gcrl_gym.experiments.folder import circumstances, write_json

ROOT = Path(__file__).parent.parent.parent
STORE, PAGE = ROOT / "docs" / "results" / "toy", ROOT / "docs" / "toy.md"

SECONDS = 300.0
EPISODES = 20
KINDS = {
    "continuous": ("gcrl/Nav2D-v0", "gcrl/nav2d/medium-play-v0"),
    "discrete": ("gcrl/Nav2DDiscrete-v0", "gcrl/nav2d-discrete/medium-play-v0"),
}
SMALL: dict[str, Any] = {"batch_size": 256, "hidden_sizes": (256, 256), "normalize": True}
# Random goals often: a maze is crossed by joining parts of episodes.
JOINING: dict[str, Any] = {"value": (0.05, 0.15, 0.8), "actor": (0.0, 0.5, 0.5)}
VALUES: dict[str, Any] = {"learning_rate": "lin_1e-3", "tau": 0.02, "expectile": 0.7}
# Updates, options. DDPG+BC for continuous actions, AWR for discrete ones, as OGBench.
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "gcbc": (40_000, {"learning_rate": "lin_1e-3"}),
    "gcivl": (
        24_000,
        {**VALUES, "alpha": 3.0, "sampler": GoalSampler(support="ogbench", **JOINING)},
    ),
    "gciql": (16_000, {**VALUES, "sampler": GoalSampler(support="ogbench", **JOINING)}),
    "qrl": (16_000, {"learning_rate": "lin_1e-3", "latent_dim": 64}),
    "crl": (20_000, {"learning_rate": "lin_1e-3", "discount": 0.95}),
    "hiql": (
        16_000,
        {
            **VALUES,
            "low_alpha": 3.0,
            "high_alpha": 3.0,
            "subgoal_steps": 8,
            "sampler": SubgoalSampler(support="ogbench", steps=8, **JOINING),
        },
    ),
}
BY_KIND: dict[tuple[str, str], dict[str, Any]] = {
    ("gciql", "continuous"): {"alpha": 0.03},
    ("gciql", "discrete"): {"alpha": 3.0},
    ("qrl", "continuous"): {"alpha": 0.003, "dim_per_component": 8},
    ("qrl", "discrete"): {"alpha": 3.0, "dim_per_component": 8},
    ("crl", "continuous"): {"alpha": 0.03},
    ("crl", "discrete"): {"alpha": 3.0},
}


@dataclass(frozen=True)
class Toy:
    """One agent on one kind of actions."""

    agent: str
    kind: str

    def file(self, store: Path) -> Path:
        """Return where the result is kept."""
        return store / f"{self.agent}_{self.kind}.json"

    def command(self, target: Path, runs_dir: Path) -> list[str]:
        """Return the command that trains it; runs are short, so a stopped one starts over."""
        return [sys.executable, "-m", __name__, "--one", self.agent, self.kind, str(target)]


class _Clock(BaseCallback):
    """Ends training when the CPU time is spent."""

    def __init__(self) -> None:
        super().__init__()
        self.start = time.process_time()

    def _on_step(self) -> bool:
        return time.process_time() - self.start < SECONDS


def one(agent: str, kind: str, target: Path) -> None:
    """Train and evaluate one agent."""
    name, dataset = KINDS[kind]
    updates, options = SETTINGS[agent]
    env = gym.make(name, maze="medium", reward="penalty")
    keywords = SMALL | options | BY_KIND.get((agent, kind), {})
    learner = get_agent(agent)(env, dataset, seed=0, device="cpu", **keywords)
    clock = _Clock()
    learner.learn(updates, callback=clock)
    seconds = time.process_time() - clock.start
    scores = {}
    for mode in MODES:
        result = evaluate(learner, env, episodes_per_task=EPISODES, modes=(mode,))
        scores[mode] = [row["success_rate"] for row in result.per_task.values()]
    write_json(
        target,
        {
            "agent": agent,
            "kind": kind,
            "dataset": dataset,
            "updates": learner.num_timesteps,
            "planned_updates": updates,
            "options": {key: str(value) for key, value in keywords.items()},
            "cpu_seconds": round(seconds, 1),
            "success": scores,
            **circumstances(),
        },
    )


INTRODUCTION = f"""\
# OGBench's agents on a toy maze

Written by `python -m benchmarks.evidence.toy --table` from `docs/results/toy/`.

Nav2D, layout `medium`, from `play` data (100,000 steps of a walker between random places), batch
256, two layers of 256, at most {SECONDS:.0f} seconds of CPU time; the environment judges hindsight
goals (`reward="penalty"`: -1 per step). Success in percent over 5 tasks x {EPISODES} episodes, one
seed. Solved means 95 %.

| agent | actions | updates | CPU s | deterministic | sampled | solved | by task |
|---|---|---|---|---|---|---|---|
"""


def write(store: Path, page: Path) -> None:
    """Write the page from what is stored."""
    lines = []
    for agent in SETTINGS:
        for kind in KINDS:
            file = Toy(agent, kind).file(store)
            if not file.is_file():
                lines.append(f"| {agent.upper()} | {kind} | not run yet | | | | | |")
                continue
            run = json.loads(file.read_text("utf-8"))
            tasks = run["success"]["deterministic"]
            means = [100 * sum(run["success"][mode]) / len(tasks) for mode in run["success"]]
            lines.append(
                f"| {agent.upper()} | {kind} | {run['updates']:,} | {run['cpu_seconds']:.0f} "
                f"| {means[0]:.0f} | {means[1]:.0f} | {'yes' if means[0] >= 95 else 'no'} "
                f"| {', '.join(f'{100 * task:.0f}' for task in tasks)} |"
            )
    notes = store / "notes.md"
    ending = "\n" + notes.read_text("utf-8") if notes.is_file() else ""
    page.write_text(INTRODUCTION + "\n".join(lines) + "\n" + ending, encoding="utf-8")


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--workers", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--one", nargs=3, metavar=("AGENT", "KIND", "FILE"), help="one run")
    chosen = parser.parse_args()
    if chosen.one:
        agent, kind, target = chosen.one
        one(agent, kind, Path(target))
        return
    if not chosen.table:
        run_all([Toy(a, k) for a in SETTINGS for k in KINDS], STORE, ROOT / "runs", chosen.workers)
    write(STORE, PAGE)


if __name__ == "__main__":
    main()
