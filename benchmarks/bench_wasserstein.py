"""The W2 term of an update, forward and backward: geomloss, our batched Sinkhorn and the exact one.

    python benchmarks/bench_wasserstein.py

256 states, 6 action dims, one thread; K samples per state as in POGO (4) and more.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from harness import print_table, run_interleaved
from scipy.optimize import linear_sum_assignment

from gcrl_gym.transport import exact_w2, sinkhorn_w2
from gcrl_gym.transport.wasserstein import EXACT_MAX_SAMPLES

STATES, ACTION_DIM = 256, 6
BAR = 15.0

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def clouds(k: int, spread: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two action sets [256, K, 6]: independent (None), or neighbours ``spread`` apart."""
    generator = torch.Generator().manual_seed(k)
    a, noise = torch.randn(2, STATES, k, ACTION_DIM, generator=generator).tanh()
    return a, noise if spread is None else a + spread * noise


def runner(distance: Distance, k: int, calls: int) -> Callable[[], None]:
    """Return a callable of ``calls`` values with their gradients."""
    a, b = clouds(k, None)
    a.requires_grad_()

    def run() -> None:
        for _ in range(calls):
            a.grad = None
            distance(a, b).backward()

    return run


def assignment(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Return the exact value of every state, by scipy's linear assignment."""
    cost = ((a.double().numpy()[:, :, None] - b.double().numpy()[:, None]) ** 2).sum(-1)
    return np.array([matrix[linear_sum_assignment(matrix)].mean() for matrix in cost])


def errors(distance: Distance, k: int, spread: float | None) -> tuple[float, float]:
    """Return (relative error of the mean over states, largest error of one state)."""
    a, b = clouds(k, spread)
    reference = assignment(a, b)
    values = np.array([float(distance(a[i : i + 1], b[i : i + 1])) for i in range(STATES)])
    return abs(float(distance(a, b)) / reference.mean() - 1), np.abs(values - reference).max()


def main() -> None:
    """Print speed and error of each distance."""
    torch.set_num_threads(1)
    for k in (4, EXACT_MAX_SAMPLES, 16):
        distances: dict[str, Distance] = {
            "geomloss (sinkhorn)": sinkhorn_w2,
            "batched (sinkhorn, backend auto)": lambda a, b: sinkhorn_w2(a, b, backend="auto"),
        }
        if k <= EXACT_MAX_SAMPLES:
            distances["exact"] = exact_w2
        print(f"\nK = {k}, value and gradient")
        calls = 400 // k
        candidates = {name: runner(distance, k, calls) for name, distance in distances.items()}
        results = run_interleaved(candidates, units=calls)
        print_table(results, unit="call")
        if k == 4:
            held = "held" if results["exact"].ratio >= BAR else "MISSED"
            print(f"exact vs geomloss: {results['exact'].ratio:.1f}x  (bar {BAR:g}: {held})")
        print("error against scipy's assignment: of the mean (relative) / of one state (absolute)")
        for name, distance in distances.items():
            row = [errors(distance, k, spread) for spread in (None, 0.1, 0.01)]
            text = "   ".join(f"{mean:.1e} / {worst:.1e}" for mean, worst in row)
            print(f"  {name:34} apart, .1, .01:  {text}")


if __name__ == "__main__":
    main()
