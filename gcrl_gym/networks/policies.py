"""Policies: every one maps (state-and-goal, ...) to actions in [-1, 1], or to class scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gcrl_gym.networks.mlp import MLP


class TransportMap(nn.Module):
    """Policy as a map of noise: a = tanh(f(s, g, z)) with z ~ N(0, I) of the action's width.

    Args:
        inputs: width of the observation and goal, concatenated.
        action_dim: width of the action and of z.
        hidden_sizes: widths of the hidden layers.
    """

    def __init__(self, inputs: int, action_dim: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.body = MLP(inputs + action_dim, action_dim, hidden_sizes)

    def forward(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return actions [B, A] in (-1, 1) for inputs [B, D] and noise [B, A]."""
        return torch.tanh(self.body(torch.cat([inputs, noise], dim=-1)))

    def samples(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return actions [B, K, A] for inputs [B, D] and K noise vectors per state [B, K, A]."""
        batch, count, width = noise.shape
        tiled = inputs.unsqueeze(1).expand(batch, count, inputs.shape[-1])
        joined = torch.cat([tiled, noise], dim=-1).view(batch * count, -1)
        return torch.tanh(self.body(joined)).view(batch, count, width)


class GaussianPolicy(nn.Module):
    """Diagonal Gaussian with a state-independent scale; its mean is not squashed.

    Args:
        inputs: width of the observation and goal, concatenated.
        action_dim: width of the action.
        hidden_sizes: widths of the hidden layers.
    """

    def __init__(self, inputs: int, action_dim: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.mean = MLP(inputs, action_dim, hidden_sizes)
        self.log_std = nn.Parameter(torch.zeros(action_dim))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mean action [B, A] of inputs [B, D]."""
        return self.mean(inputs)  # type: ignore[no-any-return]

    def act(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a sample drawn with the generator, or the mean without one; in [-1, 1]."""
        action = self.forward(inputs)
        if generator is not None:
            noise = torch.randn(action.shape, generator=generator, device=action.device)
            action = action + self.log_std.exp() * noise
        return action.clamp(-1.0, 1.0)


class CategoricalPolicy(nn.Module):
    """Scores (logits) of discrete actions.

    Args:
        inputs: width of the observation and goal, concatenated.
        actions: number of actions.
        hidden_sizes: widths of the hidden layers.
    """

    def __init__(self, inputs: int, actions: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.logits = MLP(inputs, actions, hidden_sizes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits [B, actions] of inputs [B, D]."""
        return self.logits(inputs)  # type: ignore[no-any-return]

    def act(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a sample drawn with the generator, or the likeliest action without one; [B]."""
        logits = self.forward(inputs)
        if generator is None:
            return logits.argmax(-1)
        return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)
