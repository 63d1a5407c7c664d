"""Large data: the first load fills mapped files, and leaves no half of them behind."""

import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from gcrl_gym.datasets import GoalSampler, OfflineDataset, TransitionSampler, cache, columns
from gcrl_gym.datasets.sequences import SequenceSampler
from gcrl_gym.errors import UserError

from .test_cache import assert_equal
from .test_minari import DAMAGES, episodes, write

KINDS = ("box", "goals", "discrete", "images")


@pytest.fixture
def folder(minari_root):
    return minari_root / "test" / "box-v0"


@pytest.fixture
def mapped(monkeypatch):
    """Every load is above the limit."""
    monkeypatch.setattr(cache, "MMAP_BYTES", 100)


def load():
    return OfflineDataset.from_minari("test/box-v0")


def files(folder):
    return sorted(path.name for path in (folder / "gcrl_cache").glob("*"))


def tables(data):
    return [data.columns.rows, *data.columns.integers.values()]


@pytest.mark.parametrize("kind", KINDS)
def test_first_load_fills_mapped_files(folder, monkeypatch, kind):
    write(kind)
    plain = OfflineDataset.from_minari(folder)
    for path in (folder / "gcrl_cache").glob("*"):
        path.unlink()
    monkeypatch.setattr(cache, "MMAP_BYTES", 100)
    allocate = columns.Columns.allocate
    monkeypatch.setattr(columns.Columns, "allocate", None)  # nothing is allocated in memory
    first, later = load(), load()
    monkeypatch.setattr(columns.Columns, "allocate", allocate)
    for data in (first, later):
        assert all(isinstance(table, np.memmap) for table in tables(data))
        assert_equal(data, plain)
    assert not [name for name in files(folder) if name.endswith(".part")]
    assert len(files(folder)) == 3 + len(first.columns.integers)


def test_what_is_handed_out_cannot_change_the_cache(folder, mapped):
    write("images")
    first = load()
    first.columns.rows[:] = 7
    first.observations[:] = 7
    assert (load().columns.rows != 7).any()
    assert (load().observations != 7).any()


@pytest.mark.parametrize("spec", [TransitionSampler(), GoalSampler(), SequenceSampler(4)])
def test_image_batches_stay_integers_and_only_the_batch_is_read(folder, mapped, spec):
    write("images")
    data = load()
    bound = spec.bind(data)
    gather = getattr(bound, "transitions", bound)
    shared = gather.integers["observations"]
    assert shared.data_ptr() == data.observations.ctypes.data  # the map itself, no copy
    batch = bound.sample(6, np.random.default_rng(0))
    assert str(batch.observations.dtype) == "torch.uint8"
    assert batch.observations.numel() <= 6 * 4 * 32 * 32 * 3


def test_limit_by_environment_variable(folder, monkeypatch):
    write("box")
    monkeypatch.setenv("GCRL_MMAP_GIB", "1e-7")
    assert isinstance(load().columns.rows, np.memmap)
    monkeypatch.setenv("GCRL_MMAP_GIB", "1")
    assert not isinstance(load().columns.rows, np.memmap)
    for text in ("a lot", "-1", "nan"):
        monkeypatch.setenv("GCRL_MMAP_GIB", text)
        with pytest.raises(UserError, match="GCRL_MMAP_GIB"):
            load()


def test_size_rows_and_place_are_announced(folder, mapped, monkeypatch, caplog):
    write("box")
    with caplog.at_level(logging.WARNING):
        load()
    assert "Mapping 0.0 GiB for 19 dataset rows in" in caplog.text
    assert "gcrl_cache" in caplog.text
    monkeypatch.setattr(columns, "LARGE_BYTES", 100)
    OfflineDataset.from_episodes(
        [{"observations": np.zeros((99, 1)), "actions": np.zeros((98, 1))}]
    )
    assert "Allocating 0.0 GiB of memory for 99 dataset rows" in caplog.text


def test_filtered_data_is_read_into_memory(folder, mapped):
    some = write("box").filter_episodes(lambda episode: len(episode) != 3)
    data = OfflineDataset.from_minari(some)
    assert not isinstance(data.columns.rows, np.memmap)
    assert data.num_episodes == 2
    assert not (folder / "gcrl_cache").exists()


def test_what_a_user_wrote_is_not_released(folder, mapped):
    write("box")
    data = load()
    data.columns.rows[3] = 7
    data.columns.release()
    assert (data.columns.rows[3] == 7).all()


def test_folder_that_cannot_be_written_means_memory(folder, mapped, monkeypatch, caplog):
    write("box")
    (folder / "gcrl_cache").write_text("in the way")
    data = load()
    assert not isinstance(data.columns.rows, np.memmap)
    assert "Cannot write" in caplog.text
    assert data.num_rows == 19


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_full_disk_means_memory(folder, mapped, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    write("discrete")
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert load().num_rows == 19
    assert "No space left on device" in caplog.text
    assert not [name for name in files(folder) if name.endswith(".part")]


def test_pages_are_released_while_filling_and_checking(folder, mapped, monkeypatch):
    expected = OfflineDataset.from_minari(write("discrete", dataset_id="test/plain-v0"))
    write("discrete")
    monkeypatch.setattr("gcrl_gym.datasets.minari_reader.RELEASE_BYTES", 1)
    monkeypatch.setattr(columns, "RELEASE_BYTES", 1)
    monkeypatch.setattr(columns, "_CHECK_ROWS", 2)
    calls, release = [], columns.Columns.release
    monkeypatch.setattr(columns.Columns, "release", lambda self: calls.append(release(self)))
    assert_equal(load(), expected)
    assert len(calls) == 3 + 10  # after each episode, and after each block of the check


@pytest.mark.parametrize("check_rows", [1, 2, 5, 100])
def test_check_in_blocks_names_the_same_row(folder, mapped, monkeypatch, check_rows):
    monkeypatch.setattr(columns, "_CHECK_ROWS", check_rows)
    write("box")
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_2/actions"][7, 1] = np.nan
    with pytest.raises(UserError, match=r"actions holds nan in episode 2 at step 7 \(row 17\)"):
        load()


@pytest.mark.parametrize("damage", ["nan", "no key", "too many steps", "too few steps", "cut"])
def test_failed_first_load_leaves_nothing(minari_root, folder, mapped, damage):
    write()
    change, message = DAMAGES[damage]
    change(minari_root)
    with pytest.raises(UserError, match=message):
        load()
    assert files(folder) == []


# ------------------------------------------------------------------------------ killed processes

KILLED = """
    import os, signal
    from gcrl_gym.datasets import OfflineDataset, cache, columns, minari_reader
    cache.MMAP_BYTES = 100

    def die(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)

    {patch}
    OfflineDataset.from_minari("test/box-v0")
"""
MOMENTS = {
    "in the second episode": """
    calls = []
    def put(*arguments):
        calls.append(1)
        die() if len(calls) > 7 else original(*arguments)
    original, minari_reader.put = minari_reader.put, put
    """,
    "before the check": "columns.Columns.require_finite = die",
    "before the renaming": "cache.Draft._place_parts = die",
    "between two renamings": """
    replace = os.replace
    os.replace = lambda *names: (replace(*names), die())
    """,
    "before the manifest": "cache._write_manifest = die",
}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_first_load_leaves_no_cache_that_counts(folder, mapped, moment):
    write("discrete")
    expected = OfflineDataset.from_minari(write("discrete", dataset_id="test/plain-v0"))
    code = textwrap.dedent(KILLED).format(patch=textwrap.dedent(MOMENTS[moment]))
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    left = files(folder)
    assert left
    assert "manifest.json" not in left
    assert_equal(load(), expected)
    assert len(files(folder)) == 4
    assert not [name for name in files(folder) if name.endswith(".part")]


def test_temporary_files_of_a_running_load_stay(folder, mapped):
    write("box")
    (folder / "gcrl_cache").mkdir()
    running = folder / "gcrl_cache" / f".rows.npy.{platform.node()}-{os.getppid()}.part"
    elsewhere = folder / "gcrl_cache" / ".rows.npy.some-other-machine-1.part"
    for path in (running, elsewhere):
        path.write_text("")
    load()
    assert running.exists()
    assert elsewhere.exists()


# ---------------------------------------------------------------------------------------- memory

PEAK = """
    import re
    from pathlib import Path
    from gcrl_gym.datasets import OfflineDataset, minari_reader
    import h5py, minari, torch

    def memory(name):
        return int(re.search(name + r":\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])

    before = memory("VmRSS")
    data = OfflineDataset.from_minari("test/box-v0")
    print(data.num_rows, (memory("VmHWM") - before) / 2**10)
"""


def write_rows(rows, folder):
    """One long box dataset, its episodes copied inside the file (``write`` takes a while)."""
    write("box", buffers=episodes()[:1])
    steps = 10_000
    rng = np.random.default_rng(0)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0"]
        for index in range(rows // steps):
            group = file.create_group(f"episode_{index}")
            group["observations"] = rng.standard_normal((steps + 1, 3))
            group["actions"] = rng.standard_normal((steps, 2)).astype(np.float32)
            group["rewards"] = np.zeros(steps)
            group["terminations"] = group["truncations"] = np.zeros(steps, bool)
    path = folder / "data" / "metadata.json"
    known = json.loads(path.read_text())
    known |= {"total_episodes": rows // steps, "total_steps": rows}
    path.write_text(json.dumps(known))
    return rows


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_peak_memory_of_a_first_load_is_bounded(folder, monkeypatch):
    rows = write_rows(10_000_000, folder)
    size = rows * 7 * 4 / 2**20  # 267 MiB of columns
    peaks = {}
    for limit in ("0.1", "10"):
        shutil.rmtree(folder / "gcrl_cache", ignore_errors=True)
        environment = os.environ | {"GCRL_MMAP_GIB": limit}
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PEAK)],
            env=environment, check=True, stdout=subprocess.PIPE, text=True,
        ).stdout.split()  # fmt: skip
        assert int(answer[0]) == rows + 1000
        peaks[limit] = float(answer[1])
    assert peaks["10"] > size, peaks
    assert peaks["0.1"] < 0.75 * size, peaks
