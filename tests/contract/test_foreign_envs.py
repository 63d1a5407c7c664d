"""Every environment, ours or from elsewhere, is a sound goal environment, and every agent trains.

Foreign ones go through ``GoalDict``. A new environment or agent file is covered without a new test.
"""

import functools
import io

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym
from gcrl_gym.agents import agent_names, get_agent
from gcrl_gym.agents import load as load_agent
from gcrl_gym.datasets.collect import collect_dataset
from gcrl_gym.envs import check_goal_env, specs
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import FlattenGoal, make_goal_dict_env

OGBENCH = ["pointmaze-medium-v0", "antmaze-medium-v0", "cube-single-v0"]
ROBOTICS = ["PointMaze_UMaze-v3", "AntMaze_UMaze-v5"]
# Recorded, trained and evaluated on; the episodes are cut to keep the tests short.
TRAINED = {
    "PointMaze_UMaze-v3": 40,
    "AntMaze_UMaze-v5": 15,
    "pointmaze-medium-v0": 40,
    "cube-single-v0": 10,
}
SLOW = {"cube-single-v0"}


def make(env_id, **keywords):
    """The environment without pictures: they need OpenGL, which a machine may lack."""
    pytest.importorskip("gymnasium_robotics" if env_id in ROBOTICS else "ogbench")
    if env_id in OGBENCH:
        make_goal_dict_env(env_id)  # registers
        return gcrl_gym.wrappers.GoalDict(gym.make(env_id, render_mode=None, **keywords))
    return make_goal_dict_env(env_id, **keywords)


@pytest.mark.parametrize("env_id", [spec.id for spec in specs()])
def test_ours_are_sound(env_id):
    check_goal_env(gym.make(env_id, render_mode="rgb_array"))


@pytest.mark.parametrize("env_id", [*OGBENCH, *ROBOTICS])
def test_foreign_ones_are_sound(env_id):
    env = make(env_id)
    check_goal_env(env)
    assert env.num_tasks == 5


def test_fetch_is_sound():
    """A goal environment without tasks; it also says success at resets and steps differently."""
    pytest.importorskip("gymnasium_robotics")
    env = make_goal_dict_env("FetchReach-v4")
    check_goal_env(env)
    assert not env.has_wrapper_attr("num_tasks")


@pytest.fixture(scope="module", autouse=True)
def minari_root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        yield


@functools.cache
def env_and_data(env_id):
    env = make(env_id, max_episode_steps=TRAINED[env_id])
    env.action_space.seed(0)
    name = f"me/{env_id.lower().replace('-v', '-random-v').replace('_', '-')}"
    return env, collect_dataset(name, env, lambda observation: env.action_space.sample(), 4)


def cases():
    for name in agent_names():
        for env_id in TRAINED:
            if issubclass(gym.spaces.Box, get_agent(name).action_spaces):
                marks = [pytest.mark.slow] * (env_id in SLOW)
                yield pytest.param(name, env_id, marks=marks)


@pytest.mark.parametrize(("name", "env_id"), list(cases()))
def test_every_agent_trains_and_is_evaluated(name, env_id):
    env, data = env_and_data(env_id)
    kind = get_agent(name)
    small = {"hidden_sizes": (16, 16), "batch_size": 32, "device": "cpu"}
    small = {key: value for key, value in small.items() if key in kind.signature()}
    if kind.needs_state_goals and env_id in ROBOTICS:
        with pytest.raises(UserError, match="goals must be observations"):
            kind(env, data, **small)
        return
    agent = kind(env, data, seed=0, **small).learn(3)
    options = {"tasks": [1, 4], "episodes_per_task": 1, "seed": 3}
    first = gcrl_gym.evaluate(agent, env, **options)
    assert list(first.per_task) == [1, 4]
    assert first.success_rate is not None
    assert gcrl_gym.evaluate(agent, env, **options) == first
    fresh = make(env_id, max_episode_steps=TRAINED[env_id])
    assert gcrl_gym.evaluate(agent, fresh, **options) == first
    file = io.BytesIO()
    agent.save(file)
    file.seek(0)
    observation = env.reset(seed=1, options={"task_id": 2})[0]
    again = load_agent(file, env=env)
    actions = [a.predict(observation, deterministic=True)[0] for a in (agent, again)]
    assert np.array_equal(*actions)
    assert env.action_space.contains(actions[0])


@pytest.mark.parametrize("env_id", [*OGBENCH, *ROBOTICS])
def test_evaluation_resets_are_reproducible(env_id):
    """Whatever the process-wide generator holds, in a fresh environment or a used one."""
    one, two = make(env_id, max_episode_steps=5), make(env_id, max_episode_steps=5)
    for task in (None, 2):
        options = None if task is None else {"task_id": task}
        seen = []
        for env, noise in ((one, 1), (two, 2), (one, 3)):
            np.random.seed(noise)
            seen.append(env.reset(seed=8, options=options)[0])
            seen.append(env.reset(options=options)[0])
        for first, again in zip(seen[:2] * 2, seen[2:]):
            assert all(np.array_equal(first[key], again[key]) for key in first)

    class Still:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros((len(observation["observation"]), *one.action_space.shape)), state

    results = []
    for noise in (1, 2):
        np.random.seed(noise)
        results.append(gcrl_gym.evaluate(Still(), one, tasks=[1, 3], episodes_per_task=1, seed=5))
    assert results[0] == results[1]


def test_a_flat_policy_of_sb3_plays_a_maze():
    from stable_baselines3 import PPO

    env = FlattenGoal(make("PointMaze_UMaze-v3", max_episode_steps=20))
    agent = PPO("MlpPolicy", env, n_steps=32, batch_size=16, n_epochs=1, device="cpu")
    agent.learn(64)
    result = gcrl_gym.evaluate(agent, env, tasks=[1], episodes_per_task=1)
    assert result.per_task[1]["episodes"] == 1
