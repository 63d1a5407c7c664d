"""Hierarchical implicit Q-learning: one policy proposes subgoals, another one reaches them.

Park, Ghosh, Eysenbach and Levine, "HIQL: Offline Goal-Conditioned RL with Latent States as
Actions" (2023), in the form and with the settings of Park et al., "OGBench" (2024). Subgoals are
representations phi([s; g]) of length sqrt(rep_dim); phi is learned by the value function
V_i(s, g) = V_i(s, phi([s; g])), as of GCIVL: w is the state k steps ahead, or the goal if earlier.

    V, phi  L(V)  = sum_i E[ |tau - 1(A' < 0)| * (r + discount * (1 - reached) * V'_i(s', g)
                                                  - V_i(s, g))^2 ],
            A'    = r + discount * (1 - reached) * min_i V'_i(s', g) - mean_i V'_i(s, g)
    low     L(lo) = -E[ min(exp(low_alpha * A_lo), 100) * log lo(a | s, phi([s; w])) ],
            A_lo  = mean_i V_i(s', w) - mean_i V_i(s, w)
    high    L(hi) = -E[ min(exp(high_alpha * A_hi), 100) * log hi(phi([s; w]) | s, g) ],
            A_hi  = mean_i V_i(w, g) - mean_i V_i(s, g)

The targets V' are heads of their own on the phi that is being learned: phi has no average. One
optimiser takes all steps at once, from the weights before it. Acting, the upper policy proposes
anew in each step, and its proposal is brought to the length of a representation.

Deviation: OGBench samples both policies with unit variance; here with the scales fitted to the
residuals, which share no parameter with the means.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from gcrl_gym.agents import goals
from gcrl_gym.agents.base import OfflineAgent
from gcrl_gym.agents.inputs import (
    check_expectile,
    check_probability,
    not_negative,
    whole_number,
)
from gcrl_gym.agents.losses import implicit_value_loss, td_target
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.datasets.subgoals import SubgoalSampler
from gcrl_gym.errors import UserError
from gcrl_gym.networks import MLP, CategoricalPolicy, GaussianPolicy, ImpalaEncoder, StackedValue
from gcrl_gym.networks.encoders import EncoderKind, make_encoder, with_encoder
from gcrl_gym.networks.steps import accumulate, soft_update


class HIQL(OfflineAgent):
    """Hierarchical implicit Q-learning, for continuous and discrete actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        low_alpha: inverse temperature of the lower policy's advantages.
        high_alpha: the same of the upper policy's.
        subgoal_steps: how far ahead subgoals lie; a sampler that is passed brings its own.
        rep_dim: width of the representations of subgoals.
        low_actor_rep_grad: the lower policy's loss reaches the representation too; "auto" where
            observations are pictures, as in OGBench.
        expectile: of the value function, in (0, 1).
        discount: of future rewards and of the goals' geometric law, in (0, 1).
        tau: fraction by which the target values follow.
        hidden_sizes: widths of the hidden layers of all networks.
        layer_norm: normalise the hidden layers of value function and representation.
        encoder: of pictures; "auto" is "impala_small" where observations are pictures.
        p_aug: probability that the pictures of a batch are cropped at random.
        batch_size: see ``OfflineAgent``.
        **common: see ``OfflineAgent``.

    Raises:
        UserError: an expectile outside (0, 1), a negative temperature, p_aug outside [0, 1], a
            sampler without subgoals or with others than ``subgoal_steps``; see also
            ``OfflineAgent``.
    """

    name = "hiql"
    action_spaces = (spaces.Box, spaces.Discrete)
    needs_goals = True
    sampler = SubgoalSampler(actor="auto", support="ogbench")

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        low_alpha: float = 3.0,
        high_alpha: float = 3.0,
        subgoal_steps: int = 25,
        rep_dim: int = 10,
        low_actor_rep_grad: bool | Literal["auto"] = "auto",
        expectile: float = 0.7,
        discount: float = 0.99,
        tau: float = 0.005,
        hidden_sizes: tuple[int, ...] = (512, 512, 512),
        layer_norm: bool = True,
        encoder: EncoderKind = "auto",
        p_aug: float = 0.0,
        batch_size: int = 1024,
        **common: Any,
    ) -> None:
        not_negative(low_alpha=low_alpha, high_alpha=high_alpha)
        self.low_alpha, self.high_alpha = low_alpha, high_alpha
        self.subgoal_steps = whole_number(subgoal_steps, "subgoal_steps")
        self.rep_dim = whole_number(rep_dim, "rep_dim")
        self.low_actor_rep_grad, self.expectile = low_actor_rep_grad, check_expectile(expectile)
        self.discount, self.tau, self.hidden_sizes = discount, tau, tuple(hidden_sizes)
        self.layer_norm, self.encoder = layer_norm, encoder
        self.p_aug = check_probability(p_aug, "p_aug")
        self.sampler = SubgoalSampler(actor="auto", support="ogbench", steps=self.subgoal_steps)
        super().__init__(env, dataset, batch_size=batch_size, **common)

    def build(self) -> None:
        """Make the representation, the value function with its target, and both policies."""
        self._check_sampler()
        grad, pictures = self.low_actor_rep_grad, bool(goals.pictures(self)[0])
        self.reaches_phi = pictures if grad == "auto" else grad
        seen = self.policy.observation_dim + self.rep_dim
        self.phi = self.add_network("phi", self._make_phi)
        self.value = self.add_network(
            "value",
            lambda: StackedValue(
                seen, self.hidden_sizes, activation="gelu", layer_norm=self.layer_norm,
                init="xavier", encoder=self._eyes(),
            ),
        )  # fmt: skip
        self.value_target = self.add_target("value_target", self.value)
        sizes: Any = {"hidden_sizes": self.hidden_sizes, "activation": "gelu"}
        sizes["init"] = "xavier_small"
        discrete = isinstance(self.action_space, spaces.Discrete)
        lower = CategoricalPolicy if discrete else GaussianPolicy
        self.low_actor = self.add_network(
            "low_actor", lambda: lower(seen, self.action_dim, encoder=self._eyes(), **sizes)
        )
        self.high_actor = self.add_network(
            "high_actor",
            lambda: GaussianPolicy(
                self.input_dim, self.rep_dim,
                encoder=goals.encoder(self, self.encoder, "observation", "goal"), **sizes,
            ),
        )  # fmt: skip
        self.optimizer = self.add_optimizer(
            "agent", self.phi, self.value, self.low_actor, self.high_actor
        )

    def _check_sampler(self) -> None:
        if not isinstance(self.sampler, SubgoalSampler):
            raise UserError(
                f"HIQL learns from subgoals, which {type(self.sampler).__name__} does not draw; "
                "pass a SubgoalSampler, or none."
            )
        if self.subgoal_steps not in (self.sampler.steps, HIQL.sampler.steps):
            raise UserError(
                f"subgoal_steps is {self.subgoal_steps}, but the sampler that was passed has steps="
                f"{self.sampler.steps}; give one of them, or both alike."
            )
        self.subgoal_steps = self.sampler.steps

    def _make_phi(self) -> nn.Module:
        encoder = goals.encoder(self, self.encoder, "observation", "goal")
        inputs = self.input_dim if encoder is None else encoder.outputs
        layers = MLP(inputs, self.rep_dim, self.hidden_sizes, "gelu", self.layer_norm, "xavier")
        return with_encoder(encoder, layers)

    def _eyes(self) -> ImpalaEncoder | None:
        """Return a new encoder of an observation that a representation follows."""
        return make_encoder(self.encoder, goals.pictures(self)[0], self.rep_dim)

    def update(self, batch: Batch) -> Metrics:
        """Take the joint step of the value function with its phi, and of both policies."""
        batch = goals.crop(self, batch, self.p_aug)
        self.optimizer.zero_grad()
        loss, metrics = self._value_loss(batch)
        accumulate(loss, self.value, self.phi)
        loss, low = self._low_loss(batch)
        accumulate(loss, self.low_actor, *([self.phi] if self.reaches_phi else []))
        loss, high = self._high_loss(batch)
        accumulate(loss, self.high_actor)
        soft_update(self.value_target, self.value, self.tau)
        self.optimizer.step()
        metrics |= {f"low/{name}": value for name, value in low.items()}
        return metrics | {f"high/{name}": value for name, value in high.items()}

    def represent(self, observations: Tensor, wanted: Tensor) -> Tensor:
        """Return phi([s; g]) [B, rep_dim] of observations [B, D] and goals [B, G]."""
        return self._to_length(self.phi(goals.join(observations, wanted)))

    def _to_length(self, vectors: Tensor) -> Tensor:
        return math.sqrt(self.rep_dim) * functional.normalize(vectors, dim=-1)

    def _value_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        here = goals.join(batch.observations, self.represent(batch.observations, batch.goals))
        with torch.no_grad():
            after = batch.next_observations
            there = goals.join(after, self.represent(after, batch.goals))
            target_here, target_there = self.value_target(torch.cat([here, there])).chunk(2, dim=1)
        targets = td_target(batch.rewards, batch.terminated, target_there, self.discount)
        values = self.value(here)
        loss = implicit_value_loss(values, target_here, targets, self.expectile)
        return loss, {"value_loss": loss.detach(), "value": values.detach().mean()}

    def _low_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        assert batch.subgoals is not None, "the sampler was checked"
        with torch.set_grad_enabled(self.reaches_phi):
            here = goals.join(
                batch.observations, self.represent(batch.observations, batch.subgoals)
            )
        with torch.no_grad():
            after = batch.next_observations
            there = goals.join(after, self.represent(after, batch.subgoals))
            advantage = self._rise(here, there)
        return goals.awr(self.low_actor, here, batch.actions, advantage, self.low_alpha)

    def _high_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        now, ahead, goal = batch.observations, batch.target_observations, batch.actor_goals
        assert ahead is not None, "the sampler was checked"
        assert batch.target_goals is not None
        with torch.no_grad():
            starts, aims = torch.cat([now, ahead, now]), torch.cat([goal, goal, batch.target_goals])
            here, there, proposal = self.represent(starts, aims).chunk(3)
            advantage = self._rise(goals.join(now, here), goals.join(ahead, there))
        asked = goals.join(now, goal)
        return goals.awr(self.high_actor, asked, proposal, advantage, self.high_alpha)

    def _rise(self, here: Tensor, there: Tensor) -> Tensor:
        """Return by how much the mean of both heads rises on the way, [B]."""
        values: Tensor = self.value(torch.cat([here, there])).mean(0)
        before, after = values.chunk(2)
        return after - before

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the crops' noise."""
        return goals.crop_noise(self.p_aug, batch_size)

    def act(self, inputs: Tensor, deterministic: bool, actor: int) -> Tensor:
        """Return the lower policy's action for the upper one's proposal, or samples of both."""
        proposal, scale = self.high_actor.gaussian(inputs)
        if not deterministic:
            proposal = proposal + scale * self.generators.randn("act", *proposal.shape)
        observations = inputs[:, : self.policy.observation_dim]
        seen = goals.join(observations, self._to_length(proposal))
        return goals.act(self, self.low_actor, seen, deterministic)
