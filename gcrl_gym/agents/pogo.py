"""POGO: policy optimisation as a gradient flow, a chain of actors that each take one JKO step.

Each actor is a transport map a = T_i(s, g, z), z ~ N(0, I). Actor 0 stays close to the data's
actions, actor i >= 1 close to actor i - 1; the critic learns from actor 0 alone.

    critic   L(Q)   = sum_j E[(Q_j(s, a, g) - y)^2],
             y      = r + discount * (1 - terminated) * min_j Q'_j(s', T_0(s', g, z) + noise, g)
    actor 0  L(T_0) = -lambda * E[Q_1(s, T_0, g)] + w_0 * E[||T_0(s, g, z) - a||^2]
    actor i  L(T_i) = -lambda * E[Q_1(s, T_i, g)] + w_i * W2^2(T_i, stop_gradient(T_{i-1}))
             lambda = 1 / mean |Q_1|

Source: POGO (github.com/seonvin0319/POGO, README of January 2026). Distances are squared W2, summed
over action dimensions: the source's weight 0.2 is 0.2 / |A| for actor 0 (it averages over
dimensions) and 0.2 / 2 for the others (its library returns half of W2^2). Deviations: the target
takes the noised action only (the source's code takes the minimum of the clean and the noised
action, its README neither); actors have no target copies beyond the one that ``td_actor="target"``
needs; goals are relabelled in hindsight where the data has goals.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gcrl_gym.agents.base import OfflineAgent
from gcrl_gym.agents.inputs import whole_number
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch, GoalSampler
from gcrl_gym.networks import ContinuousPolicy, StackedCritic, TransportMap
from gcrl_gym.networks.steps import minimize, soft_update
from gcrl_gym.transport import jko
from gcrl_gym.transport.wasserstein import check_exact, check_sinkhorn, squared_l2


class POGO(OfflineAgent):
    """JKO chain of transport-map actors over one twin critic; continuous actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        w2_weights: one weight per actor: of the squared L2 distance to the data for actor 0, of the
            squared W2 distance to the previous actor for the others.
        w2: "sinkhorn" (debiased, as published) or "exact" (optimal assignment, K <= 6, faster).
        w2_noise: "independent" noise for the two actors compared (as published; biased at small K,
            it shrinks their spread), or "shared" (no bias at equality, an upper bound).
        K: actions sampled per state for the W2 distance.
        blur: of the Sinkhorn distance, in units of actions scaled to [-1, 1].
        backend: of the Sinkhorn distance; "online" needs pykeops.
        td_actor: actor 0 acts in the critic's target as it is ("online") or as its moving average
            ("target").
        normalize_q: divide Q by its mean magnitude in the actors' losses.
        discount: of future rewards, in [0, 1).
        tau: fraction by which targets follow per actor step.
        policy_noise: standard deviation of the noise on target actions scaled to [-1, 1].
        noise_clip: largest magnitude of that noise.
        policy_freq: critic updates per actor update.
        hidden_sizes: widths of the hidden layers of actors and critics.
        normalize: see ``OfflineAgent``.
        **common: see ``OfflineAgent``.
    """

    name = "pogo"
    finetunes: ClassVar[bool] = True
    sampler = GoalSampler(value=(0.2, 0.5, 0.3), actor=(0.0, 1.0, 0.0))
    needs_rewards = True

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        w2_weights: tuple[float, ...] = (0.1, 0.1, 0.1),
        w2: jko.W2Kind = "sinkhorn",
        w2_noise: Literal["independent", "shared"] = "independent",
        K: int = 4,
        blur: float = 0.05,
        backend: jko.Backend = "tensorized",
        td_actor: Literal["online", "target"] = "online",
        normalize_q: bool = True,
        discount: float = 0.99,
        tau: float = 0.005,
        policy_noise: float = 0.2,
        noise_clip: float = 0.5,
        policy_freq: int = 1,
        hidden_sizes: tuple[int, ...] = (256, 256),
        normalize: bool = True,
        **common: Any,
    ) -> None:
        self.w2_weights = jko.check_weights(w2_weights, least=1)
        self.w2, self.w2_noise, self.blur, self.backend = w2, w2_noise, blur, backend
        self.K = whole_number(K, "K")
        self.td_actor, self.normalize_q, self.discount, self.tau = (
            td_actor,
            normalize_q,
            discount,
            tau,
        )
        self.policy_noise, self.noise_clip, self.policy_freq = policy_noise, noise_clip, policy_freq
        self.hidden_sizes = tuple(hidden_sizes)
        if w2 == "exact":
            check_exact(K)
        else:
            check_sinkhorn(blur, backend)
        super().__init__(env, dataset, normalize=normalize, **common)

    def build(self) -> None:
        """Make the twin critic, its target and the chain of actors."""
        sizes = (self.input_dim, self.action_dim, self.hidden_sizes)
        self.critic = self.add_network("critic", lambda: StackedCritic(*sizes))
        self.critic_target = self.add_target("critic_target", self.critic)
        self.critic_optimizer = self.add_optimizer("critic", self.critic)
        self.actor = self.add_network("actor_0", lambda: TransportMap(*sizes))
        self.actor_optimizer = self.add_optimizer("actor_0", self.actor)
        # As in the source, later actors start anywhere, not as copies of actor 0.
        self.chain = jko.Chain(
            self, self.actor, self.w2_weights[1:], make=lambda: TransportMap(*sizes), w2=self.w2,
            w2_noise=self.w2_noise, K=self.K, blur=self.blur, backend=self.backend,
            normalize_energy=self.normalize_q,
        )  # fmt: skip
        self.actors = self.chain.actors
        self.bootstrap_actor = self.actor
        if self.td_actor == "target":
            self.bootstrap_actor = self.add_target("actor_0_target", self.actor)

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return shapes of the target's noise, of actor 0's z, and of the chain's."""
        one = (batch_size, self.action_dim)
        own = {"target_z": one, "target_noise": one, "actor_0": one}
        return own | self.chain.noise_shapes(batch_size)

    def update(self, batch: Batch) -> Metrics:
        """Update the critic, then every ``policy_freq`` updates the actors in order and targets."""
        metrics = self._update_critic(batch)
        if (self._n_updates + 1) % self.policy_freq == 0:
            inputs = torch.cat([batch.observations, batch.actor_goals], dim=-1)
            metrics |= self._update_first_actor(inputs, batch)
            metrics |= self.chain.update(inputs, self._energy, batch.noise)
            soft_update(self.critic_target, self.critic, self.tau)
            if self.td_actor == "target":
                soft_update(self.bootstrap_actor, self.actor, self.tau)
        return metrics

    def _update_critic(self, batch: Batch) -> Metrics:
        with torch.no_grad():
            inputs = torch.cat([batch.next_observations, batch.goals], dim=-1)
            noise = (self.policy_noise * batch.noise["target_noise"]).clamp(
                -self.noise_clip, self.noise_clip
            )
            actions = self.bootstrap_actor(inputs, batch.noise["target_z"]) + noise
            next_q = self.critic_target(inputs, actions.clamp(-1.0, 1.0)).amin(0)  # [B]
            target = batch.rewards + self.discount * (1.0 - batch.terminated) * next_q
        q = self.critic(torch.cat([batch.observations, batch.goals], dim=-1), batch.actions)
        loss = (q - target).square().mean(1).sum()  # q: [2, B]
        minimize(self.critic_optimizer, loss)
        return {"critic_loss": loss.detach(), "q": q.detach().mean(), "target_q": target.mean()}

    def _update_first_actor(self, inputs: Tensor, batch: Batch) -> Metrics:
        actions = self.actor(inputs, batch.noise["actor_0"])
        energy, scale = jko.q_energy(self.critic.first(inputs, actions), self.normalize_q)
        distance = squared_l2(actions, batch.actions)
        minimize(self.actor_optimizer, energy + self.w2_weights[0] * distance)
        return {
            "actor_0/energy": energy.detach(),
            "actor_0/l2": distance.detach(),
            "actor_0/lambda": scale,
        }

    def _energy(self, policy: ContinuousPolicy, inputs: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        q = self.critic.first(inputs, policy.sample(inputs, z))
        return -q, q

    def act(self, inputs: Tensor, deterministic: bool, actor: int) -> Tensor:
        """Return the actor's action at z = 0, or at a sampled z."""
        shape = (len(inputs), self.action_dim)
        noise = inputs.new_zeros(shape) if deterministic else self.generators.randn("act", *shape)
        return self.actors[actor].sample(inputs, noise)
