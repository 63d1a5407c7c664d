"""Laws of hindsight goals: which row of the dataset becomes the goal of a transition."""

from __future__ import annotations

import math
import re
from typing import Literal

import numpy as np
import numpy.typing as npt

from gcrl_gym.datasets.offline_dataset import OfflineDataset
from gcrl_gym.errors import UserError

Rows = npt.NDArray[np.int64]
Probabilities = tuple[float, float, float]
ActorProbabilities = Probabilities | Literal["auto"]
Future = Literal["geometric", "uniform"]
Support = Literal["full", "ogbench"]


# OGBench's sets by their kind: elsewhere the policy learns from what the same episode reached.
_ACTOR_GOALS = {"stitch": (0.0, 0.5, 0.5), "explore": (0.0, 0.0, 1.0)}


def actor_probabilities(given: ActorProbabilities, dataset: OfflineDataset) -> Probabilities:
    """Return probabilities as given, or for "auto" those that OGBench has for the kind of data."""
    if given != "auto":
        return given
    name = str(dataset.metadata.get("dataset_id", ""))
    words = re.split(r"[-/]", name)
    return next((_ACTOR_GOALS[word] for word in words if word in _ACTOR_GOALS), (0.0, 1.0, 0.0))


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
        goals = self.future_rows(rows, ends, rng) if self.p_future > 0 else rows
        if self.p_future == 1:
            return goals
        choice = rng.random(len(rows))
        if self.p_random > 0:
            random = self.random_rows(len(rows), rng)
            goals = choose(choice < 1 - self.p_random, goals, random)
        if self.p_current > 0:
            goals = choose(choice < self.p_current, rows, goals)
        return goals

    def last(self, ends: Rows) -> Rows:
        """Return the last rows that can be goals in the episodes that end at the rows ``ends``."""
        return ends - 1 if self.support == "ogbench" else ends

    def future_rows(self, rows: Rows, ends: Rows, rng: np.random.Generator) -> Rows:
        """Draw a later row of the episode for each of ``rows``; arguments as of `draw`."""
        ends = self.last(ends)
        if self.future == "geometric":
            offsets = rng.standard_exponential(len(rows)) * self.scale
            return np.minimum(rows + 1 + offsets.astype(np.int64), ends)
        share = rng.random(len(rows))
        if self.support == "full":
            return rows + 1 + (share * (ends - rows)).astype(np.int64)
        first = np.minimum(rows + 1, ends)
        return np.rint(first + share * (ends - first)).astype(np.int64)

    def random_rows(self, count: int, rng: np.random.Generator) -> Rows:
        """Draw rows of the whole dataset."""
        if self.support == "full":
            return rng.integers(0, self.num_rows, size=count)
        return self.step_rows.take(rng.integers(0, len(self.step_rows), size=count))


def choose(mask: npt.NDArray[np.bool_], yes: Rows, no: Rows) -> Rows:
    """Return ``np.where(mask, yes, no)``, three times faster: a random mask defeats branches."""
    chosen: Rows = no + (yes - no) * mask
    return chosen
