"""Quasimetrics: distances d(s, g) >= 0 with the triangle inequality that need not be symmetric.

    IQE  a component of a latent is k intervals [x_j, y_j] from state to goal; its distance is the
         length of their union. Components are pooled by a learned mixture of mean and maximum.
    MRN  Euclidean distance of one half of the latent plus the largest rise of the other.

Wang and Isola, "Improved Representation of Asymmetrical Distances with Interval Quasimetric
Embeddings" (2022); Liu, Feng, Liu and Abbeel, "Metric Residual Networks for Sample Efficient
Goal-Conditioned Reinforcement Learning" (2023); sizes as in OGBench's QRL.
"""

from __future__ import annotations

import torch
from torch import Tensor


def interval_union(starts: Tensor, ends: Tensor) -> Tensor:
    """Return the length of the union of the intervals [start, end] with start < end.

    Args:
        starts: [..., k].
        ends: [..., k].

    Returns:
        Lengths [...], at least 0; intervals that end before they start count as empty.
    """
    starts, order = starts.sort(dim=-1)
    ends = torch.maximum(ends.gather(-1, order), starts)
    # Going from left to right, an interval adds what lies beyond all that came before it.
    reached = ends.cummax(dim=-1).values
    first = ends[..., :1] - starts[..., :1]
    beyond = ends[..., 1:] - torch.maximum(starts[..., 1:], reached[..., :-1])
    return first.squeeze(-1) + beyond.clamp_min(0.0).sum(-1)


def iqe_distance(state: Tensor, goal: Tensor, mixture: Tensor, dim_per_component: int) -> Tensor:
    """Return the interval quasimetric embedding distance, [B].

    Args:
        state: latents of states, [B, L].
        goal: latents of goals, [B, L].
        mixture: weight of the components' mean against their maximum, a scalar in [0, 1].
        dim_per_component: k, a divisor of L.
    """
    shape = (*state.shape[:-1], -1, dim_per_component)
    components = interval_union(state.view(shape), goal.view(shape))  # [B, L / k]
    return torch.lerp(components.amax(-1), components.mean(-1), mixture)


def mrn_distance(state: Tensor, goal: Tensor) -> Tensor:
    """Return the metric residual network distance, [B].

    Args:
        state: latents of states, [B, L]: the first half symmetric, the second not.
        goal: latents of goals, [B, L].
    """
    half = state.shape[-1] // 2
    squared = (state[..., :half] - goal[..., :half]).square().sum(-1)
    rise = (state[..., half:] - goal[..., half:]).amax(-1).clamp_min(0.0)
    # The square root has no gradient at 0.
    return squared.clamp_min(1e-12).sqrt() + rise
