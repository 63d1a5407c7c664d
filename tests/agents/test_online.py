"""Online training: what is collected, drawn and learned from, and a test per known trap."""

import io

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import gcrl_gym
from gcrl_gym.agents import GCIQL, IQL, POGO, TD3BC, ReBRAC, online_env
from gcrl_gym.agents.check import same_weights
from gcrl_gym.agents.online import concatenate
from gcrl_gym.datasets import GoalSampler, SequenceSampler, WindowSampler
from gcrl_gym.datasets.rewards import episode_returns
from tests.agents.online import (
    OFFLINE_MARK,
    SMALL,
    Walk,
    marked_data,
    nav2d,
    nav2d_env,
    spy,
    walker,
)
from tests.contract.test_agents import Drift, env_and_data


def weights(agent):
    return {name: value.clone() for name, value in agent.policy.state_dict().items()}


# Counting --------------------------------------------------------------------------------------


def test_timesteps_go_on_by_one_per_environment_step():
    agent = nav2d().learn(7)
    assert agent.finetune(30, learning_starts=10) is agent
    assert (agent.num_timesteps, agent.online.env_steps) == (37, 30)
    agent.finetune(1e1, learning_starts=10)
    assert (agent.num_timesteps, agent.online.env_steps) == (47, 40)
    agent.finetune(5, reset_num_timesteps=True)
    assert (agent.num_timesteps, agent.online.env_steps) == (5, 45)
    assert agent.learn(3).num_timesteps == 3


@pytest.mark.parametrize(("starts", "per_step"), [(0, 1), (20, 1), (40, 3)])
def test_every_step_after_the_warm_up_has_its_updates(starts, per_step):
    """The source made one gradient step per ten episodes."""
    env = Walk(steps=10)
    agent = walker(env=env).finetune(60, learning_starts=starts, updates_per_step=per_step)
    first = max(starts, 10)  # when an episode has ended, too
    assert len(env.actions) == 60
    assert agent._n_updates == agent.online.updates == per_step * (60 - first + 1)


def test_the_warm_up_changes_nothing():
    """The agent just after the switch is the agent just before it."""
    agent = nav2d(POGO).learn(20)
    before, env = weights(agent), nav2d_env()
    options = {"episodes_per_task": 2, "seed": 1}
    result = gcrl_gym.evaluate(agent, env, **options)
    agent.finetune(50, learning_starts=51)
    assert agent.online.buffer.num_steps >= 40
    for name, value in agent.policy.state_dict().items():
        assert value.equal(before[name]), name
    assert gcrl_gym.evaluate(agent, env, **options) == result
    agent.finetune(1, learning_starts=51)
    assert agent._n_updates == 21
    assert gcrl_gym.evaluate(agent, env, **options) != result


def test_learn_is_what_it_would_be_without():
    """Online training has generators of its own."""
    agent = nav2d(POGO).learn(3)
    noise = {k: v for k, v in agent.generators.states().items() if k.startswith("noise/")}
    batches = agent.generators.batches.bit_generator.state
    agent.finetune(40, learning_starts=20)
    assert agent.generators.batches.bit_generator.state == batches
    after = agent.generators.states()
    assert noise
    assert all(after[name].equal(value) for name, value in noise.items())
    for optimizer in agent.optimizers.values():
        assert optimizer.param_groups[0]["lr"] == 3e-4


# What is recorded ------------------------------------------------------------------------------


def test_the_end_of_a_task_is_no_time_limit():
    env = Walk(steps=12, far=0.9)
    agent = walker(env=env, seed=3).finetune(200, learning_starts=300)
    data = agent.online.buffer.dataset()
    ends = [end for end in env.ends if any(end)][: data.num_episodes]
    assert {terminated for terminated, _ in ends} == {False, True}
    last = data.columns.episode_ends - 1
    assert data.terminated[last].tolist() == [terminated for terminated, _ in ends]
    assert data.terminated.sum() == sum(terminated for terminated, _ in ends)
    assert np.array_equal(data.actions[data.step_rows], np.array(env.actions)[: data.num_steps])


def test_an_endless_episode_is_cut_off(monkeypatch):
    monkeypatch.setattr(online_env, "MAX_EPISODE_STEPS", 12)
    env = Walk(steps=10**9)
    data = walker(env=env).finetune(40, learning_starts=100).online.buffer.dataset()
    assert data.columns.lengths.tolist() == [12, 12, 12]
    assert not data.terminated.any()
    assert len(env.seeds) == 4


def test_the_oldest_episodes_leave():
    agent = walker(env=Walk(steps=10)).finetune(95, learning_starts=200, buffer_size=30)
    data = agent.online.buffer.dataset()
    assert data.num_steps == 30
    assert agent.online.buffer.running == 5


@pytest.mark.parametrize("name", ["none", "minus_one", "times_10_minus_5", "return_range"])
def test_rewards_follow_the_convention_of_the_data(name):
    """A range is that of the offline returns, whatever is collected, and travels in the archive."""
    agent = walker(reward_transform=name)
    returns = episode_returns(agent.dataset)
    by_hand = {
        "none": lambda r: r,
        "minus_one": lambda r: r - 1,
        "times_10_minus_5": lambda r: 10 * r - 5,
        "return_range": lambda r: 1000 * r / (returns.max() - returns.min()),
    }[name]
    for trained in (agent, reloaded(agent)):
        trained.finetune(45, Walk(), mix="online", learning_starts=20)
        data = trained.online.buffer.dataset()
        states, steps = data.observations.astype(np.float64), data.step_rows
        rewards = by_hand(-np.abs(states[steps + 1]).sum(1))  # as Drift judges
        np.testing.assert_allclose(data.rewards[steps], rewards, rtol=1e-5)
        shown = [info["r"] for info in trained.ep_info_buffer]  # the environment's own
        own = np.add.reduceat(-np.abs(states[steps + 1]).sum(1), [0, 20])
        np.testing.assert_allclose(shown, own, rtol=1e-5)


def reloaded(agent, **keywords):
    file = io.BytesIO()
    agent.save(file)
    file.seek(0)
    return type(agent).load(file, **keywords)


# What is drawn ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mix", "share"), [("symmetric", 0.5), ("online", 0.0), (0.3, 0.3), (1.0, 1.0), (0.01, 0.01)]
)
def test_mix_is_the_share_of_offline_transitions(mix, share):
    agent = walker()
    seen = spy(agent)
    agent.finetune(70, mix=mix, learning_starts=20)
    assert len(seen) == 51
    counts = [int((batch.observations[:, 0] > OFFLINE_MARK / 2).sum()) for batch in seen]
    assert all(len(batch.observations) == 32 for batch in seen)
    assert abs(sum(counts) - share * 32 * 51) < 1
    assert max(counts) - min(counts) <= 1
    for batch in seen:  # rows of both halves hang together
        offline = batch.observations[:, 0] > OFFLINE_MARK / 2
        assert offline.equal(batch.next_observations[:, 0] > OFFLINE_MARK / 2)


@pytest.mark.parametrize("spec", [GoalSampler(), WindowSampler(context=4), SequenceSampler(3)])
def test_batches_of_any_sampler_become_one(spec):
    env, data = env_and_data("gcrl/Nav2D-v0")
    bound = spec.bind(data, goal_env=env)
    first, second = (bound.sample(count, np.random.default_rng(count)) for count in (5, 9))
    joined = concatenate(first, second)
    assert type(joined) is type(first)
    for name, value in vars(joined).items():
        if isinstance(getattr(first, name), torch.Tensor):
            assert value.equal(torch.cat([getattr(first, name), getattr(second, name)])), name
        else:
            assert value in (None, {})


@pytest.mark.parametrize("kind", [POGO, ReBRAC, GCIQL])
def test_hindsight_is_judged_by_the_environment(kind):
    """Rewards and ends of relabelled goals, against the environment's own words."""
    agent = nav2d(kind, normalize=False)
    seen, env = spy(agent), nav2d_env().unwrapped
    agent.finetune(60, mix="online", learning_starts=30)
    relabelled = successes = 0
    table = agent.online.buffer.dataset().observations
    for batch in seen:
        reached, goals = batch.next_observations.numpy(), batch.goals.numpy()
        assert np.array_equal(batch.rewards.numpy(), env.compute_reward(reached, goals))
        assert np.array_equal(batch.terminated.numpy(), env.compute_terminated(reached, goals))
        successes += int(batch.rewards.sum())
        relabelled += int((goals[:, None] == table[None]).all(2).any(1).sum())
    assert successes > 0
    assert relabelled == len(seen) * 32  # every goal was achieved some time


def test_next_actions_are_those_of_the_same_episode():
    agent = nav2d(ReBRAC)
    seen = spy(agent)
    agent.finetune(60, mix="online", learning_starts=30)
    data = agent.online.buffer.dataset()
    states, actions = data.observations, data.actions
    for batch in seen[-5:]:
        for here, action, after in zip(batch.observations, batch.actions, batch.next_actions):
            same = (states == here.numpy()).all(1) & (actions == action.numpy()).all(1)
            (row,) = np.flatnonzero(same)
            assert row + 1 not in data.columns.episode_ends
            assert np.array_equal(actions[row + 1], after.numpy())


def test_an_episode_of_one_step_has_no_next_action():
    """With next actions, sampling waits for an episode that has one."""
    env = Walk(steps=1)
    agent = walker(ReBRAC, env=env)
    agent.finetune(10, learning_starts=0)
    assert agent._n_updates == 0
    env.limit = 4
    agent.finetune(10, learning_starts=0)
    assert agent._n_updates == 7  # the first episode of four steps ends with the fourth


def test_the_newest_episodes_are_drawn_at_once():
    agent = walker(env=Walk(steps=5))
    bound, bind = [], agent.bind_sampler
    agent.bind_sampler = lambda data, online=False: bound.append(data.num_steps) or bind(data)
    agent.finetune(40, learning_starts=10)
    assert bound == [5, 10, 15, 20, 25, 30, 35, 40]


# Statistics ------------------------------------------------------------------------------------


def test_statistics_stay_those_of_the_offline_data():
    agent = walker(normalize=True)
    mean, std = agent.policy.observation_mean.clone(), agent.policy.observation_std.clone()
    seen = spy(agent)
    agent.finetune(60, mix="online", learning_starts=20)
    assert agent.policy.observation_mean.equal(mean)
    assert agent.policy.observation_std.equal(std)
    assert mean[0] > OFFLINE_MARK / 2
    rows = torch.from_numpy(agent.online.buffer.dataset().observations)
    scaled = (rows - mean) / std
    assert (seen[-1].observations[:, None] == scaled[None]).all(2).any(1).all()
    # Data given later, and to an agent from an archive, do not change them either.
    other = reloaded(agent, env=Walk(), dataset=None)
    other.finetune(30, dataset=marked_data(3), learning_starts=0)
    assert other.policy.observation_mean.equal(mean)


def test_statistics_of_an_agent_without_data_are_those_of_the_warm_up():
    agent = walker(dataset=None, normalize=True)
    assert not agent.policy.has_statistics
    agent.finetune(40, mix="online", learning_starts=40)
    rows = agent.online.buffer.dataset().observations.astype(np.float64)
    assert len(rows) == 42
    mean = agent.policy.observation_mean.clone()
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5, atol=1e-6)
    agent.finetune(40, mix="online", learning_starts=40)
    assert agent.policy.observation_mean.equal(mean)


# How it acts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "keywords", "noise"),
    [(TD3BC, {}, 0.1), (ReBRAC, {}, 0.03), (IQL, {"policy_type": "deterministic"}, 0.03)],
)
def test_deterministic_policies_explore_with_noise(kind, keywords, noise):
    """Its deviation is in units of the action box, whose half widths are 0.3 and 2 here."""
    env = Walk(steps=200)
    agent = walker(kind, env=env, **keywords).learn(2)
    with torch.no_grad():  # away from the bounds
        for value in agent.policy.networks["actor_0"].parameters():
            value *= 0.1
    agent.finetune(800, learning_starts=10**6)
    data = agent.online.buffer.dataset()
    mode, _ = agent.predict(data.observations[data.step_rows], deterministic=True)
    residual = (data.actions[data.step_rows] - mode) / np.array([0.3, 2.0])
    np.testing.assert_allclose(residual.std(0), noise, rtol=0.1)
    assert np.abs(residual.mean(0)).max() < noise / 5


def test_actions_stay_in_bounds():
    """`Drift` asserts it; the noise is large enough to leave the box in every second step."""
    env = Walk()
    walker(env=env).learn(1).finetune(60, learning_starts=30, exploration_noise=3.0)
    actions = np.array(env.actions)
    outside = (actions == Drift.action_space.low) | (actions == Drift.action_space.high)
    assert outside.mean() > 0.4


def test_bounds_between_float32_numbers():
    space = spaces.Box(np.array([-0.1, -np.pi]), np.array([0.1, 0.7]), dtype=np.float64)
    act = online_env.recordable(space)
    for action in ([-9.0, -9.0], [9.0, 9.0], [0.03, 0.2]):
        found = act(np.array(action))
        assert space.contains(found)
        assert found.dtype == np.float64
        assert np.array_equal(found, found.astype(np.float32))


def test_sampled_policies_get_no_noise_of_their_own_accord():
    def actions(**keywords):
        agent = nav2d(POGO).learn(1).finetune(20, learning_starts=30, **keywords)
        return agent.online.buffer.dataset().actions

    assert np.array_equal(actions(), actions(exploration_noise=0.0))
    assert not np.array_equal(actions(), actions(exploration_noise=0.3))


def test_an_untrained_agent_acts_at_random():
    env = Walk(steps=200)
    walker(env=env, dataset=None).finetune(400, mix="online", learning_starts=10**6)
    actions, space = np.array(env.actions), Drift.action_space
    np.testing.assert_allclose(actions.mean(0), (space.low + space.high) / 2, atol=0.15)
    widths = (space.high - space.low) / np.sqrt(12)
    np.testing.assert_allclose(actions.std(0), widths, rtol=0.1)


def test_discrete_actions():
    _, data = env_and_data("gcrl/Nav2DDiscrete-v0")
    agent = GCIQL(gym.make("gcrl/Nav2DDiscrete-v0", max_episode_steps=15), data, seed=0, **SMALL)
    before = weights(agent)
    agent.finetune(60, learning_starts=30)
    assert set(agent.online.buffer.dataset().actions.tolist()) <= set(range(5))
    assert any(not value.equal(before[n]) for n, value in agent.policy.state_dict().items())


def test_seeds():
    runs = [nav2d().finetune(40, learning_starts=20, seed=seed) for seed in (None, 1, 2, 1)]
    assert not same_weights(runs[0], runs[1])
    assert not same_weights(runs[1], runs[2])
    assert same_weights(runs[1], runs[3])


def test_another_sampler():
    """The sampler the user passed is the one that is bound online."""
    agent = nav2d(POGO, sampler=GoalSampler(value=(1.0, 0.0, 0.0)), normalize=False)
    seen = spy(agent)
    agent.finetune(40, learning_starts=20)
    for batch in seen:
        assert batch.goals.equal(batch.observations)  # current goals only
