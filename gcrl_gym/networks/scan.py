"""The selective scan of Mamba-1: a linear recurrence whose step and inputs depend on the data.

    state_t = exp(dt_t * A) * state_{t-1} + dt_t * u_t * B_t
    y_t     = sum over states of C_t * state_t

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023). A step is a
few operations on the states of the whole batch; the time axis comes first and the channels last,
so that every operand of a step is contiguous or broadcast along its rows::

    states   [t, batch, N, D]      dt, u, y   [t, batch, D]      B, C   [t, batch, N]

Whatever has the size of ``states`` exists for one chunk of the time axis at a time, which stays in
the cache. The backward pass is written out. By default it starts from the state before each chunk
and computes the chunk's states again, which takes no longer than reading them back from memory and
needs a tenth of it.

Sums of logarithms, which would need no loop, overflow once dt is large (a chunk of 16 steps with
dt near 1 already does); products of decays cannot: they lie in [0, 1].
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gcrl_gym.errors import UserError, nearest

ScanMemory = Literal["recompute", "store"]

CHUNK = 10

HALVES = (torch.float16, torch.bfloat16)

# Numbers in the state of the rows that pass through the scan together, on one thread of a CPU: a
# step's operands stay in the second-level cache. Measured with 64 rows of 16 x 256 states: one
# block takes 1.3 to 1.5 times as long as blocks of 16 rows.
_BLOCK = 2**16

LN_2 = math.log(2.0)


class _Steps(NamedTuple):
    """Inputs of consecutive steps: dt, x = dt * u [t, b, D]; B, C [t, b, N]."""

    dt: Tensor
    x: Tensor
    B: Tensor
    C: Tensor

    def at(self, part: slice) -> _Steps:
        return _Steps(*(each[part] for each in self))


class _Gradients(NamedTuple):
    """Of a chunk's `_Steps`, of the rates [N, D] and of the state before the chunk [b, N, D]."""

    dt: Tensor
    x: Tensor
    B: Tensor
    C: Tensor
    rates: Tensor
    state: Tensor


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None = None,
    *,
    memory: ScanMemory = "recompute",
    chunk: int = CHUNK,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence over a batch of sequences, differentiable once in every tensor.

    Args:
        u: inputs, [L, batch, D].
        dt: step sizes >= 0, [L, batch, D].
        A: rates < 0 of the decay in continuous time, [D, N].
        B: input weights, [L, batch, N].
        C: output weights, [L, batch, N].
        state: before the first step, [batch, N, D]; None for zero.
        memory: "recompute" keeps a state per chunk for the backward pass, "store" every state.
        chunk: steps of a chunk.
        compiled: compile the functions of a chunk, where a compiler works; with "recompute" only.

    Returns:
        Outputs [L, batch, D] in u's precision and the state after the last step [batch, N, D].
        Half precisions are computed in float32.

    Raises:
        UserError: an unknown ``memory``, a chunk below 1, or a compiled scan that stores states.
    """
    check_options(memory, chunk, compiled)
    global _eagerly
    if _eagerly is None:
        _eagerly = torch.compiler.disable(_run)  # type: ignore[no-untyped-call]
    return _eagerly(u, dt, A, B, C, state, (chunk, memory == "store", compiled))


# Compiled code calls the scan as eager code. Traced, its steps would be unrolled, which takes
# minutes to compile and then runs slower. The wrapper is made with the first call: it imports
# torch's compiler, which takes a second.
_eagerly: Callable[..., tuple[Tensor, Tensor]] | None = None


def _run(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None,
    options: tuple[int, bool, bool],
) -> tuple[Tensor, Tensor]:
    precision, (_, batch, channels) = u.dtype, u.shape
    u, dt, A, B, C = (widened(each) for each in (u, dt, A, B, C))
    if state is None:
        state = u.new_zeros(batch, A.shape[1], channels)
    # In powers of two, since torch's exp takes up to three times as long as its exp2 (on AMD).
    rates = (A.mT / LN_2).contiguous()
    rows = _rows_together(batch, rates.numel(), u.device)
    split = zip(*(torch.split(each, rows, dim=1) for each in (dt, dt * u, B, C)), strict=True)
    states = torch.split(widened(state), rows)
    with torch.autocast(u.device.type, enabled=False):
        parts: list[tuple[Tensor, Tensor]] = [
            _Scan.apply(*steps, rates, own, *options)  # type: ignore[no-untyped-call]
            for steps, own in zip(split, states, strict=True)
        ]
    y, last = parts[0] if len(parts) == 1 else _joined(parts)
    return y.to(precision), last


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    outputs, states = zip(*parts, strict=True)
    return torch.cat(outputs, dim=1), torch.cat(states)


def check_options(memory: str, chunk: int, compiled: bool) -> None:
    """Raise `selective_scan`'s UserErrors."""
    if memory not in get_args(ScanMemory):
        raise UserError(
            f"selective_scan(memory={memory!r}): expected 'recompute' or 'store'."
            f"{nearest(memory, get_args(ScanMemory))}"
        )
    if chunk < 1:
        raise UserError(f"selective_scan(chunk={chunk!r}): expected a whole number >= 1.")
    if compiled and memory == "store":
        raise UserError(
            "The compiled scan recomputes its states: pass memory='recompute', or another backend."
        )


def widened(values: Tensor) -> Tensor:
    """Return half precisions as float32, anything else as it is."""
    return values.float() if values.dtype in HALVES else values


def _rows_together(batch: int, numbers: int, device: torch.device) -> int:
    """Return how many rows of ``numbers`` states each pass through together."""
    if device.type != "cpu" or batch == 0:
        return max(batch, 1)
    blocks = math.ceil(batch * numbers / (_BLOCK * torch.get_num_threads()))
    return math.ceil(batch / min(blocks, batch))


class _Scan(torch.autograd.Function):
    """`selective_scan` of the rows of one block, in powers of two."""

    @staticmethod
    def forward(
        ctx: Any,
        dt: Tensor,
        x: Tensor,
        B: Tensor,
        C: Tensor,
        rates: Tensor,
        state: Tensor,
        chunk: int,
        store: bool,
        compiled: bool,
    ) -> tuple[Tensor, Tensor]:
        # Compiled functions are compiled again for tensors that differ in requiring gradients.
        steps, y = _Steps(*(each.detach() for each in (dt, x, B, C))), torch.empty_like(x)
        rates, state = rates.detach(), state.detach()
        functions = compiled_functions() if compiled else None
        store = store and any(ctx.needs_input_grad)
        longest, starts, kept = min(chunk, len(dt)), list[Tensor](), list[Tensor]()
        memory = _Memory.of(state, longest)
        for part, full in _parts(len(dt), chunk):
            starts.append(state)
            own = steps.at(part)
            if functions and full:
                y[part], state = functions[0](own, rates, state)
                continue
            if store:
                memory = _Memory.of(state, len(own.dt))
                kept += memory
            y[part], state = _forward_chunk(own, rates, state, memory.first(len(own.dt)))
        ctx.save_for_backward(*steps, rates, *starts, *kept)
        ctx.chunk, ctx.functions, ctx.store = chunk, functions, store
        return y, state if starts else state.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_state: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, rates = (each.detach() for each in ctx.saved_tensors[:5])
        steps, parts = _Steps(*tensors), list(_parts(len(tensors[0]), ctx.chunk))
        starts, kept = _split(ctx.saved_tensors[5:], len(parts))
        grads = _Steps(*(torch.empty_like(each) for each in steps))
        grad_rates, longest = torch.zeros_like(rates), min(ctx.chunk, len(grad_y))
        memory = _Memory.of(grad_state, longest)
        # Recomputed decays are not needed again, so that their memory is used twice.
        scratch = _Memory(torch.empty_like(memory.states), memory.decays)
        with torch.autocast(rates.device.type, enabled=False):
            for index in reversed(range(len(parts))):
                part, full = parts[index]
                own, grad = steps.at(part), grad_y[part]
                if ctx.functions and full:
                    found = ctx.functions[1](own, rates, starts[index], grad, grad_state)
                else:
                    size = len(own.dt)
                    if ctx.store:
                        memory = _Memory(*kept[2 * index : 2 * index + 2])
                    else:
                        _fill(own, rates, starts[index], memory.first(size))
                    found = _backward_chunk(
                        own, rates, memory.first(size), scratch.first(size), grad, grad_state
                    )
                for whole, piece in zip(grads, found, strict=False):
                    whole[part] = piece
                grad_rates += found.rates
                grad_state = found.state
        return *grads, grad_rates, grad_state, None, None, None


class _Memory(NamedTuple):
    """Of a chunk: the states around each step [t + 1, b, N, D] and the decays [t, b, N, D]."""

    states: Tensor
    decays: Tensor

    @classmethod
    def of(cls, state: Tensor, steps: int) -> _Memory:
        return cls(state.new_empty(steps + 1, *state.shape), state.new_empty(steps, *state.shape))

    def first(self, steps: int) -> _Memory:
        return _Memory(self.states[: steps + 1], self.decays[:steps])


def _split(tensors: Sequence[Tensor], first: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    return tensors[:first], tensors[first:]


def _parts(length: int, chunk: int) -> Iterator[tuple[slice, bool]]:
    """Yield the chunks of a time axis, and whether each is a full one."""
    for start in range(0, length, chunk):
        yield slice(start, min(start + chunk, length)), start + chunk <= length


def _fill(steps: _Steps, rates: Tensor, state: Tensor, memory: _Memory) -> None:
    """Compute a chunk's states and decays, the given state in front."""
    states, decays = memory
    torch.mul(steps.dt[:, :, None], rates, out=decays).exp2_()
    torch.mul(steps.x[:, :, None], steps.B[..., None], out=states[1:])
    states[0] = state
    before = states.unbind()
    for old, new, decay in zip(before, before[1:], decays.unbind(), strict=False):
        new.addcmul_(old, decay)


def _forward_chunk(
    steps: _Steps, rates: Tensor, state: Tensor, memory: _Memory
) -> tuple[Tensor, Tensor]:
    """Return outputs [t, b, D] and the state after the chunk."""
    _fill(steps, rates, state, memory)
    return _over_states(steps.C, memory.states[1:]), memory.states[-1].clone()


def _over_states(weights: Tensor, states: Tensor) -> Tensor:
    """Return the weighted sum over states, [t, b, D], of weights [t, b, N], states [t, b, N, D]."""
    time, batch, number, channels = states.shape
    rows = weights.reshape(-1, 1, number)
    return torch.bmm(rows, states.view(-1, number, channels)).view(time, batch, channels)


def _over_channels(weights: Tensor, states: Tensor) -> Tensor:
    """Return the weighted sum over channels, [t, b, N], of weights [t, b, D]."""
    time, batch, number, channels = states.shape
    # A product with a row is ten times as fast as the same one with a column.
    rows = weights.reshape(-1, 1, channels)
    return torch.bmm(rows, states.view(-1, number, channels).mT).view(time, batch, number)


def _backward_chunk(
    steps: _Steps,
    rates: Tensor,
    filled: _Memory,
    scratch: _Memory,
    grad_y: Tensor,
    grad_state: Tensor,
) -> _Gradients:
    """Return a chunk's gradients, from those of its outputs and of the state behind it."""
    states, decays = filled
    # With respect to the state after each step: through its output, and through the next state.
    grads, product = scratch.states[1:], scratch.decays
    torch.mul(grad_y[:, :, None], steps.C[..., None], out=grads)
    own = grads.unbind()
    own[-1].add_(grad_state)
    rows = zip(own, own[1:], decays[1:].unbind(), strict=False)
    for grad, next_grad, next_decay in reversed(list(rows)):
        grad.addcmul_(next_grad, next_decay)
    exponents = torch.mul(grads, decays, out=product)
    grad_state = exponents[0].clone()
    exponents.mul_(states[:-1])  # their gradient, but for ln 2
    grad_x, grad_b = _over_states(steps.B, grads), _over_channels(steps.x, grads)
    grad_c = _over_channels(grad_y, states[1:])
    grad_rates = torch.mul(exponents, steps.dt[:, :, None], out=grads).sum((0, 1)) * LN_2
    grad_dt = exponents.mul_(rates).sum(2) * LN_2
    return _Gradients(grad_dt, grad_x, grad_b, grad_c, grad_rates, grad_state)


def _plain_forward(steps: _Steps, rates: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`_forward_chunk` without memory of its own: the compiler fuses what eager torch would not."""
    decays = torch.exp2(steps.dt[:, :, None] * rates)
    outputs: list[Tensor] = []  # (the compiler does not know list[Tensor]())
    for dt_a, x, weight, out in zip(decays, steps.x, steps.B, steps.C, strict=True):
        state = state * dt_a + x[:, None] * weight[..., None]
        outputs.append((state * out[..., None]).sum(1))
    return torch.stack(outputs), state


def _plain_backward(
    steps: _Steps, rates: Tensor, state: Tensor, grad_y: Tensor, grad_state: Tensor
) -> _Gradients:
    """`_fill` and `_backward_chunk` for the compiler."""
    dt, x, weights, out = steps
    decays, states = torch.exp2(dt[:, :, None] * rates), [state]
    for t in range(len(dt)):
        states.append(states[-1] * decays[t] + x[t][:, None] * weights[t][..., None])
    found: list[list[Tensor]] = [[], [], [], []]
    grad_rates = torch.zeros_like(state)
    for t in reversed(range(len(dt))):
        grad = grad_state + grad_y[t][:, None] * out[t][..., None]
        grad_state = grad * decays[t]
        exponents = grad_state * states[t] * LN_2
        grad_rates = grad_rates + exponents * dt[t][:, None]
        found[0].insert(0, (exponents * rates).sum(1))
        found[1].insert(0, (grad * weights[t][..., None]).sum(1))
        found[2].insert(0, (grad * x[t][:, None]).sum(2))
        found[3].insert(0, (states[t + 1] * grad_y[t][:, None]).sum(2))
    grad_dt, grad_x, grad_b, grad_c = (torch.stack(each) for each in found)
    return _Gradients(grad_dt, grad_x, grad_b, grad_c, grad_rates.sum(0), grad_state)


@functools.cache
def compiled_functions() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Return the compiled functions of a chunk, or None, with one warning, without a compiler."""
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.zeros(8))
    except Exception as error:  # the compiler raises its own, undocumented kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(
            f"backend='compiled': no working compiler ({reason}); the scan runs as 'torch'.",
            stacklevel=2,
        )
        return None
    return torch.compile(_plain_forward), torch.compile(_plain_backward)
