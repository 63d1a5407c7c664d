"""The two ways parameters change: down a loss, or towards another network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def minimize(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Step one optimiser down a loss; parameters of other optimisers get no gradient."""
    parameters = optimizer.param_groups[0]["params"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
    optimizer.step()


def minimize_sum(
    optimizer: torch.optim.Optimizer, *terms: tuple[Tensor, Sequence[nn.Module]]
) -> None:
    """Step one optimiser down a sum of losses, each of which reaches only its own networks.

    Args:
        optimizer: of all the networks.
        *terms: (loss, networks that its gradient reaches); a network belongs to one term.
    """
    optimizer.zero_grad(set_to_none=True)
    for loss, networks in terms:
        own = [parameter for network in networks for parameter in network.parameters()]
        loss.backward(inputs=own)  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def soft_update(target: nn.Module, network: nn.Module, tau: float) -> None:
    """Move target parameters the fraction ``tau`` of the way to the network's."""
    torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), tau)
