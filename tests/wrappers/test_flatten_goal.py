"""FlattenGoal: one vector for Stable-Baselines3's MlpPolicy."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO

import gcrl_gym  # noqa: F401
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import FlattenGoal


def test_parts_in_the_order_of_the_keys():
    plain = gym.make("gcrl/Nav2D-v0")
    both = ("observation", "desired_goal")
    for keys in (both, both[::-1], both[:1]):
        env = FlattenGoal(gym.make("gcrl/Nav2D-v0"), keys)
        check_env(env, skip_render_check=True)
        expected, _ = plain.reset(seed=3, options={"task_id": 2})
        flat, _ = env.reset(seed=3, options={"task_id": 2})
        assert flat.dtype == np.float32
        assert np.array_equal(flat, np.concatenate([expected[key] for key in keys]))
        assert env.observation_space.contains(flat)
        stepped = env.step(env.action_space.sample() * 0)[0]
        assert np.array_equal(stepped, flat)


def test_rebuilds_and_forwards():
    env = FlattenGoal(gym.make("gcrl/Nav2D-v0", maze="large"), ["desired_goal", "observation"])
    for spec in (env.spec, EnvSpec.from_json(env.spec.to_json())):
        again = gym.make(spec)
        assert np.array_equal(again.reset(seed=1)[0], env.reset(seed=1)[0])
    assert env.get_wrapper_attr("num_tasks") == 5
    assert (
        env.get_wrapper_attr("compute_reward")(np.zeros((3, 2)), np.zeros((3, 2))).tolist()
        == [1] * 3
    )


def test_ppo_trains_on_it():
    env = FlattenGoal(gym.make("gcrl/Nav2DDiscrete-v0", maze="open"))
    PPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, device="cpu").learn(128)


def test_errors():
    with pytest.raises(UserError, match="has Box"):
        FlattenGoal(gym.make("Pendulum-v1"))
    with pytest.raises(UserError, match=r"no 'desired_gaol'.*Did you mean 'desired_goal'"):
        FlattenGoal(gym.make("gcrl/Nav2D-v0"), ["observation", "desired_gaol"])
