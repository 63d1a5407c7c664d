"""A Mamba-1 block in plain torch, with mamba-ssm's parameters and, on a GPU, its fused kernel.

    x, z = in_proj(input)
    u = silu(causal convolution of x)
    dt, B, C = x_proj(u);  dt = softplus(dt_proj(dt))
    output = out_proj((scan(u, dt, -exp(A_log), B, C) + D u) * silu(z))

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023). Names, shapes
and starting values of the parameters are those of ``mamba_ssm.Mamba``, so that its weights load
with ``load_state_dict``. (Mamba-2's do not: its decay and projections are others.)
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcrl_gym.errors import UserError, nearest
from gcrl_gym.networks.scan import HALVES, LN_2, ScanMemory, check_options, selective_scan, widened

MambaBackend = Literal["auto", "fused", "torch", "compiled"]
MambaState = tuple[Tensor, Tensor]

INSTALL = (
    "torch and CUDA's nvcc first, then MAMBA_KEEP_CUDA_BUILD=TRUE pip install 'gcrl-gym[mamba]' "
    "--no-build-isolation"
)

# Least and greatest time step of the channels at the start.
_DT_RANGE = (1e-3, 0.1)
_DT_FLOOR = 1e-4


@functools.cache
def fused_kernel() -> Callable[..., Any] | None:
    """Return mamba-ssm's fused scan, or None where it cannot be imported.

    That ``mamba_ssm`` imports does not say that its kernels were built, so those are imported too;
    half-installed packages raise whatever they like.
    """
    try:
        importlib.import_module("selective_scan_cuda")
        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        return interface.selective_scan_fn  # type: ignore[no-any-return]
    except Exception:
        return None


@functools.cache
def _fused_convolution() -> Callable[..., Any] | None:
    try:
        importlib.import_module("causal_conv1d_cuda")
        return importlib.import_module("causal_conv1d").causal_conv1d_fn  # type: ignore[no-any-return]
    except Exception:
        return None


def backend_on(backend: MambaBackend, device: torch.device | str) -> MambaBackend:
    """Return what runs on a device: "fused", "torch" or "compiled".

    Args:
        backend: as asked for. "auto" is "fused" on CUDA where mamba-ssm's kernel imports, otherwise
            "torch".
        device: of the tensors.

    Raises:
        UserError: "fused" where it cannot run, or an unknown backend.
    """
    if backend not in get_args(MambaBackend):
        options = get_args(MambaBackend)
        raise UserError(
            f"backend={backend!r}: expected one of {', '.join(map(repr, options))}."
            f"{nearest(backend, options)}"
        )
    if backend not in ("auto", "fused"):
        return backend
    on_gpu = torch.device(device).type == "cuda"
    if backend == "auto":
        return "fused" if on_gpu and fused_kernel() is not None else "torch"
    if fused_kernel() is None:
        raise UserError(
            f"backend='fused': mamba_ssm and its selective_scan_cuda do not import; install them "
            f"({INSTALL}), or pass backend='auto'."
        )
    if not on_gpu:
        raise UserError(
            f"backend='fused': mamba-ssm's kernel runs on CUDA only and the tensors are on "
            f"{device}; move them, or pass backend='auto'."
        )
    return "fused"


class MambaBlock(nn.Module):
    """Mamba-1: causal convolution, selective scan and gate, between two projections.

    Args:
        d_model: width of input and output.
        d_state: states of a channel.
        d_conv: steps that the convolution sees.
        expand: channels per unit of width.
        backend: see `backend_on`; chosen for every call by where the input is, so that a block may
            move between devices. "compiled" compiles the scan's inner functions with torch.compile,
            and runs as "torch", with a warning, where there is no C++ compiler.
        memory: see `selective_scan`.

    Raises:
        UserError: an unknown backend or memory, "fused" without mamba-ssm, or "compiled" with
            memory="store".
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        backend: MambaBackend = "auto",
        memory: ScanMemory = "recompute",
    ) -> None:
        super().__init__()
        # A wrong one is told before anything is trained; "auto" imports nothing before it has to.
        backend_on(backend, "cuda" if backend == "fused" else "cpu")
        check_options(memory, 1, compiled=backend == "compiled")
        self.d_inner, self.dt_rank = expand * d_model, math.ceil(d_model / 16)
        self.d_state, self.d_conv = d_state, d_conv
        self.backend, self.memory = backend, memory
        channels = self.d_inner
        self.in_proj = nn.Linear(d_model, 2 * channels, bias=False)
        self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels)
        self.x_proj = nn.Linear(channels, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, channels)
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        self.out_proj = nn.Linear(channels, d_model, bias=False)
        self._initialize_dt()

    @torch.no_grad()
    def _initialize_dt(self) -> None:
        """Keep the variance, and spread softplus(bias) evenly on a logarithmic scale."""
        bound = self.dt_rank**-0.5
        self.dt_proj.weight.uniform_(-bound, bound)
        low, high = map(math.log, _DT_RANGE)
        dt = torch.empty(self.d_inner).uniform_(low, high).exp().clamp_min(_DT_FLOOR)
        self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus backwards

    def initial_state(self, batch: int) -> MambaState:
        """Return zeros: the convolution's last inputs [B, d_conv - 1, d_inner], [B, N, d_inner]."""
        zeros = self.D.new_zeros
        return (
            zeros(batch, self.d_conv - 1, self.d_inner),
            zeros(batch, self.d_state, self.d_inner),
        )

    def forward(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        """Run over sequences.

        Args:
            x: [B, L, d_model].
            state: what an earlier part of the sequences left; None at their beginning. The fused
                kernel starts at zero: with a state (or in float64) "auto" runs as "torch".

        Returns:
            [B, L, d_model], and the state after the last step (without gradient where fused).

        Raises:
            UserError: "fused" where it cannot run.
        """
        backend = backend_on(self.backend, x.device)
        if backend == "fused" and (state is not None or x.dtype == torch.float64):
            if self.backend == "fused":
                raise UserError(
                    "backend='fused': mamba-ssm's kernel takes neither a state to start from nor "
                    "float64; pass backend='auto', which runs these calls as 'torch'."
                )
            backend = "torch"
        inputs, gate = self.in_proj(x.transpose(0, 1)).chunk(2, dim=-1)  # [L, B, d_inner] each
        if state is None:
            before, scan_state = inputs.new_zeros(self.d_conv - 1, *inputs.shape[1:]), None
        else:
            before, scan_state = state[0].transpose(0, 1).to(inputs.dtype), state[1]
        padded = torch.cat([before, inputs])
        last = padded[len(inputs) :].transpose(0, 1)
        if backend == "fused":
            y, scan_state = self._fused(inputs, padded, gate)
        else:
            u = functional.silu(self._convolution(padded))
            dt, in_weights, out_weights = self._selection(u)
            y, scan_state = selective_scan(
                u,
                self._time_steps(dt),
                self._rates(),
                in_weights,
                out_weights,
                scan_state,
                memory=self.memory,
                compiled=backend == "compiled",
            )
            y = torch.addcmul(y, u, self.D.to(y.dtype)) * functional.silu(gate)
        return self.out_proj(y).transpose(0, 1), (last, scan_state)

    def step(self, x: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """Take one step, in plain torch on every backend.

        Args:
            x: [B, d_model].
            state: `initial_state`, or what the step before returned.

        Returns:
            [B, d_model] and the new state.
        """
        # Called for every environment step: functions, since a module's call takes 2 us more. The
        # rates are not kept between steps: computing them takes as long as noticing a change, of
        # which fused optimisers leave no trace in a tensor's version.
        inputs, gate = functional.linear(x, self.in_proj.weight).chunk(2, dim=-1)
        seen = torch.cat([state[0], inputs.unsqueeze(1)], dim=1)  # [B, d_conv, d_inner]
        u = functional.silu((seen * self.conv1d.weight[:, 0].mT).sum(1) + self._conv_bias)
        dt, in_weights, out_weights = self._selection(u)
        dt = self._time_steps(dt)
        decay = torch.exp2((dt / -LN_2).unsqueeze(1) * widened(self.A_log).exp().mT)
        scanned = torch.addcmul(decay * state[1], in_weights.unsqueeze(-1), (dt * u).unsqueeze(1))
        y = torch.bmm(out_weights.unsqueeze(1).to(scanned.dtype), scanned).squeeze(1)
        y = torch.addcmul(y, u, self.D) * functional.silu(gate)
        return functional.linear(y.to(gate.dtype), self.out_proj.weight), (seen[:, 1:], scanned)

    def _convolution(self, padded: Tensor) -> Tensor:
        """Return the causal convolution, [L, B, d_inner], of [d_conv - 1 + L, B, d_inner].

        A few products of whole rows: torch's own takes three times as long in this layout.
        """
        length, (weights, out) = len(padded) - self.d_conv + 1, self._filter(padded.dtype)
        for lag in range(self.d_conv):
            out = torch.addcmul(out, padded[lag : lag + length], weights[:, lag])
        return out

    @property
    def _conv_bias(self) -> Tensor:
        return cast(Tensor, self.conv1d.bias)

    def _filter(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return weights [d_inner, d_conv] and bias [d_inner] of the convolution."""
        return self.conv1d.weight[:, 0].to(dtype), self._conv_bias.to(dtype)

    def _selection(self, u: Tensor) -> tuple[Tensor, ...]:
        """Return what selects: dt in its low rank [.., dt_rank], weights B and C [.., N]."""
        sizes = [self.dt_rank, self.d_state, self.d_state]
        return torch.split(functional.linear(u, self.x_proj.weight), sizes, dim=-1)

    def _time_steps(self, low_rank: Tensor) -> Tensor:
        """Return dt [.., d_inner]; the bias is large beside the rest, so never added in halves."""
        weight, bias = self.dt_proj.weight, self.dt_proj.bias
        if low_rank.dtype in HALVES:
            return functional.softplus(functional.linear(low_rank, weight).float() + bias.float())
        return functional.softplus(functional.linear(low_rank, weight, bias))

    def _rates(self) -> Tensor:
        return -widened(self.A_log).exp()

    def _fused(self, inputs: Tensor, padded: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gated scan [L, B, d_inner] and the last state, by mamba-ssm's kernel."""
        scan, convolution = fused_kernel(), _fused_convolution()
        assert scan is not None
        if convolution is None:
            u = functional.silu(self._convolution(padded))
        else:
            channels_first = inputs.permute(1, 2, 0)
            u = convolution(channels_first, *self._filter(inputs.dtype), activation="silu")
            u = u.permute(2, 0, 1)
        low_rank, in_weights, out_weights = self._selection(u)
        dt = functional.linear(low_rank, self.dt_proj.weight)
        rows = [each.permute(1, 2, 0) for each in (u, dt, in_weights, out_weights, gate)]
        y, last = scan(
            *rows[:2],
            self._rates(),
            *rows[2:4],
            self.D.float(),
            z=rows[4],
            delta_bias=self.dt_proj.bias.float(),
            delta_softplus=True,
            return_last_state=True,
        )
        return y.permute(2, 0, 1), last.detach().mT
