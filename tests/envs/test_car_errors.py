"""CarRacing: bad input of every kind gives one clear sentence."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym  # noqa: F401
from gcrl_gym.errors import UserError

STATE, PIXELS = "gcrl/CarRacing-v0", "gcrl/CarRacingPixels-v0"
IDS = [STATE, PIXELS]
NOTHING = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"mode": "laps"}, "Unknown mode 'laps'.*Did you mean 'lap'"),
        ({"reward": "spares"}, "Unknown reward 'spares'.*Did you mean 'sparse'"),
        ({"mode": "lap", "reward": "dense"}, "lap mode has its own reward"),
        ({"goal_tolerance": 0}, "goal_tolerance must be a number from 0.25 to 6, got 0"),
        ({"heading_tolerance": 200}, "heading_tolerance must be a number from 1 to 180, got 200"),
        ({"num_tracks": 0}, "num_tracks must be a whole number from 1 to"),
        ({"track": -1}, "track must be a whole number from 0 to"),
        ({"track": 1.5}, "track must be a whole number"),
    ],
)
@pytest.mark.parametrize("env_id", IDS)
def test_bad_keywords(env_id, keywords, message):
    with pytest.raises(UserError, match=message):
        gym.make(env_id, **keywords)


@pytest.mark.filterwarnings("ignore:.*render_mode")
def test_bad_render_mode():
    with pytest.raises(
        UserError, match=r"Unknown render_mode 'rgb_aray'.*Did you mean 'rgb_array'"
    ):
        gym.make(STATE, render_mode="rgb_aray")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task_id": 0}, "task_id must be a whole number from 1 to 5, got 0"),
        ({"task_id": 1, "track": 2}, "give it alone"),
        ({"gaol": [0, 0, 1, 0]}, "Unknown reset option 'gaol'.*Did you mean 'goal'"),
        ({"track": -2}, "'track' must be a whole number from 0 to"),
        ({"start": [0, 0]}, "'start' must be four finite numbers x, y, cos, sin"),
        ({"start": [0, 0, 1, np.nan]}, "must be four finite numbers"),
        ({"goal": "here"}, "must be four finite numbers"),
        ({"goal": [[1, 2], 3, 4, 5]}, "must be four finite numbers"),
        ({"goal": [0, 80, 1, 0]}, r"'goal' .* is outside \[-76, 76\]\^2"),
        ({"goal": [0, 0, 1, 1]}, "has no heading"),
        ({"start": [0, 0, 1, 0], "goal": [1, 0, 1, 0]}, "within the goal tolerance; move them"),
    ],
)
def test_bad_reset_options(options, message):
    env = gym.make(STATE)
    with pytest.raises(UserError, match=message):
        env.reset(options=options)


def test_goals_are_no_option_of_laps():
    with pytest.raises(UserError, match="Unknown reset option 'goal' in lap mode; use task_id, tr"):
        gym.make(STATE, mode="lap").reset(options={"goal": [0, 0, 1, 0]})


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(2), r"shape \(3,\)"),
        (np.zeros((1, 3)), r"shape \(3,\)"),
        (0.5, r"shape \(3,\)"),
        ("left", r"shape \(3,\)"),
        (None, r"shape \(3,\)"),
        (np.array([np.nan, 0, 0]), "not a number"),
    ],
)
def test_bad_continuous_actions(action, message):
    env = gym.make(STATE, disable_env_checker=True)
    before, _ = env.reset(seed=0)
    with pytest.raises(UserError, match=message):
        env.step(action)
    assert np.array_equal(env.unwrapped._outcome()[0]["observation"], before["observation"])


@pytest.mark.parametrize("action", [-1, 5, 1.0, np.zeros(2), "left", None, np.nan])
def test_bad_discrete_actions(action):
    env = gym.make(STATE, continuous=False, disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(UserError, match="a whole number from 0 to 4"):
        env.step(action)


@pytest.mark.parametrize("env_id", IDS)
def test_step_before_reset(env_id):
    with pytest.raises(UserError, match=r"No episode is running.*call reset\(\)"):
        gym.make(env_id).unwrapped.step(NOTHING)


def test_render_without_a_mode_warns_and_returns_none():
    env = gym.make(STATE).unwrapped
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='rgb_array' or 'human'"):
        assert env.render() is None
