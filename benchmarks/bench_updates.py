"""CPU time of training updates, ours against the peers', in one run.

    python benchmarks/bench_updates.py

Every learner is a worker process of its own, on one thread, run in turn with the others (see
benchmarks/peers). Data: a million synthetic transitions; sampling is part of every update.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

from peers.controller import WorkerSpec, measure, ratio, started

# Seconds from the end of the imports: making the agent for a loaded dataset, and one update.
FIRST_UPDATE = 0.5


def ours(name: str, agent: str, *options: str, **keywords: object) -> WorkerSpec:
    """Return the worker of one of our agents."""
    return WorkerSpec(name, ("ours.py", agent, json.dumps(keywords), *options))


def compare(
    title: str, specs: Sequence[WorkerSpec], bars: Sequence[tuple[str, str, float]]
) -> dict[str, list[float]]:
    """Run workers in turn; print their times and the ratios that have a bar.

    Args:
        title: heading of the table.
        specs: the workers.
        bars: (slower, faster, least ratio); 0 reports the ratio without a bar.

    Returns:
        CPU milliseconds per update and round, for each worker that ran.
    """
    print(f"\n{title}", flush=True)
    with started(specs) as workers:
        times = measure(workers)
        for name, values in times.items():
            first = f"first update after {workers[name].ready:.2f} s"
            if name.startswith("ours"):
                first += f"  (bar {FIRST_UPDATE:g} s: {passed(workers[name].ready < FIRST_UPDATE)})"
            print(f"  {name:<40} {statistics.median(values):8.2f} ms   {first}")
    for slow, fast, bar in bars:
        value = ratio(times, slow, fast)
        verdict = "" if not bar or value is None else f"  (bar {bar:g}: {passed(value >= bar)})"
        measured = "skipped" if value is None else f"{value:.2f}x"
        print(f"    {fast} vs {slow}: {measured}{verdict}", flush=True)
    return times


def passed(held: bool) -> str:
    """Return the word for a bar."""
    return "held" if held else "MISSED"


def td3_style() -> None:
    """One actor and twin critics: POGO with one weight against TD3+BC of the peers."""
    # td_actor="target" and policy_freq=2: the same networks, targets and schedule as TD3+BC.
    keywords = {"w2_weights": [0.1], "policy_freq": 2, "td_actor": "target"}
    fast, exact = "ours, matmul auto", "ours, matmul highest"
    compare(
        "TD3-style update, obs 17, act 6, batch 256, 2x256",
        [
            ours(fast, "pogo", matmul="auto", **keywords),
            ours(exact, "pogo", matmul="highest", **keywords),
            WorkerSpec("plain PyTorch loop", ("plain_td3bc.py",)),
            WorkerSpec("CORL TD3+BC", ("corl.py", "td3_bc"), peer=True, checkout="CORL_DIR"),
            WorkerSpec("d3rlpy TD3+BC", ("d3rlpy_td3bc.py",), peer=True),
        ],
        [
            ("d3rlpy TD3+BC", fast, 2.4),
            ("plain PyTorch loop", exact, 1.1),
            ("CORL TD3+BC", exact, 1.1),
            ("CORL TD3+BC", fast, 1.7),
            (exact, fast, 0),
        ],
    )


def pogo() -> None:
    """The chain of three actors: which W2, which matrix products, eager or compiled."""
    rows = {
        "sinkhorn": {"w2": "sinkhorn", "matmul": "auto"},
        "sinkhorn, backend auto": {"w2": "sinkhorn", "backend": "auto", "matmul": "auto"},
        "sinkhorn, matmul highest": {"w2": "sinkhorn", "matmul": "highest"},
        "exact": {"w2": "exact", "matmul": "auto"},
        "exact, matmul highest": {"w2": "exact", "matmul": "highest"},
        "exact, compiled": {"w2": "exact", "matmul": "auto", "compile": True},
    }
    term = "the two exact W2 terms alone"
    times = compare(
        "POGO update, 3 actors, K = 4, obs 17, act 6, batch 256, 2x256",
        [
            *(ours(name, "pogo", **keywords) for name, keywords in rows.items()),
            WorkerSpec(term, ("w2_term.py", "exact", "2")),
        ],
        [
            ("sinkhorn", "exact", 0),
            ("sinkhorn", "sinkhorn, backend auto", 0),
            ("sinkhorn, matmul highest", "sinkhorn", 0),
            ("exact, matmul highest", "exact", 0),
            ("exact", "exact, compiled", 0),
        ],
    )
    parts = ratio(times, "exact", term)
    if parts is not None:
        held = passed(1 / parts <= 0.02)
        print(f"    share of the exact W2 terms: {100 / parts:.2f} %  (bar 2 %: {held})")


def gcbc() -> None:
    """Goal-conditioned behaviour cloning at OGBench's size against its JAX agent.

    Without a bar: nearly all of the time is matrix products, on both sides.
    """
    keywords = {"batch_size": 1024, "hidden_sizes": [512, 512, 512], "threads": 1}
    sizes = ("--goals", "--observation-dim", "29", "--action-dim", "8")
    fast, exact, peer = "ours, matmul auto", "ours, matmul highest", "OGBench GCBC (JAX)"
    compare(
        "GCBC update, obs 29, act 8, batch 1024, 3x512, goals relabelled",
        [
            ours(fast, "gcbc", *sizes, matmul="auto", **keywords),
            ours(exact, "gcbc", *sizes, matmul="highest", **keywords),
            WorkerSpec(peer, ("ogbench_updates.py", "gcbc"), peer=True, checkout="OGBENCH_DIR"),
        ],
        [(peer, fast, 0), (peer, exact, 0)],
    )


def main() -> None:
    """Run the three comparisons."""
    print("Training updates: process CPU time, one thread, medians of interleaved rounds")
    td3_style()
    pogo()
    gcbc()


if __name__ == "__main__":
    main()
