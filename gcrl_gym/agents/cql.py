"""Conservative Q-learning: SAC whose critics are pushed down on actions that are not the data's.

Kumar, Zhou, Tucker and Levine, "Conservative Q-Learning for Offline Reinforcement Learning" (2020);
settings and order of the steps as in CORL (github.com/tinkoff-ai/CORL, cql.py).

    alpha   L(alpha) = -log alpha * E[ log pi_0(b | s) + target entropy ],  b ~ pi_0(s)
    actor 0 L(pi) = E[ alpha * log pi(b | s) - min_j Q_j(s, b) ];
                    in the first ``bc_steps`` updates E[ alpha * log pi(b | s) - log pi(a | s) ]
    Q       L(Q)  = sum_j E[ (Q_j(s, a) - r - discount * (1 - terminated) * y)^2 ]
                    + cql_alpha * sum_j G_j,   y = min_j Q'_j(s', c), or its maximum over 10 c
            G_j   = E[ max(T * logsumexp_k((Q_j(s, a_k) - log p_k) / T) - Q_j(s, a), min_gap) ]
                    a_k: 10 uniform, 10 of pi_0(s) and 10 of pi_0(s'), of density p_k each
    with Lagrange: m * (G_j - target_gap) instead of G_j, log m stepped up its gradient
    chain   E(pi_i) = actor 0's loss, with actor 0's alpha

The published order is m, alpha, actor 0, Q; each loss is one of the weights before any of these
steps. The a_k have no gradient. Without importance sampling log p_k is left out, and the data's a
is a term of the sum as well. Deviations from CORL: its log pi(a | s) scores a fresh sample in place
of the data's action; its antmaze critics have five and three hidden layers, because a script drops
an argument, where ours are alike. Goals: actor 0 and alpha see the policy's, Q and G the critics'.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gcrl_gym.agents.chained import ChainAgent
from gcrl_gym.agents.inputs import not_negative, whole_number
from gcrl_gym.agents.losses import td_target
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.agents.schedules import resolve_learning_rate
from gcrl_gym.agents.temperature import Temperature, temperature_loss
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.errors import UserError
from gcrl_gym.networks import ContinuousPolicy, GaussianPolicy, StackedCritic, TanhGaussianPolicy
from gcrl_gym.networks.steps import minimize, soft_update

_WITHOUT_DENSITY = ("deterministic", "transport_map")
_STATES = 64  # in one pass through Q: with 31 actions, 2 critics and 256 units, 4 MB a layer


class CQL(ChainAgent):
    """Conservative Q-learning with an optional chain of JKO actors; continuous actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        cql_alpha: weight of the conservative term G; 5 for antmaze.
        num_actions: samples of each of the three kinds in G, and of ``max_target_backup``.
        importance_sampling: subtract the log densities of the samples in G.
        temperature: T of G.
        lagrange: learn a multiplier m of G that holds G at ``target_gap``.
        target_gap: what ``lagrange`` holds G at.
        max_target_backup: the target takes the best of ``num_actions`` actions.
        backup_entropy: the target subtracts alpha * log pi.
        min_gap: what the difference of each state in G is cut off at from below; -200 for antmaze.
        bc_steps: number of updates in which actor 0 and the chain imitate the data.
        policy_learning_rate: of actor 0, alpha and the chain.
        target_entropy: of actor 0; None is minus the number of action dimensions.
        discount: of future rewards, in [0, 1).
        tau: fraction by which the target critics follow.
        hidden_sizes: widths of the hidden layers of actors and critics.
        normalize: see ``OfflineAgent``.
        **common: see ``ChainAgent`` and ``OfflineAgent``; ``chain_policy`` without densities
            ("deterministic", "transport_map") counts log pi as 0 and cannot imitate.

    Raises:
        UserError: numbers out of range, or ``bc_steps`` with a chain policy without density; see
            also ``ChainAgent``.
    """

    name = "cql"

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        cql_alpha: float = 10.0,
        num_actions: int = 10,
        importance_sampling: bool = True,
        temperature: float = 1.0,
        lagrange: bool = False,
        target_gap: float = 0.8,
        max_target_backup: bool = False,
        backup_entropy: bool = False,
        min_gap: float | None = None,
        bc_steps: int = 0,
        policy_learning_rate: float = 3e-5,
        target_entropy: float | None = None,
        discount: float = 0.99,
        tau: float = 0.005,
        hidden_sizes: tuple[int, ...] = (256, 256, 256),
        normalize: bool = True,
        **common: Any,
    ) -> None:
        not_negative(cql_alpha=cql_alpha)
        if not 0.0 < temperature < float("inf"):
            raise UserError(f"temperature is {temperature}; it must be a number > 0, such as 1.0.")
        if not (bc_steps >= 0 and bc_steps == int(bc_steps)):
            raise UserError(f"bc_steps is {bc_steps}; give a whole number of at least 0.")
        resolve_learning_rate(policy_learning_rate, "policy_learning_rate")
        self.cql_alpha, self.num_actions = cql_alpha, whole_number(num_actions, "num_actions")
        self.importance_sampling, self.temperature = importance_sampling, temperature
        self.lagrange, self.target_gap, self.min_gap = lagrange, target_gap, min_gap
        self.max_target_backup, self.backup_entropy = max_target_backup, backup_entropy
        self.bc_steps, self.target_entropy = int(bc_steps), target_entropy
        self.policy_learning_rate = policy_learning_rate
        self.discount, self.tau, self.hidden_sizes = discount, tau, tuple(hidden_sizes)
        super().__init__(env, dataset, normalize=normalize, **common)

    def build(self) -> None:
        """Make the twin critic with its target, alpha, the multiplier and the actors."""
        if self.bc_steps and self.w2_weights and self.chain_policy in _WITHOUT_DENSITY:
            raise UserError(
                f"bc_steps is {self.bc_steps}, but chain_policy {self.chain_policy!r} has no "
                "density to imitate with; choose 'same', 'gaussian' or 'tanh_gaussian', or "
                "bc_steps=0."
            )
        sizes = (self.input_dim, self.action_dim, self.hidden_sizes)
        rate, wanted = self.policy_learning_rate, self.target_entropy
        self.critic = self.add_network("critic", lambda: StackedCritic(*sizes, init="orthogonal"))
        self.critic_target = self.add_target("critic_target", self.critic)
        self.actor = self.add_network("actor_0", lambda: _policy(*sizes))
        self.alpha = self.add_network("alpha", Temperature)
        self.critic_optimizer = self.add_optimizer("critic", self.critic)
        self.actor_optimizer = self.add_optimizer("actor_0", self.actor, rate=rate)
        self.alpha_optimizer = self.add_optimizer("alpha", self.alpha, rate=rate)
        if self.lagrange:
            self.multiplier = self.add_network("multiplier", lambda: Temperature(math.e))
            self.multiplier_optimizer = self.add_optimizer("multiplier", self.multiplier)
        self.wanted_entropy = -self.action_dim if wanted is None else wanted
        self.add_chain(self.actor, rate)

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the noise of b, of a_k ("random", "current", "following"), of c."""
        one = (batch_size, self.action_dim)
        several = (batch_size, self.num_actions, self.action_dim)
        target = several if self.max_target_backup else (batch_size, 1, self.action_dim)
        kinds = {"random": several, "current": several, "following": several}
        return {"actor": one, "next": target} | kinds | super().noise_shapes(batch_size)

    def update(self, batch: Batch) -> Metrics:
        """Step actor 0, alpha, Q and m on losses of the weights before; then the target and chain.

        Samples of actor 0 for Q's loss are drawn before it steps, and it steps before Q does.
        """
        asked = self.join(batch.observations, batch.actor_goals)
        alpha = self.alpha().detach()
        samples = self._samples(alpha, batch)
        metrics = self._update_actor(asked, alpha, batch)
        metrics |= self._update_critic(samples)
        soft_update(self.critic_target, self.critic, self.tau)
        return metrics | self.update_chain(batch, asked)

    @torch.no_grad()
    def _samples(self, alpha: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return s [B, D], actions a and a_k [B, 1 + 3N, A], log p_k [B, 3N] and Q's target [B]."""
        here = self.join(batch.observations, batch.goals)
        there = self.join(batch.next_observations, batch.goals)
        # One row per state however many samples of it: they share their mean and scale.
        count, noise, sample = self.num_actions, batch.noise, self.actor.sample_with_log_prob
        random = 2.0 * torch.special.ndtr(noise["random"]) - 1.0
        current, density = sample(here.unsqueeze(1), noise["current"])
        both = torch.cat([noise["following"], noise["next"]], dim=1)
        following, next_density = sample(there.unsqueeze(1), both)
        next_q, best = _values(self.critic_target, there, following[:, count:]).amin(0).max(1)
        if self.backup_entropy:
            log_prob = next_density[:, count:].gather(1, best.unsqueeze(1)).squeeze(1)
            next_q = next_q - alpha * log_prob
        actions = [batch.actions.unsqueeze(1), random, current, following[:, :count]]
        uniform = torch.full_like(density, -self.action_dim * math.log(2.0))
        target = td_target(batch.rewards, batch.terminated, next_q, self.discount)
        densities = torch.cat([uniform, density, next_density[:, :count]], dim=1)
        return here, torch.cat(actions, dim=1), densities, target

    def _update_actor(self, asked: Tensor, alpha: Tensor, batch: Batch) -> Metrics:
        actions, log_prob = self.actor.sample_with_log_prob(asked, batch.noise["actor"])
        if self._n_updates < self.bc_steps:
            value = self.actor.log_prob(asked, batch.actions)
        else:
            value = self.critic(asked, actions).amin(0)
        loss = (alpha * log_prob - value).mean()
        minimize(self.actor_optimizer, loss)
        # A compiled update cannot go back twice through what it built before the first step.
        alpha_loss = temperature_loss(self.alpha.log_alpha, log_prob, self.wanted_entropy)
        minimize(self.alpha_optimizer, alpha_loss)
        entropy = -log_prob.detach().mean()
        return {"actor_0/loss": loss.detach(), "actor_0/entropy": entropy, "alpha": alpha}

    def _update_critic(self, samples: tuple[Tensor, ...]) -> Metrics:
        """Step Q and m. The gradients of parts of the batch add up to the gradient of the whole."""
        weight: Tensor | float = self.cql_alpha
        if self.lagrange:
            weight = weight * self._multiplier().detach()
        parameters, batch = self.critic_optimizer.param_groups[0]["params"], len(samples[0])
        size = batch if self.device.type == "cuda" else _STATES
        self.critic_optimizer.zero_grad(set_to_none=True)
        found = []
        for part in zip(*(torch.split(tensor, size) for tensor in samples), strict=True):
            td_loss, gap, q = self._critic_terms(*part)
            loss = (td_loss + weight * gap) / batch
            loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
            found.append(torch.stack([td_loss.detach(), gap.detach(), q.detach()]))
        self.critic_optimizer.step()
        td_loss, gap, q = torch.stack(found).sum(0) / batch
        metrics = {"td_loss": td_loss, "gap": gap / 2, "q": q / 2}
        if self.lagrange:
            gap = gap - 2 * self.target_gap
            multiplier = self._multiplier()
            minimize(self.multiplier_optimizer, -multiplier * self.cql_alpha * gap / 2)
            metrics["multiplier"] = multiplier.detach()
        return metrics | {"critic_loss": td_loss + weight * gap}

    def _multiplier(self) -> Tensor:
        return self.multiplier().clamp_max(1e6)  # type: ignore[no-any-return]

    def _critic_terms(
        self, here: Tensor, actions: Tensor, densities: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return squared errors, differences of G and values of a, summed over critics, states."""
        q = _values(self.critic, here, actions)  # [2, B, 1 + 3N]
        data = q[..., 0]
        others = q[..., 1:] - densities if self.importance_sampling else q
        gap = self.temperature * torch.logsumexp(others / self.temperature, -1) - data
        if self.min_gap is not None:
            gap = gap.clamp_min(self.min_gap)
        return (data - target).square().sum(), gap.sum(), data.sum()

    def energy_of(
        self, policy: ContinuousPolicy, inputs: Tensor, noise: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return alpha * log pi - min Q; while imitating, - log pi of the data instead of Q."""
        actions, log_prob = policy.sample_with_log_prob(inputs, noise)
        cost = self.alpha().detach() * log_prob
        if self._n_updates < self.bc_steps:
            assert isinstance(policy, (GaussianPolicy, TanhGaussianPolicy))  # as build checked
            return cost - policy.log_prob(inputs, batch.actions), torch.ones_like(cost)
        q = self.critic(inputs, actions).amin(0)
        return cost - q, q


def _policy(inputs: int, action_dim: int, hidden_sizes: tuple[int, ...]) -> TanhGaussianPolicy:
    """Make the policy; its two heads start small, as one Xavier-uniform layer of gain 0.01."""
    policy = TanhGaussianPolicy(inputs, action_dim, hidden_sizes, affine_log_std=True)
    bound = 0.01 * math.sqrt(6.0 / (hidden_sizes[-1] + 2 * action_dim))
    for head in (policy.mean_head, policy.log_std_head):
        nn.init.uniform_(head.weight, -bound, bound)
        nn.init.zeros_(head.bias)
    return policy


def _values(critic: StackedCritic, inputs: Tensor, actions: Tensor) -> Tensor:
    """Return Q values [members, B, K] of K actions per state [B, K, A]."""
    batch, count, width = actions.shape
    tiled = inputs.unsqueeze(1).expand(batch, count, -1).reshape(batch * count, -1)
    q: Tensor = critic(tiled, actions.reshape(batch * count, width))
    return q.view(-1, batch, count)
