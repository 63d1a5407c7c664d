"""Value functions V(s, g) and Q(s, g, a)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gcrl_gym.networks.encoders import ImpalaEncoder
from gcrl_gym.networks.mlp import Activation, Init, StackedMLP


class StackedValue(nn.Module):
    """Independent V functions of state-and-goal, evaluated together.

    Args:
        inputs: width of the observation and goal, concatenated.
        hidden_sizes: widths of the hidden layers.
        members: number of V functions.
        activation: see `MLP`.
        layer_norm: see `MLP`.
        init: see `initialize`.
        encoder: what all of them see the inputs through.
    """

    def __init__(
        self,
        inputs: int,
        hidden_sizes: Sequence[int],
        members: int = 2,
        activation: Activation = "relu",
        layer_norm: bool = False,
        init: Init = "torch",
        encoder: ImpalaEncoder | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        inputs = inputs if encoder is None else encoder.outputs
        self.stack = StackedMLP(members, inputs, 1, hidden_sizes, activation, layer_norm, init)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return all values [members, B] of inputs [B, D]."""
        if self.encoder is not None:
            inputs = self.encoder(inputs)
        return self.stack(inputs).squeeze(-1)  # type: ignore[no-any-return]


class StackedCritic(nn.Module):
    """Independent Q functions of (state-and-goal, action), evaluated together.

    Args:
        inputs: width of the observation and goal, concatenated.
        action_dim: width of the action.
        hidden_sizes: widths of the hidden layers.
        members: number of Q functions; two give clipped double Q learning.
        activation: see `MLP`.
        layer_norm: see `MLP`.
        init: see `initialize`.
        encoder: what all of them see the inputs, not the actions, through.
    """

    def __init__(
        self,
        inputs: int,
        action_dim: int,
        hidden_sizes: Sequence[int],
        members: int = 2,
        activation: Activation = "relu",
        layer_norm: bool = False,
        init: Init = "torch",
        encoder: ImpalaEncoder | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        inputs = inputs if encoder is None else encoder.outputs
        self.stack = StackedMLP(
            members, inputs + action_dim, 1, hidden_sizes, activation, layer_norm, init
        )

    def forward(self, inputs: Tensor, actions: Tensor) -> Tensor:
        """Return all Q values, [members, B].

        Args:
            inputs: [B, D], or [members, B, D].
            actions: [B, A], or [members, B, A]: each member's own.
        """
        return self.stack(self._joined(inputs, actions)).squeeze(-1)  # type: ignore[no-any-return]

    def first(self, inputs: Tensor, actions: Tensor) -> Tensor:
        """Return Q1 alone, [B]: what a deterministic policy gradient climbs."""
        return self.stack.member(0, self._joined(inputs, actions)).squeeze(-1)

    def _joined(self, inputs: Tensor, actions: Tensor) -> Tensor:
        features = inputs if self.encoder is None else self.encoder(inputs)
        return torch.cat([features, actions], dim=-1)
