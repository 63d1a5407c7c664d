"""Goal-conditioned behaviour cloning: imitate the action that led to a state reached later.

Ghosh et al., "Learning to Reach Goals via Iterated Supervised Learning" (2019); networks and goals
as in OGBench (Park et al. 2024). Without goals in the data it is plain behaviour cloning.

    L(pi) = -E[ log pi(a | s, g) ],  g a later state of the same episode

For continuous actions this is half the squared error of the mean.

Deviations: OGBench samples with unit variance; here the scale of sampled actions is fitted to the
residuals (it shares no parameter with the mean). The default sizes are smaller than OGBench's 3x512
and batch of 1024, which the preset "auto" has for its sets.
"""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from torch import Tensor

from gcrl_gym.agents import goals
from gcrl_gym.agents.base import OfflineAgent
from gcrl_gym.agents.inputs import check_probability
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch, GoalSampler
from gcrl_gym.networks.encoders import EncoderKind
from gcrl_gym.networks.steps import minimize


class GCBC(OfflineAgent):
    """Goal-conditioned behaviour cloning, for continuous and discrete actions.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        hidden_sizes: widths of the policy's hidden layers.
        encoder: of pictures; "auto" is "impala_small" where observations are pictures.
        p_aug: probability that the pictures of a batch are cropped at random.
        **common: see ``OfflineAgent``.

    Raises:
        UserError: p_aug outside [0, 1]; see also ``OfflineAgent``.
    """

    name = "gcbc"
    # Future goals on every kind of data, as in OGBench.
    sampler = GoalSampler(
        value=(0.0, 1.0, 0.0), actor=(0.0, 1.0, 0.0), support="ogbench", reward="index"
    )
    action_spaces = (spaces.Box, spaces.Discrete)

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        hidden_sizes: tuple[int, ...] = (256, 256),
        encoder: EncoderKind = "auto",
        p_aug: float = 0.0,
        **common: Any,
    ) -> None:
        self.hidden_sizes, self.encoder = tuple(hidden_sizes), encoder
        self.p_aug = check_probability(p_aug, "p_aug")
        super().__init__(env, dataset, **common)

    def build(self) -> None:
        """Make the policy and its optimiser."""
        self.actor = self.add_network("actor", lambda: goals.make_policy(self, self.encoder))
        self.actor_optimizer = self.add_optimizer("actor", self.actor)

    def update(self, batch: Batch) -> Metrics:
        """Take one step of maximum likelihood."""
        batch = goals.crop(self, batch, self.p_aug)
        asked = goals.join(batch.observations, batch.actor_goals)
        _, log_prob, scale, metrics = goals.imitation(self.actor, asked, batch.actions)
        loss = -log_prob.mean()
        minimize(self.actor_optimizer, loss + scale)
        return metrics | {"actor_loss": loss.detach()}

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the crops' noise."""
        return goals.crop_noise(self.p_aug, batch_size)

    def act(self, inputs: Tensor, deterministic: bool, actor: int) -> Tensor:
        """Return the mean or likeliest action, or a sample."""
        return goals.act(self, self.actor, inputs, deterministic)
