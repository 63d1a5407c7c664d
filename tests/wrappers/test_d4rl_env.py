"""Environments with the observations of D4RL's data."""

import importlib

import gymnasium as gym
import numpy as np
import pytest

from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import d4rl_env
from gcrl_gym.wrappers.d4rl_env import make_adroit_env, make_ant_env, make_maze_env


@pytest.fixture
def robotics():
    return pytest.importorskip("gymnasium_robotics", reason="needs Gymnasium-Robotics")


@pytest.mark.parametrize("make", [make_maze_env, make_adroit_env])
def test_missing_package_is_named(monkeypatch, make):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    arguments = ("maze2d", "umaze") if make is make_maze_env else ("AdroitHandDoor-v1",)
    with pytest.raises(UserError, match=r"pip install 'gcrl-gym\[robotics\]'"):
        make(*arguments)


def test_unknown_maze():
    with pytest.raises(UserError, match="Unknown maze 'tiny'"):
        make_maze_env("maze2d", "tiny")


@pytest.mark.parametrize("forces", [True, False])
def test_ant_has_111_numbers(forces):
    pytest.importorskip("mujoco")
    env, plain = make_ant_env(forces), gym.make("Ant-v5")
    wide, narrow = env.reset(seed=0)[0], plain.reset(seed=0)[0]
    for _ in range(20):
        np.testing.assert_array_equal(wide[:27], narrow[:27])
        assert not wide[27:33].any()  # forces on the world
        np.testing.assert_array_equal(wide[33:], narrow[27:] if forces else 0)
        action = env.action_space.sample()
        wide, narrow = env.step(action)[0], plain.step(action)[0]
    assert env.observation_space.shape == wide.shape == (111,)


def test_layouts_are_walled_and_have_their_goal():
    for size, rows in d4rl_env._LAYOUTS.items():
        assert len({len(row) for row in rows}) == 1
        assert set(rows[0] + rows[-1]) == {"#"}
        row, column = d4rl_env._GOAL_CELLS[size]
        assert rows[row][column] == "G"


@pytest.mark.parametrize(
    ("family", "size", "frame", "goal"),
    [
        ("antmaze", "umaze", "d4rl", (0, 8)),
        ("antmaze", "medium", "d4rl", (20, 20)),
        ("antmaze", "large", "d4rl", (32, 24)),
        ("antmaze", "umaze", "robotics", (-4, -4)),
        ("maze2d", "umaze", "d4rl", (1, 1)),
        ("maze2d", "medium", "d4rl", (6, 6)),
        ("maze2d", "large", "d4rl", (7, 9)),
        ("maze2d", "umaze", "robotics", (-1, 1)),
    ],
)
def test_mazes_have_d4rls_goals_and_widths(robotics, family, size, frame, goal):
    env = make_maze_env(family, size, frame=frame)
    state, info = env.reset(seed=3)
    noise = 1.5 if family == "antmaze" and frame == "d4rl" else 1e-9
    offset = info["goal"] - goal
    assert (offset >= 0).all()
    assert (offset <= noise).all()
    if family == "antmaze" and frame == "d4rl":
        assert np.abs(state[:2]).max() <= 0.11  # D4RL's ant starts at the origin
    assert state.shape == ((29,) if family == "antmaze" else (4,))
    assert env.observation_space.contains(state)
    again, info_again = env.reset(seed=3)
    np.testing.assert_array_equal(state, again)
    np.testing.assert_array_equal(info["goal"], info_again["goal"])
    env.close()


def free(size, x, y, family):
    """Whether D4RL's own coordinates are in a free cell, by its own formulas."""
    rows = d4rl_env._LAYOUTS[size]
    row, column = (x + 0.7, y + 0.7) if family == "maze2d" else (y / 4 + 1.5, x / 4 + 1.5)
    return rows[int(row)][int(column)] != "#"


def test_point_starts_where_d4rls_does(robotics):
    env = make_maze_env("maze2d", "umaze")
    states = np.array([env.reset(seed=seed)[0] for seed in range(100)])
    cells = np.round(states[:, :2])
    assert np.abs(states[:, :2] - cells).max() <= 0.1 + 1e-6
    free_cells = {(1, 1), (1, 2), (1, 3), (2, 3), (3, 1), (3, 2), (3, 3)}  # the goal's is one
    assert {(int(row), int(column)) for row, column in cells} == free_cells
    assert 0.05 < states[:, 2:].std() < 0.2
    env.close()


@pytest.mark.parametrize("size", ["umaze", "medium", "large"])
def test_point_stays_in_d4rls_free_cells(robotics, size):
    env = make_maze_env("maze2d", size)
    for seed in range(15):
        state, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        action = env.action_space.sample()
        for step in range(100):
            assert free(size, *state[:2], "maze2d"), (seed, step, state)
            state, _, terminated, _, _ = env.step(action)
            assert not terminated
    env.close()


def test_walls_of_antmaze_stand_where_d4rl_has_them(robotics):
    for size in ("umaze", "medium", "large"):
        env = make_maze_env("antmaze", size)
        model = env.unwrapped.ant_env.model
        walls = [model.geom(i).pos[:2] for i in range(model.ngeom) if "block" in model.geom(i).name]
        assert sum(row.count("#") for row in d4rl_env._LAYOUTS[size]) == len(walls)
        for x, y in walls + env._shift:
            assert not free(size, x, y, "antmaze")
        env.close()


def test_success_reward_and_termination(robotics):
    env = make_maze_env("antmaze", "umaze", goals=True)
    observation, info = env.reset(seed=0)
    assert set(observation) == {"observation", "achieved_goal", "desired_goal"}
    np.testing.assert_allclose(observation["desired_goal"], info["goal"], rtol=1e-6)
    assert not info["is_success"]
    ant = env.unwrapped.ant_env
    qpos = ant.data.qpos.copy()
    qpos[:2] = info["goal"] - env._shift
    ant.set_state(qpos, ant.data.qvel)
    observation, reward, terminated, truncated, info = env.step(np.zeros(8, np.float32))
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, 1.0)
    goals = np.zeros((3, 2))
    states = np.array([[0, 0.5], [0, 0.51], [3, 0]])
    np.testing.assert_array_equal(env.compute_reward(states, goals), [1, 0, 0])
    np.testing.assert_array_equal(env.compute_terminated(states, goals), [True, False, False])
    env.close()


def test_dense_reward(robotics):
    env = make_maze_env("maze2d", "umaze", dense=True)
    env.reset(seed=0)
    state, reward, *_ = env.step(np.zeros(2, np.float32))
    assert reward == pytest.approx(np.exp(-np.linalg.norm(state[:2] - [1, 1])), rel=1e-5)
    env.close()


def test_adroit(robotics):
    env = make_adroit_env("AdroitHandDoor-v1")
    assert env.reset(seed=0)[0].shape == (39,)
    with pytest.raises(UserError, match="Did you mean 'AdroitHandDoor"):
        make_adroit_env("AdroitHandDor-v1")
    env.close()


@pytest.mark.parametrize("task", ["Door", "Hammer", "Relocate"])
def test_reward_falls_with_the_distance_to_reach(robotics, task):
    env = make_adroit_env(f"AdroitHand{task}-v1")
    plain, hand = env.env, env.unwrapped
    plain.reset(seed=0)
    state, reward, *_ = plain.step(np.zeros(env.action_space.shape))
    data = hand.data
    palm = data.site_xpos[hand.grasp_site_id if task == "Door" else hand.S_grasp_site_id]
    thing = data.site_xpos[hand.handle_site_id] if task == "Door" else data.xpos[hand.obj_body_id]
    distance = np.linalg.norm(palm - thing)
    assert env._reach(state) == pytest.approx(distance)
    env.reset(seed=0)
    sign = 1 if plain.spec.id.endswith("-v1") else -1
    rest = reward - sign * 0.1 * distance
    assert env.step(np.zeros(env.action_space.shape))[1] == pytest.approx(rest - 0.1 * distance)
    env.close()


def test_dropping_the_pen_ends_the_episode(robotics):
    env = make_adroit_env("AdroitHandPen-v1")
    env.reset(seed=0)
    assert not env.step(np.zeros(24))[2]
    qpos = env.unwrapped.data.qpos.copy()
    qpos[24:27] += [0.5, 0, -0.3]  # beside the hand
    env.unwrapped.set_state(qpos, env.unwrapped.data.qvel)
    for _ in range(100):
        state, _, terminated, truncated, _ = env.step(np.zeros(24))
        assert terminated == (state[26] < 0.075)
        if terminated:
            break
    assert terminated
    assert not truncated
    env.close()


def test_later_versions_stand_in(robotics, monkeypatch):
    make_adroit_env("AdroitHandDoor-v1").close()  # registers
    registry = {key: spec for key, spec in gym.registry.items() if key != "AdroitHandDoor-v1"}
    if len(registry) == len(gym.registry):
        pytest.skip("this Gymnasium-Robotics has only -v2")
    monkeypatch.setattr(gym, "register_envs", lambda module: None)
    monkeypatch.setattr(gym, "registry", {**registry, "AdroitHandDoor-v2": None})
    monkeypatch.setattr(gym, "make", lambda env_id, **kwargs: env_id)
    assert d4rl_env.make_robotics_env("AdroitHandDoor-v1", None) == "AdroitHandDoor-v2"
