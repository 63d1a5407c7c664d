"""Memory of a dataset of 20 million rows: first load, later load, batches, columns mapped.

    python -m benchmarks.bench_large [--rows 2e6] [--folder /big/disk]

Writes the dataset as Minari HDF5 episodes in a temporary folder (about 1.2 GB, and as much again
for the column cache), which goes at the end. Every row is a fresh process; memory is above what it
held after its imports. Mapped pages count as resident while they are in use, but the system can
take them back; "private" is what it cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

OBSERVATION, ACTION, EPISODE, BATCHES = 10, 2, 1000, 200
ROW_BYTES = 4 * (OBSERVATION + ACTION + 2)
MAPPED, IN_MEMORY = "0", "1000"  # values of GCRL_MMAP_GIB
ID = "bench/large-v0"


def write(folder: Path, rows: int) -> None:
    """Write the dataset episode by episode, so that writing needs no memory either."""
    import h5py
    import minari
    import numpy as np
    from gymnasium import spaces
    from minari.serialization import serialize_space

    data = folder / ID / "data"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    flags = np.zeros(EPISODE, bool)
    count = rows // EPISODE
    with h5py.File(data / "main_data.hdf5", "w", libver="latest") as file:
        for index in range(count):
            group = file.create_group(f"episode_{index}")
            group["observations"] = rng.standard_normal((EPISODE + 1, OBSERVATION), np.float32)
            group["actions"] = rng.random((EPISODE, ACTION), np.float32)
            group["rewards"] = rng.random(EPISODE, np.float32)
            group["terminations"] = group["truncations"] = flags
    metadata = {
        "total_episodes": count,
        "total_steps": count * EPISODE,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": serialize_space(spaces.Box(-np.inf, np.inf, (OBSERVATION,))),
        "action_space": serialize_space(spaces.Box(0, 1, (ACTION,))),
        "dataset_id": ID,
        "minari_version": minari.__version__,
    }
    (data / "metadata.json").write_text(json.dumps(metadata))


def status(name: str) -> float:
    """Return a figure of /proc/self/status in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 2**10
    raise KeyError(name)


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Run ``work`` and return its seconds and its peaks of resident and private memory in MiB."""
    peak, stop = [status("RssAnon")], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], status("RssAnon"))

    before = {name: status(name) for name in ("VmRSS", "RssAnon")}
    watcher = threading.Thread(target=watch)
    watcher.start()
    start, start_cpu = time.perf_counter(), time.process_time()
    kept = work()
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    stop.set()
    watcher.join()
    del kept
    return {
        "seconds": seconds,
        "cpu": cpu,
        "peak": status("VmHWM") - before["VmRSS"],
        "private": max(peak[0], status("RssAnon")) - before["RssAnon"],
    }


def stage(name: str) -> None:
    """Run one stage in this process and print its figures."""
    import numpy as np
    import torch

    import gcrl_gym.datasets.minari_reader  # noqa: F401  (imported before the clock starts)
    from gcrl_gym.datasets import GoalSampler, OfflineDataset, TransitionSampler
    from gcrl_gym.datasets.sequences import SequenceSampler

    torch.set_num_threads(1)

    def load() -> object:
        return OfflineDataset.from_minari(ID)

    def batches(spec: TransitionSampler | GoalSampler | SequenceSampler, size: int) -> object:
        bound, rng = spec.bind(OfflineDataset.from_minari(ID)), np.random.default_rng(0)
        for _ in range(BATCHES):
            bound.sample(size, rng)
        return bound

    def goals() -> object:
        data = OfflineDataset.from_minari(ID)
        data.goal_is_observation = True
        bound, rng = GoalSampler().bind(data), np.random.default_rng(0)
        for _ in range(BATCHES):
            bound.sample(1024, rng)
        return bound

    work = {
        "load": load,
        "transitions": lambda: batches(TransitionSampler(), 256),
        "goals": goals,
        "sequences": lambda: batches(SequenceSampler(20), 64),
    }[name]
    print(json.dumps(measured(work)))


def in_fresh_process(name: str, folder: Path, limit: str) -> dict[str, float]:
    """Run a stage in a process of its own."""
    environment = os.environ | {
        "MINARI_DATASETS_PATH": str(folder),
        "GCRL_MMAP_GIB": limit,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    command = [sys.executable, __file__, "--stage", name]
    answer = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    result: dict[str, float] = json.loads(answer)
    return result


def run(rows: int, parent: str | None) -> int:
    """Write the dataset, run all stages and print the table."""
    needed, free = 4 * rows * ROW_BYTES, shutil.disk_usage(parent or tempfile.gettempdir()).free
    if free < needed:
        print(f"needs {needed / 2**30:.1f} GiB of disk, {free / 2**30:.1f} GiB are free; try "
              "--rows 2e6 or --folder", file=sys.stderr)  # fmt: skip
        return 1
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder, start = Path(name), time.perf_counter()
        write(folder, rows)
        size = (folder / ID / "data" / "main_data.hdf5").stat().st_size / 2**20
        print(f"{rows:,} rows, {size:,.0f} MiB of HDF5 written in "
              f"{time.perf_counter() - start:.0f} s; columns take {rows * ROW_BYTES / 2**20:,.0f} "
              "MiB")  # fmt: skip
        print(f"{'':<34} {'s CPU':>7} {'s wall':>7} {'MiB peak':>9} {'MiB private':>12}")
        for text, case, limit, fresh in (
            ("first load, in memory", "load", IN_MEMORY, True),
            ("first load, mapped", "load", MAPPED, True),
            ("later load, mapped", "load", MAPPED, False),
            ("load + 200 x 256 transitions", "transitions", MAPPED, False),
            ("load + 200 x 1024 goals", "goals", MAPPED, False),
            ("load + 200 x 64 sequences of 20", "sequences", MAPPED, False),
            ("later load, in memory", "load", IN_MEMORY, False),
        ):
            if fresh:
                shutil.rmtree(folder / ID / "gcrl_cache", ignore_errors=True)
            found = in_fresh_process(case, folder, limit)
            print(f"  {text:<32} {found['cpu']:7.2f} {found['seconds']:7.2f} "
                  f"{found['peak']:9,.0f} {found['private']:12,.0f}", flush=True)  # fmt: skip
    return 0


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=20e6, help="transitions (20e6)")
    parser.add_argument("--folder", help="where to write; the temporary folder by default")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        stage(arguments.stage)
        return 0
    return run(max(1, int(arguments.rows) // EPISODE) * EPISODE, arguments.folder)


if __name__ == "__main__":
    raise SystemExit(main())
