"""Generated Nav2D data: true to the environment, reproducible, and as skilled as it says."""

import random

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym
from gcrl_gym.datasets import GoalSampler, OfflineDataset, make_env
from gcrl_gym.datasets.nav2d_io import KINDS, dataset_ids, nav2d_episodes, write_nav2d
from gcrl_gym.datasets.scripted import Walker
from gcrl_gym.envs.mazes import LAYOUTS, get_maze
from gcrl_gym.envs.nav2d_dynamics import move
from gcrl_gym.envs.reachability import fewest_steps
from gcrl_gym.errors import UserError


def make(maze, discrete, **arguments):
    name = "gcrl/Nav2DDiscrete-v0" if discrete else "gcrl/Nav2D-v0"
    return gym.make(name, maze=maze, **arguments)


@pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_actions_replay_in_the_environment(kind, discrete):
    """Every state, reward and flag is what the environment itself answers."""
    length = KINDS[kind].length
    keywords = {} if length is None else {"terminate_at_goal": False, "max_episode_steps": length}
    env = make("medium", discrete, **keywords)
    for episode in nav2d_episodes(kind, "medium", discrete=discrete, episodes=4, seed=3):
        states = episode.observations
        goal = states["desired_goal"][0]
        assert (states["desired_goal"] == goal).all()
        env.reset(options={"start": states["observation"][0], "goal": goal})
        for step, action in enumerate(episode.actions):
            assert env.action_space.contains(action)
            observation, reward, terminated, truncated, _ = env.step(action)
            for key, recorded in states.items():
                np.testing.assert_array_equal(observation[key], recorded[step + 1])
            assert reward == episode.rewards[step]
            assert terminated == episode.terminations[step]
            assert truncated == episode.truncations[step]


@pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])
@pytest.mark.parametrize("maze", LAYOUTS)
def test_expert_reaches_the_goal(maze, discrete):
    episodes = nav2d_episodes("expert", maze, discrete=discrete, episodes=200)
    assert np.mean([episode.terminations[-1] for episode in episodes]) >= 0.99


@pytest.mark.parametrize("maze", ["four_rooms", "large"])
def test_discrete_expert_takes_the_fewest_steps(maze):
    layout = get_maze(maze)
    for episode in nav2d_episodes("expert", maze, discrete=True, episodes=20):
        states = episode.observations["observation"]
        goal = episode.observations["desired_goal"][:1]
        fewest = fewest_steps(states[0].astype(float), goal, 0.75, 1.0, layout)[0]
        assert len(episode.actions) == fewest


def test_continuous_expert_is_fast():
    """At most 15 % above the time of the straight line, where nothing is in the way."""
    for episode in nav2d_episodes("expert", "open", episodes=50):
        states, goal = episode.observations["observation"], episode.observations["desired_goal"][0]
        fewest = np.ceil((np.abs(goal - states[0]).max() - 0.5) / 0.5)
        assert len(episode.actions) <= max(1.15 * fewest, fewest + 2)


@pytest.mark.parametrize("name", ["u_maze", "four_rooms", "medium", "large"])
def test_continuous_expert_keeps_clear_of_walls(name):
    """Paths that graze corners are a trap: what imitates them gets stuck there."""
    maze, rng = get_maze(name), np.random.default_rng(0)
    walker = Walker(maze, 0.5, discrete=False, random_share=0.0, spread=0.0)
    starts, goals = maze.cell_center(
        maze.free_cells[rng.integers(len(maze.free_cells), size=(2, 99))]
    )
    places = [starts]
    for _ in range(150):
        step = walker.displacements(walker.act(places[-1], goals, rng))
        places.append(move(places[-1], step, maze))
    np.testing.assert_allclose(places[-1], goals, atol=1e-6)
    visited = np.concatenate(places)
    for side in ((0.1, 0.1), (0.1, -0.1), (-0.1, 0.1), (-0.1, -0.1)):  # in cells
        there = visited + np.array(side) * maze.cell_size
        np.testing.assert_allclose(move(visited, there - visited, maze), there, atol=1e-9)


def test_skill_falls_from_expert_to_random():
    lengths = {
        kind: np.mean([len(e.actions) for e in nav2d_episodes(kind, episodes=100)])
        for kind in ("expert", "noisy", "random")
    }
    assert 1.5 * lengths["expert"] < lengths["noisy"] < 0.5 * lengths["random"]


@pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])
def test_play_covers_the_maze_and_never_terminates(discrete):
    maze = get_maze("four_rooms")
    episodes = nav2d_episodes("play", discrete=discrete, episodes=100)
    states = np.concatenate([episode.observations["observation"] for episode in episodes])
    visited = {tuple(cell) for cell in maze.cell_of(states)}
    assert len(visited) == len(maze.free_cells)
    assert not any(episode.terminations.any() for episode in episodes)
    assert {len(episode.actions) for episode in episodes} == {200}
    rooms = [len({tuple(p) for p in (e.observations["observation"] > 5)}) for e in episodes]
    assert np.mean(rooms) > 2.5  # an episode crosses several of the four rooms


def test_stitch_stays_within_a_few_cells():
    maze = get_maze("four_rooms")
    for episode in nav2d_episodes("stitch", episodes=50):
        states = episode.observations["observation"]
        cells = maze.cell_index[tuple(maze.cell_of(states).T)]
        assert maze.distances[cells[0], cells].max() <= 6
        assert len(np.unique(cells)) >= 4


@pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])
def test_same_seed_same_bits_and_no_other_randomness(discrete):
    random.seed(1)
    before = np.random.get_state()[1].copy(), random.getstate()
    first, second, other = (
        nav2d_episodes("noisy", discrete=discrete, episodes=5, seed=seed) for seed in (0, 0, 1)
    )
    for a, b in zip(first, second, strict=True):
        assert a.actions.tobytes() == b.actions.tobytes()
        assert a.observations["observation"].tobytes() == b.observations["observation"].tobytes()
    assert first[0].actions.tobytes() != other[0].actions.tobytes()
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]


def test_ids():
    ids = dataset_ids()
    assert len(ids) == len(set(ids)) == 2 * len(LAYOUTS) * len(KINDS)
    assert {"gcrl/nav2d/play-v0", "gcrl/nav2d/medium-play-v0"} <= set(ids)
    assert {"gcrl/nav2d-discrete/open-expert-v0", "gcrl/nav2d/u_maze-stitch-v0"} <= set(ids)


def test_load_dataset_generates_once(minari_root):
    dataset = gcrl_gym.load_dataset("gcrl/nav2d-discrete/open-play-v0")
    metadata = dataset.storage.metadata
    assert metadata["generator"]["maze"] == "open"
    assert metadata["generator"]["seed"] == 0
    written = (minari_root / dataset.id / "data" / "main_data.hdf5").stat().st_mtime_ns
    again = gcrl_gym.load_dataset(dataset.id)
    assert (minari_root / again.id / "data" / "main_data.hdf5").stat().st_mtime_ns == written
    env = dataset.recover_environment()
    assert env.unwrapped.maze.name == "open"
    assert isinstance(env.action_space, gym.spaces.Discrete)
    data = OfflineDataset.from_minari(dataset)
    assert (data.num_episodes, data.goal_dim, data.actions.dtype) == (500, 2, np.int64)
    batch = GoalSampler().bind(data, goal_env=env.unwrapped).sample(64, np.random.default_rng(0))
    assert batch.goals.shape == (64, 2)


def test_play_is_recorded_and_evaluated_in_different_environments(minari_root):
    dataset = write_nav2d("mine/play-v0", "play", "u_maze", episodes=2, seed=5)
    own, evaluation = dataset.recover_environment(), make_env(dataset)
    assert (own.unwrapped.terminate_at_goal, own.spec.max_episode_steps) == (False, 200)
    assert (evaluation.unwrapped.terminate_at_goal, evaluation.spec.max_episode_steps) == (
        True,
        200,
    )
    assert own.unwrapped.maze.name == evaluation.unwrapped.maze.name == "u_maze"
    assert dataset.total_episodes == 2


def test_bad_names(minari_root):
    with pytest.raises(UserError, match="Did you mean 'play'"):
        nav2d_episodes("plai")
    with pytest.raises(UserError, match="four_rooms"):
        nav2d_episodes("play", "four_room")
    with pytest.raises(UserError, match="Did you mean 'gcrl/nav2d/medium-play-v0'"):
        gcrl_gym.load_dataset("gcrl/nav2d/medim-play-v0")
