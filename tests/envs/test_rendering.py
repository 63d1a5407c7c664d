"""Pictures: without a display, showing where agent, goal, walls and trail are."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym  # noqa: F401
from gcrl_gym.envs import check_goal_env, rendering
from gcrl_gym.envs.mazes import LAYOUTS, get_maze


def colour_at(frame, xy):
    scale = rendering.WORLD_PIXELS / 10
    row = round(rendering.TOP + (10 - xy[1]) * scale)
    return frame[row, round(rendering.LEFT + xy[0] * scale)].astype(int)


def assert_near(colour, expected):
    assert np.abs(colour - expected).max() <= 12, (colour, expected)


@pytest.mark.parametrize("env_id", ["gcrl/Nav2D-v0", "gcrl/Nav2DDiscrete-v0"])
@pytest.mark.parametrize("maze", LAYOUTS)
def test_walls_agent_and_goal_are_where_they_are(env_id, maze):
    env = gym.make(env_id, maze=maze, render_mode="rgb_array")
    observation, _ = env.reset(options={"task_id": 1})
    frame = env.render()
    assert frame.shape == (400, 400, 3)
    assert frame.dtype == np.uint8
    layout = get_maze(maze)
    assert_near(colour_at(frame, observation["observation"]), rendering.AGENT)
    assert_near(colour_at(frame, observation["desired_goal"]), rendering.GOAL)
    near_goal = observation["desired_goal"] - [0.28, 0]
    assert_near(colour_at(frame, near_goal), rendering.GOAL_AREA)
    ends = np.array([observation["observation"], observation["desired_goal"]])
    for cell in np.argwhere(layout.walls):
        center = layout.cell_center(cell)
        if np.linalg.norm(ends - center, axis=1).min() > 1.0:
            assert_near(colour_at(frame, center), rendering.WALL)
    for cell in layout.free_cells:
        center = layout.cell_center(cell)
        if np.linalg.norm(ends - center, axis=1).min() > 1.0:
            assert_near(colour_at(frame, center), rendering.FLOOR)


def test_trail_and_success_show():
    env = gym.make("gcrl/Nav2D-v0", maze="open", render_mode="rgb_array")
    env.reset(options={"start": [2, 5], "goal": [8, 5]})
    for _ in range(11):
        _, _, terminated, _, _ = env.step(np.array([1, 0], np.float32))
    assert terminated
    frame = env.render()
    assert_near(colour_at(frame, (8, 5)), rendering.REACHED)
    trail = colour_at(frame, (5.03, 5))
    assert trail[2] - trail[0] > 60  # blue, not floor
    header = frame[: rendering.TOP - rendering.BORDER].astype(int)
    green = (header[..., 1] - header[..., 0] > 60).any()
    assert green
    env.reset(options={"start": [2, 5], "goal": [8, 5]})
    assert_near(colour_at(env.render(), (5.03, 5)), rendering.FLOOR)  # a new episode, a new trail


def test_step_count_is_drawn():
    env = gym.make("gcrl/Nav2D-v0", maze="open", render_mode="rgb_array")
    env.reset(options={"start": [2, 5], "goal": [8, 5]})
    zero = env.render()
    env.step(np.zeros(2, np.float32))
    header = slice(0, rendering.TOP - rendering.BORDER)
    assert not np.array_equal(zero[header], env.render()[header])


def test_frames_are_their_own():
    env = gym.make("gcrl/Nav2D-v0", render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    kept = first.copy()
    env.step(np.ones(2, np.float32))
    env.render()
    assert np.array_equal(first, kept)
    assert first.flags["C_CONTIGUOUS"]


def test_an_environment_that_has_rendered_can_be_copied():
    env = gym.make("gcrl/Nav2D-v0", render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert np.array_equal(twin.render(), frame)


@pytest.mark.parametrize("env_id", ["gcrl/Nav2D-v0", "gcrl/Nav2DDiscrete-v0"])
def test_check_goal_env_with_pictures(env_id):
    check_goal_env(gym.make(env_id, render_mode="rgb_array", noise=0.1))


def test_needs_no_video_driver_and_prints_nothing():
    code = (
        "import gymnasium as gym, gcrl_gym\n"
        "env = gym.make('gcrl/Nav2D-v0', render_mode='rgb_array')\n"
        "env.reset(seed=0)\n"
        "assert env.render().std() > 0\n"
        "import pygame\n"
        "assert not pygame.display.get_init()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment["SDL_VIDEODRIVER"] = "no-such-driver"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_render_without_a_mode_warns_and_returns_none():
    env = gym.make("gcrl/Nav2D-v0").unwrapped
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert env.render() is None
