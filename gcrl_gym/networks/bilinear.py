"""Bilinear value functions V(s, g) and Q(s, a, g): products of two learned representations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gcrl_gym.networks.encoders import ImpalaEncoder
from gcrl_gym.networks.mlp import Activation, Init, StackedMLP


class BilinearValue(nn.Module):
    """Independent functions phi(s, a) . psi(g) / sqrt(L), evaluated together.

    Args:
        observations: width of the observation.
        goals: width of the goal.
        hidden_sizes: widths of the hidden layers of phi and of psi.
        latent_dim: L, the width of phi and psi.
        action_dim: width of the action; 0 gives V(s, g), without actions.
        members: number of functions.
        activation: see `MLP`.
        layer_norm: see `MLP`.
        init: see `initialize`.
        state_encoder: what all phi see the observation through.
        goal_encoder: what all psi see the goal through.
    """

    def __init__(
        self,
        observations: int,
        goals: int,
        hidden_sizes: Sequence[int],
        latent_dim: int = 512,
        action_dim: int = 0,
        members: int = 2,
        activation: Activation = "gelu",
        layer_norm: bool = True,
        init: Init = "xavier",
        state_encoder: ImpalaEncoder | None = None,
        goal_encoder: ImpalaEncoder | None = None,
    ) -> None:
        super().__init__()
        self.state_encoder, self.goal_encoder = state_encoder, goal_encoder
        observations = observations if state_encoder is None else state_encoder.outputs
        goals = goals if goal_encoder is None else goal_encoder.outputs
        self.phi, self.psi = (
            StackedMLP(members, inputs, latent_dim, hidden_sizes, activation, layer_norm, init)
            for inputs in (observations + action_dim, goals)
        )
        self.scale = 1.0 / math.sqrt(latent_dim)

    def states(self, observations: Tensor, actions: Tensor | None = None) -> Tensor:
        """Return phi [members, B, L] of observations [B, D] and actions [B, A]."""
        if self.state_encoder is not None:
            observations = self.state_encoder(observations)
        inputs = observations if actions is None else torch.cat([observations, actions], dim=-1)
        return self.phi(inputs)  # type: ignore[no-any-return]

    def goals(self, goals: Tensor) -> Tensor:
        """Return psi / sqrt(L), [members, B, L], of goals [B, G]."""
        if self.goal_encoder is not None:
            goals = self.goal_encoder(goals)
        # Scaled here, where there are fewer numbers than products of all pairs.
        return self.psi(goals) * self.scale  # type: ignore[no-any-return]

    def forward(self, observations: Tensor, goals: Tensor, actions: Tensor | None = None) -> Tensor:
        """Return all values [members, B] of observations [B, D], goals [B, G], actions [B, A]."""
        return (self.states(observations, actions) * self.goals(goals)).sum(-1)

    def pairs(self, observations: Tensor, goals: Tensor, actions: Tensor | None = None) -> Tensor:
        """Return the values of every state with every goal, [members, B, B]: rows are states."""
        return torch.bmm(self.states(observations, actions), self.goals(goals).mT)
