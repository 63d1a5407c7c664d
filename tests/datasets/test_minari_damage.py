"""Damaged Minari datasets are one clear sentence, on loading and in ``check``; reading of flags."""

import json
import shutil
import warnings

import h5py
import numpy as np
import pytest

from gcrl_gym.datasets import OfflineDataset, load_dataset
from gcrl_gym.datasets.check import check_minari, inspect_minari
from gcrl_gym.datasets.minari_open import DamagedDataset, open_minari
from gcrl_gym.errors import UserError

from .test_minari import write

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n"


@pytest.fixture
def data(minari_root):
    """The data folder of a dataset with episodes of 5, 3 and 8 steps."""
    return write().storage.data_path


def with_text(text):
    return lambda path: path.write_text(text)


def with_keys(**changes):
    def damage(path):
        known = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: v for key, v in known.items() if v is not None}))

    return damage


METADATA = {
    "empty": (with_text(""), "metadata.json is an empty file, not the JSON of a dataset"),
    "lfs": (with_text(LFS), "is a Git LFS pointer without the data.*; run git lfs pull"),
    "html": (with_text("<!DOCTYPE html>"), r"is a web page \(HTML\)"),
    "cut": (lambda path: path.write_text(path.read_text()[:50]), "is incomplete or damaged; copy"),
    "binary": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is something that begins with"),
    "list": (with_text("[]"), r"holds \[\] instead of names and values"),
    "null": (with_text("null"), "holds null instead of names and values"),
    "no id": (with_keys(dataset_id=None), "has no 'dataset_id'"),
    "no steps": (with_keys(total_steps=None), "has no 'total_steps'"),
    "steps in words": (
        with_keys(total_steps="sixteen"),
        "total_steps is 'sixteen'; expected a whole",
    ),
    "negative": (with_keys(total_steps=-5), "total_steps is -5, which counts nothing"),
    "true": (with_keys(total_episodes=True), "total_episodes is True, which counts nothing"),
    "format": (with_keys(data_format="zip"), "data_format is 'zip', but Minari reads arrow, hdf5"),
    "no space": (with_keys(observation_space=None), "has no 'observation_space', nor an env_spec"),
    "bad space": (with_keys(action_space="{}"), "action_space is '{}', which is no space"),
    "space of numbers": (with_keys(action_space=3), "action_space is '3', which is no space"),
    "spec": (with_keys(env_spec="{}"), "Cannot open the Minari dataset in .* has no 'id'"),
    "version": (with_keys(minari_version="99.0"), "does not support the dataset"),
}


@pytest.mark.parametrize("damage", METADATA)
def test_metadata(data, damage):
    change, message = METADATA[damage]
    change(data / "metadata.json")
    for open_it in (OfflineDataset.from_minari, load_dataset, open_minari):
        with pytest.raises(DamagedDataset, match=message) as caught:
            open_it("test/box-v0")
        assert "box-v0" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_metadata_of_an_open_dataset_are_checked_too(minari_root):
    dataset = write()
    with_keys(total_steps="sixteen")(dataset.storage.data_path / "metadata.json")
    with pytest.raises(DamagedDataset, match="total_steps is 'sixteen'"):
        OfflineDataset.from_minari(dataset)


def test_a_folder_that_is_no_dataset(data, tmp_path):
    with pytest.raises(UserError, match=r"holds no metadata.json, so it is no Minari dataset"):
        open_minari(tmp_path)
    (data / "metadata.json").unlink()
    with pytest.raises(DamagedDataset, match=r"has lost its metadata.json"):
        open_minari(data.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "is a Git LFS pointer without the data, not an HDF5 file; run git lfs pull"),
        ("<html>", r"is a web page \(HTML\), not an HDF5 file"),
        ("", "is an empty file, not an HDF5 file"),
        (None, "main_data.hdf5 does not exist"),
    ],
)
def test_data_file(data, content, message):
    path = data / "main_data.hdf5"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(DamagedDataset, match=message):
        OfflineDataset.from_minari("test/box-v0")


def test_home_is_expanded(data, monkeypatch):
    monkeypatch.setenv("HOME", str(data.parents[1]))
    assert open_minari("~/box-v0").id == "test/box-v0"


# ------------------------------------------------------------------------------------------- flags


def set_flags(data, key, change, episode=1):
    with h5py.File(data / "main_data.hdf5", "a") as file:
        values = change(file[f"episode_{episode}/{key}"][()])
        del file[f"episode_{episode}/{key}"]
        if values is not None:
            file[f"episode_{episode}/{key}"] = values


def at(row, value):
    def change(values):
        values = values.astype(float)
        values[row] = value
        return values

    return change


REFUSED = {
    "early": ("truncations", at(0, 1), "truncations is set at step 0, before its last step 2"),
    "short": ("truncations", lambda v: v[:2], "truncations has 2 rows; expected 3"),
    "missing": ("truncations", lambda v: None, "it has no 'truncations'"),
    "nan": ("truncations", at(-1, np.nan), "truncations holds nan at step 2; expected 0 or 1"),
    "half": ("terminations", at(-1, 0.5), "terminations holds 0.5 at step 2; expected 0 or 1"),
    "seven": ("terminations", at(1, 7), "terminations holds 7.0 at step 1; expected 0 or 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_flags_are_refused(data, case):
    key, change, message = REFUSED[case]
    set_flags(data, key, change)
    with pytest.raises(UserError, match=f"episode_1: {message}"):
        OfflineDataset.from_minari("test/box-v0")
    assert any(message in text for text in check_minari(open_minari("test/box-v0")))
    assert not (data.parent / "gcrl_cache").exists()


def test_an_episode_without_flags_is_truncated(data):
    for key in ("terminations", "truncations"):
        set_flags(data, key, lambda values: values * 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = OfflineDataset.from_minari("test/box-v0")
    assert loaded.num_episodes == 3
    assert not loaded.terminated[loaded.columns.episode_ends[1] - 1]


def test_both_flags_are_a_termination_and_one_warning(data):
    for episode in (1, 2):
        for key in ("terminations", "truncations"):
            set_flags(data, key, at(-1, 1), episode)
    with pytest.warns(
        UserWarning, match=r"2 episodes \(first: 1\) .* taken as terminated"
    ) as caught:
        loaded = OfflineDataset.from_minari("test/box-v0")
    assert len(caught) == 1
    assert loaded.terminated[loaded.columns.episode_ends[1:] - 1].all()


def test_success_marks_at_the_end_warn_of_nothing(data):
    """What we convert says itself what its terminations mean, and is reported."""
    with_keys(report={})(data / "metadata.json")
    for key in ("terminations", "truncations"):
        set_flags(data, key, at(-1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OfflineDataset.from_minari("test/box-v0")
    assert inspect_minari(open_minari("test/box-v0")).notes == []


def test_an_episode_of_no_steps(data):
    with h5py.File(data / "main_data.hdf5", "a") as file:
        group = file["episode_1"]
        for key, rows in (("observations", 1), ("actions", 0), ("rewards", 0)):
            values = group[key][:rows]
            del group[key]
            group[key] = values
        for key in ("terminations", "truncations"):
            del group[key]
            group[key] = np.zeros(0, bool)
    with pytest.raises(UserError, match="episode_1: it has no steps"):
        OfflineDataset.from_minari("test/box-v0")


def test_flags_of_other_types_load(data):
    set_flags(data, "terminations", lambda values: values.astype(np.int64)[:, None])
    set_flags(data, "truncations", lambda values: values.astype(np.float32))
    assert OfflineDataset.from_minari("test/box-v0").num_episodes == 3


# ------------------------------------------------------------------------------------------- Arrow


@pytest.fixture
def arrow(real_data, minari_root):
    """The data folder of a copy of the CartPole dataset: 12 episodes, a folder each."""
    pytest.importorskip("pyarrow")
    target = minari_root / "cartpole" / "mixed-arrow-v0"
    shutil.copytree(
        real_data / "minari" / "cartpole" / "mixed-arrow-v0", target, copy_function=shutil.copyfile
    )
    for folder in (target, *target.rglob("*")):
        folder.chmod(0o755)
    return target / "data"


def file_of(data):
    return data / "1" / "part-0.arrow"


def rewrite(change):
    def damage(data):
        import pyarrow

        with pyarrow.OSFile(str(file_of(data))) as file:
            table = change(pyarrow.ipc.open_file(file).read_all())
        with (
            pyarrow.OSFile(str(file_of(data)), "wb") as file,
            pyarrow.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)

    return damage


ARROW = {
    "no folder": (lambda data: shutil.rmtree(data / "1"), "its folder data/1 does not exist"),
    "no file": (lambda data: file_of(data).unlink(), "its folder data/1 holds no .arrow file"),
    "empty": (lambda data: file_of(data).write_bytes(b""), "data/1/part-0.arrow is an empty file"),
    "lfs": (lambda data: file_of(data).write_text(LFS), "data/1/part-0.arrow is a Git LFS pointer"),
    "html": (
        lambda data: file_of(data).write_text("<html>"),
        r"data/1/part-0.arrow is a web page \(HTML\)",
    ),
    "cut": (
        lambda data: file_of(data).write_bytes(file_of(data).read_bytes()[:3000]),
        "data/1/part-0.arrow is damaged or incomplete",
    ),
    "no rows": (rewrite(lambda table: table.slice(0, 0)), "it holds no rows"),
    "one row": (rewrite(lambda table: table.slice(0, 1)), "it has 0 steps, but .* says 500"),
    "few rows": (rewrite(lambda table: table.slice(0, 3)), "it has 2 steps, but .* says 500"),
    "no actions": (rewrite(lambda table: table.drop(["actions"])), "it has no 'actions'"),
    "no rewards": (rewrite(lambda table: table.drop(["rewards"])), "it has no 'rewards'"),
}


@pytest.mark.parametrize("damage", ARROW)
def test_arrow(arrow, damage):
    change, message = ARROW[damage]
    change(arrow)
    with pytest.raises(UserError, match=f"mixed-arrow-v0/data episode 1: {message}") as caught:
        OfflineDataset.from_minari("cartpole/mixed-arrow-v0")
    assert "\n" not in str(caught.value)
    (text,) = check_minari(open_minari("cartpole/mixed-arrow-v0"))
    assert text in str(caught.value)
