"""Goal-conditioned implicit V-learning: values of states only, an expectile of what follows.

The value function of HIQL (Park et al., "HIQL: Offline Goal-Conditioned RL with Latent States as
Actions", 2023) with one policy, as in Park et al., "OGBench" (2024).

    V      L(V) = sum_i E[ |tau - 1(A' < 0)| * (r + discount * (1 - reached) * V'_i(s', g)
                                                - V_i(s, g))^2 ],
           A'   = r + discount * (1 - reached) * min_i V'_i(s', g) - mean_i V'_i(s, g)
    actor  L(pi) = -E[ min(exp(alpha * A), 100) * log pi(a | s, g) ],
           A    = mean_i V_i(s', g) - mean_i V_i(s, g)

Two heads: the targets V' decide the side of the expectile, and each head follows its own target.
One optimiser takes both steps at once, from the weights before it; so does the average that V'
follows. Rewards are 0 where the goal is the state, else -1.

Deviation: OGBench has no data without goals. There, rewards are the recorded ones and the policy's
advantage contains them: A = r + discount * (1 - terminated) * mean_i V_i(s') - mean_i V_i(s).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from gcrl_gym.agents import goals
from gcrl_gym.agents.base import OfflineAgent
from gcrl_gym.agents.inputs import check_expectile, check_probability, not_negative
from gcrl_gym.agents.losses import implicit_value_loss, td_target
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch, GoalSampler
from gcrl_gym.networks import StackedValue
from gcrl_gym.networks.encoders import EncoderKind
from gcrl_gym.networks.steps import accumulate, soft_update


class GCIVL(OfflineAgent):
    """Goal-conditioned implicit V-learning, for continuous and discrete actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        alpha: inverse temperature of the advantages that weigh imitation.
        expectile: of the value function, in (0, 1).
        discount: of future rewards and of the goals' geometric law, in (0, 1).
        tau: fraction by which the target values follow.
        hidden_sizes: widths of the hidden layers of all networks.
        layer_norm: normalise the hidden layers of the value function.
        encoder: of pictures; "auto" is "impala_small" where observations are pictures.
        p_aug: probability that the pictures of a batch are cropped at random.
        batch_size: see ``OfflineAgent``.
        **common: see ``OfflineAgent``.

    Raises:
        UserError: an expectile outside (0, 1), a negative alpha, p_aug outside [0, 1]; see also
            ``OfflineAgent``.
    """

    name = "gcivl"
    action_spaces = (spaces.Box, spaces.Discrete)
    sampler = GoalSampler(actor="auto", support="ogbench")
    needs_rewards: ClassVar[bool] = True

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        alpha: float = 10.0,
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
        self.alpha, self.expectile = alpha, check_expectile(expectile)
        self.discount, self.tau, self.hidden_sizes = discount, tau, tuple(hidden_sizes)
        self.layer_norm, self.encoder = layer_norm, encoder
        self.p_aug = check_probability(p_aug, "p_aug")
        super().__init__(env, dataset, batch_size=batch_size, **common)

    def build(self) -> None:
        """Make the two heads of the value function, their targets, and the policy."""
        self.value = self.add_network(
            "value",
            lambda: StackedValue(
                self.input_dim, self.hidden_sizes, activation="gelu", layer_norm=self.layer_norm,
                init="xavier", encoder=goals.encoder(self, self.encoder, "observation", "goal"),
            ),
        )  # fmt: skip
        self.value_target = self.add_target("value_target", self.value)
        self.actor = self.add_network("actor", lambda: goals.make_policy(self, self.encoder))
        self.optimizer = self.add_optimizer("agent", self.value, self.actor)

    def update(self, batch: Batch) -> Metrics:
        """Take the joint step of the value function and the policy."""
        batch = goals.crop(self, batch, self.p_aug)
        self.optimizer.zero_grad()
        loss, metrics = self._value_loss(batch)
        accumulate(loss, self.value)
        loss, more = self._actor_loss(batch)
        accumulate(loss, self.actor)
        soft_update(self.value_target, self.value, self.tau)
        self.optimizer.step()
        return metrics | more

    def _value_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        here = goals.join(batch.observations, batch.goals)
        with torch.no_grad():
            there = goals.join(batch.next_observations, batch.goals)
            before, after = self.value_target(torch.cat([here, there])).chunk(2, dim=1)
        targets = td_target(batch.rewards, batch.terminated, after, self.discount)
        values = self.value(here)
        loss = implicit_value_loss(values, before, targets, self.expectile)
        return loss, {"value_loss": loss.detach(), "value": values.detach().mean()}

    def _actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        asked = goals.join(batch.observations, batch.actor_goals)
        with torch.no_grad():
            there = goals.join(batch.next_observations, batch.actor_goals)
            before, after = self.value(torch.cat([asked, there])).mean(0).chunk(2)
            if not self.policy.goal_dim:
                after = td_target(batch.rewards, batch.terminated, after, self.discount)
        return goals.awr(self.actor, asked, batch.actions, after - before, self.alpha)

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the crops' noise."""
        return goals.crop_noise(self.p_aug, batch_size)

    def act(self, inputs: Tensor, deterministic: bool, actor: int) -> Tensor:
        """Return the mean or likeliest action, or a sample."""
        return goals.act(self, self.actor, inputs, deterministic)
