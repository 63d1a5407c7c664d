"""OGBench's own GCBC (JAX, jitted) and goal dataset, imported from the checkout OGBENCH_DIR."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(os.environ["OGBENCH_DIR"]) / "impls"))

import jax
import numpy as np
from agents.gcbc import GCBCAgent, get_config
from synthetic import transitions
from utils.datasets import Dataset, GCDataset
from worker import one_thread, serve

DATA = transitions(1_000_000, 29, 8)
CONFIG = get_config()


def make() -> Callable[[int], None]:
    """Return the runner."""
    dataset = GCDataset(
        Dataset.create(
            observations=DATA["observations"],
            actions=DATA["actions"],
            terminals=DATA["timeouts"].astype(np.float32),
            valids=1.0 - DATA["timeouts"].astype(np.float32),
        ),
        CONFIG,
    )
    example = dataset.sample(1)
    state = {"agent": GCBCAgent.create(0, example["observations"], example["actions"], CONFIG)}

    def run(updates: int) -> None:
        agent = state["agent"]
        for _ in range(updates):
            agent, _ = agent.update(dataset.sample(CONFIG["batch_size"]))
        jax.block_until_ready(agent.network.params)
        state["agent"] = agent

    return run


if __name__ == "__main__":
    one_thread()  # before JAX looks at the cores
    serve(make)
