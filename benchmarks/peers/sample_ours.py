"""Our samplers: python sample_ours.py {transitions,goals,ogbench,sequences}."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch  # noqa: F401  (so that worker.one_thread finds it)
from sampling import BATCH, CONTEXT, data
from worker import serve

from gcrl_gym.datasets import GoalSampler, OfflineDataset, TransitionSampler
from gcrl_gym.datasets.sequences import SequenceSampler

CASE = sys.argv[1]
SIZES = "goals" if CASE == "ogbench" else CASE
SPECS = {
    "transitions": TransitionSampler(),
    "goals": GoalSampler(),
    "ogbench": GoalSampler(support="ogbench"),
    "sequences": SequenceSampler(CONTEXT),
}
DATA = data(SIZES)


def make() -> Callable[[int], None]:
    """Return the runner: n batches."""
    dataset = OfflineDataset.from_arrays(
        DATA["observations"],
        DATA["actions"],
        DATA["rewards"],
        DATA["terminals"],
        DATA["timeouts"],
        goal_is_observation=SIZES == "goals",
    )
    bound = SPECS[CASE].bind(dataset)
    batch = BATCH[SIZES]
    rng = np.random.default_rng(0)

    def run(batches: int) -> None:
        for _ in range(batches):
            bound.sample(batch, rng)

    return run


if __name__ == "__main__":
    serve(make)
