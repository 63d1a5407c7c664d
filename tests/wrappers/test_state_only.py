"""StateOnly: what is recorded from it has states, and no actions."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym  # noqa: F401
from gcrl_gym.agents import GCBC
from gcrl_gym.cli import main
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.check import check_minari
from gcrl_gym.datasets.collect import collect, collect_dataset
from gcrl_gym.envs import check_goal_env
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import StateOnly


@pytest.fixture(autouse=True)
def minari_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def make(rewards=True):
    return StateOnly(
        gym.make("gcrl/Nav2D-v0", maze="open", reward="dense", max_episode_steps=20), rewards
    )


def east(observation):
    return [1, 0]  # whole numbers, where NaN has no place


@pytest.mark.parametrize("rewards", [True, False])
def test_data_have_no_actions(rewards):
    env = make(rewards)
    dataset = collect_dataset("me/video-v0", env, east, episodes=3, seed=1)
    assert dataset.storage.metadata["state_only"] is True
    assert check_minari(dataset, gym.make("gcrl/Nav2D-v0")) == []
    loaded = OfflineDataset.from_minari(dataset)
    assert loaded.state_only
    assert np.isnan(loaded.actions[loaded.step_rows]).all()
    assert (loaded.rewards[loaded.step_rows] < 0).all() == rewards
    assert bool(loaded.rewards.any()) == rewards
    plain = collect(env.env, east, episodes=3, seed=1)
    for seen, expected in zip(collect(env, east, episodes=3, seed=1), plain):
        assert np.array_equal(
            seen.observations["observation"], expected.observations["observation"]
        )
        assert np.array_equal(seen.terminations, expected.terminations)
    with pytest.raises(UserError, match="GCBC learns from actions"):
        GCBC(env, dataset)
    again = dataset.recover_environment()
    assert again.get_wrapper_attr("unrecorded") == env.unrecorded


def test_with_actions_nothing_is_marked():
    dataset = collect_dataset("me/whole-v0", make().env, east, episodes=2)
    assert "state_only" not in dataset.storage.metadata
    assert OfflineDataset.from_minari(dataset).actions[0].tolist() == [1, 0]
    with pytest.raises(UserError, match="me/whole-v0' exists"):
        collect_dataset("me/whole-v0", make().env, "no policy", episodes=2)
    with pytest.raises(UserError, match="'no id' is not a dataset id"):
        collect_dataset("no id", make().env, east, episodes=2)


def test_plays_as_before():
    check_goal_env(make(rewards=False))


def test_discrete_actions_cannot_be_missing():
    with pytest.raises(UserError, match=r"NaN, which Discrete\(5\) cannot hold"):
        StateOnly(gym.make("gcrl/Nav2DDiscrete-v0"))


@pytest.mark.parametrize("policy", ["random", "expert"])
def test_on_the_command_line(policy, capsys):
    command = ["data", "collect", "gcrl/Nav2D-v0", "--policy", policy, "--maze", "open"]
    for flags, status in (
        (["--id", "me/a-v0", "--state-only"], 0),
        (["--id", "me/b-v0", "--state-only", "--no-rewards"], 0),
        (["--id", "me/c-v0", "--no-rewards"], 2),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--episodes", "8", *flags])
        assert stop.value.code == status
    assert "add --state-only" in capsys.readouterr().err
    for name in ("a", "b"):
        loaded = OfflineDataset.from_minari(f"me/{name}-v0")
        assert loaded.state_only
        assert loaded.metadata["policy"] == policy
        if policy == "expert":
            assert bool(loaded.rewards.any()) == (name == "a")
