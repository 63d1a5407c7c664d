"""Many cars in one program take the steps of single environments, bit for bit."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import gcrl_gym  # noqa: F401
from gcrl_gym.errors import UserError

STATE, PIXELS = "gcrl/CarRacing-v0", "gcrl/CarRacingPixels-v0"


def make_vec(env_id, count, **keywords):
    return gym.make_vec(env_id, num_envs=count, vectorization_mode="vector_entry_point", **keywords)


def same(one, two):
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return np.array_equal(one, two) and one.dtype == two.dtype


def copy_of(batch, copy):
    if isinstance(batch, dict):
        return {key: copy_of(part, copy) for key, part in batch.items()}
    return batch[copy]


def assert_like_singles(envs, singles, result, expected):
    """Results of the vector environment are those of the single ones, and so are their infos."""
    observations, *numbers, infos = result
    for copy, (observation, *own, info) in enumerate(expected):
        assert same(copy_of(observations, copy), observation)
        assert [number[copy] for number in numbers] == own
        assert {key: infos[key][copy] for key in info} == info
        assert all(infos[f"_{key}"][copy] for key in info)


@given(
    seed=st.integers(0, 2**31 - 1),
    mode=st.sampled_from(["goal", "lap"]),
    continuous=st.booleans(),
    tracks=st.sampled_from([1, 3]),
    count=st.sampled_from([1, 2, 5]),
    reward=st.sampled_from(["sparse", "penalty", "dense"]),
)
@settings(max_examples=20, deadline=None)
def test_copies_are_single_environments(seed, mode, continuous, tracks, count, reward):
    keywords = {"mode": mode, "continuous": continuous, "num_tracks": tracks}
    if mode == "goal":
        keywords |= {"reward": reward, "goal_tolerance": 6, "heading_tolerance": 90}
    envs = make_vec(STATE, count, max_episode_steps=12, **keywords)
    singles = [gym.make(STATE, max_episode_steps=12, **keywords) for _ in range(count)]
    result = envs.reset(seed=seed)
    expected = [single.reset(seed=seed + copy) for copy, single in enumerate(singles)]
    assert_like_singles(envs, singles, result, expected)
    envs.action_space.seed(seed)
    ended = [False] * count
    for _ in range(30):
        actions = envs.action_space.sample()
        if continuous:
            actions[:, 1] = np.sqrt(actions[:, 1])  # drive, so that something happens
            actions[:, 2] = 0
        result = envs.step(actions)
        expected = []
        for copy, single in enumerate(singles):
            if ended[copy]:
                observation, info = single.reset()
                expected.append((observation, 0.0, False, False, info))
            else:
                expected.append(single.step(actions[copy]))
            ended[copy] = expected[-1][2] or expected[-1][3]
        assert_like_singles(envs, singles, result, expected)


@pytest.mark.parametrize("mode", ["goal", "lap"])
def test_pictures_are_those_of_single_environments(mode):
    count = 11  # more than are drawn at a time
    envs = make_vec(PIXELS, count, mode=mode, num_tracks=3)
    singles = [gym.make(PIXELS, mode=mode, num_tracks=3) for _ in range(count)]
    result = envs.reset(seed=4)
    expected = [single.reset(seed=4 + copy) for copy, single in enumerate(singles)]
    assert_like_singles(envs, singles, result, expected)
    for _ in range(20):
        actions = envs.action_space.sample()
        result = envs.step(actions)
        expected = [single.step(action) for single, action in zip(singles, actions)]
        assert_like_singles(envs, singles, result, expected)


def test_a_copy_does_not_depend_on_how_many_there_are():
    actions = np.random.default_rng(0).uniform([-1, 0, 0], 1, (60, 50, 3)).astype(np.float32)
    results = []
    for count in (1, 7, 50):
        envs = make_vec(STATE, count, num_tracks=5, reward="dense")
        envs.reset(seed=0)
        steps = [envs.step(chosen[:count]) for chosen in actions]
        results.append([(step[0]["observation"][0], step[1][0]) for step in steps])
    for one, two, three in zip(*results):
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[0], three[0])
        assert one[1] == two[1] == three[1]


@pytest.mark.parametrize("mode", ["goal", "lap"])
def test_observations_stay_in_their_space(mode):
    """However wildly cars are driven, also on the grass and along the border."""
    envs = make_vec(STATE, 100, mode=mode, num_tracks=3)
    envs.reset(seed=0)
    cars, rng = envs.cars, np.random.default_rng(0)
    cars.state[:2] = rng.uniform(-75, 75, (2, 100))
    cars.state[4:6] = rng.uniform(-17, 17, (2, 100))
    for step in range(200):
        if step % 10 == 0:
            actions = rng.uniform([-1, 0, 0], 1, (100, 3)).round().astype(np.float32)
        observation, rewards, *_ = envs.step(actions)
        assert envs.observation_space.contains(observation)
        assert np.isfinite(rewards).all()


def test_tasks_and_options_per_copy():
    envs = make_vec(STATE, 5)
    observation, infos = envs.reset(seed=3, options={"task_id": np.arange(1, 6)})
    for copy in range(5):
        single, _ = gym.make(STATE).reset(seed=3 + copy, options={"task_id": copy + 1})
        assert same(copy_of(observation, copy), single)
    poses = observation["achieved_goal"]
    again, _ = envs.reset(options={"start": poses, "track": 0})
    assert np.array_equal(again["achieved_goal"], poses)
    _, infos = envs.reset(options={"track": np.array([5, 6, 7, 8, 9])})
    assert infos["track"].tolist() == [5, 6, 7, 8, 9]
    mask = np.array([False, True, False, False, True])
    moved, _ = envs.reset(options={"reset_mask": mask, "task_id": 2})
    kept = [same(copy_of(moved, copy), copy_of(_last(envs), copy)) for copy in range(5)]
    assert all(kept)


def _last(envs):
    return envs._observe()


def test_autoreset_modes():
    assert make_vec(STATE, 2).metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    envs = make_vec(STATE, 3, autoreset_mode="same_step", max_episode_steps=5)
    envs.reset(seed=0)
    for _ in range(5):
        observation, _, _, truncated, infos = envs.step(envs.action_space.sample())
    assert truncated.all()
    final = infos["final_obs"][1]["achieved_goal"]
    assert not np.array_equal(final, observation["achieved_goal"][1])
    assert (observation["observation"][:, 4:8] == 0).all()  # standing at the start


def test_rewards_of_reached_goals():
    envs = make_vec(STATE, 2, terminate_at_goal=True)
    envs.reset(seed=0)
    goals = envs.cars.goals.astype(np.float64)
    envs.cars.state[:4, 0] = goals[0]
    envs.cars._locate()
    _, rewards, terminated, _, infos = envs.step(np.zeros((2, 3), np.float32))
    assert rewards.tolist() == [1.0, 0.0]
    assert terminated.tolist() == infos["is_success"].tolist() == [True, False]
    judged = envs.compute_reward(goals, goals, None)
    assert judged.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((2, 3)), r"shape \(4, 3\)"),
        (np.full((4, 3), np.nan), "not a number"),
        (None, r"shape \(4, 3\)"),
    ],
)
def test_bad_actions(actions, message):
    envs = make_vec(STATE, 4)
    envs.reset(seed=0)
    with pytest.raises(UserError, match=message):
        envs.step(actions)


@pytest.mark.parametrize("actions", [np.zeros(4), np.array([0, 1, 2, 5]), np.array([0, 1])])
def test_bad_discrete_actions(actions):
    envs = make_vec(STATE, 4, continuous=False)
    envs.reset(seed=0)
    with pytest.raises(UserError, match="whole numbers from 0 to 4"):
        envs.step(actions)


def test_bad_options():
    envs = make_vec(STATE, 3)
    with pytest.raises(UserError, match="task_id must be a whole number from 1 to 5, got 9"):
        envs.reset(options={"task_id": [1, 9, 2]})
    with pytest.raises(UserError, match="Unknown mode 'laps'"):
        make_vec(STATE, 3, mode="laps")
    with pytest.raises(UserError, match="was not reset"):
        envs.step(np.zeros((3, 3)))


def test_frames_of_copies():
    envs = make_vec(STATE, 2, render_mode="rgb_array", num_tracks=4)
    single = gym.make(STATE, render_mode="rgb_array", num_tracks=4)
    envs.reset(seed=0)
    single.reset(seed=1)
    for _ in range(3):
        envs.step(np.array([[0.3, 1, 0]] * 2, np.float32))
        single.step(np.array([0.3, 1, 0], np.float32))
    frames = envs.render()
    assert [frame.shape for frame in frames] == [(480, 480, 3)] * 2
    assert np.array_equal(frames[1], single.render())
