"""The debiased Sinkhorn divergence for many small problems at once (thousands of states, K <= 16).

The algorithm and its annealing schedule are geomloss's (Feydy, "Geometric data analysis, beyond
convolutions", 2020, algorithm 3.5), so the values agree to rounding. Only the memory layout
differs: the state index is innermost, and the four problems of the divergence share every call.

    columns of a cost tensor [K_to, K_from, 4B]:  |  a<->b  |  b<->a  |  a<->a  |  b<->b  |
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Above this many samples per state geomloss's own layout catches up (benchmarks/bench_wasserstein).
BATCHED_MAX_SAMPLES = 16

# exp(-80) is nothing beside the largest term (1) but still a normal float32: subnormal numbers
# make exp and everything after it several times slower.
_SMALLEST_EXPONENT = -80.0


def batched_sinkhorn(a: Tensor, b: Tensor, blur: float, diameter: float) -> Tensor:
    """Return the debiased Sinkhorn divergence (half of the squared W2), averaged over states.

    Args:
        a: samples [B, K, d].
        b: samples [B, K, d].
        blur: final scale of the annealing, > 0.
        diameter: first scale of the annealing, >= blur.

    Returns:
        Scalar. Its gradient flows into both arguments, each counted once.
    """
    states = a.shape[0]
    points_a, points_b = (x.permute(1, 2, 0).contiguous() for x in (a, b))  # [K, d, B]
    source = torch.cat([points_a, points_b, points_a, points_b], -1)
    # Each potential is differentiated for its own points only: with gradient on both sides of a
    # cost, the a<->b and b<->a problems would each deliver the whole gradient, twice too much.
    target = torch.cat([points_b, points_a, points_a, points_b], -1).detach()
    cost = (source.unsqueeze(0) - target.unsqueeze(1)).square().sum(2) / 2  # [K, K, 4B]
    with torch.no_grad():
        potential = _anneal(cost, blur, diameter, states)
    # By the envelope theorem one last step with gradient gives the gradient of the whole loop.
    final = _softmin(blur**2, cost, _swap(potential, states))  # [K, 4B]
    a_to_b, b_to_a, a_to_a, b_to_b = final.mean(0).view(4, states).mean(1).unbind()
    return a_to_b + b_to_a - a_to_a - b_to_b


def _anneal(cost: Tensor, blur: float, diameter: float, states: int) -> Tensor:
    """Return the dual potentials [K, 4B] after one descent of epsilon from diameter^2 to blur^2."""
    # As geomloss writes it, so that rounding cannot give another number of steps.
    halving = np.exp(np.arange(2 * np.log(diameter), 2 * np.log(blur), 2 * np.log(0.5)))
    epsilons = [diameter**2, *halving.tolist(), blur**2]
    potential = _softmin(epsilons[0], cost, torch.zeros_like(cost[0]))
    for epsilon in epsilons:
        updated = _softmin(epsilon, cost, _swap(potential, states))
        potential = (potential + updated) / 2
    return potential


def _softmin(epsilon: float, cost: Tensor, potential: Tensor) -> Tensor:
    """Return ``-epsilon * log mean_j exp((potential_j - cost_ij) / epsilon)``, [K, 4B]."""
    exponent = (potential.unsqueeze(1) - cost) * (1 / epsilon)
    largest = exponent.detach().amax(0)
    shifted = (exponent - largest).clamp_min(_SMALLEST_EXPONENT)
    return (shifted.exp().mean(0).log() + largest) * -epsilon


def _swap(potential: Tensor, states: int) -> Tensor:
    """Exchange the columns of a<->b and b<->a: each is updated from the other's potential."""
    return torch.cat(
        [potential[:, states : 2 * states], potential[:, :states], potential[:, 2 * states :]], 1
    )
