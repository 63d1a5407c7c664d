"""Nav2D and Nav2DDiscrete: the promises of a goal environment, options, reachability, bad input."""

from __future__ import annotations

import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import gcrl_gym  # noqa: F401
from gcrl_gym.envs import check_goal_env, specs
from gcrl_gym.envs.mazes import LAYOUTS, get_maze
from gcrl_gym.errors import UserError

IDS = ["gcrl/Nav2D-v0", "gcrl/Nav2DDiscrete-v0"]
UP, DOWN, LEFT, RIGHT, STAY = range(5)


def test_ids_are_registered_by_importing_the_package_and_by_the_module_prefix():
    assert set(IDS) <= {spec.id for spec in specs()} <= set(gym.registry)
    code = "import gymnasium as gym; print(gym.make('gcrl_gym:gcrl/Nav2D-v0').spec.id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "gcrl/Nav2D-v0"
    assert done.stderr == ""


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("maze", LAYOUTS)
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("reward", ["sparse", "penalty", "dense"])
def test_check_goal_env(env_id, maze, noise, reward):
    check_goal_env(gym.make(env_id, maze=maze, noise=noise, reward=reward))


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("maze", LAYOUTS)
@pytest.mark.filterwarnings("error")
def test_third_party_checkers(env_id, maze):
    env = gym.make(env_id, maze=maze, render_mode="rgb_array")
    gymnasium_check_env(env.unwrapped)
    sb3_check_env(env.unwrapped)  # it looks for compute_reward on the outermost wrapper


@pytest.mark.parametrize(("env_id", "limit"), list(zip(IDS, (200, 50))))
def test_defaults(env_id, limit):
    env = gym.make(env_id)
    inner = env.unwrapped
    assert (inner.maze.name, inner.noise, inner.reward_kind) == ("four_rooms", 0.0, "sparse")
    expected = (0.5, 0.5) if limit == 200 else (1.0, 0.75)
    assert (inner.step_size, inner.goal_tolerance) == expected
    assert inner.num_tasks == 5
    env.reset(options={"start": [1, 1], "goal": [9, 9]})
    action = np.zeros(2, np.float32) if limit == 200 else STAY
    steps = 1
    while not env.step(action)[3]:
        steps += 1
    assert steps == limit


def test_continuous_actions_move_by_step_size_and_are_clipped():
    env = gym.make("gcrl/Nav2D-v0", maze="open", step_size=0.4)
    env.reset(options={"start": [5, 5], "goal": [9, 9]})
    observation, *_ = env.step(np.array([0.5, -1.0], np.float32))
    assert observation["observation"] == pytest.approx([5.2, 4.6])
    observation, *_ = env.step(np.array([7.0, -np.inf], np.float32))
    assert observation["achieved_goal"] == pytest.approx([5.6, 4.2])


@pytest.mark.parametrize(
    ("action", "offset"),
    [(UP, (0, 1)), (DOWN, (0, -1)), (LEFT, (-1, 0)), (RIGHT, (1, 0)), (STAY, (0, 0))],
)
def test_discrete_actions(action, offset):
    env = gym.make("gcrl/Nav2DDiscrete-v0", maze="open")
    start = np.array([5.25, 5.5])
    for spelling in (action, np.int64(action), np.array(action)):
        env.reset(options={"start": start, "goal": [1, 1]})
        observation, *_ = env.step(spelling)
        assert np.array_equal(observation["observation"], start + offset)


@pytest.mark.parametrize("env_id", IDS)
def test_noise_is_gaussian_in_world_units_on_every_move(env_id):
    env = gym.make(env_id, maze="open", noise=0.1, max_episode_steps=-1)
    still = STAY if "Discrete" in env_id else np.zeros(2, np.float32)
    ends = []
    env.reset(seed=0)
    for _ in range(2000):
        env.reset(options={"start": [5, 5], "goal": [1, 1]})
        ends.append(env.step(still)[0]["observation"] - 5)
    assert np.std(ends, axis=0) == pytest.approx([0.1, 0.1], rel=0.1)
    assert np.mean(ends, axis=0) == pytest.approx([0, 0], abs=0.01)
    assert abs(np.corrcoef(np.array(ends).T)[0, 1]) < 0.1


@pytest.mark.parametrize("reward", ["sparse", "penalty", "dense"])
@pytest.mark.parametrize("terminate", [True, False])
def test_rewards(reward, terminate):
    env = gym.make("gcrl/Nav2D-v0", maze="open", reward=reward, terminate_at_goal=terminate)
    env.reset(options={"start": [5, 5], "goal": [5.9, 5]})
    right = np.array([1, 0], np.float32)
    outside, away = env.step(-right * 0), {"sparse": 0, "penalty": -1, "dense": -0.9}[reward]
    inside, near = env.step(right), {"sparse": 1, "penalty": 0, "dense": -0.4}[reward]
    assert [outside[1], inside[1]] == pytest.approx([away, near], abs=1e-6)
    assert [outside[2], inside[2]] == [False, terminate]
    assert [outside[4]["success"], inside[4]["success"]] == [0.0, 1.0]
    assert [outside[4]["is_success"], inside[4]["is_success"]] == [False, True]
    assert inside[4]["distance_to_goal"] == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize("reward", ["sparse", "penalty", "dense"])
def test_step_and_compute_reward_agree_on_the_edge_of_the_tolerance(reward):
    """Both must judge the float32 observation: the exact position can lie across the edge."""
    env = gym.make("gcrl/Nav2D-v0", maze="open", reward=reward).unwrapped
    rng, inside, crossed = np.random.default_rng(0), 0, 0
    for _ in range(3000):
        angle = rng.uniform(0, 2 * np.pi)
        goal = np.array([5.0, 5.0])
        target = goal + 0.5 * np.array([np.cos(angle), np.sin(angle)]) * (1 + rng.normal() * 1e-7)
        start = target + np.array([0.3 * np.sign(target[0] - 5), 0])
        env.reset(options={"start": start, "goal": goal})
        action = np.array([(target - start)[0] / 0.5, 0])  # float64: lands on target to 1e-16
        observation, got, terminated, _, info = env.step(action)
        goals = observation["achieved_goal"], observation["desired_goal"]
        assert got == env.compute_reward(*goals, info)
        assert got == env.compute_reward(*(g[None] for g in goals), [info])[0]
        assert terminated == env.compute_terminated(*goals, info) == info["is_success"]
        assert info["is_success"] == env.is_success(*goals)
        inside += terminated
        exact = np.sqrt(np.sum((target - goal) ** 2)) <= 0.5
        crossed += exact != terminated
    assert 0.2 < inside / 3000 < 0.8  # the draws do straddle the edge
    assert crossed > 0  # and rounding to float32 does move some across


def test_the_edge_itself_is_inside():
    env = gym.make("gcrl/Nav2D-v0", maze="open").unwrapped
    env.reset(options={"start": [5.75, 5], "goal": [5, 5]})
    observation, reward, terminated, _, info = env.step(np.array([-0.5, 0], np.float32))
    goals = observation["achieved_goal"], observation["desired_goal"]
    assert info["distance_to_goal"] == env.goal_tolerance == 0.5
    assert (reward, env.compute_reward(*goals)) == (1.0, 1.0)
    assert [terminated, env.compute_terminated(*goals), env.is_success(*goals)] == [True] * 3


@pytest.mark.parametrize("env_id", IDS)
def test_compute_reward_is_vectorised(env_id):
    env = gym.make(env_id, reward="penalty").unwrapped
    achieved = np.random.default_rng(0).uniform(0, 10, (3, 4, 2)).astype(np.float32)
    desired = achieved.copy()
    desired[0] = (achieved[0] + 5) % 10
    rewards = env.compute_reward(achieved, desired, [{}] * 12)
    assert rewards.shape == (3, 4)
    assert (rewards[1:] == 0).all()
    assert (rewards[0] == -1).all()
    assert env.compute_terminated(achieved, desired, None).tolist() == (rewards == 0).tolist()
    assert isinstance(env.compute_reward(achieved[0, 0], desired[0, 0], {}), float)
    assert env.compute_terminated(achieved[1, 0], desired[1, 0], {}) is True


@pytest.mark.parametrize("maze", LAYOUTS)
def test_random_resets_are_free_fair_and_outside_the_goal(maze):
    env = gym.make("gcrl/Nav2D-v0", maze=maze, goal_tolerance=2.0)
    observations = [env.reset(seed=0)[0]] + [env.reset()[0] for _ in range(500)]
    starts = np.array([observation["observation"] for observation in observations])
    goals = np.array([observation["desired_goal"] for observation in observations])
    layout = get_maze(maze)
    assert layout.is_free(starts).all()
    assert layout.is_free(goals).all()
    assert np.linalg.norm(starts - goals, axis=1).min() > 2.0
    for points in (starts, goals):  # every corner of the maze occurs
        assert points.min() < 1
        assert points.max() > 9


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("maze", LAYOUTS)
def test_tasks_keep_their_cells(env_id, maze):
    """Start and goal vary by up to a quarter cell, and by the seed alone."""
    env, layout = gym.make(env_id, maze=maze), get_maze(maze)
    for number, cells in enumerate(layout.tasks, 1):
        drawn = []
        for seed in (0, 1, 2, 0):
            observation, _ = env.reset(seed=seed, options={"task_id": number})
            drawn.append(np.stack([observation["observation"], observation["desired_goal"]]))
        offsets = np.abs(np.array(drawn) - layout.cell_center(np.array(cells))) / layout.cell_size
        assert offsets.max() <= 0.25 + 1e-6
        assert len(np.unique(np.array(drawn[:3]), axis=0)) == 3
        assert np.array_equal(drawn[0], drawn[3])


def test_start_or_goal_alone():
    env = gym.make("gcrl/Nav2D-v0")
    drawn = [env.reset(options={"start": [1, 1]})[0] for _ in range(50)]
    assert all(np.array_equal(o["observation"], np.float32([1, 1])) for o in drawn)
    assert len({tuple(o["desired_goal"].tolist()) for o in drawn}) == 50
    drawn = [env.reset(options={"goal": [1, 1]})[0] for _ in range(50)]
    assert all(np.array_equal(o["desired_goal"], np.float32([1, 1])) for o in drawn)
    assert len({tuple(o["observation"].tolist()) for o in drawn}) == 50


def test_only_its_own_generator():
    env = gym.make("gcrl/Nav2D-v0", noise=0.1)
    before = np.random.get_state()[1].copy()
    first = [env.reset(seed=3)[0]["observation"]]
    first += [env.step(np.ones(2, np.float32))[0]["observation"] for _ in range(5)]
    np.random.seed(99)  # must not matter
    again = [env.reset(seed=3)[0]["observation"]]
    again += [env.step(np.ones(2, np.float32))[0]["observation"] for _ in range(5)]
    assert np.array_equal(first, again)
    np.random.set_state(("MT19937", before, 624))
    env.reset()
    assert np.array_equal(np.random.get_state()[1], before)


def test_pickle_keeps_the_state():
    env = gym.make("gcrl/Nav2D-v0", noise=0.2)
    env.reset(seed=0)
    copy = pickle.loads(pickle.dumps(env))
    action = np.ones(2, np.float32)
    for _ in range(10):
        assert np.array_equal(
            env.step(action)[0]["observation"], copy.step(action)[0]["observation"]
        )


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"maze": "u-maze"}, "Unknown maze 'u-maze'.*Did you mean 'u_maze'"),
        ({"reward": "spares"}, "Unknown reward 'spares'.*Did you mean 'sparse'"),
        ({"noise": -0.1}, "noise must be a number from 0 to 10, got -0.1"),
        ({"noise": float("nan")}, "noise must be a number"),
        ({"goal_tolerance": 0}, "goal_tolerance must be a number from 0.001 to 2, got 0"),
        ({"goal_tolerance": 3}, "goal_tolerance must be"),
        ({"step_size": "big"}, "step_size must be a number from 0.001 to 10, got 'big'"),
    ],
)
@pytest.mark.parametrize("env_id", IDS)
def test_bad_keywords(env_id, keywords, message):
    with pytest.raises(UserError, match=message):
        gym.make(env_id, **keywords)


@pytest.mark.filterwarnings("ignore:.*render_mode")
def test_bad_render_mode():
    with pytest.raises(
        UserError, match="Unknown render_mode 'ansi'; use 'rgb_array', 'human' or None"
    ):
        gym.make("gcrl/Nav2D-v0", render_mode="ansi")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task_id": 0}, "task_id must be a whole number from 1 to 5, got 0"),
        ({"task_id": 6}, "task_id must be"),
        ({"task_id": 1.5}, "task_id must be"),
        ({"task_id": True}, "task_id must be"),
        ({"task_id": 1, "goal": [1, 1]}, "give it alone"),
        ({"gaol": [1, 1]}, "Unknown reset option 'gaol'.*Did you mean 'goal'"),
        ({"start": [5, 2.5]}, r"'start' \[5.0, 2.5\] is inside a wall in maze 'four_rooms'"),
        ({"goal": [5, 2.5]}, "'goal' .* is inside a wall"),
        ({"start": [11, 1]}, r"outside \[0, 10\]\^2"),
        ({"start": [1, 1, 1]}, "must be two finite numbers"),
        ({"goal": [np.nan, 1]}, "must be two finite numbers"),
        ({"goal": "here"}, "must be two finite numbers"),
        ({"goal": None}, "must be two finite numbers"),
        ({"start": [1, 1], "goal": [1, 1.4]}, "within the goal tolerance 0.5; move them apart"),
    ],
)
def test_bad_reset_options(options, message):
    env = gym.make("gcrl/Nav2D-v0")
    with pytest.raises(UserError, match=message):
        env.reset(options=options)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(3), r"shape \(2,\)"),
        (np.zeros((1, 2)), r"shape \(2,\)"),
        (0.5, r"shape \(2,\)"),
        ("up", r"shape \(2,\)"),
        (None, r"shape \(2,\)"),
        (np.array([np.nan, 0]), "not a number"),
        ([0, float("nan")], "not a number"),
    ],
)
def test_bad_continuous_actions(action, message):
    env = gym.make("gcrl/Nav2D-v0", disable_env_checker=True)
    before, _ = env.reset(seed=0)
    with pytest.raises(UserError, match=message):
        env.step(action)
    after, *_ = env.step([0, 0])
    assert np.array_equal(before["observation"], after["observation"])


@pytest.mark.parametrize("action", [-1, 5, 1.0, np.zeros(2), "up", None, np.nan])
def test_bad_discrete_actions(action):
    env = gym.make("gcrl/Nav2DDiscrete-v0", disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(UserError, match="a whole number from 0 to 4"):
        env.step(action)


@pytest.mark.parametrize("env_id", [*IDS, "gcrl/CarRacing-v0"])
def test_steps_outside_of_an_episode(env_id):
    keywords = {"heading_tolerance": 180.0} if "Car" in env_id else {}
    env = gym.make(env_id, **keywords).unwrapped
    action = env.action_space.sample()
    with pytest.raises(UserError, match=r"No episode is running.*call reset\(\)"):
        env.step(action)
    env.reset(seed=0)
    tolerance, env.goal_tolerance = env.goal_tolerance, 1e4
    assert env.step(action)[2]
    with pytest.raises(UserError, match="No episode is running"):
        env.step(action)
    env.goal_tolerance = tolerance
    env.reset(seed=0)
    env.step(action)
