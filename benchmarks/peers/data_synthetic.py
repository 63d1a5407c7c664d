"""Write the synthetic data of bench_data.py: a Minari dataset and an uncompressed npz.

    python data_synthetic.py FOLDER

FOLDER becomes a Minari root with the dataset ``bench/data-v0`` and ``columns.npz`` beside it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from synthetic import EPISODE, transitions

ROWS, OBSERVATION, ACTION = 1_000_000, 17, 6


def main(folder: Path) -> None:
    """Write both."""
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    from gcrl_gym.datasets import OfflineDataset, write_minari

    data = transitions(ROWS, OBSERVATION, ACTION)
    buffers = []
    for start in range(0, ROWS, EPISODE):
        part = slice(start, start + EPISODE)
        # Any numbers will do for the last state of an episode.
        states = np.concatenate([data["observations"][part], data["observations"][:1]])
        buffers.append(
            EpisodeBuffer(
                observations=states,
                actions=data["actions"][part],
                rewards=data["rewards"][part],
                terminations=data["terminals"][part],
                truncations=data["timeouts"][part],
            )
        )
    dataset = write_minari(
        "bench/data-v0",
        buffers,
        observation_space=spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32),
        action_space=spaces.Box(-1, 1, (ACTION,), np.float32),
        metadata={"source": "synthetic"},
    )
    columns = OfflineDataset.from_minari(dataset)
    np.savez(
        folder / "columns.npz",
        observations=columns.observations,
        actions=columns.actions,
        rewards=columns.rewards,
        terminated=columns.columns["terminated"],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
