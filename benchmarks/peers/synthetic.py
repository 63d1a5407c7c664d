"""Data for the update benchmarks: standard normal transitions in episodes of 1000 steps.

The values do not matter to the time of an update; the size of the arrays does (cache misses).
"""

from __future__ import annotations

import numpy as np

EPISODE = 1000


def transitions(rows: int, observation_dim: int, action_dim: int) -> dict[str, np.ndarray]:
    """Return ``rows`` transitions whose episodes end, unterminated, after 1000 steps.

    Returns:
        float32 observations [rows, D], next_observations [rows, D], actions [rows, A] in [-1, 1],
        rewards [rows]; bool terminals [rows] (all False) and timeouts [rows].
    """
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((rows, observation_dim), dtype=np.float32)
    next_observations = np.roll(observations, -1, axis=0)
    return {
        "observations": observations,
        "next_observations": next_observations,
        "actions": np.tanh(rng.standard_normal((rows, action_dim), dtype=np.float32)),
        "rewards": rng.standard_normal(rows, dtype=np.float32),
        "terminals": np.zeros(rows, dtype=bool),
        "timeouts": np.arange(1, rows + 1) % EPISODE == 0,
    }
