"""Our samplers: python sample_ours.py {transitions,goals,ogbench}."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch  # noqa: F401  (so that worker.one_thread finds it)
from sampling import BATCH, data
from worker import serve

from gcrl_gym.datasets import GoalSampler, OfflineDataset, TransitionSampler

CASE = sys.argv[1]
SPECS = {
    "transitions": TransitionSampler(),
    "goals": GoalSampler(),
    "ogbench": GoalSampler(support="ogbench"),
}
DATA = data("transitions" if CASE == "transitions" else "goals")


def make() -> Callable[[int], None]:
    """Return the runner: n batches."""
    dataset = OfflineDataset.from_arrays(
        DATA["observations"],
        DATA["actions"],
        DATA["rewards"],
        DATA["terminals"],
        DATA["timeouts"],
        goal_is_observation=CASE != "transitions",
    )
    bound = SPECS[CASE].bind(dataset)
    batch = BATCH["transitions" if CASE == "transitions" else "goals"]
    rng = np.random.default_rng(0)

    def run(batches: int) -> None:
        for _ in range(batches):
            bound.sample(batch, rng)

    return run


if __name__ == "__main__":
    serve(make)
