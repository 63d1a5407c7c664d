"""OGBench's own agents and goal datasets (JAX), imported from the checkout OGBENCH_DIR.

The scripts ogbench_*.py of this folder share it. None of them may be called ogbench.py: that is the
name of the package with OGBench's environments, and a script's own folder is searched first.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(os.environ["OGBENCH_DIR"]) / "impls"))

import numpy as np
from agents import agents
from utils.datasets import Dataset, GCDataset, HGCDataset

CHECKOUT = Path(os.environ["OGBENCH_DIR"])
PACKAGES = ("jax", "flax", "optax", "distrax", "numpy", "gymnasium", "mujoco", "ogbench")


def published(agent: str, dataset: str) -> dict[str, Any]:
    """Return the hyperparameters that the checkout's hyperparameters.sh gives for a dataset."""
    lines = (CHECKOUT / "impls" / "hyperparameters.sh").read_text("utf-8").splitlines()
    wanted = (f"--env_name={dataset}", f"--agent=agents/{agent}.py")
    line = next(line for line in lines if set(wanted) <= set(line.split()))
    found = re.findall(r"--agent\.(\w+)=(\S+)", line)
    return {key: ast.literal_eval(value) for key, value in found}


def configured(agent: str, changes: Mapping[str, Any]) -> Any:
    """Return an agent's configuration with some values changed; unknown keys are an error."""
    config = importlib.import_module(f"agents.{agent}").get_config().lock()
    config.update({k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()})
    return config


def goal_dataset(columns: Mapping[str, np.ndarray], config: Any) -> Any:
    """Return the dataset that draws goals for an agent.

    Args:
        columns: "observations", "actions", "terminals" and, for a compact dataset, "valids".
        config: of the agent.
    """
    kind = {"GCDataset": GCDataset, "HGCDataset": HGCDataset}[config["dataset_class"]]
    return kind(Dataset.create(**columns), config)


def create(config: Any, dataset: Any, seed: int) -> Any:
    """Return a new agent for a dataset."""
    example = dataset.sample(1)
    return agents[config["agent_name"]].create(
        seed, example["observations"], example["actions"], config
    )


def numbers(info: Mapping[str, Any], word: str = "loss") -> dict[str, float]:
    """Return the metrics of an update whose names end in ``word``."""
    return {name: float(value) for name, value in info.items() if name.endswith(word)}


def origin() -> dict[str, Any]:
    """Return the versions of the packages and the commit of the checkout."""
    git = ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"commit": commit, "versions": versions}
