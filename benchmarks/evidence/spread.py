"""What independent noise does to a chain's spread: a bandit, and hopper-medium-replay.

    python -m benchmarks.evidence.spread        # a quarter of an hour; writes its JSON file

In the bandit all actors pay nothing but the distance to their predecessor, so that every change of
spread is the distance's doing. On hopper IQL's Gaussian actor 0 is followed by two tanh-Gaussians.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcrl_gym.agents import IQL
from gcrl_gym.agents.metrics import MetricMeans
from gcrl_gym.experiments.folder import write_json
from gcrl_gym.networks import ContinuousPolicy, TanhGaussianPolicy
from gcrl_gym.transport.jko import Chain, W2Noise

CASES: tuple[tuple[str, int, W2Noise], ...] = (
    ("independent, K = 4", 4, "independent"),
    ("independent, K = 16", 16, "independent"),
    ("independent, K = 64", 64, "independent"),
    ("shared, K = 4", 4, "shared"),
)
DATASET = "d4rl/hopper-medium-replay-v2"
BANDIT_UPDATES, HOPPER_UPDATES = 2_000, 1_000


class Host:
    """What a chain needs of an agent, without one."""

    action_dim = 1

    def add_network(self, name: str, make: Any) -> Any:
        """Make a network."""
        return make()

    def add_optimizer(self, name: str, network: torch.nn.Module, rate: float) -> Any:
        """Make its optimiser."""
        return torch.optim.Adam(network.parameters(), lr=rate)


def bandit(K: int, noise: W2Noise) -> list[float]:
    """Return the standard deviation of actors 0, 1 and 2 after training on the distance alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = TanhGaussianPolicy(1, 1, (32, 32))
        chain = Chain(
            Host(), first, (1.0, 1.0), w2_noise=noise, K=K, learning_rate=1e-3, backend="auto"
        )
        inputs = torch.zeros(64, 1)
        for _ in range(BANDIT_UPDATES):
            drawn = {key: torch.randn(shape) for key, shape in chain.noise_shapes(64).items()}
            chain.update(inputs, _nothing, drawn)
        with torch.no_grad():
            z = torch.randn(20_000, 1)
            return [float(a.sample(torch.zeros(20_000, 1), z).std()) for a in chain.actors]


def _nothing(policy: ContinuousPolicy, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    zero = 0.0 * policy.sample(inputs, noise).sum(-1)
    return zero, zero


def hopper(K: int, noise: W2Noise) -> list[float]:
    """Return the mean standard deviation of actors 0, 1 and 2 over states of the data."""
    agent = IQL(
        None, DATASET, w2_weights=(10.0, 10.0), chain_policy="tanh_gaussian", K=K, w2_noise=noise,
        backend="auto", seed=0, device="cpu",
    )  # fmt: skip
    agent.learn(HOPPER_UPDATES, log_interval=10**9)
    means = MetricMeans()
    for _ in range(20):
        inputs = agent.draw_batch().observations
        with torch.no_grad():
            z = torch.randn(len(inputs), 256, agent.action_dim)
            for i, actor in enumerate(agent.chain.actors):
                means.add({str(i): actor.samples(inputs, z).std(1).mean()})
    return list(means.pop("spread").values())


def measure(store: Path) -> None:
    """Measure every case and write ``spread.json``."""
    rows = {}
    for name, K, noise in CASES:
        rows[name] = {"bandit": bandit(K, noise), "hopper": hopper(K, noise)}
        print(name, rows[name], flush=True)
    updates = {"bandit_updates": BANDIT_UPDATES, "hopper_updates": HOPPER_UPDATES}
    write_json(store / "spread.json", {"rows": rows, **updates})


if __name__ == "__main__":
    measure(Path(__file__).parent.parent.parent / "docs" / "results" / "chains")
