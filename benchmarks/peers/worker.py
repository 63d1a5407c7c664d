"""The worker's end of a benchmark: run n updates when told to, and answer with the CPU time.

Needs nothing but the standard library (and torch's thread setting where torch is installed), since
it is imported in the environments of the peers. One line in, one line out:

    controller                     worker
                                   {"ready": 0.31}     seconds from the end of the imports to the
    run 200                                            end of the first update
                                   1.342               process CPU seconds of those 200 updates
    (end of input)                 exits
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

# Peers print to stdout while they train. The protocol keeps the real one for itself.
_CHANNEL = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def one_thread() -> None:
    """Limit this process to one core and torch to one thread."""
    if hasattr(os, "sched_setaffinity"):
        # JAX starts a thread for each core it sees, whatever its flags say.
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    if "torch" in sys.modules:
        import torch._dynamo  # the first optimiser imports it, for a second: it counts as an import

        torch.set_num_threads(1)


def serve(make: Callable[[], Callable[[int], None]]) -> None:
    """Answer the controller until it closes the pipe.

    Args:
        make: builds the learner and returns ``run(n)``, which performs n updates, sampling
            included. Called after all imports; data that it needs should exist before.
    """
    one_thread()
    start = time.perf_counter()
    run = make()
    run(1)
    print(json.dumps({"ready": time.perf_counter() - start}), file=_CHANNEL)
    for line in sys.stdin:
        updates = int(line.split()[1])
        start = time.process_time()
        run(updates)
        print(time.process_time() - start, file=_CHANNEL)
