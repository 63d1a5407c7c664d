"""Latents of states in the light of the states before them, and what is learned beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcrl_gym.networks.mlp import MLP
from gcrl_gym.networks.sequence import SequenceEncoder, SequenceState

_MEMORY = 0.99  # of the share of successes: about the last hundred batches
_WEIGHTS = (0.1, 100.0)


class LatentEncoder(nn.Module):
    """A linear layer and a causal sequence encoder: the latent of a state, given its history.

    Args:
        inputs: width of a state.
        width: of a latent.
        **options: of `SequenceEncoder`.
    """

    def __init__(self, inputs: int, width: int, **options: Any) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.sequence = SequenceEncoder(width, **options)

    def forward(
        self,
        windows: Tensor,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the latents [B, L, width] of windows [B, L, D]; see `SequenceEncoder.forward`."""
        return self.sequence(self.embed(windows), mask, generator)  # type: ignore[no-any-return]

    def alone(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the latents [B, width] of states [B, D] that nothing came before, as goals are."""
        return self(states[:, None], None, generator)[:, 0]  # type: ignore[no-any-return]

    def step(self, states: Tensor, memory: SequenceState) -> tuple[Tensor, SequenceState]:
        """Return the latents of the next states [B, D], and the memory that includes them."""
        return self.sequence.step(self.embed(states), memory)


class MemoryBank(nn.Module):
    """A ring of the latest unit vectors, to contrast others with.

    It begins empty, and a slot that nothing was written to is no negative.

    Args:
        size: number of slots.
        width: of a vector.
    """

    slots: Tensor
    written: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("slots", torch.zeros(size, width))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    def similarities(self, vectors: Tensor) -> Tensor:
        """Return the products of vectors [B, width] with all slots, -inf where one is empty."""
        empty = torch.arange(len(self.slots), device=self.slots.device) >= self.written
        return (vectors @ self.slots.T).masked_fill(empty, -torch.inf)

    @torch.no_grad()
    def push(self, vectors: Tensor) -> None:
        """Write vectors [B, width] over the oldest ones; not before the backward pass."""
        vectors = vectors[-len(self.slots) :]
        places = torch.arange(len(vectors), device=self.slots.device) + self.written
        self.slots[places % len(self.slots)] = vectors
        self.written += len(vectors)


def info_nce(first: Tensor, second: Tensor, bank: MemoryBank, temperature: float) -> Tensor:
    """Return how badly unit vectors find their partner among all others, in both directions.

    van den Oord et al., "Representation Learning with Contrastive Predictive Coding" (2018).

    Args:
        first: [B, width].
        second: [B, width]; row i of each belongs together.
        bank: further negatives for both.
        temperature: that cosines are divided by.
    """
    inside = first @ second.T
    partners = torch.arange(len(first), device=first.device)
    there = torch.cat([inside, bank.similarities(first)], dim=1) / temperature
    back = torch.cat([inside.T, bank.similarities(second)], dim=1) / temperature
    loss = functional.cross_entropy(there, partners) + functional.cross_entropy(back, partners)
    return loss / 2.0


class SuccessHead(nn.Module):
    """Predicts success, which is rare: successes count as much as failures together.

    The share of successes is a moving average, each of whose batches counts from the first on: the
    average and the sum of its weights grow together.

    Args:
        inputs: width of the input.
        hidden_sizes: widths of the hidden layers.
    """

    successes: Tensor
    counted: Tensor

    def __init__(self, inputs: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.logit = MLP(inputs, 1, hidden_sizes)
        self.register_buffer("successes", torch.zeros(()))
        self.register_buffer("counted", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits [B] of inputs [B, D]."""
        return self.logit(inputs).squeeze(-1)  # type: ignore[no-any-return]

    @torch.no_grad()
    def positive_weight(self, success: Tensor) -> Tensor:
        """Count a batch [B] of zeros and ones; return failures per success, in [0.1, 100]."""
        self.successes.lerp_(success.mean(), 1.0 - _MEMORY)
        self.counted.lerp_(torch.ones_like(self.counted), 1.0 - _MEMORY)
        share = self.successes / self.counted
        return ((1.0 - share) / share).clamp(*_WEIGHTS)

    def loss(self, inputs: Tensor, success: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted cross-entropy, and the weight of a success."""
        weight = self.positive_weight(success)
        loss = functional.binary_cross_entropy_with_logits(self(inputs), success, pos_weight=weight)
        return loss, weight
