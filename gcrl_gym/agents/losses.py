"""Losses that several agents share: pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def expectile_loss(residual: Tensor, expectile: float, side: Tensor | None = None) -> Tensor:
    """Return the mean asymmetric squared loss (Kostrikov et al. 2021, eq. 5).

    Args:
        residual: target - prediction, any shape; an expectile above 0.5 weighs targets above the
            prediction more, so that 0.9 fitted to {0, 1} gives 0.9.
        expectile: in (0, 1).
        side: what decides the weight by its sign, [..., B]; the residual itself when None.
    """
    sign = residual if side is None else side
    weight = torch.where(sign >= 0, expectile, 1.0 - expectile)
    return (weight * residual.square()).mean()


def implicit_value_loss(
    values: Tensor, target_values: Tensor, targets: Tensor, expectile: float
) -> Tensor:
    """Return the expectile losses of value functions without action values, summed over heads.

    Each head follows its own target; the target network's advantage of the least one decides the
    side for all (Park et al. 2023, as in OGBench).

    Args:
        values: of the heads that learn, [members, B].
        target_values: of the target network at the same states, [members, B].
        targets: what each head regresses to, [members, B].
        expectile: in (0, 1).
    """
    advantage = targets.amin(0) - target_values.mean(0)
    return len(values) * expectile_loss(targets - values, expectile, advantage)


def td_target(rewards: Tensor, terminated: Tensor, next_values: Tensor, discount: float) -> Tensor:
    """Return ``r + discount * (1 - terminated) * next value``, [B]; truncation bootstraps."""
    return torch.addcmul(rewards, 1.0 - terminated, next_values, value=discount)


def twin_loss(q: Tensor, target: Tensor) -> Tensor:
    """Return the squared errors of all critics q [members, B] to one target [B]: mean, summed."""
    return (q - target).square().mean(1).sum()


def smoothed_actions(actions: Tensor, noise: Tensor, scale: float, clip: float) -> Tensor:
    """Return target actions with clipped noise, in [-1, 1] (Fujimoto et al. 2018, eq. 14).

    Args:
        actions: of the target policy, [B, A].
        noise: standard normal, [B, A].
        scale: standard deviation of the noise that is added.
        clip: largest magnitude of that noise.
    """
    return (actions + (scale * noise).clamp(-clip, clip)).clamp(-1.0, 1.0)
