"""Quasimetrics: distances d(s, g) >= 0 with the triangle inequality that need not be symmetric.

    IQE  a component of a latent is k intervals [x_j, y_j] from state to goal; its distance is the
         length of their union. Components are pooled by a learned mixture of mean and maximum.
    MRN  Euclidean distance of one half of the latent plus the largest rise of the other.

Wang and Isola, "Improved Representation of Asymmetrical Distances with Interval Quasimetric
Embeddings" (2022); Liu, Feng, Liu and Abbeel, "Metric Residual Networks for Sample Efficient
Goal-Conditioned Reinforcement Learning" (2023); sizes as in OGBench's QRL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gcrl_gym.networks.encoders import ImpalaEncoder, with_encoder
from gcrl_gym.networks.mlp import MLP, Activation, Init

QuasimetricKind = Literal["iqe", "mrn"]


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


class Quasimetric(nn.Module):
    """A learned distance d(s, g) between states: one of the above on a latent phi(s).

    Args:
        inputs: width of the state.
        hidden_sizes: widths of the hidden layers of phi.
        kind: "iqe" or "mrn".
        latent_dim: L, width of phi.
        dim_per_component: intervals of a component of "iqe", a divisor of L.
        activation: see `MLP`.
        layer_norm: see `MLP`.
        init: see `initialize`.
        encoder: what phi sees the state through.
    """

    def __init__(
        self,
        inputs: int,
        hidden_sizes: Sequence[int],
        kind: QuasimetricKind = "iqe",
        latent_dim: int = 512,
        dim_per_component: int = 8,
        activation: Activation = "gelu",
        layer_norm: bool = True,
        init: Init = "xavier",
        encoder: ImpalaEncoder | None = None,
    ) -> None:
        super().__init__()
        self.dim_per_component = dim_per_component
        inputs = inputs if encoder is None else encoder.outputs
        body = MLP(inputs, latent_dim, hidden_sizes, activation, layer_norm, init)
        self.phi = with_encoder(encoder, body)
        # Of the mean of the components, as a logit: mean and maximum count alike at the start.
        self.mixture = nn.Parameter(torch.zeros(1)) if kind == "iqe" else None

    def forward(self, states: Tensor) -> Tensor:
        """Return latents [B, L] of states [B, D]."""
        return self.phi(states)  # type: ignore[no-any-return]

    def distance(self, state: Tensor, goal: Tensor) -> Tensor:
        """Return the distances [B] from latents [B, L] of states to those of goals."""
        if self.mixture is None:
            return mrn_distance(state, goal)
        return iqe_distance(state, goal, self.mixture.sigmoid(), self.dim_per_component)


class LatentDynamics(nn.Module):
    """What an action makes of a latent state: z' = z + f(z, a).

    Args:
        latent_dim: L, width of the latent.
        action_dim: width of the action.
        hidden_sizes: widths of the hidden layers of f.
        activation: see `MLP`.
        layer_norm: see `MLP`.
        init: see `initialize`.
    """

    def __init__(
        self,
        latent_dim: int,
        action_dim: int,
        hidden_sizes: Sequence[int],
        activation: Activation = "gelu",
        layer_norm: bool = True,
        init: Init = "xavier",
    ) -> None:
        super().__init__()
        self.change = MLP(
            latent_dim + action_dim, latent_dim, hidden_sizes, activation, layer_norm, init
        )

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Return the next latents [B, L] of latents [B, L] and actions [B, A]."""
        return latents + self.change(torch.cat([latents, actions], dim=-1))  # type: ignore[no-any-return]


class Multiplier(nn.Module):
    """lambda = exp(log_lambda) > 0 of a constraint, 1 at the start; a network of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.log_lambda = nn.Parameter(torch.zeros(1))

    def forward(self) -> Tensor:
        """Return lambda, a scalar."""
        return self.log_lambda.exp().squeeze()
