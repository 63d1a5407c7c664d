"""Environments of today with the observations of D4RL's data.

The entry points of the environment specs that are stored with converted D4RL datasets.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from gcrl_gym.errors import UserError, nearest

Floats = NDArray[np.float64]

_RADIUS = 0.5  # of success, in D4RL's mazes
_BODY_COLUMNS = 27
_FORCE_COLUMNS = 84

# D4RL's layouts: '#' wall, 'G' goal of evaluation. antmaze-umaze has its goal in the last row.
_LAYOUTS = {
    "umaze": ("#####", "#GOO#", "###O#", "#OOO#", "#####"),
    "medium": (
        "########",
        "#OO##OO#",
        "#OO#OOO#",
        "##OOO###",
        "#OO#OOO#",
        "#O#OO#O#",
        "#OOO#OG#",
        "########",
    ),
    "large": (
        "############",
        "#OOOO#OOOOO#",
        "#O##O#O#O#O#",
        "#OOOOOO#OOO#",
        "#O####O###O#",
        "#OO#O#OOOOO#",
        "##O#O#O#O###",
        "#OO#OOO#OGO#",
        "############",
    ),
}
_GOAL_CELLS = {"umaze": (1, 1), "medium": (6, 6), "large": (7, 9)}
_ANT_START, _ANT_UMAZE_GOAL = (1, 1), (3, 1)


class D4RLMaze(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A maze of Gymnasium-Robotics with the coordinates, goal, reward and flat states of D4RL.

    The reward is judged at the state after the step: 1 within 0.5 of the goal and else 0, or
    ``exp(-distance)``. antmaze terminates at the goal, maze2d goes on. The info has ``success``
    and ``goal``. ``compute_reward`` takes batches of goals, for hindsight relabelling.

    Args:
        env: the maze, laid out so that its coordinates differ from the data's by a shift only.
        shift: added to x and y of the maze, ``(2,)``.
        goal: of evaluation, in the coordinates of the data, ``(2,)``.
        spread: the goal of an episode is ``goal`` plus a draw from the sum of uniform numbers
            between 0 and each of these; for maze2d between minus and plus.
        goals: Dict observations (observation, achieved and desired goal) instead of flat ones.
        dense: the dense reward.
        ant: antmaze instead of maze2d.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        shift: Floats,
        goal: Floats,
        spread: tuple[float, ...],
        *,
        goals: bool,
        dense: bool,
        ant: bool,
    ) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._shift, self._base, self._spread = shift, goal, spread
        self._goals, self._dense, self._ant = goals, dense, ant
        self._goal = goal.copy()
        width = 2 + _BODY_COLUMNS if ant else 4
        box: gym.Space[Any] = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        if goals:
            xy = spaces.Box(-np.inf, np.inf, (2,), np.float32)
            box = spaces.Dict({"observation": box, "achieved_goal": xy, "desired_goal": xy})
        self.observation_space = box

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode: antmaze in D4RL's start cell, maze2d anywhere."""
        maze: Any = self.env.unwrapped
        cells: dict[str, Any] = {} if options is None else dict(options)
        _, info = self.env.reset(seed=seed, options={**self._cells(), **cells})
        low = 0.0 if self._ant else -1.0
        noise = sum(maze.np_random.uniform(low, 1.0, 2) * size for size in self._spread)
        self._goal = self._base + noise
        maze.goal = self._goal - self._shift
        maze.update_target_site_pos()
        state = self._state()
        return self._observation(state), {**info, **self._info(state)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        _, _, _, truncated, info = self.env.step(action)
        state = self._state()
        success = self._info(state)
        reward = float(self.compute_reward(state[:2], self._goal))
        terminated = self._ant and bool(success["is_success"])
        return self._observation(state), reward, terminated, truncated, {**info, **success}

    def compute_reward(self, achieved: Any, desired: Any, info: Any = None) -> Any:
        """Return the reward of states at ``achieved`` for the goals ``desired``, ``(..., 2)``."""
        distance = np.linalg.norm(np.asarray(achieved) - np.asarray(desired), axis=-1)
        return np.exp(-distance) if self._dense else (distance <= _RADIUS).astype(np.float32)

    def compute_terminated(self, achieved: Any, desired: Any, info: Any = None) -> Any:
        """Return whether an episode terminates at ``achieved``, ``(..., 2)``."""
        distance = np.linalg.norm(np.asarray(achieved) - np.asarray(desired), axis=-1)
        return (distance <= _RADIUS) & self._ant

    def _cells(self) -> dict[str, Any]:
        """Where to start, as the maze's reset takes it."""
        maze: Any = self.env.unwrapped
        xy = maze.maze.cell_xy_to_rowcol
        cells = {"goal_cell": xy(self._base - self._shift)}
        if self._ant:
            start = _ant_start(self._shift)
            cells["reset_cell"] = xy(start)
        return cells

    def _state(self) -> Floats:
        """Positions and velocities, in the coordinates of the data."""
        data = (self.env.unwrapped.ant_env if self._ant else self.env.unwrapped.point_env).data  # type: ignore[attr-defined]
        state: Floats = np.concatenate([data.qpos, data.qvel])
        state[:2] += self._shift
        return state
