"""IQL's update against the published formulas, and a test per known trap."""

import math

import numpy as np
import pytest
import torch

from gcrl_gym.agents import IQL
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


def gaussian(ref, i, inputs):
    """Mean and standard deviation of actor i."""
    return torch.tanh(ref.mlp(f"actor_{i}.mean", inputs)), ref[f"actor_{i}.log_std"].exp()


def log_prob(mean, std, actions):
    return (-((actions - mean) ** 2) / (2 * std**2) - std.log() - math.log(2 * math.pi) / 2).sum(-1)


def reference_update(
    ref, batch, weights=(), expectile=0.7, beta=3.0, discount=0.99, tau=0.005,
    energy="q", deterministic=False,
):  # fmt: skip
    here = torch.cat([batch.observations, batch.goals], -1)
    there = torch.cat([batch.next_observations, batch.goals], -1)
    asked = torch.cat([batch.observations, batch.actor_goals], -1)
    v = lambda x: ref.mlp("value", x)[:, 0]  # noqa: E731
    v_next = v(there).detach()
    q_data = ref.q("critic_target", here, batch.actions).min(0).values.detach()
    advantage = ref.q("critic_target", asked, batch.actions).min(0).values - v(asked)
    advantage = advantage.detach()

    u = q_data - v(here)
    ref.step("value", (torch.abs(expectile - (u < 0).double()) * u**2).mean())

    target = batch.rewards + discount * (1 - batch.terminated) * v_next
    q = ref.q("critic", here, batch.actions)
    ref.step("critic", (((q[0] - target) ** 2).mean() + ((q[1] - target) ** 2).mean()) / 2)
    ref.soft_update("critic_target", "critic", tau)

    weight = torch.minimum(torch.exp(beta * advantage), torch.tensor(100.0, dtype=torch.float64))
    if deterministic:
        pi = torch.tanh(ref.mlp("actor_0.body", asked))
        ref.step("actor_0", (weight * ((pi - batch.actions) ** 2).sum(-1)).mean())
    else:
        ref.step("actor_0", -(weight * log_prob(*gaussian(ref, 0, asked), batch.actions)).mean())

    for i, w in enumerate(weights, 1):
        if deterministic:
            a = torch.tanh(ref.mlp(f"actor_{i}.body", asked))
            before = torch.tanh(ref.mlp(f"actor_{i - 1}.body", asked)).detach()
            distance = ((a - before) ** 2).sum(-1).mean()
        else:
            mean, std = gaussian(ref, i, asked)
            a = (mean + std * batch.noise[f"actor_{i}"]).clip(-1, 1)
            distance = gaussian_w2(mean, std, *(x.detach() for x in gaussian(ref, i - 1, asked)))
        cost = -ref.q("critic_target", asked, a).min(0).values
        if energy == "advantage":
            cost = cost + v(asked).detach()
        ref.step(f"actor_{i}", cost.mean() + w * distance)


@pytest.mark.parametrize("weights", [(), (0.3, 0.7)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"expectile": 0.9, "beta": 10.0},
        {"policy_type": "deterministic"},
        {"energy": "advantage"},
    ],
    ids=str,
)
def test_update_equals_the_formulas(weights, options):
    agent = IQL(None, plain_dataset(), w2_weights=weights, seed=0, **SMALL, **options)
    batch = draw(agent, scale=1.5)
    ref = Reference(agent)
    options = dict(options)
    deterministic = options.pop("policy_type", "") == "deterministic"
    reference_update(ref, clone(batch), weights, deterministic=deterministic, **options)
    agent.update(batch)
    ref.agree(agent)


def test_update_equals_the_formulas_with_goals():
    agent = IQL(*goal_data(), w2_weights=(0.3,), seed=1, **SMALL)
    batch = draw(agent, scale=1.5)
    assert not torch.equal(batch.goals, batch.actor_goals)
    ref = Reference(agent)
    reference_update(ref, clone(batch), (0.3,))
    agent.update(batch)
    ref.agree(agent)


def test_a_chain_of_transport_maps_is_compared_by_samples():
    agent = IQL(
        None, plain_dataset(), w2_weights=(0.3,), chain_policy="transport_map", seed=0, **SMALL
    )
    batch = draw(agent)
    ref = Reference(agent)
    first = clone(batch)
    reference_update(ref, first)  # values, critics and actor 0

    def pushed(z):
        inputs = torch.cat([batch.observations, z], -1)
        return torch.tanh(ref.mlp("actor_1.body", inputs))

    mean, std = gaussian(ref, 0, batch.observations)
    before = each(batch.noise["reference_1"], lambda z: (mean + std * z).clip(-1, 1))
    q = ref.q("critic_target", batch.observations, pushed(batch.noise["actor_1"]))
    distance = sinkhorn_w2(each(batch.noise["samples_1"], pushed), before)
    ref.step("actor_1", -q.min(0).values.mean() + 0.3 * distance)
    agent.update(batch)
    ref.agree(agent)


def test_networks_of_the_single_task_settings():
    agent = IQL(None, plain_dataset(), activation="gelu", layer_norm=True, seed=0, **SMALL)
    batch = draw(agent, scale=1.5)
    with torch.no_grad():
        first, second = agent.policy.networks["value"][0], agent.policy.networks["value"][3]
        gelu = lambda x: torch.nn.functional.gelu(x, approximate="tanh")  # noqa: E731
        hidden = gelu(first(batch.observations))
        mean, var = hidden.mean(-1, keepdim=True), hidden.var(-1, keepdim=True, unbiased=False)
        scale = agent.policy.networks["value"][2]
        hidden = (hidden - mean) / (var + 1e-6).sqrt() * scale.weight + scale.bias
        found = torch.nn.Sequential(*list(agent.policy.networks["value"])[:4])(batch.observations)
        torch.testing.assert_close(found, second(hidden))
        ref = Reference(agent)
        q = ref.q("critic", batch.observations, batch.actions, gelu)
        torch.testing.assert_close(agent.critic(batch.observations, batch.actions), q)
    agent.update(batch)


def test_actor_rate_falls_along_a_cosine_and_the_chain_keeps_its_own():
    agent = IQL(None, plain_dataset(), w2_weights=(1.0,), seed=0, learning_rate=1e-3, **SMALL)
    rates = []

    def record(*_):
        rates.append({n: o.param_groups[0]["lr"] for n, o in agent.optimizers.items()})
        return True

    agent.learn(4, callback=record)
    expected = [1e-3 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    assert [rate["actor_0"] for rate in rates] == pytest.approx(expected)
    assert {rate[name] for rate in rates for name in ("value", "critic", "actor_1")} == {1e-3}


def test_constant_schedule():
    agent = IQL(None, plain_dataset(), actor_schedule="constant", seed=0, **SMALL).learn(3)
    assert agent.optimizers["actor_0"].param_groups[0]["lr"] == 3e-4


def test_weights_are_cut_off():
    agent = IQL(None, plain_dataset(), seed=0, beta=1e6, max_weight=7.0, **SMALL)
    metrics = agent.update(agent.draw_batch())
    assert float(metrics["actor_0/weight"]) <= 7.0


def test_the_advantage_energy_has_a_gradient():
    """The source's advantage used the data's action, so that nothing reached the actor."""
    agent = IQL(None, plain_dataset(), w2_weights=(0.0,), energy="advantage", seed=0, **SMALL)
    before = [p.clone() for p in agent.chain.actors[1].parameters()]
    metrics = agent.update(agent.draw_batch())
    assert float(metrics["actor_1/gradient_norm"]) > 0
    after = agent.chain.actors[1].parameters()
    assert not any(a.equal(b) for a, b in zip(after, before))


def test_deterministic_actors_have_one_action():
    agent = IQL(None, plain_dataset(), policy_type="deterministic", seed=0, **SMALL)
    one = np.zeros(3, np.float32)
    assert np.array_equal(agent.predict(one)[0], agent.predict(one, deterministic=True)[0])


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"expectile": 1.0}, r"expectile is 1.0; .* \(0, 1\)"),
        ({"policy_type": "gausian"}, "gaussian"),
        ({"energy": "v"}, "advantage"),
        ({"w2_weights": (1.0, -2.0)}, r"w2_weights\[1\] is -2.0"),
        ({"w2_weights": (1.0,), "chain_learning_rate": (1e-3, 1e-3)}, "has 2 entries"),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        IQL(None, plain_dataset(), **(SMALL | keywords))
