"""docs/chains.md from the stored results of benchmarks/evidence/chains.py."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Half-width of a 95 % t interval in standard errors, by the number of seeds.
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
TITLES = {
    "iql": "IQL", "td3_bc": "TD3+BC", "awac": "AWAC", "rebrac": "ReBRAC", "fql": "FQL",
    "cql": "CQL", "sac_n": "SAC-N", "edac": "EDAC",
    "td3_bc-normalized": "TD3+BC, energy / mean abs Q, w = 1",
    "iql-short": "IQL, set for a short run",
    "awac-short": "AWAC, set for a short run",
    "rebrac-short": "ReBRAC, set for a short run",
}  # fmt: skip
INTRODUCTION = """\
# Chains of JKO actors on eight offline algorithms

Written by `python -m benchmarks.evidence.chains --table` from `docs/results/chains/`.

Actor 0 is the published algorithm. Actor i >= 1 minimises the algorithm's energy plus w times the
squared W2 distance to actor i - 1, so that actor 1 is a chain of one appended actor and actor 2 a
chain of two; critics and earlier actors are the same to the bit whatever the chain's length. The
weights are the source's default: 10 on the closed form and on squared L2; 5 on Sinkhorn's W2, which
the source's library halves, but 10 for FQL, whose source uses another library that does not.

Cut to fit two cores without a GPU: on hopper-medium-replay 2 layers of 256 for TD3+BC and IQL, 3 of
128 for AWAC, 2 of 128 for ReBRAC, FQL, CQL, SAC-N and EDAC; on the other sets 2 layers of 128 for
all; 10 critics for SAC-N and EDAC; the numbers of updates below.

"Set for a short run": the published settings are made for a million updates. IQL's target rate on
this set (0.001) lets action values see only a few steps ahead after 30,000, the temperatures of IQL
and AWAC turn advantages that are still noise into weights of 0 or 100, and ReBRAC's weight of the
data (0.05) lets its actor leave them before the critics are good for it. Those rows have IQL's tau
0.05, expectile 0.5, beta 0.1, unscaled rewards and a Gaussian; AWAC's tau 0.02 and lambda 10;
ReBRAC's tau 0.02, actor_bc 0.4 (TD3+BC's 1 / 2.5), critic_bc 0.01, batch 256, 2 layers of 256. They
were chosen on this set, by one seed of at most 15,000 updates without a chain.

Scores are those of the last checkpoint: D4RL's normalised score for hopper (50 episodes), success
in percent for OGBench (20 episodes per task). Actions are deterministic where nothing else is said.
A number is the mean over seeds with the half-width of its 95 % t interval; a single seed has none.
Three seeds give wide intervals: 4.3 standard errors. "BC" is imitation of the data (GCBC, goal-less
where the data has no goals). ">BC" compares actor 0: "yes" where its mean is higher, "clearly"
where every seed is above every seed of BC.
"""


def write(store: Path, page: Path, sets: Mapping[str, int]) -> None:
    """Write the page from what is stored.

    Args:
        store: folder of the JSON files.
        page: the Markdown file.
        sets: dataset ids and the updates of each run.
    """
    lines = [INTRODUCTION]
    for dataset, steps in sets.items():
        lines += _section(store, dataset, steps)
    if (store / "spread.json").is_file():
        lines += _spread(json.loads((store / "spread.json").read_text("utf-8")))
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def load(store: Path, dataset: str, row: str) -> list[dict[str, Any]]:
    """Return the stored results of one row, by seed."""
    folder = store / dataset.replace("/", "_") / row
    files = sorted(folder.glob("seed_*.json"))
    return [json.loads(file.read_text("utf-8")) for file in files]


def scores(results: Sequence[dict[str, Any]], actor: int, mode: str) -> list[float]:
    """Return an actor's score for each seed: normalised score, or success in percent."""
    found = []
    for result in results:
        rows = result["last"]["per_actor"]
        row = next(r for r in rows if (r["actor"], r["mode"]) == (actor, mode))
        scored = row["normalized_score"]
        found.append(float(100 * row["success_rate"] if scored is None else scored))
    return found


def number(values: Sequence[float]) -> str:
    """Return "mean ± half-width of the 95 % t interval"."""
    if not values:
        return "-"
    text = f"{statistics.mean(values):.1f}"
    if len(values) < 2:
        return text
    half = STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return f"{text} ± {half:.1f}"


def _section(store: Path, dataset: str, steps: int) -> list[str]:
    imitation = load(store, dataset, "gcbc")
    baseline = scores(imitation, 0, "deterministic")
    every = [r for row in TITLES for r in load(store, dataset, row)] + imitation
    lines = [f"## {dataset}", ""]
    if any(result["dataset"].get("official") is False for result in every):
        lines += ["The file is a stand-in for the published one: do not compare with papers.", ""]
    lines += [f"{steps:,} updates. BC: {number(baseline)}.{_behaviour(every)}", ""]
    lines += [
        "| algorithm | seeds | actor 0 | actor 1 | actor 2 | chain: actor 2 - actor 0 | >BC |",
        "|---|---|---|---|---|---|---|",
    ]
    sampled = []
    for row, title in TITLES.items():
        results = load(store, dataset, row)
        if not results and "-" in row:
            continue  # only some sets have these rows
        if not results:
            lines.append(f"| {title} | not run yet | | | | | |")
            continue
        each = [scores(results, actor, "deterministic") for actor in range(3)]
        gain = [after - before for before, after in zip(each[0], each[2], strict=True)]
        cells = [title, str(len(results)), *map(number, each), number(gain)]
        lines.append(f"| {' | '.join([*cells, _better(each[0], baseline)])} |")
        noisy = [scores(results, actor, "sampled") for actor in range(3)]
        if noisy != each:
            spread = [_metric(results, f"actor_{i}/spread") for i in (1, 2)]
            sampled.append(f"| {' | '.join([title, *map(number, noisy), *spread])} |")
    if sampled:
        lines += [
            "",
            "Sampled actions, and the standard deviation of the appended actors' actions:",
        ]
        lines += ["", "| algorithm | actor 0 | actor 1 | actor 2 | spread of 1 | spread of 2 |"]
        lines += ["|---|---|---|---|---|---|", *sampled]
    return [*lines, ""]


def _behaviour(results: Sequence[dict[str, Any]]) -> str:
    scored = [r["behaviour"] for r in results if r.get("behaviour") is not None]
    return f" The behaviour's own return scores {scored[0]:.1f}." if scored else ""


def _better(values: Sequence[float], baseline: Sequence[float]) -> str:
    if not baseline:
        return ""
    if min(values) > max(baseline):
        return "clearly"
    return "yes" if statistics.mean(values) > statistics.mean(baseline) else "no"


def _metric(results: Sequence[dict[str, Any]], name: str) -> str:
    found = [r["metrics"][f"train/{name}"] for r in results if f"train/{name}" in r["metrics"]]
    return f"{statistics.mean(found):.3f}" if found else "-"


def _spread(stored: dict[str, Any]) -> list[str]:
    lines = [
        "## Spread of a chain under Sinkhorn's distance",
        "",
        "Standard deviation of the actions of actors 0, 1 and 2. The bandit's actors pay nothing",
        f"but the distance ({stored['bandit_updates']:,} updates), so any change is its bias; on",
        f"hopper-medium-replay ({stored['hopper_updates']:,} updates) IQL's Gaussian is",
        "followed by two tanh-Gaussians with weight 10. The source publishes independent noise.",
        "",
        "| noise | bandit: 0 | 1 | 2 | hopper: 0 | 1 | 2 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in stored["rows"].items():
        cells = [f"{value:.3f}" for value in (*row["bandit"], *row["hopper"])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]
