"""The losses of OGBench's agents and ours from copied weights on the same batches, at full size.

    python -m benchmarks.evidence.ogbench_losses gciql OUT.json

Batch 1024, three layers of 512, float32 on both sides. OGBench's own dataset draws the batches and
its own agent makes the weights, in the peers' interpreter; see benchmarks/peers/ogbench_losses.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.evidence.ogbench_weights import copy_weights
from benchmarks.peers.controller import FOLDER, WorkerSpec
from gcrl_gym.agents import get_agent
from gcrl_gym.agents.archive import versions
from gcrl_gym.agents.base import OfflineAgent
from gcrl_gym.agents.presets import load_preset
from gcrl_gym.datasets import load_dataset
from gcrl_gym.datasets.catalog import fetch_file
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.experiments.folder import commit, write_json

SIZES = {"batch_size": 1024, "hidden_sizes": (512, 512, 512)}
POINTS = (1, 10, 100, 500)

# Term -> our metric, OGBench's metric. DDPG+BC divides Q by its mean magnitude, so that the loss
# hides it: Q itself and the squared error are compared instead.
_DDPG = {"actor's Q": ("q_policy", "actor/q_mean"), "actor's error": ("actor_mse", "actor/mse")}
_DDPG_0 = {name: (f"actor_0/{ours}", theirs) for name, (ours, theirs) in _DDPG.items()}
TERMS: dict[str, dict[str, tuple[str, str]]] = {
    "gcbc": {"actor": ("actor_loss", "actor/actor_loss")},
    "gcivl": {
        "value": ("value_loss", "value/value_loss"),
        "actor": ("actor_loss", "actor/actor_loss"),
    },
    "gciql": {
        "value": ("value_loss", "value/value_loss"),
        "critic": ("critic_loss", "critic/critic_loss"),
        **_DDPG_0,
    },
    "qrl": {
        "value": ("value_loss", "value/value_loss"),
        "constraint": ("constraint", "value/d_pos_loss"),
        "lambda": ("lambda", "value/lam"),
        "dynamics": ("dynamics_loss", "dynamics/dynamics_loss"),
        **_DDPG,
    },
    "crl": {"critic": ("critic_loss", "critic/contrastive_loss"), **_DDPG_0},
    "hiql": {
        "value": ("value_loss", "value/value_loss"),
        "low actor": ("low/actor_loss", "low_actor/actor_loss"),
        "high actor": ("high/actor_loss", "high_actor/actor_loss"),
    },
}
# Column of our batch -> column of OGBench's; a hierarchy's are named otherwise.
COLUMNS = {
    "observations": "observations",
    "actions": "actions",
    "rewards": "rewards",
    "next_observations": "next_observations",
    "goals": "value_goals",
    "actor_goals": "actor_goals",
}
HIERARCHY = {
    "actor_goals": "high_actor_goals",
    "subgoals": "low_actor_goals",
    "target_observations": "high_actor_targets",
    "target_goals": "high_actor_targets",
}


def compare(agent: str, dataset: str, updates: int) -> dict[str, Any]:
    """Train both sides and return their losses at some updates and how far they are apart."""
    peer = WorkerSpec(agent, ("ogbench_losses.py",), peer=True, checkout="OGBENCH_DIR")
    keywords = load_preset(agent, "auto", dataset) | SIZES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        changes = json.dumps({"batch_size": SIZES["batch_size"]})
        command = [peer.interpreter(), str(FOLDER / peer.command[0]), agent]
        command += [dataset.removeprefix("ogbench/"), str(fetch_file(dataset)), name]
        subprocess.run([*command, "--updates", str(updates), "--set", changes], check=True)
        made = get_agent(agent)(None, load_dataset(dataset), seed=0, device="cpu", **keywords)
        with np.load(folder / "weights.npz") as weights:
            copy_weights(agent, made.policy.networks, weights)
        found = _train(made, folder / "batches.npz")
        theirs, again = (_read(folder / file) for file in ("losses.npz", "moved.npz"))
        reference = json.loads((folder / "origin.json").read_text("utf-8"))
    return {
        "agent": agent,
        "dataset": dataset,
        "keywords": keywords,
        "commit": commit(),
        "versions": versions(),
        "reference": reference,
        "updates": updates,
        "terms": {
            term: _term(found[ours], theirs[peers], again[peers])
            for term, (ours, peers) in TERMS[agent].items()
        },
    }


def _train(agent: OfflineAgent, file: Path) -> dict[str, np.ndarray]:
    """Return every metric of every update on the stored batches."""
    rows: list[Mapping[str, torch.Tensor]] = []
    with np.load(file) as stored:
        columns = {name: stored[name] for name in stored}
    names = COLUMNS | (HIERARCHY if "low_actor_goals" in columns else {})
    agent.policy.train()
    for index in range(len(columns["actions"])):
        drawn = {name: torch.from_numpy(columns[peer][index]) for name, peer in names.items()}
        reached = 1.0 - torch.from_numpy(columns["masks"][index])
        rows.append(agent.update(Batch(terminated=reached, **drawn)))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def _read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as stored:
        return {name.replace(".", "/"): stored[name] for name in stored}


def _term(ours: np.ndarray, theirs: np.ndarray, again: np.ndarray) -> dict[str, list[float]]:
    points = [point for point in POINTS if point <= len(ours)]

    def apart(one: np.ndarray) -> list[float]:
        each = _apart(one, theirs)  # noisy: the mean of the second half of the updates so far
        return [float(each[point // 2 : point].mean()) for point in points]

    return {
        "updates": points,
        "ours": [float(ours[point - 1]) for point in points],
        "reference": [float(theirs[point - 1]) for point in points],
        "difference": apart(ours),
        "floor": apart(again),
    }


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the relative difference, by the larger of the two magnitudes."""
    return np.abs(one - other) / np.maximum(np.maximum(np.abs(one), np.abs(other)), 1e-12)


def main() -> None:
    """Compare the agent that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("agent")
    parser.add_argument("output", type=Path)
    parser.add_argument("--dataset", default="ogbench/pointmaze-medium-navigate-v0")
    parser.add_argument("--updates", type=int, default=500)
    args = parser.parse_args()
    result = compare(args.agent, args.dataset, args.updates)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.output, result)


if __name__ == "__main__":
    main()
