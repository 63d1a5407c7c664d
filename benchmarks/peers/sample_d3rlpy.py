"""d3rlpy's own replay buffer: python sample_d3rlpy.py {transitions,sequences}."""

from __future__ import annotations

import sys
from collections.abc import Callable

import d3rlpy
import torch  # noqa: F401  (before one_thread, which sets its threads)
from sampling import BATCH, CONTEXT, data
from worker import serve

CASE = sys.argv[1]
DATA = data(CASE)


def make() -> Callable[[int], None]:
    """Return the runner: n batches."""
    dataset = d3rlpy.dataset.MDPDataset(
        DATA["observations"], DATA["actions"], DATA["rewards"], DATA["terminals"], DATA["timeouts"]
    )

    def run(batches: int) -> None:
        for _ in range(batches):
            if CASE == "sequences":
                dataset.sample_trajectory_batch(BATCH[CASE], CONTEXT)
            else:
                dataset.sample_transition_batch(BATCH[CASE])

    return run


if __name__ == "__main__":
    serve(make)
