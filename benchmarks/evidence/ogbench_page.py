"""docs/ogbench.md, its CSV file and its figure from what benchmarks/evidence/ogbench.py stored."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence.ogbench_figure import draw
from benchmarks.evidence.ogbench_results import (
    AGENTS,
    EARLY,
    FIRST_UPDATE,
    FLOORS,
    LATER,
    MANIPULATION,
    MAZE,
    PUBLISHED,
    Result,
    Runs,
    at,
    final,
    label,
    losses_follow,
    read_losses,
    term_follows,
)
from gcrl_gym.checkpoint import atomic_write

TESTS = Path(__file__).parent.parent.parent / "tests" / "agents"
NOT_RUN = "not run yet"

INTRODUCTION = """\
# OGBench's six agents, against OGBench's own

Written by `python -m benchmarks.evidence.ogbench --table` from `docs/results/ogbench/`; all numbers
are also in [results/ogbench.csv](results/ogbench.csv).

GCBC, GCIVL, GCIQL, QRL, CRL and HIQL here are PyTorch; OGBench's own ("the reference") are JAX, run
from a checkout of its repository on the same files. What was compared:

1. **Exactness tests** (`tests/agents/`): one update on copied weights equals the published
   formulas, each loss, weight and gradient, in float64.
2. **Losses at full size**: 500 updates at batch 1024 with three layers of 512 from the reference's
   weights on the reference's batches, float32 on both sides.
3. **Reduced runs**: training and evaluation from scratch, cut to fit two cores without a GPU: batch
   256, all hidden layers (256, 256), QRL's latent 128, else the official hyperparameters; 25,000
   updates (QRL 15,000). Evaluation every 10,000 updates and at the end: 5 tasks x 20 episodes,
   deterministic actions. Ours have 3 seeds on the maze, the reference one; both one elsewhere.
"""

LABELS = f"""\
## Labels

- **verified**: 1 holds, the losses of 2 follow the reference's, and in 3 our mean is within the
  spread of the reference's on every set.
- **partly verified**: 1 and 2 only. **unverified**: less.

The losses follow when their relative difference is at most {FIRST_UPDATE:g} at the first update,
and later at most {100 * LATER:g} %, or {FLOORS:g} times what the reference differs from itself when
its first weights are moved by one rounding of float32, whichever is larger.

The spread is two standard deviations of the difference of the two means. One run has the standard
deviation of our seeds, or that of a binomial law for its 100 episodes where that is larger, and the
reference's single seed is taken to deviate as ours do. With one seed the spread is wide: these runs
would show a wrong algorithm, not a difference of a few points.
"""


def write(store: Path, docs: Path) -> None:
    """Write page, table and figure.

    Args:
        store: folder of the JSON files.
        docs: folder of the page.
    """
    every = [Runs.read(store, MAZE, agent) for agent in AGENTS]
    more = [
        Runs.read(store, dataset, agent) for dataset in MANIPULATION for agent in PUBLISHED[dataset]
    ]
    losses = read_losses(store)
    lines = [
        INTRODUCTION,
        LABELS,
        *_labels(every, more, losses),
        *_reduced(every, "## Reduced runs"),
    ]
    lines += ["![Learning curves of both sides on the maze](images/ogbench.png)", ""]
    for dataset in MANIPULATION:
        lines += _reduced([runs for runs in more if runs.dataset == dataset], None)
    lines += _full_size(every) + _losses(losses) + _chains(every) + _origin(every + more, losses)
    (docs / "ogbench.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    _write_csv(store.parent / "ogbench.csv", every + more)
    draw(every, docs / "images" / "ogbench.png")


def number(values: Sequence[float]) -> str:
    """Return "mean ± standard deviation", without the latter for one value."""
    if not values:
        return "-"
    text = f"{statistics.mean(values):.1f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.1f}"


def table(*rows: Sequence[str]) -> list[str]:
    """Return a Markdown table whose first row is its head."""
    head, *body = rows
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)] + [""]


def _labels(every: Sequence[Runs], more: Sequence[Runs], losses: dict[str, Result]) -> list[str]:
    rows = [["agent", "exactness test", "losses at full size", "reduced runs", "label"]]
    for runs in every:
        test = TESTS / f"test_{runs.agent}.py"
        own = [runs, *(found for found in more if found.agent == runs.agent)]
        stored = losses.get(runs.agent)
        follow = "follow" if stored and losses_follow(stored) else "differ"
        word = label(test.is_file(), stored, own)
        rows.append([
            runs.agent.upper(),
            f"`{test.name}`" if test.is_file() else "none",
            follow if stored else NOT_RUN,
            ", ".join(f"{_verdict(found)} ({_short(found.dataset)})" for found in own),
            f"**{word}**",
        ])  # fmt: skip
    return table(*rows)


def _short(dataset: str) -> str:
    return dataset.removeprefix("ogbench/").split("-")[0]


def _verdict(runs: Runs) -> str:
    if not runs.complete:
        return NOT_RUN
    return "within the spread" if runs.agree() else "outside the spread"


def _reduced(every: Sequence[Runs], title: str | None) -> list[str]:
    """Return the table of one set: both sides, and apart from them the published numbers."""
    head = ["agent", "updates", "our seeds", f"ours at {EARLY:,}", "**ours at the end**",
            f"reference at {EARLY:,}", "**reference at the end**", "difference", "spread",
            "(published, full size)"]  # fmt: skip
    rows = [head]
    for runs in every:
        mean, deviation = PUBLISHED[runs.dataset][runs.agent]
        rows.append([
            runs.agent.upper(), f"{runs.updates:,}", str(len(runs.ours)),
            number(at(runs.ours, EARLY)), number(final(runs.ours)),
            number(at(runs.reference, EARLY)), number(final(runs.reference)),
            f"{runs.difference():+.1f}" if runs.comparable else "-",
            f"{runs.spread():.1f}" if runs.comparable else "-",
            f"({mean:g} ± {deviation:g})",
        ])  # fmt: skip
    text = (
        "Success in percent, mean ± standard deviation over seeds. In brackets the paper's, after\n"
        "a million updates at full size: the reduced runs are not to be compared with them."
    )
    lines = [title, ""] if title else []
    return [*lines, f"### {every[0].dataset}", "", text, "", *table(*rows)]


def _full_size(every: Sequence[Runs]) -> list[str]:
    lines = ["## Published protocol", ""]
    if not any(runs.published for runs in every):
        text = "Not run: a million updates need a GPU (`benchmarks.evidence.ogbench --published`)."
        return [*lines, text, ""]
    rows = [["agent", "seeds", "ours", "published", "accepted", "verdict"]]
    for runs in every:
        mean, deviation = PUBLISHED[runs.dataset][runs.agent]
        band = max(2 * deviation, 5)
        found = final(runs.published, last=3)
        held = bool(found) and abs(statistics.mean(found) - mean) <= band
        verdict = ("held" if held else "missed") if found else NOT_RUN
        rows.append([
            runs.agent.upper(), str(len(found)), number(found), f"{mean:g} ± {deviation:g}",
            f"{mean - band:g} to {mean + band:g}", verdict,
        ])  # fmt: skip
    text = "Mean of the last three evaluations, 5 tasks x 50 episodes, a million updates."
    return [*lines, text, "", *table(*rows)]


def _losses(losses: dict[str, Result]) -> list[str]:
    lines = [
        "## Losses at full size", "",
        "Relative differences between ours and the reference's, mean over the second half of the",
        "updates so far; in brackets those of the reference from itself, when its first weights",
        "are moved by one rounding. DDPG+BC divides Q by its mean magnitude, which would hide it,",
        "so Q and the squared error of the actions stand for the actor's loss.", "",
    ]  # fmt: skip
    if not losses:
        return [*lines, f"{NOT_RUN.capitalize()}.", ""]
    points = max((found["terms"].values() for found in losses.values()), key=len)
    steps = next(iter(points))["updates"]
    rows = [
        ["agent", "term", *(f"{step:,}" for step in steps), "at the end: ours", "reference", ""]
    ]
    for agent, found in losses.items():
        for name, term in found["terms"].items():
            pairs = zip(term["difference"], term["floor"], strict=True)
            cells = [f"{difference:.0e} ({floor:.0e})" for difference, floor in pairs]
            cells += [""] * (len(steps) - len(cells))
            ends = [f"{term[side][-1]:.5g}" for side in ("ours", "reference")]
            verdict = "follows" if term_follows(term) else "differs"
            rows.append([agent.upper(), name, *cells, *ends, verdict])
    return lines + table(*rows)


def _chains(every: Sequence[Runs]) -> list[str]:
    chained = [r for r in every if r.ours and r.ours[0]["run"]["hyperparameters"].get("w2_weights")]
    if not chained:
        return ["## Chains", "", f"{NOT_RUN.capitalize()}.", ""]
    rows = [["algorithm", "w", "seeds", "actor 0", "actor 1", "actor 2", "actor 2 - actor 0",
             "W2 to the predecessor: 1", "2"]]  # fmt: skip
    for runs in chained:
        each = [final(runs.ours, actor) for actor in range(3)]
        gain = [after - before for before, after in zip(each[0], each[2], strict=True)]
        weights = runs.ours[0]["run"]["hyperparameters"]["w2_weights"]
        moved = [
            [result["metrics"][f"train/actor_{actor}/w2"] for result in runs.ours]
            for actor in (1, 2)
        ]
        rows.append([
            runs.agent.upper(), ", ".join(f"{weight:g}" for weight in weights), str(len(each[0])),
            *map(number, each), number(gain), *(f"{statistics.mean(w):.4f}" for w in moved),
        ])  # fmt: skip
    text = (
        "Two actors follow GCIQL's and CRL's own on the maze. Each climbs Q divided by its mean\n"
        "magnitude and pays w times the squared W2 distance to its predecessor. Actor 0 is the\n"
        "agent of the table above: critics and earlier actors do not depend on later ones."
    )
    return ["## Chains", "", text, "", *table(*rows)]


def _origin(every: Sequence[Runs], losses: dict[str, Result]) -> list[str]:
    """Return where the numbers come from."""
    ours = [result["run"] for runs in every for result in runs.ours] + list(losses.values())
    theirs = [result for runs in every for result in runs.reference]
    theirs += [found["reference"] for found in losses.values()]
    lines = ["## Origin", ""]
    for name, found in (("gcrl_gym", ours), ("OGBench", theirs)):
        commits = ", ".join(sorted({f"`{result['commit']}`" for result in found}))
        kinds = {", ".join(f"{k} {v}" for k, v in r["versions"].items()) for r in found}
        lines += [f"- {name}: commit {commits}; {'; or '.join(sorted(kinds))}."] if found else []
    seeds = sorted({result["run"]["spec"]["seed"] for runs in every for result in runs.ours})
    lines += (
        [f"- Seeds of ours: {', '.join(map(str, seeds))}; of the reference: 0."] if seeds else []
    )
    return [*lines, ""]


def _write_csv(path: Path, every: Sequence[Runs]) -> None:
    rows = [row for runs in every for row in _csv_rows(runs)]
    names = ["dataset", "agent", "implementation", "protocol", "seed", "updates", "actor", "mode",
             "success_rate", *(f"task_{task}" for task in range(1, 6)), "episodes_per_task",
             "commit", "versions"]  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as temporary:
        temporary.write_text(text.getvalue(), "utf-8")


def _csv_rows(runs: Runs) -> Iterator[dict[str, Any]]:
    head = {"dataset": runs.dataset, "agent": runs.agent, "mode": "deterministic"}
    for protocol, results in (("reduced", runs.ours), ("published", runs.published)):
        for result in results:
            own = {
                "implementation": "gcrl_gym",
                "protocol": protocol,
                "seed": result["run"]["spec"]["seed"],
                "episodes_per_task": result["protocol"]["episodes_per_task"],
            }
            yield from _evaluations(head | own, result["curve"], result["run"])
    for result in runs.reference:
        own = {"implementation": "ogbench", "protocol": "reduced", "seed": result["seed"]}
        own |= {"episodes_per_task": result["episodes_per_task"]}
        yield from _evaluations(head | own, result["curve"], result)


def _evaluations(
    head: dict[str, Any], points: Sequence[dict[str, Any]], origin: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    versions = " ".join(f"{name}={version}" for name, version in origin["versions"].items())
    for point in points:
        tasks = {f"task_{task}": rate for task, rate in enumerate(point["per_task"], 1)}
        yield {
            **head,
            "updates": point["step"],
            "actor": point.get("actor", 0),
            "success_rate": round(point["success_rate"], 6),
            **tasks,
            "commit": origin["commit"],
            "versions": versions,
        }
