"""CPU time of OGBench's six agents, ours against OGBench's own JAX agents, in one run.

    python benchmarks/bench_ogbench.py [agent ...]

Batch 1024, three layers of 512, observations and goals of width 29, actions of width 8: antmaze's
sizes. Goals are relabelled in every update, on both sides.
"""

from __future__ import annotations

import sys
from typing import Any

from bench_updates import compare, ours
from peers.controller import WorkerSpec

# Least ratio to OGBench's agent with the fast matrix products.
BARS = {"gcbc": 1.1, "gcivl": 1.1, "gciql": 1.25, "qrl": 1.1, "crl": 1.1, "hiql": 1.1}
SIZES = ("--goals", "--observation-dim", "29", "--action-dim", "8")
FULL: dict[str, Any] = {"batch_size": 1024, "hidden_sizes": [512, 512, 512], "threads": 1}


def agent(name: str) -> None:
    """Time one agent: eager, with torch's own products, compiled, and OGBench's."""
    fast, exact, peer = f"ours {name}", f"ours {name}, matmul highest", f"OGBench {name} (JAX)"
    compiled = f"ours {name}, compiled"
    compare(
        f"{name}: one update, obs 29, act 8, batch 1024, 3x512, goals relabelled",
        [
            ours(fast, name, *SIZES, **FULL),
            ours(exact, name, *SIZES, matmul="highest", **FULL),
            ours(compiled, name, *SIZES, compile=True, **FULL),
            reference(peer, name),
        ],
        [(peer, fast, BARS[name]), (peer, exact, 0.0), (peer, compiled, 0.0), (exact, fast, 0.0)],
    )


def reference(row: str, name: str) -> WorkerSpec:
    """Return the worker of one of OGBench's own agents."""
    return WorkerSpec(row, ("ogbench_updates.py", name), peer=True, checkout="OGBENCH_DIR")


def main() -> None:
    """Run the comparisons of the agents named on the command line, or of all."""
    for name in sys.argv[1:] or BARS:
        agent(name)


if __name__ == "__main__":
    main()
