"""FixedTask on our own environment; with OGBench it is tested beside GoalDict."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym  # noqa: F401
from gcrl_gym.envs import check_goal_env
from gcrl_gym.envs.mazes import get_maze
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import FixedTask


@pytest.mark.parametrize("task_id", [1, 5])
def test_every_reset_plays_the_task(task_id):
    env = FixedTask(gym.make("gcrl/Nav2D-v0", maze="large"), task_id)
    start, goal = map(get_maze("large").cell_center, get_maze("large").tasks[task_id - 1])
    quarter = 0.25 * get_maze("large").cell_size + 1e-6
    for keywords in ({}, {"seed": 3}, {"options": {}}, {"options": {"task_id": 2}}):
        observation, _ = env.reset(**keywords)
        # within the quarter cell by which tasks vary
        assert observation["observation"] == pytest.approx(start, abs=quarter)
        assert observation["desired_goal"] == pytest.approx(goal, abs=quarter)
    check_goal_env(env)


def test_other_options_reach_the_environment():
    env = FixedTask(gym.make("gcrl/Nav2D-v0"), 1)
    with pytest.raises(UserError, match="give it alone"):
        env.reset(options={"start": [1, 1]})


def test_a_vector_env_stays_on_the_task_after_its_automatic_reset():
    env = gym.vector.SyncVectorEnv(
        [lambda task_id=i: FixedTask(gym.make("gcrl/Nav2D-v0"), task_id) for i in (1, 2, 3)]
    )
    first, _ = env.reset(seed=0)
    for _ in range(205):  # past the limit of 200 steps
        observation, *_ = env.step(env.action_space.sample() * 0.1)
    size = get_maze("four_rooms").cell_size
    cells = [np.floor(o["desired_goal"] / size) for o in (first, observation)]
    assert np.array_equal(*cells)
    assert len(np.unique(cells[0], axis=0)) == 3


@pytest.mark.parametrize("task_id", [0, 6, "1", 1.0])
def test_no_such_task(task_id):
    with pytest.raises(UserError, match="task_id must be a whole number from 1 to 5"):
        FixedTask(gym.make("gcrl/Nav2D-v0"), task_id)


def test_an_environment_without_tasks():
    with pytest.raises(UserError, match="Pendulum-v1 has no num_tasks"):
        FixedTask(gym.make("Pendulum-v1"), 1)
