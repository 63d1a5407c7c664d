"""The entropy temperature of SAC, learned: what SAC-N, EDAC and CQL share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gcrl_gym.agents.schedules import resolve_learning_rate
from gcrl_gym.errors import UserError


class Temperature(nn.Module):
    """alpha = exp(log_alpha), a network of one number so that it is saved and stepped like others.

    Args:
        start: first value of alpha.
    """

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor([start]).log())

    def forward(self) -> Tensor:
        """Return alpha, a scalar."""
        return self.log_alpha.exp().squeeze()


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Return ``-log_alpha * E[log pi + target entropy]`` (Haarnoja et al. 2018, as implemented).

    It falls as alpha grows while the policy's entropy is below its target.

    Args:
        log_alpha: the parameter, one number.
        log_prob: of the policy's actions, [B]; no gradient flows into the policy.
        target_entropy: such as minus the number of action dimensions.
    """
    return -(log_alpha * (log_prob.detach().mean() + target_entropy)).squeeze()


def check_temperature(target_entropy: float | None, learning_rate: float | None) -> None:
    """Check the options ``target_entropy`` and ``alpha_learning_rate``.

    Raises:
        UserError: a target entropy that is not finite, or a learning rate that is not positive.
    """
    if target_entropy is not None and not math.isfinite(target_entropy):
        raise UserError(
            f"target_entropy is {target_entropy}; give a finite number, or None for minus the "
            "number of action dimensions."
        )
    if learning_rate is not None:
        resolve_learning_rate(learning_rate, "alpha_learning_rate")
