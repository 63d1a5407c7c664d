"""The ways parameters change: down a loss or a sum of them, or towards another network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def minimize(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Step one optimiser down a loss; parameters of other optimisers get no gradient."""
    parameters = optimizer.param_groups[0]["params"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
    optimizer.step()


def accumulate(loss: Tensor, *networks: nn.Module) -> None:
    """Add a loss's gradient to that of its networks, and of no others.

    For one step down a sum of losses: ``zero_grad``, each loss in turn, ``step``. In turn, because
    a compiled forward of several losses cannot go backward more than once.
    """
    own = [parameter for network in networks for parameter in network.parameters()]
    loss.backward(inputs=own)  # type: ignore[no-untyped-call]


@torch.no_grad()
def soft_update(target: nn.Module, network: nn.Module, tau: float) -> None:
    """Move target parameters the fraction ``tau`` of the way to the network's."""
    torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), tau)
