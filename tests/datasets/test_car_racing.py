"""Generated car-racing data: true to the environment, reproducible, as skilled as it says."""

from __future__ import annotations

import random
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym
from gcrl_gym.datasets import GoalSampler, OfflineDataset, make_env
from gcrl_gym.datasets.car_drivers import SKILLS, Driver, planned_speeds
from gcrl_gym.datasets.car_io import KINDS, REFERENCES, car_episodes, dataset_ids, write_car_racing
from gcrl_gym.envs.car_dynamics import GRAVITY, GRIP_ROAD
from gcrl_gym.envs.car_vector import CarRacingVector
from gcrl_gym.envs.tracks import get_track
from gcrl_gym.errors import UserError

CASES = [(mode, kind) for mode, kinds in KINDS.items() for kind in kinds]


def laps(kind, seeds, **changes):
    """Drive a lap of each track: whether it is completed, and the returns."""
    envs = CarRacingVector(len(seeds), mode="lap", num_tracks=max(seeds) + 1)
    envs.reset(seed=0, options={"track": np.array(seeds)})
    driver = Driver(replace(SKILLS[kind], **changes), envs.cars, np.random.default_rng(0))
    returns, running = np.zeros(len(seeds)), np.ones(len(seeds), bool)
    complete = np.zeros(len(seeds), bool)
    for _ in range(1000):
        _, rewards, terminated, truncated, infos = envs.step(driver.act())
        returns += np.where(running, rewards, 0)
        complete |= running & infos["is_success"]
        running &= ~(terminated | truncated)
        if not running.any():
            break
    return complete, returns


def reached(kind, count=20):
    """Steps to the goals of ``count`` episodes of each task and as many random ones, or inf."""
    envs = CarRacingVector(6 * count)
    tasks = np.repeat(np.arange(1, 6), count)
    mask = np.arange(6 * count) < 5 * count
    envs.reset(seed=0)
    padded = np.append(tasks, np.ones(count, int))
    envs.reset(options={"task_id": padded, "reset_mask": mask})
    driver = Driver(SKILLS[kind], envs.cars, np.random.default_rng(0))
    steps = np.full(6 * count, np.inf)
    for step in range(1000):
        _, _, terminated, _, _ = envs.step(driver.act())
        steps = np.where(terminated & np.isinf(steps), step + 1, steps)
    return steps.reshape(6, count)


@pytest.mark.parametrize(("mode", "kind"), CASES)
@pytest.mark.parametrize("pixels", [False, True], ids=["state", "pixels"])
def test_recorded_actions_replay_in_the_environment(mode, kind, pixels):
    """Every observation, reward and flag is what the environment itself answers."""
    env_id = "gcrl/CarRacingPixels-v0" if pixels else "gcrl/CarRacing-v0"
    recorded = KINDS[mode][kind]
    env = gym.make(
        env_id,
        mode=mode,
        terminate_at_goal=not recorded.endless,
        max_episode_steps=recorded.length,
    )
    seeds = np.random.SeedSequence(3).spawn(2)[0].generate_state(2)
    for seed, episode in zip(seeds, car_episodes(kind, mode, pixels=pixels, episodes=2, seed=3)):
        observation, _ = env.reset(seed=int(seed))
        for step in range(len(episode.actions) + 1):
            if mode == "goal":
                for key, column in episode.observations.items():
                    np.testing.assert_array_equal(observation[key], column[step])
                    assert column.dtype == env.observation_space[key].dtype
            else:
                np.testing.assert_array_equal(observation, episode.observations[step])
            if step == len(episode.actions) or (pixels and step == 150):
                break
            action = episode.actions[step]
            assert env.action_space.contains(action)
            observation, reward, terminated, truncated, _ = env.step(action)
            assert np.float32(reward) == episode.rewards[step]
            assert terminated == episode.terminations[step]
            assert truncated == episode.truncations[step]


def test_expert_reaches_all_goals_and_others_fewer():
    expert, medium, none = (reached(kind) for kind in ("expert", "medium", "random"))
    assert expert.max() < 600  # of 1000
    shares = np.isfinite(medium).mean(axis=1)
    assert (shares > 0.2).all()
    assert shares.mean() < 0.95
    assert (np.median(medium, axis=1) > np.median(expert, axis=1)).all()
    assert np.isfinite(none).mean() < 0.1


def test_laps_of_some_tracks():
    complete, returns = laps("expert", range(8))
    assert complete.all()
    assert returns.min() > 920
    _, some = laps("medium", range(8))
    assert 300 < some.mean() < returns.mean() - 20
    none, few = laps("random", range(8))
    assert not none.any()
    assert few.mean() < 50


@pytest.mark.slow
def test_laps_of_a_hundred_tracks():
    complete, returns = laps("expert", range(100))
    assert complete.mean() >= 0.95
    low, high = REFERENCES["lap"]
    assert returns.mean() == pytest.approx(high, abs=3)
    assert laps("random", range(100))[1].mean() == pytest.approx(low, abs=15)


def test_planned_speeds_can_be_driven():
    track, speeds = get_track(3), planned_speeds(3, 0.6)
    sideways = speeds**2 * np.abs(track.curvature)
    assert sideways.max() <= 0.6 * GRIP_ROAD * GRAVITY * 1.001
    braking = (speeds**2 - np.roll(speeds, -1) ** 2) / (2 * track.spacing)
    assert braking.max() <= 5.0 + 1e-6
    assert (planned_speeds(3, 0.8) >= speeds).all()


def test_play_goes_everywhere_on_many_lines_and_never_ends():
    episodes = car_episodes("play", episodes=60)
    assert {len(episode.actions) for episode in episodes} == {500}
    assert not any(episode.terminations.any() for episode in episodes)
    states = np.concatenate([episode.observations["achieved_goal"] for episode in episodes])
    track = get_track(0)
    index = track.index_of(states[:, :2])
    assert len(np.unique(index)) > 0.99 * len(track.points)
    lateral = ((states[:, :2] - track.points[index]) * track.left[index]).sum(axis=1)
    assert np.std(lateral) > 0.7
    assert np.mean(np.abs(lateral) < 4) > 0.8  # mostly on the road
    speeds = 25 * np.concatenate([e.observations["observation"][:, 4] for e in episodes])
    assert np.std(speeds) > 2.5


@pytest.mark.parametrize("mode", ["goal", "lap"])
def test_same_seed_same_bits_and_no_other_randomness(mode):
    random.seed(1)
    before = np.random.get_state()[1].copy(), random.getstate()
    first, second, other = (car_episodes("medium", mode, episodes=3, seed=s) for s in (0, 0, 1))
    for a, b in zip(first, second, strict=True):
        assert a.actions.tobytes() == b.actions.tobytes()
        assert np.array_equal(a.rewards, b.rewards)
    assert first[0].actions.tobytes() != other[0].actions.tobytes()
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]


def test_ids():
    ids = dataset_ids()
    assert len(ids) == len(set(ids)) == 14
    assert {"gcrl/carracing/play-v0", "gcrl/carracing/lap-medium-v0"} <= set(ids)
    assert {"gcrl/carracing-pixels/expert-v0", "gcrl/carracing-pixels/lap-random-v0"} <= set(ids)


def test_load_dataset_generates_once(minari_root):
    dataset = gcrl_gym.load_dataset("gcrl/carracing/random-v0")
    metadata = dataset.storage.metadata
    assert metadata["generator"]["kind"] == "random"
    assert metadata["generator"]["random_share"] == 1.0
    written = (minari_root / dataset.id / "data" / "main_data.hdf5").stat().st_mtime_ns
    again = gcrl_gym.load_dataset(dataset.id)
    assert (minari_root / again.id / "data" / "main_data.hdf5").stat().st_mtime_ns == written
    data = OfflineDataset.from_minari(dataset)
    assert (data.num_episodes, data.goal_dim, data.actions.dtype) == (500, 4, np.float32)
    env = dataset.recover_environment()
    batch = GoalSampler().bind(data, goal_env=env.unwrapped).sample(64, np.random.default_rng(0))
    assert batch.goals.shape == (64, 4)


@pytest.mark.parametrize(
    ("kind", "mode", "own", "evaluation"),
    [("play", "goal", (500, False), (1000, True)), ("medium", "lap", (1000, True), (1000, True))],
)
def test_environments_of_datasets(minari_root, kind, mode, own, evaluation):
    dataset = write_car_racing("mine/cars-v0", kind, mode, episodes=2, seed=5)
    for env, (steps, terminate) in (
        (dataset.recover_environment(), own),
        (make_env(dataset), evaluation),
    ):
        assert (env.spec.max_episode_steps, env.unwrapped.terminate_at_goal) == (steps, terminate)
        assert env.unwrapped.mode == mode
    metadata = dataset.storage.metadata
    assert (metadata["ref_min_score"], metadata["ref_max_score"]) == REFERENCES[mode]


def test_pictures_are_kept_as_bytes(minari_root):
    dataset = write_car_racing("mine/cars-v0", "expert", pixels=True, episodes=2)
    episode = dataset[0]
    assert episode.observations["observation"].dtype == np.uint8
    assert episode.observations["observation"].shape[1:] == (96, 96, 3)
    assert make_env(dataset).observation_space == dataset.observation_space


def test_bad_names(minari_root):
    with pytest.raises(UserError, match="Did you mean 'play'"):
        car_episodes("plai")
    with pytest.raises(UserError, match="choose one of expert, medium, random"):
        car_episodes("play", "lap")
    with pytest.raises(UserError, match="Unknown mode 'lapp'"):
        car_episodes("expert", "lapp")
    with pytest.raises(UserError, match="Did you mean 'gcrl/carracing/lap-medium-v0'"):
        gcrl_gym.load_dataset("gcrl/carracing/lap-medim-v0")
