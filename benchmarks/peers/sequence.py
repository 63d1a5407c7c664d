"""A sequence network, two layers of width 128: forward and backward over windows, or single steps.

    python benchmarks/peers/sequence.py mamba windows
    python benchmarks/peers/sequence.py mambapy step

Kinds: of ours "mamba", "mamba-store", "mamba-compiled", "gru" and "transformer"; torch's "nn.GRU"
and "nn.LSTM"; and "mambapy". Windows are 16 of 100 steps; steps are single, with their state kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from worker import serve

WIDTH, LAYERS, BATCH, LENGTH = 128, 2, 16, 100

Forward = Callable[[torch.Tensor], torch.Tensor]
Step = Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]]


def ours(kind: str) -> tuple[torch.nn.Module, Forward, Step, Any]:
    """Return one of our encoders: module, forward, step and first state."""
    from gcrl_gym.networks import SequenceEncoder

    options = {"mamba-store": {"memory": "store"}, "mamba-compiled": {"backend": "compiled"}}
    net = SequenceEncoder(WIDTH, kind.split("-")[0], LAYERS, **options.get(kind, {}))
    return net, net, net.step, net.initial_state(1)


def torchs(kind: str) -> tuple[torch.nn.Module, Forward, Step, Any]:
    """Return torch's own recurrent network, without norms and residuals."""
    net = getattr(torch.nn, kind.removeprefix("nn."))(WIDTH, WIDTH, LAYERS, batch_first=True)

    def step(x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        y, state = net(x[:, None], state)
        return y[:, 0], state

    return net, lambda x: net(x)[0], step, None


def mambapy(_: str) -> tuple[torch.nn.Module, Forward, Step, Any]:
    """Return mambapy's stack of residual blocks, with its parallel scan."""
    from mambapy.mamba import Mamba, MambaConfig

    config = MambaConfig(d_model=WIDTH, n_layers=LAYERS)
    net = Mamba(config)
    caches = [(None, torch.zeros(1, config.d_inner, config.d_conv - 1)) for _ in range(LAYERS)]
    return net, net, net.step, caches


def make() -> Callable[[int], None]:
    """Return a runner of what the command line names."""
    kind, what = sys.argv[1:]
    torch.manual_seed(0)
    build = mambapy if kind == "mambapy" else torchs if kind.startswith("nn.") else ours
    net, forward, step, state = build(kind)
    x, weights = torch.randn(2, BATCH, LENGTH, WIDTH)

    def windows(times: int) -> None:
        for _ in range(times):
            net.zero_grad()
            (forward(x) * weights).sum().backward()

    def steps(times: int) -> None:
        net.eval()
        now = state
        with torch.no_grad():
            for index in range(times):
                _, now = step(x[:1, index % LENGTH], now)

    return windows if what == "windows" else steps


if __name__ == "__main__":
    serve(make)
