"""The controller's end: starts workers, runs them in turn, and compares their CPU time.

Chunks of about half a second go A B C A B C ..., so that a change of the machine's speed meets all
of them; ratios are taken within a round and their median is reported.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
ROUNDS = 7
CHUNK_SECONDS = 0.6

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}


class SkippedError(Exception):
    """A worker that cannot run here, with the reason that its row prints."""


@dataclass(frozen=True)
class WorkerSpec:
    """What to start.

    Args:
        name: the row's name.
        command: script in benchmarks/peers and its arguments.
        peer: run by the peers' interpreter (PEERS_PYTHON) instead of this one.
        checkout: environment variable that must name an existing folder.
    """

    name: str
    command: tuple[str, ...]
    peer: bool = False
    checkout: str | None = None

    def interpreter(self) -> str:
        """Return the Python to run, or say why there is none."""
        if self.checkout and not Path(os.environ.get(self.checkout, "not set")).is_dir():
            raise SkippedError(f"not found ({self.checkout} names no checkout)")
        if not self.peer:
            return sys.executable
        python = os.environ.get("PEERS_PYTHON", "")
        if not Path(python).is_file():
            raise SkippedError("not found (PEERS_PYTHON names no interpreter)")
        return python


class Worker:
    """One running worker process.

    Attributes:
        ready: seconds from the end of the worker's imports to the end of its first update.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        environment = os.environ | ONE_THREAD
        interpreter = spec.interpreter()
        if not spec.peer:
            environment["PYTHONPATH"] = str(FOLDER.parents[1])
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (close() closes it)
        self._process = subprocess.Popen(
            [interpreter, str(FOLDER / spec.command[0]), *spec.command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        try:
            self.ready: float = json.loads(self._read())["ready"]
        except SkippedError:
            self.close()
            raise

    def run(self, updates: int) -> float:
        """Run updates and return their process CPU time in seconds."""
        print(f"run {updates}", file=self._process.stdin, flush=True)
        return float(self._read())

    def close(self) -> None:
        """End the process: it leaves when its input ends."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines() or ["it ended without a message"]
            raise SkippedError(last[-1])
        return line


@contextmanager
def started(specs: Iterable[WorkerSpec]) -> Iterator[dict[str, Worker]]:
    """Start the workers that can run here; print a row for each that cannot."""
    with ExitStack() as stack:
        workers = {}
        for spec in specs:
            try:
                workers[spec.name] = Worker(spec)
            except SkippedError as reason:
                print(f"  {spec.name:<40} skipped: {reason}", flush=True)
                continue
            stack.callback(workers[spec.name].close)
        yield workers


def measure(workers: dict[str, Worker]) -> dict[str, list[float]]:
    """Return CPU milliseconds per update of every worker, one value per round."""
    updates = {}
    for name, worker in workers.items():
        worker.run(20)  # warm: allocator, caches, whatever compiles late
        updates[name] = max(1, round(20 * CHUNK_SECONDS / worker.run(20)))
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(ROUNDS):
        for name, worker in workers.items():
            times[name].append(1000 * worker.run(updates[name]) / updates[name])
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float | None:
    """Return how many times faster ``fast`` is (median over rounds), None if one is absent."""
    if slow not in times or fast not in times:
        return None
    return statistics.median(a / b for a, b in zip(times[slow], times[fast]))
