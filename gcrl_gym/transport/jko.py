"""The JKO chain: actors that each take one proximal step away from their predecessor.

Actor i minimises ``lambda * energy(pi_i) + w_i * W2sq(pi_i, stop_gradient(pi_{i-1}))``. Actors step
in order, so actor i sees its predecessor as already updated in the same training step
(Gauss-Seidel). Critics are never trained by an actor's loss: gradients are taken for the actor's
parameters alone. `Chain` appends such actors to the actor 0 of any algorithm, whose own loss stays
the published one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from gcrl_gym.errors import UserError
from gcrl_gym.networks.policies import ContinuousPolicy, GaussianPolicy
from gcrl_gym.networks.steps import minimize, soft_update
from gcrl_gym.transport.wasserstein import (
    check_exact,
    exact_w2,
    gaussian_w2,
    sinkhorn_w2,
    squared_l2,
)

W2Kind = Literal["sinkhorn", "exact"]
W2Noise = Literal["independent", "shared"]
Reference = Literal["online", "target"]
Backend = Literal["tensorized", "online", "auto"]

Energy = Callable[[ContinuousPolicy, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``energy(policy, inputs [B, D], noise [B, A])`` returns what the policy is to minimise, [B], and
the action values [B] whose magnitude is its scale."""


def q_energy(q: Tensor, normalize: bool) -> tuple[Tensor, Tensor]:
    """Return the energy ``-lambda * mean(Q)`` and lambda.

    Args:
        q: action values of the actor's own actions, [B].
        normalize: lambda = 1 / max(mean |Q|, 1e-6), without gradient; otherwise lambda = 1.

    Returns:
        The scalar energy and the detached scalar lambda.
    """
    scale = inverse_magnitude(q) if normalize else q.new_ones(())
    return -scale * q.mean(), scale


def inverse_magnitude(q: Tensor) -> Tensor:
    """Return lambda = 1 / max(mean |Q|, 1e-6), a scalar without gradient."""
    return q.detach().abs().mean().clamp_min(1e-6).reciprocal()


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
    if isinstance(w2_weights, (int, float)):
        raise UserError(f"w2_weights is {w2_weights}; give one per actor, as ({w2_weights},).")
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


def policy_w2(
    policy: ContinuousPolicy,
    reference: ContinuousPolicy,
    inputs: Tensor,
    noise: Tensor,
    reference_noise: Tensor,
    kind: W2Kind = "sinkhorn",
    blur: float = 0.05,
    backend: Backend = "tensorized",
) -> Tensor:
    """Return the squared W2 distance of two policies, in the way that their kinds allow.

    Both Gaussian: closed form. One deterministic, a point mass: the mean squared distance of the
    other's actions to it, which is the distance (in closed form where the other is Gaussian).
    Otherwise: `sampled_w2`.

    Args:
        policy: the one that is trained.
        reference: its predecessor; no gradient flows into it.
        inputs: [B, D].
        noise: of the policy's samples, [B, K, A].
        reference_noise: of the reference's, [B, K, A].
        kind: see `sampled_w2`.
        blur: see `sampled_w2`.
        backend: see `sampled_w2`.

    Returns:
        Scalar: summed over action dimensions, mean over states.
    """
    return _w2_and_spread(policy, reference, inputs, noise, reference_noise, kind, blur, backend)[0]


def _w2_and_spread(
    policy: ContinuousPolicy,
    reference: ContinuousPolicy,
    inputs: Tensor,
    noise: Tensor,
    reference_noise: Tensor,
    kind: W2Kind,
    blur: float,
    backend: Backend,
) -> tuple[Tensor, Tensor | None]:
    """Return `policy_w2` and the deviation of the policy's actions, None for a point mass."""
    kinds = {policy.kind, reference.kind}
    if kinds == {"deterministic"}:
        return squared_l2(policy.mode(inputs), reference.mode(inputs).detach()), None
    if kinds <= {"deterministic", "gaussian"}:
        mean, std = _normal(policy, inputs)
        with torch.no_grad():
            target = _normal(reference, inputs)
        own = std.detach().mean() if policy.kind == "gaussian" else None
        return gaussian_w2(mean, std, *target), own
    with torch.no_grad():
        target_actions = _cloud(reference, inputs, reference_noise)
    actions = _cloud(policy, inputs, noise)
    own = spread(actions) if policy.kind != "deterministic" else None
    if "deterministic" in kinds:
        return (actions - target_actions).square().sum(-1).mean(), own
    return sampled_w2(actions, target_actions, kind, blur, backend), own


def _normal(policy: ContinuousPolicy, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [B, A] and standard deviation of a Gaussian, or of a point mass."""
    if isinstance(policy, GaussianPolicy):
        return policy.gaussian(inputs)
    action = policy.mode(inputs)
    return action, action.new_zeros(action.shape[-1])


def _cloud(policy: ContinuousPolicy, inputs: Tensor, noise: Tensor) -> Tensor:
    """Actions [B, K, A], or [B, 1, A] of a deterministic policy."""
    if policy.kind == "deterministic":
        return policy.mode(inputs).unsqueeze(1)
    return policy.samples(inputs, noise)


class Chain:
    """Actors 1 .. n behind the actor 0 of an agent.

    Args:
        agent: its ``add_network``, ``add_optimizer`` and ``generators`` are used.
        first: actor 0.
        w2_weights: one weight for each actor that is appended; () for none.
        make: makes the network of an appended actor; None copies actor 0 with its weights, so
            that the first distance is 0.
        w2: see `policy_w2`.
        w2_noise: "independent" noise for the two policies compared, or "shared".
        K: samples per state of the distance.
        blur: of the Sinkhorn distance.
        backend: of the Sinkhorn distance.
        normalize_energy: lambda = 1 / mean |Q|, without gradient; otherwise lambda = 1.
        learning_rate: of the appended actors; one for all, one for each, or None for the agent's.
        reference: "online": the predecessor as just updated; "target": its moving average.
        tau: fraction by which those averages follow per step.

    Raises:
        UserError: weights or learning rates of a wrong number or sign, or K that w2 cannot serve.
    """

    def __init__(
        self,
        agent: Any,
        first: ContinuousPolicy,
        w2_weights: tuple[float, ...],
        *,
        make: Callable[[], ContinuousPolicy] | None = None,
        w2: W2Kind = "sinkhorn",
        w2_noise: W2Noise = "independent",
        K: int = 4,
        blur: float = 0.05,
        backend: Backend = "tensorized",
        normalize_energy: bool = False,
        learning_rate: float | tuple[float, ...] | None = None,
        reference: Reference = "online",
        tau: float = 0.005,
    ) -> None:
        self.weights = check_weights(w2_weights, least=0)
        self.w2, self.w2_noise, self.K, self.blur, self.backend = w2, w2_noise, K, blur, backend
        self.normalize_energy = normalize_energy
        if w2 == "exact":
            check_exact(K)
        rates = learning_rates(learning_rate, len(self.weights))
        self.actors = [first]
        self.optimizers = []
        for i, rate in enumerate(rates, 1):
            made = make or (lambda: copy.deepcopy(first))
            self.actors.append(agent.add_network(f"actor_{i}", made))
            self.optimizers.append(agent.add_optimizer(f"actor_{i}", self.actors[-1], rate=rate))
        self.targets: list[ContinuousPolicy] = []
        if reference == "target":
            self.targets = [
                agent.add_target(f"actor_{i}_reference", actor)
                for i, actor in enumerate(self.actors[:-1])
            ]
        self.tau = tau
        agent.num_actors = len(self.actors)
        self._action_dim = int(agent.action_dim)

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the noise that `update` takes, by name."""
        one, several = (batch_size, self._action_dim), (batch_size, self.K, self._action_dim)
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(1, len(self.actors)):
            shapes |= {f"actor_{i}": one}
            if "stochastic" in {self.actors[i].kind, self.actors[i - 1].kind}:
                shapes[f"samples_{i}"] = several
                if self.w2_noise == "independent":
                    shapes[f"reference_{i}"] = several
        return shapes

    def update(
        self, inputs: Tensor, energy: Energy, noise: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Step actors 1 .. n in order.

        Args:
            inputs: [B, D], as the policies see them.
            energy: what each of them minimises; the gradient stops at its parameters.
            noise: as of `noise_shapes`.

        Returns:
            Detached scalars: energy, w2, lambda, gradient norm and, where samples are drawn, their
            standard deviation.
        """
        metrics: dict[str, Tensor] = {}
        for i, weight in enumerate(self.weights, 1):
            policy, reference = self.actors[i], (self.targets or self.actors)[i - 1]
            own = noise.get(f"samples_{i}", inputs)
            other = noise.get(f"reference_{i}", own)
            policy = policy.once(inputs)  # for the energy and the distance alike
            costs, values = energy(policy, inputs, noise[f"actor_{i}"])
            scale = inverse_magnitude(values) if self.normalize_energy else costs.new_ones(())
            distance, deviation = _w2_and_spread(
                policy, reference, inputs, own, other, self.w2, self.blur, self.backend
            )
            cost = scale * costs.mean()
            minimize(self.optimizers[i - 1], cost + weight * distance)
            metrics |= {
                f"actor_{i}/energy": cost.detach(),
                f"actor_{i}/w2": distance.detach(),
                f"actor_{i}/lambda": scale,
                f"actor_{i}/gradient_norm": gradient_norm(self.optimizers[i - 1]),
            }
            if deviation is not None:
                metrics[f"actor_{i}/spread"] = deviation
        for target, actor in zip(self.targets, self.actors, strict=False):
            soft_update(target, actor, self.tau)
        return metrics


@torch.no_grad()
def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return the Euclidean norm of the gradients that the last step used."""
    gradients = [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
    norm: Tensor = torch.stack(torch._foreach_norm(gradients)).norm()
    return norm


def learning_rates(rates: float | tuple[float, ...] | None, count: int) -> list[float | None]:
    """Return a learning rate for each of ``count`` actors, None for the agent's.

    Raises:
        UserError: another number of them, or one that is not positive.
    """
    if rates is None:
        return [None] * count
    several = (
        [float(rate) for rate in rates] if isinstance(rates, tuple) else [float(rates)] * count
    )
    if len(several) != count:
        raise UserError(
            f"chain_learning_rate has {len(several)} entries; give one, or one for each of the "
            f"{count} appended actors."
        )
    for rate in several:
        if not 0.0 < rate < float("inf"):
            raise UserError(f"chain_learning_rate is {rate}; learning rates must be > 0.")
    return list(several)
