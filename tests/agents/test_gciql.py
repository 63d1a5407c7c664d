"""GCIQL's update against the published formulas, and a test per known trap."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from gcrl_gym.agents import GCIQL
from gcrl_gym.datasets import GoalSampler
from gcrl_gym.errors import UserError
from tests.agents.reference import (
    SMALL,
    Reference,
    clone,
    cropped,
    draw,
    gaussian_w2,
    gelu,
    goal_data,
    impala,
    picture_data,
    plain_dataset,
    stir,
)

ONE = (8, 8, 3)
PICTURES = {"pictures": (ONE, ONE), "places": (ONE,), "discrete pictures": (ONE, ONE)}
EXACT = 0.875  # in float32, which the loss has its weights in; tiny gradients show the difference
DATA = {
    "continuous": goal_data,
    "pictures": lambda: (None, picture_data()),
    "places": lambda: (None, picture_data(vector_goals=True)),
    "discrete pictures": lambda: (None, picture_data(discrete=True)),
    "without goals": lambda: (None, plain_dataset()),
}

# As on OGBench data: a goal is reached where it is the state itself.
INDEX = {"sampler": GoalSampler(actor="auto", support="ogbench", reward="index")}


def made(data="continuous", size=0.1, **keywords):
    """An agent whose weights are all apart, and a batch, both float64.

    Residuals of the value function have both signs, means lie on both sides of the actions' bounds.
    """
    agent = GCIQL(*DATA[data](), seed=0, **(SMALL | INDEX | keywords))
    batch = draw(agent, scale=1.5)
    stir(agent, size)
    here = agent.join(batch.observations, batch.goals)
    with torch.no_grad():
        if batch.actions.is_floating_point():
            q = agent.critic_target(here, batch.actions).amin(0)
            agent.value.stack.biases[-1].add_((q - agent.value(here)[0]).mean())
            output = agent.actor(here)
            weight, bias = list(agent.actor.mean.parameters())[-2:]
            weight.div_(output.std(0)[:, None])
            bias.sub_(output.mean(0)).div_(output.std(0))
            residual = q - agent.value(here)[0]
            assert 0 < float((residual > 0).double().mean()) < 1
            assert 0 < float((agent.actor(here).abs() > 1).double().mean()) < 1
    return agent, batch


def log_normal(mean, actions):
    return (-((actions - mean) ** 2) / 2 - math.log(2 * math.pi) / 2).sum(-1)


def reference_update(
    ref, batch, actor_loss="ddpgbc", alpha=0.3, expectile=0.9, discount=0.99, tau=0.005,
    w2_weights=(), pictures=(),
):  # fmt: skip
    """Write the update a second time; returns the three losses."""

    def see(prefix, observations, goals):
        inputs = torch.cat([observations, goals], -1)
        return impala(ref, prefix, inputs, pictures) if pictures else inputs

    def v(observations, goals):
        inputs = see("value.encoder", observations, goals)
        return ref.q("value", inputs, inputs[:, :0], gelu)[0]

    def least_q(name, observations, goals, actions):
        inputs = see(f"{name}.encoder", observations, goals)
        return ref.q(name, inputs, actions, gelu)

    def policy(i, observations, goals):
        head = f"actor_{i}.logits" if discrete else f"actor_{i}.mean"
        inputs = see(f"{head}.0", observations, goals)
        return ref.mlp(f"{head}.1" if pictures else head, inputs, gelu)

    s, g, asked = batch.observations, batch.goals, batch.actor_goals
    discrete = not batch.actions.is_floating_point()
    actions = torch.eye(4).double()[batch.actions] if discrete else batch.actions

    u = least_q("critic_target", s, g, actions).min(0).values.detach() - v(s, g)
    value_loss = (torch.abs(expectile - (u < 0).double()) * u**2).mean()

    after = v(batch.next_observations, g).detach()
    target = batch.rewards + discount * (1 - batch.terminated) * after
    q = least_q("critic", s, g, actions)
    critic_loss = ((q[0] - target) ** 2).mean() + ((q[1] - target) ** 2).mean()

    output = policy(0, s, asked)
    if discrete:
        log_prob = torch.log_softmax(output, -1)[torch.arange(len(output)), batch.actions]
    else:
        log_prob = log_normal(output, actions)
    if actor_loss == "ddpgbc":
        climbed = least_q("critic", s, asked, output.clip(-1, 1)).min(0).values
        actor_loss = -climbed.mean() / (climbed.abs().mean().detach() + 1e-6)
        actor_loss = actor_loss - alpha * log_prob.mean()
    else:
        advantage = least_q("critic", s, asked, actions).min(0).values - v(s, asked)
        weight = (alpha * advantage.detach()).exp().clip(max=100)
        actor_loss = -(weight * log_prob).mean()
    scale_loss = 0.0
    if not discrete:
        normal = torch.distributions.Normal(output.detach(), ref["actor_0.log_std"].exp())
        scale_loss = -normal.log_prob(actions).sum(-1).mean()

    ref.soft_update("critic_target", "critic", tau)
    ref.step("value", value_loss)
    ref.step("critic", critic_loss)
    ref.step("actor_0", actor_loss + scale_loss)

    for i, weight in enumerate(w2_weights, 1):
        mean, before = policy(i, s, asked), policy(i - 1, s, asked).detach()
        spreads = ref[f"actor_{i}.log_std"].exp(), ref[f"actor_{i - 1}.log_std"].exp().detach()
        distance = gaussian_w2(mean, spreads[0], before, spreads[1])
        energy = -least_q("critic", s, asked, mean.clip(-1, 1)).min(0).values.mean()
        ref.step(f"actor_{i}", energy + weight * distance)
    return value_loss, critic_loss, actor_loss


def agreement(agent, batch, data, **options):
    ref = Reference(agent)
    losses = reference_update(ref, clone(batch), pictures=PICTURES.get(data, ()), **options)
    metrics = agent.update(batch)
    ref.agree(agent)
    for name, loss in zip(("value_loss", "critic_loss", "actor_0/actor_loss"), losses):
        torch.testing.assert_close(metrics[name], loss.detach(), rtol=1e-6, atol=1e-12, msg=name)


@pytest.mark.parametrize("w2_weights", [(), (0.3, 0.7)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"actor_loss": "awr", "alpha": 3.0},
        {"alpha": 0.003, "discount": 0.9},
        {"expectile": 0.7, "tau": 0.1},
        {"layer_norm": False},
    ],
    ids=str,
)
def test_update_equals_the_formulas(w2_weights, options):
    agent, batch = made(w2_weights=w2_weights, **options)
    assert 0 < batch.terminated.sum() < len(batch.terminated)
    assert not torch.equal(batch.goals, batch.actor_goals)
    options.pop("layer_norm", None)  # the reference reads it off the weights
    agreement(agent, batch, "continuous", w2_weights=w2_weights, **options)


@pytest.mark.parametrize("w2_weights", [(), (0.3,)])
@pytest.mark.parametrize("actor_loss", ["ddpgbc", "awr"])
@pytest.mark.parametrize("data", ["pictures", "places"])
def test_update_equals_the_formulas_on_pictures(data, actor_loss, w2_weights):
    options = {"actor_loss": actor_loss, "w2_weights": w2_weights, "expectile": EXACT}
    agent, batch = made(data, size=0.03, **options)
    agreement(agent, batch, data, **options)


def test_update_equals_the_formulas_with_discrete_actions():
    agent, batch = made("discrete pictures", size=0.03, alpha=3.0, expectile=EXACT)
    options = {"actor_loss": "awr", "alpha": 3.0, "expectile": EXACT}
    agreement(agent, batch, "discrete pictures", **options)


def test_update_equals_the_formulas_without_goals():
    """Then it is plain IQL: the rewards are the recorded ones."""
    agent, batch = made("without goals")
    assert batch.goals.shape[1] == 0
    agreement(agent, batch, "without goals")


def test_update_equals_the_formulas_where_weights_are_cut_off():
    agent, batch = made(actor_loss="awr", alpha=50.0)
    inputs = agent.join(batch.observations, batch.actor_goals)
    advantage = agent.critic(inputs, batch.actions).amin(0) - agent.value(inputs)[0]
    assert 0 < float(((50 * advantage).exp() > 100).double().mean()) < 1
    agreement(agent, batch, "continuous", actor_loss="awr", alpha=50.0)


def test_pictures_are_cropped_before_the_update():
    agent, batch = made("pictures", size=0.03, p_aug=1.0, expectile=EXACT)
    moved = clone(batch)
    shifts = np.floor(7 * norm.cdf(batch.noise["crop"].numpy())).astype(int)
    assert len(np.unique(shifts, axis=0)) > 10
    for name in ("observations", "next_observations", "goals", "actor_goals"):
        setattr(moved, name, cropped(getattr(batch, name), shifts))
    ref = Reference(agent)
    reference_update(ref, moved, pictures=PICTURES["pictures"], expectile=EXACT)
    agent.update(batch)
    ref.agree(agent)


# --------------------------------------------------------------------------------------- traps


def test_continuous_actions_climb_the_critics_and_discrete_ones_are_regressed():
    """AWR on continuous tasks is much weaker."""
    assert GCIQL(*goal_data(), **SMALL).kind_of_loss == "ddpgbc"
    assert GCIQL(None, picture_data(discrete=True), **SMALL).kind_of_loss == "awr"


def actor_gradients(actor_loss, alpha, imitation_only=False):
    """Gradients of actor 0's mean, all in one vector."""
    agent, batch = made(actor_loss=actor_loss, alpha=alpha)
    if imitation_only:
        output = agent.actor(agent.join(batch.observations, batch.actor_goals))
        loss = -log_normal(output, batch.actions).mean()
        grads = torch.autograd.grad(loss, list(agent.actor.mean.parameters()))
    else:
        agent.update(batch)
        grads = [p.grad for p in agent.actor.mean.parameters()]
    return torch.cat([grad.flatten() for grad in grads])


def test_alpha_weighs_imitation_in_ddpgbc_and_is_an_inverse_temperature_in_awr():
    cloning = actor_gradients("awr", 0.0)
    torch.testing.assert_close(cloning, actor_gradients("awr", 0.0, imitation_only=True))
    cosine = torch.nn.functional.cosine_similarity
    large, small = actor_gradients("ddpgbc", 1e4), actor_gradients("ddpgbc", 0.0)
    torch.testing.assert_close(large / 1e4, cloning, rtol=1e-2, atol=1e-4)
    assert float(cosine(small, cloning, dim=0)) < 0.9
    assert float(cosine(actor_gradients("awr", 30.0), cloning, dim=0)) < 0.9


def test_the_critics_bootstrap_from_the_online_value_function_before_its_step():
    agent, batch = made()
    with torch.no_grad():
        after = agent.value(agent.join(batch.next_observations, batch.goals))[0]
        q = agent.critic(agent.join(batch.observations, batch.goals), batch.actions)
    target = batch.rewards + 0.99 * (1 - batch.terminated) * after
    metrics = agent.update(batch)
    torch.testing.assert_close(metrics["critic_loss"], ((q - target) ** 2).mean(1).sum())
    assert "value_target" not in agent.policy.networks


def test_nothing_is_bootstrapped_from_success():
    """Success is where the goal is the state itself: reward 0, and the value is 0 for ever."""
    agent, batch = made()
    success = (batch.observations == batch.goals).all(1)
    assert torch.equal(batch.terminated, success.double())
    assert torch.equal(batch.rewards, success.double() - 1)
    assert success.any()
    moved = clone(batch)
    moved.next_observations[success] += 100.0
    other = GCIQL.load(saved(agent), *goal_data())
    other.policy.double()
    torch.testing.assert_close(
        agent.update(batch)["critic_loss"], other.update(moved)["critic_loss"], rtol=0, atol=1e-5
    )


def saved(agent):
    import io

    buffer = io.BytesIO()
    agent.save(buffer)
    buffer.seek(0)
    return buffer


def test_the_target_follows_the_weights_before_the_step():
    agent, batch = made(tau=0.5)
    target, online = (
        [p.detach().clone() for p in network.parameters()]
        for network in (agent.critic_target, agent.critic)
    )
    agent.update(batch)
    for found, old, new in zip(agent.critic_target.parameters(), target, online):
        torch.testing.assert_close(found, 0.5 * old + 0.5 * new)


def test_one_optimiser_and_goals_of_the_published_law():
    agent, _ = made()
    assert list(agent.optimizers) == ["agent"]
    assert GCIQL.sampler == GoalSampler(
        value=(0.2, 0.5, 0.3), future="geometric", actor="auto", actor_future="uniform",
        support="ogbench", reward="auto",
    )  # fmt: skip


def test_defaults_are_the_published_ones():
    agent = GCIQL(*goal_data(), device="cpu")
    assert (agent.hidden_sizes, agent.batch_size) == ((512, 512, 512), 1024)
    assert (agent.alpha, agent.expectile, agent.discount, agent.tau) == (0.3, 0.9, 0.99, 0.005)
    assert agent.optimizers["agent"].param_groups[0]["lr"] == 3e-4
    for network in (agent.value, agent.critic):
        assert len(network.stack.norm_scales) == 3
        for weight in network.stack.weights:
            width = math.sqrt(6 / sum(weight.shape[1:]))
            assert 0.95 * width < float(weight.detach().abs().max()) <= width
    body = agent.actor.mean
    assert not any(isinstance(layer, torch.nn.LayerNorm) for layer in body)
    bound = 0.1 * math.sqrt(6 / (512 + 2))
    assert 0.95 * bound < float(body[-1].weight.detach().abs().max()) <= bound
    assert all(not p.any() for n, p in agent.policy.named_parameters() if "bias" in n)


def test_acting():
    agent = GCIQL(*goal_data(), seed=0, **SMALL)
    one = {"observation": np.zeros(2, np.float32), "desired_goal": np.ones(2, np.float32)}
    mean = agent.predict(one, deterministic=True)[0]
    assert np.array_equal(mean, agent.predict(one, deterministic=True)[0])
    assert not np.array_equal(agent.predict(one)[0], agent.predict(one)[0])
    discrete = GCIQL(None, picture_data(discrete=True), seed=0, **SMALL)
    pictures = np.zeros((200, 8, 8, 3), np.uint8)
    many = {"observation": pictures, "desired_goal": pictures}
    assert len(set(discrete.predict(many)[0].tolist())) == 4
    assert len(set(discrete.predict(many, deterministic=True)[0].tolist())) == 1


@pytest.mark.parametrize(
    ("data", "keywords", "words"),
    [
        ("continuous", {"expectile": 0.0}, r"expectile is 0.0; .* \(0, 1\)"),
        ("continuous", {"actor_loss": "ddpg"}, r"actor_loss is 'ddpg'.*ddpgbc"),
        ("continuous", {"encoder": "impala"}, 'not pictures .* use "auto"'),
        ("continuous", {"encoder": "impala_smal"}, "encoder is 'impala_smal'.*impala_small"),
        ("continuous", {"alpha": -1.0}, "alpha is -1.0"),
        ("continuous", {"p_aug": 1.5}, r"p_aug is 1.5.*\[0, 1\]"),
        ("pictures", {"p_aug": -0.5}, r"p_aug is -0.5.*\[0, 1\]"),
        ("continuous", {"w2_weights": (-1.0,)}, r"w2_weights\[0\] is -1.0"),
        ("discrete pictures", {"actor_loss": "ddpgbc"}, 'needs continuous actions; use "awr"'),
        ("discrete pictures", {"w2_weights": (1.0,)}, r"chain \(w2_weights\) needs continuous"),
        (
            "pictures",
            {"w2_weights": (1.0,), "chain_policy": "gaussian"},
            'on pictures chain_policy must be "same"',
        ),
    ],
)
def test_wrong_options_are_named(data, keywords, words):
    with pytest.raises(UserError, match=words):
        GCIQL(*DATA[data](), **(SMALL | keywords))
