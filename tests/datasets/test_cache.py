"""The flat cache: used when valid, rebuilt when not, never in the way."""

import json
import os

import h5py
import numpy as np
import pytest
import torch

from gcrl_gym.datasets import GoalSampler, OfflineDataset, cache

from .test_minari import write


@pytest.fixture
def folder(minari_root):
    write("discrete")
    return minari_root / "test" / "box-v0"


def load():
    return OfflineDataset.from_minari("test/box-v0")


def assert_equal(first, second):
    for name in ("observations", "actions", "rewards", "terminated", "episode_end"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def spoil(folder):
    """Overwrite the data file with zeros, keeping size and time: only a cache can now load."""
    path = folder / "data" / "main_data.hdf5"
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_second_load_reads_only_the_cache(folder):
    first = load()
    spoil(folder)
    assert_equal(load(), first)
    assert not list(folder.rglob("*.part"))


def test_new_time_with_equal_content_keeps_the_cache(folder):
    first = load()
    rows = next(folder.glob("gcrl_cache/*-rows.npy"))
    before = rows.stat().st_mtime_ns
    os.utime(folder / "data" / "main_data.hdf5", (1, 1))
    assert_equal(load(), first)
    assert rows.stat().st_mtime_ns == before
    recorded = json.loads((folder / "gcrl_cache" / "manifest.json").read_text())["files"]
    assert recorded["main_data.hdf5"][1] == 10**9  # the new time, so that the next load is fast


def test_changed_data_is_read_again_and_the_old_cache_goes(folder):
    first = load()
    old = set(folder.glob("gcrl_cache/*.npy"))
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/rewards"][0] = 77.0
    changed = load()
    assert changed.rewards[0] == 77.0
    np.testing.assert_array_equal(changed.rewards[1:], first.rewards[1:])
    assert not old & set(folder.glob("gcrl_cache/*.npy"))
    spoil(folder)
    assert_equal(load(), changed)


def rewrite_manifest(folder, **changes):
    path = folder / "gcrl_cache" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(folder, name):
    path = next(folder.glob(f"gcrl_cache/*-{name}.npy"))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 4)


DAMAGES = {
    "truncated rows": lambda folder: truncate(folder, "rows"),
    "truncated lengths": lambda folder: truncate(folder, "lengths"),
    "truncated actions": lambda folder: truncate(folder, "actions"),
    "missing file": lambda folder: next(folder.glob("gcrl_cache/*-rows.npy")).unlink(),
    "no manifest": lambda folder: (folder / "gcrl_cache" / "manifest.json").unlink(),
    "broken manifest": lambda folder: (folder / "gcrl_cache/manifest.json").write_text("[1"),
    "list manifest": lambda folder: (folder / "gcrl_cache/manifest.json").write_text("[]"),
    "other format": lambda folder: rewrite_manifest(folder, format=0),
    "other layout": lambda folder: rewrite_manifest(folder, layout={}),
    "pickle": lambda folder: np.save(
        next(folder.glob("gcrl_cache/*-rows.npy")), np.array([{}], object), allow_pickle=True
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_is_rebuilt_silently(folder, damage, capfd):
    first = load()
    DAMAGES[damage](folder)
    assert_equal(load(), first)
    spoil(folder)
    assert_equal(load(), first)  # from the rebuilt cache
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_takes_no_cache_does_no_harm(folder):
    (folder / "gcrl_cache").write_text("in the way")
    assert_equal(load(), load())


def test_large_caches_are_memory_mapped(folder, monkeypatch):
    plain = load()
    monkeypatch.setattr(cache, "MMAP_BYTES", 100)
    mapped = load()
    assert isinstance(mapped.columns.rows, np.memmap)
    assert not isinstance(plain.columns.rows, np.memmap)
    assert_equal(mapped, plain)
    spec = GoalSampler(reward="index", support="ogbench")
    batches = []
    for data in (plain, mapped):
        data.goal_is_observation = True
        batches.append(spec.bind(data).sample(32, np.random.default_rng(0)))
    assert torch.equal(batches[0].goals, batches[1].goals)
    assert torch.equal(batches[0].actions, batches[1].actions)


def test_first_load_above_the_limit_returns_the_mapped_cache(folder, monkeypatch):
    monkeypatch.setattr(cache, "MMAP_BYTES", 100)
    assert isinstance(load().columns.rows, np.memmap)
