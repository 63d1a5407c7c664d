"""GoalDict on OGBench's own environments."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from gcrl_gym.envs import check_goal_env
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import FixedTask, GoalDict, make_goal_dict_env

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
        GoalDict(gym.make("gcrl_gym:gcrl/Nav2D-v0"))
    with pytest.raises(UserError, match=r"with the shape of an observation, \(3,\); got no goal"):
        GoalDict(gym.make("Pendulum-v1")).reset(seed=0)


def test_without_ogbench_the_error_says_what_to_install():
    code = (
        "import sys\n"
        "sys.modules['ogbench'] = None\n"
        "from gcrl_gym.wrappers import make_goal_dict_env\n"
        "make_goal_dict_env('pointmaze-medium-v0')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'gcrl-gym[ogbench]'" in done.stderr.splitlines()[-1]
