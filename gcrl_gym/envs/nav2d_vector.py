"""Nav2D and Nav2DDiscrete as native vector environments, through ``gym.make_vec``.

Each copy takes the steps of a single environment with its seed, bit for bit: the motion, the draws
and the float32 judgement are the same operations on arrays.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcrl_gym.envs.nav2d import ATTEMPTS, Nav2D, Nav2DDiscrete
from gcrl_gym.envs.nav2d_dynamics import move_columns
from gcrl_gym.envs.nav2d_images import paint
from gcrl_gym.envs.nav2d_places import WIDTH, propose, propose_goals, too_close
from gcrl_gym.envs.vector import Ahead, Autoreset, Copies, GoalVectorEnv, Infos, per_copy
from gcrl_gym.errors import UserError

Floats = NDArray[np.float64]

_RESETS_AHEAD, _STEPS_AHEAD = 16, 64
"""Rows of numbers drawn at a time from a copy's generators."""


class _Nav2DVector(GoalVectorEnv):
    """What both share; keywords are those of the single environment.

    Args:
        single: an environment of the same settings.
        num_envs: number of copies.
        max_episode_steps: steps after which a copy is truncated.
        autoreset_mode: ``next_step``, ``same_step`` or ``disabled``; see `GoalVectorEnv`.
    """

    single: Nav2D | Nav2DDiscrete

    def __init__(
        self,
        single: Nav2D | Nav2DDiscrete,
        num_envs: int,
        max_episode_steps: int | None,
        autoreset_mode: Autoreset,
    ) -> None:
        super().__init__(single, num_envs, max_episode_steps, autoreset_mode)
        count = self.num_envs
        self._x, self._y = np.zeros((2, count))
        self._goals = np.zeros((count, 2), np.float32)
        self._layout = np.zeros(count, np.int64)
        self._seen = np.zeros((count, 2), np.float32)  # positions as the agents see them
        self._success = np.zeros(count, bool)
        self._goals_reached = np.zeros(count, np.int64)
        self._trails: list[list[tuple[float, float]]] = [[] for _ in range(count)]
        self._uniforms = Ahead(np.random.Generator.random, count, WIDTH, _RESETS_AHEAD)
        self._normals = Ahead(np.random.Generator.standard_normal, count, 2, _STEPS_AHEAD)
        self._noises: list[np.random.Generator] = []

    def _displacements(self, actions: NDArray[Any]) -> tuple[Floats, Floats]:
        """Return the noise-free displacements, (num_envs,) in x and in y."""
        raise NotImplementedError

    def _seeded(self, copies: Copies) -> None:
        self._uniforms.forget(copies)
        if self.single.noise:
            self._normals.forget(copies)
            self._noises = self._noises or list(self.generators)
            for copy in copies:
                (self._noises[copy],) = self.generators[copy].spawn(1)

    def _start(self, copies: Copies, options: dict[str, Any]) -> None:
        if options:
            self._start_as_asked(copies, options)
        else:
            self._start_anywhere(copies)
        self._goals_reached[copies] = 0
        if self.render_mode is not None:
            for copy in copies:
                self._trails[copy] = [(float(self._x[copy]), float(self._y[copy]))]

    def _start_as_asked(self, copies: Copies, options: dict[str, Any]) -> None:
        """Begin with options one copy after the other, as the single environment does."""
        shapes = {"start": (2,), "goal": (2,)}
        columns = {
            key: per_copy(value, copies, self.num_envs, shapes.get(key, ()))
            for key, value in options.items()
        }
        for place, copy in enumerate(copies):
            own = {key: values[place] for key, values in columns.items()}
            draw = partial(self._uniforms.take, self.generators, np.array([copy]))
            chosen = self.single.choose_episode(own, draw)
            self._layout[copy], (self._x[copy], self._y[copy]), self._goals[copy] = chosen

    def _start_anywhere(self, copies: Copies) -> None:
        """Begin without options, all at once: draw until start and goal are apart."""
        layouts, places = self.single.layouts, self.single.places
        for attempt in range(ATTEMPTS):
            uniforms = self._uniforms.take(self.generators, copies)
            if attempt == 0 and layouts.count > 1:
                self._layout[copies] = (uniforms[:, 0] * layouts.count).astype(np.int64)
            starts, goals = np.empty((2, len(copies), 2))
            for number, some in self._by_layout(copies):
                starts[some], goals[some] = propose(layouts[number], uniforms[some], places)
            self._x[copies], self._y[copies] = starts[:, 0], starts[:, 1]
            self._goals[copies] = goals
            close = self._distance(starts.astype(np.float32), self._goals[copies])
            copies = copies[close <= self.single.goal_tolerance]
            if not len(copies):
                return
            if places.fixed:
                break
        raise too_close(places, self.single.goal_tolerance)

    def _next_goals(self, copies: Copies) -> None:
        """Give these copies, which have reached their goals, others."""
        for _ in range(ATTEMPTS):
            if not len(copies):
                return
            uniforms = self._uniforms.take(self.generators, copies)
            at = np.stack([self._x[copies], self._y[copies]], axis=1)
            for number, some in self._by_layout(copies):
                maze, goal = self.single.layouts[number], self.single.places.goal
                self._goals[copies[some]] = propose_goals(maze, at[some], uniforms[some], goal)
            gaps = self._distance(at.astype(np.float32), self._goals[copies])
            copies = copies[gaps <= self.single.goal_tolerance]
        raise too_close(self.single.places, self.single.goal_tolerance)

    def _by_layout(self, copies: Copies) -> list[tuple[int, Any]]:
        """Return which of these copies are in which maze."""
        if self.single.layouts.count == 1:
            return [(0, slice(None))]
        numbers = self._layout[copies]
        return [(int(number), numbers == number) for number in np.unique(numbers)]

    def _advance(self, actions: NDArray[Any], copies: Copies | None) -> None:
        single = self.single
        if single.num_goals > 1:
            more = self._success & (self._goals_reached < single.num_goals) & ~self._ended
            self._next_goals(np.flatnonzero(more))
        dx, dy = self._displacements(actions)
        if single.noise:
            chosen = self._all if copies is None else copies
            noise = single.noise * self._normals.take(self._noises, chosen)
            dx, dy = dx.copy(), dy.copy()
            dx[chosen] += noise[:, 0]
            dy[chosen] += noise[:, 1]
        layout = 0 if single.layouts.count == 1 else self._layout
        grid = single.layouts.grid
        self._x, self._y = move_columns(self._x, self._y, dx, dy, grid, layout)
        if single.num_goals > 1:
            seen = np.stack([self._x, self._y], axis=1).astype(np.float32)
            self._goals_reached += self._distance(seen, self._goals) <= single.goal_tolerance
        if self.render_mode is not None:
            for copy in self._all:
                self._trails[copy].append((float(self._x[copy]), float(self._y[copy])))

    def _observe(self) -> dict[str, NDArray[Any]]:
        self._seen[:, 0], self._seen[:, 1] = self._x, self._y
        seen: NDArray[Any] = self._seen.copy()
        if self.single.image_observation:
            seen = paint(self.single.layouts, self._layout, self._seen)
        return {
            "observation": seen,
            "achieved_goal": self._seen.copy(),
            "desired_goal": self._goals.copy(),
        }

    def _judge(self) -> tuple[Floats, NDArray[np.bool_], Infos]:
        distances = self._distance(self._seen, self._goals)
        reached = distances <= self.single.goal_tolerance
        success = reached.astype(np.float64)
        kind = self.single.reward_kind
        rewards = -distances if kind == "dense" else success - (kind == "penalty")
        self._success = reached
        terminated = reached & self.single.terminate_at_goal
        infos: Infos = {
            "success": success,
            "is_success": reached.copy(),
            "distance_to_goal": distances,
        }
        if self.single.num_goals > 1:
            infos["goals_reached"] = self._goals_reached.copy()
        return rewards, terminated, infos

    def _cut(self) -> NDArray[np.bool_] | None:
        if self.single.num_goals == 1:
            return None
        return np.asarray(self._goals_reached == self.single.num_goals)

    def _distance(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> Floats:
        """Return distances (K,), rounded as those of the single environment are."""
        x = achieved[:, 0].astype(np.float64) - desired[:, 0]
        y = achieved[:, 1].astype(np.float64) - desired[:, 1]
        return np.asarray(np.sqrt(x * x + y * y))

    def _frame(self, copy: int) -> NDArray[np.uint8]:
        from gcrl_gym.envs.rendering import get_renderer

        maze = self.single.layouts[int(self._layout[copy])]
        renderer = get_renderer(maze, self.single.goal_tolerance)
        goal = (float(self._goals[copy, 0]), float(self._goals[copy, 1]))
        return renderer.frame(self._trails[copy], goal, success=bool(self._success[copy]))


class Nav2DVector(_Nav2DVector):
    """Copies of `Nav2D`.

    Args:
        num_envs: number of copies.
        max_episode_steps: steps after which a copy is truncated.
        autoreset_mode: ``next_step``, ``same_step`` or ``disabled``; see `GoalVectorEnv`.
        **keywords: of `Nav2D`.
    """

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int | None = 200,
        autoreset_mode: Autoreset = "next_step",
        **keywords: Any,
    ) -> None:
        super().__init__(Nav2D(**keywords), num_envs, max_episode_steps, autoreset_mode)

    def _check_actions(self, actions: Any) -> NDArray[np.float64]:
        try:
            array = np.asarray(actions, np.float64)
        except (TypeError, ValueError):
            array = np.empty(0)
        if array.shape != (self.num_envs, 2):
            raise UserError(
                f"Nav2D takes actions of shape ({self.num_envs}, 2), got {np.shape(actions)}."
            )
        if np.isnan(array).any():
            copy = int(np.argmax(np.isnan(array).any(axis=1)))
            raise UserError(f"Nav2D got an action that is not a number, for copy {copy}.")
        return array

    def _displacements(self, actions: NDArray[Any]) -> tuple[Floats, Floats]:
        steps = self.single.step_size * np.minimum(np.maximum(actions.T, -1.0), 1.0)
        return steps[0], steps[1]


class Nav2DDiscreteVector(_Nav2DVector):
    """Copies of `Nav2DDiscrete`.

    Args:
        num_envs: number of copies.
        max_episode_steps: steps after which a copy is truncated.
        autoreset_mode: ``next_step``, ``same_step`` or ``disabled``; see `GoalVectorEnv`.
        **keywords: of `Nav2DDiscrete`.
    """

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int | None = 50,
        autoreset_mode: Autoreset = "next_step",
        **keywords: Any,
    ) -> None:
        single = Nav2DDiscrete(**keywords)
        super().__init__(single, num_envs, max_episode_steps, autoreset_mode)
        self._moves = single.step_size * np.array(
            [[0.0, 1.0], [0.0, -1.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
        )

    def _check_actions(self, actions: Any) -> NDArray[np.int64]:
        array = np.asarray(actions)
        fits = array.shape == (self.num_envs,) and array.dtype.kind in "iu"
        if not fits or array.min() < 0 or array.max() > 4:
            raise UserError(
                f"Nav2DDiscrete takes {self.num_envs} whole numbers from 0 to 4, got {actions!r}."
            )
        return array

    def _displacements(self, actions: NDArray[Any]) -> tuple[Floats, Floats]:
        chosen = self._moves[actions]
        return chosen[:, 0], chosen[:, 1]
