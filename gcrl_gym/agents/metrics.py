"""Means of metrics between two lines of the log, kept as tensors: no update waits for them."""

from __future__ import annotations

import math

from torch import Tensor

from gcrl_gym.errors import UserError

Metrics = dict[str, Tensor]


class MetricMeans:
    """Running sums of named scalar tensors."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, metrics: Metrics) -> None:
        """Add the metrics of one update, which may lack those of a skipped actor step."""
        for name, value in metrics.items():
            known = self._sums.get(name)
            if known is None:
                self._sums[name] = (value.clone(), 1)
            else:
                self._sums[name] = (known[0].add_(value), known[1] + 1)

    def pop(self, where: str) -> dict[str, float]:
        """Return the means and start again.

        Args:
            where: agent and update, for the error.

        Raises:
            UserError: a mean that is not a finite number.
        """
        means = {name: float(total) / count for name, (total, count) in self._sums.items()}
        self._sums.clear()
        for name, value in means.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{where}: {name} became {value}; lower learning_rate, or look for outliers in "
                    "the data."
                )
        return means
