"""Rewards of OGBench's single-task sets and its oracle goals, computed from the simulator state.

Both are functions of one row's ``qpos`` and ``button_states``. As in ogbench.relabel_utils, whose
numbers these equal to the bit::

    mazes    success = |xy - goal| <= tolerance (the ball's xy in antsoccer)
             reward  = success - 1
    tables   one success per cube and drawer and window (within 4 cm) and button (in its state)
             reward  = number of successes - number of parts
    mask     0 where everything is done, else 1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.ogbench_catalog import DatasetName, cubes_and_buttons
from gcrl_gym.errors import UserError

_BALL_START = 15  # antsoccer: qpos is the ant's 15 numbers, then the ball's
_OBJECT_START, _CUBE_LENGTH = 14, 7  # tables: qpos is the arm's 14 numbers, then 7 per cube
_TABLE_TOLERANCE = 0.04
_XYZ_CENTER, _XYZ_SCALE = np.array([0.425, 0.0, 0.0]), 10.0
_DRAWER_SCALE, _WINDOW_SCALE = 18.0, 15.0


@dataclass(frozen=True)
class TaskGoal:
    """Goal of a single task, in the environment's own numbers (their dtypes decide the last bit).

    Args:
        task_id: 1 to 5.
        xy: goal position in a maze, ``(2,)``.
        tolerance: largest distance that counts as reached in a maze.
        cubes: positions of the cubes, ``(cubes, 3)``.
        buttons: states of the buttons, ``(buttons,)``.
        drawer: position of the drawer.
        window: position of the window.
    """

    task_id: int
    xy: Any = None
    tolerance: float = 0.0
    cubes: Any = None
    buttons: Any = None
    drawer: Any = None
    window: Any = None


def task_goal(name: DatasetName) -> TaskGoal:
    """Ask OGBench's environment for the goal of a single-task set.

    Visual sets have the goals of the state-based ones, whose environment needs no renderer.

    Raises:
        UserError: OGBench is not installed, or has no such environment.
    """
    from gcrl_gym.datasets.ogbench_envs import make_singletask_env

    env = make_singletask_env(name.env_id.removeprefix("visual-"))
    try:
        env.reset(seed=0)  # goals of single tasks have no noise
        inner: Any = env.unwrapped
        task_id = int(inner._reward_task_id)
        if name.family.endswith(("maze", "soccer")):
            return TaskGoal(task_id, xy=inner.cur_goal_xy, tolerance=inner._goal_tol)
        table = name.family in ("cube", "scene")
        return TaskGoal(
            task_id,
            cubes=inner._data.mocap_pos.copy() if table else None,
            buttons=inner._target_button_states.copy() if name.family != "cube" else None,
            drawer=inner._target_drawer_pos if name.family == "scene" else None,
            window=inner._target_window_pos if name.family == "scene" else None,
        )
    finally:
        env.close()


def rewards_and_masks(
    name: DatasetName, goal: TaskGoal, arrays: Mapping[str, Array], file: str
) -> tuple[Array, Array]:
    """Rewards and masks of every row, float32 ``(N,)`` each; mask 0 means no bootstrap.

    Args:
        name: the dataset.
        goal: what `task_goal` found.
        arrays: ``qpos`` and ``button_states``, one row per state.
        file: name of the file, for errors.

    Raises:
        UserError: a key the rewards need is missing or has another width.
    """
    if goal.xy is not None:
        distance = np.linalg.norm(_positions(name, arrays, file) - goal.xy, axis=-1)
        reached = np.asarray(distance <= goal.tolerance, np.float32)
        return np.asarray(reached - 1), np.asarray(1 - reached)
    parts = []
    if goal.cubes is not None:
        gaps = np.linalg.norm(goal.cubes - _cubes(name, arrays, file), axis=-1)
        parts.append(gaps <= _TABLE_TOLERANCE)
    if goal.buttons is not None:
        parts.append(_buttons(name, arrays, file) == goal.buttons)
    if goal.drawer is not None:
        drawer, window = _drawer_and_window(name, arrays, file)
        parts.append(np.abs(drawer - goal.drawer) <= _TABLE_TOLERANCE)
        parts.append(np.abs(window - goal.window) <= _TABLE_TOLERANCE)
    done = np.concatenate(parts, axis=-1)
    rewards = done.sum(axis=-1) - done.shape[-1]
    return np.asarray(rewards, np.float32), np.asarray(~np.all(done, axis=-1), np.float32)


def oracle_goals(name: DatasetName, arrays: Mapping[str, Array], file: str) -> Array:
    """Oracle representation of the state of every row, float32 ``(N, G)``.

    A position in a maze; on a table the cubes' scaled positions, the buttons' states, the drawer's
    and the window's scaled positions, as far as the environment has them.

    Raises:
        UserError: a key it needs is missing or has another width, or there is no such goal.
    """
    if name.family.endswith(("maze", "soccer")):
        return _positions(name, arrays, file).astype(np.float32)
    if name.family not in ("cube", "scene", "puzzle"):
        raise UserError(f"OGBench has no oracle goals for {name.env!r}; use the plain dataset.")
    parts = []
    if name.family != "puzzle":
        cubes = (_cubes(name, arrays, file) - _XYZ_CENTER) * _XYZ_SCALE
        parts.append(cubes.reshape(len(cubes), -1))
    if name.family != "cube":
        parts.append(_buttons(name, arrays, file))
    if name.family == "scene":
        drawer, window = _drawer_and_window(name, arrays, file)
        parts += [drawer * _DRAWER_SCALE, window * _WINDOW_SCALE]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def oracle_dim(name: DatasetName) -> int:
    """Width of an oracle goal."""
    if name.family.endswith(("maze", "soccer")):
        return 2
    cubes, buttons = cubes_and_buttons(name.env)
    return 3 * cubes + buttons + 2 * (name.family == "scene")


def _positions(name: DatasetName, arrays: Mapping[str, Array], file: str) -> Array:
    start = _BALL_START if name.family == "antsoccer" else 0
    return _qpos(name, arrays, file, start + 2)[:, start : start + 2]


def _cubes(name: DatasetName, arrays: Mapping[str, Array], file: str) -> Array:
    count = cubes_and_buttons(name.env)[0]
    stop = _OBJECT_START + count * _CUBE_LENGTH
    poses = _qpos(name, arrays, file, stop)[:, _OBJECT_START:stop]
    return poses.reshape(len(poses), count, _CUBE_LENGTH)[:, :, :3]


def _buttons(name: DatasetName, arrays: Mapping[str, Array], file: str) -> Array:
    return _column(name, arrays, file, "button_states", cubes_and_buttons(name.env)[1], exact=True)


def _drawer_and_window(
    name: DatasetName, arrays: Mapping[str, Array], file: str
) -> tuple[Array, Array]:
    cubes, buttons = cubes_and_buttons(name.env)
    drawer = _OBJECT_START + cubes * _CUBE_LENGTH + buttons
    qpos = _qpos(name, arrays, file, drawer + 2)
    return qpos[:, drawer : drawer + 1], qpos[:, drawer + 1 : drawer + 2]


def _qpos(name: DatasetName, arrays: Mapping[str, Array], file: str, width: int) -> Array:
    return _column(name, arrays, file, "qpos", width, exact=False)


def _column(
    name: DatasetName, arrays: Mapping[str, Array], file: str, key: str, width: int, exact: bool
) -> Array:
    """Return an info array after checking that it is there and wide enough."""
    if key not in arrays:
        raise UserError(
            f"{file} has no {key!r}, from which the {name.variant} data are computed; take a file "
            "that was saved with it, as OGBench's own are."
        )
    found = arrays[key].shape[1]
    if found < width or (exact and found != width):
        raise UserError(
            f"{file}: {key} has width {found}, but {name.env} needs {width}; the file belongs to "
            "another environment."
        )
    return arrays[key]
