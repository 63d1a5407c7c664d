"""The published steps of SAC-N and EDAC in plain autograd, for the tests of both."""

import math

import torch

from tests.agents.reference import each, sinkhorn_w2


def prepare(agent):
    """Make alpha unlike 1, Q unlike 0, targets unlike critics, and clamp a scale at either end.

    The published starting weights make all Q values nearly 0 and the policy the same everywhere.
    """
    with torch.no_grad():
        agent.temperature.log_alpha.fill_(-0.5)
        agent.critic.stack.weights[-1].mul_(100)
        agent.critic_target.stack.weights[-1].mul_(80)
        for i, actor in enumerate(agent.chain.actors):
            actor.mean_head.weight.mul_(200)
            actor.log_std_head.weight.mul_(200)
            actor.log_std_head.bias.copy_(torch.tensor([-4.8, 1.8]) - i)


def sample(ref, i, inputs, noise):
    """Action of actor i and its log density; scales within exp(-5) and exp(2)."""
    hidden = ref.mlp(f"actor_{i}.trunk.0", inputs).clamp_min(0)
    mean, log_std = (
        hidden @ ref[f"actor_{i}.{head}.weight"].T + ref[f"actor_{i}.{head}.bias"]
        for head in ("mean_head", "log_std_head")
    )
    std = log_std.clip(-5, 2).exp()
    u = mean + std * noise
    density = -((u - mean) ** 2) / (2 * std**2) - std.log() - math.log(2 * math.pi) / 2
    # tanh(u)^2 rounds to 1 for large u; this is the same with 1 / cosh(u)^2.
    slope = 2 * (math.log(2) - u.abs() - torch.log1p(torch.exp(-2 * u.abs())))
    return torch.tanh(u), (density - slope).sum(-1)


def reference_update(
    ref, batch, weights=(), discount=0.99, tau=0.005, target_entropy=None,
    alpha_learning_rate=3e-4, penalty=None,
):  # fmt: skip
    """One update; ``penalty(q)`` of the critics' values at the recorded actions adds to a loss."""
    here = torch.cat([batch.observations, batch.goals], -1)
    there = torch.cat([batch.next_observations, batch.goals], -1)
    asked = torch.cat([batch.observations, batch.actor_goals], -1)
    first, second = batch.noise["actor_0"].unbind(1)
    entropy = -batch.actions.shape[-1] if target_entropy is None else target_entropy

    log_pi = sample(ref, 0, asked, first)[1].detach()
    log_alpha = ref["temperature.log_alpha"]
    ref.step("temperature", (-log_alpha * (log_pi + entropy)).mean(), lr=alpha_learning_rate)
    alpha = ref["temperature.log_alpha"].exp().detach()

    action, log_pi = sample(ref, 0, asked, second)
    ref.step("actor_0", (alpha * log_pi - ref.q("critic", asked, action).min(0).values).mean())

    action, log_pi = sample(ref, 0, there, batch.noise["next"])
    next_q = ref.q("critic_target", there, action).min(0).values - alpha * log_pi
    target = (batch.rewards + discount * (1 - batch.terminated) * next_q).detach()
    actions = batch.actions.clone().requires_grad_()
    q = ref.q("critic", here, actions)
    loss = sum(((q_j - target) ** 2).mean() for q_j in q)
    ref.step("critic", loss if penalty is None else loss + penalty(q, actions))
    ref.soft_update("critic_target", "critic", tau)

    for i, w in enumerate(weights, 1):
        action, log_pi = sample(ref, i, asked, batch.noise[f"actor_{i}"])
        energy = (alpha * log_pi - ref.q("critic", asked, action).min(0).values).mean()
        own = each(batch.noise[f"samples_{i}"], lambda z, i=i: sample(ref, i, asked, z)[0])
        before = each(batch.noise[f"reference_{i}"], lambda z, i=i: sample(ref, i - 1, asked, z)[0])
        ref.step(f"actor_{i}", energy + w * sinkhorn_w2(own, before))
