"""Sizes of the sampling benchmarks, the same for every loader."""

from __future__ import annotations

import numpy as np
from synthetic import transitions

BATCH = {"transitions": 256, "goals": 1024, "sequences": 64}
WIDTHS = {"transitions": (17, 6), "goals": (29, 8), "sequences": (17, 6)}  # observation, action
CONTEXT = 20  # transitions in a sequence


def data(case: str) -> dict[str, np.ndarray]:
    """Return a million transitions of the case's widths."""
    return transitions(1_000_000, *WIDTHS[case])
