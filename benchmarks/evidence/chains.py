"""Chains of JKO actors on eight offline algorithms: four sets, actors 0 to 2, against imitation.

    python -m benchmarks.evidence.chains              # run what is missing (hours), write the table
    python -m benchmarks.evidence.chains --table      # only write docs/chains.md

Each run has two appended actors: their rows are the chains of length 0, 1 and 2, because earlier
actors do not depend on later ones. The scores are those of the last checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.evidence.chains_table import write
from benchmarks.evidence.runner import Job, run_all
from gcrl_gym.experiments.spec import RunSpec

ROOT = Path(__file__).parent.parent.parent
STORE = ROOT / "docs" / "results" / "chains"

HEADLINE = "d4rl/hopper-medium-replay-v2"
POINTMAZE = "ogbench/pointmaze-medium-navigate-v0"
CUBE = "ogbench/cube-single-play-singletask-task2-v0"
MEDIUM = "d4rl/hopper-medium-v2"
SETS = {HEADLINE: 30_000, POINTMAZE: 20_000, CUBE: 20_000, MEDIUM: 20_000}
FAST = ("td3_bc", "iql", "awac", "rebrac")
SLOW = ("fql", "cql", "sac_n", "edac")
# Smaller than published, to fit a working day on two cores without a GPU; --published leaves them
# out.
NARROW = (128, 128)
REDUCED: dict[str, dict[str, Any]] = {
    "td3_bc": {"hidden_sizes": (256, 256)},
    "iql": {"hidden_sizes": (256, 256), "activation": "relu", "layer_norm": False},
    "awac": {"hidden_sizes": (128, 128, 128)},
    "rebrac": {"hidden_sizes": NARROW},
    "fql": {"hidden_sizes": NARROW},
    "cql": {"hidden_sizes": NARROW},
    "sac_n": {"hidden_sizes": NARROW, "num_critics": 10},
    "edac": {"hidden_sizes": NARROW, "num_critics": 10},
}
# Nothing is published for these algorithms on goal-conditioned data; OGBench's values for its
# relatives (GCIQL, and those of antmaze for the others) are the nearest.
GOALS: dict[str, dict[str, Any]] = {
    "iql": {"expectile": 0.9, "beta": 10.0, "actor_schedule": "constant", "normalize": False},
    "rebrac": {"actor_bc": 0.003, "critic_bc": 0.01},
}


# The published settings are made for a million updates: IQL's target rate of 0.001 lets Q see a few
# steps ahead after 30,000, the temperatures of IQL and AWAC make weights of 0 or 100 of advantages
# that are still noise, and ReBRAC's 0.05 leaves the data before its critics are good for it (0.4 is
# TD3+BC's 1 / 2.5). These fit the short run.
SHORT: dict[str, dict[str, Any]] = {
    "iql": {
        "tau": 0.05, "expectile": 0.5, "beta": 0.1, "policy_type": "gaussian",
        "reward_transform": "none", "actor_schedule": "constant",
    },
    "awac": {"tau": 0.02, "awac_lambda": 10.0},
    "rebrac": {
        "tau": 0.02, "actor_bc": 0.4, "critic_bc": 0.01, "batch_size": 256,
        "hidden_sizes": (256, 256),
    },
}  # fmt: skip
# The same chains in units that do not depend on the rewards: energies divided by mean |Q|.
NORMALIZED: dict[str, Any] = {"normalize_energy": True, "w2_weights": (1.0, 1.0)}


def jobs(published: bool = False) -> list[Job]:
    """Return every run of the table, the headline's first, further seeds of slow learners last."""
    fast = {
        dataset: [_job(agent, dataset, seed, published) for agent in FAST for seed in range(3)]
        for dataset in SETS
    }
    slow = {dataset: [_job(agent, dataset, 0, published) for agent in SLOW] for dataset in SETS}
    return [
        *[_imitation(dataset, seed) for dataset in SETS for seed in range(3)],
        *fast[HEADLINE],
        *[
            _job(agent, HEADLINE, seed, published, "-short", keywords)
            for agent, keywords in SHORT.items()
            for seed in range(3)
        ],
        *slow[HEADLINE],
        *[job for dataset in (POINTMAZE, CUBE) for job in fast[dataset] + slow[dataset]],
        *[_job(agent, HEADLINE, seed, published) for seed in (1, 2) for agent in SLOW],
        *[
            _job("td3_bc", HEADLINE, seed, published, "-normalized", NORMALIZED)
            for seed in range(3)
        ],
        *fast[MEDIUM],
        *slow[MEDIUM],
    ]


def _job(
    agent: str,
    dataset: str,
    seed: int,
    published: bool,
    suffix: str = "",
    extra: Mapping[str, Any] = MappingProxyType({}),
) -> Job:
    keywords: dict[str, Any] = {"backend": "auto", **extra}
    if dataset == POINTMAZE:
        keywords |= GOALS.get(agent, {})
    if not published:
        keywords = REDUCED[agent] | keywords
        if dataset != HEADLINE:
            keywords |= {"hidden_sizes": NARROW}
    steps = 1_000_000 if published else SETS[dataset]
    return Job(_spec(agent, dataset, seed, steps, "auto+chain", keywords, suffix))


def _imitation(dataset: str, seed: int) -> Job:
    return Job(_spec("gcbc", dataset, seed, SETS[dataset], "default", {}))


def _spec(
    agent: str,
    dataset: str,
    seed: int,
    steps: int,
    preset: str,
    keywords: dict[str, Any],
    suffix: str = "",
) -> RunSpec:
    return RunSpec(
        agent, dataset, steps, seed, preset=preset, agent_kwargs=keywords, eval_freq=steps,
        eval_episodes=50 if "hopper" in dataset else 20, checkpoint_freq=5_000,
        video_episodes=0, variant=agent + suffix,
    )  # fmt: skip


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--published", action="store_true", help="published sizes and lengths")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--only", nargs="*", default=[], help="agents to run")
    parser.add_argument("--runs-dir", default=str(ROOT / "runs"), help="folder of the runs")
    chosen = parser.parse_args()
    if not chosen.table:
        todo = [
            job
            for job in jobs(chosen.published)
            if not chosen.only or job.spec.agent in chosen.only
        ]
        run_all(todo, STORE, Path(chosen.runs_dir), chosen.workers, gpu=chosen.published)
    write(STORE, ROOT / "docs" / "chains.md", SETS)


if __name__ == "__main__":
    main()
