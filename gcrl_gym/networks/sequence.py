"""Sequence encoders: what a state means in the light of the states before it.

A stack of residual blocks, ``x + block(LayerNorm(x))``, and a LayerNorm behind them; each block is
causal. Windows are padded on the left. Each row is moved to the front before the blocks run, and
back after them, so that padding lies behind the data, where a causal block cannot see it: the
outputs are those of the row without its padding, to rounding, whatever the block keeps as state::

    window   .  .  a  b       mask   0 0 1 1
    blocks   a  b  .  .
    output   0  0  y  z

``step`` continues from a state instead of a window. A state is a tuple of tensors whose first axis
is the batch, all zero at an episode's start; for a Mamba or GRU it remembers the whole episode, for
a transformer the keys and values of the last ``context`` steps. A window of the last steps encoded
anew is therefore not the same as stepping once the episode is longer than the window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcrl_gym.errors import UserError, nearest
from gcrl_gym.networks.mamba import MambaBackend, MambaBlock, backend_on
from gcrl_gym.networks.mlp import MLP
from gcrl_gym.networks.scan import ScanMemory, compiled_functions

SequenceKind = Literal["mamba", "gru", "transformer"]
SequenceState = tuple[Tensor, ...]

_ROTARY_BASE = 10_000.0


class SequenceBlock(Protocol):
    """What a stack is made of."""

    def initial_state(self, batch: int) -> SequenceState:
        """Return the state at an episode's start: zeros, the batch in front."""

    def __call__(self, x: Tensor) -> tuple[Tensor, SequenceState]:
        """Map sequences [B, L, width] from their start; return outputs first."""

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, SequenceState]:
        """Map one step [B, width]."""


class GRUBlock(nn.Module):
    """A gated recurrent unit of one layer.

    Args:
        width: of input, output and state.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def initial_state(self, batch: int) -> SequenceState:
        """Return zeros [B, width]."""
        return (next(self.parameters()).new_zeros(batch, self.gru.hidden_size),)

    def forward(self, x: Tensor) -> tuple[Tensor, SequenceState]:
        """Map [B, L, width] to the same shape."""
        outputs, last = self.gru(x)
        return outputs, (last[0],)

    def step(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Map [B, width] and a state to the same shapes."""
        # The module's own call takes twice as long for one step.
        weights: Any = self.gru.all_weights[0]
        outputs = torch.gru_cell(x, state[0], *weights)
        return outputs, (outputs,)


class AttentionBlock(nn.Module):
    """Self-attention to this step and the ``context - 1`` before it, with rotary positions.

    Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021).

    Args:
        width: of input and output.
        heads: of the attention.
        context: steps that are seen.
    """

    frequencies: Tensor

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads, self.context, self.head_width = heads, context, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        half = self.head_width // 2
        frequencies = _ROTARY_BASE ** (-torch.arange(half) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def initial_state(self, batch: int) -> SequenceState:
        """Return no keys and no values [B, context, heads, head width], and step counts 0 [B]."""
        shape = (batch, self.context, self.heads, self.head_width)
        keys, values = self.out.weight.new_zeros(2, *shape)
        return keys, values, torch.zeros(batch, dtype=torch.int64, device=keys.device)

    def forward(self, x: Tensor) -> tuple[Tensor, SequenceState]:
        """Map [B, L, width] to the same shape; the state is not returned."""
        length = x.shape[1]
        times = torch.arange(length, device=x.device)
        queries, keys, values = self._project(x, times)
        ages = times[:, None] - times
        seen = (ages >= 0) & (ages < self.context) if length > self.context else None
        attended = functional.scaled_dot_product_attention(
            queries.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=seen,
            is_causal=seen is None,
        )
        return self.out(attended.transpose(1, 2).flatten(2)), ()

    def step(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Map [B, width]; the new key and value take the oldest ones' place."""
        keys, values, count = state
        query, key, value = self._project(x[:, None], count[:, None])
        slots = torch.arange(self.context, device=x.device)
        here = (slots == (count % self.context)[:, None])[..., None, None]
        keys, values = torch.where(here, key, keys), torch.where(here, value, values)
        seen = (slots <= count[:, None])[:, None, None]  # all of them, once the ring is full
        attended = functional.scaled_dot_product_attention(
            query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=seen
        )
        return self.out(attended.flatten(1)), (keys, values, count + 1)

    def _project(self, x: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, [B, L, heads, head width], of times [L] or [B, L].

        Pairs of features of queries and keys are turned by angles that grow with time, so that
        their products depend on how long ago, not on when.
        """
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        angles = times[..., None, None, None] * self.frequencies
        cos, sin = angles.cos().to(parts.dtype), angles.sin().to(parts.dtype)
        first, second = parts[:, :, :2].chunk(2, dim=-1)
        turned = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
        return turned[:, :, 0], turned[:, :, 1], parts[:, :, 2]


class FeedForwardBlock(nn.Module):
    """The transformer's other half: each step for itself, through a layer four times as wide.

    Args:
        width: of input and output.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = MLP(width, width, (4 * width,), activation="gelu")

    def initial_state(self, batch: int) -> SequenceState:
        """Return nothing."""
        return ()

    def forward(self, x: Tensor) -> tuple[Tensor, SequenceState]:
        """Map [..., width] to the same shape."""
        return self.mlp(x), ()

    def step(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Map [B, width]."""
        return self.mlp(x), ()


class SequenceEncoder(nn.Module):
    """A stack of causal residual blocks.

    Args:
        width: of inputs, outputs and everything between.
        kind: "mamba", "gru" or "transformer" (attention and feed-forward block in each layer).
        layers: how many.
        dropout: of each block's output, in training mode; `step` never drops.
        context: steps that the transformer sees; the others see all.
        heads: of the transformer's attention.
        backend: of Mamba, see `backend_on`.
        memory: of Mamba's scan, see `selective_scan`.

    Raises:
        UserError: an unknown kind, numbers out of range, a width that the heads do not divide, or a
            backend that cannot run.
    """

    def __init__(
        self,
        width: int,
        kind: SequenceKind = "mamba",
        layers: int = 2,
        dropout: float = 0.0,
        context: int = 100,
        heads: int = 4,
        backend: MambaBackend = "auto",
        memory: ScanMemory = "recompute",
    ) -> None:
        super().__init__()
        _check(kind, {"width": width, "layers": layers, "context": context, "heads": heads})
        if not 0.0 <= dropout < 1.0:
            raise UserError(f"SequenceEncoder(dropout={dropout!r}): expected 0 <= dropout < 1.")
        self.kind, self.dropout, self.backend = kind, dropout, backend
        blocks: list[nn.Module] = []
        for _ in range(layers):
            if kind == "mamba":
                blocks.append(MambaBlock(width, backend=backend, memory=memory))
            elif kind == "gru":
                blocks.append(GRUBlock(width))
            else:
                blocks += [AttentionBlock(width, heads, context), FeedForwardBlock(width)]
        self.blocks = nn.ModuleList(blocks)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in blocks)
        self.final_norm = nn.LayerNorm(width)
        self._state_sizes = [len(block.initial_state(1)) for _, block in self._layers()]

    @property
    def backend_used(self) -> str:
        """What runs where the parameters are now: "torch", "fused" or "compiled"."""
        if self.kind != "mamba":
            return "torch"
        used = backend_on(self.backend, self.final_norm.weight.device)
        return "torch" if used == "compiled" and compiled_functions() is None else used

    def forward(
        self, x: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Encode windows.

        Args:
            x: [B, L, width].
            mask: [B, L], 0 where padding is, which comes before the data; None for no padding.
            generator: of the dropout; None for torch's global one.

        Returns:
            [B, L, width], zero where padding is.

        Raises:
            UserError: padding behind data (told on a CPU only), or a mask of another shape.
        """
        if mask is not None:
            mask = _checked(mask, x)
            back, order = _orders(mask)
            x = _taken(x.masked_fill(~mask[..., None], 0.0), order)
        for norm, block in self._layers():
            x = x + self._dropped(block(norm(x))[0], generator)
        x = self.final_norm(x)
        return x if mask is None else _taken(x, back).masked_fill(~mask[..., None], 0.0)

    def initial_state(self, batch: int) -> SequenceState:
        """Return the state of ``batch`` episodes at their start: zeros, the batch in front."""
        return tuple(t for _, block in self._layers() for t in block.initial_state(batch))

    def step(self, x: Tensor, state: SequenceState) -> tuple[Tensor, SequenceState]:
        """Encode one step more, without dropout.

        Args:
            x: [B, width].
            state: `initial_state`, or what the step before returned; not changed.

        Returns:
            [B, width] and the new state.
        """
        new, start = list[Tensor](), 0
        for (norm, block), size in zip(self._layers(), self._state_sizes, strict=True):
            y, after = block.step(norm(x), state[start : start + size])
            x, start = x + y, start + size
            new += after
        return self.final_norm(x), tuple(new)

    @staticmethod
    def reset(state: SequenceState, rows: Tensor) -> SequenceState:
        """Return the state with some rows at an episode's start.

        Args:
            state: as of `step`; not changed.
            rows: True where a new episode begins, [B].
        """
        return tuple(t.masked_fill(rows.view(-1, *[1] * (t.dim() - 1)), 0) for t in state)

    def _layers(self) -> Iterator[tuple[nn.Module, SequenceBlock]]:
        blocks: Any = self.blocks
        return zip(self.norms, blocks, strict=True)

    def _dropped(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.training or self.dropout == 0.0:
            return x
        keep = torch.rand(x.shape, generator=generator, device=x.device) >= self.dropout
        return x * keep / (1.0 - self.dropout)


def _check(kind: str, numbers: dict[str, int]) -> None:
    kinds = get_args(SequenceKind)
    if kind not in kinds:
        hint = nearest(kind, kinds)
        if str(kind).replace("-", "").lower() == "mamba2":
            hint = " Mamba-2 is another network, which is not available here: 'mamba' is Mamba-1."
        listing = ", ".join(map(repr, kinds))
        raise UserError(f"SequenceEncoder(kind={kind!r}): expected one of {listing}.{hint}")
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"SequenceEncoder({name}={value!r}): expected a whole number >= 1.")
    width, heads = numbers["width"], numbers["heads"]
    if kind == "transformer" and width % (2 * heads):
        raise UserError(
            f"SequenceEncoder(width={width}, heads={heads}): the width of a transformer has to be "
            f"a multiple of 2 x heads, such as {2 * heads * math.ceil(width / (2 * heads))}."
        )


def _checked(mask: Tensor, x: Tensor) -> Tensor:
    """Return the mask as booleans."""
    if mask.shape != x.shape[:2]:
        raise UserError(
            f"mask has shape {list(mask.shape)}, the windows {list(x.shape)}: expected "
            f"{list(x.shape[:2])}."
        )
    mask = mask > 0
    # A GPU would have to be waited for.
    told = mask.device.type == "cpu" and not torch.compiler.is_compiling()
    if told and bool((mask[:, :-1] & ~mask[:, 1:]).any()):
        raise UserError(
            "mask: padding stands behind data in a window; sequence encoders take windows that "
            "are padded on the left, as SequenceSampler(padding='left') draws them."
        )
    return mask


def _orders(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of the flat windows [B * L]: data last (as they came), and data first."""
    batch, length = mask.shape
    times = torch.arange(length, device=mask.device)
    padding = length - mask.sum(1, keepdim=True)
    start = length * torch.arange(batch, device=mask.device)[:, None]
    last, first = (times - padding) % length, (times + padding) % length
    return (last + start).flatten(), (first + start).flatten()


def _taken(x: Tensor, order: Tensor) -> Tensor:
    return x.flatten(0, 1).index_select(0, order).view_as(x)
