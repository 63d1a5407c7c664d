"""CORL's own TD3+BC classes, imported from the checkout named by CORL_DIR.

Its module imports d4rl, gym, pyrallis and wandb for its command line; empty stand-ins suffice for
the learner and the replay buffer.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch
from synthetic import transitions
from worker import serve

ROWS, OBSERVATION_DIM, ACTION_DIM, BATCH = 1_000_000, 17, 6, 256


def load() -> types.ModuleType:
    """Import CORL's algorithms/offline/td3_bc.py with its command-line packages stubbed."""
    for name in ("d4rl", "gym", "pyrallis", "wandb"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["gym"].Env = object
    sys.modules["pyrallis"].wrap = lambda: lambda function: function
    path = Path(os.environ["CORL_DIR"]) / "algorithms" / "offline" / "td3_bc.py"
    spec = importlib.util.spec_from_file_location("corl_td3_bc", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


CORL = load()
BUFFER = CORL.ReplayBuffer(OBSERVATION_DIM, ACTION_DIM, ROWS)
BUFFER.load_d4rl_dataset(transitions(ROWS, OBSERVATION_DIM, ACTION_DIM))


def make() -> Callable[[int], None]:
    """Return the runner, built as CORL's own ``train`` builds it."""
    networks = {
        "actor": CORL.Actor(OBSERVATION_DIM, ACTION_DIM, 1.0),
        "critic_1": CORL.Critic(OBSERVATION_DIM, ACTION_DIM),
        "critic_2": CORL.Critic(OBSERVATION_DIM, ACTION_DIM),
    }
    optimizers = {
        f"{name}_optimizer": torch.optim.Adam(network.parameters(), lr=3e-4)
        for name, network in networks.items()
    }
    learner = CORL.TD3_BC(max_action=1.0, **networks, **optimizers)

    def run(updates: int) -> None:
        for _ in range(updates):
            learner.train(BUFFER.sample(BATCH))

    return run


if __name__ == "__main__":
    serve(make)
