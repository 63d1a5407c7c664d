"""Training episodes begin elsewhere than evaluation tasks, in the real environments."""

import types

import gymnasium as gym
import numpy as np
import pytest

from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import FixedTask, GoalDict, make_goal_dict_env
from gcrl_gym.wrappers.maze_tasks import distances
from gcrl_gym.wrappers.training_tasks import training_options


def ogbench(env_id, **keywords):
    pytest.importorskip("ogbench")
    import gcrl_gym.datasets.ogbench_envs as envs

    if "singletask" in env_id:
        return envs.make_singletask_env(env_id)
    make_goal_dict_env("pointmaze-medium-v0").close()  # registers
    return GoalDict(gym.make(env_id, render_mode=None, **keywords))


def drawn(env, count=200):
    return [training_options(env, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("size", ["medium", "large", "giant", "teleport"])
def test_a_maze_is_trained_between_other_cells(size):
    env = ogbench(f"pointmaze-{size}-v0")
    inner = env.unwrapped
    of_tasks = {tuple(info[key]) for info in inner.task_infos for key in ("init_ij", "goal_ij")}
    cells = set()
    for options in drawn(env):
        info = options["task_info"]
        start, goal = info["init_ij"], info["goal_ij"]
        assert not {start, goal} & of_tasks
        assert start != goal
        assert inner.maze_map[start] == inner.maze_map[goal] == 0
        assert goal in distances(inner.maze_map, start)
        cells |= {start, goal}
    teleports = {tuple(ij) for ij in (inner._teleport_info or {}).get("teleport_in_ijs", ())}
    assert not cells & teleports
    free = set(map(tuple, np.argwhere(inner.maze_map == 0))) - of_tasks - teleports
    closed_in = {(1, 7)} if size == "teleport" else set()  # one cell without a way out
    assert cells == free - closed_in


def test_a_reset_follows_the_options():
    env = ogbench("pointmaze-medium-v0")
    inner, seen = env.unwrapped, set()
    for seed, options in enumerate(drawn(env, 20)):
        observation, _ = env.reset(seed=seed, options=options)
        assert inner.cur_task_id is None  # none of the five
        start, goal = options["task_info"]["init_ij"], options["task_info"]["goal_ij"]
        assert inner.xy_to_ij(observation["observation"]) == start
        assert inner.xy_to_ij(observation["desired_goal"]) == goal
        seen.add((start, goal))
    assert len(seen) > 15
    env.reset(seed=0)
    assert inner.cur_task_id in range(1, 6)  # what a reset without options would do


@pytest.mark.parametrize("env_id", ["antmaze-medium-v0", "antsoccer-arena-v0"])
def test_other_bodies(env_id):
    env = ogbench(env_id)
    options = training_options(env, np.random.default_rng(1))
    env.reset(seed=0, options=options)
    assert env.unwrapped.cur_task_id is None
    if "soccer" in env_id:
        keys = ("agent_init_ij", "ball_init_ij", "goal_ij")
        of_tasks = {tuple(info[key]) for info in env.unwrapped.task_infos for key in keys}
        for found in drawn(env, 50):
            cells = [found["task_info"][key] for key in keys]
            assert not set(cells) & of_tasks
            assert cells[0] != cells[1] != cells[2]


@pytest.mark.parametrize("env_id", ["cube-single-v0", "cube-octuple-v0", "scene-v0"])
def test_tables_are_laid_out_anew(env_id):
    env = ogbench(env_id)
    inner = env.unwrapped
    first, second = drawn(env, 2)
    assert repr(first) != repr(second)
    env.reset(seed=0, options=first)
    assert inner.cur_task_id is None
    info = first["task_info"]
    places = [info[k] for k in info if k.endswith("xyzs")]
    places += [info[k]["block_xyzs"] for k in ("init", "goal") if k in info]
    assert len(places) == 2
    low, high = inner._object_sampling_bounds
    for cubes in places:
        assert (cubes[:, :2] >= low).all()
        assert (cubes[:, :2] <= high).all()
        gaps = np.linalg.norm(cubes[:, None] - cubes[None], axis=-1) + np.eye(len(cubes))
        assert gaps.min() > 0.057  # the diagonal of a cube
    _, _, terminated, _, step = env.step(np.zeros(5))
    assert not terminated
    assert not step["is_success"]


def test_a_puzzle_has_a_solution():
    """Every goal is some presses away, each of which toggles a cross; other code than drew it."""
    env = ogbench("puzzle-4x4-v0")  # where half of the states are out of reach of another
    inner = env.unwrapped
    cross = np.zeros((16, 16), int)
    for x in range(4):
        for y in range(4):
            for dx, dy in [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]:
                if 0 <= x + dx < 4 and 0 <= y + dy < 4:
                    cross[4 * (x + dx) + y + dy, 4 * x + y] = 1
    rank = _rank(cross)
    assert rank < 16
    for options in drawn(env, 40):
        info = options["task_info"]
        change = (info["goal_button_states"] - info["init_button_states"]) % 2
        assert change.any()
        assert _rank(np.column_stack([cross, change])) == rank
        for task in inner.task_infos:
            same = [np.array_equal(info[k], task[k]) for k in info if k.endswith("states")]
            assert not all(same)
    env.reset(seed=0, options=options)
    assert inner.cur_task_id is None


def _rank(matrix):
    """Rank over the field of two elements."""
    matrix, rank = matrix.copy() % 2, 0
    for column in range(matrix.shape[1]):
        rows = np.flatnonzero(matrix[rank:, column]) + rank
        if len(rows):
            matrix[[rank, rows[0]]] = matrix[[rows[0], rank]]
            others = np.flatnonzero(matrix[:, column])
            matrix[others[others != rank]] ^= matrix[rank]
            rank += 1
    return rank


def test_a_picture_is_painted_anew():
    env = ogbench("powderworld-easy-v0")
    first, second = drawn(env, 2)
    assert first["task_info"]["action_seq"] != second["task_info"]["action_seq"]
    env.reset(seed=0, options=first)
    assert env.unwrapped.cur_task_id is None


@pytest.mark.parametrize("env_id", ["PointMaze_UMaze-v3", "AntMaze_Medium-v5"])
def test_mazes_of_robotics(env_id):
    pytest.importorskip("gymnasium_robotics")
    env = make_goal_dict_env(env_id)
    tasks = {(tuple(t["reset_cell"]), tuple(t["goal_cell"])) for t in env.task_options}
    for options in drawn(env):
        pair = tuple(options["reset_cell"]), tuple(options["goal_cell"])
        assert pair not in tasks
        if "Medium" in env_id:
            assert not set(pair) & {cell for task in tasks for cell in task}
    env.reset(seed=0, options=options)
    goal = env.unwrapped.maze.cell_rowcol_to_xy(np.array(options["goal_cell"]))
    assert np.abs(env.unwrapped.goal - goal).max() <= 0.5 * env.unwrapped.maze.maze_size_scaling


@pytest.mark.parametrize("env_id", ["gcrl/Nav2D-v0", "gcrl/CarRacing-v0", "FetchReach-v4"])
def test_random_resets_need_no_options(env_id):
    if env_id.startswith("Fetch"):
        pytest.importorskip("gymnasium_robotics")
        env = make_goal_dict_env(env_id)
    else:
        env = gym.make(env_id)
    assert training_options(env, np.random.default_rng(0)) is None


def test_a_single_task_stays_what_it_is():
    env = ogbench("pointmaze-medium-singletask-task2-v0")
    assert training_options(env, np.random.default_rng(0)) is None


def test_a_task_that_was_asked_for():
    """`FixedTask` is there to be trained on."""
    env = FixedTask(ogbench("pointmaze-medium-v0"), 2)
    assert training_options(env, np.random.default_rng(0)) is None


def test_unknown_tasks_are_refused():
    class Unknown(gym.Env):
        num_tasks, task_infos = 2, [{"task_name": "a"}]

    with pytest.raises(UserError, match="train_options"):
        training_options(Unknown(), np.random.default_rng(0))


def test_a_maze_too_small_for_other_cells():
    """Where the tasks take every cell, their pairs are left out, and no more."""
    walls = [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]]

    class Small(gym.Env):
        maze = types.SimpleNamespace(maze_map=walls)
        num_tasks = 2
        task_options = (
            {"reset_cell": [1, 1], "goal_cell": [1, 2]},
            {"reset_cell": [2, 1], "goal_cell": [1, 2]},
        )

    found = {(*o["reset_cell"], *o["goal_cell"]) for o in drawn(Small(), 60)}
    assert found == {(1, 2, 1, 1), (1, 2, 2, 1), (1, 1, 2, 1), (2, 1, 1, 1)}
