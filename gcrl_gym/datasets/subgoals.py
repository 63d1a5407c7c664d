"""`SubgoalSampler`: goals for a hierarchy: one policy sets subgoals, another follows.

Here ``k`` steps ahead of transition ``t``, in an episode whose last goal row is ``T`` (OGBench's
HGCDataset)::

    subgoals                   row min(t + k, T)
    actor goals, future        row g of t+1 .. T, and as target on the way there row min(t + k, g)
    actor goals, random        any row, and as target row min(t + k, T)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gcrl_gym.datasets.goal_laws import choose
from gcrl_gym.datasets.offline_dataset import OfflineDataset
from gcrl_gym.datasets.samplers import Batch, BoundGoals, BoundSampler, GoalSampler
from gcrl_gym.errors import UserError


@dataclass(frozen=True)
class SubgoalSampler(GoalSampler):
    """Relabelled transitions with subgoals and targets some steps ahead.

    Args:
        steps: how far ahead, ``k``.

    Raises:
        UserError: steps that are not a whole number >= 1, or current goals for the policy.
    """

    steps: int = 25

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.steps, bool) or self.steps != int(self.steps) or self.steps < 1:
            raise UserError(f"SubgoalSampler(steps={self.steps!r}): give a whole number >= 1.")
        if self.actor != "auto" and self.actor[0] > 0:
            raise UserError(
                f"SubgoalSampler(actor={self.actor}): a policy of subgoals has no current goals; "
                "give 0 as the first probability."
            )

    def bind(
        self,
        dataset: OfflineDataset,
        *,
        discount: float = 0.99,
        device: torch.device | str = "cpu",
        goal_env: Any = None,
    ) -> BoundSampler:
        """Tie the sampler to a dataset; see `GoalSampler.bind`.

        Raises:
            UserError: a dataset without goals; see also `GoalSampler.bind`.
        """
        if dataset.goal_dim == 0:
            raise UserError(
                "SubgoalSampler needs goals, but the dataset has none; use goal-conditioned data."
            )
        discount = self.discount if self.discount is not None else discount
        return _BoundSubgoals(self, dataset, discount, torch.device(device), goal_env)


class _BoundSubgoals(BoundGoals):
    """Draws goals, subgoals and targets."""

    def __init__(self, spec: SubgoalSampler, *arguments: Any) -> None:
        super().__init__(spec, *arguments)
        self.ahead = int(spec.steps)

    def sample(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """Draw transitions, goals for both policies, and targets of the upper one."""
        rows, ends = self.draw_steps(batch_size, rng)
        value = self.value.draw(rows, ends, rng)
        subgoals = np.minimum(rows + self.ahead, self.actor.last(ends))
        goals = self.actor.future_rows(rows, ends, rng) if self.actor.p_future > 0 else rows
        targets = np.minimum(rows + self.ahead, goals)
        if self.actor.p_random > 0:
            future = rng.random(batch_size) >= self.actor.p_random
            goals = choose(future, goals, self.actor.random_rows(batch_size, rng))
            targets = choose(future, targets, subgoals)
        batch, parts = self.relabelled(rows, value, goals, subgoals, targets)
        _, batch.subgoals, batch.target_goals = parts
        batch.target_observations = self.observations_at(targets)
        return batch
