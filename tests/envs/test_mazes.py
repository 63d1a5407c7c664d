"""Layouts: readable, connected, with far tasks; shortest paths on the cell graph."""

from __future__ import annotations

import numpy as np
import pytest

from gcrl_gym.envs.mazes import LAYOUTS, WALL_MARGIN, WORLD_SIZE, get_maze, parse_maze
from gcrl_gym.errors import UserError

GOOD = """
    abcde
    .....
    #####
    .....
    ABCDE
""".replace("#####", "##.##")


def test_a_map_is_read_as_it_looks():
    maze = parse_maze("good", GOOD)
    assert maze.tasks[0] == ((4, 0), (0, 0))  # "a" stands top left: the highest row
    assert maze.walls[2].tolist() == [True, True, False, True, True]
    assert maze.cell_center((4, 0)).tolist() == [1.0, 9.0]  # x to the right, y up
    assert maze.cell_of([1.0, 9.0]).tolist() == [4, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace(".....", "...."), "must be square"),
        (GOOD.replace("a", "x"), "unknown character 'x'"),
        (GOOD.replace("a", "."), "task mark 'a' exactly once"),
        (GOOD.replace("E", "D"), "task mark 'D' exactly once"),
        (GOOD.replace("##.##", "#####"), "no path leads to the cell in row 3, column 0"),
        ("", "must be square"),
    ],
)
def test_an_impossible_map_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_maze("bad", text)


def test_an_unknown_layout_names_the_nearest():
    with pytest.raises(UserError, match=r"'four_room'.*Did you mean 'four_rooms'\?"):
        get_maze("four_room")


@pytest.mark.parametrize("name", LAYOUTS)
def test_tasks_are_far_apart_and_corridors_wide(name):
    maze = get_maze(name)
    assert maze.cell_size >= 0.6  # wider than a step of Nav2D is long
    assert len(set(maze.tasks)) == 5
    for start, goal in maze.tasks:
        assert np.linalg.norm(maze.cell_center(start) - maze.cell_center(goal)) >= 4.0
        moves = maze.distances[maze.cell_index[start], maze.cell_index[goal]]
        assert moves * maze.cell_size >= 9.0
    cells = np.array(maze.tasks)[:, 0]
    assert np.ptp(maze.cell_center(cells), axis=0).max() >= 5.0  # spread over the maze


def test_mazes_get_harder():
    longest = [
        get_maze(name).distances.max() * get_maze(name).cell_size
        for name in ("four_rooms", "medium", "large")
    ]
    assert longest == sorted(longest)
    assert longest[-1] > 30


@pytest.mark.parametrize("name", LAYOUTS)
def test_next_cell_walks_a_shortest_path(name):
    maze = get_maze(name)
    count = len(maze.free_cells)
    for goal in range(0, count, 7):
        at = np.arange(count)
        for left in range(int(maze.distances[:, goal].max()), 0, -1):
            then = maze.next_cell[at, goal]
            steps = np.abs(maze.free_cells[then] - maze.free_cells[at]).sum(axis=1)
            assert (steps[maze.distances[at, goal] > 0] == 1).all()
            assert maze.distances[then, goal].max() <= left - 1
            at = then
        assert (at == goal).all()


def test_distances_are_those_of_the_open_plane():
    maze = get_maze("open")
    gaps = np.abs(maze.free_cells[:, None] - maze.free_cells[None]).sum(axis=-1)
    assert np.array_equal(maze.distances, gaps)


@pytest.mark.parametrize("name", LAYOUTS)
def test_sample_free_covers_the_free_space_and_nothing_else(name):
    maze = get_maze(name)
    positions = maze.sample_free(np.random.default_rng(0), 20_000)
    assert maze.is_free(positions).all()
    assert np.array_equal(maze.keep_off_walls(positions), positions)
    counts = np.zeros(maze.walls.shape)
    cells = maze.cell_of(positions)
    np.add.at(counts, (cells[:, 0], cells[:, 1]), 1)
    expected = 20_000 / len(maze.free_cells)
    assert (np.abs(counts[~maze.walls] - expected) < 6 * np.sqrt(expected)).all()
    inside_cell = positions / maze.cell_size % 1
    assert inside_cell.min() < 0.01 < 0.99 < inside_cell.max()


def test_is_free_ends_at_the_border():
    maze = get_maze("open")
    positions = [[0, 0], [WORLD_SIZE, 5], [-1e-9, 5], [5, WORLD_SIZE + 1e-9]]
    assert maze.is_free(positions).tolist() == [True, True, False, False]
    assert maze.keep_off_walls([0.0, WORLD_SIZE]).tolist() == [
        WALL_MARGIN,
        WORLD_SIZE - WALL_MARGIN,
    ]
