"""What SAC-N and EDAC share: soft actor-critic steps against the lowest of N critics.

The gradient of the minimum reaches one critic per state only. On a CPU, `lowest_q` therefore asks
all N for values but only the lowest one for its gradient, which saves the backward pass through
the others: half of the time, measured at 3x256 and a batch of 256 with 10 to 500 critics.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcrl_gym.agents.losses import td_target
from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.agents.temperature import Temperature, temperature_loss
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.networks import ContinuousPolicy, StackedCritic
from gcrl_gym.networks.steps import minimize


def lowest_q(critic: StackedCritic, inputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest Q value [B], differentiable, and all of them [N, B], detached.

    Args:
        critic: of N members.
        inputs: [B, D].
        actions: [B, A].
    """
    if inputs.device.type != "cpu" or torch.compiler.is_compiling():
        values = critic(inputs, actions)
        return values.min(0).values, values.detach()
    with torch.no_grad():
        values = critic(inputs, actions)
        lowest, which = values.min(0)
        together = torch.cat([inputs, actions], dim=-1)
        gradients = critic.stack.gradients_of(which, together, first=inputs.shape[-1])
    # Its value is the minimum; its derivative in the actions, the gradient.
    return lowest + (gradients * (actions - actions.detach())).sum(-1), values


@torch.no_grad()
def soft_target(
    policy: ContinuousPolicy,
    critic_target: StackedCritic,
    there: Tensor,
    alpha: Tensor,
    batch: Batch,
    discount: float,
) -> Tensor:
    """Return ``r + discount * (1 - terminated) * (min Q'(s', a') - alpha * log pi(a'))``, [B].

    Args:
        policy: actor 0.
        critic_target: of N members.
        there: next inputs, [B, D].
        alpha: temperature.
        batch: with the noise "next", [B, A].
        discount: of future rewards.
    """
    actions, log_prob = policy.sample_with_log_prob(there, batch.noise["next"])
    value = critic_target(there, actions).amin(0) - alpha * log_prob
    return td_target(batch.rewards, batch.terminated, value, discount)


def step_temperature(
    temperature: Temperature,
    optimizer: torch.optim.Optimizer,
    log_prob: Tensor,
    target_entropy: float | None,
    action_dim: int,
) -> Metrics:
    """Step alpha, for actions of these log densities [B], and return it among the metrics."""
    target = -float(action_dim) if target_entropy is None else target_entropy
    loss = temperature_loss(temperature.log_alpha, log_prob, target)
    minimize(optimizer, loss)
    return {"alpha_loss": loss.detach(), "alpha": temperature().detach()}


def step_actor(
    optimizer: torch.optim.Optimizer,
    critic: StackedCritic,
    inputs: Tensor,
    actions: Tensor,
    log_prob: Tensor,
    alpha: Tensor,
) -> Metrics:
    """Step actor 0 down ``alpha * log pi - min Q`` of its actions [B, A] at inputs [B, D]."""
    q, values = lowest_q(critic, inputs, actions)
    loss = (alpha * log_prob - q).mean()
    minimize(optimizer, loss)
    return {
        "actor_0/loss": loss.detach(),
        "actor_0/entropy": -log_prob.detach().mean(),
        "q_deviation": values.std(0, correction=0).mean(),
    }


def soft_energy(
    policy: ContinuousPolicy, critic: StackedCritic, inputs: Tensor, noise: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``alpha * log pi - min Q`` of a policy's action, and min Q, [B] both.

    Args:
        policy: one without a density has log pi = 0.
        critic: of N members.
        inputs: [B, D].
        noise: standard normal, [B, A].
        alpha: temperature, detached.
    """
    actions, log_prob = policy.sample_with_log_prob(inputs, noise)
    q, _ = lowest_q(critic, inputs, actions)
    return alpha * log_prob - q, q


def q_and_gradients(
    critic: StackedCritic, inputs: Tensor, actions: Tensor
) -> tuple[Tensor, Tensor]:
    """Return all Q values [N, B] and each critic's gradient in the action [N, B, A].

    Args:
        critic: of N members.
        inputs: [B, D].
        actions: [B, A].
    """
    together = torch.cat([inputs, actions], dim=-1)
    q, gradients = critic.stack.with_gradients(together, first=inputs.shape[-1])
    return q.squeeze(-1), gradients


def diversity(gradients: Tensor) -> Tensor:
    """Return how much the critics' gradients point the same way (An et al. 2021, eq. 5).

    The sum of the cosine similarities of all ordered pairs of critics over N - 1, mean over states.
    It is computed as ``|sum_i u_i|^2 - sum_i |u_i|^2`` of the directions u, without the N^2 pairs.

    Args:
        gradients: of each critic with respect to its actions, [N, B, A].
    """
    length = torch.linalg.vector_norm(gradients, dim=-1, keepdim=True)
    directions = gradients / (length + 1e-10)
    pairs = directions.sum(0).square().sum(-1) - directions.square().sum(dim=(0, 2))
    alike: Tensor = pairs.mean() / (len(gradients) - 1)
    return alike
