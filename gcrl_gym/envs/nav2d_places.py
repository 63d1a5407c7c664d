"""Where episodes of Nav2D start and where their goals are.

All draws are uniform numbers, ``WIDTH`` of them per attempt, for one agent or for many at once, so
that the single and the vector environment take the same numbers from a generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from gcrl_gym.envs.goal_env import check_task_id
from gcrl_gym.envs.mazes import NUM_TASKS, WALL_MARGIN, WORLD_SIZE, Cell, Maze
from gcrl_gym.errors import UserError, nearest

WIDTH = 7
"""Numbers of an attempt: layout; start cell, x, y; goal cell, x, y."""

TASK_JITTER = 0.25
"""Largest distance, in cells and per axis, of a task's start and goal from their cell centres."""

NEARBY = 3
"""A near goal lies at most this many moves from cell to cell away."""

Floats = NDArray[np.float64]
Where = Literal["uniform", "near", "far"]
Place = tuple[float, float]


@dataclass(frozen=True)
class Places:
    """How start and goal are chosen.

    Args:
        start: a fixed position x, y, or None: uniform over the free space.
        goal: a fixed position, or ``uniform`` over the free space, ``near``: in a cell at most
            `NEARBY` moves from the start's, ``far``: at least half as far from it as any cell is.
        task: cells of start and goal, which take the place of the other two.
        layout: number of the maze; None draws one.
    """

    start: Place | None = None
    goal: Place | Where = "uniform"
    task: tuple[Cell, Cell] | None = None
    layout: int | None = None

    @property
    def fixed(self) -> bool:
        """Whether nothing is left to chance."""
        return self.start is not None and not isinstance(self.goal, str) and self.task is None


def propose(maze: Maze, uniforms: Floats, places: Places) -> tuple[Floats, Floats]:
    """Return one attempt at a start and a goal for each agent, which may be too close.

    Args:
        maze: the layout.
        uniforms: (K, WIDTH) numbers in [0, 1).
        places: the rule.

    Returns:
        Starts, off the walls, and goals, (K, 2) each.
    """
    if places.task is not None:
        reach = TASK_JITTER * maze.cell_size
        start, goal = (
            maze.cell_center(cell) + reach * (2.0 * uniforms[:, at : at + 2] - 1.0)
            for cell, at in zip(places.task, (2, 5))
        )
        return start, goal
    if places.start is None:
        cells = (uniforms[:, 1] * len(maze.free_cells)).astype(np.int64)
        start = _within(maze, cells, uniforms[:, 2:4])
    else:
        fixed = maze.keep_off_walls(np.asarray(places.start, np.float64))
        start = np.tile(fixed, (len(uniforms), 1))
    return start, propose_goals(maze, start, uniforms, places.goal)


def propose_goals(maze: Maze, start: Floats, uniforms: Floats, where: Place | Where) -> Floats:
    """Return one attempt at a goal (K, 2) for agents that are at ``start`` (K, 2)."""
    if not isinstance(where, str):
        return np.tile(np.asarray(where, np.float64), (len(uniforms), 1))
    if where == "uniform":
        cells = (uniforms[:, 4] * len(maze.free_cells)).astype(np.int64)
    else:
        rows, columns = maze.cell_of(start).T
        moves = maze.distances[maze.cell_index[rows, columns]]  # (K, F)
        allowed = moves <= NEARBY if where == "near" else 2 * moves >= moves.max(1, keepdims=True)
        rank = np.cumsum(allowed, axis=1)
        wanted = (uniforms[:, 4] * rank[:, -1]).astype(np.int64) + 1
        cells = np.argmax(rank == wanted[:, None], axis=1)
    return _within(maze, cells, uniforms[:, 5:7])


def _within(maze: Maze, cells: NDArray[np.int64], uniforms: Floats) -> Floats:
    """Return positions in free cells, off their edges."""
    half = maze.cell_size / 2 - WALL_MARGIN
    return maze.free_centers[cells] + half * (2.0 * uniforms - 1.0)


# What users may ask for -----------------------------------------------------------------------

OPTIONS = ("task_id", "start", "goal", "layout")


def check_places(start: Any, goal: Any, maze: Maze | None) -> Places:
    """Return the environment's keywords ``start`` and ``goal`` as a rule.

    Args:
        start: ``uniform`` or a position.
        goal: ``uniform``, ``near``, ``far`` or a position.
        maze: where positions must be free; None where the maze changes.

    Raises:
        UserError: another word, a position inside a wall.
    """
    for name, value, words in (
        ("start", start, ("uniform",)),
        ("goal", goal, get_args(Where)),
    ):
        if isinstance(value, str) and value not in words:
            raise UserError(
                f"Unknown {name} {value!r}; use {', '.join(words)} or a position (x, y)."
                f"{nearest(value, words)}"
            )
    return Places(
        None if isinstance(start, str) else check_position("start", start, maze),
        cast("Where", goal) if isinstance(goal, str) else check_position("goal", goal, maze),
    )


def check_options(options: Mapping[str, Any], places: Places, count: int) -> Places:
    """Return the rule of a reset; positions are checked later, when the maze is known.

    Args:
        options: reset options of one environment.
        places: the environment's own rule.
        count: number of layouts.

    Raises:
        UserError: an unknown option, or ones that exclude each other.
    """
    for key in options:
        if key not in OPTIONS:
            raise UserError(
                f"Unknown reset option {key!r}; use task_id, or start, goal and layout."
                f"{nearest(key, OPTIONS)}"
            )
    layout = options.get("layout")
    if layout is not None:
        whole = isinstance(layout, int | np.integer) and not isinstance(layout, bool)
        if not whole or not 0 <= layout < count:
            raise UserError(
                f"Reset option layout must be a whole number from 0 to {count - 1}, got {layout!r}."
            )
        places = replace(places, layout=int(layout))
    if "task_id" in options:
        if {"start", "goal"} & set(options):
            raise UserError("Reset option task_id already fixes start and goal; give it alone.")
        task = check_task_id(options["task_id"], NUM_TASKS)
        if layout is None:  # with many mazes, task k is that of maze k - 1
            return replace(places, layout=(task - 1) % count)
    return places


def apply_options(options: Mapping[str, Any], places: Places, maze: Maze) -> Places:
    """Put the positions or the task of reset options, in this maze, into the rule.

    Raises:
        UserError: a position that is none, or inside a wall.
    """
    if "task_id" in options:
        return replace(places, task=maze.tasks[int(options["task_id"]) - 1])
    if "start" in options:
        places = replace(places, start=check_position("start", options["start"], maze))
    if "goal" in options:
        places = replace(places, goal=check_position("goal", options["goal"], maze))
    return places


def check_position(key: str, value: Any, maze: Maze | None) -> Place:
    """Return an option that is a position.

    Raises:
        UserError: not two finite numbers, or not in the free space.
    """
    try:
        xy = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        xy = np.empty(0)
    if xy.shape != (2,) or not np.isfinite(xy).all():
        raise UserError(f"Option {key!r} must be two finite numbers x, y; got {value!r}.")
    inside = bool(((xy >= 0.0) & (xy <= WORLD_SIZE)).all())
    if not inside or (maze is not None and not maze.is_free(xy)):
        where = "inside a wall" if inside else f"outside [0, {WORLD_SIZE:g}]^2"
        named = f" in maze {maze.name!r}" if maze is not None else ""
        raise UserError(
            f"Option {key!r} {xy.tolist()} is {where}{named};"
            " choose a free position (env.unwrapped.maze.sample_free draws one)."
        )
    return float(xy[0]), float(xy[1])


def too_close(places: Places, tolerance: float) -> UserError:
    """Return the error of a start and a goal that leave nothing to do."""
    if not places.fixed:
        return UserError(
            f"No start and goal farther apart than the goal tolerance {tolerance:g} were found; use"
            " a smaller goal_tolerance, or another start or goal."
        )
    return UserError(
        f"Start {list(places.start or ())} and goal {list(places.goal)} are within the goal"
        f" tolerance {tolerance:g}; move them apart."
    )
