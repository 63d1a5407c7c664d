"""`SequenceSampler`: windows of consecutive transitions of one episode, padded to one length.

A window belongs to a uniformly drawn transition ``t``; here ``context = 4`` in an episode of six
transitions, ``.`` being padding (zeros, mask 0)::

    padding    t    window           mask
    "left"     1    .  .  0  1       0 0 1 1      ends at t, padded before the episode
    "left"     5    2  3  4  5       1 1 1 1
    "right"    1    1  2  3  4       1 1 1 1      starts at t, padded behind the episode
    "right"    5    5  .  .  .       1 0 0 0
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcrl_gym.datasets.columns import Columns
from gcrl_gym.datasets.offline_dataset import OfflineDataset
from gcrl_gym.datasets.samplers import BoundTransitions, place
from gcrl_gym.errors import UserError, nearest

Padding = Literal["left", "right"]

_BLOCK_ROWS = 2**20


@dataclass
class SequenceBatch:
    """Windows of ``K`` transitions as tensors on the agent's device; zeros where ``mask`` is 0.

    The names that `Batch` has too mean the same, with an axis ``K`` behind the batch axis. Padding
    is zero as sampled; scales applied later move it, which the mask makes irrelevant.

    Args:
        observations: ``[B, K, *observation shape]`` float32, or integers as stored.
        actions: ``[B, K, A]`` float32 or ``[B, K]`` int64.
        rewards: ``[B, K]`` float32, as recorded.
        terminated: ``[B, K]`` float32, 1 where nothing is bootstrapped.
        next_observations: like ``observations``.
        goals: ``[B, K, G]`` recorded desired goals, width 0 where there are none.
        actor_goals: the same tensor.
        returns_to_go: ``[B, K]`` float32 undiscounted sum of rewards from here to the episode's
            end, this one included.
        timesteps: ``[B, K]`` int64 index of the transition in its episode.
        mask: ``[B, K]`` float32, 1 where there is a transition.
        noise: random inputs of the update by name; filled by the training loop.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    next_observations: Tensor
    goals: Tensor
    actor_goals: Tensor
    returns_to_go: Tensor
    timesteps: Tensor
    mask: Tensor
    noise: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class SequenceSampler:
    """Windows of ``context`` consecutive transitions, one per uniformly drawn transition.

    Args:
        context: number of transitions ``K`` in a window.
        padding: ``"left"``: the window ends at the drawn transition; ``"right"``: it starts there.

    Raises:
        UserError: a context that is not a whole number >= 1, an unknown padding.
    """

    context: int
    padding: Padding = "left"

    def __post_init__(self) -> None:
        given: Any = self.context  # annotations bind nobody
        whole = isinstance(given, int | float | np.integer) and not isinstance(given, bool)
        if not whole or given != given // 1 or not 1 <= given < math.inf:
            raise UserError(
                f"SequenceSampler(context={self.context!r}): expected a whole number >= 1."
            )
        if self.padding not in ("left", "right"):
            raise UserError(
                f"SequenceSampler(padding={self.padding!r}): expected 'left' or 'right'."
                f"{nearest(self.padding, ('left', 'right'))}"
            )

    def bind(
        self,
        dataset: OfflineDataset,
        *,
        discount: float = 0.99,
        device: torch.device | str = "cpu",
        goal_env: Any = None,
    ) -> BoundSequences:
        """Tie the sampler to a dataset; ``discount`` and ``goal_env`` are not used.

        Args:
            dataset: where to draw from.
            discount: ignored: returns-to-go are undiscounted.
            device: where batches go; the table moves there too when it fits.
            goal_env: ignored: rewards and goals are the recorded ones.
        """
        return BoundSequences(int(self.context), self.padding, dataset, torch.device(device))


class BoundSequences:
    """A `SequenceSampler` tied to a dataset and a device.

    Args:
        context: transitions in a window.
        padding: side of the padding.
        dataset: where the rows are.
        device: where batches go.
    """

    reward_rule = "recorded"

    def __init__(
        self, context: int, padding: Padding, dataset: OfflineDataset, device: torch.device
    ) -> None:
        self.device, self.context = device, context
        self.transitions = BoundTransitions(dataset, device)
        # Transition i is in the episode e with first[e] <= i < first[e + 1]; each episode before
        # has one row more than transitions, so its row is i + e. No table of all rows is needed.
        self.first = np.concatenate(([0], np.cumsum(dataset.columns.lengths)))
        self.offsets = np.arange(context) - (context - 1 if padding == "left" else 0)
        self.returns_to_go = place(returns_to_go(dataset.columns), device)

    def sample(self, batch_size: int, rng: np.random.Generator) -> SequenceBatch:
        """Draw ``batch_size`` independent windows."""
        drawn = rng.integers(0, self.first[-1], size=batch_size)
        return self.windows(drawn)

    def windows(self, drawn: npt.NDArray[np.int64]) -> SequenceBatch:
        """Return the windows of these transitions, counted over the dataset from 0."""
        episode = np.searchsorted(self.first, drawn, side="right") - 1
        first, last = self.first[episode], self.first[episode + 1]
        wanted = drawn[:, None] + self.offsets
        real = (wanted >= first[:, None]) & (wanted < last[:, None])
        chosen = np.where(real, wanted, drawn[:, None])  # padding: any row, as it is emptied
        rows = (chosen + episode[:, None]).reshape(-1)
        timesteps = (chosen - first[:, None]) * real
        padding = np.flatnonzero(~real)
        batch = self.transitions.gather(rows, padding)
        returns = self.transitions.select(self.returns_to_go, rows, padding)

        def unfold(flat: Tensor) -> Tensor:
            return flat.reshape(*real.shape, *flat.shape[1:])

        goals = unfold(batch.goals)
        return SequenceBatch(
            observations=unfold(batch.observations),
            actions=unfold(batch.actions),
            rewards=unfold(batch.rewards),
            terminated=unfold(batch.terminated),
            next_observations=unfold(batch.next_observations),
            goals=goals,
            actor_goals=goals,
            returns_to_go=unfold(returns),
            timesteps=torch.from_numpy(timesteps).to(self.device),
            mask=torch.from_numpy(real.astype(np.float32)).to(self.device),
        )


def returns_to_go(columns: Columns) -> npt.NDArray[np.float32]:
    """Return the sum of rewards from each row to its episode's end, float32 ``(rows,)``.

    Sums are float64, over blocks of whole episodes, so that neither the error nor the memory of
    the intermediate results grows with the dataset.
    """
    rewards, lengths = columns["rewards"], columns.lengths
    ends = columns.episode_ends + 1
    result = np.empty(len(rewards), np.float32)
    first = 0
    while first < len(ends):
        start = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, start + _BLOCK_ROWS)))
        stop = int(ends[last - 1])
        before = np.concatenate(([0.0], np.cumsum(rewards[start:stop], dtype=np.float64)))
        total = np.repeat(before[ends[first:last] - start], lengths[first:last] + 1)
        result[start:stop] = total - before[:-1]
        first = last
    return result
