"""OGBench's single-task and oracle-goal sets equal its own loader to the bit."""

import gymnasium as gym
import numpy as np
import pytest

from gcrl_gym.datasets import GoalSampler, OfflineDataset, convert_ogbench, make_env
from gcrl_gym.datasets.ogbench_catalog import parse
from gcrl_gym.datasets.ogbench_tasks import (
    oracle_dim,
    oracle_goals,
    rewards_and_masks,
    task_goal,
)
from gcrl_gym.errors import UserError

from .conftest import EXCERPTS

relabel = pytest.importorskip("ogbench.relabel_utils", reason="OGBench is not installed")
STITCH = EXCERPTS / "ogbench" / "pointmaze-medium-stitch-v0.npz"
PUZZLE = EXCERPTS / "ogbench" / "puzzle-3x3-play-v0-val.npz"
TASKS = ["", *(f"-task{task}" for task in range(1, 6))]
FULL = [
    "pointmaze-medium-navigate-singletask-v0",
    "pointmaze-medium-navigate-singletask-task3-v0",
    "pointmaze-medium-stitch-singletask-task5-v0",
    "cube-single-play-singletask-v0",
    "cube-single-play-singletask-task1-v0",
    "puzzle-3x3-play-singletask-v0",
    "puzzle-3x3-play-singletask-task1-v0",
]
ORACLES = ["pointmaze-medium-navigate", "pointmaze-medium-stitch", "cube-single-play"]
ORACLES += ["puzzle-3x3-play"]


def with_split(name, split):
    return f"ogbench/{name.removesuffix('-v0')}{split}-v0"


def assert_singletask_equals(data, regular):
    """Compare with OGBench's regular arrays, which hold rewards and masks."""
    steps = data.step_rows
    np.testing.assert_array_equal(data.observations[steps], regular["observations"])
    np.testing.assert_array_equal(data.observations[steps + 1], regular["next_observations"])
    np.testing.assert_array_equal(data.actions[steps], regular["actions"])
    assert regular["rewards"].dtype == data.rewards.dtype
    np.testing.assert_array_equal(data.rewards[steps], regular["rewards"])
    np.testing.assert_array_equal(data.terminated[steps], regular["masks"] == 0)
    last = data.episode_end[steps] == steps + 1
    np.testing.assert_array_equal(last, regular["terminals"] > 0)
    assert data.goal_dim == 0


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("path", [STITCH, PUZZLE], ids=lambda path: path.stem)
def test_singletask_excerpts_equal_ogbench(minari_root, path, task):
    from ogbench.utils import load_dataset

    env_name, val = ("pointmaze-medium", "") if path == STITCH else ("puzzle-3x3", "-val")
    kind = "stitch" if path == STITCH else "play"
    regular = load_dataset(str(path), add_info=True)
    env_id = f"{env_name}-singletask{task}-v0"
    relabel.relabel_dataset(env_id, gym.make(env_id), regular)
    dataset = convert_ogbench(path, f"ogbench/{env_name}-{kind}-singletask{task}{val}-v0")
    assert_singletask_equals(OfflineDataset.from_minari(dataset), regular)
    metadata = dataset.storage.metadata
    assert "goal" not in metadata
    assert metadata["task_id"] == (int(task[-1]) if task else {"stitch": 1, "play": 4}[kind])
    assert metadata["report"]["reward_sum"] == regular["rewards"].sum()


@pytest.mark.parametrize("name", FULL)
def test_singletask_files_equal_ogbench(minari_root, real_data, name):
    import ogbench

    folder = real_data / "ogbench"
    _, *both = ogbench.make_env_and_datasets(name, dataset_dir=str(folder))
    for split, regular in zip(("", "-val"), both):
        dataset_id = with_split(name, split)
        dataset = convert_ogbench(folder / parse(dataset_id).file_name, dataset_id)
        assert_singletask_equals(OfflineDataset.from_minari(dataset), regular)
    if name == "pointmaze-medium-navigate-singletask-v0":
        data = OfflineDataset.from_minari(f"ogbench/{name}")
        assert data.terminated.sum() == 5082  # bootstrapped never, although ..
        assert data.num_episodes == 1000  # .. the episodes go on


def made_up(name, goal, rows=4000):
    """Simulator states around the goal, so that every part is reached in about half of the rows."""
    rng = np.random.default_rng(0)
    qpos = rng.normal(0, 0.1, (rows, 110))
    arrays = {}
    if goal.xy is not None:
        start = 15 if name.family == "antsoccer" else 0
        qpos[:, start : start + 2] = goal.xy + rng.normal(0, goal.tolerance / 2, (rows, 2))
    if goal.cubes is not None:
        for number, cube in enumerate(goal.cubes):
            start = 14 + 7 * number
            qpos[:, start : start + 3] = cube + rng.normal(0, 0.02, (rows, 3))
    if goal.drawer is not None:
        qpos[:, 23] = goal.drawer + rng.normal(0, 0.05, rows)
        qpos[:, 24] = goal.window + rng.normal(0, 0.05, rows)
    if goal.buttons is not None:
        flipped = rng.random((rows, len(goal.buttons))) < 0.1
        arrays["button_states"] = np.where(flipped, 1 - goal.buttons, goal.buttons)
    return {"qpos": qpos.astype(np.float32), **arrays}


ENVS = ["pointmaze-large", "antmaze-teleport", "humanoidmaze-medium", "antsoccer-arena"]
ENVS += ["cube-double", "cube-octuple", "scene", "puzzle-4x5", "visual-scene"]


@pytest.mark.parametrize("env", ENVS)
def test_every_family_equals_ogbench(env):
    env_id = f"{env.removeprefix('visual-')}-singletask-task2-v0"
    theirs = gym.make(env_id)
    name = parse(f"ogbench/{env}-play-singletask-task2-v0")
    goal = task_goal(name)
    ours = made_up(name, goal)
    expected = {key: array.copy() for key, array in ours.items()}
    relabel.relabel_dataset(env_id, theirs, expected)
    rewards, masks = rewards_and_masks(name, goal, ours, "file")
    assert rewards.dtype == masks.dtype == np.float32
    np.testing.assert_array_equal(rewards, expected["rewards"])
    np.testing.assert_array_equal(masks, expected["masks"])
    assert len(np.unique(rewards)) > 1
    relabel.add_oracle_reps(env_id, theirs, expected)
    oracle = oracle_goals(name, ours, "file")
    assert oracle.dtype == np.float32
    np.testing.assert_array_equal(oracle, expected["oracle_reps"])
    assert oracle.shape[1] == oracle_dim(name)
    theirs.close()


def test_singletask_environment(minari_root):
    dataset = convert_ogbench(STITCH, "ogbench/pointmaze-medium-stitch-singletask-task2-v0")
    env = make_env(dataset)
    assert env.observation_space == dataset.observation_space
    assert env.action_space == dataset.action_space
    first, info = env.reset(seed=3)
    assert env.unwrapped.cur_task_id == 2
    assert first.dtype == np.float32
    assert info["is_success"] is False
    np.random.seed(99)
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    _, reward, terminated, _, info = env.step(env.action_space.sample())
    assert (reward, terminated, info["is_success"]) == (-1.0, False, False)
    env.unwrapped.set_xy(env.unwrapped.cur_goal_xy)
    _, reward, terminated, _, info = env.step(env.action_space.sample())
    assert (reward, terminated, info["is_success"]) == (0.0, True, True)
    env.close()


# ------------------------------------------------------------------------------------------ oracle


def assert_oracle_equals(data, regular, compact):
    steps = data.step_rows
    np.testing.assert_array_equal(data.observations[steps], regular["observations"])
    np.testing.assert_array_equal(data.actions[steps], regular["actions"])
    np.testing.assert_array_equal(data.achieved_goals[steps], regular["oracle_reps"])
    np.testing.assert_array_equal(data.achieved_goals, compact["oracle_reps"])
    np.testing.assert_array_equal(data.desired_goals, data.achieved_goals[data.episode_end])
    assert not data.goal_is_observation
    assert not data.rewards.any()
    assert not data.terminated.any()


@pytest.mark.parametrize("name", ORACLES)
def test_oracle_files_equal_ogbench(minari_root, real_data, name):
    import ogbench

    name, folder = f"{name}-oraclerep-v0", real_data / "ogbench"
    _, *regular = ogbench.make_env_and_datasets(name, dataset_dir=str(folder))
    _, *compact = ogbench.make_env_and_datasets(name, dataset_dir=str(folder), compact_dataset=True)
    for split, one, other in zip(("", "-val"), regular, compact):
        dataset_id = with_split(name, split)
        dataset = convert_ogbench(folder / parse(dataset_id).file_name, dataset_id)
        assert_oracle_equals(OfflineDataset.from_minari(dataset), one, other)


def test_oracle_goals_are_sampled(minari_root):
    dataset = convert_ogbench(PUZZLE, "ogbench/puzzle-3x3-play-oraclerep-val-v0")
    assert dataset.storage.metadata["goal"] == "oracle"
    data = OfflineDataset.from_minari(dataset)
    bound = GoalSampler(support="ogbench", reward="index").bind(data)
    batch = bound.sample(64, np.random.default_rng(0))
    assert batch.observations.shape == (64, 55)
    assert batch.goals.shape == batch.actor_goals.shape == (64, 9)
    assert set(np.unique(batch.goals)) <= {0.0, 1.0}


@pytest.mark.parametrize(
    "env_name", ["pointmaze-medium", "antsoccer-arena", "cube-double", "scene", "puzzle-3x3"]
)
def test_oracle_environment_agrees_with_the_data(env_name):
    from gcrl_gym.datasets.ogbench_envs import make_oracle_env

    name = parse(f"ogbench/{env_name}-play-oraclerep-v0")
    env = make_oracle_env(f"{env_name}-v0", oracle_dim(name))
    first, _ = env.reset(seed=1, options={"task_id": 2})
    again, _ = env.reset(seed=1, options={"task_id": 2})
    assert env.num_tasks == 5
    assert env.observation_space.contains(first)
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key])
    observation, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    np.testing.assert_array_equal(observation["desired_goal"], first["desired_goal"])
    inner = env.unwrapped
    state = inner.data if hasattr(inner, "data") else inner._data
    arrays = {"qpos": np.array(state.qpos, np.float32)[None]}
    if hasattr(inner, "_cur_button_states"):
        arrays["button_states"] = np.array(inner._cur_button_states)[None]
    expected = oracle_goals(name, arrays, "file")[0]
    np.testing.assert_allclose(observation["achieved_goal"], expected, atol=1e-5)
    env.close()


def test_oracle_environment_is_recovered(minari_root):
    dataset = convert_ogbench(STITCH, "ogbench/pointmaze-medium-stitch-oraclerep-v0")
    env = make_env(dataset)
    assert env.observation_space == dataset.observation_space
    assert env.action_space == dataset.action_space
    env.close()


# --------------------------------------------------------------------------------------- bad input


def rewritten(source, path, **changes):
    arrays = dict(np.load(source)) | changes
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize("variant", ["singletask", "oraclerep"])
def test_missing_or_narrow_simulator_state(minari_root, tmp_path, variant):
    path = rewritten(STITCH, tmp_path / "a.npz", qpos=None)
    with pytest.raises(UserError, match=r"a\.npz has no 'qpos'"):
        convert_ogbench(path, f"ogbench/pointmaze-medium-stitch-{variant}-v0")
    path = rewritten(STITCH, tmp_path / "b.npz", qpos=np.load(STITCH)["qpos"][:, :1])
    with pytest.raises(UserError, match="qpos has width 1, but pointmaze-medium needs 2"):
        convert_ogbench(path, f"ogbench/pointmaze-medium-stitch-{variant}-v0")
    states = np.load(PUZZLE)["button_states"]
    path = rewritten(PUZZLE, tmp_path / "c.npz", button_states=np.tile(states, 2))
    with pytest.raises(UserError, match="button_states has width 18, but puzzle-3x3 needs 9"):
        convert_ogbench(path, f"ogbench/puzzle-3x3-play-{variant}-v0")
    assert [file for file in minari_root.rglob("*") if file.is_file()] == []


def test_unknown_task_and_environment(minari_root):
    with pytest.raises(
        UserError, match="OGBench has no environment 'pointmaze-tiny-singletask-v0'"
    ):
        convert_ogbench(STITCH, "ogbench/pointmaze-tiny-stitch-singletask-v0")
    with pytest.raises(UserError, match="does not tell its environment"):
        convert_ogbench(STITCH, "ogbench/pointmaze-medium-stitch-singletask-task6-v0")
