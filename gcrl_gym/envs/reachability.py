"""Which goals a discrete, noise-free Nav2D agent can reach.

Its unit steps keep it on a lattice anchored at its start, so that a small goal tolerance leaves
holes between the lattice points. Every wall that stops it short shifts the lattice, which fills
holes at the price of detours; and a door can only be passed where the lattice meets it. What walls
make of it is measured, by searching the positions themselves.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gcrl_gym.envs.mazes import Maze, get_maze
from gcrl_gym.envs.nav2d_dynamics import move
from gcrl_gym.errors import UserError


def refuse_unreachable_goals(step_size: float, goal_tolerance: float) -> None:
    """Refuse settings with which a noise-free discrete agent cannot reach every goal.

    A tolerance without lattice gap suffices in all our layouts, doors included: the tests measure
    ``unreachable_fraction`` over the allowed step sizes.

    Raises:
        UserError: some goals are out of reach; names their share.
    """
    gap = lattice_gap(goal_tolerance / step_size)
    if gap > 0.0:
        needed = math.ceil(math.sqrt(0.5) * step_size * 1000) / 1000
        raise UserError(
            f"goal_tolerance {goal_tolerance:g} with step_size {step_size:g} and noise 0 leaves"
            f" {gap:.1%} of the goals unreachable by whole steps from the start (detours along"
            f" walls aside); use a goal_tolerance of at least {needed:g}, a smaller step_size, or"
            " noise (such as 0.1)."
        )


def lattice_gap(ratio: float) -> float:
    """Share of the plane farther than ``ratio`` from every point of the integer lattice, exactly.

    That is the share of goals which an agent with steps of length 1 and goal tolerance ``ratio``
    cannot reach in an endless world without walls; 0 from ``sqrt(1/2)`` on.
    """
    if ratio >= math.sqrt(0.5):
        return 0.0
    covered = math.pi * ratio * ratio
    if ratio > 0.5:  # the discs of neighbouring points overlap: count each overlap once
        lens = ratio**2 * math.acos(0.5 / ratio) - 0.5 * math.sqrt(ratio**2 - 0.25)
        covered -= 4.0 * lens
    return 1.0 - covered


@cache
def unreachable_fraction(
    maze: str, step_size: float, goal_tolerance: float, num_starts: int = 4, num_goals: int = 500
) -> float:
    """Share of random goals that a noise-free discrete agent can never reach, measured.

    Args:
        maze: name of the layout.
        step_size: length of a step in world units.
        goal_tolerance: distance that counts as reached.
        num_starts: starts drawn uniformly (always the same ones), over which the share is averaged.
        num_goals: goals drawn uniformly for each start.

    Returns:
        A share in [0, 1].
    """
    layout, rng = get_maze(maze), np.random.default_rng(0)
    shares = []
    for start in layout.sample_free(rng, num_starts):
        goals = layout.sample_free(rng, num_goals)
        steps = fewest_steps(start, goals, goal_tolerance, step_size, layout)
        shares.append(np.mean(steps < 0))
    return float(np.mean(shares))


def fewest_steps(
    start: ArrayLike,
    goals: ArrayLike,
    tolerance: float,
    step_size: float,
    maze: Maze,
) -> NDArray[np.int64]:
    """Fewest noise-free steps up, down, left or right that bring each goal within tolerance.

    A breadth-first search over the positions themselves, walls included: the lattice of a
    discrete agent is anchored at its start, and every wall it touches shifts it.

    Args:
        start: (2,) position of the agent, in a free cell.
        goals: (G, 2) positions.
        tolerance: distance that counts as reached.
        step_size: length of a step.
        maze: the layout.

    Returns:
        (G,) number of steps; -1 for goals that stay out of reach forever.
    """
    moves = step_size * np.array([[0.0, 1.0], [0.0, -1.0], [-1.0, 0.0], [1.0, 0.0]])
    goals = np.asarray(goals, dtype=np.float64)
    steps = np.full(len(goals), -1, dtype=np.int64)
    frontier = maze.keep_off_walls(start)[None]
    seen = _keys(frontier)
    level = 0
    while len(frontier) and (steps < 0).any():
        waiting = np.flatnonzero(steps < 0)
        offsets = frontier[:, None] - goals[waiting]  # (frontier, waiting goals, 2)
        near = (np.sum(offsets * offsets, axis=-1) <= tolerance * tolerance).any(axis=0)
        steps[waiting[near]] = level
        reached = move(np.repeat(frontier, 4, axis=0), np.tile(moves, (len(frontier), 1)), maze)
        keys, first = np.unique(_keys(reached), return_index=True)
        new = np.isin(keys, seen, assume_unique=True, invert=True)
        frontier, seen = reached[first[new]], np.concatenate([seen, keys[new]])
        level += 1
    return steps


def _keys(positions: NDArray[np.float64]) -> NDArray[np.int64]:
    """One integer per position; those that differ by rounding or a wall margin share it."""
    bins = np.round(positions * 500).astype(np.int64)
    return bins[:, 0] * 100_000 + bins[:, 1]
