"""`WindowSampler`: relabelled transitions with the states that led to them.

The window of transition ``t`` holds the last ``context`` states up to ``t`` and the one after it;
here ``context = 4`` in an episode of five states, ``.`` being padding (zeros, mask 0)::

    t    window            mask
    1    .  .  0  1  2     0 0 1 1 1
    3    0  1  2  3  4     1 1 1 1 1

A causal encoder gives the latents of ``t`` (its last but one output) and of ``t + 1`` (its last) in
one pass. The batch is `GoalSampler`'s to the bit otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gcrl_gym.datasets.offline_dataset import OfflineDataset
from gcrl_gym.datasets.samplers import Batch, BoundGoals, BoundSampler, GoalSampler
from gcrl_gym.errors import UserError


@dataclass(frozen=True)
class WindowSampler(GoalSampler):
    """Relabelled transitions with windows of states, left-padded.

    Args:
        context: states of a window up to the transition's own.

    Raises:
        UserError: a context that is not a whole number >= 1.
    """

    context: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.context, bool) or self.context != int(self.context) or self.context < 1:
            raise UserError(f"WindowSampler(context={self.context!r}): give a whole number >= 1.")

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
                "WindowSampler needs goals, but the dataset has none; use goal-conditioned data."
            )
        discount = self.discount if self.discount is not None else discount
        return _BoundWindows(self, dataset, discount, torch.device(device), goal_env)


class _BoundWindows(BoundGoals):
    """Draws goals as `BoundGoals` does, and adds the windows."""

    def __init__(self, spec: WindowSampler, dataset: OfflineDataset, *arguments: Any) -> None:
        super().__init__(spec, dataset, *arguments)
        self.offsets = np.arange(1 - int(spec.context), 2)
        self.ends = dataset.columns.episode_ends
        self.starts = np.concatenate(([0], self.ends[:-1] + 1))

    def sample(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """Draw transitions, goals and windows."""
        rows, ends = self.draw_steps(batch_size, rng)
        value = self.value.draw(rows, ends, rng)
        actor = self.actor.draw(rows, ends, rng)
        batch, _ = self.relabelled(rows, value, actor)
        first = self.starts[np.searchsorted(self.ends, ends)]
        wanted = rows[:, None] + self.offsets
        real = wanted >= first[:, None]
        shown = np.where(real, wanted, rows[:, None]).reshape(-1)  # padding: any row, emptied
        states = self.observations_at(shown, np.flatnonzero(~real))
        batch.windows = states.reshape(*real.shape, *states.shape[1:])
        batch.mask = torch.from_numpy(real.astype(np.float32)).to(self.device)
        return batch
