"""CPU time of sequence encoders: Mamba in plain torch against mambapy, GRU, LSTM and a transformer.

    python benchmarks/bench_sequence.py

Two layers of width 128 on one thread: forward and backward over 16 windows of 100 steps, and single
steps as in acting. Ours have residuals and norms, as mambapy's; torch's recurrent networks do not.
"""

from __future__ import annotations

import statistics

from bench_updates import compare, passed
from peers.controller import WorkerSpec

# Least ratio of mambapy's time, and of a GRU's, to ours; greatest milliseconds of a step.
MAMBAPY_BAR, GRU_BAR, STEP_BAR = 3.0, 0.4, 0.2


def row(kind: str, what: str) -> WorkerSpec:
    """Return the worker of one kind of network."""
    name = kind if kind in ("nn.GRU", "nn.LSTM", "mambapy") else f"encoder {kind}"
    return WorkerSpec(name, ("sequence.py", kind, what), peer=kind == "mambapy")


def main() -> None:
    """Compare windows and steps."""
    windows = ("mamba", "mamba-store", "mamba-compiled", "gru", "transformer", "nn.GRU", "nn.LSTM")
    compare(
        "forward and backward, batch 16, length 100, width 128, 2 layers",
        [row(kind, "windows") for kind in (*windows, "mambapy")],
        [
            ("mambapy", "encoder mamba", MAMBAPY_BAR),
            ("nn.GRU", "encoder mamba", GRU_BAR),
            ("mambapy", "encoder mamba-compiled", 0.0),
            ("nn.GRU", "encoder mamba-compiled", 0.0),
            ("encoder mamba-store", "encoder mamba", 0.0),
            ("encoder transformer", "encoder mamba", 0.0),
        ],
    )
    times = compare(
        "one step, batch 1, width 128, 2 layers",
        [row(kind, "step") for kind in ("mamba", "gru", "transformer", "nn.GRU", "mambapy")],
        [("mambapy", "encoder mamba", 0.0), ("nn.GRU", "encoder mamba", 0.0)],
    )
    step = statistics.median(times["encoder mamba"])
    verdict = passed(step <= STEP_BAR)
    print(
        f"    encoder mamba: {step:.3f} ms  (bar {STEP_BAR:g} ms on a core of its own: {verdict})"
    )


if __name__ == "__main__":
    main()
