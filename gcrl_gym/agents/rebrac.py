"""ReBRAC: TD3+BC with deeper networks, layer norm and separate penalties for actor and critic.

Tarasov, Kurenkov, Nikulin and Kolesnikov, "Revisiting the Minimalist Approach to Offline
Reinforcement Learning" (2023); settings and order of the steps as in CORL (rebrac.py).

    critic  L(Q)    = sum_j E[(Q_j(s, a) - y)^2],
            y       = r + discount * (1 - terminated) * (min_j Q'_j(s', b) - critic_bc |b - a'|^2),
            b       = clip(pi'(s') + clip(policy_noise * N(0, I), +-noise_clip)), a' the data's next
    actor 0 L(pi)   = actor_bc * E[|pi(s) - a|^2] - lambda * E[min_j Q_j(s, pi(s))],
            lambda  = 1 / mean |min_j Q_j|, without gradient
    chain   E(pi_i) = -E[min_j Q_j(s, pi_i(s))]

Squared norms are sums over dimensions (TD3+BC's is a mean). The critic learns on every update; the
actors, and with them the targets, on the first of every ``policy_freq``: pi' follows pi as it was
before its step, Q' follows Q as it is after.

This is a PyTorch port: the authors, CORL and the source of the chain (PORL) run ReBRAC in JAX.
Random numbers differ. A transition without a next action of its own episode is drawn only where it
terminated (CORL then takes the next episode's action, which is masked as here). The energy is that
of PORL's version of 9 February; its last one gives actors i >= 1 all of actor 0's loss, steps
actors on every update and penalises the critic by ``actor_bc``. Chains of stochastic actors are
compared by geomloss's debiased Sinkhorn distance and judged at samples, where PORL takes another
library's biased one and z = 0. OGBench's published numbers come from FQL's code, which takes both
steps, and moves both targets, from the weights before them, averages over critics and starts from
Xavier weights (last layer of the actor scaled by 0.01); only its hyperparameters are presets here.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from gcrl_gym.agents.chained import ChainAgent
from gcrl_gym.agents.inputs import not_negative, whole_number
from gcrl_gym.agents.losses import smoothed_actions, td_target, twin_loss
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch, GoalSampler
from gcrl_gym.errors import UserError
from gcrl_gym.networks import ContinuousPolicy, DeterministicPolicy, StackedCritic
from gcrl_gym.networks.mlp import Activation
from gcrl_gym.networks.steps import minimize, soft_update
from gcrl_gym.transport import jko


class ReBRAC(ChainAgent):
    """ReBRAC with an optional chain of JKO actors; continuous actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        actor_bc: weight of the squared distance of actor 0 to the data's action.
        critic_bc: weight of that of the target action to the data's next action.
        actor_learning_rate: of actor 0 and the chain; None is ``learning_rate``.
        critic_learning_rate: of the critic; None is ``learning_rate``.
        policy_noise: standard deviation of the noise on target actions scaled to [-1, 1].
        noise_clip: largest magnitude of that noise.
        policy_freq: critic updates per update of actors and targets.
        critic_layer_norm: normalise the critics' hidden layers, after their activation.
        activation: of all networks: "relu", or "gelu" as on OGBench.
        discount: of future rewards, in [0, 1).
        tau: fraction by which targets follow per actor step.
        hidden_sizes: widths of the hidden layers of all networks.
        learning_rate: see ``OfflineAgent``.
        batch_size: see ``OfflineAgent``.
        normalize: see ``OfflineAgent``.
        **common: see ``ChainAgent`` and ``OfflineAgent``.

    Raises:
        UserError: a negative penalty or noise, a learning rate that is not positive,
            ``policy_freq`` below 1; see also ``ChainAgent``.
    """

    name = "rebrac"
    finetunes: ClassVar[bool] = True
    exploration_noise: ClassVar[float] = 0.03  # published, of deterministic policies
    sampler = GoalSampler(value=(0.2, 0.5, 0.3), actor=(0.0, 1.0, 0.0), next_actions=True)
    needs_next_actions: ClassVar[bool] = True

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        actor_bc: float = 0.01,
        critic_bc: float = 0.01,
        actor_learning_rate: float | None = None,
        critic_learning_rate: float | None = None,
        policy_noise: float = 0.2,
        noise_clip: float = 0.5,
        policy_freq: int = 2,
        critic_layer_norm: bool = True,
        activation: Activation = "relu",
        discount: float = 0.99,
        tau: float = 0.005,
        hidden_sizes: tuple[int, ...] = (256, 256, 256),
        learning_rate: float | str | Schedule = 1e-3,
        batch_size: int = 1024,
        normalize: bool = False,
        **common: Any,
    ) -> None:
        not_negative(
            actor_bc=actor_bc, critic_bc=critic_bc, policy_noise=policy_noise, noise_clip=noise_clip
        )
        for name, rate in (
            ("actor_learning_rate", actor_learning_rate),
            ("critic_learning_rate", critic_learning_rate),
        ):
            if rate is not None and not (isinstance(rate, (int, float)) and rate > 0.0):
                raise UserError(f"{name} is {rate!r}; give a number > 0, or None.")
        self.actor_bc, self.critic_bc = actor_bc, critic_bc
        self.actor_learning_rate = actor_learning_rate
        self.critic_learning_rate = critic_learning_rate
        self.policy_noise, self.noise_clip = policy_noise, noise_clip
        self.policy_freq = whole_number(policy_freq, "policy_freq")
        self.critic_layer_norm, self.activation = critic_layer_norm, activation
        self.discount, self.tau, self.hidden_sizes = discount, tau, tuple(hidden_sizes)
        common |= {"learning_rate": learning_rate, "batch_size": batch_size}
        super().__init__(env, dataset, normalize=normalize, **common)

    def build(self) -> None:
        """Make the twin critic and actor 0, with their targets, and the chain."""
        self.critic = self.add_network("critic", self._make_critic)
        self.critic_target = self.add_target("critic_target", self.critic)
        self.actor = self.add_network("actor_0", self._make_actor)
        self.actor_target = self.add_target("actor_0_target", self.actor)
        self.critic_optimizer = self.add_optimizer(
            "critic", self.critic, rate=self.critic_learning_rate
        )
        self.actor_optimizer = self.add_optimizer(
            "actor_0", self.actor, rate=self.actor_learning_rate
        )
        self.add_chain(self.actor, actor_rate=self.actor_learning_rate)

    def _make_critic(self) -> StackedCritic:
        return StackedCritic(
            self.input_dim,
            self.action_dim,
            self.hidden_sizes,
            activation=self.activation,
            layer_norm=self.critic_layer_norm,
            init="small_critic",
        )

    def _make_actor(self) -> DeterministicPolicy:
        sizes = (self.input_dim, self.action_dim, self.hidden_sizes)
        return DeterministicPolicy(*sizes, self.activation, init="small_actor")

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the target's noise and of the chain's."""
        return {"target_noise": (batch_size, self.action_dim)} | super().noise_shapes(batch_size)

    def update(self, batch: Batch) -> Metrics:
        """Step the critic, and on one update of ``policy_freq`` targets, actor 0 and the chain."""
        metrics = self._update_critic(self.join(batch.observations, batch.goals), batch)
        if self._n_updates % self.policy_freq == 0:
            asked = self.join(batch.observations, batch.actor_goals)
            soft_update(self.critic_target, self.critic, self.tau)
            soft_update(self.actor_target, self.actor, self.tau)  # before actor 0's step
            metrics |= self._update_actor(asked, batch)
            metrics |= self.update_chain(batch, asked)
        return metrics

    def _update_critic(self, here: Tensor, batch: Batch) -> Metrics:
        assert batch.next_actions is not None, "the dataset's sampler was checked"
        with torch.no_grad():
            there = self.join(batch.next_observations, batch.goals)
            next_actions = smoothed_actions(
                self.actor_target.mode(there),
                batch.noise["target_noise"],
                self.policy_noise,
                self.noise_clip,
            )
            penalty = (next_actions - batch.next_actions).square().sum(-1)
            next_q = self.critic_target(there, next_actions).amin(0)
            next_value = next_q.sub(penalty, alpha=self.critic_bc)
            target = td_target(batch.rewards, batch.terminated, next_value, self.discount)
        q = self.critic(here, batch.actions)
        loss = twin_loss(q, target)
        minimize(self.critic_optimizer, loss)
        return {
            "critic_loss": loss.detach(),
            "q": q.detach().mean(),
            "target_q": target.mean(),
            "critic_penalty": penalty.mean(),
        }

    def _update_actor(self, asked: Tensor, batch: Batch) -> Metrics:
        actions = self.actor.mode(asked)
        q = self.critic(asked, actions).amin(0)
        energy, scale = jko.q_energy(q, normalize=True)
        penalty = (actions - batch.actions).square().sum(-1).mean()
        loss = self.actor_bc * penalty + energy
        minimize(self.actor_optimizer, loss)
        return {
            "actor_0/loss": loss.detach(),
            "actor_0/penalty": penalty.detach(),
            "actor_0/lambda": scale,
        }

    def energy_of(
        self, policy: ContinuousPolicy, inputs: Tensor, noise: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return -min Q of the policy's action, and min Q."""
        q = self.critic(inputs, policy.sample(inputs, noise)).amin(0)
        return -q, q
