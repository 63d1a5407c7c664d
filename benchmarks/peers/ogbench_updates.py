"""Updates of one of OGBench's own agents (JAX, jitted), its goal dataset included.

python benchmarks/peers/ogbench_updates.py gciql
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import jax
import numpy as np
from ogbench_reference import configured, create, goal_dataset
from synthetic import transitions
from worker import one_thread, serve

DATA = transitions(1_000_000, 29, 8)


def make() -> Callable[[int], None]:
    """Return the runner."""
    ends = DATA["timeouts"].astype(np.float32)
    columns = {
        "observations": DATA["observations"],
        "actions": DATA["actions"],
        "terminals": ends,
        "valids": 1.0 - ends,
    }
    config = configured(sys.argv[1], {})
    dataset = goal_dataset(columns, config)
    state = {"agent": create(config, dataset, 0)}

    def run(updates: int) -> None:
        agent = state["agent"]
        for _ in range(updates):
            agent, _ = agent.update(dataset.sample(config["batch_size"]))
        jax.block_until_ready(agent.network.params)
        state["agent"] = agent

    return run


if __name__ == "__main__":
    one_thread()  # before JAX looks at the cores
    serve(make)
