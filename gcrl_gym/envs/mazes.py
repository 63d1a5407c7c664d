"""Maze layouts of the Nav2D family: ASCII maps, geometry, and shortest paths on the cell graph.

The world is the square [0, 10] x [0, 10] with y pointing up. A map of n lines and n columns cuts
it into n x n cells of size 10 / n. Cells are named ``(row, column)`` with row 0 at the *bottom*
(y = 0), so that ``x`` grows with the column and ``y`` with the row; the text of a map is read as
it looks, top line first.

In a map ``#`` is a wall, ``.`` is free, and the letters mark the five evaluation tasks: task 1
starts at ``a`` and its goal is ``A``, task 2 goes from ``b`` to ``B``, up to ``e`` and ``E``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gcrl_gym.errors import UserError, nearest

if TYPE_CHECKING:
    from gcrl_gym.envs.nav2d_dynamics import Grid

WORLD_SIZE = 10.0
"""Side of the square world, in world units."""

WALL_MARGIN = 1e-4
"""Distance kept from every wall face, in world units. Well above the spacing of float32 numbers
near 10 (1e-6), so that rounding a position to float32 never puts it into a wall."""

NUM_TASKS = 5

LAYOUTS = MappingProxyType(
    {
        "open": """
            b...d....A
            ..........
            .......E..
            ..........
            ..........
            C........c
            ..........
            ..e.......
            ..........
            a....D...B
        """,
        "u_maze": """
            A.E.d
            b.C..
            ####.
            B.c..
            a.D.e
        """,
        "four_rooms": """
            b....#....A
            .....#.....
            ...........
            ..E..#...d.
            .....#.....
            #.####C....
            c....###.##
            .....#.....
            .....#.e...
            .D.........
            a....#....B
        """,
        "medium": """
            aD.#b.C
            ##.###.
            c#....E
            .#.#.##
            ...#..d
            .#.#.#.
            B.e...A
        """,
        "large": """
            aB.......#c
            ########.#.
            .......#...
            .#.#.#.###.
            .#D........
            .#.#####.#.
            .#...#....E
            .###.###.#.
            .#.C.#....d
            e#.###.####
            A#........b
        """,
        "giant": """
            a..#.....#....C
            .#.#.###.#.##..
            .#...#...#.#..#
            .###.#.###.#.##
            B..#.#.....#..E
            ##.#.#####.##.#
            c..#.....#....#
            .####.##.#.##..
            ....#.#..#..#.d
            .##.#.#.###.#.#
            .#..#.#...#.#..
            .#.##.###.#.##.
            .#....#...#..#b
            .####.#.###.##.
            e...D.#.......A
        """,
    }
)
"""Map of each layout by name, roughly in order of difficulty."""

Cell = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Maze:
    """A layout: its wall grid, its evaluation tasks, and what follows from them.

    Attributes:
        name: name of the layout, for messages.
        walls: (n, n) bool, ``walls[row, column]`` with row 0 at the bottom; True is a wall.
        tasks: five ``(start cell, goal cell)`` pairs; task 1 is ``tasks[0]``.
    """

    name: str
    walls: NDArray[np.bool_]
    tasks: tuple[tuple[Cell, Cell], ...]

    @cached_property
    def cell_size(self) -> float:
        """Side of a cell in world units."""
        return WORLD_SIZE / len(self.walls)

    @cached_property
    def free_cells(self) -> NDArray[np.int64]:
        """(F, 2) free cells as (row, column), row by row from the bottom."""
        return np.argwhere(~self.walls)

    @cached_property
    def free_centers(self) -> NDArray[np.float64]:
        """(F, 2) centres x, y of the free cells."""
        return self.cell_center(self.free_cells)

    @cached_property
    def cell_index(self) -> NDArray[np.int64]:
        """(n, n) position of each cell in ``free_cells``; -1 for walls."""
        index = np.full(self.walls.shape, -1, dtype=np.int64)
        index[tuple(self.free_cells.T)] = np.arange(len(self.free_cells))
        return index

    def cell_center(self, cell: ArrayLike) -> NDArray[np.float64]:
        """Centre of cells (..., 2) as (x, y) in world units, shape (..., 2)."""
        return (np.asarray(cell)[..., ::-1] + 0.5) * self.cell_size

    def cell_of(self, xy: ArrayLike) -> NDArray[np.int64]:
        """Cell (row, column) that holds each position (..., 2); outside the world: nearest cell."""
        cells = np.floor(np.asarray(xy, dtype=np.float64)[..., ::-1] / self.cell_size)
        return np.clip(cells, 0, len(self.walls) - 1).astype(np.int64)

    def is_free(self, xy: ArrayLike) -> NDArray[np.bool_]:
        """Whether each position (..., 2) lies in the world and outside the walls, shape (...)."""
        xy = np.asarray(xy, dtype=np.float64)
        cells = self.cell_of(xy)
        inside = np.all((xy >= 0.0) & (xy <= WORLD_SIZE), axis=-1)
        return np.asarray(inside & ~self.walls[cells[..., 0], cells[..., 1]])

    def sample_free(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """Draw n positions uniformly from the free space, off every cell edge; shape (n, 2)."""
        cells = self.free_cells[rng.integers(len(self.free_cells), size=n)]
        half = self.cell_size / 2 - WALL_MARGIN
        return self.cell_center(cells) + rng.uniform(-half, half, size=(n, 2))

    @cached_property
    def distances(self) -> NDArray[np.int64]:
        """(F, F) number of moves between free cells (indices into ``free_cells``), 4-neighbours.

        -1 where there is no path; no layout that passes ``parse_maze`` has such a pair.
        """
        return _all_pairs_distances(_adjacency(self))

    @cached_property
    def next_cell(self) -> NDArray[np.int64]:
        """(F, F) ``next_cell[a, b]``: the neighbour of a on a shortest path to b; a where a = b.

        Following the table from any cell reaches b after ``distances[a, b]`` moves.
        """
        neighbours, distances = _adjacency(self), self.distances
        table = np.tile(np.arange(len(distances))[:, None], (1, len(distances)))
        for cell, row in enumerate(neighbours):
            options = np.flatnonzero(row)
            closest = options[np.argmin(distances[options], axis=0)]
            table[cell] = np.where(distances[cell] > 0, closest, cell)
        return table

    @cached_property
    def padded_walls(self) -> NDArray[np.bool_]:
        """(n + 2, n + 2) the wall grid inside a ring of walls: the border of the world."""
        return np.pad(self.walls, 1, constant_values=True)

    @cached_property
    def bounds(self) -> NDArray[np.float64]:
        """(n, n, 2, 2) ``bounds[row, column] = (low xy, high xy)`` of an agent in that cell.

        They lie ``WALL_MARGIN`` before each side that is a wall; infinite at sides that are open.
        """
        rows, columns = np.indices(self.walls.shape)
        padded, edges = self.padded_walls, np.arange(len(self.walls) + 1) * self.cell_size
        low, high = edges[:-1] + WALL_MARGIN, edges[1:] - WALL_MARGIN
        low_x = np.where(padded[1:-1, :-2], low[columns], -np.inf)
        low_y = np.where(padded[:-2, 1:-1], low[rows], -np.inf)
        high_x = np.where(padded[1:-1, 2:], high[columns], np.inf)
        high_y = np.where(padded[2:, 1:-1], high[rows], np.inf)
        return np.stack([np.stack([low_x, low_y], -1), np.stack([high_x, high_y], -1)], axis=-2)

    @cached_property
    def bounds_table(self) -> list[list[tuple[float, float, float, float]]]:
        """``bounds`` as Python floats (low x, low y, high x, high y), for scalar code."""
        return [[tuple(cell.ravel().tolist()) for cell in row] for row in self.bounds]

    @cached_property
    def wall_table(self) -> list[list[bool]]:
        """``padded_walls`` as Python bools, for scalar code."""
        return self.padded_walls.tolist()  # type: ignore[no-any-return]

    @cached_property
    def grid(self) -> Grid:
        """The tables that `nav2d_dynamics.move_columns` reads."""
        from gcrl_gym.envs.nav2d_dynamics import Grid

        grid = Grid(len(self.walls))
        grid.put(0, self)
        return grid

    def keep_off_walls(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Move positions (..., 2) of free cells by at most ``WALL_MARGIN``, off the wall faces."""
        xy = np.asarray(xy, dtype=np.float64)
        cells = self.cell_of(xy)
        bounds = self.bounds[cells[..., 0], cells[..., 1]]
        return np.asarray(np.clip(xy, bounds[..., 0, :], bounds[..., 1, :]))


def _adjacency(maze: Maze) -> NDArray[np.bool_]:
    """(F, F) True where two free cells share a side."""
    cells = maze.free_cells
    return np.asarray(np.abs(cells[:, None] - cells[None]).sum(axis=-1) == 1)


def _all_pairs_distances(adjacent: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Breadth-first search from every cell at once; -1 where there is no path."""
    steps = adjacent.astype(np.float32)
    distances = np.where(np.eye(len(adjacent), dtype=bool), 0, -1)
    frontier = np.eye(len(adjacent), dtype=bool)
    while frontier.any():
        frontier = (frontier @ steps > 0) & (distances < 0)
        distances[frontier] = distances.max() + 1
    return distances


def parse_maze(name: str, text: str) -> Maze:
    """Read a map (see the module's docstring for the format).

    Raises:
        UserError: the map is not square, has unknown characters, an unreachable free cell, or
            does not mark all five tasks.
    """
    lines = text.split()
    if not lines or any(len(line) != len(lines) for line in lines):
        widths = sorted({len(line) for line in lines})
        raise UserError(
            f"Map {name!r} must be square, but has {len(lines)} lines of width {widths}."
        )
    marks = {
        mark: (len(lines) - 1 - line, column)
        for line, row in enumerate(lines)
        for column, mark in enumerate(row)
    }
    unknown = sorted(set(marks) - set("#.abcdeABCDE"))
    if unknown:
        raise UserError(f"Map {name!r} has the unknown character {unknown[0]!r}; use # . a-e A-E.")
    missing = [mark for mark in "aAbBcCdDeE" if "".join(lines).count(mark) != 1]
    if missing:
        raise UserError(f"Map {name!r} must hold the task mark {missing[0]!r} exactly once.")
    walls = np.array([[mark == "#" for mark in line] for line in reversed(lines)])
    tasks = tuple((marks[start], marks[start.upper()]) for start in "abcde")
    maze = Maze(name, walls, tasks)
    if (maze.distances < 0).any():
        row, column = maze.free_cells[int(np.argmax(maze.distances[0] < 0))]
        raise UserError(
            f"Map {name!r} is cut in two: no path leads to the cell in row {row}, column {column}"
            " (counted from the bottom left); open a wall."
        )
    return maze


@cache
def get_maze(name: str) -> Maze:
    """Return the layout of that name; the same object at every call.

    Raises:
        UserError: no such layout; names the nearest one.
    """
    if name not in LAYOUTS:
        raise UserError(
            f"Unknown maze {name!r}; the layouts are {', '.join(LAYOUTS)}.{nearest(name, LAYOUTS)}"
        )
    return parse_maze(name, LAYOUTS[name])
