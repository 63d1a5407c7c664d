"""Where episodes of online training begin and what they aim at: never an evaluation task.

====================================  ===========================================================
environment                           a training episode
====================================  ===========================================================
ours (Nav2D, CarRacing)               a reset without options: start and goal are random
OGBench's mazes                       random cells, none of them in a task
Gymnasium-Robotics' mazes             the same; where too few cells are left, other pairs of cells
OGBench's cubes, puzzles and scene    random scenes on the table, as its data collection begins;
                                      cubes are never stacked, nor put into the drawer
OGBench's powderworld                 a random sequence of strokes
OGBench's single-task variants, D4RL  a reset without options: they have this one task
anything inside of `FixedTask`        that task, on purpose
====================================  ===========================================================

Without options OGBench's resets draw one of the five evaluation tasks.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np

from gcrl_gym.errors import UserError
from gcrl_gym.wrappers.maze_tasks import Cell, distances, free_cells

Layout = tuple[tuple[int, ...], ...]  # 1 is a wall
Pair = tuple[Cell, Cell]

_CUBE_GAP = 0.07  # metres between the middles of two cubes, whose diagonal is 0.057
_CUBE_WAY = 0.1  # metres that a cube at least has to be moved; success is within 0.04
_CUBE_HEIGHT = 0.02
_STROKES = (16, 65)


def training_options(env: gym.Env[Any, Any], rng: np.random.Generator) -> dict[str, Any] | None:
    """Return the reset options of a training episode, None for a reset without.

    Args:
        env: the environment, with its wrappers.
        rng: what is random is drawn from it.

    Raises:
        UserError: an OGBench environment of a kind that is not known here.
    """
    inner: Any = env.unwrapped
    if not env.has_wrapper_attr("num_tasks") or env.has_wrapper_attr("task_id"):
        return None
    if getattr(inner, "_reward_task_id", None) is not None:
        return None
    if hasattr(inner, "task_infos"):
        return {"task_info": {"task_name": "training", **_task_info(inner, rng)}}
    tasks = env.get_wrapper_attr("task_options") if env.has_wrapper_attr("task_options") else None
    walls = getattr(getattr(inner, "maze", None), "maze_map", None)
    if walls is None or not all({"reset_cell", "goal_cell"} <= set(task) for task in tasks or ()):
        return None
    evaluated = tuple((_cell(t["reset_cell"]), _cell(t["goal_cell"])) for t in tasks or ())
    start, goal = _draw(_pairs(_layout(walls), evaluated), rng)
    return {"reset_cell": list(start), "goal_cell": list(goal)}


def _task_info(inner: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Return a task of one of OGBench's environments in the form of its own."""
    first = inner.task_infos[0]
    makers = {
        "goal_ij": _maze,
        "init_xyzs": _cubes,
        "init_button_states": _puzzle,
        "init": _scene,
        "action_seq": _strokes,
    }
    for key, make in makers.items():
        if key in first:
            return make(inner, rng)
    raise UserError(
        f"Resets of {type(inner).__name__} draw evaluation tasks, and no others are known for it; "
        "pass finetune(train_options=...), a function of (env, generator) that returns options."
    )


# Mazes ---------------------------------------------------------------------------------------


def _maze(inner: Any, rng: np.random.Generator) -> dict[str, Any]:
    closed = {_cell(ij) for ij in (inner._teleport_info or {}).get("teleport_in_ijs", ())}
    layout = _layout(inner.maze_map, closed)
    infos = inner.task_infos
    if "ball_init_ij" not in infos[0]:
        evaluated = tuple((_cell(i["init_ij"]), _cell(i["goal_ij"])) for i in infos)
        start, goal = _draw(_pairs(layout, evaluated), rng)
        return {"init_ij": start, "goal_ij": goal}
    evaluated = tuple((_cell(i["ball_init_ij"]), _cell(i["goal_ij"])) for i in infos)
    evaluated += tuple((_cell(i["agent_init_ij"]), _cell(i["ball_init_ij"])) for i in infos)
    pairs = _pairs(layout, evaluated)
    ball, goal = _draw(pairs, rng)
    agent, _ = _draw([pair for pair in pairs if pair[1] == ball], rng)
    return {"agent_init_ij": agent, "ball_init_ij": ball, "goal_ij": goal}


@functools.lru_cache(maxsize=16)
def _pairs(layout: Layout, evaluated: tuple[Pair, ...]) -> list[Pair]:
    """Return all pairs of cells with a way between them, outside of the cells of the tasks.

    Where there are none, as in the smallest mazes, those pairs that are no task.
    """
    free = free_cells(layout)
    of_tasks = {cell for pair in evaluated for cell in pair}
    others = [cell for cell in free if cell not in of_tasks]
    return _connected(layout, others) or [
        pair for pair in _connected(layout, free) if pair not in evaluated
    ]


def _connected(layout: Layout, cells: list[Cell]) -> list[Pair]:
    reach = {cell: distances(layout, cell) for cell in cells}
    return [(a, b) for a in cells for b in cells if a != b and b in reach[a]]


def _draw(pairs: list[Pair], rng: np.random.Generator) -> Pair:
    return pairs[int(rng.integers(len(pairs)))]


def _layout(walls: Any, closed: set[Cell] | None = None) -> Layout:
    return tuple(
        tuple(int(mark == 1 or (i, j) in (closed or ())) for j, mark in enumerate(row))
        for i, row in enumerate(walls)
    )


def _cell(cell: Any) -> Cell:
    return int(cell[0]), int(cell[1])


# Tables --------------------------------------------------------------------------------------


def _cubes(inner: Any, rng: np.random.Generator) -> dict[str, Any]:
    count = len(inner.task_infos[0]["init_xyzs"])
    while True:
        start, goal = (_places(inner._object_sampling_bounds, count, rng) for _ in range(2))
        if np.abs(start - goal).max() > _CUBE_WAY:
            return {"init_xyzs": start, "goal_xyzs": goal}


def _places(bounds: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return places of cubes on the table that do not touch each other, (count, 3)."""
    while True:
        found = rng.uniform(bounds[0], bounds[1], (count, 2))
        gaps = np.linalg.norm(found[:, None] - found[None], axis=-1)
        if (gaps + np.eye(count) > _CUBE_GAP).all():
            return np.column_stack([found, np.full(count, _CUBE_HEIGHT)])


def _puzzle(inner: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Press random buttons of a random state, so that the goal can be reached."""
    rows, columns, states = inner._num_rows, inner._num_cols, inner._num_button_states
    evaluated = [(i["init_button_states"], i["goal_button_states"]) for i in inner.task_infos]
    while True:
        start = rng.integers(states, size=(rows, columns))
        pressed = np.pad(rng.integers(states, size=(rows, columns)), 1)
        inside = slice(1, -1)
        toggles = pressed + sum(np.roll(pressed, way, axis) for way in (1, -1) for axis in (0, 1))
        goal = (start + toggles[inside, inside]) % states
        pair = start.ravel(), goal.ravel()
        known = [all(np.array_equal(*two) for two in zip(pair, task)) for task in evaluated]
        if not np.array_equal(*pair) and not any(known):
            return {"init_button_states": pair[0], "goal_button_states": pair[1]}


def _scene(inner: Any, rng: np.random.Generator) -> dict[str, Any]:
    blocks = len(inner.task_infos[0]["init"]["block_xyzs"])
    buttons = len(inner.task_infos[0]["init"]["button_states"])

    def state() -> dict[str, Any]:
        return {
            "block_xyzs": _places(inner._object_sampling_bounds, blocks, rng),
            "button_states": rng.integers(2, size=buttons),
            "drawer_pos": float(rng.choice([0.0, -0.16])),
            "window_pos": float(rng.choice([0.0, 0.2])),
        }

    return {"init": state(), "goal": state()}


def _strokes(inner: Any, rng: np.random.Generator) -> dict[str, Any]:
    names, size = inner._elem_names, inner._xy_action_size
    count = int(rng.integers(*_STROKES))
    strokes = [
        (names[int(rng.integers(len(names)))], int(rng.integers(size)), int(rng.integers(size)))
        for _ in range(count)
    ]
    return {"action_seq": strokes, "tol": inner.task_infos[0]["tol"]}
