"""The Franka kitchen of today with the observations, rewards and end of episodes of D4RL's.

The entry point of the environment specs that are stored with D4RL's kitchen data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from gcrl_gym.errors import UserError, nearest
from gcrl_gym.wrappers.d4rl_env import Floats, make_robotics_env
from gcrl_gym.wrappers.mujoco_joints import repair_joint_types

SUBTASKS: dict[str, tuple[int, tuple[float, ...]]] = {
    "bottom burner": (11, (-0.88, -0.01)),
    "top burner": (15, (-0.92, -0.01)),
    "light switch": (17, (-0.69, -0.05)),
    "slide cabinet": (19, (0.37,)),
    "hinge cabinet": (20, (0.0, 1.45)),
    "microwave": (22, (-0.75,)),
    "kettle": (23, (-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06)),
}
"""First column and goal of every sub-task."""

_ROBOT, _OBJECTS = 9, 21  # positions of the robot's joints; of the objects
_OBJECT_COLUMNS = slice(18, 39)  # of FrankaKitchen-v1, where 9 velocities come between
_RADIUS = 0.3  # a sub-task nearer to its goal than this is finished

# Noise of the objects' positions at a ratio of 1, by column; the robot's is 0.1 throughout.
_OBJECT_NOISE = np.array(
    [0.005] * 2 + [0.0005] * 6 + [0.005] * 3 + [0.1] * 3 + [0.005] * 3 + [0.1] * 3 + [0.005]
)


class D4RLKitchen(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """FrankaKitchen-v1 with D4RL's 60 observations, rewards and termination.

    ::

        0-8      positions of the robot's joints
        9-29     positions of the objects: 8 knobs and burners, 2 light, 1 slide cabinet,
                 2 hinge cabinet, 1 microwave, 7 kettle
        30-59    goals of the sub-tasks in the columns of 0-29, and 0 elsewhere

    The reward is the number of sub-tasks which the step finished; each counts once. The episode
    terminates with the last one. As in D4RL, sub-tasks are judged by the noisy positions that are
    observed. The info names the sub-tasks that are left (``tasks_to_complete``) and those finished
    in the step (``step_task_completions``) and in the episode (``episode_task_completions``). It
    has no ``success``: the measure is the return.

    Args:
        env: FrankaKitchen-v1 without noise of its objects.
        tasks: the sub-tasks, names of `SUBTASKS`.
        noise: ratio of the noise of the objects' positions.
    """

    def __init__(self, env: gym.Env[Any, Any], tasks: Sequence[str], noise: float) -> None:
        RecordConstructorArgs.__init__(self, tasks=tasks, noise=noise)
        super().__init__(env)
        self._kitchen: Any = env.unwrapped
        self._tasks, self._noise = tuple(tasks), noise * _OBJECT_NOISE
        self._finished: list[str] = []
        self._goal = np.zeros(_ROBOT + _OBJECTS)
        for task in tasks:
            self._goal[_columns(task)] = SUBTASKS[task][1]
        width = 2 * (_ROBOT + _OBJECTS)
        self.observation_space = spaces.Box(-np.inf, np.inf, (width,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode with nothing done; options are not used."""
        state, _ = self.env.reset(seed=seed)
        self._finished = []
        return self._observation(self._positions(state)), self._info([])

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one step."""
        state, _, _, truncated, _ = self.env.step(action)
        positions = self._positions(state)
        new = [task for task in self._left() if self._distance(positions, task) < _RADIUS]
        self._finished += new
        terminated = not self._left()
        info = self._info(new)
        return self._observation(positions), float(len(new)), terminated, truncated, info

    def _positions(self, state: dict[str, Any]) -> Floats:
        """Noisy positions of robot and objects: FrankaKitchen-v1 adds the robot's noise."""
        generator: np.random.Generator = self._kitchen.robot_env.np_random
        objects = state["observation"][_OBJECT_COLUMNS]
        objects = objects + self._noise * generator.uniform(-1.0, 1.0, _OBJECTS)
        return np.concatenate([state["observation"][:_ROBOT], objects])

    def _distance(self, positions: Floats, task: str) -> float:
        columns = _columns(task)
        return float(np.linalg.norm(positions[columns] - self._goal[columns]))

    def _left(self) -> list[str]:
        return [task for task in self._tasks if task not in self._finished]

    def _observation(self, positions: Floats) -> NDArray[np.float32]:
        return np.concatenate([positions, self._goal]).astype(np.float32)

    def _info(self, new: list[str]) -> dict[str, Any]:
        return {
            "tasks_to_complete": self._left(),
            "step_task_completions": new,
            "episode_task_completions": list(self._finished),
        }


def make_kitchen_env(
    tasks: Sequence[str],
    *,
    noise: float = 0.1,
    render_mode: str | None = None,
    **kwargs: Any,
) -> D4RLKitchen:
    """Make FrankaKitchen-v1 with the sub-tasks, observations, noise and rewards of D4RL.

    Args:
        tasks: the sub-tasks, names of `SUBTASKS`.
        noise: ratio of the noise of observations; D4RL's is 0.1, FrankaKitchen-v1's is smaller.
        render_mode: passed on.
        **kwargs: passed on.

    Raises:
        UserError: Gymnasium-Robotics is not installed, no sub-tasks or an unknown one.
    """
    for task in tasks:
        if task not in SUBTASKS:
            raise UserError(f"Unknown sub-task {task!r}.{nearest(task, SUBTASKS)}")
    if not tasks:
        raise UserError(f"tasks is empty; choose of {', '.join(SUBTASKS)}.")
    with contextlib.suppress(ImportError):  # which comes as one sentence in the next line
        repair_joint_types()
    env = make_robotics_env(
        "FrankaKitchen-v1",
        render_mode,
        tasks_to_complete=list(tasks),
        robot_noise_ratio=noise,
        object_noise_ratio=0.0,
        disable_env_checker=True,  # it warns of goals, which are not used here
        **kwargs,
    )
    _free_pedestal(env.unwrapped)
    return D4RLKitchen(env, tasks, noise)


def _free_pedestal(kitchen: Any) -> None:
    """Let nothing collide with the robot's pedestal, as in D4RL, whose model is else the same."""
    model = kitchen.model
    pedestal = model.body_parentid[model.body("panda0_link0").id]
    geoms = model.geom_bodyid == pedestal
    model.geom_contype[geoms] = 0
    model.geom_conaffinity[geoms] = 0


def _columns(task: str) -> slice:
    first, goal = SUBTASKS[task]
    return slice(first, first + len(goal))
