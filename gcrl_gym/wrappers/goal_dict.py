"""A wrapper that gives environments from elsewhere the Dict observations of a goal environment."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs, seeding
from numpy.typing import NDArray

from gcrl_gym.envs.goal_env import check_task_id
from gcrl_gym.errors import UserError, nearest
from gcrl_gym.wrappers.maze_tasks import maze_tasks
from gcrl_gym.wrappers.mujoco_joints import import_robotics, repair_joint_types

_PACKAGES = {
    "OGBench": ("ogbench", "ogbench"),
    "Gymnasium-Robotics": ("gymnasium_robotics", "robotics"),
}
KEYS = ("observation", "achieved_goal", "desired_goal")


class GoalDict(gym.Wrapper[dict[str, Any], Any, Any, Any], RecordConstructorArgs):
    """Make a goal environment, with tasks, of an environment from elsewhere.

    Two kinds of environment are taken:

    * Box observations and a goal in ``info["goal"]`` of ``reset``, such as OGBench's. The goal is
      an observation of the goal state. Every observation becomes a dict of ``observation``,
      ``achieved_goal`` (equal to the observation) and ``desired_goal``; floats become float32.
    * Dict observations with these three keys, such as Gymnasium-Robotics'. They stay as they are.
      ``compute_terminated`` takes batches here, also where the environment's own does not.

    The info of reset and step gains ``success`` (1.0 or 0.0) and ``is_success`` (bool), both from
    whichever of them the environment reports. ``num_tasks`` and the reset option ``task_id`` are
    those of the wrapped environment, or of ``tasks``. The mazes of Gymnasium-Robotics, which have
    none, get five far pairs of a start and a goal cell (see `maze_tasks`).

    OGBench's ``reset`` draws from numpy's process-wide generator and from its own action space.
    Here both are seeded for the time of the reset from a generator of the wrapper's, and put back
    as they were afterwards: ``reset(seed=s)`` is reproducible, and no reset disturbs the process.

    Args:
        env: the environment.
        goal_columns: columns of a Box observation that are the goal, such as ``(0, 1)`` for a
            position, where ``info["goal"]`` has these only or a whole observation; None for all.
        goal_tolerance: success is a Euclidean distance of the goals of at most this, where the
            environment reports none; None to rely on the environment.
        tasks: reset options of each evaluation task, in place of the environment's tasks.

    Raises:
        UserError: observations of neither kind.
    """

    compute_terminated: Callable[..., Any]  # only where the wrapped environment has it

    def __init__(
        self,
        env: gym.Env[Any, Any],
        goal_columns: Sequence[int] | None = None,
        goal_tolerance: float | None = None,
        tasks: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        given = {"goal_columns": goal_columns, "goal_tolerance": goal_tolerance, "tasks": tasks}
        recorded: Any = {key: value for key, value in given.items() if value is not None}
        RecordConstructorArgs.__init__(self, **recorded)
        super().__init__(env)
        self._columns: Any = slice(None) if goal_columns is None else list(goal_columns)
        self._tolerance = goal_tolerance
        if tasks is None and not env.has_wrapper_attr("num_tasks"):
            tasks = maze_tasks(env) or None
        self._tasks = tasks
        self._reset_rng = np.random.default_rng()
        self._goal: NDArray[Any] | None = None
        space = env.observation_space
        if isinstance(space, spaces.Dict) and set(KEYS) <= set(space.spaces):
            if env.has_wrapper_attr("compute_terminated"):
                judge = env.get_wrapper_attr("compute_terminated")
                self.compute_terminated = partial(_one_by_one, judge)
            return
        if not isinstance(space, spaces.Box):
            raise UserError(
                f"GoalDict needs Box observations, or a Dict of {', '.join(KEYS)}, but this "
                f"environment has {space}."
            )
        self._dtype: Any = np.float32 if np.issubdtype(space.dtype, np.floating) else space.dtype
        low, high = space.low.astype(self._dtype), space.high.astype(self._dtype)
        goals = spaces.Box(low[self._columns], high[self._columns], dtype=self._dtype)
        self.observation_space = spaces.Dict(
            {
                "observation": spaces.Box(low, high, dtype=self._dtype),
                "achieved_goal": goals,
                "desired_goal": goals,
            }
        )
        self._goal = np.zeros(goals.shape, self._dtype)

    @property
    def num_tasks(self) -> int:
        """Number of evaluation tasks; no attribute where there are none."""
        if self._tasks is not None:
            return len(self._tasks)
        return int(self.env.get_wrapper_attr("num_tasks"))

    @property
    def task_options(self) -> Sequence[Mapping[str, Any]] | None:
        """Reset options of each evaluation task; None where they are the environment's own."""
        return self._tasks

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start an episode; the same seed and options give the same start and goal.

        Raises:
            UserError: no such task, or an info without a goal that is shaped like an observation.
        """
        if seed is not None:
            self._reset_rng = np.random.default_rng(seed)
        if self._tasks is not None and options and "task_id" in options:
            task = check_task_id(options["task_id"], len(self._tasks))
            others = {key: value for key, value in options.items() if key != "task_id"}
            options = {**self._tasks[task - 1], **others}
        with seeded(self._reset_rng, self.env.unwrapped.action_space):
            observation, info = self.env.reset(seed=seed, options=options)
        if self._goal is not None:
            self._goal = self._read_goal(info)
        result = self._as_dict(observation)
        return result, self._with_success(result, {"success": False, **info})

    def step(
        self, action: Any
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Take one step.

        Raises:
            UserError: the environment does not report success, and there is no goal_tolerance.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        result = self._as_dict(observation)
        info = self._with_success(result, info)
        return result, float(reward), bool(terminated), bool(truncated), info

    def _read_goal(self, info: dict[str, Any]) -> NDArray[Any]:
        goal = np.array(info.get("goal", np.nan), dtype=self._dtype)
        shapes = self.observation_space["desired_goal"], self.observation_space["observation"]  # type: ignore[index]
        if goal.shape == shapes[0].shape:
            return goal
        if goal.shape == shapes[1].shape:
            return np.asarray(goal[self._columns])
        raise UserError(
            "GoalDict needs info['goal'] at reset with the shape of an observation,"
            f" {shapes[1].shape}; got {goal.shape if 'goal' in info else 'no goal'}."
        )

    def _as_dict(self, observation: Any) -> dict[str, NDArray[Any]]:
        if self._goal is None:
            return observation  # type: ignore[no-any-return]
        observation = np.array(observation, dtype=self._dtype)
        return {
            "observation": observation,
            "achieved_goal": observation[self._columns].copy(),
            "desired_goal": self._goal.copy(),
        }

    def _with_success(
        self, observation: dict[str, NDArray[Any]], info: dict[str, Any]
    ) -> dict[str, Any]:
        if self._tolerance is not None:
            gap = observation["achieved_goal"].astype(np.float64) - observation["desired_goal"]
            reached = bool(np.linalg.norm(gap) <= self._tolerance)
        elif "is_success" in info or "success" in info:
            reached = bool(info.get("is_success", info.get("success")))
        else:
            raise UserError(
                "GoalDict finds neither 'success' nor 'is_success' in the info of a step; say with "
                "goal_tolerance which distance to the goal is success."
            )
        return {**info, "success": float(reached), "is_success": reached}


def _one_by_one(judge: Callable[..., Any], achieved: Any, desired: Any, info: Any = None) -> Any:
    """Judge goals (..., G) with a function of single goals; returns a bool or bools (...)."""
    achieved, desired = np.asarray(achieved), np.asarray(desired)
    if achieved.ndim == 1:
        return bool(judge(achieved, desired, info))
    pairs = zip(achieved.reshape(-1, achieved.shape[-1]), desired.reshape(-1, desired.shape[-1]))
    judged = [bool(judge(one, other, {})) for one, other in pairs]
    return np.array(judged, bool).reshape(achieved.shape[:-1])


@contextlib.contextmanager
def seeded(rng: np.random.Generator, space: spaces.Space[Any]) -> Iterator[None]:
    """Make what draws from elsewhere draw from ``rng``, and put everything back.

    Numpy's process-wide generator and that of ``space`` are seeded. So are spaces which are made
    meanwhile: OGBench's robots make their action space anew whenever they sample from it.

    Args:
        rng: what the seeds are drawn from.
        space: the action space of the environment.
    """
    process_state = np.random.get_state()  # noqa: NPY002 (the generator that OGBench draws from)
    space_bits = space.np_random.bit_generator
    space_state = space_bits.state
    make_generator = seeding.np_random

    def from_rng(seed: int | None = None) -> tuple[np.random.Generator, int]:
        return make_generator(int(rng.integers(2**32)) if seed is None else seed)

    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    space_bits.state = np.random.PCG64(int(rng.integers(2**32))).state
    seeding.np_random = from_rng
    try:
        yield
    finally:
        seeding.np_random = make_generator
        np.random.set_state(process_state)  # noqa: NPY002
        space_bits.state = space_state


def make_goal_dict_env(
    env_id: str, render_mode: str | None = None, **kwargs: Any
) -> gym.Env[dict[str, Any], Any]:
    """Make an environment of OGBench or Gymnasium-Robotics as a goal environment with tasks.

    The entry point of the environment specs that are stored with OGBench data.

    Args:
        env_id: the official name, for example ``pointmaze-medium-v0`` or ``PointMaze_UMaze-v3``.
        render_mode: passed on when given.
        **kwargs: passed on to the environment.

    Raises:
        UserError: the package is not installed, or has no such environment.
    """
    # All names of Gymnasium-Robotics begin with a capital, all of OGBench's with a small letter.
    package = "Gymnasium-Robotics" if env_id[:1].isupper() else "OGBench"
    module, extra = _PACKAGES[package]
    try:
        if package == "Gymnasium-Robotics":
            gym.register_envs(import_robotics())
            repair_joint_types()
        else:
            gym.register_envs(importlib.import_module(module))
    except ImportError as error:
        raise UserError(
            f"Environment {env_id!r} needs {package}: pip install 'gcrl-gym[{extra}]'."
        ) from error
    if env_id not in gym.registry:
        entries = {name: str(spec.entry_point) for name, spec in gym.registry.items()}
        names = [name for name, entry in entries.items() if entry.startswith(f"{module}.")]
        raise UserError(f"{package} has no environment {env_id!r}.{nearest(env_id, names)}")
    if render_mode is not None:
        kwargs["render_mode"] = render_mode
    return GoalDict(gym.make(env_id, **kwargs))
