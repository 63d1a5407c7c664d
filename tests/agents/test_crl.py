"""CRL's update against the published formulas, and a test per known trap."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy.stats import norm

from gcrl_gym.agents import CRL
from gcrl_gym.agents.crl import contrastive_loss
from gcrl_gym.agents.goals import critic_actions
from gcrl_gym.datasets import GoalSampler, OfflineDataset
from gcrl_gym.errors import UserError
from tests.agents.reference import (
    SMALL,
    Reference,
    clone,
    cropped,
    draw,
    gaussian_w2,
    goal_data,
    impala,
    picture_data,
    plain_dataset,
    sequential,
    stacked,
    stir,
)

ONE = (8, 8, 3)
PICTURES = {"pictures": (ONE, ONE), "places": (ONE,), "discrete pictures": (ONE, ONE)}


def grid():
    """A random walk with four actions; its goals are its observations."""
    rng = np.random.default_rng(0)
    return OfflineDataset.from_arrays(
        np.cumsum(rng.normal(size=(200, 3)), 0).astype(np.float32),
        rng.integers(0, 4, size=200),
        truncated=np.arange(200) % 50 == 49,
        goal_is_observation=True,
        action_space=spaces.Discrete(4),
    )


DATA = {
    "maze": goal_data,
    "discrete": lambda: (None, grid()),
    "pictures": lambda: (None, picture_data()),
    "places": lambda: (None, picture_data(vector_goals=True)),
    "discrete pictures": lambda: (None, picture_data(discrete=True)),
}


def made(data="maze", size=0.2, **keywords):
    """An agent whose weights are all apart, and a batch, both float64.

    Logits of the data are 0 on average, so that either critic may be the smaller one.
    """
    agent = CRL(*DATA[data](), seed=0, **(SMALL | {"latent_dim": 9} | keywords))
    batch = draw(agent, scale=1.5)
    stir(agent, size)
    actions = critic_actions(batch.actions, agent, batch.observations)
    with torch.no_grad():
        for name, taken in (("critic", (actions,)), ("value", ())):
            if name in agent.policy.networks:
                network = agent.policy.networks[name]
                phi = network.states(batch.observations, *taken).mean(1)  # [members, L]
                q = network(batch.observations, batch.actor_goals, *taken).mean(1, keepdim=True)
                shift = -3.0 * q * phi / phi.square().sum(1, keepdim=True)  # 3 is sqrt(L)
                network.psi.biases[-1].add_(shift[:, None])
    return agent, batch


def representations(ref, network, batch, goals, actions, pictures):
    """phi and psi of all members, [members, B, L]."""
    states = batch.observations
    if pictures:
        states = impala(ref, f"{network}.state_encoder", states, pictures[:1])
    if len(pictures) == 2:
        goals = impala(ref, f"{network}.goal_encoder", goals, pictures[1:])
    phi = stacked(ref, f"{network}.phi", torch.cat([states, actions], -1))
    return phi, stacked(ref, f"{network}.psi", goals)


def binary_cross_entropy(phi, psi):
    """Mean over members and all pairs, one pair at a time."""
    members, size, width = phi.shape
    total = 0.0
    for member in range(members):
        for i in range(size):
            logits = (phi[member, i] * psi[member]).sum(-1) / math.sqrt(width)
            for k in range(size):
                # -log of the probability 1 / (1 + exp(-x)) that they belong together, or not
                total = total + torch.log1p(torch.exp(-logits[k] if i == k else logits[k]))
    return total / (members * size**2)


def least(phi, psi):
    return ((phi * psi).sum(-1) / math.sqrt(phi.shape[-1])).min(0).values


def reference_update(ref, batch, actor_loss="ddpgbc", alpha=0.1, w2_weights=(), pictures=()):
    """Write the update a second time; returns the losses."""
    discrete = not batch.actions.is_floating_point()
    actions = torch.eye(4).double()[batch.actions] if discrete else batch.actions
    none = actions[:, :0]

    def policy(i):
        head = f"actor_{i}.logits" if discrete else f"actor_{i}.mean"
        inputs = torch.cat([batch.observations, batch.actor_goals], -1)
        inputs = impala(ref, f"{head}.0", inputs, pictures) if pictures else inputs
        return sequential(ref, f"{head}.1" if pictures else head, inputs)

    def q(taken):
        return least(*representations(ref, "critic", batch, batch.actor_goals, taken, pictures))

    losses = {
        "critic_loss": binary_cross_entropy(
            *representations(ref, "critic", batch, batch.goals, actions, pictures)
        )
    }
    output, scale_loss = policy(0), 0.0
    if discrete:
        log_prob = torch.log_softmax(output, -1)[torch.arange(len(output)), batch.actions]
    else:
        log_prob = torch.distributions.Normal(output, 1.0).log_prob(actions).sum(-1)
        fitted = torch.distributions.Normal(output.detach(), ref["actor_0.log_std"].exp())
        scale_loss = -fitted.log_prob(actions).sum(-1).mean()
    if actor_loss == "ddpgbc":
        climbed = q(output.clip(-1, 1))
        actor = -climbed.mean() / (climbed.abs().mean().detach() + 1e-6) - alpha * log_prob.mean()
    else:
        losses["value_loss"] = binary_cross_entropy(
            *representations(ref, "value", batch, batch.goals, none, pictures)
        )
        value = least(*representations(ref, "value", batch, batch.actor_goals, none, pictures))
        weight = (alpha * (q(actions) - value).detach()).exp().clip(max=100)
        actor = -(weight * log_prob).mean()

    for name, loss in losses.items():
        ref.step(name.removesuffix("_loss"), loss)
    ref.step("actor_0", actor + scale_loss)

    for i, weight in enumerate(w2_weights, 1):
        mean, before = policy(i), policy(i - 1).detach()
        spreads = ref[f"actor_{i}.log_std"].exp(), ref[f"actor_{i - 1}.log_std"].exp().detach()
        distance = gaussian_w2(mean, spreads[0], before, spreads[1])
        ref.step(f"actor_{i}", -q(mean.clip(-1, 1)).mean() + weight * distance)
    return losses | {"actor_0/actor_loss": actor}


def agreement(agent, batch, data="maze", before=None, **options):
    """Compare losses, weights and gradients of one update."""
    ref = Reference(agent)
    pictures = PICTURES.get(data, ())
    losses = reference_update(ref, before or clone(batch), pictures=pictures, **options)
    metrics = agent.update(batch)
    assert set(ref.grads) == set(ref.state)
    ref.agree(agent)
    for name, loss in losses.items():
        torch.testing.assert_close(metrics[name], loss.detach(), rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("actor_loss", ["ddpgbc", "awr"])
@pytest.mark.parametrize("options", [{}, {"alpha": 2.0}, {"layer_norm": False}], ids=str)
def test_update_equals_the_formulas(actor_loss, options):
    agent, batch = made(actor_loss=actor_loss, **options)
    assert not torch.equal(batch.goals, batch.actor_goals)
    options.pop("layer_norm", None)  # the reference reads it off the weights
    agreement(agent, batch, actor_loss=actor_loss, **options)


@pytest.mark.parametrize("actor_loss", ["ddpgbc", "awr"])
def test_a_chain_descends_the_least_logit(actor_loss):
    agent, batch = made(actor_loss=actor_loss, w2_weights=(0.3, 0.7))
    agreement(agent, batch, actor_loss=actor_loss, w2_weights=(0.3, 0.7))


@pytest.mark.parametrize("data", ["pictures", "places"])
def test_update_equals_the_formulas_on_pictures(data):
    agent, batch = made(data, size=0.03)
    agreement(agent, batch, data)


@pytest.mark.parametrize("data", ["discrete", "discrete pictures"])
def test_discrete_actions_are_advantage_weighted(data):
    agent, batch = made(data, size=0.03 if "pictures" in data else 0.2, alpha=3.0)
    assert agent.kind_of_loss == "awr"
    agreement(agent, batch, data, actor_loss="awr", alpha=3.0)


def test_a_chain_on_pictures_and_no_encoder():
    agent, batch = made("pictures", size=0.03, w2_weights=(0.3,))
    agreement(agent, batch, "pictures", w2_weights=(0.3,))
    agreement(*made("pictures", size=0.03, encoder="none"))


def test_pictures_are_cropped_before_the_update():
    agent, batch = made("pictures", size=0.03, p_aug=1.0)
    moved = clone(batch)
    shifts = np.floor(7 * norm.cdf(batch.noise["crop"].numpy())).astype(int)
    for name in ("observations", "next_observations", "goals", "actor_goals"):
        setattr(moved, name, cropped(getattr(batch, name), shifts))
    agreement(agent, batch, "pictures", before=moved)


def test_weights_are_cut_off_at_100():
    agent, batch = made(actor_loss="awr", alpha=30.0, size=0.5)
    value = agent.value(batch.observations, batch.actor_goals)[0]
    advantage = agent.critic(batch.observations, batch.actor_goals, batch.actions).amin(0) - value
    assert 0 < float(((30 * advantage).exp() > 100).double().mean()) < 1
    agreement(agent, batch, actor_loss="awr", alpha=30.0)


# --------------------------------------------------------------------------------------- traps


def test_the_loss_by_hand():
    logits = torch.tensor([[[2.0, -1.0], [0.5, 3.0]]])
    loss, metrics = contrastive_loss(logits, "critic")
    terms = [math.log1p(math.exp(x)) for x in (-2.0, -1.0, 0.5, -3.0)]
    assert float(loss) == pytest.approx(sum(terms) / 4)
    assert float(metrics["critic_accuracy"]) == 1.0
    assert float(metrics["critic_logit"]) == pytest.approx(4.5 / 4)
    assert float(metrics["critic_logit_positive"]) == pytest.approx(2.5)
    swapped, metrics = contrastive_loss(logits.flip(2), "critic")
    assert float(swapped) > 1
    assert float(metrics["critic_accuracy"]) == 0.0


def test_the_classifier_is_binary():
    """InfoNCE's softmax over the goals of a batch does not feel a shift of all logits."""
    torch.manual_seed(0)
    logits = torch.randn(2, 16, 16).double()
    losses = [float(contrastive_loss(logits + shift, "critic")[0]) for shift in (-3.0, 0.0, 3.0)]
    assert losses[0] < losses[1] < losses[2]  # most pairs are negative


@pytest.mark.parametrize("size", [2, 64])
def test_all_pairs_count_alike(size):
    """No weight makes up for there being one positive in a row."""
    logits = torch.zeros(2, size, size, dtype=torch.float64, requires_grad=True)
    loss, _ = contrastive_loss(logits, "critic")
    assert loss.item() == pytest.approx(math.log(2))
    (slope,) = torch.autograd.grad(loss, logits)
    share = 0.5 / (2 * size**2)
    positive = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(slope, (share * (1 - 2 * positive)).expand(2, size, size))


def test_large_logits_are_finite():
    logits = torch.tensor([[[100.0, -100.0], [-100.0, 100.0]]], requires_grad=True)
    for sign, expected in ((1, 0.0), (-1, 100.0)):
        loss, _ = contrastive_loss(sign * logits, "critic")
        assert loss.item() == pytest.approx(expected)
        assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_rows_are_states_and_columns_goals():
    agent, batch = made()
    pairs = agent.critic.pairs(batch.observations, batch.goals, batch.actions)
    q = agent.critic(batch.observations[[3]], batch.goals[[17]], batch.actions[[3]])
    torch.testing.assert_close(pairs[:, 3, 17], q[:, 0])


def test_the_logit_is_never_exponentiated():
    """Exponentials would be positive, and nearly all alike where logits are low."""
    agent, batch = made(alpha=0.0, w2_weights=(0.5,))
    phi, psi = agent.critic.states, agent.critic.goals
    one = torch.ones(2, 32, 1, dtype=torch.float64)
    agent.critic.states = lambda *x: torch.cat([phi(*x), -50 * one], -1)
    agent.critic.goals = lambda *x: torch.cat([psi(*x), one], -1)
    metrics = agent.update(batch)
    assert float(metrics["actor_0/q_policy"]) == pytest.approx(-50, abs=10)
    assert float(metrics["actor_1/energy"]) == pytest.approx(50, abs=10)
    assert float(metrics["actor_0/actor_loss"]) == pytest.approx(1.0)  # -q / |q|
    assert all(float(p.grad.abs().max()) > 1e-6 for p in agent.actor.mean.parameters())


def test_the_actor_climbs_the_smaller_of_two_logits():
    agent, batch = made()
    both = agent.critic(batch.observations, batch.actor_goals, batch.actions)
    assert 0 < float((both[0] < both[1]).double().mean()) < 1
    torch.testing.assert_close(agent._q(batch.actions, batch), both.amin(0))


def test_the_actors_loss_reaches_the_actor_alone():
    agent, batch = made(actor_loss="awr")
    second, other = made(actor_loss="awr")
    other.actor_goals = other.actor_goals.flip(0)
    agent.update(batch)
    second.update(other)
    for name in ("critic", "value"):
        for one, two in zip(agent.policy.networks[name].parameters(),
                            second.policy.networks[name].parameters()):  # fmt: skip
            assert one.equal(two), name
            assert one.grad.equal(two.grad), name
    assert not agent.actor.mean[0].weight.equal(second.actor.mean[0].weight)


def test_no_targets_and_no_value_function_without_need():
    agent, batch = made(w2_weights=(0.5,))
    assert set(agent.policy.networks) == {"critic", "actor_0", "actor_1"}
    assert set(made(actor_loss="awr")[0].policy.networks) == {"critic", "value", "actor_0"}
    assert list(made()[0].optimizers) == ["agent"]
    second, other = made(w2_weights=(0.5,))
    other.rewards, other.terminated = other.rewards + 7, 1 - other.terminated
    other.next_observations = other.next_observations + 1
    agent.update(batch)
    second.update(other)
    for one, two in zip(agent.policy.parameters(), second.policy.parameters()):
        assert one.equal(two)


def test_goals_of_the_published_law():
    assert CRL.sampler == GoalSampler(
        value=(0.0, 1.0, 0.0), future="geometric", actor="auto", actor_future="uniform",
        support="ogbench", reward="index",
    )  # fmt: skip


def test_the_discount_is_that_of_the_goals():
    spread = {}
    for discount in (0.5, 0.99):
        agent = CRL(*goal_data(), discount=discount, seed=0, **(SMALL | {"batch_size": 4000}))
        batch = agent.draw_batch()
        spread[discount] = float((batch.goals - batch.observations).norm(dim=1).mean())
    assert spread[0.99] > 2 * spread[0.5]


def test_defaults_are_the_published_ones():
    agent = CRL(*goal_data(), seed=0, device="cpu", actor_loss="awr")
    assert (agent.hidden_sizes, agent.batch_size) == ((512, 512, 512), 1024)
    assert (agent.alpha, agent.discount, agent.latent_dim) == (0.1, 0.99, 512)
    assert CRL(*goal_data(), **SMALL).kind_of_loss == "ddpgbc"
    assert agent.optimizers["agent"].param_groups[0]["lr"] == 3e-4
    square = (512, 512)
    for network, members, width in ((agent.critic, 2, 4), (agent.value, 1, 2)):
        for stack, inputs in ((network.phi, width), (network.psi, 2)):
            shapes = [tuple(weight.shape) for weight in stack.weights]
            assert shapes == [(members, inputs, 512), *[(members, *square)] * 3]
            assert len(stack.norm_scales) == 3
            for weight in stack.weights:  # Xavier, the last layers too
                bound = math.sqrt(6 / sum(weight.shape[1:]))
                assert 0.95 * bound < float(weight.detach().abs().max()) < 1.001 * bound
    one = torch.ones(2, 5, 512)
    agent.critic.phi.forward = agent.critic.psi.forward = lambda _inputs: one
    q = agent.critic(torch.zeros(5, 2), torch.zeros(5, 2), torch.zeros(5, 2))
    torch.testing.assert_close(q, torch.full((2, 5), math.sqrt(512)))


def test_acting():
    agent, _ = made(w2_weights=(0.5,))
    one = {"observation": np.zeros(2, np.float32), "desired_goal": np.ones(2, np.float32)}
    for actor in (0, 1):
        mean = agent.predict(one, deterministic=True, actor=actor)[0]
        assert np.array_equal(mean, agent.predict(one, deterministic=True, actor=actor)[0])
        assert not np.array_equal(agent.predict(one)[0], agent.predict(one)[0])
    discrete = CRL(None, grid(), seed=0, **SMALL)
    zeros = np.zeros((200, 3), np.float32)
    many = {"observation": zeros, "desired_goal": zeros}
    assert len(set(discrete.predict(many)[0].tolist())) == 4
    assert len(set(discrete.predict(many, deterministic=True)[0].tolist())) == 1


def test_goals_may_be_anything():
    """Unlike QRL, which measures distances between states."""
    CRL(gym.make("gcrl/CarRacing-v0"), **SMALL)
    with pytest.raises(UserError, match="this task has none"):
        CRL(None, plain_dataset(), **SMALL)


@pytest.mark.parametrize(
    ("data", "keywords", "words"),
    [
        ("maze", {"actor_loss": "ddpg"}, r"actor_loss is 'ddpg'.*ddpgbc"),
        ("maze", {"alpha": -1.0}, "alpha is -1.0; .* >= 0"),
        ("maze", {"latent_dim": 0}, "latent_dim is 0; .* at least 1"),
        ("maze", {"discount": 1.0}, r"discount in \(0, 1\)"),
        ("maze", {"p_aug": 2.0}, r"p_aug is 2.0.*\[0, 1\]"),
        ("maze", {"encoder": "impala"}, 'not pictures .* use "auto"'),
        ("maze", {"tau": 0.005}, "CRL has no argument 'tau'"),
        ("maze", {"w2_weights": (-1.0,)}, r"w2_weights\[0\] is -1.0"),
        ("discrete", {"actor_loss": "ddpgbc"}, 'needs continuous actions; use "awr"'),
        ("discrete", {"w2_weights": (1.0,)}, r"chain \(w2_weights\) needs continuous"),
        (
            "pictures",
            {"w2_weights": (1.0,), "chain_policy": "gaussian"},
            'on pictures chain_policy must be "same"',
        ),
    ],
)
def test_wrong_options_are_named(data, keywords, words):
    with pytest.raises(UserError, match=words):
        CRL(*DATA[data](), **(SMALL | keywords))
