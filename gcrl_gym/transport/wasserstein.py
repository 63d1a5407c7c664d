"""Squared 2-Wasserstein distances between policies, all of one documented quantity.

Every function returns the SQUARED distance, summed over action dimensions and averaged over the
batch of states, so that a weight means the same whatever the pair of policies:

    gaussian_w2   both policies diagonal Gaussians    closed form
    sinkhorn_w2   K samples per state of each         debiased Sinkhorn divergence (geomloss)
    exact_w2      K samples per state of each         optimal assignment
    squared_l2    one of the two is deterministic     squared distance of the actions

Two sample sets drawn independently are apart even when the policies are equal: at K = 4 two sets of
one Gaussian (sigma 0.3, d = 3) read about 0.31. Feeding both policies the same noise removes that.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from functools import lru_cache
from typing import Literal

import torch
from geomloss import SamplesLoss
from torch import Tensor

from gcrl_gym.errors import UserError
from gcrl_gym.transport.sinkhorn import BATCHED_MAX_SAMPLES, batched_sinkhorn

SinkhornBackend = Literal["tensorized", "online", "auto"]

# 6! = 720 permutations still beat Sinkhorn on a CPU; 7! = 5040 do not.
EXACT_MAX_SAMPLES = 6

_ASSIGNMENTS: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}


def gaussian_w2(mean_a: Tensor, std_a: Tensor, mean_b: Tensor, std_b: Tensor) -> Tensor:
    """Return the squared W2 distance of two diagonal Gaussian policies, in closed form.

    Args:
        mean_a: means of the first policy, [B, d].
        std_a: standard deviations (not their logarithms), [B, d] or [d].
        mean_b: means of the second policy, [B, d].
        std_b: standard deviations of the second policy, [B, d] or [d].

    Returns:
        Scalar ``mean_B(|mean_a - mean_b|^2 + |std_a - std_b|^2)``.
    """
    return ((mean_a - mean_b).square() + (std_a - std_b).square()).sum(-1).mean()


def squared_l2(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distance of two batches of actions: W2 squared of two point masses.

    Args:
        a: actions [B, d] or samples [B, K, d].
        b: actions of the same shape.

    Returns:
        Scalar: summed over action dimensions, averaged over everything else.
    """
    return (a - b).square().sum(-1).mean()


def sinkhorn_w2(
    a: Tensor, b: Tensor, *, blur: float = 0.05, backend: SinkhornBackend = "tensorized"
) -> Tensor:
    """Return the debiased Sinkhorn approximation of the squared W2 distance of two sample sets.

    geomloss's cost is |x - y|^2 / 2, hence its value is half of the squared distance; it is doubled
    here. For sets that lie close together (nearer than their samples to each other) the value tends
    to the optimal assignment as ``blur`` falls to 0. For sets that lie apart it stays below it,
    whatever the blur, because geomloss stops after one pass of its annealing schedule: by 1-3 % for
    independent sets in [-1, 1]^d at K = 4, by 11 % at K = 16, by 22 % at K = 64.

    Args:
        a: samples of the first policy, [B, K, d].
        b: samples of the second policy, [B, K, d]; detach it to keep gradients out of it.
        blur: smallest resolved scale, in action units, > 0 (entropic epsilon = blur^2).
        backend: "tensorized" (geomloss, as published), "online" (geomloss with pykeops, for large
            K) or "auto" (the same algorithm laid out for many small problems, equal to 1e-4, up to
            K = 16; geomloss above).

    Returns:
        Scalar: summed over action dimensions, averaged over states. NaN for samples that are NaN.

    Raises:
        UserError: impossible ``blur`` or ``backend``, or shapes that do not match.
    """
    check_sinkhorn(blur, backend)
    _check_samples(a, b)
    diameter = _diameter(a, b)
    # A cloud smaller than the blur (all points equal: diameter 0) would start the annealing at
    # log(0); a NaN must reach the loss, where it is reported, instead of failing in the schedule.
    usable = blur < diameter < math.inf
    if backend == "auto" and a.shape[1] <= BATCHED_MAX_SAMPLES:
        return 2 * batched_sinkhorn(a, b, blur, diameter if usable else blur)
    engine = "online" if backend == "online" else "tensorized"
    loss = _samples_loss(blur, engine, None if usable else blur)
    # geomloss leaves gradients switched on; the context puts the caller's mode back.
    with torch.set_grad_enabled(torch.is_grad_enabled()):
        values: Tensor = loss(a.contiguous(), b.contiguous())
    return 2 * values.mean()


def exact_w2(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared W2 distance of two small sample sets, by optimal assignment.

    All K! assignments are priced at once, without gradient; the value is then the mean squared
    distance of matched samples, whose gradient is that of the distance (envelope theorem).

    Args:
        a: samples of the first policy, [B, K, d], K <= 6.
        b: samples of the second policy, [B, K, d]; detach it to keep gradients out of it.

    Returns:
        Scalar: summed over action dimensions, averaged over states.

    Raises:
        UserError: more than 6 samples per state, or shapes that do not match.
    """
    _check_samples(a, b)
    k = a.shape[1]
    check_exact(k)
    permutations, incidence = _assignments(k, a.device)
    with torch.no_grad():
        cost = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
        # float64: a matmul setting that rounds (bf16, TF32) must not pick another assignment.
        totals = cost.view(-1, k * k).double() @ incidence  # [B, K!]
        matching = permutations[totals.argmin(1)]  # [B, K]: sample i of a goes to matching[i] of b
    matched = b.gather(1, matching.unsqueeze(-1).expand_as(b))
    return squared_l2(a, matched)


def check_exact(num_samples: int) -> None:
    """Raise UserError when ``exact_w2`` cannot serve that many samples per state."""
    if num_samples > EXACT_MAX_SAMPLES:
        raise UserError(
            f'w2="exact" compares at most {EXACT_MAX_SAMPLES} samples per state, not '
            f'{num_samples}; use fewer samples or w2="sinkhorn".'
        )


def check_sinkhorn(blur: float, backend: str) -> None:
    """Raise UserError for a blur or a backend that ``sinkhorn_w2`` cannot use."""
    if not 0 < blur < math.inf:
        raise UserError(f"blur is {blur}; it must be a finite number > 0, such as 0.05.")
    if backend not in ("tensorized", "online", "auto"):
        raise UserError(f'backend is {backend!r}; choose "tensorized", "online" or "auto".')
    if backend == "online" and importlib.util.find_spec("pykeops") is None:
        raise UserError(
            'backend="online" needs pykeops, which is not installed; run "pip install pykeops" or '
            'use backend="tensorized".'
        )


def _check_samples(a: Tensor, b: Tensor) -> None:
    if a.dim() != 3 or a.shape != b.shape:
        raise UserError(
            f"W2 compares two sample sets of one shape [B, K, d], not {list(a.shape)} and "
            f"{list(b.shape)}."
        )


@torch.no_grad()
def _diameter(a: Tensor, b: Tensor) -> float:
    """Return the diagonal of the box around all samples, as geomloss starts its annealing from."""
    points = torch.cat([a, b]).flatten(0, 1)  # [2BK, d]
    return float((points.amax(0) - points.amin(0)).norm())


@lru_cache(maxsize=16)
def _samples_loss(blur: float, backend: str, diameter: float | None) -> SamplesLoss:
    return SamplesLoss("sinkhorn", p=2, blur=blur, diameter=diameter, backend=backend)


def _assignments(k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return all permutations of k samples and the matrix that prices them.

    For k = 2 the flattened cost is [c00, c01, c10, c11] and the two columns of the matrix are
    [1, 0, 0, 1] (identity: c00 + c11) and [0, 1, 1, 0] (swap: c01 + c10).

    Returns:
        Permutations, int64 [K!, K], and incidence, float64 [K*K, K!].
    """
    # A plain dict: torch.compile warns about lru_cache and would rebuild the tables every call.
    if (k, device) not in _ASSIGNMENTS:
        permutations = torch.tensor(list(itertools.permutations(range(k))), device=device)
        incidence = torch.nn.functional.one_hot(permutations, k).flatten(1).t()
        _ASSIGNMENTS[k, device] = permutations, incidence.double().contiguous()
    return _ASSIGNMENTS[k, device]
