"""AWAC: Q learning with the policy's own actions, a policy by weighted imitation.

Nair, Gupta, Dalal and Levine, "AWAC: Accelerating Online Reinforcement Learning with Offline
Datasets" (2020); settings and order of the steps as in CORL (github.com/tinkoff-ai/CORL, awac.py).

    Q       L(Q)  = sum_j E[ (Q_j(s, a) - r - discount * (1 - terminated) * min_j Q'_j(s', a'))^2 ],
                    a' ~ pi_0(s')
    actor 0 L(pi) = -E[ min(exp(A / lambda), 100) * log pi(a | s) ],
                    A = min_j Q_j(s, a) - V(s),  V(s) = min_j Q_j(s, b),  b ~ pi_0(s)
    chain   E(pi_i) = -E[ min_j Q_j(s, a_i) ],  a_i ~ pi_i;  or V(s) - Q with "advantage"

A takes the critics as just stepped. The policy is a normal distribution with an unbounded mean:
sampled actions are cut off at [-1, 1], log pi is the density before that. The target has no
entropy. Goals: A is taken at the policy's goals.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from gcrl_gym.agents.chained import ChainAgent
from gcrl_gym.agents.losses import td_target, twin_loss
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.errors import UserError
from gcrl_gym.networks import ContinuousPolicy, GaussianPolicy, StackedCritic
from gcrl_gym.networks.policies import normal_log_prob
from gcrl_gym.networks.steps import minimize, soft_update


class AWAC(ChainAgent):
    """Advantage-weighted actor-critic with an optional chain of JKO actors; continuous actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        awac_lambda: temperature of the policy's weights exp(A / lambda); 0.1 for antmaze.
        max_weight: largest weight of a transition.
        energy: of the chain: "q", or "advantage", which subtracts V(s).
        discount: of future rewards, in [0, 1).
        tau: fraction by which the target critics follow.
        hidden_sizes: widths of the hidden layers of all networks.
        normalize: see ``OfflineAgent``.
        **common: see ``ChainAgent`` and ``OfflineAgent``.

    Raises:
        UserError: a temperature or largest weight that is not positive; see also ``ChainAgent``.
    """

    name = "awac"

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        awac_lambda: float = 1 / 3,
        max_weight: float = 100.0,
        energy: Literal["q", "advantage"] = "q",
        discount: float = 0.99,
        tau: float = 0.005,
        hidden_sizes: tuple[int, ...] = (256, 256, 256),
        normalize: bool = True,
        **common: Any,
    ) -> None:
        for option, value in (("awac_lambda", awac_lambda), ("max_weight", max_weight)):
            if not 0.0 < value < float("inf"):
                raise UserError(f"{option} is {value}; it must be a number > 0.")
        self.awac_lambda, self.max_weight, self.energy = awac_lambda, max_weight, energy
        self.discount, self.tau, self.hidden_sizes = discount, tau, tuple(hidden_sizes)
        super().__init__(env, dataset, normalize=normalize, **common)

    def build(self) -> None:
        """Make the twin critic with its target, and the actors."""
        sizes = (self.input_dim, self.action_dim, self.hidden_sizes)
        self.critic = self.add_network("critic", lambda: StackedCritic(*sizes))
        self.critic_target = self.add_target("critic_target", self.critic)
        self.actor = self.add_network("actor_0", lambda: GaussianPolicy(*sizes))
        self.critic_optimizer = self.add_optimizer("critic", self.critic)
        self.actor_optimizer = self.add_optimizer("actor_0", self.actor)
        self.add_chain(self.actor)

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the noise of a', of b, and of the chain's."""
        one = (batch_size, self.action_dim)
        return {"next": one, "value": one} | super().noise_shapes(batch_size)

    def update(self, batch: Batch) -> Metrics:
        """Take the steps of Q, actor 0, Q's target and the chain, in this order."""
        asked = self.join(batch.observations, batch.actor_goals)
        metrics = self._update_critic(batch)
        metrics |= self._update_actor(asked, batch)
        soft_update(self.critic_target, self.critic, self.tau)
        return metrics | self.update_chain(batch, asked)

    def _update_critic(self, batch: Batch) -> Metrics:
        with torch.no_grad():
            there = self.join(batch.next_observations, batch.goals)
            actions = self.actor.sample(there, batch.noise["next"])
            next_q = self.critic_target(there, actions).amin(0)
            target = td_target(batch.rewards, batch.terminated, next_q, self.discount)
        q = self.critic(self.join(batch.observations, batch.goals), batch.actions)
        loss = twin_loss(q, target)
        minimize(self.critic_optimizer, loss)
        return {"critic_loss": loss.detach(), "q": q.detach().mean()}

    def _update_actor(self, asked: Tensor, batch: Batch) -> Metrics:
        mean, std = self.actor.gaussian(asked)  # one pass for the sample b and the density
        with torch.no_grad():
            sampled = (mean + std * batch.noise["value"]).clamp(-1.0, 1.0)
            actions = torch.cat([batch.actions, sampled])
            q, value = self.critic(torch.cat([asked, asked]), actions).amin(0).chunk(2)
            advantage = q - value
            weight = (advantage / self.awac_lambda).exp().clamp_max(self.max_weight)
        log_prob = normal_log_prob((batch.actions - mean) / std, std.log())
        loss = -(weight * log_prob).mean()
        minimize(self.actor_optimizer, loss)
        return {
            "actor_0/loss": loss.detach(),
            "actor_0/weight": weight.mean(),
            "advantage": advantage.mean(),
        }

    def energy_of(
        self, policy: ContinuousPolicy, inputs: Tensor, noise: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return -min Q, or -(min Q - V) with ``energy="advantage"``, of the policy's action."""
        q = self.critic(inputs, policy.sample(inputs, noise)).amin(0)
        if self.energy == "q":
            return -q, q
        with torch.no_grad():
            value = self.critic(inputs, self.actor.sample(inputs, batch.noise["value"])).amin(0)
        return value - q, q - value
