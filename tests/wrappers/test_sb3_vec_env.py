"""SB3VecEnv: Stable-Baselines3 on native vector environments."""

from __future__ import annotations

import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import DDPG, PPO, SAC, HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from gcrl_gym.envs import specs
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import SB3VecEnv

IDS = [spec.id for spec in specs() if spec.vector_entry_point]
KEYWORDS = {
    "gcrl/Nav2D-v0": {"maze": "procedural", "goal": "near", "goal_tolerance": 1.5, "noise": 0.1},
    "gcrl/Nav2DDiscrete-v0": {"maze": "open", "goal": "near", "goal_tolerance": 1.5},
}
HER = {"learning_starts": 700, "buffer_size": 10_000, "train_freq": 1, "device": "cpu"}


def assert_same(found, expected, where=""):
    """Equal values of equal types, in nested dicts."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), where
        for key, value in expected.items():
            assert_same(found[key], value, f"{where}/{key}")
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype, where
        assert np.array_equal(found, expected), where
    else:
        assert type(found) is type(expected), where
        assert found == expected, where


def plain(observations):
    """SB3's OrderedDict as a dict; arrays as they are."""
    return dict(observations) if isinstance(observations, dict) else observations


def pair(env_id, num_envs=3, steps=15, **keywords):
    """Ours, and SB3's over single environments."""
    keywords = {**KEYWORDS.get(env_id, {}), "max_episode_steps": steps, **keywords}
    make = lambda: gym.make(env_id, disable_env_checker=True, **keywords)  # noqa: E731
    return SB3VecEnv(env_id, num_envs, **keywords), DummyVecEnv([make] * num_envs)


def step_both(ours, theirs, steps):
    """Take the same random steps; returns how many episodes ended."""
    ended = 0
    for _ in range(steps):
        actions = np.array([theirs.action_space.sample() for _ in range(theirs.num_envs)])
        found, expected = ours.step(actions), theirs.step(actions)
        assert_same(found[0], plain(expected[0]))
        for one, other in zip(found[1:3], expected[1:3]):
            assert_same(one, other)
        for one, other in zip(found[3], expected[3]):
            assert_same(one, other, "infos")
        for one, other in zip(ours.reset_infos, theirs.reset_infos):
            assert_same(one, other, "reset_infos")
        ended += int(expected[2].sum())
    return ended


@pytest.mark.parametrize(
    ("env_id", "keywords"),
    [*((env_id, {}) for env_id in IDS)]
    + [(env_id, {"mode": "lap", "continuous": False}) for env_id in IDS if "Car" in env_id],
)
def test_steps_are_those_of_single_environments(env_id, keywords):
    ours, theirs = pair(env_id, **keywords)
    assert (ours.observation_space, ours.action_space) == (
        theirs.observation_space,
        theirs.action_space,
    )
    theirs.action_space.seed(0)
    for env in (ours, theirs):
        assert env.seed(7) == [7, 8, 9]
    assert_same(ours.reset(), plain(theirs.reset()))
    ended = step_both(ours, theirs, 40)
    assert ended >= 6
    for env in (ours, theirs):  # unseeded: the generators go on
        env.set_options({"task_id": 2})
    assert_same(ours.reset(), plain(theirs.reset()))
    step_both(ours, theirs, 20)
    ours.close()


def test_options_of_each_copy():
    each = [{"task_id": 1}, {}, {"task_id": 4}, {"start": [8.5, 1.0]}, {}]
    for first in (True, False):
        ours, theirs = pair("gcrl/Nav2D-v0", 5, maze="open", goal="uniform", goal_tolerance=0.5)
        if not first:
            assert_same(ours.reset() and {}, theirs.reset() and {})
        for env in (ours, theirs):
            env.seed(3)
            env.set_options(each)
        assert_same(ours.reset(), plain(theirs.reset()))
        assert ours.reset_infos == theirs.reset_infos
        step_both(ours, theirs, 20)


def test_a_seed_and_a_ready_vector_environment():
    ready = gym.make_vec("gcrl/Nav2D-v0", num_envs=2, autoreset_mode="same_step")
    one, two = SB3VecEnv(ready, seed=4), SB3VecEnv("gcrl/Nav2D-v0", 2, seed=4)
    assert_same(one.reset(), two.reset())
    assert SB3VecEnv("gcrl/Nav2D-v0").num_envs == 64


def test_attributes_and_methods():
    env = SB3VecEnv("gcrl/Nav2D-v0", 3, reward="penalty", render_mode="rgb_array", seed=0)
    env.reset()
    assert env.get_attr("num_tasks") == [5, 5, 5]
    assert env.get_attr("spec", [0])[0].id == "gcrl/Nav2D-v0"
    assert env.has_attr("goal_tolerance")
    assert not env.has_attr("nothing")
    goals = np.zeros((4, 2))
    (rewards,) = env.env_method("compute_reward", goals, goals + 1, [{}] * 4, indices=[1])
    assert rewards.tolist() == [-1] * 4
    assert env.env_is_wrapped(TimeLimit, [0, 2]) == [False, False]
    assert env.metadata["render_fps"] == 20
    pictures = env.get_images()
    assert [p.shape for p in pictures] == [(400, 400, 3)] * 3
    assert np.array_equal(env.env_method("render", indices=1)[0], pictures[1])
    assert env.render().shape == (800, 800, 3)
    env.set_attr("goal_tolerance", 2.0)
    assert env.get_attr("goal_tolerance") == [2.0] * 3
    with pytest.raises(UserError, match="share their settings"):
        env.set_attr("goal_tolerance", 1.0, indices=[0])
    with pytest.raises(UserError, match=r"call reset\(\) of the SB3VecEnv"):
        env.env_method("reset")
    assert SB3VecEnv("gcrl/Nav2D-v0", 2).get_images() == [None, None]


def test_errors():
    with pytest.raises(UserError, match=r"'gcrl/Nav3D-v0'.*Did you mean 'gcrl/Nav2D-v0'"):
        SB3VecEnv("gcrl/Nav3D-v0")
    with pytest.raises(UserError, match="'Pendulum-v1' has no native vector environment; use Sta"):
        SB3VecEnv("Pendulum-v1")
    with pytest.raises(UserError, match="'CartPole-v1' has no native"):
        SB3VecEnv("CartPole-v1")  # Gymnasium's own vector environment
    with pytest.raises(UserError, match="make_vec_env"):
        SB3VecEnv(SyncVectorEnv([lambda: gym.make("gcrl/Nav2D-v0")]))
    with pytest.raises(UserError, match="autoreset_mode='same_step'"):
        SB3VecEnv(gym.make_vec("gcrl/Nav2D-v0", num_envs=2))
    with pytest.raises(UserError, match="are for an id"):
        SB3VecEnv(gym.make_vec("gcrl/Nav2D-v0", num_envs=2, autoreset_mode="same_step"), 3)
    with pytest.raises(UserError, match="layot"):
        SB3VecEnv("gcrl/Nav2D-v0", layot="open")
    with pytest.raises(UserError, match="rgb_array"):
        SB3VecEnv("gcrl/Nav2D-v0", render_mode="human")


def test_ppo_learns_the_same_as_on_single_environments():
    """With monitors and running normalisation, and 64 copies."""
    weights = []
    for env in pair("gcrl/Nav2DDiscrete-v0", 64):
        wrapped = VecNormalize(VecMonitor(env))
        agent = PPO("MultiInputPolicy", wrapped, n_steps=8, n_epochs=1, seed=3, device="cpu")
        agent.learn(1024)
        weights.append(agent.policy.state_dict())
        assert len(agent.ep_info_buffer) > 0
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("algorithm", [SAC, DDPG])
def test_hindsight_replay(algorithm):
    env = SB3VecEnv("gcrl/Nav2D-v0", 64, seed=0, reward="penalty", max_episode_steps=10)
    agent = algorithm("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, **HER)
    agent.learn(64 * 14)
    batch = agent.replay_buffer.sample(256)
    goals = [batch.next_observations[f"{key}_goal"].numpy() for key in ("achieved", "desired")]
    (reached,) = env.env_method("is_success", *goals, indices=[0])
    assert np.array_equal(batch.rewards.numpy()[:, 0], reached - 1.0)
    assert 0 < reached.sum() < 256
    # Ends by the time limit are no ends of the task.
    assert not batch.dones.numpy()[:, 0][~reached].any()


def test_evaluate_policy_agrees():
    results = []
    for env in pair("gcrl/Nav2D-v0", 4):
        env.seed(5)
        agent = PPO("MultiInputPolicy", env, n_steps=8, seed=0, device="cpu")
        env.seed(5)
        results.append(evaluate_policy(agent, env, 12, return_episode_rewards=True, warn=False))
    assert results[0] == results[1]


@pytest.mark.parametrize("env_id", IDS)
def test_make_vec_env_of_sb3_works(env_id):
    env = make_vec_env(env_id, n_envs=2, seed=0)
    agent = PPO("MultiInputPolicy", env, n_steps=8, batch_size=16, n_epochs=1, device="cpu")
    agent.learn(16)


@pytest.mark.slow
def test_faster_than_single_environments():
    speeds = []
    make = lambda: gym.make("gcrl/Nav2D-v0", disable_env_checker=True)  # noqa: E731
    for env in (SB3VecEnv("gcrl/Nav2D-v0", 64), DummyVecEnv([make] * 64)):
        env.reset()
        actions, times = np.ones((64, 2), np.float32), []
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(100):
                env.step(actions)
            times.append(time.perf_counter() - start)
        speeds.append(100 * 64 / min(times))
    print("steps per second, ours and theirs:", [round(speed) for speed in speeds])
    assert speeds[0] > 1.5 * speeds[1]
