"""Multilayer perceptrons, single and stacked.

A stack holds several networks of one shape in one tensor per layer, so that an ensemble costs one
batched matrix product a layer instead of one product per member. Layer normalisation, where a
method has it, follows the activation (as in ReBRAC's and OGBench's networks).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["relu", "gelu"]
Init = Literal["torch", "small_actor", "small_critic", "orthogonal", "xavier", "xavier_small"]
_SMALL = {"small_actor": 1e-3, "small_critic": 3e-3}

# Flax's, which the methods with layer normalisation were published in; torch's default is 1e-5.
LAYER_NORM_EPS = 1e-6

# Members of a large stack that pass through all layers together before the next ones start, on a
# CPU: their hidden layers stay in the cache, and their memory is used again at once. Measured at
# 3x256 and a batch of 256, one thread, against the whole stack at once, with torch's matmul
# precision "highest" and "medium": without gradients 1.05 to 1.5 times as fast with 10 members and
# 1.7 with 200 and 500; forward and backward the same with 10 and 1.2 with 200 and 500. Groups of 1
# (a plain product for each member, as separate linear layers would be) to 20 are within 10 % of
# each other, so plain products are nowhere the fastest by more than noise.
GROUP = 5

# Row counts that change with every batch are filled up to a multiple of this: oneDNN compiles a
# kernel for each new shape, which takes longer than the product.
_ROWS = 16


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
        outputs = [part.run(rows, self.activation) for part, rows in self._parts(inputs)]
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def member(self, index: int, inputs: Tensor) -> Tensor:
        """Map inputs [B, in] through one member only, to [B, out]."""
        return self._member(index).run(inputs, self.activation)

    def with_gradients(self, inputs: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Return `forward`, and the output's gradient in the input columns from ``first`` on.

        Both are differentiable to the first order: the gradient is written out, since the second
        derivatives of a compiled update do not exist. (Eager autograd is as fast.)

        Args:
            inputs: as of `forward`.
            first: column.

        Returns:
            [members, B, 1] and [members, B, in - first].

        Raises:
            ValueError: no hidden layer, several outputs, layer normalisation, or another
                activation than ReLU.
        """
        self._require_linear_pieces()
        outputs, gradients = [], []
        for part, rows in self._parts(inputs):
            hidden: list[Tensor] = []
            outputs.append(part.run(rows, self.activation, hidden))
            gradients.append(part.gradients(hidden, first))
        return torch.cat(outputs), torch.cat(gradients)

    @torch.no_grad()
    def gradients_of(self, which: Tensor, inputs: Tensor, first: int) -> Tensor:
        """Return the gradient, as of `with_gradients`, of one member for each row.

        Args:
            which: the members, [B].
            inputs: [B, in].
            first: column.

        Returns:
            [B, in - first], itself not differentiable.

        Raises:
            ValueError: as `with_gradients`.
        """
        self._require_linear_pieces()
        order = which.argsort()
        counts = torch.bincount(which, minlength=self.members).tolist()
        gradients = []
        for index, own in enumerate(torch.split(order, counts)):
            if not len(own):
                continue
            part, hidden = self._member(index), list[Tensor]()
            padded = torch.cat([own, own[:1].expand(-len(own) % _ROWS)])
            part.run(inputs[padded], self.activation, hidden)
            gradients.append(part.gradients(hidden, first)[: len(own)])
        return torch.cat(gradients)[order.argsort()]

    def _require_linear_pieces(self) -> None:
        shallow = len(self.weights) < 2 or self.weights[-1].shape[-1] != 1
        if shallow or self.activation != "relu" or self.norm_scales:
            raise ValueError(
                "Gradients need a stack with hidden layers, ReLU, one output and no layer norm."
            )

    def _member(self, index: int) -> _Part:
        return _Part(*([parameter[index] for parameter in kind] for kind in self._layers()))

    def _layers(self) -> tuple[nn.ParameterList, ...]:
        return self.weights, self.biases, self.norm_scales, self.norm_shifts

    def _parts(self, inputs: Tensor) -> list[tuple[_Part, Tensor]]:
        """Return the parts that run one after the other, each with its inputs [part, B, in]."""
        rows = inputs if inputs.dim() == 3 else inputs.expand(self.members, *inputs.shape)
        # Gradients of slices have to be joined, which two groups do not pay back.
        most = 2 * GROUP if torch.is_grad_enabled() else GROUP
        if self.members <= most or inputs.device.type != "cpu":
            return [(_Part(*map(list, self._layers())), rows)]
        split = [[torch.split(p, GROUP) for p in kind] for kind in self._layers()]
        return [
            (_Part(*([pieces[index] for pieces in kind] for kind in split)), own)
            for index, own in enumerate(torch.split(rows, GROUP))
        ]


class _Part(NamedTuple):
    """Some members of a stack, or one: for each layer, the slice of its parameters."""

    weights: list[Tensor]
    biases: list[Tensor]
    norm_scales: list[Tensor]
    norm_shifts: list[Tensor]

    def run(
        self, inputs: Tensor, activation: Activation, keep: list[Tensor] | None = None
    ) -> Tensor:
        """Map inputs [part, B, in] to [part, B, out], or of one member [B, in] to [B, out].

        What the hidden layers pass on is appended to ``keep``.
        """
        hidden = inputs
        product = torch.addmm if inputs.dim() == 2 else torch.baddbmm
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer > 0:
                hidden = _activate(hidden, activation)
            if layer > 0 and self.norm_scales:
                scale, shift = self.norm_scales[layer - 1], self.norm_shifts[layer - 1]
                hidden = _normalize(hidden, scale, shift)
            if layer > 0 and keep is not None:
                keep.append(hidden)
            if weight.shape[-1] == 1:  # a matrix product this narrow is slower than a plain sum
                hidden = (hidden * weight.transpose(-2, -1)).sum(-1, keepdim=True) + bias
            else:
                hidden = product(bias, hidden, weight)
        return hidden

    def gradients(self, hidden: list[Tensor], first: int) -> Tensor:
        """Return the output's gradient in the input columns from ``first`` on.

        Between its kinks a ReLU network is linear: the gradient is the product of its weights with
        the units that are idle in ``hidden``, as `run` keeps them, masked out.
        """
        weights = [weight.transpose(-2, -1) for weight in self.weights]
        weights[0] = weights[0][..., first:]
        gradient = weights.pop().expand_as(hidden[-1])
        for values, weight in zip(reversed(hidden), reversed(weights), strict=True):
            gradient = torch.matmul(gradient * values.detach().sign(), weight)
        return gradient


def _activate(hidden: Tensor, activation: Activation) -> Tensor:
    """Apply the activation, in place where no gradient needs what was there."""
    if activation == "relu":
        return hidden.relu_()
    if not torch.is_grad_enabled():
        # Fresh memory costs about as much as the function itself.
        return torch.ops.aten.gelu_(hidden, approximate="tanh")  # type: ignore[no-any-return]
    return functional.gelu(hidden, approximate="tanh")


def _normalize(hidden: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    normal = functional.layer_norm(hidden, hidden.shape[-1:], eps=LAYER_NORM_EPS)
    out = None if torch.is_grad_enabled() else normal
    return torch.addcmul(shift, normal, scale, out=out)


@torch.no_grad()
def initialize(weights: Sequence[Tensor], biases: Sequence[Tensor], init: Init) -> None:
    """Set the starting values of one network's layers in place.

    Args:
        weights: of each layer, [in, out], views of the parameters.
        biases: of each layer, [out].
        init: "torch": as they are; "small_actor", "small_critic": hidden biases 0.1 and a last
            layer within 1e-3 or 3e-3, as in SAC-N, EDAC and ReBRAC; "orthogonal": gain sqrt(2),
            last layer 0.01, biases 0, as in CQL; "xavier": uniform, biases 0, as in OGBench's
            networks and FQL; "xavier_small": the same, the last layer's variance a hundredth, as
            in OGBench's actors.
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
            small = init == "xavier_small" and layer == last
            nn.init.xavier_uniform_(weight, gain=0.1 if small else 1.0)
        bias.zero_()
