"""Motion: exact collision, sliding, no tunnelling; the scalar twin agrees bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gcrl_gym.envs.mazes import LAYOUTS, WALL_MARGIN, get_maze, parse_maze
from gcrl_gym.envs.nav2d_dynamics import move, move_one

# Cells of size 2: x and y in [4, 6) is a single wall in the middle.
BLOCK = parse_maze("block", "abcde ..... ..#.. ..... ABCDE")
# Two walls that touch at the corner (4, 4) only.
CORNER = parse_maze("corner", "abcde ..... ..#.. .#... ABCDE")
MARGIN = WALL_MARGIN


@pytest.mark.parametrize(
    ("maze", "start", "displacement", "end"),
    [
        (BLOCK, (1, 1), (0.25, -0.5), (1.25, 0.5)),  # free
        (BLOCK, (3, 5), (1.5, 0), (4 - MARGIN, 5)),  # head on
        (BLOCK, (3, 5), (1.5, 0.5), (4 - MARGIN, 5.5)),  # slides along the face
        (BLOCK, (7, 5), (-1.5, -0.5), (6 + MARGIN, 4.5)),
        (BLOCK, (5, 3), (0.5, 1.5), (5.5, 4 - MARGIN)),
        (BLOCK, (5, 7), (0.5, -1.5), (5.5, 6 + MARGIN)),
        (BLOCK, (3.5, 5.5), (1, 1), (4 - MARGIN, 6.5)),  # slides past the end of the wall
        (BLOCK, (3.9, 5.9), (0.05, 0.3), (3.95, 6.2)),  # passes the corner outside
        (BLOCK, (3.8, 5.9), (0.3, 0.3), (4.1, 6.2)),  # y is out of the wall's reach before x is in
        (BLOCK, (3, 5), (6, 0), (4 - MARGIN, 5)),  # a step longer than the wall is thick
        (BLOCK, (9, 9), (50, 70), (10 - MARGIN, 10 - MARGIN)),  # the border of the world
        (BLOCK, (1, 1), (-50, 0), (MARGIN, 1)),
        (CORNER, (3, 5), (2, -2), (4 - MARGIN, 4 + MARGIN)),  # not between touching walls
        (CORNER, (5, 3), (-2, 2), (4 + MARGIN, 4 - MARGIN)),
        (BLOCK, (3, 3), (1, 1), (4, 4 - MARGIN)),  # onto the corner itself: x first, then slide
        (BLOCK, (7, 7), (-1, -1), (6, 6)),  # the corner belongs to the free cell
    ],
)
def test_by_hand(maze, start, displacement, end):
    assert move_one(*start, *displacement, maze) == pytest.approx(end, abs=1e-12)


def test_a_door_lets_through():
    maze = get_maze("four_rooms")
    y = maze.cell_center((8, 5))[1]
    assert move_one(4.0, y, 1.9, 0.0, maze) == (5.9, y)


def swept_cells_connect(maze, start, end):
    """Whether a path of free cells leads from start to end inside the box the move spans."""
    low = np.minimum(start, end)
    high = np.maximum(start, end)
    free = {
        tuple(cell)
        for cell in maze.free_cells.tolist()
        if (low <= cell).all() and (cell <= high).all()
    }
    reached, grown = set(), {tuple(start.tolist())}
    while grown != reached:
        reached = grown
        grown = reached | {
            (row + i, column + j)
            for row, column in reached
            for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1))
            if (row + i, column + j) in free
        }
    return tuple(end.tolist()) in reached


coordinate = st.one_of(
    st.floats(0.0, 10.0),
    st.integers(0, 110).map(lambda k: k / 11),  # on and beside cell edges
    st.integers(0, 20).map(lambda k: k / 2),
)
length = st.one_of(st.floats(-1.5, 1.5), st.sampled_from([0.0, 1.0, -1.0, 10 / 11, 1e-9, -1e-300]))


@settings(max_examples=1500, deadline=None)
@given(name=st.sampled_from(list(LAYOUTS)), x=coordinate, y=coordinate, dx=length, dy=length)
@example(name="u_maze", x=7.0, y=3.0, dx=1.0, dy=1.0)
def test_move_is_sound_and_the_twins_agree(name, x, y, dx, dy):
    maze = get_maze(name)
    if not maze.is_free([x, y]):
        return
    start = maze.keep_off_walls([x, y])
    aim = start + np.array([dx, dy])
    end = move(start[None], [[dx, dy]], maze)[0]
    assert move_one(*start.tolist(), dx, dy, maze) == tuple(end.tolist())  # bit for bit

    cell = maze.cell_of(end)
    assert not maze.walls[tuple(cell)]
    assert np.array_equal(maze.keep_off_walls(end), end)
    assert (end >= np.minimum(start, aim) - MARGIN).all()
    assert (end <= np.maximum(start, aim) + MARGIN).all()
    assert swept_cells_connect(maze, maze.cell_of(start), cell)
    corners = np.sort(np.stack([maze.cell_of(start), maze.cell_of(aim)]), axis=0)
    (low_row, low_column), (high_row, high_column) = corners
    inside = ((aim >= MARGIN) & (aim <= 10 - MARGIN)).all()
    if inside and not maze.walls[low_row : high_row + 1, low_column : high_column + 1].any():
        assert end == pytest.approx(aim, abs=2 * MARGIN)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_long_walk_agrees_bit_for_bit_and_float32_stays_out_of_walls(name):
    maze, rng = get_maze(name), np.random.default_rng(0)
    positions = maze.sample_free(rng, 200)
    for _ in range(100):
        displacements = rng.uniform(-1.5, 1.5, size=(200, 2))
        scalar = [
            move_one(*position, *displacement, maze)
            for position, displacement in zip(positions.tolist(), displacements.tolist())
        ]
        positions = move(positions, displacements, maze)
        assert np.array_equal(positions, scalar)
        assert maze.is_free(positions.astype(np.float32)).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_move_agrees_with_many_tiny_steps(name):
    """An oracle that knows nothing of crossings: tiny steps, an axis stops at its first wall."""
    maze, rng = get_maze(name), np.random.default_rng(1)
    positions = maze.sample_free(rng, 500)
    displacements = rng.uniform(-1.5, 1.5, size=(500, 2))
    at, going = positions.copy(), np.ones((500, 2), bool)
    for _ in range(4000):
        for axis in (0, 1):
            ahead = at.copy()
            ahead[:, axis] += displacements[:, axis] / 4000 * going[:, axis]
            free = maze.is_free(ahead)
            going[:, axis] &= free
            at[free] = ahead[free]
    error = np.abs(at - move(positions, displacements, maze)).max(axis=1)
    # Moves that graze a corner closer than a tiny step may go either way.
    assert np.mean(error < 2e-3) > 0.99


def test_move_leaves_its_arguments_alone():
    maze = get_maze("large")
    positions = maze.sample_free(np.random.default_rng(0), 5)
    before, displacements = positions.copy(), np.ones((5, 2))
    move(positions, displacements, maze)
    assert np.array_equal(positions, before)
    assert (displacements == 1).all()
