"""Procedural mazes, obstacles, start and goal rules, sequences of goals, pictures to observe."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrl_gym.envs.check import check_goal_env
from gcrl_gym.envs.layouts import LayoutSet, layout, procedural_maze, with_obstacles
from gcrl_gym.envs.mazes import LAYOUTS, get_maze
from gcrl_gym.errors import UserError

IDS = ["gcrl/Nav2D-v0", "gcrl/Nav2DDiscrete-v0"]


# Mazes ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_procedural_mazes_hang_together_and_are_worth_solving(seed):
    maze = procedural_maze(seed)
    assert (maze.distances >= 0).all()
    assert maze.distances.max() >= 14  # from one corner region to another, at least
    assert len(maze.tasks) == 5
    cells = [cell for task in maze.tasks for cell in task]
    assert len(set(cells)) == 10
    for start, goal in maze.tasks:
        moves = maze.distances[maze.cell_index[start], maze.cell_index[goal]]
        assert 2 * moves >= maze.distances.max()
    procedural_maze.cache_clear()
    again = procedural_maze(seed)
    assert np.array_equal(again.walls, maze.walls)
    assert again.tasks == maze.tasks


def test_procedural_mazes_differ():
    assert len({procedural_maze(seed).walls.tobytes() for seed in range(200)}) == 200


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from([*LAYOUTS, "procedural-3"]), seed=st.integers(0, 10**6))
def test_obstacles_leave_every_path_and_task(name, seed):
    bare, maze = layout(name), with_obstacles(name, 2, seed)
    assert maze.walls.sum() == bare.walls.sum() + 2
    assert (maze.walls | ~bare.walls).all()
    assert (maze.distances >= 0).all()
    assert maze.tasks == bare.tasks
    assert not any(maze.walls[cell] for task in maze.tasks for cell in task)


def test_each_episode_has_another_maze():
    env = gym.make("gcrl/Nav2D-v0", maze="procedural", num_layouts=20).unwrapped
    assert isinstance(env.layouts, LayoutSet)
    names = set()
    env.reset(seed=0)
    for _ in range(200):
        observation, _ = env.reset()
        names.add(env.maze.name)
        assert env.maze.is_free(observation["observation"])
        assert env.maze.is_free(observation["desired_goal"])
    assert names == {f"procedural-{number}" for number in range(20)}
    for task in range(1, 6):  # task k is always that of maze k - 1
        env.reset(options={"task_id": task})
        assert env.maze.name == f"procedural-{task - 1}"
    env.reset(options={"task_id": 2, "layout": 7})
    assert env.maze.name == "procedural-7"
    with pytest.raises(UserError, match="layout must be a whole number from 0 to 19"):
        env.reset(options={"layout": 20})


def test_too_many_obstacles():
    with pytest.raises(UserError, match=r"'u_maze' has room for \d+ random obstacles, not for 99"):
        gym.make("gcrl/Nav2D-v0", maze="u_maze", obstacles=99)


# Starts and goals -----------------------------------------------------------------------------


@pytest.mark.parametrize("maze", ["four_rooms", "giant"])
def test_near_and_far_goals(maze):
    table = get_maze(maze)
    for rule in ("near", "far", "uniform"):
        env = gym.make("gcrl/Nav2D-v0", maze=maze, goal=rule, goal_tolerance=0.3)
        moves = []
        env.reset(seed=0)
        for _ in range(300):
            observation, _ = env.reset()
            start, goal = (
                table.cell_index[tuple(table.cell_of(observation[key].astype(float)))]
                for key in ("observation", "desired_goal")
            )
            moves.append((table.distances[start, goal], table.distances[start].max()))
        walked, most = np.array(moves).T
        if rule == "near":
            assert walked.max() == 3
            assert len(set(walked)) == 4
        elif rule == "far":
            assert (2 * walked >= most).all()
            assert walked.max() > 0.9 * table.distances.max()
        else:
            assert walked.min() <= 3
            assert (2 * walked < most).any()


def test_fixed_start_and_goal():
    env = gym.make("gcrl/Nav2D-v0", start=(1.0, 1.0), goal=(9.0, 9.0))
    for _ in range(3):
        observation, _ = env.reset()
        assert observation["observation"].tolist() == [1.0, 1.0]
        assert observation["desired_goal"].tolist() == [9.0, 9.0]
    observation, _ = env.reset(options={"task_id": 2})  # tasks and options come first
    centre = get_maze("four_rooms").cell_center((10, 0))
    assert np.abs(observation["observation"] - centre).max() < 0.3
    close = gym.make("gcrl/Nav2D-v0", start=(1.0, 1.0), goal=(1.0, 1.2))
    with pytest.raises(UserError, match=r"within the goal tolerance 0\.5; move them apart"):
        close.reset()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"goal": "nera"}, "Unknown goal 'nera'.*Did you mean 'near'"),
        ({"start": "far"}, "Unknown start 'far'; use uniform or a position"),
        ({"start": (5.0, 2.5)}, r"'start' \[5.0, 2.5\] is inside a wall in maze 'four_rooms'"),
        ({"goal": (1.0,)}, "'goal' must be two finite numbers"),
        ({"num_goals": 0}, "num_goals must be a whole number from 1"),
        ({"num_goals": 2, "goal": (1.0, 1.0)}, "num_goals > 1 needs goals that are drawn"),
        ({"num_goals": 1.5}, "num_goals must be a whole number"),
        ({"obstacles": -1}, "obstacles must be a whole number from 0"),
        ({"num_layouts": 0}, "num_layouts must be a whole number from 1"),
        ({"maze": "procedual"}, "Unknown maze 'procedual'.*Did you mean 'procedural'"),
        ({"maze": "procedural-x"}, "Unknown maze 'procedural-x'"),
    ],
)
@pytest.mark.parametrize("env_id", IDS)
def test_bad_keywords(env_id, keywords, message):
    with pytest.raises(UserError, match=message):
        gym.make(env_id, **keywords)


# Sequences of goals -----------------------------------------------------------------------------


def walk_to(env, observation):
    """Step towards the goal until it is reached; in the open, so a straight line does."""
    for _ in range(100):
        gap = observation["desired_goal"].astype(float) - observation["observation"]
        observation, reward, terminated, truncated, info = env.step(np.clip(2 * gap, -1, 1))
        if info["is_success"]:
            return observation, reward, terminated, truncated, info
    raise AssertionError("the goal was not reached")


def test_a_sequence_of_goals():
    env = gym.make("gcrl/Nav2D-v0", maze="open", num_goals=3)
    observation, info = env.reset(seed=0)
    goals = []
    for reached in (1, 2, 3):
        observation, reward, terminated, truncated, info = walk_to(env, observation)
        assert (reward, terminated, truncated) == (1.0, False, reached == 3)
        assert info["goals_reached"] == reached
        # The observation that is rewarded still shows the goal that was reached.
        arguments = observation["achieved_goal"], observation["desired_goal"], info
        assert env.unwrapped.compute_reward(*arguments) == 1.0
        assert not env.unwrapped.compute_terminated(*arguments)
        goals.append(tuple(observation["desired_goal"].tolist()))
        if reached < 3:
            observation, reward, _, _, info = env.step(np.zeros(2))
            assert (reward, info["is_success"]) == (0.0, False)
            assert tuple(observation["desired_goal"].tolist()) not in goals
    assert env.reset()[1]["goals_reached"] == 0


# Pictures -----------------------------------------------------------------------------------------


def test_pictures_show_walls_and_agent():
    env = gym.make("gcrl/Nav2D-v0", maze="medium", image_observation=True)
    observation, _ = env.reset(seed=0, options={"start": (0.7, 0.7)})
    picture = observation["observation"]
    assert picture.shape == (64, 64, 3)
    assert env.observation_space.contains(observation)
    red = picture[..., 0].astype(int) - picture[..., 2]
    rows, columns = np.nonzero(red > 60)
    assert abs(rows.mean() + 0.5 - (64 - 0.7 * 6.4)) < 0.5  # y = 0.7 is near the bottom
    assert abs(columns.mean() + 0.5 - 0.7 * 6.4) < 0.5
    walls = get_maze("medium").walls[::-1]
    for (row, column), wall in np.ndenumerate(walls):
        pixel = picture[int((row + 0.5) * 64 / 7), int((column + 0.5) * 64 / 7)]
        if (row, column) != (6, 0):
            assert tuple(pixel) == ((69, 79, 99) if wall else (240, 238, 232))
    moved, *_ = env.step(np.array([0.05, 0.0]))  # a quarter of a pixel
    assert (moved["observation"] != picture).any()


def test_agents_in_the_corner_are_cut_off_by_the_edge():
    env = gym.make("gcrl/Nav2D-v0", maze="open", image_observation=True)
    for corner in ((0.0, 0.0), (10.0, 10.0), (0.0, 10.0), (10.0, 0.0)):
        picture = env.reset(options={"start": corner})[0]["observation"]
        red = picture[..., 0].astype(int) - picture[..., 2] > 60
        rows, columns = np.nonzero(red)
        assert 3 <= red.sum() <= 6  # a quarter of the disc
        assert set(rows) <= ({0, 1, 2} if corner[1] else {61, 62, 63})
        assert set(columns) <= ({61, 62, 63} if corner[0] else {0, 1, 2})


# Everything together --------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize(
    "keywords",
    [
        {"maze": "giant"},
        {"maze": "procedural"},
        {"maze": "procedural-4"},
        {"obstacles": 5},
        {"start": (1.0, 1.0), "goal": "far"},
        {"image_observation": True, "maze": "procedural"},
        {"maze": "open", "noise": 0.1, "goal_tolerance": 0.5},  # the source system's toy task
    ],
)
def test_checks_pass(env_id, keywords):
    check_goal_env(gym.make(env_id, render_mode="rgb_array", **keywords))


@pytest.mark.parametrize("keywords", [{"maze": "procedural"}, {"obstacles": 3}, {"num_goals": 2}])
def test_copies_go_on_alike(keywords):
    env = gym.make("gcrl/Nav2D-v0", noise=0.1, goal="near", **keywords)
    env.reset(seed=3)
    for other in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        twin = copy.deepcopy(env)
        for _ in range(30):
            one, two = (e.step(np.array([0.3, -0.4]))[0] for e in (other, twin))
            assert all(np.array_equal(one[key], two[key]) for key in one)


def test_human_mode_opens_a_window(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    import pygame

    env = gym.make("gcrl/Nav2D-v0", render_mode="human")
    env.reset(seed=0)
    env.step(np.zeros(2))
    surface = pygame.display.get_surface()
    assert surface.get_size() == (400, 400)
    assert len(np.unique(pygame.surfarray.array3d(surface))) > 10
    env.close()
    assert not pygame.display.get_init()


def test_no_display_is_one_sentence(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "nothing-of-this-name")
    env = gym.make("gcrl/Nav2D-v0", render_mode="human")
    with pytest.raises(UserError, match="render_mode='human' needs a display"):
        env.reset(seed=0)
