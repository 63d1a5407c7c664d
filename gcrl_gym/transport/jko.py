"""The JKO chain: actors that each take one proximal step away from their predecessor.

Actor i minimises ``energy(pi_i) + w_i * W2sq(pi_i, stop_gradient(pi_{i-1}))``. Actors step in
order, so actor i sees its predecessor as already updated in the same training step (Gauss-Seidel).
Critics are never trained by an actor's loss: gradients are taken for the actor's parameters alone.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gcrl_gym.errors import UserError
from gcrl_gym.transport.wasserstein import exact_w2, sinkhorn_w2

W2Kind = Literal["sinkhorn", "exact"]
Backend = Literal["tensorized", "online", "auto"]


def q_energy(q: Tensor, normalize: bool) -> tuple[Tensor, Tensor]:
    """Return the energy ``-lambda * mean(Q)`` and lambda.

    Args:
        q: action values of the actor's own actions, [B].
        normalize: lambda = 1 / max(mean |Q|, 1e-6), without gradient; otherwise lambda = 1.

    Returns:
        The scalar energy and the detached scalar lambda.
    """
    scale = q.detach().abs().mean().clamp_min(1e-6).reciprocal() if normalize else q.new_ones(())
    return -scale * q.mean(), scale


def sampled_w2(
    samples: Tensor, reference: Tensor, kind: W2Kind, blur: float, backend: Backend
) -> Tensor:
    """Return the squared W2 distance between two policies, from samples.

    Args:
        samples: actions of the policy being trained, [B, K, A].
        reference: actions of its predecessor, [B, K, A]; no gradient flows into them.
        kind: "sinkhorn" (debiased, geomloss) or "exact" (optimal assignment).
        blur: Sinkhorn's blur, in action units.
        backend: geomloss backend of "sinkhorn".

    Returns:
        Scalar: summed over action dimensions, mean over states.
    """
    if kind == "exact":
        return exact_w2(samples, reference.detach())
    return sinkhorn_w2(samples, reference.detach(), blur=blur, backend=backend)


def check_weights(w2_weights: tuple[float, ...], least: int) -> tuple[float, ...]:
    """Return the weights as floats, or say which one is wrong.

    Args:
        w2_weights: one weight per actor of the chain.
        least: smallest allowed number of weights.

    Raises:
        UserError: too few weights, or one that is negative or not a finite number.
    """
    weights = tuple(float(weight) for weight in w2_weights)
    if len(weights) < least:
        raise UserError(
            f"w2_weights has {len(weights)} entries; give at least {least}, one per actor."
        )
    for index, weight in enumerate(weights):
        if not (0.0 <= weight < float("inf")):
            raise UserError(f"w2_weights[{index}] is {weight}; weights must be finite and >= 0.")
    return weights


@torch.no_grad()
def spread(samples: Tensor) -> Tensor:
    """Return the standard deviation over the K samples [B, K, A], averaged over states and dims."""
    # Plain operations: Tensor.std over a middle axis is ten times slower.
    centred = samples - samples.mean(dim=1, keepdim=True)
    return centred.square().sum(1).div(max(samples.shape[1] - 1, 1)).sqrt().mean()
