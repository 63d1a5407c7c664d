"""Repaired copies hold the sound part, unchanged, and pass the check that the original fails."""

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces

from gcrl_gym.datasets import write_minari
from gcrl_gym.datasets.check import check_minari
from gcrl_gym.datasets.ogbench_io import convert_ogbench
from gcrl_gym.datasets.repair import repair_file, repair_minari
from gcrl_gym.errors import UserError
from tests.datasets.conftest import EXCERPTS, OBSERVATION, random_episode

BOX = spaces.Box(-1, 1, (2,), np.float32)
NPZ = EXCERPTS / "ogbench" / "pointmaze-medium-stitch-v0.npz"


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
    assert done == ["episode 1 left out: rewards holds NaN or infinity at step 2"]
    first, last = repaired.iterate_episodes()
    np.testing.assert_array_equal(first.actions, dataset[0].actions)
    np.testing.assert_array_equal(last.observations, dataset[2].observations)
    assert repaired.storage.metadata["repairs"] == done
    assert repaired.storage.metadata["ref_min_score"] == 1.5
    assert repaired.env_spec.id == "CartPole-v1"


def damaged_copy(tmp_path, **changes):
    with np.load(NPZ) as archive:
        arrays = {name: archive[name].copy() for name in archive}
    for name, change in changes.items():
        arrays[name] = change(arrays[name])
    path = tmp_path / NPZ.name
    np.savez_compressed(path, **arrays)
    return path, arrays


def with_value(row, value):
    def change(array):
        array[row] = value
        return array

    return change


def test_npz_loses_bad_episodes_only(tmp_path, minari_root):
    path, arrays = damaged_copy(tmp_path, observations=with_value(3, np.nan))
    with pytest.raises(UserError, match="NaN"):
        convert_ogbench(path)
    before = path.read_bytes()
    repaired, done = repair_file(path)
    assert repaired.name == "pointmaze-medium-stitch-v0.repaired.npz"
    assert path.read_bytes() == before
    assert "observations" in done[0]
    assert "row 3" in done[0]
    first_end = int(np.argmax(arrays["terminals"]))
    with np.load(repaired) as archive:
        for name in arrays:
            np.testing.assert_array_equal(archive[name], arrays[name][first_end + 1 :])
    dataset = convert_ogbench(repaired, "ogbench/pointmaze-medium-stitch-v0")
    assert dataset.total_episodes == int(arrays["terminals"].sum()) - 1


def test_npz_with_a_short_key_and_no_last_end(tmp_path, minari_root):
    path, arrays = damaged_copy(tmp_path, actions=lambda array: array[:-7])
    repaired, done = repair_file(path)
    assert "cut to" in done[0]
    assert "marked as the end" in done[1]
    with np.load(repaired) as archive:
        assert len(archive["observations"]) == len(arrays["observations"]) - 7
        assert archive["terminals"][-1]
    convert_ogbench(repaired, "ogbench/pointmaze-medium-stitch-v0")


def test_nothing_to_save(tmp_path, minari_root):
    path, _ = damaged_copy(tmp_path, observations=lambda array: np.full_like(array, np.nan))
    with pytest.raises(UserError, match="No episode is sound"):
        repair_file(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"cannot be repaired.*download"):
        repair_file(path)
    assert [file.name for file in tmp_path.glob("*.npz")] == [path.name]
