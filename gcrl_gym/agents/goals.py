"""What OGBench's six goal-conditioned agents share: policies, their losses, encoders and crops.

Policies have unit variance in every loss (Park et al. 2024): log pi(a) = -1/2 ||mean - a||^2 + c.
The scale that sampled actions use is fitted beside it and shares no parameter with the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from gcrl_gym.agents.metrics import Metrics
from gcrl_gym.agents.policy import GOAL_FIELDS, STATE_FIELDS, split_space
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.errors import UserError
from gcrl_gym.networks import (
    CategoricalPolicy,
    ContinuousPolicy,
    GaussianPolicy,
    ImpalaEncoder,
)
from gcrl_gym.networks.encoders import EncoderKind, make_encoder, random_crop

if TYPE_CHECKING:
    from gcrl_gym.agents.base import OfflineAgent

GoalPolicyNetwork = GaussianPolicy | CategoricalPolicy

CROP_PADDING = 3  # pixels


def join(observations: Tensor, goals: Tensor) -> Tensor:
    """Return what networks see: observations [B, D] and goals [B, G], concatenated."""
    return torch.cat([observations, goals], dim=-1) if goals.shape[-1] else observations


def pictures(agent: OfflineAgent) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Return the shape of an observation and of a goal, each in a list, [] where it is no picture.

    Pictures are bytes of shape (height, width, channels).
    """
    observation, goal = split_space(agent.observation_space)
    found = []
    for part in (observation, goal):
        shape = () if part is None else part.shape or ()
        picture = part is not None and part.dtype == "uint8" and len(shape) == 3
        found.append([(shape[0], shape[1], shape[2])] if picture else [])
    return found[0], found[1]


def encoder(agent: OfflineAgent, kind: EncoderKind, *parts: str) -> ImpalaEncoder | None:
    """Return a new encoder of "observation", "goal" or both, None where they are no pictures.

    A goal that is no picture, beside an observation that is one, is passed on as it is. Where the
    observation is none, neither it nor the goal is encoded.

    Raises:
        UserError: an encoder was asked for by name, but there are no pictures to encode; pictures
            of two sizes.
    """
    observation, goal = pictures(agent)
    if kind not in ("auto", "none") and not observation:
        raise UserError(
            f"encoder is {kind!r}, but the observations are not pictures (bytes of shape "
            '(height, width, channels)); use "auto".'
        )
    if not observation:
        return None
    if kind != "none" and goal and observation[0][:2] != goal[0][:2]:
        raise UserError(
            f"Observations are pictures {observation[0]}, goals are pictures {goal[0]}; give them "
            'the same height and width, or use encoder="none".'
        )
    found = {"observation": observation, "goal": goal}
    rest = agent.policy.goal_dim if "goal" in parts and not goal else 0
    return make_encoder(kind, [picture for part in parts for picture in found[part]], rest)


def choose_loss(agent: OfflineAgent, actor_loss: str) -> str:
    """Return "ddpgbc" or "awr" for an option that may be "auto".

    Raises:
        UserError: DDPG+BC or a chain with discrete actions; a chain of another class on pictures.
    """
    discrete, name = isinstance(agent.action_space, spaces.Discrete), type(agent).__name__
    if discrete and actor_loss == "ddpgbc":
        raise UserError(f'{name}: actor_loss "ddpgbc" needs continuous actions; use "awr".')
    if getattr(agent, "w2_weights", ()):
        if discrete:
            raise UserError(f"{name}: a chain (w2_weights) needs continuous actions.")
        if pictures(agent)[0] and getattr(agent, "chain_policy", "same") != "same":
            raise UserError(f'{name}: on pictures chain_policy must be "same".')
    if actor_loss == "auto":
        return "awr" if discrete else "ddpgbc"
    return actor_loss


def critic_actions(actions: Tensor, agent: OfflineAgent, like: Tensor) -> Tensor:
    """Return actions as critics see them: [B, A], discrete ones one-hot."""
    if isinstance(agent.action_space, spaces.Discrete):
        return nn.functional.one_hot(actions, agent.action_dim).to(like.dtype)
    return actions


def make_policy(agent: OfflineAgent, kind: EncoderKind) -> Any:
    """Return a new GaussianPolicy, or CategoricalPolicy for discrete actions.

    Args:
        agent: who asks.
        kind: encoder of pictures.
    """
    discrete = isinstance(agent.action_space, spaces.Discrete)
    make = CategoricalPolicy if discrete else GaussianPolicy
    return make(
        agent.input_dim, agent.action_dim, agent.hidden_sizes, activation="gelu",
        init="xavier_small", encoder=encoder(agent, kind, "observation", "goal"),
    )  # fmt: skip


def imitation(
    policy: GoalPolicyNetwork, inputs: Tensor, actions: Tensor
) -> tuple[Tensor, Tensor, Tensor, Metrics]:
    """Return what imitation of the data's actions needs.

    Args:
        policy: the policy.
        inputs: what it sees, [B, D].
        actions: of the data, [B, A] or [B].

    Returns:
        The policy's output [B, A or actions]; log probabilities of the actions [B]; the loss of the
        scale that samples use, 0 for discrete actions; metrics.
    """
    output = policy.forward(inputs)
    if isinstance(policy, CategoricalPolicy):
        log_prob = -nn.functional.cross_entropy(output, actions, reduction="none")
        accuracy = (output.detach().argmax(-1) == actions).float().mean()
        return output, log_prob, output.new_zeros(()), {"accuracy": accuracy}
    error = (output - actions).square()  # [B, A]
    log_prob = -0.5 * error.sum(-1) - 0.5 * actions.shape[-1] * math.log(2.0 * math.pi)
    scale = scale_loss(policy.log_std, error.detach())
    return output, log_prob, scale, {"actor_mse": error.detach().mean()}


def scale_loss(log_std: Tensor, squared_error: Tensor) -> Tensor:
    """Return the Gaussian negative log-likelihood as a function of the scale alone.

    Args:
        log_std: logarithms of the standard deviations, [A].
        squared_error: residuals squared, without gradient, [B, A].
    """
    nll = 0.5 * squared_error * torch.exp(-2.0 * log_std) + log_std + 0.5 * math.log(2 * math.pi)
    return nll.sum(-1).mean()


def awr(
    policy: GoalPolicyNetwork, inputs: Tensor, actions: Tensor, advantage: Tensor, alpha: float
) -> tuple[Tensor, Metrics]:
    """Return the loss of advantage-weighted regression and metrics.

    ``-E[ min(exp(alpha * A), 100) * log pi(a | s, g) ]``: alpha is an inverse temperature.

    Args:
        policy: the policy.
        inputs: what it sees, [B, D].
        actions: of the data, [B, A] or [B].
        advantage: of those actions, without gradient, [B].
        alpha: see above.
    """
    _, log_prob, scale, metrics = imitation(policy, inputs, actions)
    weight = (alpha * advantage).exp().clamp_max(100.0)
    loss = -(weight * log_prob).mean()
    metrics |= {"actor_loss": loss.detach(), "advantage": advantage.mean(), "weight": weight.mean()}
    return loss + scale, metrics


def ddpg_bc(
    policy: GaussianPolicy,
    inputs: Tensor,
    actions: Tensor,
    value_of: Callable[[Tensor], Tensor],
    alpha: float,
) -> tuple[Tensor, Metrics]:
    """Return the loss of a deterministic policy gradient with imitation, and metrics.

    ``-E[Q(s, g, mean)] / E|Q| - alpha * E[ log pi(a | s, g) ]``: alpha weighs imitation, the mean
    is cut off at [-1, 1].

    Args:
        policy: the policy.
        inputs: what it sees, [B, D].
        actions: of the data, [B, A].
        value_of: action values [B] of the policy's actions [B, A].
        alpha: see above.
    """
    mean, log_prob, scale, metrics = imitation(policy, inputs, actions)
    q = value_of(mean.clamp(-1.0, 1.0))
    q_loss = -q.mean() / (q.detach().abs().mean() + 1e-6)
    loss = q_loss - alpha * log_prob.mean()
    metrics |= {"actor_loss": loss.detach(), "q_policy": q.detach().mean()}
    return loss + scale, metrics


def chain_actions(policy: ContinuousPolicy, inputs: Tensor, noise: Tensor) -> Tensor:
    """Return what a chain's actor is judged by: a Gaussian's mean, as DDPG+BC, or an action."""
    return policy.mode(inputs) if policy.kind == "gaussian" else policy.sample(inputs, noise)


def act(agent: OfflineAgent, policy: GoalPolicyNetwork, inputs: Tensor, mode: bool) -> Tensor:
    """Return the mean or likeliest action, or a sample; [B, A] or [B]."""
    if isinstance(policy, CategoricalPolicy):
        return policy.act(inputs, None if mode else agent.generators.torch("act"))
    if mode:
        return policy.mode(inputs)
    return policy.sample(inputs, agent.generators.randn("act", len(inputs), agent.action_dim))


def crop_noise(p_aug: float, batch_size: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the noise that `crop` takes: none where nothing is ever cropped."""
    return {"crop": (batch_size, 2), "crop_batch": (1, 1)} if p_aug > 0 else {}


def crop(agent: OfflineAgent, batch: Batch, p_aug: float) -> Batch:
    """Return a batch with its pictures cropped at random.

    As in OGBench a whole batch is cropped or left alone, and all pictures of a transition are moved
    alike.

    Args:
        agent: whose pictures they are.
        batch: normalised, with the noise of `crop_noise`.
        p_aug: probability of a crop.
    """
    observation, goal = pictures(agent)
    if p_aug == 0 or not observation:
        return batch
    # The normal distribution function of normal noise is uniform in [0, 1].
    places = 2 * CROP_PADDING + 1
    shifts = (torch.special.ndtr(batch.noise["crop"]) * places).long().clamp_max(places - 1)
    cropped = torch.special.ndtr(batch.noise["crop_batch"]) < p_aug
    shifts = torch.where(cropped, shifts, CROP_PADDING)
    moved: dict[str, Any] = {}
    for names, shape in ((STATE_FIELDS, observation), (GOAL_FIELDS, goal)):
        for name in names:
            value = getattr(batch, name)
            if value is not None and shape:
                part = random_crop(value.unflatten(1, shape[0]), shifts, CROP_PADDING)
                moved[name] = part.flatten(1)
    return replace(batch, **moved)
