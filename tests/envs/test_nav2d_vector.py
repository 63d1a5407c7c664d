"""Copies in one NumPy program take the steps of single environments, bit for bit."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrl_gym.envs.mazes import LAYOUTS
from gcrl_gym.errors import UserError

IDS = ["gcrl/Nav2D-v0", "gcrl/Nav2DDiscrete-v0"]
MODES = ["next_step", "same_step", "disabled"]


def assert_same(found, expected, where=""):
    """Equal to the bit: nested dicts, arrays, arrays of objects."""
    if isinstance(expected, tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_same(one, other, where)
    elif isinstance(expected, dict):
        assert sorted(found) == sorted(expected), where
        for key, value in expected.items():
            assert_same(found[key], value, f"{where}/{key}")
    elif isinstance(expected, np.ndarray) and expected.dtype == object:
        assert [x is None for x in found] == [x is None for x in expected], where
        for one, other in zip(found, expected):
            if other is not None:
                assert_same(one, other, where)
    else:
        assert np.asarray(found).dtype == np.asarray(expected).dtype, where
        assert np.array_equal(found, expected), where


def pair(env_id, num_envs, mode, max_episode_steps, **keywords):
    """The native vector environment, and Gymnasium's over single ones."""
    keywords = keywords | {"max_episode_steps": max_episode_steps}
    native = gym.make_vec(env_id, num_envs=num_envs, autoreset_mode=mode, **keywords)
    singles = [lambda: gym.make(env_id, disable_env_checker=True, **keywords)] * num_envs
    return native, SyncVectorEnv(singles, autoreset_mode=AutoresetMode[mode.upper()])


def walk(native, reference, seed, steps, rng, options=None):
    """Step both with the same actions; copies that end are reset by mask where nobody else does."""
    assert_same(
        native.reset(seed=seed, options=options), reference.reset(seed=seed, options=options)
    )
    native.action_space.seed(int(rng.integers(2**31)))
    ends = 0
    for _ in range(steps):
        action = native.action_space.sample()
        found, expected = native.step(action), reference.step(action)
        assert_same(found, expected)
        done = expected[2] | expected[3]
        ends += int(done.sum())
        if native.metadata["autoreset_mode"] is AutoresetMode.DISABLED and done.any():
            again = {"reset_mask": done}
            assert_same(native.reset(options=again), reference.reset(options=dict(again)))
    return ends


@settings(max_examples=60, deadline=None)
@given(
    env_id=st.sampled_from(IDS),
    mode=st.sampled_from(MODES),
    maze=st.sampled_from([*LAYOUTS, "procedural", "procedural-5"]),
    seed=st.integers(0, 2**31),
    num_envs=st.integers(1, 5),
    noise=st.sampled_from([0.0, 0.3, 3.0]),
    reward=st.sampled_from(["sparse", "penalty", "dense"]),
    terminate=st.booleans(),
    goal=st.sampled_from(["uniform", "near", "far", (0.4, 0.4)]),
    num_goals=st.sampled_from([1, 1, 2]),
    obstacles=st.sampled_from([0, 0, 3]),
    image=st.booleans(),
)
def test_copies_take_the_steps_of_single_environments(
    env_id, mode, maze, seed, num_envs, noise, reward, terminate, goal, num_goals, obstacles, image
):
    native, reference = pair(
        env_id, num_envs, mode, 12, maze=maze, noise=noise, reward=reward, goal_tolerance=1.5,
        terminate_at_goal=terminate, obstacles=obstacles,
        num_goals=num_goals if isinstance(goal, str) else 1,
        goal=goal if maze != "procedural" and not obstacles else "near", image_observation=image,
    )  # fmt: skip
    assert walk(native, reference, seed, 40, np.random.default_rng(seed)) > 0


def test_long_walks():
    """Numbers drawn ahead run out and are drawn again."""
    native, reference = pair("gcrl/Nav2D-v0", 3, "next_step", 5, noise=0.1)
    assert walk(native, reference, 0, 400, np.random.default_rng(0)) > 150


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("maze", ["large", "procedural"])
def test_options(env_id, maze):
    native, reference = pair(env_id, 4, "next_step", 12, maze=maze)
    for options in ({"task_id": 3}, {"task_id": 1}, None):
        walk(native, reference, 5, 20, np.random.default_rng(0), options)
    position = native.reset(seed=1)[0]["observation"][0]
    walk(native, reference, 5, 5, np.random.default_rng(0), {"layout": 0})
    if maze == "large":
        walk(native, reference, 5, 5, np.random.default_rng(0), {"start": position})


def test_options_of_each_copy():
    native = gym.make_vec("gcrl/Nav2D-v0", num_envs=3)
    tasks, starts = np.array([5, 1, 3]), np.array([[1.0, 1.0], [9.0, 9.0], [1.0, 9.0]])
    together = native.reset(seed=7, options={"task_id": tasks})[0]
    for copy, task in enumerate(tasks):
        alone = gym.make("gcrl/Nav2D-v0").reset(seed=7 + copy, options={"task_id": int(task)})[0]
        assert_same({key: value[copy] for key, value in together.items()}, alone)
    placed = native.reset(seed=7, options={"start": starts, "goal": [8.5, 0.5]})[0]
    assert placed["observation"].tolist() == starts.tolist()
    assert placed["desired_goal"].tolist() == [[8.5, 0.5]] * 3


def test_seeds_of_each_copy():
    native, reference = pair("gcrl/Nav2D-v0", 3, "next_step", 12)
    walk(native, reference, [4, 9, 4], 20, np.random.default_rng(0))
    first = native.reset(seed=[4, 9, 4])[0]["observation"]
    assert np.array_equal(first[0], first[2])
    # Without a seed the generators go on, and only those of the copies that begin.
    native.reset(seed=0)
    before = native.reset(options={"reset_mask": np.array([True, False, False])})[0]
    native.reset(seed=0)
    after = native.reset(options={"reset_mask": np.array([True, True, False])})[0]
    assert np.array_equal(before["observation"][0], after["observation"][0])
    assert not np.array_equal(before["observation"][1], after["observation"][1])


def test_observations_are_arrays_of_their_own():
    native = gym.make_vec("gcrl/Nav2D-v0", num_envs=2)
    first, infos = native.reset(seed=0)
    kept = {key: value.copy() for key, value in first.items()}
    native.step(np.ones((2, 2), np.float32))
    assert_same(first, kept)
    for array in (*first.values(), *infos.values()):
        array.fill(0)  # must not change the environment
    native.reset(seed=0)
    second = native.step(np.ones((2, 2), np.float32))[0]
    other = gym.make_vec("gcrl/Nav2D-v0", num_envs=2)
    other.reset(seed=0)
    assert_same(second, other.step(np.ones((2, 2), np.float32))[0])


def test_declared_mode_spaces_and_spec():
    native = gym.make_vec("gcrl/Nav2D-v0", num_envs=3, maze="medium")
    assert native.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert native.spec.kwargs["maze"] == "medium"
    assert native.max_episode_steps == 200
    observation, _ = native.reset(seed=0)
    assert native.observation_space.contains(observation)
    again = gym.make_vec(native.spec)
    assert_same(again.reset(seed=0)[0], observation)


def test_frames():
    native = gym.make_vec("gcrl/Nav2D-v0", num_envs=2, render_mode="rgb_array")
    native.reset(seed=0)
    single = gym.make("gcrl/Nav2D-v0", render_mode="rgb_array")
    single.reset(seed=1)
    action = np.full((2, 2), 0.7, np.float32)
    for _ in range(5):
        native.step(action)
        single.step(action[1])
    frames = native.render()
    assert len(frames) == 2
    assert np.array_equal(frames[1], single.render())


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_envs": 0}, "num_envs must be a whole number >= 1"),
        ({"num_envs": 2.5}, "num_envs must be a whole number >= 1"),
        ({"num_envs": 2, "autoreset_mode": "next"}, "Did you mean 'next_step'"),
        ({"num_envs": 2, "maze": "lagre"}, "Did you mean 'large'"),
    ],
)
def test_bad_keywords(keywords, message):
    with pytest.raises(UserError, match=message):
        gym.make_vec("gcrl/Nav2D-v0", **keywords)


@pytest.mark.parametrize(
    ("env_id", "actions", "message"),
    [
        (IDS[0], np.zeros(2), r"shape \(2, 2\), got \(2,\)"),
        (IDS[0], np.zeros((3, 2)), r"got \(3, 2\)"),
        (IDS[0], np.array([[0, 0], [0, np.nan]]), "not a number, for copy 1"),
        (IDS[0], "up", r"shape \(2, 2\)"),
        (IDS[1], np.array([0, 5]), "2 whole numbers from 0 to 4"),
        (IDS[1], np.array([-1, 0]), "2 whole numbers"),
        (IDS[1], np.zeros(2), "2 whole numbers"),
        (IDS[1], 3, "2 whole numbers"),
    ],
)
def test_bad_actions(env_id, actions, message):
    env = gym.make_vec(env_id, num_envs=2)
    env.reset(seed=0)
    with pytest.raises(UserError, match=message):
        env.step(actions)


def test_steps_that_are_out_of_order():
    env = gym.make_vec("gcrl/Nav2D-v0", num_envs=2, max_episode_steps=1, autoreset_mode="disabled")
    with pytest.raises(UserError, match="was not reset"):
        env.step(np.zeros((2, 2)))
    env.reset(seed=0)
    env.step(np.zeros((2, 2)))
    with pytest.raises(UserError, match="episode of copy 0 has ended"):
        env.step(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"reset_mask": [1, 0]}}, "must be 2 booleans"),
        ({"options": {"reset_mask": np.zeros(2, bool)}}, "False for every copy"),
        ({"options": {"task_di": 1}}, "Did you mean 'task_id'"),
        ({"options": {"task_id": np.array([1, 6])}}, "task_id must be a whole number from 1 to 5"),
        ({"options": {"layout": 1}}, "layout must be a whole number from 0 to 0"),
        ({"seed": [1, 2, 3]}, "3 seeds for 2 copies"),
    ],
)
def test_bad_resets(arguments, message):
    env = gym.make_vec("gcrl/Nav2D-v0", num_envs=2)
    with pytest.raises(UserError, match=message):
        env.reset(**arguments)
