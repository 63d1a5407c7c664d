"""Multilayer perceptrons, single and stacked.

A stack holds several networks of one shape in one tensor per layer, so that an ensemble costs one
batched matrix product a layer instead of one product per member. Layer normalisation, where a
method has it, follows the activation (as in ReBRAC's and OGBench's networks).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["relu", "gelu"]
Init = Literal["torch", "small_actor", "small_critic", "orthogonal", "xavier"]
_SMALL = {"small_actor": 1e-3, "small_critic": 3e-3}

# Flax's, which the methods with layer normalisation were published in; torch's default is 1e-5.
LAYER_NORM_EPS = 1e-6


class MLP(nn.Sequential):
    """Linear layers with an activation between them.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        hidden_sizes: widths of the hidden layers.
        activation: "relu", or "gelu" in its tanh form (JAX's default).
        layer_norm: normalise each hidden layer after its activation.
        init: see `initialize`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden_sizes: Sequence[int],
        activation: Activation = "relu",
        layer_norm: bool = False,
        init: Init = "torch",
    ) -> None:
        layers: list[nn.Module] = []
        width = inputs
        for hidden in hidden_sizes:
            kind = nn.ReLU() if activation == "relu" else nn.GELU("tanh")
            layers += [nn.Linear(width, hidden), kind]
            if layer_norm:
                layers.append(nn.LayerNorm(hidden, LAYER_NORM_EPS))
            width = hidden
        super().__init__(*layers, nn.Linear(width, outputs))
        linears = [layer for layer in self if isinstance(layer, nn.Linear)]
        initialize([layer.weight.data.T for layer in linears], [x.bias.data for x in linears], init)


class StackedMLP(nn.Module):
    """``members`` independent MLPs evaluated together.

    Layer k holds ``weight_k`` of shape [members, in, out] and ``bias_k`` of shape
    [members, 1, out], each member initialised as ``nn.Linear`` initialises one layer.

    Args:
        members: number of networks in the stack.
        inputs: width of the input.
        outputs: width of the output.
        hidden_sizes: widths of the hidden layers.
        activation: see `MLP`.
        layer_norm: see `MLP`; scales and shifts are each member's own.
        init: see `initialize`.
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        outputs: int,
        hidden_sizes: Sequence[int],
        activation: Activation = "relu",
        layer_norm: bool = False,
        init: Init = "torch",
    ) -> None:
        super().__init__()
        self.members, self.activation = members, activation
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.norm_scales = nn.ParameterList()
        self.norm_shifts = nn.ParameterList()
        width = inputs
        for size in (*hidden_sizes, outputs):
            bound = 1.0 / math.sqrt(width)
            weight = torch.empty(members, width, size).uniform_(-bound, bound)
            bias = torch.empty(members, 1, size).uniform_(-bound, bound)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(bias))
            width = size
        for size in hidden_sizes if layer_norm else ():
            self.norm_scales.append(nn.Parameter(torch.ones(members, 1, size)))
            self.norm_shifts.append(nn.Parameter(torch.zeros(members, 1, size)))
        for member in range(members if init != "torch" else 0):
            initialize(
                [weight.data[member] for weight in self.weights],
                [bias.data[member, 0] for bias in self.biases],
                init,
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [B, in], or inputs of each member [members, B, in], to [members, B, out]."""
        hidden = inputs if inputs.dim() == 3 else inputs.expand(self.members, *inputs.shape)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer > 0:
                hidden = self._activate(hidden, layer - 1, slice(None))
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
                hidden = self._activate(hidden, layer - 1, index)
            if weight.shape[-1] == 1:
                hidden = (hidden * weight[index, :, 0]).sum(-1, keepdim=True) + bias[index]
            else:
                hidden = torch.addmm(bias[index], hidden, weight[index])
        return hidden

    def _activate(self, hidden: Tensor, layer: int, which: int | slice) -> Tensor:
        if self.activation == "relu":
            hidden = torch.relu(hidden)
        else:
            hidden = functional.gelu(hidden, approximate="tanh")
        if not self.norm_scales:
            return hidden
        normal = functional.layer_norm(hidden, hidden.shape[-1:], eps=LAYER_NORM_EPS)
        return torch.addcmul(self.norm_shifts[layer][which], normal, self.norm_scales[layer][which])


@torch.no_grad()
def initialize(weights: Sequence[Tensor], biases: Sequence[Tensor], init: Init) -> None:
    """Set the starting values of one network's layers in place.

    Args:
        weights: of each layer, [in, out], views of the parameters.
        biases: of each layer, [out].
        init: "torch": as they are; "small_actor", "small_critic": hidden biases 0.1 and a last
            layer within 1e-3 or 3e-3, as in SAC-N, EDAC and ReBRAC; "orthogonal": gain sqrt(2),
            last layer 0.01, biases 0, as in CQL; "xavier": uniform, biases 0, as in OGBench's
            networks and FQL.
    """
    if init == "torch":
        return
    last = len(weights) - 1
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if init in _SMALL:
            if layer == last:
                weight.uniform_(-_SMALL[init], _SMALL[init])
                bias.uniform_(-_SMALL[init], _SMALL[init])
            else:
                bias.fill_(0.1)
            continue
        if init == "orthogonal":
            nn.init.orthogonal_(weight.T, gain=math.sqrt(2.0) if layer < last else 0.01)
        else:
            nn.init.xavier_uniform_(weight)
        bias.zero_()
