"""Scripted Nav2D policies on many agents at once: waypoint following on the maze graph.

An agent on its way to a target looks at the next cells of a shortest path and heads straight for
the farthest one that it can reach while keeping clear of the walls: paths that graze corners are
learnt badly, because the slightest error ends at the wall. Discrete agents take, of their moves,
the one that leaves the shortest way; the discrete expert searches its reachable positions instead,
because walls shift the lattice it lives on and a greedy agent may then oscillate for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gcrl_gym.envs.mazes import Maze
from gcrl_gym.envs.nav2d_dynamics import move

Positions = npt.NDArray[np.float64]
Cells = npt.NDArray[np.int64]
Actions = npt.NDArray[Any]  # (N, 2) float32, or (N,) int64

DIRECTIONS = np.array([[0.0, 1.0], [0.0, -1.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
"""Displacements of Nav2DDiscrete's actions 0..4 in steps: up, down, left, right, stay."""

_LOOKAHEAD = 8
_REACHED = 1e-6
_CLEARANCE = 0.2  # half the width of a free way, in cells
_CORNERS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


@dataclass(frozen=True)
class Walker:
    """How agents move and how clumsy they are.

    Args:
        maze: the layout.
        step_size: length of a full step in world units.
        discrete: five moves instead of a displacement per axis.
        random_share: probability that an action is drawn uniformly instead.
        spread: standard deviation of the Gaussian noise on continuous actions.
    """

    maze: Maze
    step_size: float
    discrete: bool
    random_share: float
    spread: float

    def act(self, positions: Positions, targets: Positions, rng: np.random.Generator) -> Actions:
        """Return an action for each agent at ``positions`` (N, 2) on its way to ``targets``.

        Returns:
            ``(N, 2)`` float32 in [-1, 1], or ``(N,)`` int64 in 0..4.
        """
        count = len(positions)
        clumsy = rng.random(count) < self.random_share
        if self.discrete:
            chosen = np.zeros(count, np.int64) if clumsy.all() else self._greedy(positions, targets)
            return np.where(clumsy, rng.integers(0, 5, size=count), chosen)
        steps = np.zeros((count, 2)) if clumsy.all() else self._straight(positions, targets)
        steps = np.clip(steps + rng.normal(0.0, self.spread, (count, 2)), -1.0, 1.0)
        steps = np.where(clumsy[:, None], rng.uniform(-1.0, 1.0, (count, 2)), steps)
        return steps.astype(np.float32)

    def displacements(self, actions: Actions) -> Positions:
        """Displacement in world units that each action asks for, as the environment computes it."""
        if self.discrete:
            return self.step_size * DIRECTIONS[actions]
        return self.step_size * actions.astype(np.float64)

    def _straight(self, positions: Positions, targets: Positions) -> Positions:
        """Head for the farthest visible point of the path, at full speed until it is near."""
        offsets = (self._visible_waypoints(positions, targets) - positions) / self.step_size
        longest = np.abs(offsets).max(axis=1, keepdims=True)
        return np.asarray(offsets / np.maximum(longest, 1.0))

    def _visible_waypoints(self, positions: Positions, targets: Positions) -> Positions:
        """Farthest of the next path cells, or the target, at the end of a straight free way."""
        index, table = self.maze.cell_index, self.maze.next_cell
        cells = index[tuple(self.maze.cell_of(positions).T)]
        goals = index[tuple(self.maze.cell_of(targets).T)]
        # The way to the centre of the next cell is always free: two neighbours form a rectangle.
        best = targets
        for step in range(_LOOKAHEAD):
            arrived = cells == goals
            cells = table[cells, goals]
            centres = self.maze.cell_center(self.maze.free_cells[cells])
            points = np.where((arrived | (cells == goals))[:, None], targets, centres)
            if step == 0:
                best = np.where(arrived[:, None], targets, centres)
            best = np.where(self._is_free(positions, points)[:, None], points, best)
        return best

    def _is_free(self, starts: Positions, ends: Positions) -> npt.NDArray[np.bool_]:
        """Whether a square walks from start to end untouched, as wide as there is room at both."""
        free = np.ones(len(starts), bool)
        for corner in _CLEARANCE * self.maze.cell_size * _CORNERS:
            shift = np.tile(corner, (len(starts), 1))
            here, there = move(starts, shift, self.maze), move(ends, shift, self.maze)
            gaps = np.abs(move(here, there - here, self.maze) - there)
            free &= (gaps < _REACHED).all(axis=1)
        return free

    def _greedy(self, positions: Positions, targets: Positions) -> Cells:
        """Take the move after which the way along the path is shortest."""
        steps = self.step_size * DIRECTIONS
        reached = [move(positions, np.tile(step, (len(positions), 1)), self.maze) for step in steps]
        ways = np.stack([self._way(places, targets) for places in reached])
        return np.asarray(ways.argmin(axis=0), np.int64)

    def _way(self, positions: Positions, targets: Positions) -> npt.NDArray[np.float64]:
        """Length of the way from each position to its target along cell centres."""
        maze, index = self.maze, self.maze.cell_index
        cells = index[tuple(maze.cell_of(positions).T)]
        goals = index[tuple(maze.cell_of(targets).T)]
        following = maze.next_cell[cells, goals]
        near = (cells == goals) | (following == goals)
        points = np.where(near[:, None], targets, maze.cell_center(maze.free_cells[following]))
        rest = np.where(near, 0, maze.distances[following, goals]) * maze.cell_size
        length: npt.NDArray[np.float64] = np.abs(points - positions).sum(axis=1) + rest
        return length


def shortest_plans(
    starts: Positions,
    goals: npt.NDArray[np.floating],
    tolerance: float,
    step_size: float,
    maze: Maze,
) -> list[Cells]:
    """Shortest sequences of discrete actions that bring each agent within tolerance of its goal.

    A breadth-first search over the positions that each agent can really reach, for all agents at
    once.

    Args:
        starts: ``(N, 2)`` positions in free cells, off the walls.
        goals: ``(N, 2)``.
        tolerance: distance that counts as reached.
        step_size: length of a step.
        maze: the layout.

    Returns:
        One array of actions per agent; empty where no sequence reaches the goal.
    """
    plans: list[Cells] = [np.zeros(0, np.int64) for _ in starts]
    agents, places = np.arange(len(starts)), np.asarray(starts, np.float64)
    seen = _keys(agents, places)
    history: list[tuple[Cells, Cells]] = []  # per level: parent in the level before, action
    open_agents = np.ones(len(starts), bool)
    while len(agents):
        moves = np.tile(np.arange(4), len(agents))
        parents = np.repeat(np.arange(len(agents)), 4)
        places = move(places[parents], step_size * DIRECTIONS[moves], maze)
        keys, first = np.unique(_keys(agents[parents], places), return_index=True)
        new = first[np.isin(keys, seen, assume_unique=True, invert=True)]
        seen = np.concatenate([seen, _keys(agents[parents[new]], places[new])])
        history.append((parents[new], moves[new]))
        agents, places = agents[parents[new]], places[new]
        gaps = places.astype(np.float32).astype(np.float64) - goals[agents]
        for node in np.flatnonzero(np.sqrt((gaps * gaps).sum(axis=1)) <= tolerance):
            if open_agents[agents[node]]:
                open_agents[agents[node]] = False
                plans[agents[node]] = _trace(history, int(node))
        keep = open_agents[agents]
        history[-1] = tuple(column[keep] for column in history[-1])  # type: ignore[assignment]
        agents, places = agents[keep], places[keep]
    return plans


def _trace(history: list[tuple[Cells, Cells]], node: int) -> Cells:
    """Follow the parents back from a node of the last level."""
    actions = []
    for parents, moves in reversed(history):
        actions.append(moves[node])
        node = int(parents[node])
    return np.array(actions[::-1], np.int64)


def _keys(agents: Cells, positions: Positions) -> Cells:
    """One integer per agent and position; positions that differ by rounding share it."""
    bins = np.round(positions * 500).astype(np.int64)
    return (agents * 10_000 + bins[:, 0]) * 10_000 + bins[:, 1]
