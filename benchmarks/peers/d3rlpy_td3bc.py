"""d3rlpy's TD3+BC with its own defaults (2 x 256, batch 256) and its own replay buffer."""

from __future__ import annotations

from collections.abc import Callable

import d3rlpy
import torch  # noqa: F401  (before one_thread, which sets its threads)
from synthetic import transitions
from worker import serve

DATA = transitions(1_000_000, 17, 6)
DATASET = d3rlpy.dataset.MDPDataset(
    DATA["observations"], DATA["actions"], DATA["rewards"], DATA["terminals"], DATA["timeouts"]
)


def make() -> Callable[[int], None]:
    """Return the runner."""
    learner = d3rlpy.algos.TD3PlusBCConfig().create(device="cpu:0")
    learner.build_with_dataset(DATASET)

    def run(updates: int) -> None:
        for _ in range(updates):
            learner.update(DATASET.sample_transition_batch(256))

    return run


if __name__ == "__main__":
    serve(make)
