"""Implicit Q-learning: values by expectile regression, a policy by weighted imitation.

Kostrikov, Nair and Levine, "Offline Reinforcement Learning with Implicit Q-Learning" (2021);
settings and order of the steps as in CORL (github.com/tinkoff-ai/CORL, iql.py).

    V       L(V)  = E[ |tau - 1(u < 0)| * u^2 ],  u = min_j Q'_j(s, a) - V(s)              (eq. 5)
    Q       L(Q)  = 1/2 sum_j E[ (Q_j(s, a) - r - discount * (1 - terminated) * V(s'))^2 ] (eq. 6)
    actor 0 L(pi) = -E[ min(exp(beta * A), 100) * log pi(a | s) ],  A = min Q'(s, a) - V(s)(eq. 7)
    chain   E(pi_i) = -E[ min_j Q'_j(s, a_i) ],  a_i ~ pi_i;  or V(s) - Q with "advantage"

V(s') and A are taken before the step of V. The deterministic policy, which CORL uses for hopper,
replaces -log pi by the squared distance to the action. Goals: A is taken at the policy's goals.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gcrl_gym.agents.chained import ChainAgent
from gcrl_gym.agents.inputs import check_expectile
from gcrl_gym.agents.losses import expectile_loss, td_target, twin_loss
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.networks import (
    MLP,
    ContinuousPolicy,
    DeterministicPolicy,
    GaussianPolicy,
    StackedCritic,
)
from gcrl_gym.networks.mlp import Activation
from gcrl_gym.networks.steps import minimize, soft_update


class IQL(ChainAgent):
    """Implicit Q-learning with an optional chain of JKO actors; continuous actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        expectile: of the value function, in (0, 1).
        beta: inverse temperature of the policy's weights.
        max_weight: largest weight of a transition.
        policy_type: "gaussian" (tanh mean, a scale that does not depend on the state) or
            "deterministic".
        actor_schedule: actor 0's learning rate falls to 0 along a cosine ("cosine", as published)
            or follows ``learning_rate`` ("constant").
        energy: of the chain: "q", or "advantage", which subtracts V(s).
        discount: of future rewards, in [0, 1).
        tau: fraction by which the target critics follow.
        hidden_sizes: widths of the hidden layers of all networks.
        activation: between them, "relu" or "gelu" (OGBench's single-task settings).
        layer_norm: normalise hidden layers of value function and critics, as in those settings.
        normalize: see ``OfflineAgent``.
        **common: see ``ChainAgent`` and ``OfflineAgent``.

    Raises:
        UserError: an expectile outside (0, 1); see also ``ChainAgent``.
    """

    name = "iql"
    finetunes: ClassVar[bool] = True
    exploration_noise: ClassVar[float] = 0.03  # published, of deterministic policies

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        expectile: float = 0.7,
        beta: float = 3.0,
        max_weight: float = 100.0,
        policy_type: Literal["gaussian", "deterministic"] = "gaussian",
        actor_schedule: Literal["cosine", "constant"] = "cosine",
        energy: Literal["q", "advantage"] = "q",
        discount: float = 0.99,
        tau: float = 0.005,
        hidden_sizes: tuple[int, ...] = (256, 256),
        activation: Activation = "relu",
        layer_norm: bool = False,
        normalize: bool = True,
        **common: Any,
    ) -> None:
        self.expectile = check_expectile(expectile)
        self.beta, self.max_weight = beta, max_weight
        self.policy_type, self.actor_schedule, self.energy = policy_type, actor_schedule, energy
        self.discount, self.tau, self.hidden_sizes = discount, tau, tuple(hidden_sizes)
        self.activation, self.layer_norm = activation, layer_norm
        super().__init__(env, dataset, normalize=normalize, **common)

    def build(self) -> None:
        """Make the value function, the twin critic with its target, and the actors."""
        sizes = (self.input_dim, self.action_dim, self.hidden_sizes)
        values: Any = {"activation": self.activation, "layer_norm": self.layer_norm}
        self.value = self.add_network(
            "value", lambda: MLP(self.input_dim, 1, self.hidden_sizes, **values)
        )
        self.critic = self.add_network("critic", lambda: StackedCritic(*sizes, **values))
        self.critic_target = self.add_target("critic_target", self.critic)
        if self.policy_type == "deterministic":
            make: Any = lambda: DeterministicPolicy(*sizes, self.activation)  # noqa: E731
        else:
            make = lambda: GaussianPolicy(  # noqa: E731
                *sizes, squash_mean=True, activation=self.activation
            )
        self.actor = self.add_network("actor_0", make)
        rate = None
        if self.actor_schedule == "cosine" and not callable(self.learning_rate):
            rate = f"cos_{self.learning_rate}"
        self.value_optimizer = self.add_optimizer("value", self.value)
        self.critic_optimizer = self.add_optimizer("critic", self.critic)
        self.actor_optimizer = self.add_optimizer("actor_0", self.actor, rate=rate)
        self.add_chain(self.actor)

    def update(self, batch: Batch) -> Metrics:
        """Take the steps of V, Q, its target, actor 0 and the chain, in this order."""
        here = self.join(batch.observations, batch.goals)
        asked = self.join(batch.observations, batch.actor_goals)
        value = self._value(here)
        with torch.no_grad():
            next_value = self._value(self.join(batch.next_observations, batch.goals))
            target_q = self.critic_target(here, batch.actions).amin(0)
            advantage = target_q - value
            if self.policy.goal_dim:
                advantage = self.critic_target(asked, batch.actions).amin(0) - self._value(asked)
        metrics = self._update_value(value, target_q)
        metrics |= self._update_critic(here, next_value, batch)
        soft_update(self.critic_target, self.critic, self.tau)
        metrics |= self._update_actor(asked, advantage, batch)
        return metrics | self.update_chain(batch, asked)

    def _value(self, inputs: Tensor) -> Tensor:
        return self.value(inputs).squeeze(-1)  # type: ignore[no-any-return]

    def _update_value(self, value: Tensor, target_q: Tensor) -> Metrics:
        loss = expectile_loss(target_q - value, self.expectile)
        minimize(self.value_optimizer, loss)
        return {"value_loss": loss.detach(), "value": value.detach().mean()}

    def _update_critic(self, here: Tensor, next_value: Tensor, batch: Batch) -> Metrics:
        target = td_target(batch.rewards, batch.terminated, next_value, self.discount)
        q = self.critic(here, batch.actions)
        loss = twin_loss(q, target) / 2
        minimize(self.critic_optimizer, loss)
        return {"critic_loss": loss.detach(), "q": q.detach().mean()}

    def _update_actor(self, asked: Tensor, advantage: Tensor, batch: Batch) -> Metrics:
        weight = (self.beta * advantage).exp().clamp_max(self.max_weight)
        if isinstance(self.actor, GaussianPolicy):
            cost = -self.actor.log_prob(asked, batch.actions)
        else:
            cost = (self.actor.mode(asked) - batch.actions).square().sum(-1)
        loss = (weight * cost).mean()
        minimize(self.actor_optimizer, loss)
        return {
            "actor_0/loss": loss.detach(),
            "actor_0/weight": weight.mean(),
            "advantage": advantage.mean(),
        }

    def energy_of(
        self, policy: ContinuousPolicy, inputs: Tensor, noise: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return -min Q', or -(min Q' - V) with ``energy="advantage"``, of the policy's action."""
        q = self.critic_target(inputs, policy.sample(inputs, noise)).amin(0)
        if self.energy == "q":
            return -q, q
        with torch.no_grad():
            value = self._value(inputs)
        return value - q, q - value
