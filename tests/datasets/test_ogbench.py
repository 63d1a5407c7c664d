"""OGBench files: arrays equal its own loader's to the bit, and damage is one clear error."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import gcrl_gym
from gcrl_gym.datasets import GoalSampler, OfflineDataset, convert_ogbench, make_env
from gcrl_gym.datasets.ogbench_io import dataset_id_of, dataset_ids, env_id_of, file_name
from gcrl_gym.errors import UserError

from .conftest import EXCERPTS

STITCH = EXCERPTS / "ogbench" / "pointmaze-medium-stitch-v0.npz"
PUZZLE = EXCERPTS / "ogbench" / "puzzle-3x3-play-v0-val.npz"
FULL = [
    f"{name}{split}.npz"
    for name in (
        "pointmaze-medium-navigate-v0",
        "pointmaze-medium-stitch-v0",
        "cube-single-play-v0",
        "puzzle-3x3-play-v0",
    )
    for split in ("", "-val")
]


def assert_equals_ogbench(path):
    """Compare what samplers read with OGBench's compact and regular arrays, to the bit."""
    load_dataset = pytest.importorskip("ogbench.utils").load_dataset
    data = OfflineDataset.from_minari(convert_ogbench(path))
    compact = load_dataset(str(path), compact_dataset=True)
    regular = load_dataset(str(path))
    steps = data.step_rows

    np.testing.assert_array_equal(data.observations, compact["observations"])
    np.testing.assert_array_equal(steps, np.flatnonzero(compact["valids"]))
    np.testing.assert_array_equal(data.actions[steps], compact["actions"][steps])
    np.testing.assert_array_equal(data.observations[steps], regular["observations"])
    np.testing.assert_array_equal(data.observations[steps + 1], regular["next_observations"])
    np.testing.assert_array_equal(data.actions[steps], regular["actions"])
    last = data.episode_end[steps] == steps + 1
    np.testing.assert_array_equal(last, regular["terminals"] > 0)
    assert not data.terminated.any()
    assert not data.rewards.any()
    assert data.goal_is_observation
    assert data.desired_goals is None


@pytest.mark.parametrize("path", [STITCH, PUZZLE], ids=lambda path: path.stem)
def test_excerpts_equal_ogbenchs_loader(minari_root, path):
    assert_equals_ogbench(path)


@pytest.mark.parametrize("name", FULL)
def test_full_files_equal_ogbenchs_loader(minari_root, real_data, name):
    assert_equals_ogbench(real_data / "ogbench" / name)


def test_infos_and_metadata(minari_root):
    dataset = convert_ogbench(PUZZLE)
    raw = np.load(PUZZLE)
    infos = [episode.infos for episode in dataset.iterate_episodes()]
    for key in ("qpos", "qvel", "button_states"):
        np.testing.assert_array_equal(np.concatenate([info[key] for info in infos]), raw[key])
    assert all(episode.truncations[-1] for episode in dataset.iterate_episodes())
    metadata = dataset.storage.metadata
    assert dataset.id == "ogbench/puzzle-3x3-play-val-v0"
    assert metadata["source_file"] == PUZZLE.name
    assert len(metadata["source_sha256"]) == 64
    assert metadata["goal"] == "observation"


def test_goals_are_drawn_from_observations(minari_root):
    data = OfflineDataset.from_minari(convert_ogbench(STITCH))
    bound = GoalSampler(support="ogbench").bind(data)
    assert bound.reward_rule == "index"
    batch = bound.sample(512, np.random.default_rng(0))
    assert batch.goals.shape == batch.observations.shape == (512, 2)
    assert 0.1 < (batch.rewards == 0).float().mean() < 0.3  # p_cur = 0.2


@pytest.mark.parametrize("path", [STITCH, PUZZLE], ids=lambda path: path.stem)
def test_environment_is_recovered_with_goal_observations(minari_root, path):
    pytest.importorskip("ogbench")
    dataset = convert_ogbench(path)
    for env in (dataset.recover_environment(), make_env(dataset)):
        observation, _ = env.reset(seed=0, options={"task_id": 1})
        assert set(observation) == {"observation", "achieved_goal", "desired_goal"}
        assert observation["observation"].shape == dataset.observation_space.shape
        assert env.action_space == dataset.action_space
        env.close()


# ---------------------------------------------------------------------------------- finding files


def test_ids_and_file_names():
    ids = dataset_ids()
    assert len(ids) == len(set(ids)) == 2 * (4 * 2 + 4 * 2 + 3 + 3 * 2 + 2 * 2 + 8 + 8 + 2)
    assert {"ogbench/scene-play-v0", "ogbench/antmaze-teleport-explore-v0"} <= set(ids)
    for name in ids:
        assert dataset_id_of(Path(file_name(name))) == name
    name = "ogbench/pointmaze-medium-navigate-val-v0"
    assert file_name(name) == "pointmaze-medium-navigate-v0-val.npz"
    assert env_id_of(name) == "pointmaze-medium-v0"
    assert env_id_of("ogbench/scene-play-v0") == "scene-v0"


@pytest.mark.parametrize("sub", ["", "ogbench"])
@pytest.mark.parametrize("by", ["argument", "variable"])
def test_load_dataset_finds_the_file(minari_root, tmp_path, monkeypatch, sub, by):
    folder = tmp_path / "files"
    (folder / sub).mkdir(parents=True)
    shutil.copy(STITCH, folder / sub)
    if by == "variable":
        monkeypatch.setenv("GCRL_DATA_DIR", str(folder))
    data_dir = folder if by == "argument" else None
    dataset = gcrl_gym.load_dataset("ogbench/pointmaze-medium-stitch-v0", data_dir=data_dir)
    assert dataset.total_episodes == 5
    shutil.rmtree(folder)  # the second time it is local
    assert gcrl_gym.load_dataset(dataset.id).total_episodes == 5


def test_missing_file_is_named_with_the_folders(minari_root, tmp_path):
    with pytest.raises(UserError, match=r"scene-play-v0-val\.npz.*GCRL_DATA_DIR") as caught:
        gcrl_gym.load_dataset("ogbench/scene-play-val-v0", data_dir=tmp_path)
    assert str(tmp_path / "ogbench") in str(caught.value)


def test_unknown_id_names_the_nearest(minari_root):
    with pytest.raises(UserError, match="Did you mean 'ogbench/cube-single-play-v0'"):
        gcrl_gym.load_dataset("ogbench/cube-singel-play-v0")


# ------------------------------------------------------------------------------------- bad input


def changed(**changes):
    """Return a damage that rewrites the file with some arrays replaced."""

    def damage(path):
        arrays = dict(np.load(path))
        arrays |= {key: change(arrays[key]) for key, change in changes.items()}
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})

    return damage


def put(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[3000] ^= 0xFF
    path.write_bytes(bytes(content))


DAMAGES = {
    "missing": (lambda path: path.unlink(), "does not exist"),
    "cut": (cut, "is damaged or incomplete"),
    "flipped bit": (flip, "is damaged or incomplete"),
    "html": (lambda path: path.write_text("<!DOCTYPE html>"), "no zip signature"),
    "lfs": (lambda path: path.write_text("version https://git-lfs"), "no zip signature"),
    "empty": (lambda path: path.write_bytes(b""), "no zip signature"),
    "no key": (changed(actions=lambda a: None), r"has no \['actions'\]; it holds"),
    "lengths": (changed(actions=lambda a: a[:-1]), r"actions has shape \(1004, 2\)"),
    "info lengths": (changed(qvel=lambda a: a[:-1]), r"qvel has shape"),
    "flat": (changed(observations=lambda a: a[:, 0]), r"observations has shape \(1005,\)"),
    "no rows": (changed(observations=lambda a: a[:0]), "observations has no rows"),
    "open end": (changed(terminals=put(-1, False)), r"last row \(1004\) is not terminal"),
    "no ends": (changed(terminals=np.zeros_like), "is not terminal"),
    "compact": (changed(terminals=put(-2, True)), r"episode 5 \(row 1004\) has a single row"),
    "nan": (changed(observations=put((7, 1), np.nan)), "observations holds NaN or .* in row 7"),
    "inf": (changed(actions=put((9, 0), np.inf)), "actions holds NaN or infinity in row 9"),
    "images": (changed(observations=lambda a: a.astype(np.uint8)), "only state-based"),
    "objects": (changed(qpos=lambda a: np.array([None] * len(a))), "qpos cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_clear_error_and_leaves_nothing(minari_root, tmp_path, damage):
    path = tmp_path / STITCH.name
    shutil.copy(STITCH, path)
    change, message = DAMAGES[damage]
    change(path)
    with pytest.raises(UserError, match=message) as caught:
        convert_ogbench(path)
    assert path.name in str(caught.value)
    assert list(minari_root.rglob("*")) == []


def test_name_that_tells_no_environment(minari_root, tmp_path):
    path = tmp_path / "mine.npz"
    shutil.copy(STITCH, path)
    with pytest.raises(UserError, match="name the file as OGBench does"):
        convert_ogbench(path)
    assert convert_ogbench(path, "ogbench/pointmaze-medium-stitch-v0").total_episodes == 5
