"""AWAC's update against the published formulas, and a test per known trap."""

import math

import numpy as np
import pytest
import torch

from gcrl_gym.agents import AWAC
from gcrl_gym.errors import UserError
from tests.agents.reference import (
    SMALL,
    Reference,
    clone,
    draw,
    each,
    gaussian_w2,
    goal_data,
    plain_dataset,
    sinkhorn_w2,
)


def prepare(agent):
    """A batch, for weights large enough to matter and a target unlike its critic."""
    batch = draw(agent, scale=1.5)
    with torch.no_grad():
        for parameter in agent.critic_target.parameters():
            parameter.mul_(0.8)
    return batch


def gaussian(ref, i, inputs):
    """Mean, not squashed, and standard deviation of actor i."""
    return ref.mlp(f"actor_{i}.mean", inputs), ref[f"actor_{i}.log_std"].exp()


def sample(ref, i, inputs, noise):
    mean, std = gaussian(ref, i, inputs)
    return (mean + std * noise).clip(-1, 1)


def log_prob(mean, std, actions):
    return (-((actions - mean) ** 2) / (2 * std**2) - std.log() - math.log(2 * math.pi) / 2).sum(-1)


def reference_update(
    ref, batch, weights=(), awac_lambda=1 / 3, max_weight=100.0, discount=0.99, tau=0.005,
    energy="q",
):  # fmt: skip
    here = torch.cat([batch.observations, batch.goals], -1)
    there = torch.cat([batch.next_observations, batch.goals], -1)
    asked = torch.cat([batch.observations, batch.actor_goals], -1)

    def least(name, inputs, actions):
        return ref.q(name, inputs, actions).min(0).values

    next_q = least("critic_target", there, sample(ref, 0, there, batch.noise["next"])).detach()
    target = batch.rewards + discount * (1 - batch.terminated) * next_q
    q = ref.q("critic", here, batch.actions)
    ref.step("critic", ((q[0] - target) ** 2).mean() + ((q[1] - target) ** 2).mean())

    def value():
        return least("critic", asked, sample(ref, 0, asked, batch.noise["value"])).detach()

    advantage = least("critic", asked, batch.actions).detach() - value()
    weight = torch.exp(advantage / awac_lambda).clip(max=max_weight)
    ref.step("actor_0", -(weight * log_prob(*gaussian(ref, 0, asked), batch.actions)).mean())
    ref.soft_update("critic_target", "critic", tau)

    for i, w in enumerate(weights, 1):
        mean, std = gaussian(ref, i, asked)
        actions = (mean + std * batch.noise[f"actor_{i}"]).clip(-1, 1)
        cost = -least("critic", asked, actions)
        if energy == "advantage":
            cost = cost + value()
        distance = gaussian_w2(mean, std, *(x.detach() for x in gaussian(ref, i - 1, asked)))
        ref.step(f"actor_{i}", cost.mean() + w * distance)
    return weight


@pytest.mark.parametrize("weights", [(), (0.3, 0.7)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"awac_lambda": 0.1, "discount": 0.9, "tau": 0.1},
        {"max_weight": 1.0},
        {"energy": "advantage"},
    ],
    ids=str,
)
def test_update_equals_the_formulas(weights, options):
    agent = AWAC(None, plain_dataset(), w2_weights=weights, seed=0, **SMALL, **options)
    batch = prepare(agent)
    ref = Reference(agent)
    weight = reference_update(ref, clone(batch), weights, **options)
    assert weight.min() < 0.9  # the weights matter, and some are cut off at 1
    assert weight.max() >= 1
    agent.update(batch)
    ref.agree(agent)


def test_update_equals_the_formulas_with_goals():
    agent = AWAC(*goal_data(), w2_weights=(0.3,), seed=1, **SMALL)
    batch = prepare(agent)
    assert not torch.equal(batch.goals, batch.actor_goals)
    ref = Reference(agent)
    reference_update(ref, clone(batch), (0.3,))
    agent.update(batch)
    ref.agree(agent)


def test_a_chain_of_transport_maps_is_compared_by_samples():
    agent = AWAC(
        None, plain_dataset(), w2_weights=(0.3,), chain_policy="transport_map", seed=0, **SMALL
    )
    batch = draw(agent)
    ref = Reference(agent)
    reference_update(ref, clone(batch))  # critics and actor 0

    def pushed(z):
        return torch.tanh(ref.mlp("actor_1.body", torch.cat([batch.observations, z], -1)))

    before = each(batch.noise["reference_1"], lambda z: sample(ref, 0, batch.observations, z))
    q = ref.q("critic", batch.observations, pushed(batch.noise["actor_1"]))
    distance = sinkhorn_w2(each(batch.noise["samples_1"], pushed), before)
    ref.step("actor_1", -q.min(0).values.mean() + 0.3 * distance)
    agent.update(batch)
    ref.agree(agent)


def test_settings_are_those_of_the_published_configurations():
    """The reference's script has lambda 1.0, its configurations a third."""
    agent = AWAC(None, plain_dataset())
    assert (agent.awac_lambda, agent.max_weight) == (1 / 3, 100.0)
    assert agent.hidden_sizes == (256, 256, 256)
    assert (agent.learning_rate, agent.batch_size, agent.tau) == (3e-4, 256, 0.005)
    assert agent.normalize


def test_the_mean_is_not_squashed_and_actions_are_cut_off():
    agent = AWAC(None, plain_dataset(), seed=0, **SMALL)
    with torch.no_grad():
        agent.actor.mean[-1].bias.fill_(1.7)
    mean, _ = agent.actor.gaussian(torch.zeros(1, 3))
    assert mean.min() > 1
    assert np.array_equal(agent.predict(np.zeros(3, np.float32), deterministic=True)[0], [1, 1])


def test_weights_are_cut_off():
    agent = AWAC(None, plain_dataset(), seed=0, awac_lambda=1e-6, max_weight=7.0, **SMALL)
    metrics = agent.update(agent.draw_batch())
    assert 1.0 < float(metrics["actor_0/weight"]) <= 7.0


@pytest.mark.parametrize("options", [{}, {"energy": "advantage"}, {"normalize_energy": True}])
def test_every_parameter_of_every_actor_moves_at_once(options):
    """The source's advantage used the data's action, so that nothing reached the actor."""
    agent = AWAC(None, plain_dataset(), w2_weights=(0.5, 0.0), seed=0, **SMALL, **options)
    before = [p.clone() for actor in agent.chain.actors for p in actor.parameters()]
    metrics = agent.update(agent.draw_batch())
    after = [p for actor in agent.chain.actors for p in actor.parameters()]
    assert not any(a.equal(b) for a, b in zip(after, before, strict=True))
    assert all(float(metrics[f"actor_{i}/gradient_norm"]) > 0 for i in (1, 2))


@pytest.mark.parametrize("actor", [0, 1])
def test_sampled_actions_differ(actor):
    agent = AWAC(None, plain_dataset(), w2_weights=(1.0,), seed=0, **SMALL)
    state = np.zeros(3, np.float32)
    samples = [agent.predict(state, actor=actor)[0] for _ in range(2)]
    assert not np.array_equal(*samples)
    means = [agent.predict(state, actor=actor, deterministic=True)[0] for _ in range(2)]
    assert np.array_equal(*means)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"awac_lambda": 0.0}, r"awac_lambda is 0.0; .* > 0"),
        ({"max_weight": -1.0}, r"max_weight is -1.0; .* > 0"),
        ({"energy": "v"}, "advantage"),
        ({"w2_weights": (1.0, -2.0)}, r"w2_weights\[1\] is -2.0"),
        ({"awac_lamda": 1.0}, "awac_lambda"),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        AWAC(None, plain_dataset(), **(SMALL | keywords))
