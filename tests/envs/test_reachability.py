"""Every goal of the discrete environment is within reach; settings where one is not are refused."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym  # noqa: F401
from gcrl_gym.envs.mazes import LAYOUTS, get_maze
from gcrl_gym.envs.reachability import fewest_steps, lattice_gap, unreachable_fraction
from gcrl_gym.errors import UserError


@pytest.mark.parametrize("maze", LAYOUTS)
def test_every_goal_is_within_reach_and_within_the_step_limit(maze):
    layout, rng = get_maze(maze), np.random.default_rng(5)
    assert unreachable_fraction(maze, 1.0, 0.75) == 0.0
    for start in layout.sample_free(rng, 10):
        steps = fewest_steps(start, layout.sample_free(rng, 300), 0.75, 1.0, layout)
        assert 0 <= steps.min() <= steps.max() <= 40
    for start, goal in layout.tasks:
        ends = layout.cell_center(start), layout.cell_center(goal)[None]
        assert 0 < fewest_steps(*ends, 0.75, 1.0, layout)[0] <= 40


def test_unreachable_fraction_of_small_tolerances_is_real():
    """Half the steps' length leaves goals in the open; nothing smaller than the gap is reported."""
    share = unreachable_fraction("open", 1.0, 0.5)
    assert 0.02 < share < lattice_gap(0.5)
    assert unreachable_fraction("open", 1.0, 0.25) > share


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.6, 0.7, 0.71])
def test_lattice_gap_against_sampling(ratio):
    points = np.random.default_rng(0).random((200_000, 2))
    nearest = np.linalg.norm(np.minimum(points, 1 - points), axis=1)
    assert lattice_gap(ratio) == pytest.approx(np.mean(nearest > ratio), abs=3e-3)


@pytest.mark.parametrize("maze", LAYOUTS)
@pytest.mark.parametrize("step_size", [0.7, 0.95, 1.5, 2.2, 2.8])
def test_without_a_lattice_gap_walls_and_doors_hide_nothing(maze, step_size):
    assert unreachable_fraction(maze, step_size, 0.7072 * step_size, num_goals=200) == 0.0


@pytest.mark.parametrize("maze", LAYOUTS)
def test_unreachable_goals_are_refused_with_their_share(maze):
    message = r"leaves 21\.5% of the goals unreachable .* goal_tolerance of at least 0\.708"
    with pytest.raises(UserError, match=message):
        gym.make("gcrl/Nav2DDiscrete-v0", maze=maze, goal_tolerance=0.5)
    with pytest.raises(UserError, match=r"leaves 0\.[0-9]% .* at least 1\.415"):
        gym.make("gcrl/Nav2DDiscrete-v0", maze=maze, goal_tolerance=1.39, step_size=2)
    gym.make("gcrl/Nav2DDiscrete-v0", maze=maze, goal_tolerance=0.5, noise=0.1)
    gym.make("gcrl/Nav2DDiscrete-v0", maze=maze, goal_tolerance=0.5, step_size=0.7)
    gym.make("gcrl/Nav2DDiscrete-v0", maze=maze, goal_tolerance=0.708)


def test_fewest_steps_counts_lattice_moves():
    maze = get_maze("open")
    goals = [[5.5, 5.5], [5.5, 7.5], [1.5, 8.5], [5.25, 5.5]]
    assert fewest_steps([5.5, 5.5], goals, 0.1, 1.0, maze).tolist() == [0, 2, 7, -1]


def test_fewest_steps_uses_walls_to_shift_the_lattice():
    maze = get_maze("open")
    # From x = 5.3 the border moves the lattice to whole numbers: 5.3 -> 0.3 -> 0 -> 1 -> 2.
    steps = fewest_steps([5.3, 5.5], [[2.0, 5.5]], 0.01, 1.0, maze)
    assert steps.tolist() == [8]
