"""ReBRAC's update against the published formulas, and a test per known trap."""

import numpy as np
import pytest
import torch

from gcrl_gym.agents import ReBRAC
from gcrl_gym.agents.presets import load_preset, presets_of
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.samplers import GoalSampler
from gcrl_gym.errors import UserError
from tests.agents.reference import (
    SMALL,
    Reference,
    clone,
    draw,
    each,
    goal_data,
    plain_dataset,
    relu,
    sinkhorn_w2,
)

SMALL = SMALL | {"hidden_sizes": (16, 16, 16)}


def gelu(x):
    """In its tanh form, as written in the paper of GELU."""
    return 0.5 * x * (1 + torch.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


def pi(ref, name, inputs, activation=relu):
    return torch.tanh(ref.mlp(f"{name}.body", inputs, activation))


def reference_update(
    ref, batch, weights=(), actors=True, actor_bc=0.01, critic_bc=0.01, policy_noise=0.2,
    noise_clip=0.5, discount=0.99, tau=0.005, rates=(1e-3, 1e-3), activation=relu,
    normalize_energy=False,
):  # fmt: skip
    here = torch.cat([batch.observations, batch.goals], -1)
    there = torch.cat([batch.next_observations, batch.goals], -1)
    asked = torch.cat([batch.observations, batch.actor_goals], -1)
    squared = lambda x, y: ((x - y) ** 2).sum(-1)  # noqa: E731
    q_of = lambda name, x, a: ref.q(name, x, a, activation)  # noqa: E731

    noise = (policy_noise * batch.noise["target_noise"]).clip(-noise_clip, noise_clip)
    next_actions = (pi(ref, "actor_0_target", there, activation) + noise).clip(-1, 1)
    next_q = torch.minimum(*q_of("critic_target", there, next_actions))
    next_q = next_q - critic_bc * squared(next_actions, batch.next_actions)
    target = (batch.rewards + discount * (1 - batch.terminated) * next_q).detach()
    q = q_of("critic", here, batch.actions)
    ref.step("critic", ((q[0] - target) ** 2).mean() + ((q[1] - target) ** 2).mean(), rates[1])
    if not actors:
        return

    actions = pi(ref, "actor_0", asked, activation)
    q = torch.minimum(*q_of("critic", asked, actions))
    scale = 1 / q.abs().mean().detach()
    loss = (actor_bc * squared(actions, batch.actions) - scale * q).mean()
    ref.soft_update("actor_0_target", "actor_0", tau)  # with the weights before the step
    ref.step("actor_0", loss, rates[0])
    ref.soft_update("critic_target", "critic", tau)

    for i, weight in enumerate(weights, 1):
        actions = pi(ref, f"actor_{i}", asked, activation)
        before = pi(ref, f"actor_{i - 1}", asked, activation).detach()
        q = torch.minimum(*q_of("critic", asked, actions))
        scale = 1 / q.abs().mean().detach() if normalize_energy else 1.0
        ref.step(
            f"actor_{i}", -scale * q.mean() + weight * squared(actions, before).mean(), rates[0]
        )


def make(data=None, env=None, **keywords):
    """An agent, whose first update is an actor step, and a batch with terminations."""
    agent = ReBRAC(env, data or plain_dataset(), **(SMALL | {"seed": 0} | keywords))
    batch = draw(agent, scale=1.5)
    with torch.no_grad():  # the published starting weights of the last layers hide most terms
        agent.critic.stack.weights[-1].mul_(100)
        agent.critic_target.stack.weights[-1].mul_(90)
        for actor in (agent.actor_target, *agent.chain.actors):
            last = actor.body[-1].weight
            last.copy_(torch.linspace(-0.5, 0.5, last.numel()).view_as(last))
        for parameter in agent.actor_target.parameters():  # unlike actor 0: which one is used?
            parameter.mul_(0.8)
    batch.terminated[:4] = 1.0
    return agent, batch


@pytest.mark.parametrize("weights", [(), (0.3, 0.7)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"actor_bc": 1.0, "critic_bc": 0.0},
        {"actor_bc": 0.003, "critic_bc": 0.5},
        {"policy_noise": 1.0, "noise_clip": 0.1},
        {"discount": 0.9, "tau": 0.2},
        {"learning_rate": 3e-4, "actor_learning_rate": 2e-3},
        {"critic_learning_rate": 5e-5},
        {"critic_layer_norm": False},
        {"activation": "gelu"},
        {"normalize_energy": True},
    ],
    ids=str,
)
def test_update_equals_the_formulas(weights, options):
    agent, batch = make(w2_weights=weights, **options)
    ref = Reference(agent)
    assert bool(ref.names("critic.stack.norm_scales")) == options.get("critic_layer_norm", True)
    options = {k: v for k, v in options.items() if k != "critic_layer_norm"}
    common = options.pop("learning_rate", 1e-3)
    options["rates"] = (
        options.pop("actor_learning_rate", common),
        options.pop("critic_learning_rate", common),
    )
    options["activation"] = gelu if options.pop("activation", "relu") == "gelu" else relu
    reference_update(ref, clone(batch), weights, **options)
    agent.update(batch)
    ref.agree(agent)


def test_update_equals_the_formulas_with_goals():
    env, data = goal_data()
    agent, batch = make(data, env, w2_weights=(0.3,), critic_bc=0.5)
    assert not torch.equal(batch.goals, batch.actor_goals)
    ref = Reference(agent)
    reference_update(ref, clone(batch), (0.3,), critic_bc=0.5)
    agent.update(batch)
    ref.agree(agent)


def test_a_chain_of_transport_maps_is_compared_by_samples():
    agent = ReBRAC(
        None, plain_dataset(), w2_weights=(0.3, 0.5), chain_policy="transport_map", seed=0, **SMALL
    )
    batch = draw(agent, scale=1.5)
    ref = Reference(agent)
    reference_update(ref, clone(batch))  # critic, actor 0 and targets
    own, s = batch.noise, batch.observations

    def pushed(i):
        return lambda z: torch.tanh(ref.mlp(f"actor_{i}.body", torch.cat([s, z], -1)))

    def cost(i):
        return -torch.minimum(*ref.q("critic", s, pushed(i)(own[f"actor_{i}"]))).mean()

    first = pi(ref, "actor_0", s).detach().unsqueeze(1)  # a point mass: W2 in closed form
    distance = ((each(own["samples_1"], pushed(1)) - first) ** 2).sum(-1).mean()
    ref.step("actor_1", cost(1) + 0.3 * distance, 1e-3)
    before = each(own["reference_2"], pushed(1)).detach()
    distance = sinkhorn_w2(each(own["samples_2"], pushed(2)), before)
    ref.step("actor_2", cost(2) + 0.5 * distance, 1e-3)
    agent.update(batch)
    ref.agree(agent)


def test_between_actor_steps_only_the_critic_moves():
    agent, batch = make(w2_weights=(0.3,))
    agent._n_updates = 1  # the second update of two
    ref = Reference(agent)
    reference_update(ref, clone(batch), actors=False)
    metrics = agent.update(batch)
    ref.agree(agent)
    assert not any(name.startswith("actor") for name in metrics)


@pytest.mark.parametrize("policy_freq", [1, 2, 3])
def test_actors_step_on_the_first_of_so_many_updates(policy_freq):
    """As the authors count: with 2, the actor steps on the first, third, .. update."""
    agent = ReBRAC(None, plain_dataset(), policy_freq=policy_freq, seed=0, **SMALL)
    steps = []
    for _ in range(6):
        before = [p.detach().clone() for p in agent.actor.parameters()]
        agent.learn(1, reset_num_timesteps=False)
        steps.append(not all(a.equal(b) for a, b in zip(before, agent.actor.parameters())))
    assert steps == [update % policy_freq == 0 for update in range(6)]


def test_the_target_actor_lags_one_step_behind_and_the_target_critic_does_not():
    """Seen at tau = 1, where a target becomes what it follows."""
    agent, batch = make(tau=1.0)
    before = [p.detach().clone() for p in agent.actor.parameters()]
    agent.update(batch)
    for target, old, new in zip(agent.actor_target.parameters(), before, agent.actor.parameters()):
        assert target.equal(old)
        assert not target.equal(new)
    for target, new in zip(agent.critic_target.parameters(), agent.critic.parameters()):
        assert target.equal(new)


def test_the_critics_penalty_is_summed_inside_the_target_and_masked():
    targets = {}
    for critic_bc in (0.0, 2.0):
        agent, batch = make(critic_bc=critic_bc)
        batch.terminated[:] = (torch.arange(32) % 2).double()
        targets[critic_bc] = agent.update(batch)
    difference = float(targets[0.0]["target_q"] - targets[2.0]["target_q"])

    agent, batch = make()
    noise = (0.2 * batch.noise["target_noise"]).clip(-0.5, 0.5)
    actions = (agent.actor_target.mode(batch.next_observations) + noise).clip(-1, 1)
    penalty = ((actions - batch.next_actions) ** 2).sum(1)
    assert difference == pytest.approx(0.99 * 2.0 * float(penalty[::2].sum()) / 32)
    assert float(targets[2.0]["critic_penalty"]) == pytest.approx(float(penalty.mean()))


def test_next_actions_are_those_of_the_same_episode():
    """The row after an episode's last transition belongs to another episode."""
    data = plain_dataset()
    agent = ReBRAC(None, data, seed=0, **(SMALL | {"batch_size": 4000}))
    batch = agent.draw_batch()
    row = {tuple(data.observations[r]): r for r in data.step_rows}
    rows = np.array([row[tuple(x)] for x in batch.observations.numpy()])
    following = np.isin(rows + 1, data.step_rows)
    found, expected = batch.next_actions.numpy(), np.asarray(data.actions)[rows + 1]
    assert np.array_equal(found[following], expected[following])
    assert (batch.terminated.numpy()[~following] == 1).all()
    assert not following.all()


def test_next_actions_are_scaled_like_actions():
    agent = ReBRAC(None, plain_dataset(low=-3.0, high=5.0), seed=0, **SMALL)
    batch = agent.draw_batch()
    inner = batch.next_actions[batch.terminated == 0]
    assert inner.abs().max() <= 1.0
    assert inner.std() > 0.3


def test_every_parameter_of_every_actor_moves():
    agent = ReBRAC(None, plain_dataset(), w2_weights=(1.0, 1.0), policy_freq=1, seed=0, **SMALL)
    before = [[p.detach().clone() for p in actor.parameters()] for actor in agent.chain.actors]
    agent.learn(2)
    for actor, old in zip(agent.chain.actors, before):
        for parameter, start in zip(actor.parameters(), old):
            assert not parameter.equal(start)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_starting_weights_are_the_published_ones(activation):
    agent = ReBRAC(
        None, plain_dataset(), activation=activation, seed=0, hidden_sizes=(64,) * 3, device="cpu"
    )
    for layer in (0, 2, 4):
        assert (agent.actor.body[layer].bias == 0.1).all()
        assert (agent.critic.stack.biases[layer // 2] == 0.1).all()
    assert 5e-4 < agent.actor.body[-1].weight.abs().max() <= 1e-3
    assert 1.5e-3 < agent.critic.stack.weights[-1].abs().max() <= 3e-3
    assert not agent.critic.stack.weights[0][0].equal(agent.critic.stack.weights[0][1])


def test_rates_of_their_own():
    agent = ReBRAC(
        None, plain_dataset(), w2_weights=(1.0,), seed=0, learning_rate="lin_1e-3",
        actor_learning_rate=3e-4, **SMALL,
    )  # fmt: skip
    agent.learn(2)
    rates = {name: o.param_groups[0]["lr"] for name, o in agent.optimizers.items()}
    assert rates == {"actor_0": 3e-4, "actor_1": 3e-4, "critic": pytest.approx(5e-4)}


def test_actors_have_one_action():
    agent = ReBRAC(None, plain_dataset(), w2_weights=(1.0,), seed=0, **SMALL)
    one = np.zeros(3, np.float32)
    for actor in (0, 1):
        sampled, best = (agent.predict(one, deterministic=d, actor=actor)[0] for d in (False, True))
        assert np.array_equal(sampled, best)


@pytest.mark.parametrize("preset", presets_of("rebrac"))
def test_presets_make_agents(preset):
    """A pattern's values are asked for as "auto" does, with a dataset id that matches it."""
    name = ("auto", preset.replace("*", "any")) if "/" in preset else (preset,)
    ReBRAC(None, plain_dataset(), **(load_preset("rebrac", *name) | SMALL)).learn(1)


def test_presets_of_antmaze_and_ogbench():
    found = load_preset("rebrac", "auto", "d4rl/antmaze-medium-diverse-v2")
    assert found == {
        "actor_bc": 0.001, "critic_bc": 0.0, "actor_learning_rate": 3e-4, "batch_size": 256,
        "critic_learning_rate": 5e-5, "discount": 0.999, "reward_transform": "times_100",
    }  # fmt: skip
    found = load_preset("rebrac", "auto", "ogbench/antmaze-giant-navigate-singletask-task1-v0")
    assert found == {
        "actor_bc": 0.003, "critic_bc": 0.01, "learning_rate": 3e-4, "batch_size": 256,
        "hidden_sizes": (512,) * 4, "activation": "gelu", "discount": 0.995,
    }  # fmt: skip


def test_a_sampler_without_next_actions_is_refused():
    with pytest.raises(UserError, match="next_actions=True"):
        ReBRAC(None, plain_dataset(), sampler=GoalSampler(), **SMALL)


def test_episodes_of_one_transition_are_refused():
    rng = np.random.default_rng(0)
    plain = plain_dataset()
    short = OfflineDataset.from_arrays(
        rng.normal(size=(20, 3)).astype(np.float32),
        rng.uniform(-1, 1, size=(20, 2)).astype(np.float32),
        rng.normal(size=20).astype(np.float32),
        terminated=np.ones(20, bool),
        truncated=np.zeros(20, bool),
        observation_space=plain.observation_space,
        action_space=plain.action_space,
    )
    with pytest.raises(UserError, match="next action"):
        ReBRAC(None, short, **SMALL).learn(1)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"actor_bc": -1.0}, "actor_bc is -1.0; give a finite number >= 0"),
        ({"critic_bc": float("inf")}, "critic_bc is inf; give a finite number >= 0"),
        ({"policy_noise": -0.1}, "policy_noise is -0.1; give a finite number >= 0"),
        ({"noise_clip": float("nan")}, "noise_clip is nan; give a finite number >= 0"),
        ({"policy_freq": 0}, "policy_freq is 0; give a whole number of at least 1"),
        ({"actor_learning_rate": 0.0}, "actor_learning_rate is 0.0; give a number > 0"),
        ({"critic_learning_rate": "cos_1e-3"}, "critic_learning_rate is 'cos_1e-3'; give a number"),
        ({"activation": "tanh"}, "gelu"),
        ({"w2_weights": (1.0, -2.0)}, r"w2_weights\[1\] is -2.0"),
        ({"w2_weights": (1.0,), "chain_learning_rate": (1e-3, 1e-3)}, "has 2 entries"),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        ReBRAC(None, plain_dataset(), **(SMALL | keywords))
