"""Nav2D: point navigation among walls, the toy task of goal-conditioned RL.

An agent moves in the square [0, 10] x [0, 10] (y up) and has to come within ``goal_tolerance`` of a
goal position. ``Nav2D`` has continuous actions, ``Nav2DDiscrete`` the five moves up, down, left,
right and stay. Layouts are in ``mazes`` and ``layouts``, starts and goals in ``nav2d_places``, the
motion in ``nav2d_dynamics``, many copies at once in ``nav2d_vector``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
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
    check_count,
    check_number,
    check_reward_kind,
    require_running,
)
from gcrl_gym.envs.layouts import LayoutSet
from gcrl_gym.envs.mazes import NUM_TASKS, WORLD_SIZE, Maze
from gcrl_gym.envs.nav2d_dynamics import move_one
from gcrl_gym.envs.nav2d_images import IMAGE_SHAPE, paint
from gcrl_gym.envs.nav2d_places import (
    WIDTH,
    Place,
    apply_options,
    check_options,
    check_places,
    propose,
    propose_goals,
    too_close,
)
from gcrl_gym.envs.reachability import refuse_unreachable_goals
from gcrl_gym.errors import UserError

SPECS = [
    EnvSpec(
        f"gcrl/{name}-v0",
        f"gcrl_gym.envs.nav2d:{name}",
        max_episode_steps=steps,
        vector_entry_point=f"gcrl_gym.envs.nav2d_vector:{name}Vector",
    )
    for name, steps in (("Nav2D", 200), ("Nav2DDiscrete", 50))
]

MAX_TOLERANCE = 2.0
"""Larger ones would swallow whole tasks: start and goal of a fixed task lie 4 or more apart."""

ATTEMPTS = 1000
"""Draws of a start and a goal that may be too close before giving up."""

Draw = Callable[[], NDArray[np.float64]]


class _Nav2DBase(GoalEnv[ActT]):
    """What the continuous and the discrete environment share: everything but the action."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"], "render_fps": 20}  # noqa: RUF012
    num_tasks = NUM_TASKS

    def __init__(
        self,
        maze: str = "four_rooms",
        *,
        noise: float = 0.0,
        reward: str = "sparse",
        goal_tolerance: float = 0.5,
        step_size: float = 0.5,
        terminate_at_goal: bool = True,
        start: str | Place = "uniform",
        goal: str | Place = "uniform",
        num_goals: int = 1,
        obstacles: int = 0,
        num_layouts: int = 100,
        image_observation: bool = False,
        render_mode: str | None = None,
    ) -> None:
        obstacles = check_count("obstacles", obstacles, 0, 1000)
        self.layouts = LayoutSet(maze, obstacles, check_count("num_layouts", num_layouts, 1, 10**6))
        self.layout = 0
        self.noise = check_number("noise", noise, low=0.0, high=WORLD_SIZE)
        self.reward_kind = check_reward_kind(reward)
        self.goal_tolerance = check_number("goal_tolerance", goal_tolerance, 1e-3, MAX_TOLERANCE)
        self.step_size = check_number("step_size", step_size, 1e-3, WORLD_SIZE)
        self.num_goals = check_count("num_goals", num_goals, 1, 10**6)
        # A goal that is followed by another one does not end the episode.
        self.terminate_at_goal = bool(terminate_at_goal) and self.num_goals == 1
        self.places = check_places(start, goal, self.maze if self.layouts.count == 1 else None)
        if self.num_goals > 1 and not isinstance(self.places.goal, str):
            raise UserError("num_goals > 1 needs goals that are drawn; goal is a fixed position.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UserError(
                f"Unknown render_mode {render_mode!r}; use 'rgb_array', 'human' or None."
            )
        self.render_mode = render_mode
        self.image_observation = bool(image_observation)

        box = spaces.Box(0.0, WORLD_SIZE, (2,), np.float32)
        seen = spaces.Box(0, 255, IMAGE_SHAPE, np.uint8) if image_observation else box
        self.observation_space: spaces.Dict = spaces.Dict(
            {"observation": seen, "achieved_goal": box, "desired_goal": box}
        )
        self.action_space = self._actions()
        self._x = self._y = self._goal_x = self._goal_y = 0.0
        self._goal = np.zeros(2, np.float32)
        self._goals_reached = 0
        self._trail: list[tuple[float, float]] = []
        self._is_success = self._running = False
        self._noise_parent: np.random.Generator | None = None

    @property
    def maze(self) -> Maze:
        """The layout of this episode."""
        return self.layouts[self.layout]

    def _actions(self) -> spaces.Space[ActT]:
        """Return the action space."""
        raise NotImplementedError

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
                ``{"start": xy, "goal": xy}``, of which either may be left out, and
                ``{"layout": k}``, the number of the maze where there are many. Without options,
                start and goal are drawn as the keywords say, farther apart than the tolerance.

        Raises:
            UserError: an unknown option, a position inside a wall, or a start at the goal.
        """
        super().reset(seed=seed)
        if self.noise and self._noise_parent is not self.np_random:
            self._noise_parent = self.np_random
            (self._noise,) = self.np_random.spawn(1)
        generator = self.np_random
        chosen = self.choose_episode(options or {}, lambda: generator.random((1, WIDTH)))
        self.layout, (self._x, self._y), goal = chosen
        self._set_goal(goal)
        self._goals_reached = 0
        self._running = True
        self._trail = [(self._x, self._y)]
        result = self._observe()
        if self.render_mode == "human":
            self.render()
        return result

    def step(self, action: ActT) -> tuple[GoalObservation, float, bool, bool, dict[str, Any]]:
        """Take one step; see the class for actions and rewards.

        Raises:
            UserError: an action of another shape or type, one that is not a number, or no episode
                that goes on.
        """
        dx, dy = self._displacement(action)
        require_running(self._running)
        if self._is_success and self._goals_reached < self.num_goals > 1:
            generator = self.np_random
            start = np.array([[self._x, self._y]])
            self._set_goal(self.choose_next_goal(start, lambda: generator.random((1, WIDTH))))
        if self.noise:
            normal = self._noise.standard_normal
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
        all_reached = self.num_goals > 1 and self._goals_reached == self.num_goals
        terminated = reached and self.terminate_at_goal
        self._running = not (terminated or all_reached)
        if self.render_mode == "human":
            self.render()
        return observation, reward, terminated, all_reached, info

    def _set_goal(self, goal: NDArray[np.float64]) -> None:
        self._goal = goal.astype(np.float32)
        self._goal_x, self._goal_y = self._goal.tolist()

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
        if self.image_observation:
            observation["observation"] = paint(self.layouts, [self.layout], position[None])[0]
        info = {
            "success": 1.0 if reached else 0.0,
            "is_success": reached,
            "distance_to_goal": distance,
        }
        if self.num_goals > 1:
            self._goals_reached += reached
            info["goals_reached"] = self._goals_reached
        return observation, info

    def choose_episode(
        self, options: dict[str, Any], draw: Draw
    ) -> tuple[int, list[float], NDArray[np.float64]]:
        """Return number of the layout, start [x, y] and goal (2,), drawing what is left open.

        Args:
            options: see ``reset``.
            draw: gives the next (1, WIDTH) uniform numbers.

        Raises:
            UserError: see ``reset``.
        """
        rule = check_options(options, self.places, self.layouts.count)
        uniforms = draw()
        number = rule.layout
        if number is None:
            number = int(uniforms[0, 0] * self.layouts.count)
        maze = self.layouts[number]
        rule = apply_options(options, rule, maze)
        for _ in range(ATTEMPTS):
            start, goal = propose(maze, uniforms, rule)
            # As the agent will see them: rounded to float32.
            gap = self.goal_distance(start[0].astype(np.float32), goal[0].astype(np.float32))
            if gap > self.goal_tolerance:
                return number, start[0].tolist(), goal[0]
            if rule.fixed:
                break
            uniforms = draw()
        raise too_close(rule, self.goal_tolerance)

    def choose_next_goal(self, start: NDArray[np.float64], draw: Draw) -> NDArray[np.float64]:
        """Return the goal (2,) that follows one reached at ``start`` (1, 2)."""
        for _ in range(ATTEMPTS):
            goal = propose_goals(self.maze, start, draw(), self.places.goal)
            if not self.is_success(start[0].astype(np.float32), goal[0].astype(np.float32)):
                return np.asarray(goal[0])
        raise too_close(self.places, self.goal_tolerance)

    def render(self) -> NDArray[np.uint8] | None:
        """Draw the present state: (400, 400, 3) uint8, or show it in a window (``human``)."""
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array' given to gym.make.")
            return None
        from gcrl_gym.envs.rendering import get_renderer

        renderer = get_renderer(self.maze, self.goal_tolerance)
        goal = (self._goal_x, self._goal_y)
        frame = renderer.frame(self._trail, goal, success=self._is_success)
        if self.render_mode == "rgb_array":
            return frame
        from gcrl_gym.envs.window import show

        show(self, frame, self.metadata["render_fps"])
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self.render_mode == "human":
            from gcrl_gym.envs.window import close

            close(self)


class Nav2D(_Nav2DBase[NDArray[Any]]):
    """Point navigation with continuous actions.

    Actions are Box(-1, 1, (2,)): the displacement is ``step_size * action`` per axis, plus noise;
    actions outside are clipped. Episodes are cut after 200 steps when made with ``gym.make``.

    Args:
        maze: layout: open, u_maze, four_rooms, medium, large or giant; ``procedural-<seed>``, or
            ``procedural`` for another one in every episode.
        noise: standard deviation, in world units, of the Gaussian noise added to each axis of
            every displacement.
        reward: ``sparse`` 1 on success, else 0; ``penalty`` -1 per step, 0 on success; ``dense``
            minus the distance to the goal.
        goal_tolerance: distance to the goal that counts as success, in world units.
        step_size: largest displacement per axis and step, in world units.
        terminate_at_goal: whether success ends the episode.
        start: ``uniform`` over the free space, or a position (x, y).
        goal: ``uniform``; ``near``: at most three cells from the start; ``far``: at least half as
            far from it as any cell; or a position (x, y).
        num_goals: with more than one, a goal that is reached is followed by another in the next
            step; nothing terminates, and the episode is truncated when all are reached.
        obstacles: this many random free cells are walls, others in every episode.
        num_layouts: how many different procedural mazes, or arrangements of obstacles, there are.
        image_observation: the observation is a picture, (64, 64, 3) uint8, of walls and agent;
            goals remain positions.
        render_mode: ``rgb_array``, ``human`` (a window) or None.
    """

    def _actions(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), np.float32)

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
        goal_tolerance: float = 0.75,
        step_size: float = 1.0,
        **keywords: Any,
    ) -> None:
        super().__init__(maze, goal_tolerance=goal_tolerance, step_size=step_size, **keywords)
        if self.noise == 0.0:
            refuse_unreachable_goals(self.step_size, self.goal_tolerance)
        step = self.step_size
        self._moves = ((0.0, step), (0.0, -step), (-step, 0.0), (step, 0.0), (0.0, 0.0))

    def _actions(self) -> spaces.Discrete:
        return spaces.Discrete(5)

    def _displacement(self, action: np.int64) -> tuple[float, float]:
        try:
            index = operator.index(action)
        except TypeError:
            index = -1
        if not 0 <= index < 5:
            raise UserError(f"Nav2DDiscrete takes a whole number from 0 to 4, got {action!r}.")
        return self._moves[index]


def _as_pair(action: Any) -> NDArray[np.float64]:
    """Read an action that is not an array of shape (2,) already."""
    try:
        pair = np.asarray(action, dtype=np.float64)
    except (TypeError, ValueError):
        pair = np.empty(0)
    if pair.shape != (2,):
        raise UserError(f"Nav2D takes an action of shape (2,), got {action!r}.")
    return pair
