"""Goal-conditioned implicit Q-learning: IQL's value and critics on hindsight goals.

Kostrikov, Nair and Levine, "Offline Reinforcement Learning with Implicit Q-Learning" (2021), made
goal-conditioned by Park et al., "OGBench" (2024); settings and order of the steps as in OGBench.

    V       L(V)  = E[ |tau - 1(u < 0)| * u^2 ],  u = min_j Q'_j(s, g, a) - V(s, g)
    Q       L(Q)  = sum_j E[ (Q_j(s, g, a) - r - discount * (1 - reached) * V(s', g))^2 ]
    actor 0 DDPG+BC  -E[min_j Q_j(s, g, mean)] / E|Q| - alpha * E[log pi(a | s, g)]
            AWR      -E[ min(exp(alpha * A), 100) * log pi(a | s, g) ],  A = min_j Q_j - V
    chain   E(pi_i) = -E[ min_j Q_j(s, g, mean_i) ]

One optimiser takes all three steps at once, from the weights before it; so does the average that Q'
follows. Rewards are 0 where the goal is the state, else -1. Discrete actions are AWR's.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from gymnasium import spaces
from torch import Tensor

from gcrl_gym.agents import goals
from gcrl_gym.agents.chained import ChainAgent
from gcrl_gym.agents.inputs import check_expectile, check_probability, not_negative
from gcrl_gym.agents.losses import expectile_loss, td_target, twin_loss
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch, GoalSampler
from gcrl_gym.networks import ContinuousPolicy, StackedCritic, StackedValue
from gcrl_gym.networks.encoders import EncoderKind
from gcrl_gym.networks.steps import accumulate, soft_update


class GCIQL(ChainAgent):
    """Goal-conditioned implicit Q-learning, with an optional chain of JKO actors.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        actor_loss: "ddpgbc", "awr", or "auto": "ddpgbc" for continuous actions, else "awr".
        alpha: weight of imitation in DDPG+BC; inverse temperature of AWR.
        expectile: of the value function, in (0, 1).
        discount: of future rewards and of the goals' geometric law, in (0, 1).
        tau: fraction by which the target critics follow.
        hidden_sizes: widths of the hidden layers of all networks.
        layer_norm: normalise the hidden layers of value function and critics.
        encoder: of pictures; "auto" is "impala_small" where observations are pictures.
        p_aug: probability that the pictures of a batch are cropped at random.
        batch_size: see ``OfflineAgent``.
        **common: see ``ChainAgent`` and ``OfflineAgent``.

    Raises:
        UserError: an expectile outside (0, 1), a negative alpha, p_aug outside [0, 1], DDPG+BC or a
            chain with discrete actions; see also ``ChainAgent``.
    """

    name = "gciql"
    finetunes: ClassVar[bool] = True
    action_spaces = (spaces.Box, spaces.Discrete)
    sampler = GoalSampler(actor="auto", support="ogbench")

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        actor_loss: Literal["auto", "ddpgbc", "awr"] = "auto",
        alpha: float = 0.3,
        expectile: float = 0.9,
        discount: float = 0.99,
        tau: float = 0.005,
        hidden_sizes: tuple[int, ...] = (512, 512, 512),
        layer_norm: bool = True,
        encoder: EncoderKind = "auto",
        p_aug: float = 0.0,
        batch_size: int = 1024,
        **common: Any,
    ) -> None:
        not_negative(alpha=alpha)
        self.actor_loss, self.alpha, self.expectile = actor_loss, alpha, check_expectile(expectile)
        self.discount, self.tau, self.hidden_sizes = discount, tau, tuple(hidden_sizes)
        self.layer_norm, self.encoder = layer_norm, encoder
        self.p_aug = check_probability(p_aug, "p_aug")
        super().__init__(env, dataset, batch_size=batch_size, **common)

    def build(self) -> None:
        """Make the value function, the twin critic with its target, and the actors."""
        self.kind_of_loss = goals.choose_loss(self, self.actor_loss)
        sizes: Any = {"layer_norm": self.layer_norm, "activation": "gelu", "init": "xavier"}

        def encode() -> Any:
            return goals.encoder(self, self.encoder, "observation", "goal")

        self.value = self.add_network(
            "value",
            lambda: StackedValue(
                self.input_dim, self.hidden_sizes, members=1, encoder=encode(), **sizes
            ),
        )
        self.critic = self.add_network(
            "critic",
            lambda: StackedCritic(
                self.input_dim, self.action_dim, self.hidden_sizes, encoder=encode(), **sizes
            ),
        )
        self.critic_target = self.add_target("critic_target", self.critic)
        self.actor = self.add_network("actor_0", lambda: goals.make_policy(self, self.encoder))
        self.optimizer = self.add_optimizer("agent", self.value, self.critic, self.actor)
        self.add_chain(self.actor)

    def update(self, batch: Batch) -> Metrics:
        """Take the joint step of V, Q and actor 0, then the steps of the chain."""
        batch = goals.crop(self, batch, self.p_aug)
        here = self.join(batch.observations, batch.goals)
        asked = self.join(batch.observations, batch.actor_goals)
        actions = goals.critic_actions(batch.actions, self, here)
        self.optimizer.zero_grad()
        loss, metrics = self._value_loss(here, actions)
        accumulate(loss, self.value)
        loss, own = self._critic_loss(here, actions, batch)
        accumulate(loss, self.critic)
        loss, more = self._actor_loss(asked, actions, batch)
        accumulate(loss, self.actor)
        soft_update(self.critic_target, self.critic, self.tau)
        self.optimizer.step()
        metrics |= own | {f"actor_0/{name}": value for name, value in more.items()}
        return metrics | self.update_chain(batch, asked)

    def _value_loss(self, here: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        with torch.no_grad():
            q = self.critic_target(here, actions).amin(0)
        value = self.value(here)[0]
        loss = expectile_loss(q - value, self.expectile)
        return loss, {"value_loss": loss.detach(), "value": value.detach().mean()}

    def _critic_loss(self, here: Tensor, actions: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        with torch.no_grad():
            after = self.value(self.join(batch.next_observations, batch.goals))[0]
        target = td_target(batch.rewards, batch.terminated, after, self.discount)
        q = self.critic(here, actions)
        loss = twin_loss(q, target)
        return loss, {"critic_loss": loss.detach(), "q": q.detach().mean()}

    def _actor_loss(self, asked: Tensor, actions: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        if self.kind_of_loss == "ddpgbc":
            return goals.ddpg_bc(
                self.actor, asked, actions, lambda a: self.critic(asked, a).amin(0), self.alpha
            )
        with torch.no_grad():
            advantage = self.critic(asked, actions).amin(0) - self.value(asked)[0]
        return goals.awr(self.actor, asked, batch.actions, advantage, self.alpha)

    def energy_of(
        self, policy: ContinuousPolicy, inputs: Tensor, noise: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return -min Q of a Gaussian's mean, as DDPG+BC climbs it, or of another's action."""
        actions = goals.chain_actions(policy, inputs, noise)
        q = self.critic(inputs, actions).amin(0)
        return -q, q

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the chain's noise and of the crops'."""
        return super().noise_shapes(batch_size) | goals.crop_noise(self.p_aug, batch_size)

    def act(self, inputs: Tensor, deterministic: bool, actor: int) -> Tensor:
        """Return an actor's mean or likeliest action, or a sample."""
        if isinstance(self.action_space, spaces.Discrete):
            return goals.act(self, self.actor, inputs, deterministic)
        return super().act(inputs, deterministic, actor)
