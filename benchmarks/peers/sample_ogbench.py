"""OGBench's own loader from the checkout OGBENCH_DIR: python sample_ogbench.py {transitions,goals}.

Its default arrays (with next observations) and the goal settings of its GCIVL and GCIQL agents.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(os.environ["OGBENCH_DIR"]) / "impls"))

import numpy as np
from sampling import BATCH, data
from utils.datasets import Dataset, GCDataset
from worker import one_thread, serve

CASE = sys.argv[1]
DATA = data(CASE)
CONFIG = {
    "discount": 0.99,
    "value_p_curgoal": 0.2,
    "value_p_trajgoal": 0.5,
    "value_p_randomgoal": 0.3,
    "value_geom_sample": True,
    "actor_p_curgoal": 0.0,
    "actor_p_trajgoal": 1.0,
    "actor_p_randomgoal": 0.0,
    "actor_geom_sample": False,
    "gc_negative": True,
    "p_aug": None,
    "frame_stack": None,
}
# Goal data has none; with them, a batch holds what its single-task data holds.
REWARDS = {"rewards": DATA["rewards"], "masks": np.ones_like(DATA["rewards"])}


def make() -> Callable[[int], None]:
    """Return the runner: n batches."""
    dataset = Dataset.create(
        observations=DATA["observations"],
        actions=DATA["actions"],
        next_observations=DATA["next_observations"],
        terminals=DATA["timeouts"].astype(np.float32),
        **(REWARDS if CASE == "transitions" else {}),
    )
    source = GCDataset(dataset, CONFIG) if CASE == "goals" else dataset

    def run(batches: int) -> None:
        for _ in range(batches):
            source.sample(BATCH[CASE])

    return run


if __name__ == "__main__":
    one_thread()  # before JAX looks at the cores
    serve(make)
