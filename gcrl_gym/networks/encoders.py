"""Encoders: from pictures, laid flat in the input, to features.

Espeholt et al., "IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner
Architectures" (2018), in the sizes of OGBench (Park et al. 2024): no layer normalisation, a dense
GELU layer at the end, Xavier weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

EncoderKind = Literal["auto", "none", "impala", "impala_small"]


class _Size(NamedTuple):
    channels: tuple[int, ...]
    blocks: int


SIZES = {"impala": _Size((16, 32, 32), 2), "impala_small": _Size((16, 32, 32), 1)}


class ImpalaEncoder(nn.Module):
    """Residual convolutions and one dense layer.

    Args:
        pictures: (height, width, channels) of the pictures that lie flat, one after another, in the
            input; all of one height and width. They are stacked along their channels.
        channels: of each stack; a stack halves height and width.
        blocks: residual blocks of a stack.
        features: number of features.
        rest: width of what follows the pictures, such as a goal in metres, and is passed on behind
            the features.
    """

    def __init__(
        self,
        pictures: Sequence[tuple[int, int, int]],
        channels: Sequence[int] = SIZES["impala_small"].channels,
        blocks: int = SIZES["impala_small"].blocks,
        features: int = 512,
        rest: int = 0,
    ) -> None:
        super().__init__()
        self.pictures, self.outputs = tuple(pictures), features + rest
        self.widths = [math.prod(picture) for picture in self.pictures]
        self.widths += [rest] if rest else []
        height, width, _ = self.pictures[0]
        depth = sum(picture[2] for picture in self.pictures)
        self.stacks = nn.ModuleList()
        for channel in channels:
            self.stacks.append(_Stack(depth, channel, blocks))
            depth, height, width = channel, (height + 1) // 2, (width + 1) // 2
        self.dense = nn.Linear(depth * height * width, features)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(cast("Tensor", module.bias))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return features [B, outputs] of flat pictures with values in [0, 1], and what follows."""
        parts = inputs.split_with_sizes(self.widths, dim=1)
        laid = [part.view(-1, *shape) for part, shape in zip(parts, self.pictures, strict=False)]
        hidden = torch.cat(laid, dim=-1).permute(0, 3, 1, 2)  # [B, C, H, W], channels last
        for stack in self.stacks:
            hidden = stack(hidden)
        flat = functional.relu(hidden).permute(0, 2, 3, 1).flatten(1)
        features = functional.gelu(self.dense(flat), approximate="tanh")
        return torch.cat([features, *parts[len(self.pictures) :]], dim=1)


class _Stack(nn.Module):
    """A convolution, a maximum over neighbours that halves the picture, and residual blocks."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1),
                nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1),
            )
            for _ in range(blocks)
        )  # fmt: skip

    def forward(self, pictures: Tensor) -> Tensor:
        hidden = _halve(self.first(pictures))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return hidden


def _halve(pictures: Tensor) -> Tensor:
    """Maximum over 3 x 3 at every second place, padded as JAX's "SAME": more behind than before."""
    sides = []
    for size in (pictures.shape[3], pictures.shape[2]):
        total = 2 * ((size + 1) // 2 - 1) + 3 - size
        sides += [total // 2, total - total // 2]
    return functional.max_pool2d(functional.pad(pictures, sides, value=-math.inf), 3, stride=2)


def make_encoder(
    kind: EncoderKind, pictures: Sequence[tuple[int, int, int]], rest: int = 0
) -> ImpalaEncoder | None:
    """Return a new encoder, None for observations that are no pictures.

    Args:
        kind: "auto" is "impala_small" for pictures.
        pictures: see `ImpalaEncoder`; empty without pictures.
        rest: see `ImpalaEncoder`.
    """
    if not pictures or kind == "none":
        return None
    size = SIZES["impala_small" if kind == "auto" else kind]
    return ImpalaEncoder(pictures, size.channels, size.blocks, rest=rest)


def with_encoder(encoder: ImpalaEncoder | None, network: nn.Module) -> nn.Module:
    """Return a network that sees what an encoder makes of the input, or itself without one."""
    return network if encoder is None else nn.Sequential(encoder, network)


def random_crop(pictures: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Move pictures about, repeating their edges: OGBench's augmentation.

    Args:
        pictures: [B, H, W, C].
        shifts: rows and columns that are cut off before, of a picture padded by ``padding`` on all
            sides: integers [B, 2] in 0 .. 2 padding. ``padding`` itself changes nothing.
        padding: in pixels.

    Returns:
        [B, H, W, C].
    """
    _, height, width, _ = pictures.shape
    device = pictures.device
    rows = torch.arange(height, device=device) + shifts[:, :1] - padding  # [B, H]
    columns = torch.arange(width, device=device) + shifts[:, 1:] - padding  # [B, W]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    batch = torch.arange(len(pictures), device=device)[:, None, None]
    return pictures[batch, rows[:, :, None], columns[:, None, :]]
