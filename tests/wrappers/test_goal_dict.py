"""GoalDict on OGBench's own environments, on other goals in infos, and on Gymnasium-Robotics'."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import seeding

from gcrl_gym.envs import check_goal_env
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import FixedTask, GoalDict, make_goal_dict_env
from gcrl_gym.wrappers.maze_tasks import maze_tasks

ENV_ID = "pointmaze-medium-v0"
KEYS = ["observation", "achieved_goal", "desired_goal"]


def make():
    pytest.importorskip("ogbench")
    return make_goal_dict_env(ENV_ID)


def without_pictures():
    """OGBench renders through OpenGL, which a machine without a display may lack."""
    pytest.importorskip("ogbench")
    return GoalDict(gym.make(ENV_ID, render_mode=None))


def same(one, two):
    return all(np.array_equal(one[key], two[key]) for key in KEYS)


def test_check_goal_env_passes():
    check_goal_env(without_pictures())
    check_goal_env(FixedTask(without_pictures(), 4))


def test_observations_and_infos():
    env = make()
    assert env.num_tasks == env.get_wrapper_attr("num_tasks") == 5
    for key in KEYS:
        assert env.observation_space[key].dtype == np.float32
    observation, info = env.reset(seed=0, options={"task_id": 2})
    assert env.observation_space.contains(observation)
    assert np.array_equal(observation["desired_goal"], info["goal"].astype(np.float32))
    assert (info["success"], info["is_success"]) == (0.0, False)
    inner = env.unwrapped
    goal = observation["desired_goal"]
    for _ in range(20):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert np.array_equal(observation["observation"], inner.get_ob().astype(np.float32))
        assert np.array_equal(observation["achieved_goal"], observation["observation"])
        assert np.array_equal(observation["desired_goal"], goal)
        assert not np.shares_memory(observation["achieved_goal"], observation["observation"])
        assert (info["success"], info["is_success"], reward) == (0.0, False, 0.0)
    inner.set_xy(inner.cur_goal_xy)
    _, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert (info["success"], info["is_success"]) == (1.0, True)


def test_task_options_are_passed_through():
    env = make()
    for task_id, task in enumerate(env.unwrapped.task_infos, 1):
        observation, _ = env.reset(options={"task_id": task_id})
        for key, name in (("observation", "init_xy"), ("desired_goal", "goal_xy")):
            assert observation[key] == pytest.approx(np.array(task[name]), abs=1.2)


@pytest.mark.parametrize("options", [None, {"task_id": 3}])
def test_reset_is_reproducible_and_leaves_the_process_generator_alone(options):
    one, two = make(), make()
    np.random.seed(1)
    np.random.normal(size=3)  # an odd number: numpy keeps half a pair back
    before = np.random.get_state()
    first = [one.reset(seed=7, options=options)[0]]
    first += [one.reset(options=options)[0] for _ in range(3)]
    after = np.random.get_state()
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    np.random.seed(2)
    two.action_space.sample()
    again = [two.reset(seed=7, options=options)[0]]
    again += [two.reset(options=options)[0] for _ in range(3)]
    assert all(same(a, b) for a, b in zip(first, again))
    assert not same(first[0], first[1])  # the noise goes on from reset to reset
    assert not same(first[0], one.reset(seed=8, options=options)[0])


def test_the_process_generator_comes_back_after_an_error_too():
    env = make()
    before = np.random.get_state()[1].copy()
    with pytest.raises(AssertionError):
        env.reset(options={"task_id": 99})
    assert np.array_equal(before, np.random.get_state()[1])


def test_the_action_space_is_left_alone():
    env = make()
    env.action_space.seed(3)
    expected = [env.action_space.sample() for _ in range(2)]
    env.action_space.seed(3)
    drawn = [env.action_space.sample()]
    env.reset(seed=0)
    drawn.append(env.action_space.sample())
    assert np.array_equal(expected, drawn)


def test_rebuilds_from_its_spec():
    env = make()
    rebuilt = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert same(env.reset(seed=5)[0], rebuilt.reset(seed=5)[0])
    task = FixedTask(env, 2)
    rebuilt = gym.make(EnvSpec.from_json(task.spec.to_json()))
    assert same(task.reset(seed=5)[0], rebuilt.reset(seed=5)[0])


def test_serves_as_the_entry_point_of_a_stored_spec():
    pytest.importorskip("ogbench")
    spec = EnvSpec(
        f"ogbench/{ENV_ID}",
        "gcrl_gym.wrappers.goal_dict:make_goal_dict_env",
        kwargs={"env_id": ENV_ID},
    )
    env = gym.make(EnvSpec.from_json(spec.to_json()))
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert same(env.reset(seed=5)[0], again.reset(seed=5)[0])
    assert env.get_wrapper_attr("num_tasks") == 5
    for _ in range(1000):
        truncated = env.step(np.zeros(2, np.float32))[3]
    assert truncated  # OGBench's own limit holds


def test_errors():
    pytest.importorskip("ogbench")
    with pytest.raises(UserError, match=r"no environment 'pointmaze-medum-v0'. Did you mean"):
        make_goal_dict_env("pointmaze-medum-v0")
    with pytest.raises(UserError, match="GoalDict needs Box observations"):
        GoalDict(gym.make("FrozenLake-v1"))
    with pytest.raises(UserError, match=r"with the shape of an observation, \(3,\); got no goal"):
        GoalDict(gym.make("Pendulum-v1")).reset(seed=0)


@pytest.mark.parametrize("env_id", ["cube-single-v0", "puzzle-3x3-v0"])
def test_resets_of_robots_are_reproducible(env_id):
    """They sample from an action space that is made anew, and seeded by nobody, at every use."""
    pytest.importorskip("ogbench")
    one, two = (GoalDict(gym.make(env_id, render_mode=None)) for _ in range(2))
    make_generator = seeding.np_random
    for options in (None, {"task_id": 2}):
        first, again = (env.reset(seed=5, options=options)[0] for env in (one, two))
        assert same(first, again)
        assert same(one.reset()[0], two.reset()[0])
        assert same(first, one.reset(seed=5, options=options)[0])
        assert not same(first, one.reset(seed=6, options=options)[0])
    assert seeding.np_random is make_generator


class InfoGoal(gym.Env):
    """A walk on a line of width 3; the goal is its first two columns."""

    observation_space = spaces.Box(-9, 9, (3,), np.float64)
    action_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, whole=False, told=None):
        self.whole, self.told = whole, told

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 3)
        return self.state, {"goal": np.array([2.0, 3.0, 4.0] if self.whole else [2.0, 3.0])}

    def step(self, action):
        self.state = self.state + action
        info = {} if self.told is None else {self.told: self.state[0] > 0}
        return self.state, 0.0, False, False, info


@pytest.mark.parametrize("whole", [True, False])
def test_goals_of_some_columns(whole):
    env = GoalDict(InfoGoal(whole), goal_columns=(0, 1), goal_tolerance=0.5)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["observation"].shape == (3,)
    assert observation["desired_goal"].tolist() == [2, 3]
    assert observation["achieved_goal"].tolist() == observation["observation"][:2].tolist()
    assert (info["success"], info["is_success"]) == (0.0, False)
    assert not env.has_wrapper_attr("num_tasks")
    to_goal = observation["desired_goal"] - observation["achieved_goal"]
    _, _, _, _, info = env.step(np.append(to_goal + np.array([0.49, 0]), 1))
    assert (info["success"], info["is_success"]) == (1.0, True)
    assert env.step(np.array([0.02, 0, 0]))[4]["success"] == 0.0


def test_success_under_either_name_or_an_error():
    for told in ("success", "is_success"):
        env = GoalDict(InfoGoal(True, told))
        env.reset(seed=0)
        for move in (9, -20):
            info = env.step(np.full(3, move))[4]
            assert (info["success"], info["is_success"]) == (float(move > 0), move > 0)
            assert type(info["success"]) is float
    env = GoalDict(InfoGoal(True))
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"neither 'success' nor 'is_success'.*goal_tolerance"):
        env.step(np.zeros(3))


def test_tasks_of_ones_own():
    env = GoalDict(gym.make("gcrl/Nav2D-v0"), tasks=[{"start": [1, 1]}, {"goal": [9, 9]}])
    assert env.num_tasks == 2
    assert env.reset(options={"task_id": 1})[0]["observation"].tolist() == [1, 1]
    assert env.reset(options={"task_id": 2})[0]["desired_goal"].tolist() == [9, 9]
    placed = env.reset(options={"task_id": 2, "start": [2, 2]})[0]
    assert placed["observation"].tolist() == [2, 2]
    with pytest.raises(UserError, match="from 1 to 2, got 3"):
        env.reset(options={"task_id": 3})
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.get_wrapper_attr("num_tasks") == 2


def robotics(env_id="PointMaze_UMaze-v3", **keywords):
    pytest.importorskip("gymnasium_robotics")
    return make_goal_dict_env(env_id, **keywords)


def test_mazes_get_tasks_and_success():
    env = robotics()
    assert env.num_tasks == 5
    maze = env.unwrapped.maze
    goals = set()
    for task in range(1, 6):
        observation, info = env.reset(seed=task, options={"task_id": task})
        assert env.observation_space.contains(observation)
        assert (info["success"], info["is_success"]) == (0.0, False)
        cells = [maze.cell_xy_to_rowcol(observation[key]) for key in KEYS[1:]]
        assert np.abs(np.subtract(*cells)).sum() >= 2
        goals.add(tuple(cells[1].tolist()))
        if task == 1:  # from one end of the U to the other
            assert [cell.tolist() for cell in cells] == [[1, 1], [3, 1]]
    assert len(goals) == 5
    env.unwrapped.data.qpos[:] = env.unwrapped.goal
    _, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
    assert (reward, terminated, info["success"], info["is_success"]) == (1.0, False, 1.0, True)


def test_mazes_judge_batches():
    env = robotics(continuing_task=False)
    achieved, desired = np.zeros((4, 2)), np.array([[0, 0], [0.4, 0], [0.5, 0], [0.4, 0.4]])
    for count in (4, 0):
        judged = env.compute_terminated(achieved[:count], desired[:count], [{}] * count)
        assert judged.tolist() == [True, True, False, False][:count]
    assert env.compute_terminated(achieved[0], desired[1], {}) is True
    assert not robotics().compute_terminated(achieved, desired, [{}] * 4).any()


def test_maze_tasks_of_other_maps():
    def tasks(layout):
        env = SimpleNamespace(unwrapped=SimpleNamespace(maze=SimpleNamespace(maze_map=layout)))
        return maze_tasks(env)

    corridor = [[1] * 7, [1, "r", 0, 0, 0, "g", 1], [1] * 7]
    found = tasks(corridor)
    assert found[0] == {"reset_cell": [1, 1], "goal_cell": [1, 5]}
    assert len(found) == 4  # goals; the fifth cell is where the first task starts
    parted = [[1] * 7, [1, 0, 0, 0, 1, 0, 1], [1] * 7]
    for task in tasks(parted):
        assert task["reset_cell"][1] < 4 > task["goal_cell"][1]
    assert tasks([[1, 1, 1], [1, 0, 1], [1, 1, 1]]) == []
    assert maze_tasks(gym.make("CartPole-v1")) == []


def test_robotics_ids():
    pytest.importorskip("gymnasium_robotics")
    with pytest.raises(UserError, match=r"Robotics has no environment 'PointMaze_UMase-v3'. Did"):
        make_goal_dict_env("PointMaze_UMase-v3")
    env = FixedTask(robotics(), 2)
    rebuilt = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert same(env.reset(seed=5)[0], rebuilt.reset(seed=5)[0])


def test_without_ogbench_the_error_says_what_to_install():
    code = (
        "import sys\n"
        "sys.modules['ogbench'] = None\n"
        "from gcrl_gym.wrappers import make_goal_dict_env\n"
        "make_goal_dict_env('pointmaze-medium-v0')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'gcrl-gym[ogbench]'" in done.stderr.splitlines()[-1]
