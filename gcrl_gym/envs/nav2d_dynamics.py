"""Dynamics of the Nav2D family: exact point-against-grid collision, as pure float64 functions.

``move`` serves N agents at once, ``move_one`` is its scalar twin for the single environment (a
numpy call costs more than the whole scalar move). Both take the same floating-point operations in
the same order, so their results agree bit for bit. `move_columns` is what ``move`` does, for agents
in different mazes.

A move is one straight segment. It is followed from cell to cell in the order in which it crosses
the grid lines; at the first crossing into a wall, that axis stops at the wall (``WALL_MARGIN``
before its face) for the rest of the move, while the other axis goes on: the agent slides. Every
crossing is looked at, so nothing tunnels through a wall however long the step; a crossing of a
corner is taken as two crossings, x first, so nothing slips between two walls that touch at a
corner either. The border of the world is a ring of wall cells.

A cell is half open: it holds ``column * size <= x < (column + 1) * size``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gcrl_gym.envs.mazes import WALL_MARGIN, WORLD_SIZE

if TYPE_CHECKING:
    from gcrl_gym.envs.mazes import Maze

Floats = NDArray[np.float64]
Cells = NDArray[np.int64]


class Grid:
    """Walls and bounds of mazes of one size as flat tables, for `move_columns`.

    A cell's index is ``layout * (n + 2)**2 + (row + 1) * (n + 2) + column + 1``: the tables hold
    the ring of border walls too.

    Args:
        cells: cells per side, n.
        layouts: how many mazes there is room for.
    """

    def __init__(self, cells: int, layouts: int = 1) -> None:
        self.cells, self.cell_size = cells, WORLD_SIZE / cells
        self.stride = cells + 2
        self.per_layout = self.stride**2
        size = layouts * self.per_layout
        self.walls = np.ones(size, bool)
        # Columns of their own, as each is read for every agent in every step.
        self.low_x, self.low_y, self.high_x, self.high_y = np.zeros((4, size))

    def put(self, layout: int, maze: Maze) -> None:
        """Write the tables of one maze."""
        place = slice(layout * self.per_layout, (layout + 1) * self.per_layout)
        self.walls[place] = maze.padded_walls.ravel()
        bounds = np.pad(maze.bounds, ((1, 1), (1, 1), (0, 0), (0, 0))).reshape(-1, 4)
        columns = (self.low_x, self.low_y, self.high_x, self.high_y)
        for column, values in zip(columns, bounds.T):
            column[place] = values


def move(positions: ArrayLike, displacements: ArrayLike, maze: Maze) -> Floats:
    """Move N agents by one straight step each, sliding along walls.

    Args:
        positions: (N, 2) x, y in free cells, at least ``WALL_MARGIN`` from wall faces (as returned
            by this function or by ``Maze.keep_off_walls``).
        displacements: (N, 2) finite, in world units, of any length.
        maze: the layout.

    Returns:
        (N, 2) float64 positions in free cells, at least ``WALL_MARGIN`` from wall faces.
    """
    x, y = np.ascontiguousarray(np.asarray(positions, np.float64).T)
    dx, dy = np.ascontiguousarray(np.asarray(displacements, np.float64).T)
    return np.stack(move_columns(x, y, dx, dy, maze.grid), axis=1)


def move_columns(
    x: Floats, y: Floats, dx: Floats, dy: Floats, grid: Grid, layout: Any = 0
) -> tuple[Floats, Floats]:
    """Do what `move` does, for columns and for agents in different mazes.

    Args:
        x: (N,) positions.
        y: (N,) positions.
        dx: (N,) displacements.
        dy: (N,) displacements.
        grid: the layouts.
        layout: which one each agent is in, (N,) or one for all.

    Returns:
        New x and y, (N,) each.
    """
    size, cells, stride = grid.cell_size, grid.cells, grid.stride
    x_end, y_end = x + dx, y + dy
    column, row = (x / size).astype(np.int64), (y / size).astype(np.int64)  # inside: never < 0
    right = _cell_of(x_end / size, cells) - column
    up = _cell_of(y_end / size, cells) - row
    at = (row + 1) * stride + (column + (layout * grid.per_layout + 1))
    to = at + up * stride + right
    # Who crosses at most one line goes there, or stays where that is a wall.
    final = np.where(grid.walls.take(to), at, to)
    lines = np.abs(right) + np.abs(up)
    if lines.max(initial=0) > 1:
        for some, cross in ((lines == 2, _cross_two), (lines > 2, _cross_many)):
            (chosen,) = some.nonzero()
            if not len(chosen):
                continue
            part = _Part(*(values.take(chosen) for values in (x, y, dx, dy, x_end, y_end)))
            final[chosen] = cross(part, at.take(chosen), right.take(chosen), up.take(chosen), grid)
            x_end[chosen], y_end[chosen] = part.x_end, part.y_end
    x_end = np.minimum(np.maximum(x_end, grid.low_x.take(final)), grid.high_x.take(final))
    y_end = np.minimum(np.maximum(y_end, grid.low_y.take(final)), grid.high_y.take(final))
    return x_end, y_end


def _cell_of(place: Floats, cells: int) -> Cells:
    """Return the row or column, -1 and ``cells`` for all that is outside; (N,)."""
    return np.asarray(np.floor(np.minimum(np.maximum(place, -1), cells)).astype(np.int64))


@dataclass
class _Part:
    """Columns of the agents that cross more than one line; the ends are changed in place."""

    x: Floats
    y: Floats
    dx: Floats
    dy: Floats
    x_end: Floats
    y_end: Floats


def _cross_two(part: _Part, at: Cells, right: Cells, up: Cells, grid: Grid) -> Cells:
    """Return the final cells of agents that cross two lines; the whole decision is a table.

    ``first`` is the cell across the line that is met first, ``second`` the one across the other::

        first a wall    second a wall: stay                else: second, stopped at the first line
        first free      target a wall: stay in first       else: target
    """
    if not (right * up).all():  # two lines of one axis
        return _cross_many(part, at, right, up, grid)
    stride, size = grid.stride, grid.cell_size
    row, column = np.divmod(at % grid.per_layout, stride)
    x_line, y_line = (column - 1 + (right > 0)) * size, (row - 1 + (up > 0)) * size
    with np.errstate(over="ignore"):  # times of tiny displacements
        y_first = (y_line - part.y) / part.dy < (x_line - part.x) / part.dx
    by_x, by_y, target = at + right, at + up * stride, at + up * stride + right
    first, second = np.where(y_first, by_y, by_x), np.where(y_first, by_x, by_y)
    stopped = grid.walls.take(first)
    part.x_end = np.where(stopped & ~y_first, x_line - right * WALL_MARGIN, part.x_end)
    part.y_end = np.where(stopped & y_first, y_line - up * WALL_MARGIN, part.y_end)
    around = np.where(grid.walls.take(second), at, second)
    through = np.where(grid.walls.take(target), first, target)
    return np.where(stopped, around, through)


def _cross_many(part: _Part, at: Cells, right: Cells, up: Cells, grid: Grid) -> Cells:
    """Return the final cells of agents that cross any number of lines, one line at a time."""
    stride, size = grid.stride, grid.cell_size
    row, column = np.divmod(at % grid.per_layout, stride)
    left_x, left_y = right.copy(), up.copy()  # lines still to cross
    cell = at.copy()
    moving = np.flatnonzero((left_x != 0) | (left_y != 0))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # axes at rest: masked
        while len(moving):
            sign_x, sign_y = np.sign(left_x[moving]), np.sign(left_y[moving])
            x_line = (column[moving] - 1 + (sign_x > 0)) * size
            y_line = (row[moving] - 1 + (sign_y > 0)) * size
            x_time = np.where(sign_x, (x_line - part.x[moving]) / part.dx[moving], np.inf)
            y_time = np.where(sign_y, (y_line - part.y[moving]) / part.dy[moving], np.inf)
            along_y = y_time < x_time
            after = cell[moving] + np.where(along_y, sign_y * stride, sign_x)
            wall = grid.walls[after]
            cell[moving] = np.where(wall, cell[moving], after)
            in_x, in_y = ~along_y & ~wall, along_y & ~wall
            column[moving] += sign_x * in_x
            row[moving] += sign_y * in_y
            left_x[moving] -= sign_x * in_x
            left_y[moving] -= sign_y * in_y
            for axis, left, end, line, sign in (
                (~along_y, left_x, part.x_end, x_line, sign_x),
                (along_y, left_y, part.y_end, y_line, sign_y),
            ):
                stopped = axis & wall
                left[moving[stopped]] = 0
                end[moving[stopped]] = (line - sign * WALL_MARGIN)[stopped]
            moving = moving[(left_x[moving] != 0) | (left_y[moving] != 0)]
    return cell


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
