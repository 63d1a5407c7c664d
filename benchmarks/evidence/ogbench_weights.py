"""OGBench's weights (flax) in this package's networks.

flax   Dense_k/kernel [in, out] or [members, in, out], Dense_k/bias [.., out],
       LayerNorm_k/scale and /bias [.., out]; an actor's last layer is a module of its own
ours   nn.Linear [out, in] and nn.LayerNorm in an MLP; [members, in, out], [members, 1, out] in
       a StackedMLP, with one member for a single network
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gcrl_gym.networks import MLP, StackedMLP

_ACTOR = ("actor_net", "mean_net")

# Network of ours -> modules of flax whose layers it has, one after the other.
NETWORKS: dict[str, dict[str, Sequence[str]]] = {
    "gcbc": {"actor.mean": [f"actor/{part}" for part in _ACTOR]},
    "gcivl": {
        "value.stack": ["value/value_net"],
        "value_target.stack": ["target_value/value_net"],
        "actor.mean": [f"actor/{part}" for part in _ACTOR],
    },
    "gciql": {
        "value.stack": ["value/value_net"],
        "critic.stack": ["critic/value_net"],
        "critic_target.stack": ["target_critic/value_net"],
        "actor_0.mean": [f"actor/{part}" for part in _ACTOR],
    },
    "qrl": {
        "value.phi": ["value/phi"],
        "value.mixture": ["value/alpha/value"],
        "lambda.log_lambda": ["lam/log_value"],
        "dynamics.change": ["dynamics"],
        "actor.mean": [f"actor/{part}" for part in _ACTOR],
    },
    "crl": {
        "critic.phi": ["critic/phi"],
        "critic.psi": ["critic/psi"],
        "actor_0.mean": [f"actor/{part}" for part in _ACTOR],
    },
    "hiql": {
        "phi": ["goal_rep/layers_0"],
        "value.stack": ["value/value_net"],
        "value_target.stack": ["target_value/value_net"],
        "low_actor.mean": [f"low_actor/{part}" for part in _ACTOR],
        "high_actor.mean": [f"high_actor/{part}" for part in _ACTOR],
    },
}


@torch.no_grad()
def copy_weights(agent: str, networks: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Put flax's weights into an agent's networks.

    Args:
        agent: its name.
        networks: ``agent.policy.networks``.
        weights: by path, without flax's "modules_".

    Raises:
        ValueError: a weight on either side has no partner (a scale of sampled actions needs none).
    """
    used: set[str] = set()
    filled: set[str] = set()
    for name, modules in NETWORKS[agent].items():
        if modules[0] in weights:  # a single number
            networks.get_parameter(name).fill_(float(weights[modules[0]]))
            used, filled = used | set(modules), filled | {name}
            continue
        network = networks.get_submodule(name)
        used |= _fill(_slots(network), modules, weights)
        filled |= {f"{name}.{parameter}" for parameter, _ in network.named_parameters()}
    ours = {name for name, _ in networks.named_parameters() if not name.endswith("log_std")}
    if ours != filled or used != set(weights):
        raise ValueError(f"{agent}: without a partner {ours ^ filled}, {set(weights) - used}.")


def _slots(network: nn.Module) -> list[dict[str, Tensor]]:
    """Return the layers of a network as views in flax's layout, norms after all others."""
    if isinstance(network, StackedMLP):
        layers = [
            {"kernel": weight, "bias": bias[:, 0]}
            for weight, bias in zip(network.weights, network.biases, strict=True)
        ]
        norms = zip(network.norm_scales, network.norm_shifts, strict=True)
        return layers + [{"scale": scale[:, 0], "bias": shift[:, 0]} for scale, shift in norms]
    if not isinstance(network, MLP):
        raise ValueError(f"{type(network).__name__} is not made of layers.")
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    norm = [layer for layer in network if isinstance(layer, nn.LayerNorm)]
    return [{"kernel": layer.weight.T, "bias": layer.bias} for layer in linear] + [
        {"scale": layer.weight, "bias": layer.bias} for layer in norm
    ]


def _fill(
    slots: list[dict[str, Tensor]], modules: Sequence[str], weights: Mapping[str, np.ndarray]
) -> set[str]:
    """Fill the layers in order; return the paths that were read."""
    layers = [path for module in modules for path in _layers(module, weights)]
    layers.sort(key=lambda path: "LayerNorm" in path)  # stable: norms after all others
    used = set()
    for slot, path in zip(slots, layers, strict=True):
        for part, target in slot.items():
            value = torch.from_numpy(weights[f"{path}/{part}"])
            target.copy_(value.view_as(target))
            used.add(f"{path}/{part}")
    return used


def _layers(module: str, weights: Mapping[str, np.ndarray]) -> list[str]:
    """Return the paths of a module's layers, or its own if it is one layer."""
    found = {path.rsplit("/", 1)[0] for path in weights if path.startswith(f"{module}/")}
    return sorted(found, key=lambda path: int((re.search(r"_(\d+)$", path) or [0, -1])[1]))
