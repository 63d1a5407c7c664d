"""The Franka kitchen with the observations of D4RL's data."""

import importlib
import warnings
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from gcrl_gym.datasets.d4rl_catalog import entry_of
from gcrl_gym.datasets.d4rl_envs import evaluation_spec
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import d4rl_kitchen
from gcrl_gym.wrappers.d4rl_kitchen import make_kitchen_env
from gcrl_gym.wrappers.mujoco_joints import repair_joint_types

SLIDE = ("microwave", "kettle", "light switch", "slide cabinet")
BURNER = ("microwave", "kettle", "bottom burner", "light switch")
KETTLE_GOAL = [-0.23, 0.75, 1.62, 0.99, 0, 0, -0.06]
GOALS = {
    "complete": [0] * 17 + [-0.69, -0.05, 0.37, 0, 0, -0.75, *KETTLE_GOAL],
    "partial": [0] * 17 + [-0.69, -0.05, 0.37, 0, 0, -0.75, *KETTLE_GOAL],
    "mixed": [0] * 11 + [-0.88, -0.01, 0, 0, 0, 0, -0.69, -0.05, 0, 0, 0, -0.75, *KETTLE_GOAL],
}
STILL = np.zeros(9)


@pytest.fixture
def robotics():
    return pytest.importorskip("gymnasium_robotics", reason="needs Gymnasium-Robotics")


@pytest.fixture
def make(robotics):
    made = []

    def make_one(tasks=SLIDE, **keywords):
        made.append(make_kitchen_env(tasks, **keywords))
        return made[-1]

    yield make_one
    for env in made:
        env.close()


def place(env, *tasks):
    """Put the objects of sub-tasks where they shall be, at rest."""
    robot = env.unwrapped.robot_env
    qpos = robot.data.qpos.copy()
    for task in tasks:
        columns = d4rl_kitchen._columns(task)
        qpos[columns] = d4rl_kitchen.SUBTASKS[task][1]
    robot.set_state(qpos, np.zeros_like(robot.data.qvel))


def test_missing_package_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"pip install 'gcrl-gym\[robotics\]'"):
        make_kitchen_env(SLIDE)


def test_unknown_subtasks():
    with pytest.raises(UserError, match="Did you mean 'kettle'"):
        make_kitchen_env(["microwave", "ketle"])
    with pytest.raises(UserError, match="tasks is empty; choose of bottom burner"):
        make_kitchen_env([])


@pytest.mark.parametrize("kind", GOALS)
def test_recovered_environment_has_d4rls_goal_and_horizon(robotics, kind):
    spec, sentence = evaluation_spec(entry_of(f"d4rl/kitchen-{kind}-v0"), np.zeros((1, 60)))
    assert "rewarded once" in sentence
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(gym.envs.registration.EnvSpec.from_json(spec.to_json()))
        state, info = env.reset(seed=0)
        np.testing.assert_array_equal(state[30:], np.float32(GOALS[kind]))
        assert info["tasks_to_complete"] == list(BURNER if kind == "mixed" else SLIDE)
        assert env.observation_space.contains(state)
        assert state.shape == (60,)
        for step in range(1, 281):
            state, reward, terminated, truncated, _ = env.step(STILL)
            assert (reward, terminated, truncated) == (0.0, False, step == 280)
        np.testing.assert_array_equal(state[30:], np.float32(GOALS[kind]))
    assert gym.make(env.spec).reset(seed=1)[0].shape == (60,)
    env.close()


def test_positions_are_the_simulators(make):
    env = make(noise=0.0)
    state, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(20):
        qpos = env.unwrapped.data.qpos
        np.testing.assert_array_equal(state[:30], qpos.astype(np.float32))
        state = env.step(env.action_space.sample())[0]
    # The columns of the objects, by the names that Gymnasium-Robotics gives the joints.
    model = env.unwrapped.model
    for name, column in (
        ("bottom_right_burner", 10),
        ("bottom_left_burner", 12),
        ("top_left_burner", 16),
        ("light_switch", 17),
        ("slide_cabinet", 19),
        ("left_hinge_cabinet", 20),
        ("microwave", 22),
        ("kettle", 23),
    ):
        assert model.joint(name).qposadr == column


def test_noise_is_d4rls(make):
    env = make()
    gaps = []
    for seed in range(400):
        state, _ = env.reset(seed=seed)
        gaps.append(state[:30] - env.unwrapped.data.qpos)
    reach = np.abs(gaps).max(axis=0)
    wanted = np.array([0.1] * 9 + [0.005] * 2 + [0.0005] * 6 + [0.005] * 3 + [0.1] * 3)
    wanted = 0.1 * np.concatenate([wanted, [0.005] * 3, [0.1] * 3, [0.005]])
    assert (reach <= wanted + 1e-6).all()
    assert (reach >= 0.95 * wanted).all()
    together = np.corrcoef(np.array(gaps).T) - np.eye(30)
    assert np.abs(together).max() < 0.25


def test_constants_are_gymnasium_robotics_too(make):
    kitchen = importlib.import_module("gymnasium_robotics.envs.franka_kitchen.kitchen_env")
    assert kitchen.BONUS_THRESH == d4rl_kitchen._RADIUS
    assert set(kitchen.OBS_ELEMENT_GOALS) == set(d4rl_kitchen.SUBTASKS)
    for task, (_, goal) in d4rl_kitchen.SUBTASKS.items():
        np.testing.assert_array_equal(kitchen.OBS_ELEMENT_GOALS[task], goal)
        columns = d4rl_kitchen._columns(task)
        wanted = np.arange(columns.start, columns.stop)
        np.testing.assert_array_equal(kitchen.OBS_ELEMENT_INDICES[task], wanted)


@pytest.mark.parametrize("tasks", [SLIDE, BURNER])
def test_each_subtask_is_rewarded_once(make, tasks):
    env = make(tasks)
    for seed in range(2):  # the second episode starts anew
        env.reset(seed=seed)
        total, done = 0.0, []
        for task in tasks:
            assert env.step(STILL)[1] == 0.0
            place(env, task)
            _, reward, terminated, truncated, info = env.step(STILL)
            done.append(task)
            total += reward
            assert (reward, truncated) == (1.0, False)
            assert info["step_task_completions"] == [task]
            assert info["episode_task_completions"] == done
            assert info["tasks_to_complete"] == [name for name in tasks if name not in done]
            assert terminated == (done == list(tasks))
        assert total == 4.0
        assert env.step(STILL)[1] == 0.0


def test_subtasks_at_once_and_others(make):
    env = make()
    env.reset(seed=0)
    place(env, "bottom burner", "hinge cabinet")
    _, reward, terminated, _, info = env.step(STILL)
    assert (reward, terminated, info["step_task_completions"]) == (0.0, False, [])
    place(env, *SLIDE)
    _, reward, terminated, truncated, info = env.step(STILL)
    assert (reward, terminated, truncated) == (4.0, True, False)
    assert info["tasks_to_complete"] == []


def test_seeds_are_reproducible(make):
    env, other = make(), make()
    env.action_space.seed(3)
    actions = [env.action_space.sample() for _ in range(20)]
    runs = []
    for one in (env, other, env):
        states = [one.reset(seed=5)[0], *(one.step(action)[0] for action in actions)]
        runs.append(np.array(states))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])
    assert (env.reset(seed=6)[0] != runs[0][0])[:30].all()
    assert (env.reset()[0] != env.reset()[0])[:30].all()


def test_actions_are_scaled_as_in_d4rl(make):
    env = make(noise=0.0)
    assert env.action_space.shape == (9,)
    assert (env.action_space.low == -1).all()
    assert (env.action_space.high == 1).all()
    data, robot = env.unwrapped.data, env.unwrapped.robot_env
    low = [-2.9, -1.8, -2.9, -3.1, -2.9, 0.0, -2.9, 0.0, 0.0]
    high = [2.9, 1.8, 2.9, 0.0, 2.9, 3.8, 2.9, 0.04, 0.04]
    assert robot.dt == pytest.approx(0.08)  # 40 steps of 2 ms
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(50):
        action = rng.uniform(-1.2, 1.2, 9)  # beyond 1, it is clipped
        target = data.qpos[:9] + 0.08 * 2.0 * np.clip(action, -1, 1)
        env.step(action)
        np.testing.assert_allclose(data.ctrl, np.clip(target, low, high), atol=1e-12)


def test_pedestal_does_not_collide(make):
    model = make().unwrapped.model
    world = model.body_parentid[model.body("panda0_link0").id]
    geoms = np.flatnonzero(model.geom_bodyid == world)
    assert len(geoms) == 1
    assert not model.geom_contype[geoms].any()
    assert not model.geom_conaffinity[geoms].any()
    assert model.geom_contype.any()


class Member:
    """A member of an enumeration that equals Python's integers only, as MuJoCo 4 has them."""

    def __init__(self, value):
        self.value = value

    def __int__(self):
        return self.value

    def __eq__(self, other):
        return type(other) is int and other == self.value

    def __hash__(self):
        return self.value


@pytest.mark.parametrize("strict", [False, True])
def test_repair_of_joint_types(monkeypatch, strict):
    members = {"mjJNT_SLIDE": 2, "mjJNT_HINGE": 3}
    if strict:
        members = {name: Member(value) for name, value in members.items()}
    types = SimpleNamespace(**members, __members__=members)
    mujoco = SimpleNamespace(__name__="mujoco", mjtJoint=types, mj_forward=len)
    utils = SimpleNamespace(mujoco=mujoco)
    monkeypatch.setattr(importlib, "import_module", lambda name: utils)
    repair_joint_types()
    view = utils.mujoco
    assert (view is mujoco) is not strict
    assert np.int32(2) in (view.mjtJoint.mjJNT_HINGE, view.mjtJoint.mjJNT_SLIDE)
    assert view.mj_forward is len
    assert mujoco.mjtJoint is types
    assert not hasattr(view, "unknown")
    repair_joint_types()
    assert utils.mujoco is view


def test_repair_serves_other_environments(robotics):
    repair_joint_types()
    gym.register_envs(robotics)
    env = gym.make("FetchReach-v4")
    assert env.reset(seed=0)[0]["observation"].shape == (10,)
    env.close()
