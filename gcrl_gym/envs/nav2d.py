"""Nav2D: point navigation among walls, the toy task of goal-conditioned RL.

An agent moves in the square [0, 10] x [0, 10] (y up) and has to come within ``goal_tolerance`` of a
goal position. ``Nav2D`` has continuous actions, ``Nav2DDiscrete`` the five moves up, down, left,
right and stay. Layouts are in ``gcrl_gym.envs.mazes``, the motion in ``nav2d_dynamics``.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from gcrl_gym.envs.goal_env import (
    ActT,
    GoalEnv,
    GoalObservation,
    check_reward_kind,
    check_task_id,
)
from gcrl_gym.envs.mazes import NUM_TASKS, WORLD_SIZE, Maze, get_maze
from gcrl_gym.envs.nav2d_dynamics import move_one
from gcrl_gym.envs.reachability import refuse_unreachable_goals
from gcrl_gym.errors import UserError, nearest

SPECS = [
    EnvSpec("gcrl/Nav2D-v0", "gcrl_gym.envs.nav2d:Nav2D", max_episode_steps=200),
    EnvSpec("gcrl/Nav2DDiscrete-v0", "gcrl_gym.envs.nav2d:Nav2DDiscrete", max_episode_steps=50),
]

TASK_JITTER = 0.25
"""Largest distance, in cells and per axis, of a task's start and goal from their cell centres."""

MAX_TOLERANCE = 2.0
"""Larger ones would swallow whole tasks: start and goal of a fixed task lie 4 or more apart."""


class _Nav2DBase(GoalEnv[ActT]):
    """What the continuous and the discrete environment share: everything but the action."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    num_tasks = NUM_TASKS

    def __init__(
        self,
        maze: str,
        noise: float,
        reward: str,
        goal_tolerance: float,
        step_size: float,
        terminate_at_goal: bool,
        render_mode: str | None,
    ) -> None:
        self.maze: Maze = get_maze(maze)
        self.noise = _check_number("noise", noise, low=0.0, high=WORLD_SIZE)
        self.reward_kind = check_reward_kind(reward)
        self.goal_tolerance = _check_number("goal_tolerance", goal_tolerance, 1e-3, MAX_TOLERANCE)
        self.step_size = _check_number("step_size", step_size, 1e-3, WORLD_SIZE)
        self.terminate_at_goal = bool(terminate_at_goal)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UserError(f"Unknown render_mode {render_mode!r}; use 'rgb_array' or None.")
        self.render_mode = render_mode

        box = spaces.Box(0.0, WORLD_SIZE, (2,), np.float32)
        self.observation_space: spaces.Dict = spaces.Dict(
            {"observation": box, "achieved_goal": box, "desired_goal": box}
        )
        self._x = self._y = self._goal_x = self._goal_y = 0.0
        self._goal = np.zeros(2, np.float32)
        self._trail: list[tuple[float, float]] = []
        self._is_success = False

    def _displacement(self, action: ActT) -> tuple[float, float]:
        """Return the noise-free displacement in world units that an action asks for."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[GoalObservation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: seeds the environment's own generator.
            options: ``{"task_id": 1 .. 5}`` for an evaluation task (always the same start and
                goal cell; the positions in them vary by up to a quarter cell, as in OGBench), or
                ``{"start": xy, "goal": xy}``, of which either may be left out. Without options,
                start and goal are drawn uniformly from the free space, farther apart than the
                goal tolerance.

        Raises:
            UserError: an unknown option, a position inside a wall, or a start at the goal.
        """
        super().reset(seed=seed)
        start, goal = self._start_and_goal(options or {})
        self._x, self._y = self.maze.keep_off_walls(start).tolist()
        self._goal = goal.astype(np.float32)
        self._goal_x, self._goal_y = self._goal.tolist()
        self._trail = [(self._x, self._y)]
        return self._observe()

    def step(self, action: ActT) -> tuple[GoalObservation, float, bool, bool, dict[str, Any]]:
        """Take one step; see the class for actions and rewards.

        Raises:
            UserError: an action of another shape or type, or one that is not a number.
        """
        dx, dy = self._displacement(action)
        if self.noise:
            normal = self.np_random.standard_normal
            dx += self.noise * normal()
            dy += self.noise * normal()
        self._x, self._y = move_one(self._x, self._y, dx, dy, self.maze)
        if self.render_mode is not None:
            self._trail.append((self._x, self._y))
        observation, info = self._observe()
        reached = self._is_success
        if self.reward_kind == "dense":
            reward = -info["distance_to_goal"]
        else:
            reward = float(reached) - (self.reward_kind == "penalty")
        return observation, reward, reached and self.terminate_at_goal, False, info

    def _observe(self) -> tuple[GoalObservation, dict[str, Any]]:
        """Return observation and info of the present state, in arrays of their own."""
        position = np.array((self._x, self._y), np.float32)
        # The distance is taken from the rounded position, as compute_reward will take it.
        x, y = position.tolist()
        x -= self._goal_x
        y -= self._goal_y
        distance = math.sqrt(x * x + y * y)
        self._is_success = reached = distance <= self.goal_tolerance
        observation = {
            "observation": position,
            "achieved_goal": position.copy(),
            "desired_goal": self._goal.copy(),
        }
        info = {
            "success": 1.0 if reached else 0.0,
            "is_success": reached,
            "distance_to_goal": distance,
        }
        return observation, info

    def _start_and_goal(
        self, options: dict[str, Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Choose start and goal (x, y), drawing what the options leave open."""
        for key in options:
            if key not in ("task_id", "start", "goal"):
                raise UserError(
                    f"Unknown reset option {key!r}; use task_id, or start and goal."
                    f"{nearest(key, ('task_id', 'start', 'goal'))}"
                )
        if "task_id" in options:
            if len(options) > 1:
                raise UserError("Reset option task_id already fixes start and goal; give it alone.")
            cells = self.maze.tasks[check_task_id(options["task_id"], self.num_tasks) - 1]
            reach = TASK_JITTER * self.maze.cell_size
            start, goal = (
                self.maze.cell_center(cell) + self.np_random.uniform(-reach, reach, 2)
                for cell in cells
            )
            return start, goal
        fixed = {key: self._check_position(key, xy) for key, xy in options.items()}
        while True:
            goal = fixed["goal"] if "goal" in fixed else self.maze.sample_free(self.np_random, 1)[0]
            start = (
                fixed["start"] if "start" in fixed else self.maze.sample_free(self.np_random, 1)[0]
            )
            # As the agent will see it: kept off the walls and rounded to float32.
            seen = self.maze.keep_off_walls(start).astype(np.float32)
            if not self.is_success(seen, goal.astype(np.float32)):
                return start, goal
            if len(fixed) == 2:
                raise UserError(
                    f"Reset options start {start.tolist()} and goal {goal.tolist()} are within the"
                    f" goal tolerance {self.goal_tolerance}; move them apart."
                )

    def _check_position(self, key: str, value: Any) -> NDArray[np.float64]:
        """Validate a reset option that is a position."""
        try:
            xy = np.array(value, dtype=np.float64)
        except (TypeError, ValueError):
            xy = np.empty(0)
        if xy.shape != (2,) or not np.isfinite(xy).all():
            raise UserError(f"Reset option {key!r} must be two finite numbers x, y; got {value!r}.")
        if not self.maze.is_free(xy):
            inside = ((xy >= 0.0) & (xy <= WORLD_SIZE)).all()
            where = "inside a wall" if inside else f"outside [0, {WORLD_SIZE:g}]^2"
            raise UserError(
                f"Reset option {key!r} {xy.tolist()} is {where} in maze {self.maze.name!r};"
                " choose a free position (env.unwrapped.maze.sample_free draws one)."
            )
        return xy

    def render(self) -> NDArray[np.uint8] | None:
        """Draw the present state: (400, 400, 3) uint8, or None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array' given to gym.make.")
            return None
        from gcrl_gym.envs.rendering import get_renderer

        renderer = get_renderer(self.maze, self.goal_tolerance)
        goal = (self._goal_x, self._goal_y)
        return renderer.frame(self._trail, goal, success=self._is_success)


class Nav2D(_Nav2DBase[NDArray[Any]]):
    """Point navigation with continuous actions.

    Actions are Box(-1, 1, (2,)): the displacement is ``step_size * action`` per axis, plus noise;
    actions outside are clipped. Episodes are cut after 200 steps when made with ``gym.make``.

    Args:
        maze: layout: open, u_maze, four_rooms, medium or large.
        noise: standard deviation, in world units, of the Gaussian noise added to each axis of
            every displacement.
        reward: ``sparse`` 1 on success, else 0; ``penalty`` -1 per step, 0 on success; ``dense``
            minus the distance to the goal.
        goal_tolerance: distance to the goal that counts as success, in world units.
        step_size: largest displacement per axis and step, in world units.
        terminate_at_goal: whether success ends the episode.
        render_mode: ``rgb_array`` or None.
    """

    def __init__(
        self,
        maze: str = "four_rooms",
        *,
        noise: float = 0.0,
        reward: str = "sparse",
        goal_tolerance: float = 0.5,
        step_size: float = 0.5,
        terminate_at_goal: bool = True,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(
            maze, noise, reward, goal_tolerance, step_size, terminate_at_goal, render_mode
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def _displacement(self, action: NDArray[Any]) -> tuple[float, float]:
        if type(action) is not np.ndarray or action.shape != (2,):
            action = _as_pair(action)
        ax, ay = action.tolist()
        # One chained comparison sends the rare cases, outside and NaN, to the slow path.
        if not (-1.0 <= ax <= 1.0 and -1.0 <= ay <= 1.0):
            if math.isnan(ax) or math.isnan(ay):
                raise UserError(f"Nav2D got an action that is not a number: {action!r}.")
            ax, ay = min(max(ax, -1.0), 1.0), min(max(ay, -1.0), 1.0)
        return self.step_size * ax, self.step_size * ay


class Nav2DDiscrete(_Nav2DBase[np.int64]):
    """Point navigation with five actions: 0 up (+y), 1 down, 2 left, 3 right, 4 stay.

    Keywords as in ``Nav2D``; noise is added on stay too. Episodes are cut after 50 steps when made
    with ``gym.make``.

    Without noise the agent lives on a lattice of unit steps anchored at its start, so a tolerance
    below ``sqrt(1/2) * step_size`` leaves goals that it can never reach. The constructor refuses
    such settings and names the share; see ``gcrl_gym.envs.reachability``.

    Raises:
        UserError: without noise, a tolerance that leaves goals out of reach.
    """

    def __init__(
        self,
        maze: str = "four_rooms",
        *,
        noise: float = 0.0,
        reward: str = "sparse",
        goal_tolerance: float = 0.75,
        step_size: float = 1.0,
        terminate_at_goal: bool = True,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(
            maze, noise, reward, goal_tolerance, step_size, terminate_at_goal, render_mode
        )
        if self.noise == 0.0:
            refuse_unreachable_goals(self.step_size, self.goal_tolerance)
        self.action_space = spaces.Discrete(5)
        step = self.step_size
        self._moves = ((0.0, step), (0.0, -step), (-step, 0.0), (step, 0.0), (0.0, 0.0))

    def _displacement(self, action: np.int64) -> tuple[float, float]:
        try:
            index = operator.index(action)
        except TypeError:
            index = -1
        if not 0 <= index < 5:
            raise UserError(f"Nav2DDiscrete takes a whole number from 0 to 4, got {action!r}.")
        return self._moves[index]


def _check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return a keyword as a float in [low, high]."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise UserError(f"{name} must be a number from {low:g} to {high:g}, got {value!r}.")
    return number


def _as_pair(action: Any) -> NDArray[np.float64]:
    """Read an action that is not an array of shape (2,) already."""
    try:
        pair = np.asarray(action, dtype=np.float64)
    except (TypeError, ValueError):
        pair = np.empty(0)
    if pair.shape != (2,):
        raise UserError(f"Nav2D takes an action of shape (2,), got {action!r}.")
    return pair
