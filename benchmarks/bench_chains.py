"""CPU time of the eight algorithms that take chains, against CORL's, in one run.

    python benchmarks/bench_chains.py [agent ...]

Batch 256 (ReBRAC 1024), observations of width 17, actions of width 6, published widths. CORL's
ReBRAC is JAX, its FQL does not exist: those two are timed alone.
"""

from __future__ import annotations

import sys
from typing import Any

from bench_updates import compare, ours
from peers.controller import WorkerSpec

# Least ratio to CORL with the fast matrix products; None where CORL has no such learner.
BARS: dict[str, float | None] = {
    "td3_bc": 1.7, "iql": 1.7, "awac": 1.7, "cql": 1.7, "sac_n": 2.0, "edac": 1.7, "rebrac": None,
    "fql": None,
}  # fmt: skip
LARGE_ENSEMBLE = 500


def agent(name: str) -> None:
    """Time one algorithm: eager, compiled, with torch's own products, with a chain, and CORL's."""
    fast, exact, peer = f"ours {name}", f"ours {name}, matmul highest", f"CORL {name}"
    compiled, chain = f"ours {name}, compiled", f"ours {name}, two extra actors"
    bar = BARS[name]
    rows = [
        ours(fast, name),
        ours(exact, name, matmul="highest"),
        ours(compiled, name, compile=True),
        ours(chain, name, w2_weights=[10.0, 10.0], backend="auto"),
    ]
    ratios = [(exact, fast, 0.0), (fast, compiled, 0.0), (chain, fast, 0.0)]
    if bar is not None:
        rows.append(_corl(peer, name))
        ratios = [(peer, fast, bar), (peer, exact, 0.0), (peer, compiled, 0.0), *ratios]
    compare(f"{name}: one update, obs 17, act 6", rows, ratios)


def large_ensemble() -> None:
    """Time SAC-N with 500 critics, as published for hopper-medium."""
    fast, peer = f"ours sac_n, N = {LARGE_ENSEMBLE}", f"CORL sac_n, N = {LARGE_ENSEMBLE}"
    rows = [
        ours(fast, "sac_n", num_critics=LARGE_ENSEMBLE),
        _corl(peer, "sac_n", str(LARGE_ENSEMBLE)),
    ]
    compare("sac_n with 500 critics: one update", rows, [(peer, fast, 0.0)])


def _corl(row: str, *arguments: Any) -> WorkerSpec:
    return WorkerSpec(row, ("corl.py", *arguments), peer=True, checkout="CORL_DIR")


def main() -> None:
    """Run the comparisons of the agents named on the command line, or of all."""
    chosen = sys.argv[1:]
    for name in chosen or BARS:
        agent(name)
    if not chosen or "sac_n" in chosen:
        large_ensemble()


if __name__ == "__main__":
    main()
