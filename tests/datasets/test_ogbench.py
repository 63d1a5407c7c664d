"""OGBench files: arrays equal its own loader's to the bit, and damage is one clear error."""

import shutil
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym
from gcrl_gym.datasets import GoalSampler, OfflineDataset, convert_ogbench, make_env
from gcrl_gym.datasets.ogbench_catalog import expected_shapes, parse
from gcrl_gym.datasets.ogbench_io import (
    INFO_KEYS,
    dataset_id_of,
    dataset_ids,
    env_id_of,
    file_name,
    read_npz,
)
from gcrl_gym.errors import UserError

from .conftest import EXCERPTS
from .damage import FOREIGN, put

STITCH = EXCERPTS / "ogbench" / "pointmaze-medium-stitch-v0.npz"
PUZZLE = EXCERPTS / "ogbench" / "puzzle-3x3-play-v0-val.npz"
FULL = [
    f"{name}{split}.npz"
    for name in (
        "pointmaze-medium-navigate-v0",
        "pointmaze-medium-stitch-v0",
        "cube-single-play-v0",
        "puzzle-3x3-play-v0",
        "pointmaze-teleport-navigate-v0",
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
    assert len(ids) == len(set(ids))
    assert {"ogbench/scene-play-v0", "ogbench/antmaze-teleport-explore-v0"} <= set(ids)
    plain = [name for name in ids if not parse(name).variant and not parse(name).size]
    assert len(plain) == 2 * 85  # "85 datasets" of OGBench's README, and their validation data
    assert sum("visual" in name for name in plain) == 2 * 35
    singletasks = [n for n in ids if "-task" in n and not parse(n).size and not parse(n).val]
    assert len(singletasks) == 410  # "410 tasks for standard offline RL"
    for name in plain:
        assert dataset_id_of(Path(file_name(name))) == name
    name = "ogbench/pointmaze-medium-navigate-val-v0"
    assert file_name(name) == "pointmaze-medium-navigate-v0-val.npz"
    assert env_id_of(name) == "pointmaze-medium-v0"
    assert env_id_of("ogbench/scene-play-v0") == "scene-v0"
    name = "ogbench/visual-puzzle-4x5-noisy-singletask-task3-val-v0"
    assert file_name(name) == "visual-puzzle-4x5-noisy-v0-val.npz"
    assert env_id_of(name) == "visual-puzzle-4x5-singletask-task3-v0"
    assert expected_shapes(parse(name)) == ((64, 64, 3), (5,))
    assert expected_shapes(parse("ogbench/cube-quintuple-play-v0")) is None
    assert expected_shapes(parse("ogbench/kitchen-play-v0")) is None
    name = "ogbench/cube-octuple-play-100m-oraclerep-v0"
    assert file_name(name) == "cube-octuple-play-100m-v0"
    assert env_id_of(name) == "cube-octuple-v0"


def test_every_id_has_an_environment_of_ogbench():
    pytest.importorskip("ogbench")
    assert [name for name in dataset_ids() if env_id_of(name) not in gym.registry] == []


ENVS = sorted({parse(n).env for n in dataset_ids() if "visual" not in n and "powder" not in n})


@pytest.mark.parametrize("env_name", ENVS)
def test_expected_shapes_are_those_of_the_environment(env_name):
    pytest.importorskip("ogbench")
    env = gym.make(f"{env_name}-v0")
    observation, action = expected_shapes(parse(f"{env_name}-play-v0"))
    assert observation == env.observation_space.shape
    assert action == env.action_space.shape
    env.close()


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


def flip(path):
    content = bytearray(path.read_bytes())
    content[3000] ^= 0xFF
    path.write_bytes(bytes(content))


def regular(**changes):
    """Return a damage that brings the file into the regular layout and then changes arrays."""

    def damage(path):
        arrays = dict(np.load(path))
        ends = arrays["terminals"]
        following = arrays["observations"][1:][~ends[:-1]]
        arrays = {key: array[~ends] for key, array in arrays.items()}
        arrays["terminals"] = np.append(ends[1:], True)[~ends]
        np.savez(path, **arrays, next_observations=following)
        changed(**changes)(path)

    return damage


def with_arrays(**arrays):
    """Return a damage that adds arrays to the file."""
    return lambda path: np.savez(path, **(dict(np.load(path)) | arrays))


def with_raw_member(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("qvel", "not an array")


def wider(array):
    return np.repeat(array, 2, axis=1)


DAMAGES = {
    **FOREIGN,
    "flipped bit": (flip, "is damaged or incomplete"),
    "no key": (changed(actions=lambda a: None), r"has no \['actions'\]; it holds"),
    "lengths": (changed(actions=lambda a: a[:-1]), r"actions has shape \(1004, 2\)"),
    "info lengths": (changed(qvel=lambda a: a[:-1]), r"qvel has shape"),
    "flat": (changed(observations=lambda a: a[:, 0]), r"observations has shape \(1005,\)"),
    "scalar": (changed(observations=lambda a: a[0, 0]), "observations has no rows"),
    "no rows": (changed(observations=lambda a: a[:0]), "observations has no rows"),
    "open end": (changed(terminals=put(-1, False)), r"last row \(1004\) is not terminal"),
    "no ends": (changed(terminals=np.zeros_like), "terminals is 0 in all 1005 rows"),
    "compact": (changed(terminals=put(-2, True)), r"episode 5 \(row 1004\) has a single row"),
    "terminals": (changed(terminals=lambda a: a * 2), "terminals holds 2 in row 200"),
    "nan end": (changed(terminals=lambda a: a * np.nan), "terminals holds nan in row 0"),
    "nan": (changed(observations=put((7, 1), np.nan)), "observations holds NaN or .* in row 7"),
    "inf": (changed(actions=put((9, 0), np.inf)), "actions holds NaN or infinity in row 9"),
    "wide": (
        changed(actions=lambda a: a.astype(float) * 1e300),
        "actions holds NaN or infinity in row 0",
    ),
    "info nan": (changed(qpos=put((3, 1), np.nan)), "qpos holds NaN or infinity in row 3"),
    "images": (changed(observations=lambda a: a.astype(np.uint8)), r"expected \(1005, height"),
    "integers": (changed(observations=lambda a: a.astype(int)), "observations has dtype int64"),
    "action width": (changed(actions=wider), r"actions is float32 with rows of shape \(4,\)"),
    "action text": (changed(actions=lambda a: a.astype(str)), "actions has dtype <U"),
    "discrete": (changed(actions=lambda a: a[:, 0].astype(int)), "actions is int64"),
    "foreign": (changed(observations=wider), r"rows of shape \(4,\), but pointmaze-medium has"),
    "objects": (changed(qpos=lambda a: np.array([None] * len(a))), "qpos cannot be read"),
    "raw member": (
        lambda path: (changed(qvel=lambda a: None)(path), with_raw_member(path)),
        "qvel cannot be read",
    ),
    "next row": (regular(observations=put((5, 0), 0)), "in row 4 is not the observation of row 5"),
    "next nan": (regular(next_observations=put((5, 0), np.nan)), "next_observations holds NaN"),
    "next width": (regular(next_observations=wider), r"next_observations is float32 \(1000, 4\)"),
    "next length": (regular(next_observations=lambda a: a[1:]), "next_observations has shape"),
    "valids": (with_arrays(valids=np.arange(1005) % 2), "terminals and valids disagree in row"),
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


def test_read_npz_gives_the_arrays(tmp_path):
    arrays = read_npz(PUZZLE)
    assert set(arrays) == {"observations", "actions", "terminals", *INFO_KEYS}
    assert {len(array) for array in arrays.values()} == {300}
    assert arrays["button_states"].dtype == np.int64
