"""The task of N cars at once: where episodes start, what a step earns, what is observed.

The single environment is this with N = 1, the vector environment with N copies; nothing a car does
depends on the others. ``car_dynamics`` moves the cars, ``car_sensors`` looks at the tracks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gcrl_gym.envs.car_dynamics import AXLE, MAX_STEERING, State, advance
from gcrl_gym.envs.car_sensors import AHEAD, RAY_ANGLES, RAY_LENGTH, TrackBank
from gcrl_gym.envs.goal_env import check_count, check_task_id
from gcrl_gym.envs.tracks import FIELD, MAX_POINTS, SPACING
from gcrl_gym.envs.vector import per_copy
from gcrl_gym.errors import UserError, nearest

Mode = Literal["goal", "lap"]
Array = NDArray[np.float64]
Cars = NDArray[np.int64]

NUM_TASKS = 5
TASKS = ((0.0, 0.08), (0.2, 0.2), (0.4, 0.35), (0.6, 0.55), (0.8, 0.85))
"""Start and way to the goal of the fixed tasks, in shares of a lap."""

GOAL_AHEAD = (20.0, 0.6)
"""Nearest and farthest drawn goal: metres of road ahead of the start, and share of a lap."""

MAX_TRACK = 2**31 - 1
"""Largest seed of a track."""

DRAWS = 7
"""Uniform numbers per start: track, start (along, across, heading), goal (the same)."""

LATERAL = 1.5  # metres from the middle of the road, starts and goals
_START_TURN, _GOAL_TURN = 0.10, 0.03  # tangents of half the angle to the road
_TASK_SHARE = 0.5  # of those spreads, in the fixed tasks
_TASK_ALONG = 1.0  # metres
TILE_POINTS = 4
LAP_SHARE = 0.95
"""Share of the tiles that makes a lap complete, as in Gymnasium's CarRacing."""

LAP_REWARD, STEP_REWARD, OUTSIDE_REWARD = 1000.0, -0.1, -100.0
_WHEELS = 0.5  # metres beyond the edge where a car still touches the road
_LIMIT = FIELD - 1e-3

STATE_SCALES = {"speed": 25.0, "sideways": 10.0, "yaw_rate": 3.0, "way": float(AHEAD[-1])}
STATE_SIZE = 4 + len(RAY_ANGLES) + 2 * len(AHEAD)

OPTIONS = {"goal": ("task_id", "track", "start", "goal"), "lap": ("task_id", "track")}


class CarBatch:
    """N cars, each on its track with its goal.

    Args:
        count: N.
        mode: ``goal`` or ``lap``.
        first_track: seed of the first track.
        num_tracks: tracks are drawn from ``first_track .. first_track + num_tracks - 1``.

    Attributes:
        state: (8, N) of ``car_dynamics``.
        goals: (N, 4) float32 poses x, y, cos, sin; zeros in lap mode.
        index: (N,) nearest point of the centre line.
        edge: (N,) signed distance from the road's edge in metres.
        visited: (N, ..) which tiles have been visited, and ``tiles_visited`` how many.
        lap_rewards: (N,) of the last step, in lap mode.
        lap_complete: (N,) whether enough tiles are visited and the start line is reached.
        outside: (N,) whether the car ran into the border of the field in the last step.
    """

    def __init__(self, count: int, mode: Mode, first_track: int, num_tracks: int) -> None:
        self.count, self.mode = count, mode
        self.first_track, self.num_tracks = first_track, num_tracks
        self.bank = TrackBank(count, first_track)
        self.state = np.zeros((len(State), count))
        self.state[State.COS] = 1.0
        self.goals = np.zeros((count, 4), np.float32)
        self.visited = np.zeros((count, MAX_POINTS // TILE_POINTS), bool)
        self.tiles_visited = np.zeros(count, np.int64)
        self.lap_rewards = np.zeros(count)
        self.lap_complete = np.zeros(count, bool)
        self.outside = np.zeros(count, bool)
        self.pictures: Any = None  # painted tracks, kept by car_rendering
        self._rows = np.arange(count) * self.visited.shape[1]
        self._locate()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the painted tracks behind: they can be painted again."""
        return {**self.__dict__, "pictures": None}

    @property
    def tiles(self) -> Cars:
        """(N,) number of tiles of each car's track."""
        return self.bank.points // TILE_POINTS

    # Episodes ------------------------------------------------------------------------------

    def start(
        self,
        cars: Cars,
        options: dict[str, Any],
        draw: Callable[[Cars], Array],
        is_success: Callable[[Any, Any], Any],
    ) -> None:
        """Put cars at the start of new episodes.

        Args:
            cars: (K,) which ones.
            options: of the reset; see ``CarRacing.reset``. Values serve all, or are one per copy.
            draw: returns ``(K, DRAWS)`` uniform numbers in [0, 1), each car's from its generator.
            is_success: whether start poses lie in the goals ``(K, 4)``.

        Raises:
            UserError: an option that is unknown or out of range, or a start at the goal.
        """
        fixed = self._read_options(cars, options)
        pending = np.arange(len(cars))
        starts, goals = np.zeros((4, len(cars))), np.zeros((4, len(cars)))
        while len(pending):
            some = {key: value[pending] for key, value in fixed.items()}
            draws = draw(cars[pending])
            starts[:, pending], goals[:, pending] = self._poses(cars[pending], draws, some)
            if self.mode == "lap":
                break
            seen, wanted = starts.T.astype(np.float32), goals.T.astype(np.float32)
            pending = np.flatnonzero(is_success(seen, wanted))
            if len(pending) and {"start", "goal"} <= fixed.keys():
                raise UserError(
                    f"Reset options start {starts[:, pending[0]].tolist()} and goal"
                    f" {goals[:, pending[0]].tolist()} are within the goal tolerance; move them"
                    " apart."
                )
        self.state[:, cars] = 0.0
        # Whole float32 numbers, so that a recorded start repeats the episode exactly.
        self.state[:4, cars] = starts.astype(np.float32)
        if self.mode == "goal":
            self.goals[cars] = goals.T
        self.visited[cars] = False
        self.tiles_visited[cars] = 0
        self.lap_rewards[cars] = 0.0
        self.lap_complete[cars] = self.outside[cars] = False
        self._locate()

    def _poses(self, cars: Cars, u: Array, fixed: dict[str, Any]) -> tuple[Array, Array]:
        """Starts and goals (4, K), from draws (K, DRAWS) where options leave them open."""
        seeds = self.first_track + np.minimum(u[:, 0] * self.num_tracks, self.num_tracks - 1)
        task = fixed.get("task_id")
        if task is not None:
            along = (task - 1) % self.num_tracks if self.mode == "lap" else 0
            seeds = np.broadcast_to(self.first_track + along, u.shape[:1])
        self.bank.place(cars, fixed.get("track", seeds).astype(np.int64))
        points = self.bank.points[cars]
        middle = np.zeros(len(cars))
        if self.mode == "lap":
            line = self.bank.pose(cars, np.zeros(len(cars), np.int64), middle, middle)
            return line, line
        spread, begin = 1.0, u[:, 1] * points
        nearest_goal = GOAL_AHEAD[0] / SPACING
        way = nearest_goal + u[:, 4] * (GOAL_AHEAD[1] * points - nearest_goal)
        if task is not None:
            spread, wobble = _TASK_SHARE, _TASK_ALONG / SPACING
            begin = TASK_STARTS[task - 1] * points + (2 * u[:, 1] - 1) * wobble
            way = TASK_WAYS[task - 1] * points + (2 * u[:, 4] - 1) * wobble
        across, turns = (2 * u[:, 2::3] - 1) * (spread * LATERAL), (2 * u[:, 3::3] - 1) * spread
        if "start" in fixed:
            begin = self._along(fixed["start"], cars)
        elif "goal" in fixed:
            begin = self._along(fixed["goal"], cars) - way
        starts = self.bank.pose(cars, begin, across[:, 0], turns[:, 0] * _START_TURN)
        goals = self.bank.pose(cars, begin + way, across[:, 1], turns[:, 1] * _GOAL_TURN)
        return fixed.get("start", starts.T).T, fixed.get("goal", goals.T).T

    def _along(self, poses: Array, cars: Cars) -> Array:
        """Nearest points of the cars' tracks to poses (K, 4)."""
        return self.bank.nearest(poses[:, 0], poses[:, 1], cars).astype(np.float64)

    def _read_options(self, cars: Cars, options: dict[str, Any]) -> dict[str, Any]:
        """Check the reset options and return an array (K, ..) for each."""
        known = OPTIONS[self.mode]
        for key in options:
            if key not in known:
                hint = " in lap mode" if self.mode == "lap" else ""
                raise UserError(
                    f"Unknown reset option {key!r}{hint}; use {', '.join(known)}."
                    f"{nearest(key, known)}"
                )
        if "task_id" in options and len(options) > 1:
            raise UserError("Reset option task_id already fixes the episode; give it alone.")
        checks = {"task_id": (_check_task, ()), "track": (_check_track, ())}
        fixed: dict[str, Any] = {}
        for key, value in options.items():
            check, shape = checks.get(key, (_check_pose, (4,)))
            try:
                values = per_copy(value, cars, self.count, shape)
            except ValueError:  # of lists of different lengths
                values = [value]
            plain = (one.item() if isinstance(one, np.generic) else one for one in values)
            fixed[key] = np.array([check(key, one) for one in plain])
        return fixed

    # Steps ---------------------------------------------------------------------------------

    def step(self, actions: Array) -> None:
        """Drive all cars for one step; actions (3, N) as in ``car_dynamics.advance``."""
        x, y, cos, sin = self.state[:4]
        axles = (
            np.stack([x + AXLE * cos, x - AXLE * cos]),
            np.stack([y + AXLE * sin, y - AXLE * sin]),
        )
        road = np.minimum(np.maximum(2 * self.bank.edge_distance(*axles) + 0.5, 0.0), 1.0)
        self.state = state = advance(self.state, actions, road)
        kept = np.minimum(np.maximum(state[:2], -_LIMIT), _LIMIT)
        hit = kept != state[:2]
        self.outside = hit[0] | hit[1]
        if self.outside.any():  # the border of the field is a soft wall
            state[:2] = kept
            state[State.VX : State.VY + 1][hit] = 0.0
        self._locate()
        self._visit()

    def _locate(self) -> None:
        x, y = self.state[State.X], self.state[State.Y]
        self.index = self.bank.nearest(x, y)
        self.edge = self.bank.edge_distance(x, y)

    def _visit(self) -> None:
        """Count the tile under each car, once per lap, and earn its reward."""
        tiles = self.tiles
        tile = np.minimum(self.index // TILE_POINTS, tiles - 1)
        touched = self.edge > -_WHEELS
        at = self._rows + tile
        flat = self.visited.reshape(-1)
        new = touched & ~flat.take(at)
        flat[at] |= touched
        self.tiles_visited = self.tiles_visited + new
        if self.mode == "lap":
            enough = self.tiles_visited >= LAP_SHARE * tiles
            self.lap_complete = enough & touched & (tile < 3)
            rewards = new * (LAP_REWARD / tiles) + STEP_REWARD
            self.lap_rewards = np.where(self.outside, OUTSIDE_REWARD, rewards)

    # What is seen --------------------------------------------------------------------------

    def poses(self) -> NDArray[np.float32]:
        """Present poses x, y, cos, sin; (N, 4)."""
        return np.ascontiguousarray(self.state[:4].T, np.float32)

    def lap_progress(self) -> Array:
        """Share of the tiles visited since the start, (N,)."""
        return np.asarray(self.tiles_visited / self.tiles)

    def speed(self) -> Array:
        """Speed over ground in m/s, (N,)."""
        vx, vy = self.state[State.VX], self.state[State.VY]
        return np.asarray(np.sqrt(vx * vx + vy * vy))

    def observe(self, poses: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """State observations (N, STATE_SIZE), after the poses (N, 4) where these are given.

        See ``CarRacing`` for the columns.
        """
        state, scales = self.state, STATE_SCALES
        first = 0 if poses is None else 4
        seen = np.empty((self.count, first + STATE_SIZE), np.float32)
        if poses is not None:
            seen[:, :4] = poses
        vx, vy, cos, sin = (state[row] for row in (State.VX, State.VY, State.COS, State.SIN))
        seen[:, first] = (vx * cos + vy * sin) * (1 / scales["speed"])
        seen[:, first + 1] = (vy * cos - vx * sin) * (1 / scales["sideways"])
        seen[:, first + 2] = state[State.YAW_RATE] * (1 / scales["yaw_rate"])
        seen[:, first + 3] = state[State.STEERING] * (1 / MAX_STEERING)
        rays = self.bank.rays(state)
        rays *= np.float32(1 / RAY_LENGTH)
        after = first + 4 + len(RAY_ANGLES)
        seen[:, first + 4 : after] = rays
        way = self.bank.way_ahead(self.index, state)
        way *= np.float32(1 / scales["way"])
        seen[:, after:] = way.reshape(-1, self.count).T
        return seen


TASK_STARTS = np.array([start for start, _ in TASKS])
TASK_WAYS = np.array([way for _, way in TASKS])


def check_mode(mode: str) -> Mode:
    """Return ``mode`` when it is a known one.

    Raises:
        UserError: unknown mode; names the nearest one.
    """
    modes: tuple[Mode, ...] = get_args(Mode)
    for known in modes:
        if mode == known:
            return known
    raise UserError(f"Unknown mode {mode!r}; use 'goal' or 'lap'.{nearest(mode, modes)}")


def _check_track(key: str, value: Any) -> int:
    return check_count("Reset option 'track'", value, 0, MAX_TRACK)


def _check_task(key: str, value: Any) -> int:
    return check_task_id(value, NUM_TASKS)


def _check_pose(key: str, value: Any) -> Array:
    """Validate a reset option that is a pose."""
    try:
        pose = np.array(value, np.float64)
    except (TypeError, ValueError):
        pose = np.empty(0)
    if pose.shape != (4,) or not np.isfinite(pose).all():
        raise UserError(
            f"Reset option {key!r} must be four finite numbers x, y, cos, sin; got {value!r}."
        )
    if np.abs(pose[:2]).max() > _LIMIT:
        raise UserError(
            f"Reset option {key!r} {pose.tolist()} is outside [-{FIELD:g}, {FIELD:g}]^2."
        )
    if abs(pose[2] ** 2 + pose[3] ** 2 - 1) > 1e-3:
        raise UserError(
            f"Reset option {key!r} {pose.tolist()} has no heading: its last two numbers must be the"
            " cosine and sine of one angle."
        )
    return pose
