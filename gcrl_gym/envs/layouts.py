"""Mazes made from a number: procedural ones, and fixed ones with random obstacles.

A `LayoutSet` holds the mazes that an environment's episodes take place in: a single one, or
numbered ones of which each episode draws one.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gcrl_gym.envs.mazes import LAYOUTS, NUM_TASKS, Maze, get_maze
from gcrl_gym.envs.nav2d_dynamics import Grid
from gcrl_gym.errors import UserError, nearest

PROCEDURAL = "procedural"
PROCEDURAL_CELLS = 11
"""Cells per side of a procedural maze; odd, since its corridors lie on every other cell."""
_OPENED = 0.12  # share of the walls between corridors that are opened, which makes loops
_SEED = 20_210  # keeps these numbers apart from other uses of the same seeds


@lru_cache(maxsize=4096)
def procedural_maze(seed: int) -> Maze:
    """Return a maze of corridors, with some loops, and five tasks; a function of its seed.

    Corridors are carved by a random walk that backtracks (a spanning tree of every other cell),
    then some of the walls between them are opened.

    Args:
        seed: whole number >= 0.
    """
    rng = np.random.default_rng((_SEED, seed))
    cells = PROCEDURAL_CELLS
    walls = np.ones((cells, cells), bool)
    path = [(0, 0)]
    walls[0, 0] = False
    while path:
        row, column = path[-1]
        steps = [(row + i, column + j) for i, j in ((2, 0), (-2, 0), (0, 2), (0, -2))]
        steps = [s for s in steps if min(s) >= 0 and max(s) < cells and walls[s]]
        if not steps:
            path.pop()
            continue
        chosen = steps[int(rng.integers(len(steps)))]
        walls[(row + chosen[0]) // 2, (column + chosen[1]) // 2] = False
        walls[chosen] = False
        path.append(chosen)
    rows, columns = np.indices(walls.shape)
    between = walls & ((rows + columns) % 2 == 1)  # a wall between two corridor cells
    walls[between & (rng.random(walls.shape) < _OPENED)] = False
    return _with_tasks(f"{PROCEDURAL}-{seed}", walls, rng)


@lru_cache(maxsize=4096)
def with_obstacles(name: str, obstacles: int, seed: int) -> Maze:
    """Return a maze in which random free cells became walls, and which still hangs together.

    The cells of the maze's tasks stay free, so its tasks stay the same.

    Args:
        name: layout.
        obstacles: number of cells.
        seed: whole number >= 0.

    Raises:
        UserError: the maze has no room for so many.
    """
    maze = layout(name)
    rng = np.random.default_rng((_SEED, seed, obstacles))
    kept = {tuple(cell) for task in maze.tasks for cell in task}
    walls, placed = maze.walls.copy(), 0
    for cell in map(tuple, rng.permutation(maze.free_cells).tolist()):
        if placed == obstacles:
            break
        if cell in kept:
            continue
        walls[cell] = True
        if _connected(walls):
            placed += 1
        else:
            walls[cell] = False
    if placed < obstacles:
        raise UserError(
            f"Maze {name!r} has room for {placed} random obstacles, not for {obstacles}."
        )
    return Maze(f"{maze.name}+{obstacles}-{seed}", walls, maze.tasks)


def layout(name: str) -> Maze:
    """Return the maze of a name: a fixed layout, or ``procedural-<seed>``.

    Raises:
        UserError: no such layout; names the nearest one.
    """
    kind, _, seed = name.partition("-")
    if kind == PROCEDURAL and seed.isdecimal():
        return procedural_maze(int(seed))
    if name in LAYOUTS:
        return get_maze(name)
    known = (*LAYOUTS, PROCEDURAL)
    raise UserError(
        f"Unknown maze {name!r}; the layouts are {', '.join(LAYOUTS)}, {PROCEDURAL} (another one in"
        f" every episode) and {PROCEDURAL}-0, {PROCEDURAL}-1, .. .{nearest(name, known)}"
    )


class LayoutSet:
    """The mazes of an environment: one, or ``count`` numbered ones made when first needed.

    Args:
        maze: name of a layout, ``procedural`` or ``procedural-<seed>``.
        obstacles: random wall cells added to it.
        count: how many different mazes, or arrangements of obstacles, there are.

    Raises:
        UserError: an unknown layout, or too many obstacles.
    """

    def __init__(self, maze: str, obstacles: int, count: int) -> None:
        self._name, self._obstacles = maze, obstacles
        self.count = count if maze == PROCEDURAL or obstacles else 1
        first = self._make(0)
        self._mazes: list[Maze | None] = [None] * self.count
        self.grid = Grid(len(first.walls), self.count)

    def __getitem__(self, index: int) -> Maze:
        """Return the maze of a number in 0 .. count - 1."""
        maze = self._mazes[index]
        if maze is None:
            maze = self._mazes[index] = self._make(index)
            self.grid.put(index, maze)
        return maze

    def _make(self, index: int) -> Maze:
        name = f"{PROCEDURAL}-{index}" if self._name == PROCEDURAL else self._name
        return with_obstacles(name, self._obstacles, index) if self._obstacles else layout(name)


def _with_tasks(name: str, walls: NDArray[np.bool_], rng: np.random.Generator) -> Maze:
    """Add five tasks with different cells, each at least half as far as any two cells are."""
    bare = Maze(name, walls, ())
    far = np.argwhere(bare.distances >= bare.distances.max() / 2)
    tasks: list[tuple[tuple[int, int], tuple[int, int]]] = []
    used: set[int] = set()
    for start, goal in rng.permutation(far).tolist():
        if not {start, goal} & used:
            used |= {start, goal}
            cells = bare.free_cells[[start, goal]].tolist()
            tasks.append((tuple(cells[0]), tuple(cells[1])))
        if len(tasks) == NUM_TASKS:
            break
    return Maze(name, walls, tuple(tasks))


def _connected(walls: NDArray[np.bool_]) -> bool:
    """Whether a path leads from every free cell to every other."""
    free = ~walls
    reached = np.zeros_like(free)
    reached[tuple(np.argwhere(free)[0])] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= free
        if (grown == reached).all():
            return bool((reached == free).all())
        reached = grown
