"""TD3+BC: TD3 whose policy is also pulled to the data's actions, at a scale free of the rewards'.

Fujimoto and Gu, "A Minimalist Approach to Offline Reinforcement Learning" (2021); settings and
order of the steps as in CORL (github.com/tinkoff-ai/CORL, td3_bc.py).

    critic  L(Q)    = sum_j E[(Q_j(s, a) - y)^2],  y = r + discount * (1 - terminated) * min_j Q'_j,
            Q'_j at (s', clip(pi'(s') + e)),  e = clip(policy_noise * N(0, I), +-noise_clip)
    actor 0 L(pi)   = -lambda * E[Q_1(s, pi(s))] + 1/|A| * E[||pi(s) - a||^2],
            lambda  = alpha / mean |Q_1|, without gradient
    chain   E(pi_i) = -E[Q_1(s, pi_i(s))]

The critic learns on every update; the actors, and after actor 0 all targets, on every
``policy_freq``-th, the first of them being the ``policy_freq``-th update. Without goals there is no
deviation from CORL. With goals the policy is asked for goals of its own (``actor_goals``).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from gcrl_gym.agents.chained import ChainAgent
from gcrl_gym.agents.inputs import not_negative, whole_number
from gcrl_gym.agents.losses import smoothed_actions, td_target, twin_loss
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.networks import ContinuousPolicy, DeterministicPolicy, StackedCritic
from gcrl_gym.networks.steps import minimize, soft_update
from gcrl_gym.transport import jko


class TD3BC(ChainAgent):
    """TD3+BC with an optional chain of JKO actors; continuous actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        alpha: weight of the normalised action values against imitation; 0 only imitates.
        policy_noise: standard deviation of the noise on target actions scaled to [-1, 1].
        noise_clip: largest magnitude of that noise.
        policy_freq: critic updates per update of actors and targets.
        discount: of future rewards, in [0, 1).
        tau: fraction by which targets follow per actor step.
        hidden_sizes: widths of the hidden layers of all networks.
        normalize: see ``OfflineAgent``.
        **common: see ``ChainAgent`` and ``OfflineAgent``.

    Raises:
        UserError: a negative ``alpha`` or noise, ``policy_freq`` below 1; see also ``ChainAgent``.
    """

    name = "td3_bc"
    finetunes: ClassVar[bool] = True

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        alpha: float = 2.5,
        policy_noise: float = 0.2,
        noise_clip: float = 0.5,
        policy_freq: int = 2,
        discount: float = 0.99,
        tau: float = 0.005,
        hidden_sizes: tuple[int, ...] = (256, 256),
        normalize: bool = True,
        **common: Any,
    ) -> None:
        not_negative(alpha=alpha, policy_noise=policy_noise, noise_clip=noise_clip)
        self.alpha, self.policy_noise, self.noise_clip = alpha, policy_noise, noise_clip
        self.policy_freq = whole_number(policy_freq, "policy_freq")
        self.discount, self.tau, self.hidden_sizes = discount, tau, tuple(hidden_sizes)
        super().__init__(env, dataset, normalize=normalize, **common)

    def build(self) -> None:
        """Make the twin critic and actor 0, with their targets, and the chain."""
        sizes = (self.input_dim, self.action_dim, self.hidden_sizes)
        self.critic = self.add_network("critic", lambda: StackedCritic(*sizes))
        self.critic_target = self.add_target("critic_target", self.critic)
        self.actor = self.add_network("actor_0", lambda: DeterministicPolicy(*sizes))
        self.actor_target = self.add_target("actor_0_target", self.actor)
        self.critic_optimizer = self.add_optimizer("critic", self.critic)
        self.actor_optimizer = self.add_optimizer("actor_0", self.actor)
        self.add_chain(self.actor)

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the target's noise and of the chain's."""
        return {"target_noise": (batch_size, self.action_dim)} | super().noise_shapes(batch_size)

    def update(self, batch: Batch) -> Metrics:
        """Step the critic, and on every ``policy_freq``-th update actor 0, targets and chain."""
        metrics = self._update_critic(self.join(batch.observations, batch.goals), batch)
        if (self._n_updates + 1) % self.policy_freq == 0:
            asked = self.join(batch.observations, batch.actor_goals)
            metrics |= self._update_actor(asked, batch)
            soft_update(self.critic_target, self.critic, self.tau)
            soft_update(self.actor_target, self.actor, self.tau)
            metrics |= self.update_chain(batch, asked)
        return metrics

    def _update_critic(self, here: Tensor, batch: Batch) -> Metrics:
        with torch.no_grad():
            there = self.join(batch.next_observations, batch.goals)
            next_actions = smoothed_actions(
                self.actor_target.mode(there),
                batch.noise["target_noise"],
                self.policy_noise,
                self.noise_clip,
            )
            next_q = self.critic_target(there, next_actions).amin(0)
            target = td_target(batch.rewards, batch.terminated, next_q, self.discount)
        q = self.critic(here, batch.actions)
        loss = twin_loss(q, target)
        minimize(self.critic_optimizer, loss)
        return {"critic_loss": loss.detach(), "q": q.detach().mean(), "target_q": target.mean()}

    def _update_actor(self, asked: Tensor, batch: Batch) -> Metrics:
        actions = self.actor.mode(asked)
        energy, scale = jko.q_energy(self.critic.first(asked, actions), normalize=True)
        imitation = (actions - batch.actions).square().mean()  # over the batch and dimensions
        loss = self.alpha * energy + imitation
        minimize(self.actor_optimizer, loss)
        return {
            "actor_0/loss": loss.detach(),
            "actor_0/imitation": imitation.detach(),
            "actor_0/lambda": self.alpha * scale,
        }

    def energy_of(
        self, policy: ContinuousPolicy, inputs: Tensor, noise: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return -Q_1 of the policy's action, and Q_1."""
        q = self.critic.first(inputs, policy.sample(inputs, noise))
        return -q, q
