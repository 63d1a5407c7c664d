"""Laws of hindsight goals: which row of the dataset becomes the goal of a transition."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from gcrl_gym.datasets.offline_dataset import OfflineDataset
from gcrl_gym.errors import UserError

Rows = npt.NDArray[np.int64]
Probabilities = tuple[float, float, float]
Future = Literal["geometric", "uniform"]
Support = Literal["full", "ogbench"]


class GoalLaw:
    """Draws goal rows: the current row, a future row of the episode, or a random row.

    Args:
        probabilities: of a current, future and random goal.
        future: law of the future rows.
        support: which rows can be goals; see `GoalSampler`.
        discount: of the geometric law.
        dataset: where the rows are.

    Raises:
        UserError: a geometric law with a discount outside (0, 1).
    """

    def __init__(
        self,
        probabilities: Probabilities,
        future: Future,
        support: Support,
        discount: float,
        dataset: OfflineDataset,
    ) -> None:
        self.p_current, self.p_future, self.p_random = probabilities
        self.future, self.support = future, support
        self.num_rows, self.step_rows = dataset.num_rows, dataset.step_rows
        if future == "geometric" and self.p_future > 0:
            if not 0 < discount < 1:
                raise UserError(
                    f"A geometric goal law needs a discount in (0, 1), found {discount}; "
                    "set GoalSampler(discount=...) or future='uniform'."
                )
            # floor(E * scale) + 1 with E ~ Exp(1) is geometric: P(> k) = exp(-k / scale)
            self.scale = -1.0 / math.log(discount)

    def draw(self, rows: Rows, ends: Rows, rng: np.random.Generator) -> Rows:
        """Draw one goal row for each of ``rows``, whose episodes end at the rows ``ends``."""
        if self.p_current == 1:
            return rows
        goals = self._future_rows(rows, ends, rng) if self.p_future > 0 else rows
        if self.p_future == 1:
            return goals
        choice = rng.random(len(rows))
        if self.p_random > 0:
            random = self._random_rows(len(rows), rng)
            goals = _choose(choice < 1 - self.p_random, goals, random)
        if self.p_current > 0:
            goals = _choose(choice < self.p_current, rows, goals)
        return goals

    def _future_rows(self, rows: Rows, ends: Rows, rng: np.random.Generator) -> Rows:
        if self.support == "ogbench":
            ends = ends - 1
        if self.future == "geometric":
            offsets = rng.standard_exponential(len(rows)) * self.scale
            return np.minimum(rows + 1 + offsets.astype(np.int64), ends)
        share = rng.random(len(rows))
        if self.support == "full":
            return rows + 1 + (share * (ends - rows)).astype(np.int64)
        first = np.minimum(rows + 1, ends)
        return np.rint(first + share * (ends - first)).astype(np.int64)

    def _random_rows(self, count: int, rng: np.random.Generator) -> Rows:
        if self.support == "full":
            return rng.integers(0, self.num_rows, size=count)
        return self.step_rows.take(rng.integers(0, len(self.step_rows), size=count))


def _choose(mask: npt.NDArray[np.bool_], yes: Rows, no: Rows) -> Rows:
    """Return ``np.where(mask, yes, no)``, three times faster: a random mask defeats branches."""
    chosen: Rows = no + (yes - no) * mask
    return chosen
