import shutil
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym
from gcrl_gym.datasets import (
    OfflineDataset,
    list_datasets,
    make_env,
    write_minari,
)
from gcrl_gym.datasets.collect import collect
from gcrl_gym.errors import UserError

from .conftest import EXCERPTS


class Constant:
    """A policy with predict, as agents have."""

    def predict(self, observation):
        assert set(observation) == {"observation", "achieved_goal", "desired_goal"}
        return np.array([0.25, -0.5], np.float32), None


def test_collect_with_a_function_and_back(minari_root):
    env = gym.make("CartPole-v1")
    buffers = collect(env, lambda observation: int(observation[2] > 0), episodes=3, seed=7)
    dataset = write_minari(
        "mine/cartpole-v0",
        buffers,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        metadata={"source": "collected"},
    )
    data = OfflineDataset.from_minari(dataset)
    assert data.num_episodes == 3
    observation, _ = gym.make("CartPole-v1").reset(seed=7)
    np.testing.assert_array_equal(data.observations[0], observation)
    ends = data.columns.episode_ends
    assert data.terminated[ends - 1].all()
    assert data.rewards.sum() == data.num_steps
    assert make_env(dataset).spec.id == "CartPole-v1"
    assert make_env(dataset.id).spec.id == "CartPole-v1"


def test_collect_dict_observations_with_an_agent():
    env = gym.make("gcrl/Nav2D-v0", maze="open", max_episode_steps=6)
    buffers = collect(env, Constant(), episodes=2)
    data = OfflineDataset.from_episodes(
        [
            {"observations": b.observations, "actions": b.actions, "rewards": b.rewards}
            for b in buffers
        ]
    )
    assert data.goal_dim == 2
    assert np.unique(data.actions[data.step_rows], axis=0).tolist() == [[0.25, -0.5]]
    assert all(len(buffer.actions) == 6 and buffer.truncations[-1] for buffer in buffers)


def test_collect_is_reproducible():
    env = gym.make("gcrl/Nav2D-v0", maze="open", max_episode_steps=3)
    first, second = (collect(env, Constant(), episodes=2, seed=1) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.observations["observation"], b.observations["observation"])
    assert (
        first[0].observations["observation"][0] != first[1].observations["observation"][0]
    ).any()


def test_bad_collect(monkeypatch):
    env = gym.make("CartPole-v1")
    with pytest.raises(UserError, match="episodes is 0"):
        collect(env, lambda observation: 0, episodes=0)
    with pytest.raises(UserError, match="object with predict, or a function"):
        collect(env, "random", episodes=1)
    monkeypatch.setattr("gcrl_gym.datasets.collect.MAX_STEPS", 50)
    endless = gym.make("gcrl/Nav2D-v0", terminate_at_goal=False).unwrapped
    with pytest.raises(UserError, match="TimeLimit"):
        collect(endless, lambda observation: np.zeros(2, np.float32), episodes=1)


def test_list_of_datasets(minari_root, tmp_path):
    shutil.copy(EXCERPTS / "ogbench" / "pointmaze-medium-stitch-v0.npz", tmp_path)
    gcrl_gym.load_dataset("gcrl/nav2d/open-play-v0")
    rows = {row.id: row for row in list_datasets(tmp_path)}
    assert list(rows) == sorted(rows)
    made, unmade = rows["gcrl/nav2d/open-play-v0"], rows["gcrl/nav2d/play-v0"]
    assert (made.source, made.local, made.available, made.size > 0) == ("generated", *[True] * 3)
    assert (unmade.source, unmade.local, unmade.available) == ("generated", False, True)
    file, absent = rows["ogbench/pointmaze-medium-stitch-v0"], rows["ogbench/scene-play-v0"]
    assert (file.source, file.local, file.available, file.size) == ("ogbench", False, True, 0.0)
    assert (absent.local, absent.available, absent.size) == (False, False, None)


def test_environment_that_cannot_be_made(minari_root):
    env = gym.make("CartPole-v1")
    buffers = collect(env, lambda observation: 0, episodes=1)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    unnamed = write_minari("mine/unnamed-v0", buffers, metadata={}, **spaces)
    with pytest.raises(UserError, match="mine/unnamed-v0"):
        make_env(unnamed)
    env.spec.entry_point = "no_such_package:Env"
    foreign = write_minari("mine/foreign-v0", buffers, metadata={}, env_spec=env.spec, **spaces)
    with pytest.raises(UserError, match="no_such_package"):
        make_env(foreign)


def test_importing_and_listing_need_no_torch(minari_root):
    code = (
        "import sys, gcrl_gym.datasets as d;"
        "assert not {'torch', 'minari', 'h5py'} & set(sys.modules);"
        "d.list_datasets(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
