"""Dynamics of the Nav2D family: exact point-against-grid collision, as pure float64 functions.

``move`` serves N agents at once, ``move_one`` is its scalar twin for the single environment (a
numpy call costs more than the whole scalar move). Both take the same floating-point operations in
the same order, so their results agree bit for bit.

A move is one straight segment. It is followed from cell to cell in the order in which it crosses
the grid lines; at the first crossing into a wall, that axis stops at the wall (``WALL_MARGIN``
before its face) for the rest of the move, while the other axis goes on: the agent slides. Every
crossing is looked at, so nothing tunnels through a wall however long the step; a crossing of a
corner is taken as two crossings, x first, so nothing slips between two walls that touch at a
corner either. The border of the world is a ring of wall cells.

A cell is half open: it holds ``column * size <= x < (column + 1) * size``.
"""

from __future__ import annotations

from math import floor, inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gcrl_gym.envs.mazes import WALL_MARGIN, Maze


def move(positions: ArrayLike, displacements: ArrayLike, maze: Maze) -> NDArray[np.float64]:
    """Move N agents by one straight step each, sliding along walls.

    Args:
        positions: (N, 2) x, y in free cells, at least ``WALL_MARGIN`` from wall faces (as returned
            by this function or by ``Maze.keep_off_walls``).
        displacements: (N, 2) finite, in world units, of any length.
        maze: the layout.

    Returns:
        (N, 2) float64 positions in free cells, at least ``WALL_MARGIN`` from wall faces.
    """
    positions = np.asarray(positions, dtype=np.float64)
    displacements = np.asarray(displacements, dtype=np.float64)
    size = maze.cell_size
    ends = positions + displacements
    cells = np.floor(positions / size).astype(np.int64)  # (N, 2) as (column, row), like x, y
    targets = np.floor(np.clip(ends / size, -1, len(maze.walls))).astype(np.int64)
    moving = np.flatnonzero((cells != targets).any(axis=1))
    while moving.size:
        _cross_next_line(moving, positions, displacements, ends, cells, targets, maze)
        moving = moving[(cells[moving] != targets[moving]).any(axis=1)]
    bounds = maze.bounds[cells[:, 1], cells[:, 0]]
    return np.asarray(np.minimum(np.maximum(ends, bounds[:, 0]), bounds[:, 1]))


def _cross_next_line(
    moving: NDArray[np.int64],
    positions: NDArray[np.float64],
    displacements: NDArray[np.float64],
    ends: NDArray[np.float64],
    cells: NDArray[np.int64],
    targets: NDArray[np.int64],
    maze: Maze,
) -> None:
    """Take each moving agent over its next grid line, or stop that axis there, in place."""
    at, to = cells[moving], targets[moving]  # (M, 2)
    forward = to > at
    lines = (at + forward) * maze.cell_size
    with np.errstate(
        divide="ignore", invalid="ignore", over="ignore"
    ):  # an axis at rest is masked below
        times = np.where(at != to, (lines - positions[moving]) / displacements[moving], np.inf)
    agent = np.arange(len(moving))
    axis = (times[:, 1] < times[:, 0]).astype(np.int64)
    sign = np.where(forward[agent, axis], 1, -1)
    after = at.copy()
    after[agent, axis] += sign
    blocked = maze.padded_walls[after[:, 1] + 1, after[:, 0] + 1]
    cells[moving] = np.where(blocked[:, None], at, after)
    stopped, axis = moving[blocked], axis[blocked]
    targets[stopped, axis] = cells[stopped, axis]
    ends[stopped, axis] = (lines[agent[blocked], axis]) - sign[blocked] * WALL_MARGIN


def move_one(x: float, y: float, dx: float, dy: float, maze: Maze) -> tuple[float, float]:
    """Move one agent: ``move`` for Python floats, bit for bit the same result."""
    size = maze.cell_size
    x_end, y_end = x + dx, y + dy
    column, row = floor(x / size), floor(y / size)
    to_column, to_row = floor(x_end / size), floor(y_end / size)
    while column != to_column or row != to_row:
        x_line = (column + (to_column > column)) * size
        y_line = (row + (to_row > row)) * size
        x_time = (x_line - x) / dx if column != to_column else inf
        y_time = (y_line - y) / dy if row != to_row else inf
        if y_time < x_time:
            sign = 1 if to_row > row else -1
            if maze.wall_table[row + sign + 1][column + 1]:
                to_row, y_end = row, y_line - sign * WALL_MARGIN
            else:
                row += sign
        else:
            sign = 1 if to_column > column else -1
            if maze.wall_table[row + 1][column + sign + 1]:
                to_column, x_end = column, x_line - sign * WALL_MARGIN
            else:
                column += sign
    low_x, low_y, high_x, high_y = maze.bounds_table[row][column]
    x_end = low_x if x_end < low_x else high_x if x_end > high_x else x_end
    y_end = low_y if y_end < low_y else high_y if y_end > high_y else y_end
    return x_end, y_end
