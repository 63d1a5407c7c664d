"""ChainAgent: what the algorithms with ``w2_weights`` share, which is keywords and no mathematics.

Such an agent makes its critics and its actor 0 in ``build``, calls ``add_chain``, says in
``energy_of`` what the appended actors minimise, and ends its ``update`` with ``update_chain``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from torch import Tensor

from gcrl_gym.agents.base import OfflineAgent
from gcrl_gym.agents.goals import join
from gcrl_gym.agents.inputs import whole_number
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch, GoalSampler
from gcrl_gym.networks import (
    ContinuousPolicy,
    DeterministicPolicy,
    GaussianPolicy,
    TanhGaussianPolicy,
    TransportMap,
)
from gcrl_gym.transport import jko
from gcrl_gym.transport.wasserstein import check_exact, check_sinkhorn

ChainPolicy = Literal["same", "deterministic", "gaussian", "tanh_gaussian", "transport_map"]

_CLASSES: dict[str, Callable[..., ContinuousPolicy]] = {
    "deterministic": DeterministicPolicy,
    "gaussian": GaussianPolicy,
    "tanh_gaussian": TanhGaussianPolicy,
    "transport_map": TransportMap,
}


class ChainAgent(OfflineAgent):
    """An actor-critic algorithm whose actor 0 may be followed by a chain of JKO actors.

    Actor i >= 1 minimises ``energy(pi_i) + w_i * W2sq(pi_i, stop_gradient(pi_{i-1}))``, where the
    squared W2 distance is summed over action dimensions. The critics never see it.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        w2_weights: one weight for each appended actor; () is the plain algorithm.
        chain_policy: class of the appended actors; "same" is actor 0's, starting as its copy.
        chain_learning_rate: of the appended actors: one for all, or one for each; None is actor
            0's, without a schedule of its own.
        w2: distance of policies without closed form: "sinkhorn" (debiased, as published) or
            "exact" (optimal assignment, K <= 6, faster).
        w2_noise: "independent" noise for the two policies compared (as published; biased at small
            K, it shrinks their spread), or "shared" (no bias at equality, an upper bound).
        w2_reference: distances are taken to the predecessor as it is ("online"), or to its moving
            average ("target").
        K: actions sampled per state for the distance.
        blur: of the Sinkhorn distance, in units of actions scaled to [-1, 1].
        backend: of the Sinkhorn distance: "tensorized" (geomloss), "online" (needs pykeops) or
            "auto" (the same algorithm laid out for small K, faster).
        normalize_energy: divide the energy by the mean magnitude of the action values, so that the
            weights do not depend on the scale of the rewards.
        **common: see ``OfflineAgent``.
    """

    # Without goals in the data these are the recorded transitions.
    sampler = GoalSampler(value=(0.2, 0.5, 0.3), actor=(0.0, 1.0, 0.0))
    needs_rewards: ClassVar[bool] = True
    tau: float = 0.005

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        w2_weights: tuple[float, ...] = (),
        chain_policy: ChainPolicy = "same",
        chain_learning_rate: float | tuple[float, ...] | None = None,
        w2: jko.W2Kind = "sinkhorn",
        w2_noise: jko.W2Noise = "independent",
        w2_reference: jko.Reference = "online",
        K: int = 4,
        blur: float = 0.05,
        backend: jko.Backend = "tensorized",
        normalize_energy: bool = False,
        **common: Any,
    ) -> None:
        self.w2_weights = jko.check_weights(w2_weights, least=0)
        self.chain_policy, self.chain_learning_rate = chain_policy, chain_learning_rate
        self.w2, self.w2_noise, self.w2_reference = w2, w2_noise, w2_reference
        self.K = whole_number(K, "K")
        self.blur, self.backend, self.normalize_energy = blur, backend, normalize_energy
        jko.learning_rates(chain_learning_rate, len(self.w2_weights))
        if w2 == "exact":
            check_exact(K)
        else:
            check_sinkhorn(blur, backend)
        super().__init__(env, dataset, **common)

    def add_chain(self, first: ContinuousPolicy, actor_rate: float | None = None) -> None:
        """Append the actors of ``w2_weights`` to actor 0; call it at the end of ``build``.

        Args:
            first: actor 0, with its starting weights.
            actor_rate: learning rate of actor 0 where it is not the agent's.
        """
        make = None
        if self.chain_policy != "same":
            kind, sizes = _CLASSES[self.chain_policy], self.hidden_sizes
            make = lambda: kind(self.input_dim, self.action_dim, sizes)  # noqa: E731
        rate = actor_rate if self.chain_learning_rate is None else self.chain_learning_rate
        self.chain = jko.Chain(
            self, first, self.w2_weights, make=make, learning_rate=rate, w2=self.w2,
            w2_noise=self.w2_noise, K=self.K, blur=self.blur, backend=self.backend,
            normalize_energy=self.normalize_energy, reference=self.w2_reference, tau=self.tau,
        )  # fmt: skip

    @abstractmethod
    def energy_of(
        self, policy: ContinuousPolicy, inputs: Tensor, noise: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return what an appended actor minimises, [B], and the action values it is scaled by, [B].

        Args:
            policy: the actor.
            inputs: [B, D + G], as policies see them.
            noise: standard normal, [B, A].
            batch: of the current update.
        """

    def update_chain(self, batch: Batch, inputs: Tensor) -> Metrics:
        """Step the appended actors, in order."""
        return self.chain.update(
            inputs, lambda policy, x, noise: self.energy_of(policy, x, noise, batch), batch.noise
        )

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the chain's noise; an agent adds its own."""
        return self.chain.noise_shapes(batch_size)

    join = staticmethod(join)

    def is_deterministic(self, actor: int) -> bool:
        """Return whether that actor has one action per state."""
        return self.chain.actors[actor].kind == "deterministic"

    def act(self, inputs: Tensor, deterministic: bool, actor: int) -> Tensor:
        """Return the actor's representative action, or a sample."""
        policy = self.chain.actors[actor]
        if deterministic or self.is_deterministic(actor):
            return policy.mode(inputs)
        return policy.sample(inputs, self.generators.randn("act", len(inputs), self.action_dim))
