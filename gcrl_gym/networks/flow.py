"""Flow policies: a velocity field whose flow carries noise to actions, and its one-step student.

Both are GELU networks without layer normalisation and without a squashing output (Park, Li and
Levine, "Flow Q-Learning", 2025): a flow leaves [-1, 1] on its way, and the student is pulled back
into it by its distillation loss. Actions are cut off where they leave the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gcrl_gym.networks.mlp import MLP
from gcrl_gym.networks.policies import ContinuousPolicy


class VelocityField(nn.Module):
    """v(s, g, x, t): where a point x between noise (t = 0) and an action (t = 1) moves.

    Args:
        inputs: width of the observation and goal, concatenated.
        action_dim: width of the action.
        hidden_sizes: widths of the hidden layers.
    """

    def __init__(self, inputs: int, action_dim: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        width = inputs + action_dim + 1  # the time enters as it is, without an embedding
        self.body = MLP(width, action_dim, hidden_sizes, "gelu", init="xavier")

    def forward(self, inputs: Tensor, points: Tensor, times: Tensor) -> Tensor:
        """Return velocities [B, A] for inputs [B, D], points [B, A] and times [B, 1] in [0, 1]."""
        return self.body(torch.cat([inputs, points, times], dim=-1))  # type: ignore[no-any-return]

    @torch.no_grad()
    def flow(self, inputs: Tensor, noise: Tensor, steps: int) -> Tensor:
        """Return the actions [B, A] that Euler's method reaches from noise [B, A], cut off.

        Args:
            inputs: [B, D].
            noise: standard normal, [B, A].
            steps: of equal length, at the times 0, 1 / steps, .., 1 - 1 / steps.
        """
        points = noise
        for step in range(steps):
            times = noise.new_full((len(noise), 1), step / steps)
            points = points.add(self.forward(inputs, points, times), alpha=1.0 / steps)
        return points.clamp(-1.0, 1.0)


class OneStepPolicy(ContinuousPolicy):
    """a = f(s, g, z) with z ~ N(0, I) of the action's width, cut off at [-1, 1].

    Args:
        inputs: width of the observation and goal, concatenated.
        action_dim: width of the action and of z.
        hidden_sizes: widths of the hidden layers.
    """

    kind = "stochastic"

    def __init__(self, inputs: int, action_dim: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.body = MLP(inputs + action_dim, action_dim, hidden_sizes, "gelu", init="xavier")

    def forward(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return f [B, A], not cut off, for inputs [B, D] and noise [B, A]."""
        return self.body(torch.cat([inputs, noise], dim=-1))  # type: ignore[no-any-return]

    def mode(self, inputs: Tensor) -> Tensor:
        """Return the action at z = 0."""
        return self.sample(inputs, inputs.new_zeros(len(inputs), self.action_dim))

    def sample(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return the actions at z; none has a gradient where it is cut off."""
        return self.forward(inputs, noise).clamp(-1.0, 1.0)
