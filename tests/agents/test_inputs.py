"""Environments, datasets and options that do not fit: one clear error each."""

import io

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from gcrl_gym.agents import GCBC, POGO, get_agent
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.samplers import TransitionSampler
from gcrl_gym.errors import UserError
from tests.agents.test_base import SMALL, nav2d
from tests.contract.test_agents import env_and_data


def box(low, high, width):
    return spaces.Box(low, high, (width,), np.float32)


def data(width=3, actions=2, count=20, **columns):
    rng = np.random.default_rng(0)
    return OfflineDataset.from_arrays(
        rng.normal(size=(count, width)).astype(np.float32),
        rng.uniform(-0.2, 0.4, size=(count, actions)).astype(np.float32),
        np.zeros(count, np.float32),
        truncated=np.arange(count) == count - 1,
        **columns,
    )


def test_dataset_of_other_shapes():
    env, _ = env_and_data("plain")
    with pytest.raises(
        UserError, match=r"observations have shape \(5,\), the environment's \(3,\)"
    ):
        GCBC(env, data(width=5), **SMALL)
    with pytest.raises(UserError, match="actions have width 4, the environment's 2"):
        GCBC(env, data(actions=4), **SMALL)
    goals = np.zeros((20, 2), np.float32)
    with pytest.raises(UserError, match="goals of width 2"):
        GCBC(env, data(achieved_goals=goals, desired_goals=goals), **SMALL)
    with pytest.raises(UserError, match="goals of width 0"):
        GCBC(gym.make("gcrl/Nav2D-v0"), data(width=2), **SMALL)


def test_states_without_actions():
    env, _ = env_and_data("plain")
    states = data(metadata={"state_only": True, "dataset_id": "mine/states-v0"})
    with pytest.raises(UserError, match=r"GCBC learns from actions.*mine/states-v0.*states only"):
        GCBC(env, states, **SMALL)


def test_discrete_data_in_a_continuous_env():
    _, discrete = env_and_data("gcrl/Nav2DDiscrete-v0")
    with pytest.raises(UserError, match="Discrete"):
        GCBC(gym.make("gcrl/Nav2D-v0"), discrete, **SMALL)


def test_unknown_names():
    with pytest.raises(UserError, match="gcrl/Nav2D-v0"):
        GCBC("gcrl/Nav2-v0", **SMALL)
    with pytest.raises(UserError, match="Did you mean 'pogo'"):
        get_agent("pogoo")
    with pytest.raises(UserError, match="Cannot import"):
        get_agent("no_such_package.module:Agent")
    with pytest.raises(UserError, match="not a subclass"):
        get_agent("collections:OrderedDict")
    with pytest.raises(UserError, match="batch_size"):
        nav2d(batchsize=3)
    with pytest.raises(UserError, match="preset"):
        POGO.from_preset(None, preset="nothing")


def test_third_party_agents_are_reached_by_path():
    assert get_agent("gcrl_gym.agents.gcbc:GCBC") is GCBC


def test_no_env_and_no_dataset():
    with pytest.raises(UserError, match="needs an env, or a dataset"):
        GCBC(None)


def test_env_none_takes_the_spaces_of_the_data():
    agent = GCBC(None, data(observation_space=box(-9, 9, 3), action_space=box(-1, 1, 2)), **SMALL)
    agent.learn(2, progress_bar=True)
    assert agent.action_space.contains(agent.predict(np.zeros(3, np.float32))[0])


def test_unbounded_actions_are_refused():
    with pytest.raises(UserError, match="finite action bounds"):
        GCBC(None, data(), **SMALL)


@pytest.mark.parametrize("steps", [0, -5, 1.5])
def test_steps_that_are_no_count(steps):
    with pytest.raises(UserError, match="total_timesteps"):
        nav2d().learn(steps)


def test_observation_of_another_shape():
    agent = nav2d()
    with pytest.raises(UserError, match="observation has shape"):
        agent.predict({"observation": np.zeros(3), "desired_goal": np.zeros(2)})
    with pytest.raises(UserError, match="dict"):
        agent.predict(np.zeros(2))
    with pytest.raises(UserError, match="actors 0 to 0"):
        agent.predict(env_and_data("gcrl/Nav2D-v0")[0].reset()[0], actor=1)


def test_diverged_training_is_said_with_the_update():
    agent = nav2d(learning_rate=1e30)
    with pytest.raises(UserError, match=r"gcbc, update 20: \w+ became"):
        agent.learn(20, log_interval=20)


def test_transition_sampler_can_replace_the_goals():
    agent = nav2d(sampler=TransitionSampler())
    assert agent.draw_batch().goals.shape == (32, 2)


def test_asymmetric_box_is_never_left():
    env, plain = env_and_data("plain")
    agent = GCBC(env, plain, seed=0, **SMALL)
    for scale in (0.0, 1.0, 1e4):
        for action in agent.predict(scale * np.ones((50, 3), np.float32))[0]:
            assert env.action_space.contains(action)


def test_reward_transform_reaches_the_batches():
    env, plain = env_and_data("plain")[0], data()
    agent = GCBC(env, plain, sampler=TransitionSampler(), reward_transform="minus_one", **SMALL)
    assert (agent.draw_batch().rewards == -1).all()
    assert (plain.rewards == 0).all()
    again = io.BytesIO()
    agent.save(again)
    again.seek(0)
    assert GCBC.load(again).reward_transform == "minus_one"
    with pytest.raises(UserError, match=r"reward_transform is 'minus_ones'.*Did you mean"):
        GCBC(env, plain, reward_transform="minus_ones", **SMALL)


def picture_episodes(env, count=3):
    """Random episodes of an environment with Dict goals."""
    episodes = []
    for seed in range(count):
        observation, _ = env.reset(seed=seed)
        seen, actions, ended = [observation], [], False
        while not ended:
            actions.append(env.action_space.sample())
            observation, _, terminated, truncated, _ = env.step(actions[-1])
            seen.append(observation)
            ended = terminated or truncated
        ends = np.arange(len(actions)) == len(actions) - 1
        episodes.append(
            {
                "observations": {key: np.stack([s[key] for s in seen]) for key in seen[0]},
                "actions": np.stack(actions),
                "rewards": np.zeros(len(actions)),
                "terminations": ends & terminated,
                "truncations": ends & (not terminated),
            }
        )
    return episodes


@pytest.mark.parametrize("kind", [GCBC, POGO])
@pytest.mark.parametrize("normalize", [True, False])
def test_pictures_are_learned_from_as_they_are_stored(kind, normalize, tmp_path):
    env = gym.make("gcrl/Nav2D-v0", image_observation=True, max_episode_steps=10)
    episodes = picture_episodes(env)
    dataset = OfflineDataset.from_episodes(episodes)
    assert dataset.observations.dtype == np.uint8
    agent = kind(env, dataset, normalize=normalize, seed=0, **SMALL).learn(2)
    assert agent.observation_space["observation"].shape == (64, 64, 3)
    observation, _ = env.reset(seed=0)
    action, _ = agent.predict(observation, deterministic=True)
    batch, _ = agent.predict({k: v[None] for k, v in observation.items()}, deterministic=True)
    assert action.shape == (2,)
    np.testing.assert_allclose(batch[0], action, rtol=1e-5)
    agent.save(tmp_path / "agent")
    again, _ = kind.load(tmp_path / "agent").predict(observation, deterministic=True)
    np.testing.assert_array_equal(again, action)
