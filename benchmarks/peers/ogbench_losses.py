"""Losses of one of OGBench's own agents, with the weights it starts from and the batches it sees.

    python benchmarks/peers/ogbench_losses.py gciql pointmaze-medium-navigate-v0 FILE.npz FOLDER

Writes weights.npz, batches.npz, losses.npz (one row for each update) and moved.npz: the losses of a
second run on the same batches whose first weights are one float32 rounding away. How far those two
runs drift apart is what no other implementation can fall below.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ogbench.utils import load_dataset
from ogbench_reference import configured, create, goal_dataset, origin, published


def flat(parameters: Any) -> dict[str, np.ndarray]:
    """Return parameters by path, such as "value/value_net/Dense_0/kernel"."""
    return {
        "/".join(part.key.removeprefix("modules_") for part in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)
    }


def moved(agent: Any, rng: np.random.Generator) -> Any:
    """Return the agent with each weight moved by one rounding, up or down."""

    def move(leaf: Any) -> Any:
        signs = rng.choice([-1.0, 1.0], size=np.shape(leaf))
        return jax.numpy.asarray(leaf * (1.0 + signs * np.finfo(np.float32).eps), leaf.dtype)

    parameters = jax.tree_util.tree_map(move, agent.network.params)
    return agent.replace(network=agent.network.replace(params=parameters))


def losses(agent: Any, batches: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return every metric of every update."""
    rows = []
    for batch in batches:
        agent, info = agent.update(batch)
        rows.append({name: float(value) for name, value in info.items()})
    return {name.replace("/", "."): np.array([row[name] for row in rows]) for name in rows[0]}


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("agent")
    parser.add_argument("dataset", help="OGBench's name of the dataset")
    parser.add_argument("file", help="its .npz file")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--set", type=json.loads, default={}, help="configuration, as JSON")
    args = parser.parse_args()
    config = configured(args.agent, published(args.agent, args.dataset) | args.set)
    dataset = goal_dataset(load_dataset(args.file, compact_dataset=True), config)
    np.random.seed(0)  # noqa: NPY002  (what OGBench draws from)
    agent = create(config, dataset, 0)
    batches = [
        {name: np.asarray(column, np.float32) for name, column in drawn.items()}
        for drawn in (dataset.sample(config["batch_size"]) for _ in range(args.updates))
    ]
    np.savez(args.folder / "weights.npz", **flat(agent.network.params))
    np.savez(
        args.folder / "batches.npz",
        **{name: np.stack([batch[name] for batch in batches]) for name in batches[0]},
    )
    np.savez(args.folder / "losses.npz", **losses(agent, batches))
    apart = moved(agent, np.random.default_rng(0))
    np.savez(args.folder / "moved.npz", **losses(apart, batches))
    description = {"config": config.to_dict(), **origin()}
    (args.folder / "origin.json").write_text(json.dumps(description), "utf-8")


if __name__ == "__main__":
    main()
