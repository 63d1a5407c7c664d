"""TD3+BC as a plain PyTorch loop in the manner of single-file implementations.

Separate critics, default Adam, parameter-by-parameter soft updates, five arrays indexed one by one
and losses read as Python floats; torch's default matrix products. It stands for what the speed
rules of this project (stacked critics, fused Adam, packed rows, lazy metrics) are worth by
themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from synthetic import transitions
from torch import nn
from torch.nn import functional as F
from worker import serve

ROWS, OBSERVATION_DIM, ACTION_DIM, BATCH = 1_000_000, 17, 6, 256


def network(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 2 x 256 ReLU network."""
    return nn.Sequential(
        nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs)
    )


class PlainTD3BC:
    """One actor, two critics, their targets, and three optimisers."""

    def __init__(self) -> None:
        self.actor = nn.Sequential(*network(OBSERVATION_DIM, ACTION_DIM), nn.Tanh())
        self.critics = [network(OBSERVATION_DIM + ACTION_DIM, 1) for _ in range(2)]
        self.online = [self.actor, *self.critics]
        self.targets = copy.deepcopy(self.online)
        self.optimizers = [torch.optim.Adam(net.parameters(), lr=3e-4) for net in self.online]
        self.updates = 0

    def update(self, batch: list[torch.Tensor]) -> dict[str, float]:
        """Take one gradient step; the actor and the targets move on every second."""
        self.updates += 1
        observations, actions, rewards, next_observations, terminals = batch
        loss = self._critic_loss(observations, actions, rewards, next_observations, terminals)
        metrics = {"critic_loss": loss.item()}
        for optimizer in self.optimizers[1:]:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers[1:]:
            optimizer.step()
        if self.updates % 2 == 0:
            metrics["actor_loss"] = self._update_actor(observations, actions)
        return metrics

    def _critic_loss(self, observations, actions, rewards, next_observations, terminals):
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(actions)).clamp(-0.5, 0.5)
            next_actions = (self.targets[0](next_observations) + noise).clamp(-1, 1)
            next_pair = torch.cat([next_observations, next_actions], 1)
            next_q = torch.min(self.targets[1](next_pair), self.targets[2](next_pair))
            goal = rewards + 0.99 * (1 - terminals) * next_q
        pair = torch.cat([observations, actions], 1)
        return F.mse_loss(self.critics[0](pair), goal) + F.mse_loss(self.critics[1](pair), goal)

    def _update_actor(self, observations, actions) -> float:
        proposed = self.actor(observations)
        q = self.critics[0](torch.cat([observations, proposed], 1))
        loss = -2.5 / q.abs().mean().detach() * q.mean() + F.mse_loss(proposed, actions)
        self.optimizers[0].zero_grad()
        loss.backward()
        self.optimizers[0].step()
        for target, source in zip(self.targets, self.online):
            for slow, fast in zip(target.parameters(), source.parameters()):
                slow.data.copy_(0.005 * fast.data + 0.995 * slow.data)
        return loss.item()


DATA = transitions(ROWS, OBSERVATION_DIM, ACTION_DIM)
COLUMNS = [
    torch.as_tensor(DATA[name].reshape(ROWS, -1), dtype=torch.float32)
    for name in ("observations", "actions", "rewards", "next_observations", "terminals")
]


def make() -> Callable[[int], None]:
    """Return the runner."""
    learner = PlainTD3BC()
    rng = np.random.default_rng(0)

    def run(updates: int) -> None:
        for _ in range(updates):
            rows = rng.integers(0, ROWS, size=BATCH)
            learner.update([column[rows] for column in COLUMNS])

    return run


if __name__ == "__main__":
    serve(make)
