"""The stored runs of benchmarks/evidence/ogbench.py, and what may be concluded from them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Result = dict[str, Any]

MAZE = "ogbench/pointmaze-medium-navigate-v0"  # every agent ran on it; two on the others:
MANIPULATION = ("ogbench/cube-single-play-v0", "ogbench/puzzle-3x3-play-v0")
AGENTS = ("gcbc", "gcivl", "gciql", "qrl", "crl", "hiql")

# Success in percent and its standard deviation over 8 seeds: Park et al. 2024, tables 2 and 5. A
# million updates at batch 1024, three layers of 512, mean of the last three evaluations.
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    MAZE: {
        "gcbc": (9, 6), "gcivl": (63, 6), "gciql": (53, 8), "qrl": (82, 5), "crl": (29, 7),
        "hiql": (79, 5),
    },
    "ogbench/cube-single-play-v0": {"gcivl": (53, 4), "gciql": (68, 6)},
    "ogbench/puzzle-3x3-play-v0": {"gcivl": (6, 1), "gciql": (95, 1)},
}  # fmt: skip

EARLY = 10_000  # updates until the first evaluation
FULL_SIZE_UPDATES = 500  # over which losses are compared
SEEDS = {MAZE: 3}  # of ours; 1 on the other sets

FIRST_UPDATE = 1e-5  # largest relative difference of a loss at the first update
LATER = 0.01  # the same later on, unless the reference itself drifts apart that much:
FLOORS = 3.0  # so many times its own drift


@dataclass(frozen=True)
class Runs:
    """The runs of one agent on one set.

    Attributes:
        agent: its name.
        dataset: id of the set.
        ours: results of our seeds.
        reference: results of OGBench's own agent.
        published: results of our seeds by the published protocol.
    """

    agent: str
    dataset: str
    ours: list[Result]
    reference: list[Result]
    published: list[Result]

    @classmethod
    def read(cls, store: Path, dataset: str, agent: str) -> Runs:
        """Return what is stored.

        Raises:
            ValueError: both sides did not use the same hyperparameters.
        """
        folder = store / dataset.replace("/", "_")
        found = cls(
            agent,
            dataset,
            _load(folder / agent, "seed"),
            _load(folder / agent, "reference"),
            _load(folder / f"{agent}-published", "seed"),
        )
        for mine in found.ours:
            for theirs in found.reference:
                check_same(agent, mine["run"]["hyperparameters"], theirs["config"])
        return found

    @property
    def comparable(self) -> bool:
        """Whether both sides have run."""
        return bool(self.ours and self.reference)

    @property
    def complete(self) -> bool:
        """Whether both sides have run all their seeds."""
        return self.comparable and len(self.ours) >= SEEDS.get(self.dataset, 1)

    @property
    def updates(self) -> int:
        """Updates of a run."""
        steps = [
            point["step"] for result in self.ours + self.reference for point in result["curve"]
        ]
        return max(steps, default=0)

    def spread(self) -> float:
        """Return how far the two means may lie apart in percent: two standard deviations.

        That of a single run is the larger of our seeds' and of a binomial law at the rate of all
        episodes (with one success and one failure added, so that no rate has a deviation of 0);
        a mean of n runs has that of one divided by the root of n. The reference's seeds are taken
        to deviate as ours do.
        """
        mine, theirs = final(self.ours), final(self.reference)
        tasks = len(self.ours[0]["curve"][-1]["per_task"])
        episodes = tasks * int(self.ours[0]["protocol"]["episodes_per_task"])
        every = [rate / 100 * episodes for rate in mine + theirs]
        rate = (sum(every) + 1) / (len(every) * episodes + 2)
        binomial = 100 * math.sqrt(rate * (1 - rate) / episodes)
        seeds = statistics.stdev(mine) if len(mine) > 1 else 0.0
        return 2 * max(binomial, seeds) * math.sqrt(1 / len(mine) + 1 / len(theirs))

    def difference(self) -> float:
        """Return our mean minus the reference's, in percent."""
        return statistics.mean(final(self.ours)) - statistics.mean(final(self.reference))

    def agree(self) -> bool:
        """Return whether the means are within the spread of each other."""
        return abs(self.difference()) <= self.spread()


def _load(folder: Path, kind: str) -> list[Result]:
    return [json.loads(file.read_text("utf-8")) for file in sorted(folder.glob(f"{kind}_*.json"))]


def check_same(agent: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Compare hyperparameters: numbers of the same name, learning rate and widths.

    Raises:
        ValueError: one differs.
    """
    pairs = {name: (ours[name], theirs[name]) for name in ours.keys() & theirs.keys()}
    pairs["learning_rate"] = (ours["learning_rate"], theirs["lr"])
    for widths in ("actor_hidden_dims", "value_hidden_dims"):
        if widths in theirs:
            pairs[widths] = (list(ours["hidden_sizes"]), list(theirs[widths]))
    for name, (mine, other) in pairs.items():
        if not isinstance(mine, str | None) and not isinstance(other, str | None) and mine != other:
            raise ValueError(f"{agent}: {name} is {mine}, the reference's is {other}.")


def curve(result: Result, actor: int = 0) -> dict[int, float]:
    """Return updates -> success of an actor in percent, deterministic actions."""
    return {
        point["step"]: 100 * point["success_rate"]
        for point in result["curve"]
        if point.get("actor", 0) == actor
    }


def at(results: Sequence[Result], updates: int) -> list[float]:
    """Return each run's success in percent at an evaluation on the way."""
    return [curve(result)[updates] for result in results]


def final(results: Sequence[Result], actor: int = 0, last: int = 1) -> list[float]:
    """Return each run's success in percent: the mean of its ``last`` evaluations."""
    curves = [list(curve(result, actor).values()) for result in results]
    return [statistics.mean(values[-last:]) for values in curves]


def read_losses(store: Path) -> dict[str, Result]:
    """Return the stored losses at full size, by agent."""
    files = {agent: store / f"losses_{agent}.json" for agent in AGENTS}
    return {a: json.loads(file.read_text("utf-8")) for a, file in files.items() if file.is_file()}


def term_follows(term: dict[str, list[float]]) -> bool:
    """Return whether one loss follows the reference's."""
    first, *later = zip(term["difference"], term["floor"], strict=True)
    return first[0] <= FIRST_UPDATE and all(
        difference <= max(LATER, FLOORS * floor) for difference, floor in later
    )


def losses_follow(losses: Result) -> bool:
    """Return whether all losses of an agent follow the reference's to the end."""
    finished = losses["updates"] >= FULL_SIZE_UPDATES
    return finished and all(term_follows(term) for term in losses["terms"].values())


def label(exact: bool, losses: Result | None, runs: Sequence[Runs]) -> str:
    """Return "verified", "partly verified" or "unverified".

    Args:
        exact: there is a test of one update against the published formulas.
        losses: those at full size, None where they were not compared.
        runs: of the agent on every set of its table.
    """
    if not exact or losses is None or not losses_follow(losses):
        return "unverified"
    return "verified" if all(r.complete and r.agree() for r in runs) else "partly verified"
