"""Loading and sampling data, ours against minari, numpy, OGBench's loader and d3rlpy, in one run.

    python benchmarks/bench_data.py

Loads run in fresh processes, in turn; samplers are worker processes (see benchmarks/peers). All use
one thread and the same synthetic million transitions.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from peers.controller import FOLDER, ONE_THREAD, WorkerSpec, measure, ratio, started

LOAD_ROUNDS = 5


def in_fresh_process(script: str, *arguments: str) -> str:
    """Run a script of benchmarks/peers on one thread and return what it prints."""
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": str(FOLDER.parents[1])}
    command = [sys.executable, str(FOLDER / script), *arguments]
    return subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def loading() -> None:
    """Time and peak memory of loading a Minari dataset: first load, later loads, the others."""
    print("\nLoad 1e6 transitions, obs 17, act 6 (HDF5, page cache warm)", flush=True)
    names = ("minari iterate + concatenate", "ours, first load", "ours, later load", "npz")
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        in_fresh_process("data_synthetic.py", folder)
        for _ in range(LOAD_ROUNDS):
            shutil.rmtree(Path(folder) / "bench/data-v0/gcrl_cache", ignore_errors=True)
            for name, case in zip(names, ("minari", "ours", "ours", "npz")):
                results[name].append(json.loads(in_fresh_process("data_load.py", case, folder)))
    for name, runs in results.items():
        cpu, seconds, peak = (median(runs, key) for key in ("cpu", "seconds", "peak"))
        print(f"  {name:<30} {cpu:7.3f} s CPU {seconds:7.3f} s wall {peak:7.0f} MiB peak")
    iteration, first, later, npz = names

    def report(text: str, value: float, bar: float) -> None:
        print(f"    {text}: {value:.2f}  (bar {bar:g}: {'held' if value <= bar else 'MISSED'})")

    def times(one: str, other: str, key: str) -> float:
        return statistics.median(a[key] / b[key] for a, b in zip(results[one], results[other]))

    report("time of the first load / minari's", times(first, iteration, "cpu"), 1.0)
    report("peak memory of the first load / minari's", times(first, iteration, "peak"), 0.5)
    report("time of a later load / npz's", times(later, npz, "cpu"), 3.0)


def median(runs: list[dict[str, float]], key: str) -> float:
    """Return the median of one figure."""
    return statistics.median(run[key] for run in runs)


def ogbench(case: str) -> WorkerSpec:
    """Return OGBench's own loader from its checkout."""
    return WorkerSpec(
        "OGBench's loader", ("sample_ogbench.py", case), peer=True, checkout="OGBENCH_DIR"
    )


def d3rlpy(case: str) -> WorkerSpec:
    """Return d3rlpy's replay buffer."""
    return WorkerSpec("d3rlpy's replay buffer", ("sample_d3rlpy.py", case), peer=True)


def sampling(title: str, ours: list[WorkerSpec], theirs: dict[WorkerSpec, float | None]) -> None:
    """Batches per CPU second of our samplers and the peers', and the bar for a ratio if any."""
    print(f"\n{title}", flush=True)
    with started([*ours, *theirs]) as workers:
        times = measure(workers)
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"  {name:<30} {1000 / middle:10,.0f} batches/s {1000 * middle:8.1f} us")
    for spec in ours:
        for peer, bar in theirs.items():
            value = ratio(times, peer.name, spec.name)
            if value is None:
                continue
            verdict = ""
            if bar is not None:
                verdict = f"  (bar {bar:g}: {'held' if value >= bar else 'MISSED'})"
            print(f"    {spec.name} vs {peer.name}: {value:.2f}x{verdict}")


def main() -> None:
    """Run all tables."""
    loading()
    sampling(
        "256 transitions, obs 17, act 6",
        [WorkerSpec("ours", ("sample_ours.py", "transitions"))],
        {ogbench("transitions"): 3.0, d3rlpy("transitions"): None},
    )
    sampling(
        "1024 transitions with value and actor goals, obs 29, act 8",
        [
            WorkerSpec("ours, support ogbench", ("sample_ours.py", "ogbench")),
            WorkerSpec("ours, support full", ("sample_ours.py", "goals")),
        ],
        {ogbench("goals"): 3.5},
    )
    sampling(
        "64 sequences of 20 transitions, obs 17, act 6",
        [WorkerSpec("ours", ("sample_ours.py", "sequences"))],
        {d3rlpy("sequences"): None},
    )


if __name__ == "__main__":
    main()
