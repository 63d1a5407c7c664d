"""OPSO: offline pretraining on states alone, of latents, values and proposals.

The offline stage of SChoish's "OPSO" (2025), repaired where its text and its code part. A causal
encoder gives the latent z of a state in the light of those before it, z' of the next one, and z_g
of a goal, a state with nothing before it. Of a transition, r is 1 where it is a success, else 0;
z^, z'^, z_g^ are latents of the target encoder, and primes of networks are their targets:

    Q     L(Q) = sum_j E[ smooth L1( Q_j(z, z', z_g) - y ) ],
          y    = r + discount * (1 - r) * V'(z'^, z_g^)
    V     L(V) = E[ |tau - 1(u < 0)| * u^2 ],  u = min_j Q'_j(z^, z'^, z_g^) - V(z, z_g)
    P     L(P) = E[ (P(z, z_a) - z'^)^2 ],  z_a the latent of a goal for policies
    S     L(S) = cross-entropy of S(z', z_g) and r, successes weighted by failures per success
    InfoNCE    of z with z', in both directions, among the batch and a bank of earlier z'
    alignment  L(A) = -E[ cos(z' - z, z_a - z) ]

One Adam steps down the weighted sum, encoder included. Success absorbs, which keeps y, like the
sigmoids Q and V, in [0, 1]. Actions are not read: the inverse model that acts, I(z, P(z, z_g),
z_g), is not trained here.

Deviations: V has a target; the proposer learns from goals for policies, which the data reaches; the
goals of values are current, future (uniform, as in OPSO) and random, in OGBench's shares. Where a
success is judged at the transition's own state (reward "index"), S sees z, not z'.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gcrl_gym.agents.base import OfflineAgent
from gcrl_gym.agents.inputs import check_expectile, check_probability, not_negative, whole_number
from gcrl_gym.agents.losses import expectile_loss, td_target
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.datasets.windows import WindowSampler
from gcrl_gym.errors import UserError
from gcrl_gym.networks import MLP, DeterministicPolicy, SequenceEncoder, StackedCritic, StackedValue
from gcrl_gym.networks.latents import LatentEncoder, MemoryBank, SuccessHead, info_nce
from gcrl_gym.networks.sequence import SequenceState
from gcrl_gym.networks.steps import accumulate, soft_update


class _Latents(NamedTuple):
    """Of a batch, each [B, d_model]."""

    here: Tensor  # z
    after: Tensor  # z'
    goal: Tensor  # z_g
    aim: Tensor  # z_a


class OPSO(OfflineAgent):
    """Offline pretraining from states alone, for tasks whose goals are observations.

    ``learn`` reads no actions and trains no actor: the inverse model keeps the weights it began
    with, and what ``predict`` returns before online training is arbitrary.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``; its actions may be anything.
        encoder: kind of the sequence encoder.
        d_model: width of latents.
        layers: of the sequence encoder.
        dropout: of the sequence encoder, in training alone.
        context: states of a window up to the transition's own; a sampler that is passed brings its
            own.
        history: how ``predict`` remembers: the last ``context`` states, encoded anew, as in
            training ("window"), or the encoder's own memory, of all states for "mamba" and "gru",
            which costs less ("state"). For the first ``context`` steps they are the same.
        expectile: of V, in (0, 1); above 0.5 V is optimistic.
        state_weight: of the proposer's loss.
        success_weight: of the success head's loss.
        nce_weight: of the contrastive loss.
        value_weight: of V's loss.
        align_weight: of the alignment loss; 0 because straight lines to the goal invite latents to
            collapse onto one, whatever way the task leaves open.
        temperature: of the contrastive loss.
        bank_size: number of earlier latents that the contrastive loss takes as negatives.
        discount: of future successes, in [0, 1].
        tau: fraction by which targets follow.
        warmup: updates over which the learning rate rises to its value; 0 for none.
        max_grad_norm: length to which longer gradients are cut.
        hidden_sizes: widths of the hidden layers; proposer and success head have the first alone.
        **common: see ``OfflineAgent``.

    Raises:
        UserError: goals that are no observations, options out of their range, a sampler without
            windows or with others than ``context``; see also ``OfflineAgent``.
    """

    name = "opso"
    needs_actions = False
    needs_goals = needs_state_goals = True
    sampler = WindowSampler(actor="auto", future="uniform")

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        encoder: Literal["mamba", "gru", "transformer"] = "mamba",
        d_model: int = 128,
        layers: int = 2,
        dropout: float = 0.1,
        context: int = 20,
        history: Literal["window", "state"] = "window",
        expectile: float = 0.9,
        state_weight: float = 0.25,
        success_weight: float = 0.1,
        nce_weight: float = 0.1,
        value_weight: float = 1.0,
        align_weight: float = 0.0,
        temperature: float = 0.1,
        bank_size: int = 10_000,
        discount: float = 0.99,
        tau: float = 0.005,
        warmup: int = 1000,
        max_grad_norm: float = 5.0,
        hidden_sizes: tuple[int, ...] = (256, 256),
        **common: Any,
    ) -> None:
        self.encoder, self.history, self.dropout = encoder, history, dropout
        self.d_model, self.layers = whole_number(d_model, "d_model"), whole_number(layers, "layers")
        self.context = whole_number(context, "context")
        self.bank_size = whole_number(bank_size, "bank_size")
        self.warmup = whole_number(warmup, "warmup", least=0)
        self.expectile, self.tau = check_expectile(expectile), check_probability(tau, "tau")
        self.discount = check_probability(discount, "discount")
        self.hidden_sizes = tuple(hidden_sizes)
        self.state_weight, self.success_weight = state_weight, success_weight
        self.nce_weight, self.value_weight = nce_weight, value_weight
        self.align_weight = align_weight
        not_negative(
            state_weight=state_weight, success_weight=success_weight, nce_weight=nce_weight,
            value_weight=value_weight, align_weight=align_weight,
        )  # fmt: skip
        self.temperature, self.max_grad_norm = temperature, max_grad_norm
        _positive(temperature=temperature, max_grad_norm=max_grad_norm)
        self.sampler = WindowSampler(actor="auto", future="uniform", context=self.context)
        self._memory: SequenceState | None = None  # of the states before those that act() sees
        super().__init__(env, dataset, **common)

    def build(self) -> None:
        """Make the encoder, the values with their targets, the heads, and the inverse model."""
        self._check_sampler()
        width, sizes = self.d_model, self.hidden_sizes
        self.latents = self.add_network(
            "encoder",
            lambda: LatentEncoder(
                self.policy.observation_dim, width, kind=self.encoder, layers=self.layers,
                dropout=self.dropout, context=self.context,
            ),
        )  # fmt: skip
        self.critic = self.add_network("critic", lambda: StackedCritic(2 * width, width, sizes))
        self.value = self.add_network("value", lambda: StackedValue(2 * width, sizes, members=1))
        self.proposer = self.add_network("proposer", lambda: MLP(2 * width, width, sizes[:1]))
        self.success = self.add_network("success", lambda: SuccessHead(2 * width, sizes[:1]))
        self.bank = self.add_network("bank", lambda: MemoryBank(self.bank_size, width))
        self.latents_target = self.add_target("encoder_target", self.latents)
        self.latents_target.sequence.dropout = 0.0
        self.critic_target = self.add_target("critic_target", self.critic)
        self.value_target = self.add_target("value_target", self.value)
        # Beside the networks that are trained.
        self.inverse = self.generators.make(
            "weights/inverse", lambda: DeterministicPolicy(3 * width, self.action_dim, sizes)
        ).to(self.device)
        self.policy.add_module("inverse", self.inverse)
        self.learned = (self.latents, self.critic, self.value, self.proposer, self.success)
        self.optimizer = self.add_optimizer("agent", *self.learned, rate=self._rate)

    def _rate(self, remaining: float) -> float:
        """Return the learning rate of the next update, given the share of training that is left."""
        risen = min(1.0, (self._n_updates + 1) / self.warmup) if self.warmup else 1.0
        return risen * float(self.lr_schedule(remaining))

    def _check_sampler(self) -> None:
        if not isinstance(self.sampler, WindowSampler):
            raise UserError(
                f"OPSO learns from windows, which {type(self.sampler).__name__} does not draw; "
                "pass a WindowSampler, or none."
            )
        if self.context not in (self.sampler.context, OPSO.sampler.context):
            raise UserError(
                f"context is {self.context}, but the sampler that was passed has context="
                f"{self.sampler.context}; give one of them, or both alike."
            )
        self.context = self.sampler.context

    def update(self, batch: Batch) -> Metrics:
        """Take the joint step of the encoder, the values and the heads; then targets follow."""
        latents, targets = self._encode(batch)
        loss, metrics = self._loss(latents, targets, batch.terminated)
        self.optimizer.zero_grad()
        accumulate(loss, *self.learned)
        parameters = self.optimizer.param_groups[0]["params"]
        metrics["gradient_norm"] = nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        self.optimizer.step()
        soft_update(self.latents_target, self.latents, self.tau)
        soft_update(self.critic_target, self.critic, self.tau)
        soft_update(self.value_target, self.value, self.tau)
        self.bank.push(functional.normalize(latents.after.detach(), dim=-1))
        return metrics

    def _encode(self, batch: Batch) -> tuple[_Latents, _Latents]:
        """Return the latents of a batch, and those of the target encoder."""
        assert batch.windows is not None, "the sampler was checked"
        goals = torch.cat([batch.goals, batch.actor_goals])
        dropout = self.generators.torch("dropout") if self.dropout else None
        found = []
        for network in (self.latents, self.latents_target):
            outputs = network(batch.windows, batch.mask, dropout)
            goal, aim = network.alone(goals, dropout).chunk(2)
            found.append(_Latents(outputs[:, -2], outputs[:, -1], goal, aim))
        return found[0], found[1]

    def _loss(self, z: _Latents, target: _Latents, success: Tensor) -> tuple[Tensor, Metrics]:
        """Return the weighted sum of all losses."""
        critic, metrics = self._critic_loss(z, target, success)
        value, own = self._value_loss(z, target)
        # A success is one of the next state, or of this one where goals are told by their rows.
        judged = z.here if self._bound.reward_rule == "index" else z.after
        succeeded, weight = self.success.loss(torch.cat([judged, z.goal], -1), success)
        losses = {
            "critic_loss": critic,
            "value_loss": value,
            "state_loss": functional.mse_loss(self.propose(z.here, z.aim), target.after),
            "success_loss": succeeded,
            "nce_loss": info_nce(
                functional.normalize(z.here, dim=-1), functional.normalize(z.after, dim=-1),
                self.bank, self.temperature,
            ),
            "align_loss": -functional.cosine_similarity(z.after - z.here, z.aim - z.here).mean(),
        }  # fmt: skip
        weights = (
            1.0, self.value_weight, self.state_weight, self.success_weight, self.nce_weight,
            self.align_weight,
        )  # fmt: skip
        parts = [weight * part for weight, part in zip(weights, losses.values(), strict=True)]
        loss = torch.stack(parts).sum()
        metrics |= own | {name: part.detach() for name, part in losses.items()}
        return loss, metrics | {"loss": loss.detach(), "positive_weight": weight}

    def _critic_loss(
        self, z: _Latents, target: _Latents, success: Tensor
    ) -> tuple[Tensor, Metrics]:
        with torch.no_grad():
            later = self._v(self.value_target, target.after, target.goal)
            wanted = td_target(success, success, later, self.discount)
        q = self._q(self.critic, z)
        loss = functional.smooth_l1_loss(q, wanted.expand_as(q), reduction="none").mean(1).sum()
        return loss, {"q": q.detach().mean()}

    def _value_loss(self, z: _Latents, target: _Latents) -> tuple[Tensor, Metrics]:
        with torch.no_grad():
            least = self._q(self.critic_target, target).amin(0)
        value = self._v(self.value, z.here, z.goal)
        return expectile_loss(least - value, self.expectile), {"value": value.detach().mean()}

    def _q(self, critic: StackedCritic, z: _Latents) -> Tensor:
        """Return Q [members, B] in [0, 1]."""
        return torch.sigmoid(critic(torch.cat([z.here, z.goal], -1), z.after))

    def _v(self, value: StackedValue, states: Tensor, goals: Tensor) -> Tensor:
        """Return V [B] in [0, 1] of latents."""
        return torch.sigmoid(value(torch.cat([states, goals], -1))[0])

    def propose(self, states: Tensor, goals: Tensor) -> Tensor:
        """Return the latents [B, d_model] to go to next, from those of states and goals."""
        return self.proposer(torch.cat([states, goals], -1))  # type: ignore[no-any-return]

    # Acting --------------------------------------------------------------------------------

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        actor: int = -1,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return the action for one observation or a batch; see ``GoalPolicy.predict``.

        Args:
            observation: see ``GoalPolicy.predict``.
            state: what the step before returned, its rows those of the batch; None at the start.
            episode_start: whether a new episode begins, [B]; such rows forget.
            deterministic: see ``GoalPolicy.predict``; this policy has one action per history.
            actor: see ``GoalPolicy.predict``.

        Raises:
            UserError: a state of another batch or agent; see also ``GoalPolicy.predict``.
        """
        if state is not None:
            self._memory = tuple(torch.as_tensor(part, device=self.device) for part in state)
            if episode_start is not None:
                begins = torch.as_tensor(np.atleast_1d(episode_start), device=self.device).bool()
                self._check_memory(len(begins))
                self._memory = SequenceEncoder.reset(self._memory, begins)
        try:
            actions, _ = super().predict(observation, None, None, deterministic, actor)
            assert self._memory is not None, "act() has set it"
            return actions, tuple(part.cpu().numpy() for part in self._memory)
        finally:
            self._memory = None

    def _check_memory(self, batch: int) -> None:
        """Raise unless the memory is one of so many rows."""
        shapes = [tuple(part.shape) for part in self._fresh_memory(batch)]
        found = [tuple(part.shape) for part in self._memory or ()]
        if found != shapes:
            raise UserError(
                f"predict(state=...) has parts of shapes {found}, expected {shapes}; pass the "
                "state that this agent returned for the same batch, or None at the start."
            )

    def _fresh_memory(self, batch: int) -> SequenceState:
        """Return the memory at the start of episodes: the batch in front, all zero."""
        if self.history == "state":
            return self.latents.sequence.initial_state(batch)
        width = self.policy.observation_dim
        zeros = self.latents.embed.weight.new_zeros(batch, self.context, width + 1)
        return zeros[..., :width], zeros[..., width]

    def is_deterministic(self, actor: int) -> bool:
        """Return True: there is one action per history."""
        return True

    def act(self, inputs: Tensor, deterministic: bool, actor: int) -> Tensor:
        """Return the inverse model's action on the way to the proposed latent."""
        if self._memory is None:
            self._memory = self._fresh_memory(len(inputs))
        self._check_memory(len(inputs))
        width = self.policy.observation_dim
        states, goals = inputs[:, :width], inputs[:, width:]
        here, self._memory = self._remember(states, self._memory)
        goal = self.latents.alone(goals)
        return self.inverse.mode(torch.cat([here, self.propose(here, goal), goal], -1))

    def _remember(self, states: Tensor, memory: SequenceState) -> tuple[Tensor, SequenceState]:
        """Return the latents of states [B, D], given the memory of those before, and add them."""
        if self.history == "state":
            return self.latents.step(states, memory)
        windows, mask = memory
        windows = torch.cat([windows[:, 1:], states[:, None]], dim=1)
        mask = torch.cat([mask[:, 1:], torch.ones_like(mask[:, :1])], dim=1)
        return self.latents(windows, mask)[:, -1], (windows, mask)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 < value < float("inf"):
            raise UserError(f"{name} is {value}; give a finite number > 0.")
