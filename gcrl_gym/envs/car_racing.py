"""Car racing on procedural tracks: reach a pose further along the road, or drive a lap.

The motion is in ``car_dynamics``, the tracks in ``tracks``, the task in ``car_batch``, pictures in
``car_rendering`` and ``car_frames``; ``car_vector`` has many copies in one program.
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
from numpy.typing import ArrayLike, NDArray

from gcrl_gym.envs.car_batch import (
    DRAWS,
    MAX_TRACK,
    NUM_TASKS,
    STATE_SIZE,
    CarBatch,
    Mode,
    check_mode,
)
from gcrl_gym.envs.goal_env import (
    GoalEnv,
    check_count,
    check_number,
    check_reward_kind,
    require_running,
)
from gcrl_gym.envs.tracks import FIELD, get_track
from gcrl_gym.errors import UserError, nearest

MAX_STEPS = 1000

SPECS = [
    EnvSpec(
        f"gcrl/CarRacing{name}-v0",
        f"gcrl_gym.envs.car_racing:CarRacing{name}",
        vector_entry_point=f"gcrl_gym.envs.car_vector:CarRacing{name}Vector",
        max_episode_steps=MAX_STEPS,
    )
    for name in ("", "Pixels")
]

DISCRETE_ACTIONS = np.array(
    [[0.0, 0.0, 0.0], [0.6, 0.0, 0.0], [-0.6, 0.0, 0.0], [0.0, 0.7, 0.0], [0.0, 0.0, 0.8]]
)
"""(steer, gas, brake) of the discrete actions: nothing, steer right, steer left, gas, brake."""

LAP_TRACKS = 100  # in lap mode, unless ``num_tracks`` says otherwise; 1 in goal mode
_STATE_BOUND = 6.0  # beyond what speeds, rays and the way ahead reach from anywhere in the field


class CarRacing(GoalEnv[Any]):
    """A car on a closed road, seen as numbers.

    **Actions**: Box([-1, 0, 0], [1, 1, 1]) steer (-1 is full left, +1 full right), gas, brake;
    values outside are clipped. With ``continuous=False``, Discrete(5): 0 nothing, 1 steer right,
    2 steer left, 3 gas, 4 brake. A step is 0.05 s.

    **Goal mode**: reach a pose ``(x, y, cos, sin)`` (metres; heading as a unit vector) further
    along the road: within ``goal_tolerance`` of its position and ``heading_tolerance`` of its
    heading. The observation is a Dict of ``observation``, ``achieved_goal`` and ``desired_goal``.

    **Lap mode**: visit every tile of the road. Reward is 1000 / (number of tiles) for each tile
    visited first, and -0.1 per step. The episode terminates at the start line once 95 % of the
    tiles are visited, and with reward -100 where the car leaves the field.

    Columns of the (39,) observation; lap mode has no pose and begins with the speed:

        0-3     pose x, y, cos, sin: the achieved goal
        4-7     speed forwards / 25, to the left / 10, yaw rate / 3, steering angle / 0.45
        8-18    distances to the road's edge / 30 along rays at 90, 60, 38, 22, 9, 0, .. -90 degrees
                (left is positive); negative where the car is on the grass
        19-28   points of the centre line 3 .. 42 m ahead: metres forwards of the car / 42
        29-38   the same points: metres to the left of the car / 42

    ``info`` holds ``success``, ``is_success`` (goal reached; lap completed), ``lap_progress``
    (share of the tiles visited), ``on_road``, ``speed`` (m/s), ``track`` (seed) and, in goal mode,
    ``distance_to_goal``.

    Args:
        mode: ``goal`` or ``lap``.
        continuous: continuous or discrete actions.
        reward: in goal mode, ``sparse`` 1 on success, else 0; ``penalty`` -1 per step, 0 on
            success; ``dense`` minus the distance to the goal (see ``goal_distance``).
        goal_tolerance: metres.
        heading_tolerance: degrees; 180 for any heading.
        track: seed of the (first) track.
        num_tracks: every reset draws one of the tracks ``track .. track + num_tracks - 1``; None
            for 1 in goal mode and 100 in lap mode.
        terminate_at_goal: whether success ends the episode, in goal mode.
        render_mode: ``rgb_array``, ``human`` (a window) or None.

    Raises:
        UserError: a keyword that is unknown or out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"], "render_fps": 20}  # noqa: RUF012
    num_tasks = NUM_TASKS

    def __init__(
        self,
        *,
        mode: str = "goal",
        continuous: bool = True,
        reward: str = "sparse",
        goal_tolerance: float = 2.0,
        heading_tolerance: float = 20.0,
        track: int = 0,
        num_tracks: int | None = None,
        terminate_at_goal: bool = True,
        render_mode: str | None = None,
    ) -> None:
        self.mode: Mode = check_mode(mode)
        self.continuous = bool(continuous)
        self.reward_kind = check_reward_kind(reward)
        if self.mode == "lap" and self.reward_kind != "sparse":
            raise UserError(f"reward={reward!r} is of goal mode; lap mode has its own reward.")
        self.goal_tolerance = check_number("goal_tolerance", goal_tolerance, 0.25, 6.0)
        self.heading_tolerance = check_number("heading_tolerance", heading_tolerance, 1.0, 180.0)
        self.track = check_count("track", track, 0, MAX_TRACK)
        default = 1 if self.mode == "goal" else LAP_TRACKS
        count = default if num_tracks is None else num_tracks
        self.num_tracks = check_count("num_tracks", count, 1, MAX_TRACK)
        self.terminate_at_goal = bool(terminate_at_goal)
        if render_mode not in (None, *self.metadata["render_modes"]):
            modes = self.metadata["render_modes"]
            raise UserError(
                f"Unknown render_mode {render_mode!r}; use 'rgb_array', 'human' or None."
                f"{nearest(str(render_mode), modes)}"
            )
        self.render_mode = render_mode
        # Metres for a chord of the unit circle of headings; at 180 degrees, headings do not count.
        chord = 2 * math.sin(math.radians(self.heading_tolerance) / 2)
        self._heading_weight = 0.0 if chord == 2 else self.goal_tolerance / chord
        self.observation_space = self._make_observation_space()
        low, high = np.array([-1, 0, 0], np.float32), np.ones(3, np.float32)
        self.action_space = spaces.Box(low, high) if self.continuous else spaces.Discrete(5)
        self.cars = CarBatch(1, self.mode, self.track, self.num_tracks)
        self._running = False
        self._trail: list[tuple[float, float]] = []
        self._success = False

    def _make_observation_space(self) -> spaces.Space[Any]:
        return _with_goals(state_space(self.mode), self.mode)

    def goal_distance(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> NDArray[Any]:
        """Distance of poses (..., 4) in metres, shape (...): of positions or headings.

        The larger one of the distance of the positions and of the difference of the headings, where
        a difference of ``heading_tolerance`` counts as ``goal_tolerance`` metres. So a pose is
        reached when this is at most ``goal_tolerance``.
        """
        difference = np.asarray(achieved_goal, np.float64) - np.asarray(desired_goal, np.float64)
        x, y, cos, sin = np.moveaxis(difference, -1, 0)
        turn = np.sqrt(cos * cos + sin * sin) * self._heading_weight
        return np.asarray(np.maximum(np.sqrt(x * x + y * y), turn))

    @property
    def compute_reward(self) -> Callable[..., Any]:
        """Rewards of poses, as ``GoalEnv.compute_reward``; lap mode has no such attribute.

        Stable-Baselines3 takes whatever has this attribute for a goal environment.
        """
        self._need_goals("compute_reward")
        return super().compute_reward

    @property
    def compute_terminated(self) -> Callable[..., Any]:
        """Ends of episodes at poses, as ``GoalEnv.compute_terminated``, in goal mode."""
        self._need_goals("compute_terminated")
        return super().compute_terminated

    def _need_goals(self, name: str) -> None:
        if self.mode == "lap":
            raise AttributeError(f"CarRacing in lap mode has no goals, and so no {name}.")

    # Steps ---------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the car stands.

        Args:
            seed: seeds the environment's own generator.
            options: ``{"task_id": 1 .. 5}`` for an evaluation task: on track ``track`` always the
                same start and goal, but for a jitter of about half a metre (in lap mode, a lap of
                track ``track + task_id - 1``); or any of ``track`` (seed), ``start`` and ``goal``
                (poses x, y, cos, sin), the latter two in goal mode.

        Raises:
            UserError: an unknown option, a value out of range, or a start at the goal.
        """
        super().reset(seed=seed)

        def draw(cars: NDArray[np.int64]) -> NDArray[np.float64]:
            return self.np_random.random((len(cars), DRAWS))

        self.cars.start(np.arange(1), options or {}, draw, self.is_success)
        self._trail = [self.position]
        observation, _, _, info = self._outcome()
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step; see the class for actions and rewards.

        Raises:
            UserError: an action of another shape or type, one that is not a number, or no
                episode that goes on.
        """
        actions = read_actions(action, self.continuous, ())
        require_running(self._running)
        self.cars.step(actions[:, None])
        if self.render_mode is not None:
            self._trail.append(self.position)
        observation, reward, terminated, info = self._outcome()
        return observation, reward, terminated, False, info

    @property
    def position(self) -> tuple[float, float]:
        """Position of the car in metres."""
        x, y = self.cars.state[:2, 0].tolist()
        return x, y

    def _outcome(self) -> tuple[Any, float, bool, dict[str, Any]]:
        """Observation, reward, terminated and info of the present state."""
        rewards, terminated, infos = judge(self, self.cars)
        observation = observe(self.cars, self._sense(self.cars))
        self._success, self._running = bool(infos["is_success"][0]), not terminated[0]
        if self.render_mode == "human":
            self.render()
        info = {key: values[0].item() for key, values in infos.items()}
        if isinstance(observation, dict):
            observation = {key: part[0] for key, part in observation.items()}
        else:
            observation = observation[0]
        return observation, float(rewards[0]), bool(terminated[0]), info

    def _sense(self, cars: CarBatch) -> NDArray[Any]:
        """What ``observation`` holds, of all cars of a batch."""
        return cars.observe(cars.poses() if self.mode == "goal" else None)

    # Pictures ------------------------------------------------------------------------------

    def render(self) -> NDArray[np.uint8] | None:
        """Draw the present state.

        Returns:
            (480, 480, 3) uint8 with ``rgb_array``; None with ``human``, which shows it in a window.
        """
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array' or 'human' given to gym.make.")
            return None
        frame = draw_frame(self.cars, 0, self._trail, self._success, self.goal_tolerance)
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


class CarRacingPixels(CarRacing):
    """The car seen from above, heading up, as a picture (96, 96, 3) uint8.

    The car stands in the middle at three quarters of the height; a pixel is 0.4 m wide. The goal,
    when in view, is a disc with an arrow. The strip at the bottom shows the speed (bar from the
    left), the steering angle and the yaw rate (bars from the middle), so that one picture says
    nearly all about the state. Keywords as in ``CarRacing``.
    """

    def _make_observation_space(self) -> spaces.Space[Any]:
        picture = spaces.Box(0, 255, (96, 96, 3), np.uint8)
        return _with_goals(picture, self.mode)

    def _sense(self, cars: CarBatch) -> NDArray[Any]:
        from gcrl_gym.envs.car_rendering import draw_pixels

        return draw_pixels(cars, self.goal_tolerance)


def state_space(mode: Mode) -> spaces.Box:
    """Space of the state observation."""
    high = np.full(STATE_SIZE, _STATE_BOUND, np.float32)
    if mode == "goal":
        high = np.concatenate([_pose_bound(), high])
    return spaces.Box(-high, high)


def _pose_bound() -> NDArray[np.float32]:
    return np.array([FIELD, FIELD, 1, 1], np.float32)


def _with_goals(space: spaces.Space[Any], mode: Mode) -> spaces.Space[Any]:
    if mode == "lap":
        return space
    pose = spaces.Box(-_pose_bound(), _pose_bound())
    return spaces.Dict({"observation": space, "achieved_goal": pose, "desired_goal": pose})


def observe(cars: CarBatch, sensed: NDArray[Any]) -> Any:
    """Observations of all cars: as they are in lap mode, with the goals in goal mode."""
    if cars.mode == "lap":
        return sensed
    return {
        "observation": sensed,
        "achieved_goal": cars.poses(),
        "desired_goal": cars.goals.copy(),
    }


def judge(
    env: CarRacing, cars: CarBatch
) -> tuple[NDArray[np.float64], NDArray[np.bool_], dict[str, NDArray[Any]]]:
    """Rewards, terminated and infos (N,) of all cars, as ``env`` rewards them."""
    infos: dict[str, NDArray[Any]] = {
        "lap_progress": cars.lap_progress(),
        "on_road": cars.edge > 0,
        "speed": cars.speed(),
        "track": cars.bank.seeds.copy(),
    }
    if cars.mode == "goal":
        distance = env.goal_distance(cars.poses(), cars.goals)
        success = distance <= env.goal_tolerance
        terminated = success & env.terminate_at_goal
        if env.reward_kind == "dense":
            rewards = -distance
        else:
            rewards = success - float(env.reward_kind == "penalty")
        infos["distance_to_goal"] = distance
    else:
        success = cars.lap_complete.copy()
        terminated = success | cars.outside
        rewards = cars.lap_rewards.copy()
    infos |= {"success": success.astype(np.float64), "is_success": success}
    return rewards, terminated, infos


def read_actions(actions: Any, continuous: bool, batch: tuple[int, ...]) -> NDArray[np.float64]:
    """Return steer, gas and brake (3, *batch) of actions.

    Raises:
        UserError: another shape or type, or values that are not numbers.
    """
    if not continuous:
        return np.asarray(DISCRETE_ACTIONS[_read_indices(actions, batch)].T)
    try:
        array = np.asarray(actions, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (*batch, 3):
        raise UserError(f"CarRacing takes actions of shape {(*batch, 3)}, got {actions!r}.")
    array = np.ascontiguousarray(array.T)
    steer = np.minimum(np.maximum(array[0], -1.0), 1.0)
    pedals = np.minimum(np.maximum(array[1:], 0.0), 1.0)
    if np.isnan(array).any():
        raise UserError(f"CarRacing got an action that is not a number: {actions!r}.")
    return np.stack([steer, *pedals])


def _read_indices(actions: Any, batch: tuple[int, ...]) -> Any:
    if not batch:
        try:
            index = operator.index(actions)
        except TypeError:
            index = -1
        if not 0 <= index < len(DISCRETE_ACTIONS):
            raise UserError(f"CarRacing takes a whole number from 0 to 4, got {actions!r}.")
        return index
    array = np.asarray(actions)
    if array.shape != batch or array.dtype.kind not in "iu":
        raise UserError(f"CarRacing takes {batch[0]} whole numbers from 0 to 4, got {actions!r}.")
    if ((array < 0) | (array >= len(DISCRETE_ACTIONS))).any():
        raise UserError(f"CarRacing takes whole numbers from 0 to 4, got {actions!r}.")
    return array


def draw_frame(
    cars: CarBatch, car: int, trail: list[tuple[float, float]], success: bool, tolerance: float
) -> NDArray[np.uint8]:
    """Draw one car of a batch."""
    from gcrl_gym.envs.car_frames import frame

    track = get_track(int(cars.bank.seeds[car]))
    return frame(track, cars, car, trail, success, tolerance)
