"""FrameStack: Gymnasium's serves for Box observations, not for goals."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import FrameStackObservation

import gcrl_gym  # noqa: F401
from gcrl_gym.envs import check_goal_env
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import FrameStack


def test_gymnasiums_stacks_goals_too():
    """Why there is one here; when this fails, ours can go."""
    env = FrameStackObservation(gym.make("gcrl/Nav2D-v0"), 3)
    assert env.observation_space["desired_goal"].shape == (3, 2)
    with pytest.raises(UserError, match=r"fresh arrays|compute_reward|constant|spaces"):
        check_goal_env(env)


@pytest.mark.parametrize("image", [False, True])
def test_the_last_frames_of_the_observation_only(image):
    plain = gym.make("gcrl/Nav2D-v0", maze="open", image_observation=image)
    env = FrameStack(gym.make("gcrl/Nav2D-v0", maze="open", image_observation=image), 3)
    check_goal_env(env)
    first, _ = plain.reset(seed=0)
    frames = [first["observation"]] * 3
    stacked, _ = env.reset(seed=0)
    for _ in range(5):
        assert np.array_equal(stacked["observation"], np.concatenate(frames[-3:], axis=-1))
        assert stacked["observation"].dtype == first["observation"].dtype
        assert stacked["desired_goal"].shape == (2,)
        frames.append(plain.step(np.array([1, 0.5]))[0]["observation"])
        stacked = env.step(np.array([1, 0.5]))[0]
    assert stacked["observation"].shape == ((64, 64, 9) if image else (6,))


def test_rebuilds():
    env = FrameStack(gym.make("gcrl/Nav2D-v0"), 4)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.observation_space == env.observation_space
    assert again.get_wrapper_attr("num_tasks") == 5


def test_errors():
    with pytest.raises(UserError, match="FrameStackObservation stacks a Box"):
        FrameStack(gym.make("Pendulum-v1"), 2)
    with pytest.raises(UserError, match="frames must be a whole number from 1"):
        FrameStack(gym.make("gcrl/Nav2D-v0"), 0)
