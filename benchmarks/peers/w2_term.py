"""The W2 terms of one POGO update alone, forward and backward: B = 256, K = 4, 6 action dims.

python benchmarks/peers/w2_term.py exact 2      (a chain of three actors has two such terms)
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from worker import serve

from gcrl_gym.transport import exact_w2, sinkhorn_w2


def make() -> Callable[[int], None]:
    """Return a runner of the terms named on the command line."""
    distance = {"exact": exact_w2, "sinkhorn": sinkhorn_w2}[sys.argv[1]]
    terms = int(sys.argv[2])
    generator = torch.Generator().manual_seed(0)
    samples, reference = torch.randn(2, 256, 4, 6, generator=generator).tanh()
    samples.requires_grad_()

    def run(updates: int) -> None:
        for _ in range(updates * terms):
            samples.grad = None
            distance(samples, reference).backward()

    return run


if __name__ == "__main__":
    serve(make)
