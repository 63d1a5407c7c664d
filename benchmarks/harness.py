"""Fair timing on a noisy machine: the candidates take turns, and medians are compared.

    from benchmarks.harness import print_table, run_interleaved

    results = run_interleaved({"ours": lambda: f(1000), "theirs": lambda: g(1000)}, units=1000)
    print_table(results, unit="step")

The clock is the process's CPU time, so that a busy neighbour costs little; candidates that work in
other processes are timed with ``clock=time.perf_counter``.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Timing of one candidate.

    Attributes:
        seconds: median seconds per unit over all rounds.
        ratio: median over the rounds of (time of the first candidate / time of this one) in the
            same round: above 1 is faster than the first candidate.
        spread: difference of the quartiles of ``seconds``, as a share of the median.
    """

    seconds: float
    ratio: float
    spread: float


def run_interleaved(
    candidates: dict[str, Callable[[], object]],
    units: int = 1,
    rounds: int = 7,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Timing]:
    """Time candidates in turn: one warm-up each, then ``rounds`` rounds in alternating order.

    Args:
        candidates: name -> callable; every call does ``units`` units of work. The first one is the
            reference of the ratios.
        units: units of work per call, to get seconds per unit.
        rounds: rounds to time, at least 2.
        clock: returns seconds.

    Returns:
        Name -> timing, in the order of ``candidates``.
    """
    names = list(candidates)
    for call in candidates.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for index in range(rounds):
            for name in names if index % 2 == 0 else reversed(names):
                start = clock()
                candidates[name]()
                seconds[name].append((clock() - start) / units)
    finally:
        gc.enable()
    return {name: _summary(seconds[name], seconds[names[0]]) for name in names}


def _summary(times: list[float], reference: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4)
    ratio = statistics.median(other / own for other, own in zip(reference, times))
    return Timing(seconds=median, ratio=ratio, spread=(high - low) / median)


def print_table(
    results: dict[str, Timing], unit: str, skipped: dict[str, str] | None = None
) -> None:
    """Print one line per candidate; ``skipped`` maps names to reasons, such as ``not found``."""
    width = max(len(name) for name in [*results, *(skipped or {})])
    reference = next(iter(results), "")
    print(f"{'':{width}}  {unit + 's/s':>12}  {'us/' + unit:>10}  {'speed':>7}  spread")
    for name, timing in results.items():
        rate, micro = 1 / timing.seconds, timing.seconds * 1e6
        line = f"{name:{width}}  {rate:12,.0f}  {micro:10.2f}  {timing.ratio:6.2f}x"
        print(f"{line}  {timing.spread:6.0%}")
    for name, reason in (skipped or {}).items():
        print(f"{name:{width}}  skipped: {reason}")
    print(f"(speed: relative to {reference!r}, median over rounds taken in turn)")
