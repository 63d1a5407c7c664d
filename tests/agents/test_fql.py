"""FQL's update against the published formulas, and a test per known trap."""

import math

import numpy as np
import pytest
import torch

from gcrl_gym.agents import FQL
from gcrl_gym.errors import UserError
from tests.agents.reference import (
    SMALL,
    Reference,
    clone,
    draw,
    each,
    goal_data,
    plain_dataset,
    sinkhorn_w2,
)


def gelu(x):
    return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def raw(ref, i, inputs, z):
    """Output of actor i, not cut off."""
    return ref.mlp(f"actor_{i}.body", torch.cat([inputs, z], -1), gelu)


def velocity(ref, inputs, x, t):
    return ref.mlp("velocity.body", torch.cat([inputs, x, t], -1), gelu)


def reference_update(
    ref, batch, weights=(), alpha=10.0, flow_steps=10, q_aggregation="mean", normalize_q=False,
    discount=0.99, tau=0.005, learning_rate=3e-4, normalize_energy=False,
):  # fmt: skip
    """The joint step of the authors' code, then the chain; returns the losses."""
    noise = batch.noise
    here = torch.cat([batch.observations, batch.goals], -1)
    there = torch.cat([batch.next_observations, batch.goals], -1)
    asked = torch.cat([batch.observations, batch.actor_goals], -1)
    a = batch.actions.clip(-1 + 1e-5, 1 - 1e-5)

    next_a = raw(ref, 0, there, noise["next"]).clip(-1, 1)
    next_q = ref.q("critic_target", there, next_a, gelu)
    next_q = torch.minimum(*next_q) if q_aggregation == "min" else (next_q[0] + next_q[1]) / 2
    y = (batch.rewards + discount * (1 - batch.terminated) * next_q).detach()
    critic_loss = ((ref.q("critic", here, a, gelu) - y) ** 2).mean()

    x_0, z = noise["flow"], noise["latent"]
    t = (1 + torch.erf(noise["time"] / math.sqrt(2))) / 2
    v = velocity(ref, asked, (1 - t) * x_0 + t * a, t)
    flow_loss = ((v - (a - x_0)) ** 2).mean()

    teacher = z
    for i in range(flow_steps):
        t = torch.full_like(t, i / flow_steps)
        teacher = teacher + velocity(ref, asked, teacher, t) / flow_steps
    student = raw(ref, 0, asked, z)
    distillation = ((student - teacher.clip(-1, 1).detach()) ** 2).mean()
    q = ref.q("critic", asked, student.clip(-1, 1), gelu).mean(0)
    scale = 1 / q.abs().mean().detach() if normalize_q else 1.0
    actor_loss = flow_loss + alpha * distillation - scale * q.mean()

    # Every loss is built: from here on weights may change. The critic has no gradient from Q.
    ref.soft_update("critic_target", "critic", tau)
    ref.step("critic", critic_loss, lr=learning_rate)
    ref.step(["velocity", "actor_0"], actor_loss, lr=learning_rate)

    act = lambda j, z: raw(ref, j, asked, z).clip(-1, 1)  # noqa: E731
    for i, w in enumerate(weights, 1):
        q = ref.q("critic", asked, act(i, noise[f"actor_{i}"]), gelu).mean(0)
        scale = 1 / q.abs().mean().detach() if normalize_energy else 1.0
        own = each(noise[f"samples_{i}"], lambda z, j=i: act(j, z))
        before = each(noise[f"reference_{i}"], lambda z, j=i - 1: act(j, z))
        cost = -scale * q.mean() + w * sinkhorn_w2(own, before)
        ref.step(f"actor_{i}", cost, lr=learning_rate)
    return {
        "critic_loss": critic_loss,
        "flow_loss": flow_loss,
        "actor_0/distillation": distillation,
        "actor_0/loss": actor_loss - flow_loss,
    }


def check(agent, weights=(), **options):
    batch = draw(agent, scale=1.3)
    with torch.no_grad():  # or the target would be the critic, and its average too
        for parameter in agent.critic_target.parameters():
            parameter.mul_(0.7)
    ref = Reference(agent)
    losses = reference_update(ref, clone(batch), weights, **options)
    metrics = agent.update(batch)
    ref.agree(agent)
    for name, loss in losses.items():
        torch.testing.assert_close(metrics[name], loss.detach(), msg=name)
    return batch


@pytest.mark.parametrize("weights", [(), (0.3, 0.7)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.3, "normalize_q": True},
        {"alpha": 0.0},
        {"q_aggregation": "min", "discount": 0.995},
        {"flow_steps": 3, "tau": 0.1, "learning_rate": 1e-3},
        {"normalize_energy": True},
    ],
    ids=str,
)
def test_update_equals_the_formulas(weights, options):
    agent = FQL(None, plain_dataset(), w2_weights=weights, seed=0, **SMALL, **options)
    check(agent, weights, **options)


def test_update_equals_the_formulas_with_goals():
    agent = FQL(*goal_data(), w2_weights=(0.3,), seed=1, normalize=True, **SMALL)
    batch = check(agent, (0.3,))
    assert not torch.equal(batch.goals, batch.actor_goals)


@pytest.fixture
def saturated():
    """An agent whose teacher, student, next actions and data all leave, or touch, [-1, 1]."""
    agent = FQL(None, plain_dataset(), seed=0, **SMALL)
    batch = draw(agent)
    batch.actions[:8] = batch.actions[:8].sign()
    with torch.no_grad():
        for policy in (agent.one_step, agent.velocity):
            policy.body[-1].weight *= 4
    return agent, batch


def test_cut_offs_are_where_they_are_published(saturated):
    """The clipped teacher, the raw student in the distillation, clipped actions in both Q."""
    agent, batch = saturated
    ref = Reference(agent)
    reference_update(ref, clone(batch))
    student = agent.one_step(batch.observations, batch.noise["latent"])
    inside = (student.abs() < 1).double().mean()
    assert 0.1 < inside < 0.9
    agent.update(batch)
    ref.agree(agent)


def test_data_actions_stay_inside_the_box(saturated):
    """Clipping to +-(1 - 1e-5) is visible: without it the critic's gradient is another."""
    agent, batch = saturated
    seen = []
    agent.critic.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    agent.update(batch)
    assert float(seen[0].max()) == 1 - 1e-5
    assert float(seen[0].min()) == -1 + 1e-5


def test_times_are_uniform():
    agent = FQL(None, plain_dataset(), seed=0, **(SMALL | {"batch_size": 4096}))
    times = []
    agent.velocity.register_forward_pre_hook(lambda _, inputs: times.append(inputs[2]))
    agent.update(agent.draw_batch())
    found = times[0].flatten().sort().values
    assert found.shape == (4096,)
    expected = (torch.arange(4096) + 0.5) / 4096
    assert float((found - expected).abs().max()) < 0.03  # Kolmogorov's distance, p > 0.001


def test_the_target_follows_the_critic_before_its_step():
    agent = FQL(None, plain_dataset(), seed=0, tau=1.0, **SMALL)
    before = [p.clone() for p in agent.critic.parameters()]
    agent.update(agent.draw_batch())
    for target, online, old in zip(
        agent.critic_target.parameters(), agent.critic.parameters(), before
    ):
        assert torch.equal(target, old)
        assert not torch.equal(online, old)


def test_the_critic_does_not_learn_from_the_policy():
    """A policy loss that reaches the critic would teach it to call its own actions good."""
    steps = []
    for alpha in (0.0, 1e6):
        agent = FQL(None, plain_dataset(), seed=0, alpha=alpha, **SMALL)
        agent.update(agent.draw_batch())
        steps.append([p.grad.clone() for p in agent.critic.parameters()])
        assert [p.grad for p in agent.critic_target.parameters()] == [None] * 10
    assert all(a.equal(b) for a, b in zip(*steps))


def test_the_teacher_does_not_learn_from_the_student():
    steps = []
    for alpha in (0.0, 1e6):
        agent = FQL(None, plain_dataset(), seed=0, alpha=alpha, **SMALL)
        agent.update(agent.draw_batch())
        steps.append([p.grad.clone() for p in agent.velocity.parameters()])
    assert all(a.equal(b) for a, b in zip(*steps))


@pytest.mark.parametrize("chain_policy", ["same", "deterministic", "transport_map", "gaussian"])
def test_every_parameter_moves(chain_policy):
    agent = FQL(
        None, plain_dataset(), w2_weights=(1.0, 1.0), chain_policy=chain_policy, seed=0, **SMALL
    )
    before = {n: p.clone() for n, p in agent.policy.networks.named_parameters()}
    for _ in range(2):  # the target moves in the second update
        agent.update(agent.draw_batch())
        if chain_policy == "same":
            found = dict(agent.policy.networks.named_parameters())
            still = [name for name, old in before.items() if found[name].equal(old)]
            assert not [name for name in still if not name.startswith("critic_target")]
    found = dict(agent.policy.networks.named_parameters())
    assert not [name for name, old in before.items() if found[name].equal(old)]


def test_chained_actors_start_as_copies_and_sample():
    agent = FQL(None, plain_dataset(), w2_weights=(1.0,), seed=0, **SMALL)
    for first, second in zip(*(actor.parameters() for actor in agent.chain.actors)):
        assert torch.equal(first, second)
    one = np.zeros(3, np.float32)
    for actor in (0, 1):
        assert not np.array_equal(*(agent.predict(one, actor=actor)[0] for _ in range(2)))
        calm = [agent.predict(one, deterministic=True, actor=actor)[0] for _ in range(2)]
        assert np.array_equal(*calm)


def test_deterministic_actions_have_no_noise():
    agent = FQL(None, plain_dataset(), seed=0, **SMALL)
    expected = agent.one_step(torch.zeros(1, 3), torch.zeros(1, 2)).clamp(-1, 1)
    found = agent.predict(np.zeros(3, np.float32), deterministic=True)[0]
    np.testing.assert_allclose(found, expected.detach().numpy()[0], rtol=1e-6)


def test_a_longer_chain_changes_nothing_before_it():
    agents = [FQL(None, plain_dataset(), w2_weights=w, seed=0, **SMALL) for w in ((), (1.0,))]
    for agent in agents:
        agent.learn(3)
    state = agents[1].policy.networks.state_dict()
    for name, value in agents[0].policy.networks.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize(("alpha", "share"), [(100.0, (0.3, 0.7)), (0.1, (0.95, 1.0))])
def test_alpha_weighs_imitation_against_value(alpha, share):
    """A bandit with two clusters of actions, of which the right one is rewarded.

    The flow has both. Close to it the policy samples both, and far from it the better one.
    """
    data = plain_dataset(action_dim=1)
    data.observations[:] = 0
    data.actions[:] = np.where(data.actions > 0, 0.6, -0.6)
    data.rewards[:] = data.actions[:, 0] > 0
    agent = FQL(
        None, data, seed=0, alpha=alpha, discount=0.0, hidden_sizes=(32, 32), batch_size=128,
        device="cpu", learning_rate=3e-3,
    ).learn(400)  # fmt: skip
    batch = agent.draw_batch()
    inputs, noise = batch.observations, batch.noise["latent"]
    imitated, chosen = agent.velocity.flow(inputs, noise, 10), agent.one_step.sample(inputs, noise)
    near = ((imitated.abs() - 0.6).abs() < 0.2).float().mean()
    right = [float((actions > 0).float().mean()) for actions in (imitated, chosen)]
    assert float(near) > 0.6
    assert 0.3 < right[0] < 0.7
    assert share[0] <= right[1] <= share[1]


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"alpha": -1.0}, "alpha is -1.0; .* >= 0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"flow_steps": 0}, "flow_steps is 0; .* at least 1"),
        ({"q_aggregation": "max"}, "mean"),
        ({"w2_weights": (-1.0,)}, r"w2_weights\[0\] is -1.0"),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        FQL(None, plain_dataset(), **(SMALL | keywords))
