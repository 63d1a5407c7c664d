"""CarRacing: the promises of a goal environment, laps, what is observed, options, bad input."""

from __future__ import annotations

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import gcrl_gym  # noqa: F401
from gcrl_gym.envs import check_goal_env, specs
from gcrl_gym.envs.car_batch import LATERAL, TASKS, TILE_POINTS
from gcrl_gym.envs.car_dynamics import MAX_STEERING, State
from gcrl_gym.envs.tracks import FIELD, HALF_WIDTH, get_track

STATE, PIXELS = "gcrl/CarRacing-v0", "gcrl/CarRacingPixels-v0"
IDS = [STATE, PIXELS]
NOTHING = np.zeros(3, np.float32)


def pose_at(track, index, lateral=0.0):
    """Pose on the road, heading along it."""
    points, tangents, left = track.points[index], track.tangents[index], track.left[index]
    return np.array([*(points + lateral * left), *tangents])


def put(env, pose, speed=0.0):
    """Move the car of an environment."""
    cars = env.unwrapped.cars
    cars.state[:4, 0] = pose
    cars.state[State.VX : State.VY + 1, 0] = speed * np.asarray(pose)[2:]
    cars._locate()


def follow_road(env, steps, speed=1.0, lateral=0.0):
    """Carry the car along the road, a metre or so per step; yields what each step returned."""
    cars = env.unwrapped.cars
    track = get_track(int(cars.bank.seeds[0]))
    for step in range(steps):
        put(env, pose_at(track, round(step * speed / track.spacing) % len(track.points), lateral))
        yield env.step(NOTHING)


def test_ids_are_registered():
    assert set(IDS) <= {spec.id for spec in specs()} <= set(gym.registry)
    for env_id in IDS:
        assert gym.spec(env_id).max_episode_steps == 1000


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("reward", ["sparse", "penalty", "dense"])
def test_check_goal_env(env_id, continuous, reward):
    check_goal_env(gym.make(env_id, continuous=continuous, reward=reward, num_tracks=3))


def test_check_goal_env_with_pictures():
    check_goal_env(gym.make(STATE, render_mode="rgb_array", goal_tolerance=6))


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("mode", ["goal", "lap"])
@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric")  # pedals are in [0, 1]
@pytest.mark.filterwarnings("error")
def test_third_party_checkers(env_id, mode):
    env = gym.make(env_id, mode=mode, render_mode="rgb_array")
    gymnasium_check_env(env.unwrapped)
    sb3_check_env(env.unwrapped)


def test_defaults():
    inner = gym.make(STATE).unwrapped
    assert (inner.mode, inner.continuous, inner.reward_kind) == ("goal", True, "sparse")
    assert (inner.goal_tolerance, inner.heading_tolerance) == (2.0, 20.0)
    assert (inner.track, inner.num_tracks, inner.num_tasks) == (0, 1, 5)
    assert inner.terminate_at_goal is True
    assert gym.make(STATE, mode="lap").unwrapped.num_tracks == 100
    assert inner.observation_space["observation"].shape == (39,)
    assert gym.make(STATE, mode="lap").observation_space.shape == (35,)
    assert gym.make(PIXELS, mode="lap").observation_space.shape == (96, 96, 3)


# What is observed -------------------------------------------------------------------------------


def test_columns_of_the_observation():
    env = gym.make(STATE).unwrapped
    env.reset(seed=0)
    track = get_track(0)
    put(env, pose_at(track, 40, 1.0), speed=10.0)
    env.cars.state[State.YAW_RATE], env.cars.state[State.STEERING] = 0.6, -0.09
    observation = env._outcome()[0]
    seen = observation["observation"]
    assert np.array_equal(seen[:4], observation["achieved_goal"])
    assert seen[:4] == pytest.approx(pose_at(track, 40, 1.0), abs=1e-5)
    assert seen[4:8] == pytest.approx([10 / 25, 0, 0.6 / 3, -0.09 / MAX_STEERING], abs=1e-6)
    left, right = 30 * seen[8], 30 * seen[18]
    assert [left, right] == pytest.approx([HALF_WIDTH - 1, HALF_WIDTH + 1], abs=0.2)
    three_ahead = track.points[46] - track.points[40] - track.left[40]
    assert 42 * seen[19] == pytest.approx(three_ahead @ track.tangents[40], abs=0.01)
    assert 42 * seen[29] == pytest.approx(three_ahead @ track.left[40], abs=0.01)
    lap = gym.make(STATE, mode="lap", num_tracks=1).unwrapped
    lap.reset(seed=0)
    lap.cars.state[:] = env.cars.state
    lap.cars._locate()
    assert np.array_equal(lap._outcome()[0], seen[4:])


def test_lateral_velocity_is_positive_to_the_left():
    env = gym.make(STATE, mode="lap").unwrapped
    env.reset(seed=0)
    cos, sin = env.cars.state[2:4, 0]
    env.cars.state[State.VX : State.VY + 1, 0] = -2 * sin, 2 * cos
    assert env._outcome()[0][:2] == pytest.approx([0, 0.2], abs=1e-6)


def test_steering_left_turns_left():
    env = gym.make(STATE, mode="lap").unwrapped
    turned = []
    for action in ([-1, 1, 0], [1, 1, 0]):
        env.reset(seed=0)
        for _ in range(30):
            env.step(action)
        turned.append(env.cars.state[State.YAW_RATE, 0])
    assert turned[0] > 0 > turned[1]


@pytest.mark.parametrize(
    ("index", "action"),
    list(enumerate([(0, 0, 0), (0.6, 0, 0), (-0.6, 0, 0), (0, 0.7, 0), (0, 0, 0.8)])),
)
def test_discrete_actions(index, action):
    """Nothing, right, left, gas, brake: the order of Gymnasium's CarRacing."""
    discrete, continuous = (gym.make(STATE, continuous=kind).unwrapped for kind in (False, True))
    for env in (discrete, continuous):
        env.reset(seed=0)
        put(env, pose_at(get_track(0), 0), speed=8.0)
    for spelling in (index, np.int64(index), np.array(index)):
        discrete.step(spelling)
        continuous.step(np.array(action))
        assert np.array_equal(discrete.cars.state, continuous.cars.state)


def test_actions_are_clipped():
    one, two = gym.make(STATE), gym.make(STATE)
    one.reset(seed=0), two.reset(seed=0)
    first = one.step(np.array([-3.0, 7.0, -5.0]))[0]["observation"]
    second = two.step(np.array([-1.0, 1.0, 0.0]))[0]["observation"]
    assert np.array_equal(first, second)


# Goals ------------------------------------------------------------------------------------------


def test_distance_to_a_pose():
    env = gym.make(STATE, goal_tolerance=2.0, heading_tolerance=30.0).unwrapped

    def pose(x, y, degrees):
        return np.array([x, y, np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])

    here = pose(0, 0, 10)
    assert env.goal_distance(here, here) == 0
    assert env.goal_distance(here, pose(3, 4, 10)) == pytest.approx(5)
    assert env.goal_distance(here, pose(0, 0, 40)) == pytest.approx(2)  # the tolerance, exactly
    assert env.goal_distance(here, pose(1, 0, 70)) == pytest.approx(
        2 * np.sin(np.pi / 6) / np.sin(np.pi / 12)
    )
    assert env.is_success(here, pose(1.9, 0, 39))
    assert not env.is_success(here, pose(1.9, 0, 41))
    assert not env.is_success(here, pose(2.1, 0, 10))
    anyhow = gym.make(STATE, heading_tolerance=180).unwrapped
    assert anyhow.is_success(here, pose(1.9, 0, -170).astype(np.float32))
    assert anyhow.goal_distance(here, pose(0, 0, -170)) == 0


@pytest.mark.parametrize("reward", ["sparse", "penalty", "dense"])
@pytest.mark.parametrize("terminate", [True, False])
def test_rewards(reward, terminate):
    env = gym.make(STATE, reward=reward, terminate_at_goal=terminate)
    track = get_track(0)
    env.reset(options={"start": pose_at(track, 0), "goal": pose_at(track, 40)})
    outside = env.step(NOTHING)
    away = {"sparse": 0, "penalty": -1, "dense": -outside[4]["distance_to_goal"]}[reward]
    put(env, pose_at(track, 39))
    inside = env.step(NOTHING)
    near = {"sparse": 1, "penalty": 0, "dense": -inside[4]["distance_to_goal"]}[reward]
    assert [outside[1], inside[1]] == [away, near]
    assert [outside[2], inside[2]] == [False, terminate]
    assert [outside[4]["success"], inside[4]["success"]] == [0.0, 1.0]
    assert [outside[4]["is_success"], inside[4]["is_success"]] == [False, True]
    assert 18 < outside[4]["distance_to_goal"] < 20.1
    assert inside[4]["distance_to_goal"] < 0.6
    env.reset(options={"start": pose_at(track, 0), "goal": pose_at(track, 40)})
    put(env, pose_at(track, 40) * [1, 1, -1, -1])  # there, but the wrong way round
    assert not env.step(NOTHING)[4]["is_success"]


def test_random_episodes():
    env = gym.make(STATE, num_tracks=4, track=10)
    env.reset(seed=0)
    seeds, ways, laterals = set(), [], []
    for _ in range(300):
        observation, info = env.reset()
        track = get_track(info["track"])
        start, goal = observation["achieved_goal"], observation["desired_goal"]
        begin, end = track.index_of([start[:2], goal[:2]])
        seeds.add(info["track"])
        ways.append((end - begin) % len(track.points) / len(track.points))
        for pose, index in ((start, begin), (goal, end)):
            laterals.append((pose[:2] - track.points[index]) @ track.left[index])
            assert pose[2:] @ track.tangents[index] > 0.9
        assert info == {**info, "speed": 0.0, "on_road": True, "lap_progress": 0.0}
    assert seeds == {10, 11, 12, 13}
    assert 0.03 < min(ways) < 0.1
    assert 0.5 < max(ways) < 0.62
    assert LATERAL * 0.9 < np.abs(laterals).max() < LATERAL + 0.3


def test_tasks():
    env = gym.make(STATE, track=3, num_tracks=5)
    track, ways = get_track(3), []
    for number, (start, way) in enumerate(TASKS, 1):
        drawn = []
        for seed in (0, 1, 2, 0):
            observation, info = env.reset(seed=seed, options={"task_id": number})
            assert info["track"] == 3
            drawn.append(np.stack([observation["achieved_goal"], observation["desired_goal"]]))
        places = np.array([start, start + way]) % 1 * len(track.points)
        expected = track.points[places.astype(int)]
        gaps = np.linalg.norm(np.array(drawn)[..., :2] - expected, axis=-1)
        assert gaps.max() < 2.0
        assert len(np.unique(np.array(drawn[:3]), axis=0)) == 3
        assert np.array_equal(drawn[0], drawn[3])
        ways.append(way)
    assert ways == sorted(ways)


def test_options_that_leave_the_rest_open():
    env = gym.make(STATE, num_tracks=3)
    track = get_track(2)
    pose = pose_at(track, 100).astype(np.float32)
    goals = []
    for _ in range(30):
        observation, info = env.reset(options={"start": pose, "track": 2})
        assert np.array_equal(observation["achieved_goal"], pose)
        assert info["track"] == 2
        way = (track.index_of(observation["desired_goal"][:2]) - 100) % len(track.points)
        assert way > 35  # points: 20 metres
        goals.append(observation["desired_goal"])
    assert len(np.unique(goals, axis=0)) == 30
    starts = []
    for _ in range(30):
        observation, _ = env.reset(options={"goal": pose, "track": 2})
        assert np.array_equal(observation["desired_goal"], pose)
        way = (100 - track.index_of(observation["achieved_goal"][:2])) % len(track.points)
        assert 35 < way < 0.62 * len(track.points)
        starts.append(observation["achieved_goal"])
    assert len(np.unique(starts, axis=0)) == 30
    assert env.reset(options={"track": 77})[1]["track"] == 77


def test_the_border_of_the_field_is_a_wall_in_goal_mode():
    env = gym.make(STATE)
    env.reset(options={"start": [FIELD - 2, 0, 1, 0]})
    for _ in range(100):
        observation, _, terminated, _, info = env.step(np.array([0, 1, 0]))
        assert env.observation_space.contains(observation)
        assert not terminated
    assert observation["achieved_goal"][0] == pytest.approx(FIELD, abs=0.01)
    assert info["speed"] < 0.5
    assert info["on_road"] is False


# Laps -------------------------------------------------------------------------------------------


def test_a_clean_lap():
    env = gym.make(STATE, mode="lap", num_tracks=1)
    env.reset(seed=0)
    track = get_track(0)
    tiles = len(track.points) // TILE_POINTS
    total, steps = 0.0, 0
    for _, reward, terminated, _, info in follow_road(env, 600):
        total, steps = total + reward, steps + 1
        new = reward + 0.1
        assert new == pytest.approx(0, abs=1e-9) or new == pytest.approx(1000 / tiles)
        if terminated:
            break
        assert not info["is_success"]
    assert info == {**info, "success": 1.0, "is_success": True, "lap_progress": 1.0}
    assert total == pytest.approx(1000 - 0.1 * steps)
    assert steps == pytest.approx(track.length, abs=4)


def test_a_lap_needs_the_tiles_and_the_start_line():
    env = gym.make(STATE, mode="lap", num_tracks=1)
    env.reset(seed=0)
    *_, (_, _, terminated, _, info) = follow_road(env, round(0.97 * get_track(0).length))
    assert 0.95 < info["lap_progress"] < 1.0  # enough tiles, but not back yet
    assert not terminated
    *_, last = follow_road(env, 1)
    assert last[2]
    assert last[4]["is_success"]
    env.reset(seed=0)
    *_, (_, _, terminated, _, info) = follow_road(env, round(0.9 * get_track(0).length))
    *_, last = follow_road(env, 1)  # back, but not enough tiles
    assert not last[2]


def test_tiles_count_once_and_only_on_the_road():
    env = gym.make(STATE, mode="lap", num_tracks=1)
    env.reset(seed=0)
    rewards = [reward for _, reward, *_ in follow_road(env, 50)]
    again = [reward for _, reward, *_ in follow_road(env, 50)]
    assert sum(rewards) > 100
    assert again == [-0.1] * 50
    env.reset(seed=0)
    beside = [reward for _, reward, *_ in follow_road(env, 50, lateral=HALF_WIDTH + 1.5)]
    assert beside == [-0.1] * 50


def test_leaving_the_field_ends_a_lap():
    env = gym.make(STATE, mode="lap")
    env.reset(seed=0)
    put(env, [FIELD - 1, 0, 1, 0], speed=30)
    _, reward, terminated, _, info = env.step(NOTHING)
    assert (reward, terminated, info["is_success"]) == (-100.0, True, False)


def test_lap_starts_and_tasks():
    env = gym.make(STATE, mode="lap", track=20, num_tracks=10)
    env.reset(seed=0)
    seeds = {env.reset()[1]["track"] for _ in range(200)}
    assert seeds == set(range(20, 30))
    for task in range(1, 6):
        assert env.reset(options={"task_id": task})[1]["track"] == 19 + task
    start = pose_at(get_track(24), 0)
    assert env.unwrapped.cars.state[:4, 0] == pytest.approx(start, abs=0.05)


@pytest.mark.parametrize("name", ["compute_reward", "compute_terminated"])
def test_lap_mode_has_no_goals(name):
    env = gym.make(STATE, mode="lap")
    assert not env.has_wrapper_attr(name)
    with pytest.raises(AttributeError, match=f"lap mode has no goals, and so no {name}"):
        getattr(env.unwrapped, name)


# Reproducible -----------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("mode", ["goal", "lap"])
def test_same_seed_same_episode_and_copies_go_on_alike(env_id, mode):
    env = gym.make(env_id, mode=mode, num_tracks=20)
    first, _ = env.reset(seed=5)
    env.step(env.action_space.sample())
    again, _ = env.reset(seed=5)
    other, _ = env.reset(seed=6)
    pick = (lambda o: o["achieved_goal"]) if mode == "goal" else (lambda o: o)
    assert np.array_equal(pick(first), pick(again))
    assert not np.array_equal(pick(first), pick(other))
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        env.reset(seed=1), twin.reset(seed=1)
        for _ in range(5):
            action = env.action_space.sample()
            one, two = env.step(action), twin.step(action)
            assert np.array_equal(pick(one[0]), pick(two[0]))
            assert one[1:] == two[1:]
        one, two = env.reset()[0], twin.reset()[0]
        assert np.array_equal(pick(one), pick(two))


def test_a_recorded_start_repeats_the_episode():
    """Poses are whole float32 numbers, so that the first observation says where it was."""
    env = gym.make(STATE)
    observation, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = rng.uniform([-1, 0, 0], 1, (50, 3)).astype(np.float32)
    played = [env.step(action)[0]["observation"] for action in actions]
    options = {"start": observation["achieved_goal"], "goal": observation["desired_goal"]}
    env.reset(options=options)
    assert np.array_equal([env.step(action)[0]["observation"] for action in actions], played)


def test_a_small_pickle():
    env = gym.make(PIXELS, mode="lap")
    for _ in range(5):
        env.reset()
    spaces = len(pickle.dumps((env.observation_space, env.action_space)))
    assert len(pickle.dumps(env)) < spaces + 50_000  # neither tracks nor painted ones
