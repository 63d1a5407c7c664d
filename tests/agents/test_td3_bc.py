"""TD3+BC's update against the published formulas, and a test per known trap."""

import numpy as np
import pytest
import torch

from gcrl_gym.agents import TD3BC
from gcrl_gym.agents.losses import smoothed_actions
from gcrl_gym.agents.presets import load_preset, presets_of
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


def pi(ref, name, inputs):
    return torch.tanh(ref.mlp(f"{name}.body", inputs))


def reference_update(
    ref, batch, weights=(), actors=True, alpha=2.5, policy_noise=0.2, noise_clip=0.5,
    discount=0.99, tau=0.005, normalize_energy=False,
):  # fmt: skip
    here = torch.cat([batch.observations, batch.goals], -1)
    there = torch.cat([batch.next_observations, batch.goals], -1)
    asked = torch.cat([batch.observations, batch.actor_goals], -1)

    noise = (policy_noise * batch.noise["target_noise"]).clip(-noise_clip, noise_clip)
    next_actions = (pi(ref, "actor_0_target", there) + noise).clip(-1, 1)
    next_q = torch.minimum(*ref.q("critic_target", there, next_actions))
    target = (batch.rewards + discount * (1 - batch.terminated) * next_q).detach()
    q = ref.q("critic", here, batch.actions)
    ref.step("critic", ((q[0] - target) ** 2).mean() + ((q[1] - target) ** 2).mean())
    if not actors:
        return

    actions = pi(ref, "actor_0", asked)
    q = ref.q("critic", asked, actions)[0]
    imitation = torch.nn.functional.mse_loss(actions, batch.actions)
    ref.step("actor_0", -alpha / q.abs().mean().detach() * q.mean() + imitation)
    ref.soft_update("critic_target", "critic", tau)
    ref.soft_update("actor_0_target", "actor_0", tau)

    for i, weight in enumerate(weights, 1):
        actions = pi(ref, f"actor_{i}", asked)
        before = pi(ref, f"actor_{i - 1}", asked).detach()
        q = ref.q("critic", asked, actions)[0]
        scale = 1 / q.abs().mean().detach() if normalize_energy else 1.0
        distance = ((actions - before) ** 2).sum(-1).mean()
        ref.step(f"actor_{i}", -scale * q.mean() + weight * distance)


def make(data=None, env=None, **keywords):
    """An agent about to take an actor step, and a batch with terminations."""
    agent = TD3BC(env, data or plain_dataset(), **(SMALL | {"seed": 0} | keywords))
    agent._n_updates = agent.policy_freq - 1
    batch = draw(agent, scale=1.5)
    batch.terminated[:4] = 1.0
    with torch.no_grad():  # a target that still equals its network would hide which of them is used
        for parameter in (*agent.actor_target.parameters(), *agent.critic_target.parameters()):
            parameter.mul_(0.8)
    return agent, batch


@pytest.mark.parametrize("weights", [(), (0.3, 0.7)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.4},
        {"policy_noise": 1.0, "noise_clip": 0.1},
        {"discount": 0.9, "tau": 0.2},
        {"normalize_energy": True},
    ],
    ids=str,
)
def test_update_equals_the_formulas(weights, options):
    agent, batch = make(w2_weights=weights, **options)
    ref = Reference(agent)
    reference_update(ref, clone(batch), weights, **options)
    agent.update(batch)
    ref.agree(agent)


def test_update_equals_the_formulas_with_goals():
    env, data = goal_data()
    agent, batch = make(data, env, w2_weights=(0.3,))
    assert not torch.equal(batch.goals, batch.actor_goals)
    ref = Reference(agent)
    reference_update(ref, clone(batch), (0.3,))
    agent.update(batch)
    ref.agree(agent)


def test_a_chain_of_transport_maps_is_compared_by_samples():
    agent, batch = make(w2_weights=(0.3, 0.5), chain_policy="transport_map")
    ref = Reference(agent)
    reference_update(ref, clone(batch))  # critic, actor 0 and targets
    own, s = batch.noise, batch.observations

    def pushed(i):
        return lambda z: torch.tanh(ref.mlp(f"actor_{i}.body", torch.cat([s, z], -1)))

    first = pi(ref, "actor_0", s).detach().unsqueeze(1)  # a point mass: W2 in closed form
    distance = ((each(own["samples_1"], pushed(1)) - first) ** 2).sum(-1).mean()
    cost = -ref.q("critic", s, pushed(1)(own["actor_1"]))[0].mean()
    ref.step("actor_1", cost + 0.3 * distance)

    before = each(own["reference_2"], pushed(1)).detach()
    distance = sinkhorn_w2(each(own["samples_2"], pushed(2)), before)
    cost = -ref.q("critic", s, pushed(2)(own["actor_2"]))[0].mean()
    ref.step("actor_2", cost + 0.5 * distance)
    agent.update(batch)
    ref.agree(agent)


def test_between_actor_steps_only_the_critic_moves():
    """Targets too: moving them on every update is a known mistake."""
    agent, batch = make(w2_weights=(0.3,), policy_freq=3)
    agent._n_updates = 1  # the second update of three
    ref = Reference(agent)
    reference_update(ref, clone(batch), actors=False)
    metrics = agent.update(batch)
    ref.agree(agent)
    assert not any(name.startswith("actor") for name in metrics)


@pytest.mark.parametrize("policy_freq", [1, 2, 3])
def test_actors_step_on_every_so_manieth_update(policy_freq):
    """As CORL counts: with 2, the actor steps on the second, fourth, .. update."""
    agent = TD3BC(
        None, plain_dataset(), policy_freq=policy_freq, w2_weights=(1.0,), seed=0, **SMALL
    )
    networks = agent.policy.networks
    late = ["actor_0", "actor_1", "actor_0_target", "critic_target"]
    moved = []

    def record(*_):
        now = {n: torch.cat([p.flatten() for p in networks[n].parameters()]) for n in networks}
        now = {name: weights.detach().clone() for name, weights in now.items()}
        moved.append({name: not now[name].equal(record.before[name]) for name in now})
        record.before = now
        return True

    record.before = {
        n: torch.cat([p.flatten() for p in networks[n].parameters()]).detach().clone()
        for n in networks
    }
    agent.learn(6, callback=record)
    for update, found in enumerate(moved, 1):
        assert found["critic"]
        assert {found[name] for name in late} == {update % policy_freq == 0}


def test_every_parameter_of_every_actor_moves():
    """In the source's last version actor 0 had no gradient and never learned."""
    agent = TD3BC(None, plain_dataset(), w2_weights=(1.0, 1.0), policy_freq=1, seed=0, **SMALL)
    before = [[p.detach().clone() for p in actor.parameters()] for actor in agent.chain.actors]
    agent.learn(2)
    for actor, old in zip(agent.chain.actors, before):
        for parameter, start in zip(actor.parameters(), old):
            assert not parameter.equal(start)


def test_the_actors_loss_does_not_depend_on_the_scale_of_rewards():
    """lambda = alpha / mean |Q|: the same gradient for a critic a thousand times larger."""
    gradients = []
    for scale in (1.0, 1000.0):
        agent, batch = make(learning_rate=1e-12)  # the critic's step comes first
        with torch.no_grad():
            agent.critic.stack.weights[-1].mul_(scale)
            agent.critic.stack.biases[-1].mul_(scale)
        agent.update(batch)
        gradients.append([p.grad.clone() for p in agent.actor.parameters()])
    for small, large in zip(*gradients):
        torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-9)


def test_the_imitation_term_does_not_grow_with_the_number_of_dimensions():
    """A mean over dimensions; the sum is ReBRAC's."""
    agent, batch = make(plain_dataset(action_dim=4), alpha=0.0)
    expected = ((agent.actor.mode(batch.observations) - batch.actions) ** 2).mean().item()
    metrics = agent.update(batch)
    assert float(metrics["actor_0/imitation"]) == pytest.approx(expected)
    assert float(metrics["actor_0/loss"]) == float(metrics["actor_0/imitation"])


def test_target_noise_is_cut_off_and_so_are_the_actions():
    noise = torch.tensor([[-9.0, -1.0, 0.0, 1.0, 9.0]])
    found = smoothed_actions(torch.full((1, 5), 0.7), noise, scale=0.2, clip=0.5)
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.5, 0.7, 0.9, 1.0]]))


def test_no_value_is_taken_from_behind_a_termination():
    agent, batch = make()
    batch.terminated[:] = 1.0
    metrics = agent.update(batch)
    assert float(metrics["target_q"]) == pytest.approx(float(batch.rewards.mean()))


def test_actors_have_one_action():
    agent = TD3BC(None, plain_dataset(), w2_weights=(1.0,), seed=0, **SMALL)
    one = np.zeros(3, np.float32)
    for actor in (0, 1):
        sampled, best = (agent.predict(one, deterministic=d, actor=actor)[0] for d in (False, True))
        assert np.array_equal(sampled, best)


@pytest.mark.parametrize("preset", presets_of("td3_bc"))
def test_presets_make_agents(preset):
    """A pattern's values are asked for as "auto" does, with a dataset id that matches it."""
    name = ("auto", preset.replace("*", "any-v2")) if "/" in preset else (preset,)
    TD3BC(None, plain_dataset(), **(load_preset("td3_bc", *name) | SMALL)).learn(2)


def test_presets_of_antmaze_and_chains():
    found = load_preset("td3_bc", "auto+chain-expert", "d4rl/antmaze-umaze-v2")
    assert found == {"reward_transform": "minus_one", "w2_weights": (100.0, 100.0)}
    assert load_preset("td3_bc", "auto", "d4rl/hopper-medium-replay-v2") == {}


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"alpha": -1.0}, "alpha is -1.0; give a finite number >= 0"),
        ({"policy_noise": -0.1}, "policy_noise is -0.1; give a finite number >= 0"),
        ({"noise_clip": float("nan")}, "noise_clip is nan; give a finite number >= 0"),
        ({"policy_freq": 0}, "policy_freq is 0; give a whole number of at least 1"),
        ({"policy_freq": 1.5}, "policy_freq is 1.5; give a whole number"),
        ({"w2_weights": (1.0, -2.0)}, r"w2_weights\[1\] is -2.0"),
        ({"w2_weights": (1.0,), "chain_learning_rate": (1e-3, 1e-3)}, "has 2 entries"),
        ({"w2_weights": (1.0,), "chain_policy": "gausian"}, "gaussian"),
        ({"policy_type": "gaussian"}, "policy"),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        TD3BC(None, plain_dataset(), **(SMALL | keywords))
