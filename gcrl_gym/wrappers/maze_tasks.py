"""Fixed evaluation tasks for the mazes of Gymnasium-Robotics, which have none of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym

NUM_TASKS = 5

Cell = tuple[int, int]  # row, column


def maze_tasks(env: gym.Env[Any, Any]) -> list[dict[str, list[int]]]:
    """Return the reset options of up to five tasks of a maze; none where ``env`` is no maze.

    The first task goes between the two cells farthest apart on foot. Every other goal is the cell
    farthest from the goals before it, and its start the cell farthest from it. Positions in the
    cells vary with the seed of the reset, as the maze's own do.

    Args:
        env: ``PointMaze_*`` and ``AntMaze_*``, or any environment whose ``maze.maze_map`` marks
            walls with 1 and which takes the reset options ``goal_cell`` and ``reset_cell``.
    """
    layout = getattr(getattr(env.unwrapped, "maze", None), "maze_map", None)
    if layout is None:
        return []
    steps = {cell: distances(layout, cell) for cell in free_cells(layout)}
    # The farthest cell of each, and of these the farthest pair; ties go to the first cell.
    farthest = {cell: max(reach, key=lambda c: reach[c]) for cell, reach in steps.items()}
    start = max(farthest, key=lambda cell: steps[cell][farthest[cell]])
    goals = [farthest[start]]
    reachable = steps[start]
    while len(goals) < min(NUM_TASKS, len(reachable) - 1):
        goals.append(max(reachable, key=lambda cell: min(steps[g][cell] for g in goals)))
    starts = [start, *(farthest[goal] for goal in goals[1:])]
    return [
        {"reset_cell": list(start), "goal_cell": list(goal)}
        for start, goal in zip(starts, goals)
        if start != goal
    ]


def free_cells(layout: Sequence[Sequence[Any]]) -> list[Cell]:
    """Return the cells (row, column) of a map whose walls are 1."""
    return [
        (row, column)
        for row, line in enumerate(layout)
        for column, mark in enumerate(line)
        if mark != 1
    ]


def distances(layout: Sequence[Sequence[Any]], start: Cell) -> dict[Cell, int]:
    """Return the steps from ``start`` to every cell that can be reached, itself included."""
    free = set(free_cells(layout))
    found, frontier = {start: 0}, [start]
    for row, column in frontier:  # grows while it is read
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if cell in free and cell not in found:
                found[cell] = found[(row, column)] + 1
                frontier.append(cell)
    return found
