"""Flow Q-learning: a flow imitates the data; a one-step policy imitates the flow and climbs Q.

Park, Li and Levine, "Flow Q-Learning" (2025); settings and order of the steps as in the authors'
code (github.com/seohongpark/fql). Noise z, z', x_0 ~ N(0, I), time t ~ U(0, 1).

    Q       L(Q)  = 1/2 sum_j E[ (Q_j(s, a) - y)^2 ],
            y     = r + discount * (1 - terminated) * agg_j Q'_j(s', clip(mu(s', z')))
    flow    L(v)  = 1/A E[ |v(s, x_t, t) - (a - x_0)|^2 ],  x_t = (1 - t) x_0 + t a
    actor 0 L(mu) = alpha/A E[ |mu(s, z) - clip(F(s, z))|^2 ] - lambda E[ Q(s, clip(mu(s, z))) ],
            F     = Euler's method along v from z, without gradient;  Q = 1/2 sum_j Q_j
    chain   E(mu_i) = -E[ 1/2 sum_j Q_j(s, clip(mu_i(s, z))) ]

agg is the mean or the minimum, A the width of the action, lambda 1 or, with ``normalize_q``,
1 / mean |Q| without gradient. All losses are taken at the weights before the step, one optimiser
steps the three networks, and the target critic follows the critic as it was before that step.
There is no target policy. Actions of the data are clipped to +-(1 - 1e-5).

A PyTorch port of a method that its authors, and the source of the chain, ran in JAX. Differences to
the authors' code: other random numbers (uniform times are the normal CDF of normal noise), and
``predict(deterministic=True)`` is the action at z = 0, where the paper evaluates sampled actions
(``deterministic=False``). Differences to the source of the chain: its targets and energies used the
action at z = 0, its distance was a regularised transport cost that is not 0 between equal policies;
here actions are sampled and the distance is debiased. Goals: policies learn at the policy's goals.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gcrl_gym.agents.chained import ChainAgent
from gcrl_gym.agents.inputs import not_negative, whole_number
from gcrl_gym.agents.losses import td_target
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.networks import ContinuousPolicy, OneStepPolicy, StackedCritic, VelocityField
from gcrl_gym.networks.steps import soft_update
from gcrl_gym.transport.jko import q_energy

ACTION_LIMIT = 1.0 - 1e-5


class FQL(ChainAgent):
    """Flow Q-learning with an optional chain of JKO actors; continuous actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        alpha: weight of the distillation, >= 0: how close the policy stays to the data. Tune it per
            task: it trades against action values, so it depends on the scale of the rewards.
        flow_steps: Euler steps from noise to an action of the flow.
        q_aggregation: of the target critics: "mean" or "min".
        normalize_q: divide the policy's Q by its mean magnitude, so that ``alpha`` does not depend
            on the scale of the rewards; off in the paper, advised by its authors for new tasks with
            alpha from 0.03 to 10.
        discount: of future rewards, in [0, 1).
        tau: fraction by which the target critics follow.
        hidden_sizes: widths of the hidden layers of all networks.
        normalize: see ``OfflineAgent``.
        **common: see ``ChainAgent`` and ``OfflineAgent``.

    Raises:
        UserError: a negative alpha, or no flow steps; see also ``ChainAgent``.
    """

    name = "fql"
    finetunes: ClassVar[bool] = True

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        alpha: float = 10.0,
        flow_steps: int = 10,
        q_aggregation: Literal["mean", "min"] = "mean",
        normalize_q: bool = False,
        discount: float = 0.99,
        tau: float = 0.005,
        hidden_sizes: tuple[int, ...] = (512, 512, 512, 512),
        normalize: bool = False,
        **common: Any,
    ) -> None:
        not_negative(alpha=alpha)
        self.alpha, self.flow_steps = alpha, whole_number(flow_steps, "flow_steps")
        self.q_aggregation, self.normalize_q = q_aggregation, normalize_q
        self.discount, self.tau, self.hidden_sizes = discount, tau, tuple(hidden_sizes)
        super().__init__(env, dataset, normalize=normalize, **common)

    def build(self) -> None:
        """Make the twin critic with its target, the flow, the actors, and the joint optimiser."""
        sizes = (self.input_dim, self.action_dim, self.hidden_sizes)
        self.critic = self.add_network(
            "critic",
            lambda: StackedCritic(*sizes, activation="gelu", layer_norm=True, init="xavier"),
        )
        self.critic_target = self.add_target("critic_target", self.critic)
        self.velocity = self.add_network("velocity", lambda: VelocityField(*sizes))
        self.one_step = self.add_network("actor_0", lambda: OneStepPolicy(*sizes))
        self.joint_optimizer = self.add_optimizer(
            "joint", self.critic, self.velocity, self.one_step
        )
        self.add_chain(self.one_step)

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the noise of one update, by name."""
        one = (batch_size, self.action_dim)
        own = {"next": one, "flow": one, "time": (batch_size, 1), "latent": one}
        return own | super().noise_shapes(batch_size)

    def update(self, batch: Batch) -> Metrics:
        """Take the joint step of critic, flow and actor 0, then the steps of the chain."""
        here = self.join(batch.observations, batch.goals)
        asked = self.join(batch.observations, batch.actor_goals)
        actions = batch.actions.clamp(-ACTION_LIMIT, ACTION_LIMIT)
        # One backward pass before the next forward pass: a compiled update goes back only once.
        self.joint_optimizer.zero_grad(set_to_none=True)
        metrics = self._critic_gradient(here, actions, batch)
        metrics |= self._actor_gradient(asked, actions, batch.noise)
        soft_update(self.critic_target, self.critic, self.tau)  # towards the critic before its step
        self.joint_optimizer.step()
        return metrics | self.update_chain(batch, asked)

    def _critic_gradient(self, here: Tensor, actions: Tensor, batch: Batch) -> Metrics:
        there = self.join(batch.next_observations, batch.goals)
        with torch.no_grad():
            next_q = self.critic_target(there, self.one_step.sample(there, batch.noise["next"]))
            next_value = next_q.amin(0) if self.q_aggregation == "min" else next_q.mean(0)
            target = td_target(batch.rewards, batch.terminated, next_value, self.discount)
        q = self.critic(here, actions)
        loss = (q - target).square().mean()
        loss.backward(inputs=list(self.critic.parameters()))
        return {"critic_loss": loss.detach(), "q": q.detach().mean()}

    def _actor_gradient(self, asked: Tensor, actions: Tensor, noise: dict[str, Tensor]) -> Metrics:
        flow_loss = self._flow_loss(asked, actions, noise)
        policy_loss, metrics = self._policy_loss(asked, noise["latent"])
        # For these weights alone: the critic must not learn to like the policy's actions.
        weights = [*self.velocity.parameters(), *self.one_step.parameters()]
        (flow_loss + policy_loss).backward(inputs=weights)  # type: ignore[no-untyped-call]
        return metrics | {"flow_loss": flow_loss.detach()}

    def _flow_loss(self, asked: Tensor, actions: Tensor, noise: dict[str, Tensor]) -> Tensor:
        start, times = noise["flow"], torch.special.ndtr(noise["time"])
        velocity = self.velocity(asked, torch.lerp(start, actions, times), times)
        return (velocity - (actions - start)).square().mean()  # type: ignore[no-any-return]

    def _policy_loss(self, asked: Tensor, latent: Tensor) -> tuple[Tensor, Metrics]:
        teacher = self.velocity.flow(asked, latent, self.flow_steps)
        student = self.one_step(asked, latent)  # not cut off, unlike the teacher
        distillation = (student - teacher).square().mean()
        q = self.critic(asked, student.clamp(-1.0, 1.0)).mean(0)
        energy, scale = q_energy(q, self.normalize_q)
        loss = self.alpha * distillation + energy
        return loss, {
            "actor_0/loss": loss.detach(),
            "actor_0/distillation": distillation.detach(),
            "actor_0/energy": energy.detach(),
            "actor_0/lambda": scale,
        }

    def energy_of(
        self, policy: ContinuousPolicy, inputs: Tensor, noise: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return -Q of the policy's action, the mean of the two critics."""
        q = self.critic(inputs, policy.sample(inputs, noise)).mean(0)
        return -q, q
