"""Multilayer perceptrons, single and stacked.

A stack holds several networks of one shape in one tensor per layer, so that an ensemble costs one
batched matrix product a layer instead of one product per member.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers with ReLU between them, PyTorch's default initialisation.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        hidden_sizes: widths of the hidden layers.
    """

    def __init__(self, inputs: int, outputs: int, hidden_sizes: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        width = inputs
        for hidden in hidden_sizes:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        super().__init__(*layers, nn.Linear(width, outputs))


class StackedMLP(nn.Module):
    """``members`` independent MLPs evaluated together.

    Layer k holds ``weight_k`` of shape [members, in, out] and ``bias_k`` of shape
    [members, 1, out], each member initialised as ``nn.Linear`` initialises one layer.

    Args:
        members: number of networks in the stack.
        inputs: width of the input.
        outputs: width of the output.
        hidden_sizes: widths of the hidden layers.
    """

    def __init__(
        self, members: int, inputs: int, outputs: int, hidden_sizes: Sequence[int]
    ) -> None:
        super().__init__()
        self.members = members
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        width = inputs
        for size in (*hidden_sizes, outputs):
            bound = 1.0 / math.sqrt(width)
            weight = torch.empty(members, width, size).uniform_(-bound, bound)
            bias = torch.empty(members, 1, size).uniform_(-bound, bound)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(bias))
            width = size

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [B, in] to outputs [members, B, out]."""
        hidden = inputs.expand(self.members, *inputs.shape)  # [members, B, in]
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer > 0:
                hidden = torch.relu(hidden)
            if weight.shape[-1] == 1:  # a matrix product this narrow is slower than a plain sum
                hidden = (hidden * weight.transpose(1, 2)).sum(-1, keepdim=True) + bias
            else:
                hidden = torch.baddbmm(bias, hidden, weight)
        return hidden

    def member(self, index: int, inputs: Tensor) -> Tensor:
        """Map inputs [B, in] through one member only, to [B, out]."""
        hidden = inputs
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer > 0:
                hidden = torch.relu(hidden)
            if weight.shape[-1] == 1:
                hidden = (hidden * weight[index, :, 0]).sum(-1, keepdim=True) + bias[index]
            else:
                hidden = torch.addmm(bias[index], hidden, weight[index])
        return hidden
