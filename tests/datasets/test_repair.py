"""Repaired Minari datasets hold the sound part, unchanged, and pass the check."""

import json
import shutil

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces

from gcrl_gym.datasets import OfflineDataset, write_minari
from gcrl_gym.datasets.check import check_minari, inspect_minari
from gcrl_gym.datasets.minari_open import open_minari
from gcrl_gym.datasets.repair import repair_minari, repaired_id
from gcrl_gym.errors import UserError
from tests.datasets.conftest import OBSERVATION, random_episode

BOX = spaces.Box(-1, 1, (2,), np.float32)


def test_minari_keeps_the_sound_episodes(minari_root):
    rng = np.random.default_rng(0)
    dataset = write_minari(
        "test/box-v3",
        [random_episode(OBSERVATION, BOX, steps, rng) for steps in (5, 3, 4)],
        observation_space=OBSERVATION,
        action_space=BOX,
        env_spec=gym.spec("CartPole-v1"),
        metadata={"source": "test", "ref_min_score": 1.5},
    )
    with h5py.File(dataset.storage.data_path / "main_data.hdf5", "r+") as file:
        file["episode_1/rewards"][2] = np.nan
    assert check_minari(dataset) != []
    repaired, done = repair_minari(dataset)
    assert repaired.id == "test/box-repaired-v3"
    assert check_minari(repaired) == []
    assert done == ["episode 1 left out: rewards holds NaN or infinity (in float32) at step 2"]
    first, last = repaired.iterate_episodes()
    np.testing.assert_array_equal(first.actions, dataset[0].actions)
    np.testing.assert_array_equal(last.observations, dataset[2].observations)
    assert repaired.storage.metadata["repairs"] == done
    assert repaired.storage.metadata["ref_min_score"] == 1.5
    assert repaired.env_spec.id == "CartPole-v1"


def boxes(steps=(5, 3, 4), dataset_id="test/box-v0", **metadata):
    rng = np.random.default_rng(0)
    return write_minari(
        dataset_id,
        [random_episode(OBSERVATION, BOX, number, rng) for number in steps],
        observation_space=OBSERVATION,
        action_space=BOX,
        metadata=metadata,
    )


def edit(dataset, change):
    with h5py.File(dataset.storage.data_path / "main_data.hdf5", "r+") as file:
        change(file)


@pytest.mark.parametrize(
    "name", ["cartpole/mixed-v0", "pointmaze/umaze-v0", "cartpole/mixed-arrow-v0"]
)
def test_datasets_of_others(real_data, minari_root, name):
    """Their authors are a set in Minari's metadata, which JSON does not know."""
    target = minari_root / name
    shutil.copytree(real_data / "minari" / name, target, copy_function=shutil.copyfile)
    for folder in (target, *target.rglob("*")):
        folder.chmod(0o755)
    if name.endswith("arrow-v0"):
        shutil.rmtree(target / "data" / "1")
    else:
        with h5py.File(target / "data" / "main_data.hdf5", "r+") as file:
            file["episode_1/rewards"][0] = np.nan
    dataset = open_minari(name)
    repaired, _ = repair_minari(dataset)
    assert inspect_minari(repaired).defects == []
    assert repaired.total_episodes == dataset.total_episodes - 1
    assert repaired.storage.metadata["author"] == dataset.storage.metadata["author"]
    OfflineDataset.from_minari(repaired)


def remove(key):
    return lambda file: file.__delitem__(key)


def scalar(file):
    del file["episode_1/rewards"]
    file["episode_1/rewards"] = 1.0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (remove("episode_1/actions"), "episode 1 left out: it has no 'actions'"),
        (scalar, "episode 1 left out: rewards is a single value; expected a row per step"),
        (remove("episode_1"), "total_episodes was 3, but 2 were found"),
    ],
)
def test_unreadable_episodes_are_left_out(minari_root, change, expected):
    dataset = boxes()
    edit(dataset, change)
    repaired, done = repair_minari(dataset)
    assert done[0] == expected
    assert check_minari(repaired) == []
    assert repaired.total_steps == 9


def test_flags_are_mended_and_said(minari_root):
    dataset = boxes()

    def change(file):
        for index, value in ((0, False), (1, True)):
            for key in ("terminations", "truncations"):
                file[f"episode_{index}/{key}"][-1] = value
        file["episode_2/rewards"][0] = np.inf

    edit(dataset, change)
    repaired, done = repair_minari(dataset)
    assert done[1:] == [
        "the last step marked as truncated in 1 episode (first: 0)",
        "the truncation of a terminated last step removed in 1 episode (first: 1)",
    ]
    ends = [(bool(e.terminations[-1]), bool(e.truncations[-1])) for e in repaired]
    assert ends == [(False, True), (True, False)]
    assert inspect_minari(repaired).notes == []


def test_bad_infos_are_left_out_of_a_kept_episode(minari_root):
    dataset = boxes()

    def change(file):
        file["episode_1/infos/nested/qpos"] = np.full((4, 2), np.nan)
        file["episode_1/infos/nested/name"] = np.zeros(4)
        file["episode_2/infos/short"] = np.zeros(2)

    edit(dataset, change)
    repaired, done = repair_minari(dataset)
    assert done == [
        "infos/nested/qpos left out in 1 episode (first: 1)",
        "infos/short left out in 1 episode (first: 2)",
    ]
    assert repaired.total_episodes == 3
    assert set(repaired[1].infos["nested"]) == {"name"}
    assert set(repaired[2].infos) == {"step"}
    assert check_minari(repaired) == []


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"total_episodes": 1}, ["total_episodes was 1, but 3 were found"]),
        ({"total_episodes": 9}, ["total_episodes was 9, but 3 were found"]),
        ({"total_steps": 99}, ["total_steps was 99, but 12 were found"]),
    ],
)
def test_counts_are_corrected_and_no_episode_is_lost(minari_root, counts, expected):
    path = boxes().storage.data_path / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | counts))
    repaired, done = repair_minari(open_minari("test/box-v0"))
    assert done == expected
    assert (repaired.total_episodes, repaired.total_steps) == (3, 12)
    assert check_minari(repaired) == []


def test_many_left_out_are_counted(minari_root):
    dataset = boxes(steps=[3] * 30)

    def change(file):
        for index in range(25):
            file[f"episode_{index}/rewards"][0] = np.nan

    edit(dataset, change)
    repaired, done = repair_minari(dataset)
    assert len(done) == 21
    assert done[-1] == "5 more episodes left out"
    assert repaired.total_episodes == 5


def test_what_is_not_repaired(minari_root):
    dataset = boxes()
    with pytest.raises(UserError, match="There is nothing in 'test/box-v0' that can be repaired"):
        repair_minari(dataset)
    edit(dataset, lambda file: file["episode_1/rewards"].__setitem__(0, np.nan))
    repair_minari(dataset)
    with pytest.raises(UserError, match="'test/box-repaired-v0' exists"):
        repair_minari(dataset)
    repair_minari(dataset, overwrite=True)

    def spoil(file):
        for group in file.values():
            group["rewards"][0] = np.nan

    edit(dataset, spoil)
    with pytest.raises(UserError, match="No episode of 'test/box-v0' is sound"):
        repair_minari(dataset, overwrite=True)


def test_a_copy_with_defects_does_not_stay(minari_root, monkeypatch):
    dataset = boxes()
    edit(dataset, lambda file: file["episode_1/rewards"].__setitem__(0, np.nan))
    monkeypatch.setattr("gcrl_gym.datasets.repair.check_minari", lambda dataset: ["it is odd"])
    with pytest.raises(UserError, match="even in the copy, it is odd"):
        repair_minari(dataset)
    assert not (minari_root / "test" / "box-repaired-v0").exists()


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_images_stay_images(minari_root):
    """Minari keeps them as JPEG, the copy as they are decoded."""
    import minari

    image = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    rng = np.random.default_rng(0)
    buffers = [random_episode(image, BOX, 3, rng, infos=None) for _ in range(2)]
    dataset = minari.create_dataset_from_buffers(
        "test/images-v0",
        buffers,
        observation_space=image,
        action_space=BOX,
        author="me",
        author_email="me@example.org",
        code_permalink="here",
    )
    edit(dataset, lambda file: file["episode_1/rewards"].__setitem__(0, np.nan))
    repaired, _ = repair_minari(dataset)
    np.testing.assert_array_equal(repaired[0].observations, dataset[0].observations)


@pytest.mark.parametrize(
    ("dataset_id", "expected"),
    [("a/b-v3", "a/b-repaired-v3"), ("a/b-vx-v0", "a/b-vx-repaired-v0"), ("a", "a-repaired-v0")],
)
def test_id_of_the_copy(dataset_id, expected):
    assert repaired_id(dataset_id) == expected
