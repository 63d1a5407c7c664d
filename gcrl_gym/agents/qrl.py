"""Quasimetric RL: the optimal time to a goal is the largest distance that steps allow.

Wang, Torralba, Isola and Zhang, "Optimal Goal-Reaching Reinforcement Learning via Quasimetric
Learning" (2023); settings and order of the steps as in OGBench (Park et al. 2024). States that do
not belong together are pushed apart, while one step may not be longer than 1; d is a quasimetric
on a latent phi, and V = -d.

    d        L(d)      = E[ 100 * softplus(5 - d(s, g) / 100) ] + lambda * C,  g a random state,
             C         = E[ max(d(s, s') - 1, 0)^2 ]
    lambda   L(lambda) = lambda * (eps - C),  lambda = exp(log lambda)
    dynamics L(f)      = E[ d(phi', z) + d(z, phi') ] / 2,  z = phi + f(phi, a),  phi' = phi(s')
    actor    DDPG+BC   -E[Q] / E|Q| - alpha * E[ log pi(a | s, g) ],
                       Q = -d(phi + f(phi, mean), phi(g))
             AWR       -E[ min(exp(alpha * A), 100) * log pi(a | s, g) ],  A = d(s, g) - d(s', g)

L(d) takes lambda as a number, L(lambda) takes C as one, and the actor's loss reaches the actor
alone; L(f) trains phi too. One optimiser takes all steps at once, from the weights before it.
Discrete actions are AWR's, which has no dynamics. There are no rewards, discounts or targets.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from gcrl_gym.agents import goals
from gcrl_gym.agents.base import OfflineAgent
from gcrl_gym.agents.inputs import check_probability, not_negative, whole_number
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch, GoalSampler
from gcrl_gym.errors import UserError
from gcrl_gym.networks import LatentDynamics, Multiplier, Quasimetric
from gcrl_gym.networks.encoders import EncoderKind
from gcrl_gym.networks.steps import accumulate


class QRL(OfflineAgent):
    """Quasimetric reinforcement learning, for tasks whose goals are observations.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        actor_loss: "ddpgbc", "awr", or "auto": "ddpgbc" for continuous actions, else "awr".
        alpha: weight of imitation in DDPG+BC; inverse temperature of AWR.
        quasimetric: "iqe" (interval embeddings) or "mrn" (metric residual network, faster).
        latent_dim: width of the latent that distances are taken in.
        dim_per_component: intervals of one component of "iqe", a divisor of latent_dim.
        eps: how much the length of steps may exceed 1, squared, on average.
        hidden_sizes: widths of the hidden layers of all networks.
        layer_norm: normalise the hidden layers of the latent's network and of the dynamics.
        encoder: of pictures; "auto" is "impala_small" where observations are pictures.
        p_aug: probability that the pictures of a batch are cropped at random.
        batch_size: see ``OfflineAgent``.
        **common: see ``OfflineAgent``.

    Raises:
        UserError: goals that are no observations, DDPG+BC with discrete actions, a
            dim_per_component that does not divide latent_dim, a negative alpha or eps, p_aug
            outside [0, 1]; see also ``OfflineAgent``.
    """

    name = "qrl"
    needs_goals = needs_state_goals = True
    action_spaces = (spaces.Box, spaces.Discrete)
    sampler = GoalSampler(value=(0.0, 0.0, 1.0), actor="auto", support="ogbench", reward="index")

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        actor_loss: Literal["auto", "ddpgbc", "awr"] = "auto",
        alpha: float = 0.003,
        quasimetric: Literal["iqe", "mrn"] = "iqe",
        latent_dim: int = 512,
        dim_per_component: int = 8,
        eps: float = 0.05,
        hidden_sizes: tuple[int, ...] = (512, 512, 512),
        layer_norm: bool = True,
        encoder: EncoderKind = "auto",
        p_aug: float = 0.0,
        batch_size: int = 1024,
        **common: Any,
    ) -> None:
        not_negative(alpha=alpha, eps=eps)
        self.actor_loss, self.alpha, self.eps = actor_loss, alpha, eps
        self.quasimetric, self.latent_dim = quasimetric, whole_number(latent_dim, "latent_dim")
        self.dim_per_component = whole_number(dim_per_component, "dim_per_component")
        if quasimetric == "iqe" and latent_dim % dim_per_component:
            raise UserError(
                f"latent_dim is {latent_dim}, dim_per_component {dim_per_component}; an IQE needs "
                "a latent_dim that is a multiple of it."
            )
        self.hidden_sizes, self.layer_norm = tuple(hidden_sizes), layer_norm
        self.encoder, self.p_aug = encoder, check_probability(p_aug, "p_aug")
        super().__init__(env, dataset, batch_size=batch_size, **common)

    def build(self) -> None:
        """Make the quasimetric, its multiplier, the dynamics of DDPG+BC, and the actor."""
        self.kind_of_loss = goals.choose_loss(self, self.actor_loss)
        width, latent, sizes = self.policy.observation_dim, self.latent_dim, self.hidden_sizes
        self.value = self.add_network(
            "value",
            lambda: Quasimetric(
                width, sizes, self.quasimetric, latent, self.dim_per_component,
                layer_norm=self.layer_norm,
                encoder=goals.encoder(self, self.encoder, "observation"),
            ),
        )  # fmt: skip
        self.multiplier = self.add_network("lambda", Multiplier)
        self.learned: list[nn.Module] = [self.value, self.multiplier]
        if self.kind_of_loss == "ddpgbc":
            self.dynamics = self.add_network(
                "dynamics",
                lambda: LatentDynamics(latent, self.action_dim, sizes, layer_norm=self.layer_norm),
            )
            self.learned.append(self.dynamics)
        self.actor = self.add_network("actor", lambda: goals.make_policy(self, self.encoder))
        self.optimizer = self.add_optimizer("agent", *self.learned, self.actor)

    def update(self, batch: Batch) -> Metrics:
        """Take the joint step of distance, multiplier, dynamics and actor."""
        batch = goals.crop(self, batch, self.p_aug)
        self.optimizer.zero_grad()
        here, after, other = self._latents(batch)
        loss, metrics = self._value_loss(here, after, other)
        if self.kind_of_loss == "ddpgbc":
            dynamics_loss, own = self._dynamics_loss(here, after, batch)
            loss, metrics = loss + dynamics_loss, metrics | own
        accumulate(loss, *self.learned)
        loss, own = self._actor_loss(here.detach(), after.detach(), batch)
        accumulate(loss, self.actor)
        self.optimizer.step()
        return metrics | own

    def _latents(self, batch: Batch) -> list[Tensor]:
        """Return phi of states, next states and goals, each [B, L]."""
        states = torch.cat([batch.observations, batch.next_observations, batch.goals])
        return list(self.value(states).chunk(3))

    def _value_loss(self, here: Tensor, after: Tensor, other: Tensor) -> tuple[Tensor, Metrics]:
        """Return L(d) + L(lambda): each reaches its own parameters only."""
        far, near = self.value.distance(here, other), self.value.distance(here, after)
        apart = 100.0 * nn.functional.softplus(5.0 - far / 100.0).mean()
        excess = (near - 1.0).relu().square().mean()
        multiplier = self.multiplier()
        loss = apart + multiplier.detach() * excess
        metrics = {
            "value_loss": loss.detach(), "constraint": excess.detach(),
            "distance_goal": far.detach().mean(), "distance_step": near.detach().mean(),
            "lambda": multiplier.detach(),
        }  # fmt: skip
        return loss + multiplier * (self.eps - excess.detach()), metrics

    def _dynamics_loss(self, here: Tensor, after: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        predicted = self.dynamics(here, batch.actions)
        there, back = self.value.distance(after, predicted), self.value.distance(predicted, after)
        loss = (there + back).mean() / 2.0
        return loss, {"dynamics_loss": loss.detach()}

    def _actor_loss(self, here: Tensor, after: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        asked = goals.join(batch.observations, batch.actor_goals)
        with torch.no_grad():
            goal = self.value(batch.actor_goals)
        if self.kind_of_loss == "ddpgbc":
            return goals.ddpg_bc(
                self.actor, asked, batch.actions,
                lambda a: -self.value.distance(self.dynamics(here, a), goal), self.alpha,
            )  # fmt: skip
        with torch.no_grad():
            advantage = self.value.distance(here, goal) - self.value.distance(after, goal)
        return goals.awr(self.actor, asked, batch.actions, advantage, self.alpha)

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the crops' noise."""
        return goals.crop_noise(self.p_aug, batch_size)

    def act(self, inputs: Tensor, deterministic: bool, actor: int) -> Tensor:
        """Return the mean or likeliest action, or a sample."""
        return goals.act(self, self.actor, inputs, deterministic)
