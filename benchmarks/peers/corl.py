"""CORL's own learners, imported from the checkout named by CORL_DIR.

    python benchmarks/peers/corl.py td3_bc

Their modules import d4rl, gym, pyrallis and wandb for the command line; empty stand-ins suffice for
the learners and the replay buffer. Settings are those of its configs for locomotion.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from synthetic import transitions
from worker import serve

ROWS, OBSERVATION_DIM, ACTION_DIM, BATCH = 1_000_000, 17, 6, 256
SIZES = (OBSERVATION_DIM, ACTION_DIM)


def load(name: str) -> types.ModuleType:
    """Import algorithms/offline/<name>.py with its command-line packages stubbed."""
    for package in ("d4rl", "gym", "pyrallis", "wandb"):
        sys.modules[package] = types.ModuleType(package)
    sys.modules["gym"].Env = object
    sys.modules["pyrallis"].wrap = lambda: lambda function: function
    path = Path(os.environ["CORL_DIR"]) / "algorithms" / "offline" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"corl_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def with_optimizers(networks: dict[str, Any], rates: dict[str, float]) -> dict[str, Any]:
    """Return networks and an Adam optimiser for each, as CORL's constructors take them."""
    optimizers = {
        f"{name}_optimizer": torch.optim.Adam(network.parameters(), lr=rates.get(name, 3e-4))
        for name, network in networks.items()
    }
    return networks | optimizers


def td3_bc(corl: Any) -> Callable[[Any], Any]:
    """TD3+BC, 2x256."""
    critics = {f"critic_{i}": corl.Critic(*SIZES) for i in (1, 2)}
    networks = {"actor": corl.Actor(*SIZES, 1.0)} | critics
    return corl.TD3_BC(max_action=1.0, **with_optimizers(networks, {})).train


def iql(corl: Any) -> Callable[[Any], Any]:
    """IQL with the Gaussian policy, 2x256."""
    parts = {
        "actor": corl.GaussianPolicy(*SIZES, 1.0),
        "q_network": corl.TwinQ(*SIZES),
        "v_network": corl.ValueFunction(OBSERVATION_DIM),
    }
    made = with_optimizers(parts, {})
    renamed = {k.replace("_network_optimizer", "_optimizer"): v for k, v in made.items()}
    return corl.ImplicitQLearning(max_action=1.0, max_steps=10**6, device="cpu", **renamed).train


def awac(corl: Any) -> Callable[[Any], Any]:
    """AWAC, 3x256."""
    sizes = {"state_dim": OBSERVATION_DIM, "action_dim": ACTION_DIM, "hidden_dim": 256}
    critics = {f"critic_{i}": corl.Critic(**sizes) for i in (1, 2)}
    parts = with_optimizers({"actor": corl.Actor(**sizes)} | critics, {})
    return corl.AdvantageWeightedActorCritic(awac_lambda=0.3333, **parts).update


def cql(corl: Any) -> Callable[[Any], Any]:
    """CQL, 3x256, 10 actions, importance sampling."""
    critics = {f"critic_{i}": corl.FullyConnectedQFunction(*SIZES, True, 3) for i in (1, 2)}
    actor = corl.TanhGaussianPolicy(*SIZES, 1.0, log_std_multiplier=1.0, orthogonal_init=True)
    parts = with_optimizers({"actor": actor} | critics, {"actor": 3e-5})
    learner = corl.ContinuousCQL(
        target_entropy=-float(ACTION_DIM), policy_lr=3e-5, qf_lr=3e-4, bc_steps=0, cql_alpha=10.0,
        backup_entropy=False, device="cpu", **parts,
    )  # fmt: skip
    return learner.train


def ensemble(corl: Any, learner: str, members: int, **keywords: Any) -> Callable[[Any], Any]:
    """SAC-N and EDAC, 3x256."""
    critic = corl.VectorizedCritic(*SIZES, 256, members)
    parts = with_optimizers({"actor": corl.Actor(*SIZES, 256, 1.0), "critic": critic}, {})
    made = getattr(corl, learner)(alpha_learning_rate=3e-4, device="cpu", **parts, **keywords)
    return made.update


LEARNERS: dict[str, Callable[[Any], Callable[[Any], Any]]] = {
    "td3_bc": td3_bc,
    "iql": iql,
    "awac": awac,
    "cql": cql,
    "sac_n": lambda corl: ensemble(corl, "SACN", int((*sys.argv, "10")[2])),
    "edac": lambda corl: ensemble(corl, "EDAC", int((*sys.argv, "10")[2]), eta=1.0),
}


def main() -> None:
    """Serve updates of the learner named on the command line."""
    name = sys.argv[1]
    corl = load(name)
    buffer = corl.ReplayBuffer(*SIZES, ROWS)
    buffer.load_d4rl_dataset(transitions(ROWS, *SIZES))

    def make() -> Callable[[int], None]:
        update = LEARNERS[name](corl)

        def run(updates: int) -> None:
            for _ in range(updates):
                update(buffer.sample(BATCH))

        return run

    serve(make)


if __name__ == "__main__":
    main()
