"""GCIVL's update against the published formulas, and a test per known trap."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from gcrl_gym.agents import GCIVL
from gcrl_gym.datasets import GoalSampler
from gcrl_gym.errors import UserError
from tests.agents.reference import (
    SMALL,
    Reference,
    clone,
    cropped,
    draw,
    gelu,
    goal_data,
    impala,
    picture_data,
    plain_dataset,
    stir,
)

PICTURES = {"pictures": ((8, 8, 3),) * 2, "places": ((8, 8, 3),), "discrete": ((8, 8, 3),) * 2}
DATA = {
    "continuous": goal_data,
    "pictures": lambda: (None, picture_data()),
    "places": lambda: (None, picture_data(vector_goals=True)),
    "discrete": lambda: (None, picture_data(discrete=True)),
    "without goals": lambda: (None, plain_dataset()),
}

# As on OGBench data: a goal is reached where it is the state itself.
INDEX = {"sampler": GoalSampler(actor="auto", support="ogbench", reward="index")}


def made(data="continuous", size=0.1, **keywords):
    """An agent whose weights are all apart, targets too, and a batch, both float64."""
    agent = GCIVL(*DATA[data](), seed=0, **(SMALL | INDEX | keywords))
    batch = draw(agent, scale=1.5)
    stir(agent, size)
    return agent, batch


def values(ref, network, observations, goals, pictures=()):
    """Both heads of a value network, [2, B]."""
    inputs = torch.cat([observations, goals], -1)
    if pictures:
        inputs = impala(ref, f"{network}.encoder", inputs, pictures)
    return ref.q(network, inputs, inputs[:, :0], gelu)


def log_normal(mean, std, actions):
    return (-(((actions - mean) / std) ** 2) / 2 - std.log() - math.log(2 * math.pi) / 2).sum(-1)


def reference_losses(ref, batch, alpha=10.0, expectile=0.9, discount=0.99, pictures=()):
    """The two published losses and that of the fitted scale."""
    s, after, g, asked = (
        batch.observations, batch.next_observations, batch.goals, batch.actor_goals
    )  # fmt: skip
    mask = 1 - batch.terminated
    next_1, next_2 = values(ref, "value_target", after, g, pictures)
    now_1, now_2 = values(ref, "value_target", s, g, pictures)
    q = batch.rewards + discount * mask * torch.minimum(next_1, next_2)
    advantage = q - (now_1 + now_2) / 2
    weight = torch.where(advantage >= 0, expectile, 1 - expectile).detach()
    value_loss = 0.0
    for head, following in zip(values(ref, "value", s, g, pictures), (next_1, next_2)):
        target = (batch.rewards + discount * mask * following).detach()
        value_loss = value_loss + (weight * (target - head) ** 2).mean()

    before, then = (values(ref, "value", x, asked, pictures).mean(0) for x in (s, after))
    if not g.shape[1]:
        then = batch.rewards + discount * mask * then
    weight = (alpha * (then - before).detach()).exp().clip(max=100)
    inputs, scale_loss = torch.cat([s, asked], -1), 0.0
    head = "actor.mean" if batch.actions.is_floating_point() else "actor.logits"
    inputs = impala(ref, f"{head}.0", inputs, pictures) if pictures else inputs
    output = ref.mlp(f"{head}.1" if pictures else head, inputs, gelu)
    if batch.actions.is_floating_point():
        log_prob = log_normal(output, torch.ones(2), batch.actions)
        std = ref["actor.log_std"].exp()
        scale_loss = -log_normal(output.detach(), std, batch.actions).mean()
    else:
        log_prob = torch.log_softmax(output, -1)[torch.arange(len(output)), batch.actions]
    return value_loss, -(weight * log_prob).mean(), scale_loss


def agreement(agent, batch, data="continuous", tau=0.005, before=None, **options):
    """Compare losses, weights and gradients of one update."""
    ref = Reference(agent)
    losses = reference_losses(
        ref, before or clone(batch), pictures=PICTURES.get(data, ()), **options
    )
    ref.soft_update("value_target", "value", tau)
    ref.step("value", losses[0])
    ref.step("actor", losses[1] + losses[2])
    metrics = agent.update(batch)
    ref.agree(agent)
    for name, loss in zip(("value_loss", "actor_loss"), losses):
        torch.testing.assert_close(metrics[name], loss.detach(), rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 3.0, "discount": 0.9},
        {"alpha": 0.0},
        {"expectile": 0.7, "tau": 0.1},
        {"layer_norm": False},
    ],
    ids=str,
)
def test_update_equals_the_formulas(options):
    agent, batch = made(**options)
    assert 0 < batch.terminated.sum() < len(batch.terminated)
    assert not torch.equal(batch.goals, batch.actor_goals)
    options.pop("layer_norm", None)  # the reference reads it off the weights
    agreement(agent, batch, **options)


@pytest.mark.parametrize("data", ["pictures", "places", "discrete"])
def test_update_equals_the_formulas_on_pictures_and_with_discrete_actions(data):
    agreement(*made(data, size=0.03), data)


def test_pictures_without_an_encoder_are_numbers():
    agreement(*made("pictures", size=0.03, encoder="none"))


def test_pictures_are_cropped_before_the_update():
    agent, batch = made("pictures", size=0.03, p_aug=1.0)
    moved = clone(batch)
    shifts = np.floor(7 * norm.cdf(batch.noise["crop"].numpy())).astype(int)
    for name in ("observations", "next_observations", "goals", "actor_goals"):
        setattr(moved, name, cropped(getattr(batch, name), shifts))
    agreement(agent, batch, "pictures", before=moved)


def test_without_goals_the_advantage_has_the_recorded_reward():
    agent, batch = made("without goals")
    assert batch.goals.shape[1] == 0
    batch.terminated[::5] = 1.0
    agreement(agent, batch)


def test_weights_are_cut_off_at_100():
    agent, batch = made(size=0.5, alpha=200.0)
    now, then = (
        agent.value(torch.cat([x, batch.actor_goals], -1)).mean(0)
        for x in (batch.observations, batch.next_observations)
    )
    assert 0 < float(((200 * (then - now)).exp() > 100).double().mean()) < 1
    agreement(agent, batch, alpha=200.0)


# --------------------------------------------------------------------------------------- traps


def test_each_head_follows_its_own_target():
    """One shared target, the least of both, makes the heads alike and too small."""
    agent, batch = made(size=0.5)
    ref = Reference(agent)
    there = values(ref, "value_target", batch.next_observations, batch.goals).detach()
    assert float((there[0] - there[1]).abs().mean()) > 0.1
    agreement(agent, batch)


def test_the_targets_decide_the_side_of_the_expectile():
    agent, batch = made(size=0.5)
    ref = Reference(agent)
    targets = batch.rewards + 0.99 * (1 - batch.terminated) * values(
        ref, "value_target", batch.next_observations, batch.goals
    )
    here = [values(ref, n, batch.observations, batch.goals) for n in ("value_target", "value")]
    by_target = targets.amin(0) >= here[0].mean(0)
    by_online, by_head = targets.amin(0) >= here[1].mean(0), targets >= here[1]
    # All three would weigh some transitions differently.
    assert (by_target != by_online).any()
    assert (by_target != by_head).any()
    agreement(agent, batch)


def test_the_policys_advantage_has_no_reward_and_no_discount():
    agent, batch = made()
    now, then = (
        agent.value(torch.cat([x, batch.actor_goals], -1)).mean()
        for x in (batch.observations, batch.next_observations)
    )
    torch.testing.assert_close(agent.update(batch)["advantage"], (then - now).detach())


def test_nothing_is_bootstrapped_from_success():
    _, batch = made()
    success = (batch.observations == batch.goals).all(1)
    assert success.any()
    assert torch.equal(batch.terminated, success.double())
    assert torch.equal(batch.rewards, success.double() - 1)


def test_the_target_follows_the_weights_before_the_step():
    agent, batch = made(tau=0.5)
    target, online = (
        [p.detach().clone() for p in network.parameters()]
        for network in (agent.value_target, agent.value)
    )
    agent.update(batch)
    for found, old, new in zip(agent.value_target.parameters(), target, online):
        torch.testing.assert_close(found, 0.5 * old + 0.5 * new)


def test_one_optimiser_and_goals_of_the_published_law():
    agent, _ = made()
    assert list(agent.optimizers) == ["agent"]
    assert GCIVL.sampler == GoalSampler(
        value=(0.2, 0.5, 0.3), future="geometric", actor="auto", actor_future="uniform",
        support="ogbench", reward="auto",
    )  # fmt: skip


def test_defaults_are_the_published_ones():
    agent = GCIVL(*goal_data(), seed=0, device="cpu")
    assert (agent.hidden_sizes, agent.batch_size) == ((512, 512, 512), 1024)
    assert (agent.alpha, agent.expectile, agent.discount, agent.tau) == (10.0, 0.9, 0.99, 0.005)
    assert agent.optimizers["agent"].param_groups[0]["lr"] == 3e-4
    assert len(agent.value.stack.norm_scales) == 3
    for weight in agent.value.stack.weights:
        assert weight.shape[0] == 2
        width = math.sqrt(6 / sum(weight.shape[1:]))
        assert 0.95 * width < float(weight.detach().abs().max()) < 1.001 * width
    body = agent.actor.mean
    assert not any(isinstance(layer, torch.nn.LayerNorm) for layer in body)
    bound = 0.1 * math.sqrt(6 / (512 + 2))
    assert 0.95 * bound < float(body[-1].weight.detach().abs().max()) < 1.001 * bound


def test_acting():
    agent, _ = made()
    one = {"observation": np.zeros(2, np.float32), "desired_goal": np.ones(2, np.float32)}
    mean = agent.predict(one, deterministic=True)[0]
    assert np.array_equal(mean, agent.predict(one, deterministic=True)[0])
    assert not np.array_equal(agent.predict(one)[0], agent.predict(one)[0])


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"expectile": 1.0}, r"expectile is 1.0; .* \(0, 1\)"),
        ({"alpha": -1.0}, "alpha is -1.0; .* >= 0"),
        ({"encoder": "impala"}, 'not pictures .* use "auto"'),
        ({"encoder": "impala_smal"}, "encoder is 'impala_smal'.*impala_small"),
        ({"p_aug": 1.5}, r"p_aug is 1.5; .*\[0, 1\]"),
        ({"discount": 1.0}, r"discount in \(0, 1\)"),
        ({"w2_weights": (1.0,)}, "GCIVL has no argument 'w2_weights'"),
        ({"hidden_size": (16,)}, "hidden_sizes"),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        GCIVL(*goal_data(), **(SMALL | keywords))


def test_rewards_that_are_all_0_are_refused():
    data = plain_dataset()
    data.rewards[:] = 0
    with pytest.raises(UserError, match="learns from rewards, but every reward"):
        GCIVL(None, data, **SMALL)
