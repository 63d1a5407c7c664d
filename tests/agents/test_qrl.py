"""QRL's update against the published formulas, and a test per known trap."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy.stats import norm

from gcrl_gym.agents import QRL
from gcrl_gym.datasets import GoalSampler, OfflineDataset
from gcrl_gym.errors import UserError
from tests.agents.reference import (
    SMALL,
    Reference,
    clone,
    cropped,
    draw,
    goal_data,
    impala,
    picture_data,
    plain_dataset,
    sequential,
    stir,
)

ONE = (8, 8, 3)


def states(discrete=False):
    """A random walk; its goals are its observations."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 4, size=200) if discrete else rng.uniform(-1, 1, size=(200, 2))
    return OfflineDataset.from_arrays(
        np.cumsum(rng.normal(size=(200, 3)), 0).astype(np.float32),
        actions if discrete else actions.astype(np.float32),
        truncated=np.arange(200) % 50 == 49,
        goal_is_observation=True,
        action_space=spaces.Discrete(4) if discrete else spaces.Box(-1, 1, (2,), np.float32),
    )


DATA = {
    "maze": goal_data,
    "states": lambda: (None, states()),
    "discrete": lambda: (None, states(discrete=True)),
    "pictures": lambda: (None, picture_data()),
    "discrete pictures": lambda: (None, picture_data(discrete=True)),
}


def made(data="states", size=0.1, **keywords):
    """An agent whose weights are all apart, and a batch, both float64."""
    small = SMALL | {"latent_dim": 12, "dim_per_component": 4}
    agent = QRL(*DATA[data](), seed=0, **(small | keywords))
    batch = draw(agent, scale=1.5)
    stir(agent, size)
    return agent, batch


def union(starts, ends):
    """Length of the union of intervals [.., k], gap by gap between their sorted ends."""
    points = torch.cat([starts, ends], -1).sort(-1).values
    middles = ((points[..., 1:] + points[..., :-1]) / 2).unsqueeze(-1)
    covered = (starts.unsqueeze(-2) < middles) & (middles < ends.unsqueeze(-2))
    return ((points[..., 1:] - points[..., :-1]) * covered.any(-1)).sum(-1)


def distance(ref, x, y, intervals=4):
    """IQE, or MRN where nothing mixes."""
    if "value.mixture" in ref.state:
        share = 1 / (1 + torch.exp(-ref["value.mixture"][0]))
        parts = [union(a, b) for a, b in zip(x.split(intervals, -1), y.split(intervals, -1))]
        return share * sum(parts) / len(parts) + (1 - share) * torch.stack(parts).max(0).values
    half = x.shape[1] // 2
    symmetric = ((x[:, :half] - y[:, :half]) ** 2).sum(-1).clip(min=1e-12).sqrt()
    return symmetric + (x[:, half:] - y[:, half:]).max(-1).values.clip(min=0)


def phi(ref, inputs, pictures):
    if pictures:
        return sequential(ref, "value.phi.1", impala(ref, "value.phi.0", inputs, (ONE,)))
    return sequential(ref, "value.phi", inputs)


def dynamics(ref, latent, actions):
    return latent + sequential(ref, "dynamics.change", torch.cat([latent, actions], -1))


def reference_actor(ref, batch, actor_loss, alpha, pictures):
    """The published loss of the actor, and that of the fitted scale."""
    inputs, scale_loss = torch.cat([batch.observations, batch.actor_goals], -1), 0.0
    head = "actor.mean" if batch.actions.is_floating_point() else "actor.logits"
    inputs = impala(ref, f"{head}.0", inputs, (ONE, ONE)) if pictures else inputs
    output = sequential(ref, f"{head}.1" if pictures else head, inputs)
    if batch.actions.is_floating_point():
        one = torch.distributions.Normal(output, 1.0)
        log_prob = one.log_prob(batch.actions).sum(-1)
        fitted = torch.distributions.Normal(output.detach(), ref["actor.log_std"].exp())
        scale_loss = -fitted.log_prob(batch.actions).sum(-1).mean()
    else:
        log_prob = torch.log_softmax(output, -1)[torch.arange(len(output)), batch.actions]
    here, after, goal = (
        phi(ref, x, pictures).detach()
        for x in (batch.observations, batch.next_observations, batch.actor_goals)
    )
    if actor_loss == "ddpgbc":
        q = -distance(ref, dynamics(ref, here, output.clip(-1, 1)), goal)
        loss = -q.mean() / (q.abs().mean().detach() + 1e-6) - alpha * log_prob.mean()
    else:
        advantage = -distance(ref, after, goal) + distance(ref, here, goal)
        loss = -((alpha * advantage.detach()).exp().clip(max=100) * log_prob).mean()
    return loss, scale_loss


def reference_update(ref, batch, actor_loss="ddpgbc", alpha=0.003, eps=0.05, pictures=False):
    """Write the update a second time; returns the losses."""
    here, after, goal = (
        phi(ref, x, pictures) for x in (batch.observations, batch.next_observations, batch.goals)
    )
    apart = (100 * torch.log(1 + torch.exp(5 - distance(ref, here, goal) / 100))).mean()
    excess = ((distance(ref, here, after) - 1).clip(min=0) ** 2).mean()
    multiplier = ref["lambda.log_lambda"].exp()[0]
    value_loss = apart + multiplier.detach() * excess
    lambda_loss = multiplier * (eps - excess.detach())
    total, losses = value_loss + lambda_loss, {"value_loss": value_loss, "constraint": excess}
    learned = ["value", "lambda"]
    if actor_loss == "ddpgbc":
        predicted = dynamics(ref, here, batch.actions)
        both = distance(ref, after, predicted) + distance(ref, predicted, after)
        losses["dynamics_loss"] = both.mean() / 2
        total, learned = total + losses["dynamics_loss"], [*learned, "dynamics"]
    actor, scale_loss = reference_actor(ref, batch, actor_loss, alpha, pictures)
    ref.step(learned, total)
    ref.step("actor", actor + scale_loss)
    return losses | {"actor_loss": actor, "lambda": multiplier}


def agreement(agent, batch, before=None, **options):
    """Compare losses, weights and gradients of one update."""
    ref = Reference(agent)
    losses = reference_update(ref, before or clone(batch), **options)
    metrics = agent.update(batch)
    # MRN does not feel a shift of all latents: the last two have no gradient but rounding.
    ref.grads = {name: grad for name, grad in ref.grads.items() if float(grad.abs().max()) > 1e-13}
    assert len(ref.grads) >= len(ref.state) - 2
    ref.agree(agent)
    for name, loss in losses.items():
        torch.testing.assert_close(metrics[name], loss.detach(), rtol=1e-9, atol=1e-12, msg=name)
    return metrics


@pytest.mark.parametrize("actor_loss", ["ddpgbc", "awr"])
@pytest.mark.parametrize(
    "options",
    [{}, {"alpha": 2.0, "eps": 3.0}, {"quasimetric": "mrn"}, {"layer_norm": False}],
    ids=str,
)
def test_update_equals_the_formulas(actor_loss, options):
    agent, batch = made(actor_loss=actor_loss, **options)
    assert not torch.equal(batch.goals, batch.actor_goals)
    options = {k: v for k, v in options.items() if k in ("alpha", "eps")}
    metrics = agreement(agent, batch, actor_loss=actor_loss, **options)
    assert float(metrics["constraint"]) > 0  # some steps are too long, so that the term counts


def test_update_equals_the_formulas_in_a_maze():
    agent, batch = made("maze", size=0.3)
    agreement(agent, batch)


@pytest.mark.parametrize("data", ["discrete", "discrete pictures"])
def test_discrete_actions_are_advantage_weighted(data):
    agent, batch = made(data, size=0.03 if "pictures" in data else 0.1, alpha=3.0)
    assert agent.kind_of_loss == "awr"
    agreement(agent, batch, actor_loss="awr", alpha=3.0, pictures="pictures" in data)


def test_update_equals_the_formulas_on_pictures():
    agent, batch = made("pictures", size=0.03)
    agreement(agent, batch, pictures=True)


def test_pictures_without_an_encoder_are_numbers():
    agreement(*made("pictures", size=0.03, encoder="none"))


def test_pictures_are_cropped_before_the_update():
    agent, batch = made("pictures", size=0.03, p_aug=1.0)
    moved = clone(batch)
    shifts = np.floor(7 * norm.cdf(batch.noise["crop"].numpy())).astype(int)
    for name in ("observations", "next_observations", "goals", "actor_goals"):
        setattr(moved, name, cropped(getattr(batch, name), shifts))
    agreement(agent, batch, before=moved, pictures=True)


def test_weights_are_cut_off_at_100():
    agent, batch = made(actor_loss="awr", alpha=50.0, size=0.5)
    here, after, goal = agent.value(
        torch.cat([batch.observations, batch.next_observations, batch.actor_goals])
    ).chunk(3)
    weight = (50 * (agent.value.distance(here, goal) - agent.value.distance(after, goal))).exp()
    assert 0 < float((weight > 100).double().mean()) < 1
    agreement(agent, batch, actor_loss="awr", alpha=50.0)


# --------------------------------------------------------------------------------------- traps


def with_distances(far, near, **keywords):
    """An agent to which goals are ``far`` from states, and the next states ``near``."""
    agent, batch = made(actor_loss="awr", **keywords)
    shift = torch.zeros(32, dtype=torch.float64, requires_grad=True)
    lengths = iter([far + shift, near + shift])
    agent.value.distance = lambda *_: next(lengths)
    loss, metrics = agent._value_loss(*agent._latents(batch))
    (slope,) = torch.autograd.grad(loss, shift, retain_graph=True)
    (push,) = torch.autograd.grad(loss, agent.multiplier.log_lambda)
    return metrics, float(slope.sum()), float(push)


@pytest.mark.parametrize("far", [0.0, 40.0, 500.0, 2000.0])
def test_the_softplus_has_its_offset_and_its_scale(far):
    """100 softplus(5 - d / 100): without the 100s distances stop growing at about 5."""
    metrics, slope, _ = with_distances(far, 1.0)
    assert float(metrics["value_loss"]) == pytest.approx(100 * math.log1p(math.exp(5 - far / 100)))
    assert slope == pytest.approx(-1 / (1 + math.exp(far / 100 - 5)))


@pytest.mark.parametrize(("near", "excess"), [(0.0, 0.0), (0.9, 0.0), (1.0, 0.0), (3.0, 4.0)])
def test_steps_may_have_length_one(near, excess):
    metrics, slope, _ = with_distances(1e5, near)
    assert float(metrics["constraint"]) == excess
    assert float(metrics["lambda"]) != 1.0
    assert slope == pytest.approx(float(metrics["lambda"]) * 2 * max(near - 1, 0))


@pytest.mark.parametrize(("near", "eps", "sign"), [(3.0, 0.05, -1), (1.0, 0.05, 1), (3.0, 5.0, 1)])
def test_lambda_grows_while_steps_are_too_long(near, eps, sign):
    metrics, _, push = with_distances(10.0, near, eps=eps)
    assert push == pytest.approx(float(metrics["lambda"]) * (eps - (near - 1) ** 2))
    assert math.copysign(1, push) == sign  # the optimiser steps against it


def test_lambda_starts_at_one_and_is_stepped_like_everything_else():
    agent = QRL(None, states(), seed=0, **SMALL)
    assert agent.multiplier().item() == 1.0
    assert list(agent.optimizers) == ["agent"]
    agent.update(agent.draw_batch())
    assert abs(agent.multiplier.log_lambda.item()) == pytest.approx(3e-4, rel=1e-3)


def weights_after_an_update(**keywords):
    agent, batch = made(**keywords)
    agent.update(batch)
    return {n: p.detach() for n, p in agent.policy.networks.named_parameters()}


def differ(first, second, prefix):
    return any(not first[n].equal(second[n]) for n in first if n.startswith(prefix))


def test_the_multipliers_loss_does_not_train_the_distance():
    first, second = weights_after_an_update(eps=0.0), weights_after_an_update(eps=30.0)
    assert differ(first, second, "lambda.")
    assert not any(differ(first, second, f"{name}.") for name in ("value", "dynamics", "actor"))


def test_the_actors_loss_reaches_the_actor_alone():
    """A gradient from it would make distances to goals short, and the dynamics optimistic."""
    agent, batch = made()
    other = clone(batch)
    other.actor_goals = other.actor_goals.flip(0)
    second, _ = made()
    agent.update(batch)
    second.update(other)
    for name in ("value", "lambda", "dynamics"):
        for one, two in zip(agent.policy.networks[name].parameters(),
                            second.policy.networks[name].parameters()):  # fmt: skip
            assert one.equal(two), name
            assert one.grad.equal(two.grad), name
    assert not agent.actor.mean[0].weight.equal(second.actor.mean[0].weight)


def test_the_policy_climbs_through_the_dynamics():
    agent, batch = made(alpha=0.0)
    agent.update(batch)
    assert all(float(p.grad.abs().max()) > 0 for p in agent.actor.mean.parameters())


def test_the_dynamics_train_the_latent():
    first, second = weights_after_an_update(), weights_after_an_update(actor_loss="awr")
    assert differ({n: w for n, w in first.items() if n in second}, second, "value.")
    assert not any(name.startswith("dynamics.") for name in second)


def test_both_directions_count_in_the_dynamics_loss():
    agent, batch = made()
    here, after, _ = agent._latents(batch)
    agent.value.distance = lambda x, y: (2.0 if x is after else 4.0) * (x - y).square().sum(-1)
    expected = 3.0 * (after - agent.dynamics(here, batch.actions)).square().sum(-1).mean()
    torch.testing.assert_close(agent._dynamics_loss(here, after, batch)[0], expected)


def test_rewards_and_terminations_are_not_read():
    agent, batch = made()
    second, other = made()
    other.rewards, other.terminated = other.rewards + 7, 1 - other.terminated
    agent.update(batch)
    second.update(other)
    for one, two in zip(agent.policy.parameters(), second.policy.parameters()):
        assert one.equal(two)


def test_goals_of_the_published_law():
    assert QRL.sampler == GoalSampler(
        value=(0.0, 0.0, 1.0), actor="auto", actor_future="uniform", support="ogbench",
        reward="index",
    )  # fmt: skip


def test_defaults_are_the_published_ones():
    agent = QRL(*goal_data(), seed=0, device="cpu")
    assert (agent.hidden_sizes, agent.batch_size) == ((512, 512, 512), 1024)
    assert (agent.alpha, agent.eps, agent.quasimetric) == (0.003, 0.05, "iqe")
    assert agent.optimizers["agent"].param_groups[0]["lr"] == 3e-4
    assert agent.value.mixture.item() == 0.0
    shapes = {
        "phi": [tuple(x.weight.shape) for x in agent.value.phi if hasattr(x, "weight")],
        "change": [tuple(x.weight.shape) for x in agent.dynamics.change if hasattr(x, "weight")],
    }
    square, norms = (512, 512), (512,)
    rest = [norms, square, norms, square, norms, square]
    assert shapes == {"phi": [(512, 2), *rest], "change": [(512, 514), *rest]}
    for body in (agent.value.phi, agent.dynamics.change):  # Xavier, the last layers too
        bound = math.sqrt(6 / 1024)
        assert 0.95 * bound < float(body[-1].weight.detach().abs().max()) < 1.001 * bound
    assert not any(isinstance(layer, torch.nn.LayerNorm) for layer in agent.actor.mean)
    assert agent.value.distance(torch.zeros(1, 512), torch.ones(1, 512)).item() == 1.0
    assert agent.value.dim_per_component == 8


def test_acting():
    agent, _ = made("maze")
    one = {"observation": np.zeros(2, np.float32), "desired_goal": np.ones(2, np.float32)}
    mean = agent.predict(one, deterministic=True)[0]
    assert np.array_equal(mean, agent.predict(one, deterministic=True)[0])
    assert not np.array_equal(agent.predict(one)[0], agent.predict(one)[0])


def others(shift=1.0):
    """Goals that are as wide as the observations and something else."""
    data = states()
    return OfflineDataset.from_arrays(
        data.observations[:50], data.actions[:50], truncated=np.arange(50) == 49,
        achieved_goals=data.observations[:50] + np.float32(shift),
        desired_goals=data.observations[:50],
        action_space=data.action_space,
    )  # fmt: skip


def test_goals_that_are_not_observations_are_refused():
    with pytest.raises(UserError, match="as wide, but differ from the observations"):
        QRL(None, others(), **SMALL)
    agent = QRL(None, others(shift=0.0), **SMALL).learn(1)
    with pytest.raises(UserError, match="as wide, but differ"):
        agent.set_dataset(others())
    assert agent.dataset is not None
    assert agent.dataset.achieved_goals is not None
    with pytest.raises(UserError, match="goals must be observations; here they have shape"):
        QRL(gym.make("gcrl/CarRacing-v0"), **SMALL)
    with pytest.raises(UserError, match=r"shape \(2,\)"):
        QRL(None, picture_data(vector_goals=True), **SMALL)
    with pytest.raises(UserError, match="this task has none"):
        QRL(None, plain_dataset(), **SMALL)


@pytest.mark.parametrize(
    ("data", "keywords", "words"),
    [
        ("states", {"actor_loss": "ddpg"}, r"actor_loss is 'ddpg'.*ddpgbc"),
        ("states", {"quasimetric": "icq"}, r"quasimetric is 'icq'.*iqe"),
        ("states", {"alpha": -1.0}, "alpha is -1.0; .* >= 0"),
        ("states", {"eps": -0.1}, "eps is -0.1; .* >= 0"),
        ("states", {"latent_dim": 0}, "latent_dim is 0; .* at least 1"),
        ("states", {"dim_per_component": 1.5}, "dim_per_component is 1.5; .* whole number"),
        ("states", {"latent_dim": 20}, "latent_dim is 20, dim_per_component 8; .* multiple"),
        ("states", {"p_aug": 2.0}, r"p_aug is 2.0.*\[0, 1\]"),
        ("states", {"encoder": "impala"}, 'not pictures .* use "auto"'),
        ("states", {"w2_weights": (1.0,)}, "QRL has no argument 'w2_weights'"),
        ("discrete", {"actor_loss": "ddpgbc"}, 'needs continuous actions; use "awr"'),
    ],
)
def test_wrong_options_are_named(data, keywords, words):
    with pytest.raises(UserError, match=words):
        QRL(*DATA[data](), **(SMALL | keywords))
