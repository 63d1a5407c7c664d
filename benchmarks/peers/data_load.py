"""Load the data of data_synthetic.py once and print seconds and peak memory, as JSON.

    python data_load.py {minari,ours,npz} FOLDER

Peak memory is that of the process above what it held after its imports.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py  # noqa: F401  (imported before the clock starts, for every candidate)
import minari
import numpy as np

from gcrl_gym.datasets.offline_dataset import OfflineDataset

ID = "bench/data-v0"


def minari_iteration(folder: Path) -> object:
    """Iterate over Minari's episodes and concatenate their columns."""
    episodes = list(minari.load_dataset(ID).iterate_episodes())
    return [
        np.concatenate([getattr(episode, name) for episode in episodes])
        for name in ("observations", "actions", "rewards", "terminations")
    ]


def ours(folder: Path) -> object:
    """Load as agents do."""
    return OfflineDataset.from_minari(ID)


def npz(folder: Path) -> object:
    """Read the columns from an uncompressed npz."""
    with np.load(folder / "columns.npz") as archive:
        return {name: archive[name] for name in archive}


def memory() -> float:
    """Return the present memory of the process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main(load: Callable[[Path], object], folder: Path) -> None:
    """Time one load."""
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    before = memory()
    start, start_cpu = time.perf_counter(), time.process_time()
    kept = load(folder)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    del kept
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak - before}))


if __name__ == "__main__":
    main({"minari": minari_iteration, "ours": ours, "npz": npz}[sys.argv[1]], Path(sys.argv[2]))
