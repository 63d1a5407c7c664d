"""Contrastive RL: a critic that tells the goals reached after a step from those of other steps.

Eysenbach, Zhang, Levine and Salakhutdinov, "Contrastive Learning as Goal-Conditioned Reinforcement
Learning" (2022); settings and order of the steps as in OGBench (Park et al. 2024). The logit of
such a classifier is the logarithm of how much likelier a goal follows the action than any time.

    Q       q_j(s, a, g) = phi_j(s, a) . psi_j(g) / sqrt(L),  j = 1, 2
            L(q)  = mean over j and all pairs (i, k) of the batch of the binary cross-entropy of
                    q_j(s_i, a_i, g_k) with the label 1 where i = k, else 0
    V       (AWR) the same, of one v(s, g) = phi(s) . psi(g) / sqrt(L)
    actor 0 DDPG+BC  -E[min_j q_j(s, mean, g)] / E|q| - alpha * E[log pi(a | s, g)]
            AWR      -E[ min(exp(alpha * A), 100) * log pi(a | s, g) ],  A = min_j q_j - v
    chain   E(pi_i) = -E[ min_j q_j(s, mean_i, g) ]

One optimiser takes all steps at once, from the weights before it. Discrete actions are AWR's. There
are no rewards and no target networks; the discount is that of the goals' geometric law alone.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from gcrl_gym.agents import goals
from gcrl_gym.agents.chained import ChainAgent
from gcrl_gym.agents.inputs import check_probability, not_negative, whole_number
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.datasets.samplers import Batch, GoalSampler
from gcrl_gym.networks import BilinearValue, ContinuousPolicy
from gcrl_gym.networks.encoders import EncoderKind
from gcrl_gym.networks.steps import accumulate


class CRL(ChainAgent):
    """Contrastive reinforcement learning, with an optional chain of JKO actors.

    Args:
        env: see ``OfflineAgent``.
        dataset: see ``OfflineAgent``.
        actor_loss: "ddpgbc", "awr", or "auto": "ddpgbc" for continuous actions, else "awr".
        alpha: weight of imitation in DDPG+BC; inverse temperature of AWR.
        discount: of the goals' geometric law, in (0, 1).
        latent_dim: width of the representations phi and psi.
        hidden_sizes: widths of the hidden layers of all networks.
        layer_norm: normalise the hidden layers of phi and psi.
        encoder: of pictures; "auto" is "impala_small" where observations are pictures.
        p_aug: probability that the pictures of a batch are cropped at random.
        batch_size: see ``OfflineAgent``.
        **common: see ``ChainAgent`` and ``OfflineAgent``.

    Raises:
        UserError: DDPG+BC or a chain with discrete actions, a negative alpha, p_aug outside [0, 1];
            see also ``ChainAgent``.
    """

    name = "crl"
    needs_goals = True
    needs_rewards = False
    action_spaces = (spaces.Box, spaces.Discrete)
    sampler = GoalSampler(value=(0.0, 1.0, 0.0), actor="auto", support="ogbench", reward="index")

    def __init__(
        self,
        env: Any,
        dataset: Any = None,
        *,
        actor_loss: Literal["auto", "ddpgbc", "awr"] = "auto",
        alpha: float = 0.1,
        discount: float = 0.99,
        latent_dim: int = 512,
        hidden_sizes: tuple[int, ...] = (512, 512, 512),
        layer_norm: bool = True,
        encoder: EncoderKind = "auto",
        p_aug: float = 0.0,
        batch_size: int = 1024,
        **common: Any,
    ) -> None:
        not_negative(alpha=alpha)
        self.actor_loss, self.alpha, self.discount = actor_loss, alpha, discount
        self.latent_dim = whole_number(latent_dim, "latent_dim")
        self.hidden_sizes, self.layer_norm = tuple(hidden_sizes), layer_norm
        self.encoder, self.p_aug = encoder, check_probability(p_aug, "p_aug")
        super().__init__(env, dataset, batch_size=batch_size, **common)

    def build(self) -> None:
        """Make the twin critic, the value function of AWR, and the actors."""
        self.kind_of_loss = goals.choose_loss(self, self.actor_loss)
        self.critic = self.add_network("critic", lambda: self._bilinear(2, self.action_dim))
        learned: list[nn.Module] = [self.critic]
        if self.kind_of_loss == "awr":
            self.value = self.add_network("value", lambda: self._bilinear(1))
            learned.append(self.value)
        self.actor = self.add_network("actor_0", lambda: goals.make_policy(self, self.encoder))
        self.optimizer = self.add_optimizer("agent", *learned, self.actor)
        self.add_chain(self.actor)

    def _bilinear(self, members: int, action_dim: int = 0) -> BilinearValue:
        return BilinearValue(
            self.policy.observation_dim, self.policy.goal_dim, self.hidden_sizes, self.latent_dim,
            action_dim, members, layer_norm=self.layer_norm,
            state_encoder=goals.encoder(self, self.encoder, "observation"),
            goal_encoder=goals.encoder(self, self.encoder, "goal"),
        )  # fmt: skip

    def update(self, batch: Batch) -> Metrics:
        """Take the joint step of Q, AWR's V and actor 0, then the steps of the chain."""
        batch = goals.crop(self, batch, self.p_aug)
        asked = self.join(batch.observations, batch.actor_goals)
        actions = goals.critic_actions(batch.actions, self, asked)
        self.optimizer.zero_grad()
        pairs = self.critic.pairs(batch.observations, batch.goals, actions)
        loss, metrics = contrastive_loss(pairs, "critic")
        accumulate(loss, self.critic)
        if self.kind_of_loss == "awr":
            pairs = self.value.pairs(batch.observations, batch.goals)
            loss, own = contrastive_loss(pairs, "value")
            accumulate(loss, self.value)
            metrics |= own
        loss, own = self._actor_loss(asked, actions, batch)
        accumulate(loss, self.actor)
        self.optimizer.step()
        metrics |= {f"actor_0/{name}": value for name, value in own.items()}
        return metrics | self.update_chain(batch, asked)

    def _actor_loss(self, asked: Tensor, actions: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        if self.kind_of_loss == "ddpgbc":
            return goals.ddpg_bc(
                self.actor, asked, actions, lambda a: self._q(a, batch), self.alpha
            )
        with torch.no_grad():
            value = self.value(batch.observations, batch.actor_goals)[0]
            advantage = self._q(actions, batch) - value
        return goals.awr(self.actor, asked, batch.actions, advantage, self.alpha)

    def _q(self, actions: Tensor, batch: Batch) -> Tensor:
        """Return the smaller logit [B] of actions [B, A] for the actor's goals."""
        with torch.no_grad():
            psi = self.critic.goals(batch.actor_goals)
        return (self.critic.states(batch.observations, actions) * psi).sum(-1).amin(0)

    def energy_of(
        self, policy: ContinuousPolicy, inputs: Tensor, noise: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return -min q of a Gaussian's mean, as DDPG+BC climbs it, or of another's action."""
        actions = goals.chain_actions(policy, inputs, noise)
        q = self._q(actions, batch)
        return -q, q

    def noise_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the chain's noise and of the crops'."""
        return super().noise_shapes(batch_size) | goals.crop_noise(self.p_aug, batch_size)

    def act(self, inputs: Tensor, deterministic: bool, actor: int) -> Tensor:
        """Return an actor's mean or likeliest action, or a sample."""
        if isinstance(self.action_space, spaces.Discrete):
            return goals.act(self, self.actor, inputs, deterministic)
        return super().act(inputs, deterministic, actor)


def contrastive_loss(logits: Tensor, name: str) -> tuple[Tensor, Metrics]:
    """Return the binary cross-entropy of all pairs with the identity, and metrics.

    Args:
        logits: of members, states and goals, [members, B, B]; state i was followed by goal i.
        name: of whose metrics they are.
    """
    positive = logits.diagonal(dim1=1, dim2=2)
    # -log sigmoid(x) for the label 1 is softplus(x) - x, -log sigmoid(-x) for 0 is softplus(x).
    loss = nn.functional.softplus(logits).mean() - positive.sum() / logits.numel()
    with torch.no_grad():
        own = torch.arange(logits.shape[1], device=logits.device)
        hits = (logits.mean(0).argmax(1) == own).float()
    return loss, {
        f"{name}_loss": loss.detach(),
        f"{name}_accuracy": hits.mean(),
        f"{name}_logit": logits.detach().mean(),
        f"{name}_logit_positive": positive.detach().mean(),
    }
