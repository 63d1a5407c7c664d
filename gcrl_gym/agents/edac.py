"""EDAC: SAC-N with fewer critics, whose gradients in the action are pushed apart.

An, Moon, Kim and Song, "Uncertainty-Based Offline Reinforcement Learning with Diversified
Q-Ensemble" (2021); settings and order of the steps as in CORL (github.com/tinkoff-ai/CORL,
edac.py). All losses are SAC-N's (see sac_n.py) but the critics':

    L(Q) = sum_j E[ (Q_j(s, a) - y)^2 ] + eta * D
    D    = E[ sum_{i != j} <u_i, u_j> ] / (N - 1),  u_j = g_j / (|g_j| + 1e-10),
           g_j = gradient of Q_j(s, a) with respect to the recorded action a

The gradient of D is of second order; see ``StackedMLP.with_gradients``. Published (N, eta):
halfcheetah and walker2d (10, 1), their medium-expert (10, 5); hopper (50, 1); antmaze (10, 1),
where it scores 0; the presets hold them.

Deviations: those of sac_n.py; the squared errors and D share one forward pass, and D is summed
without the pairs, which is the same number.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gcrl_gym.agents.chained import ChainAgent
from gcrl_gym.agents.ensembles import (
    diversity,
    q_and_gradients,
    soft_energy,
    soft_target,
    step_actor,
    step_temperature,
)
from gcrl_gym.agents.inputs import not_negative, whole_number
from gcrl_gym.agents.losses import twin_loss
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.agents.temperature import Temperature, check_temperature
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.errors import UserError
from gcrl_gym.networks import ContinuousPolicy, StackedCritic, TanhGaussianPolicy
from gcrl_gym.networks.steps import minimize, soft_update


class EDAC(ChainAgent):
    """SAC-N with diversified critics and an optional chain of JKO actors; continuous actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        num_critics: N, at least 2.
        eta: weight of the critics' diversity.
        target_entropy: of the policy before its temperature settles; None is minus the number of
            action dimensions.
        alpha_learning_rate: of the temperature; None is ``learning_rate``.
        discount: of future rewards, in [0, 1).
        tau: fraction by which the target critics follow.
        hidden_sizes: widths of the hidden layers of all networks.
        normalize: see ``OfflineAgent``.
        **common: see ``ChainAgent`` and ``OfflineAgent``.

    Raises:
        UserError: a number of critics below 2, a negative eta, a target entropy or learning rate
            that cannot be; see also ``ChainAgent``.
    """

    name = "edac"

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        num_critics: int = 10,
        eta: float = 1.0,
        target_entropy: float | None = None,
        alpha_learning_rate: float | None = None,
        discount: float = 0.99,
        tau: float = 0.005,
        hidden_sizes: tuple[int, ...] = (256, 256, 256),
        normalize: bool = False,
        **common: Any,
    ) -> None:
        check_temperature(target_entropy, alpha_learning_rate)
        not_negative(eta=eta)
        self.num_critics, self.eta = whole_number(num_critics, "num_critics"), eta
        if self.num_critics < 2:
            raise UserError("num_critics is 1; one critic has none to differ from. Use SACN, or 2.")
        self.target_entropy, self.alpha_learning_rate = target_entropy, alpha_learning_rate
        self.discount, self.tau, self.hidden_sizes = discount, tau, tuple(hidden_sizes)
        super().__init__(env, dataset, normalize=normalize, **common)

    def build(self) -> None:
        """Make the temperature, the critics with their targets, and the actors."""
        sizes = (self.input_dim, self.action_dim, self.hidden_sizes)
        self.temperature = self.add_network("temperature", Temperature)
        self.critic = self.add_network(
            "critic", lambda: StackedCritic(*sizes, members=self.num_critics, init="small_critic")
        )
        self.critic_target = self.add_target("critic_target", self.critic)
        self.actor = self.add_network(
            "actor_0",
            lambda: TanhGaussianPolicy(*sizes, log_std_range=(-5.0, 2.0), small_heads=True),
        )
        self.temperature_optimizer = self.add_optimizer(
            "temperature", self.temperature, rate=self.alpha_learning_rate
        )
        self.critic_optimizer = self.add_optimizer("critic", self.critic)
        self.actor_optimizer = self.add_optimizer("actor_0", self.actor)
        self.add_chain(self.actor)

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the noise of actor 0, here and next, and of the chain."""
        own = {
            # Two actions: the temperature's and the actor's.
            "actor_0": (batch_size, 2, self.action_dim),
            "next": (batch_size, self.action_dim),
        }
        return own | super().noise_shapes(batch_size)

    def update(self, batch: Batch) -> Metrics:
        """Take the steps of the temperature, actor 0, the critics and the chain, in this order."""
        asked = self.join(batch.observations, batch.actor_goals)
        # Of one forward pass: the temperature's step does not change the actor.
        actions, log_prob = self.actor.sample_with_log_prob(
            asked.unsqueeze(1), batch.noise["actor_0"]
        )
        metrics = step_temperature(
            self.temperature, self.temperature_optimizer, log_prob[:, 0], self.target_entropy,
            self.action_dim,
        )  # fmt: skip
        alpha = metrics["alpha"]
        metrics |= step_actor(
            self.actor_optimizer, self.critic, asked, actions[:, 1], log_prob[:, 1], alpha
        )
        metrics |= self._update_critic(alpha, batch)
        soft_update(self.critic_target, self.critic, self.tau)
        return metrics | self.update_chain(batch, asked)

    def _update_critic(self, alpha: Tensor, batch: Batch) -> Metrics:
        there = self.join(batch.next_observations, batch.goals)
        target = soft_target(self.actor, self.critic_target, there, alpha, batch, self.discount)
        here = self.join(batch.observations, batch.goals)
        q, gradients = q_and_gradients(self.critic, here, batch.actions)
        error, alike = twin_loss(q, target), diversity(gradients)
        minimize(self.critic_optimizer, error + self.eta * alike)
        return {
            "critic_loss": error.detach(),
            "diversity_loss": alike.detach(),
            "q": q.detach().mean(),
        }

    def energy_of(
        self, policy: ContinuousPolicy, inputs: Tensor, noise: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return alpha * log pi - min Q of the policy's action, and min Q."""
        return soft_energy(policy, self.critic, inputs, noise, self.temperature().detach())
