"""Goal-conditioned behaviour cloning: imitate the action that led to a state reached later.

Ghosh et al., "Learning to Reach Goals via Iterated Supervised Learning" (2019); hyperparameters as
in OGBench (Park et al. 2024). Without goals in the data it is plain behaviour cloning.

    continuous   L(pi) = E[ 1/2 ||pi(s, g) - a||^2 ],  g a later state of the same episode
    discrete     L(pi) = E[ -log pi(a | s, g) ]

Deviation: OGBench samples with unit variance. Here the scale used for sampled actions is fitted by
maximum likelihood to the residuals; it shares no parameter with the mean, which is OGBench's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from gcrl_gym.agents.base import OfflineAgent
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch, GoalSampler
from gcrl_gym.networks import CategoricalPolicy, GaussianPolicy
from gcrl_gym.networks.steps import minimize


class GCBC(OfflineAgent):
    """Goal-conditioned behaviour cloning, for continuous and discrete actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        hidden_sizes: widths of the policy's hidden layers.
        **common: see ``OfflineAgent``.
    """

    name = "gcbc"
    sampler = GoalSampler(value=(0.0, 1.0, 0.0), actor=(0.0, 1.0, 0.0))
    action_spaces = (spaces.Box, spaces.Discrete)

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        hidden_sizes: tuple[int, ...] = (256, 256),
        **common: Any,
    ) -> None:
        self.hidden_sizes = tuple(hidden_sizes)
        super().__init__(env, dataset, **common)

    def build(self) -> None:
        """Make the policy and its optimiser."""
        kind = (
            CategoricalPolicy if isinstance(self.action_space, spaces.Discrete) else GaussianPolicy
        )
        self.actor: CategoricalPolicy | GaussianPolicy = self.add_network(
            "actor", lambda: kind(self.input_dim, self.action_dim, self.hidden_sizes)
        )
        self.actor_optimizer = self.add_optimizer("actor", self.actor)

    def update(self, batch: Batch) -> Metrics:
        """Take one step of maximum likelihood."""
        output = self.actor.forward(torch.cat([batch.observations, batch.actor_goals], dim=-1))
        if isinstance(self.actor, CategoricalPolicy):
            loss = nn.functional.cross_entropy(output, batch.actions)
            metrics = {"accuracy": (output.argmax(-1) == batch.actions).float().mean()}
        else:
            error = (output - batch.actions).square()  # [B, A]
            loss = 0.5 * error.sum(-1).mean() + scale_loss(self.actor.log_std, error.detach())
            metrics = {"actor_mse": error.detach().mean()}
        minimize(self.actor_optimizer, loss)
        return metrics | {"actor_loss": loss.detach()}

    def act(self, inputs: Tensor, deterministic: bool, actor: int) -> Tensor:
        """Return the mean or likeliest action, or a sample."""
        if isinstance(self.actor, CategoricalPolicy):
            return self.actor.act(inputs, None if deterministic else self.generators.torch("act"))
        if deterministic:
            return self.actor.mode(inputs)
        return self.actor.sample(inputs, self.generators.randn("act", len(inputs), self.action_dim))


def scale_loss(log_std: Tensor, squared_error: Tensor) -> Tensor:
    """Return the Gaussian negative log-likelihood as a function of the scale alone.

    Args:
        log_std: logarithms of the standard deviations, [A].
        squared_error: residuals squared, without gradient, [B, A].
    """
    nll = 0.5 * squared_error * torch.exp(-2.0 * log_std) + log_std + 0.5 * math.log(2 * math.pi)
    return nll.sum(-1).mean()
