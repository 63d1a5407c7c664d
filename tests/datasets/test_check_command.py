"""``gcrl data check`` as a command: exit status, one line each, repairing."""

import gymnasium as gym
import h5py
import numpy as np
import pytest

from gcrl_gym.cli import main

from .test_check import Bounded
from .test_minari import write


@pytest.fixture
def dataset(minari_root):
    """Three sound episodes of 5, 3 and 8 steps."""
    return write()


@pytest.fixture
def run(capsys, no_downloads):
    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["data", "check", *map(str, arguments)])
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call


WRONG = {
    "unknown id": (["nothing/here-v0"], "Unknown dataset 'nothing/here-v0'"),
    "no file": (["nope/pointmaze-medium-stitch-v0.npz"], "does not exist"),
    "no file in home": (["~/nope"], "does not exist"),
    "nothing": ([""], "Say what to check"),
    "unknown env": (["test/box-v0", "--env", "Nope-v0"], "Unknown environment 'Nope-v0'"),
    "suffix": (["a.txt"], "is none of .npz, .hdf5, .h5, .csv"),
    "folder": (["empty"], "holds no metadata.json, so it is no Minari dataset"),
    "namespace": (["test"], "holds no metadata.json, so it is no Minari dataset"),
    "id of a dataset": (["test/box-v0", "--id", "d4rl/hopper-medium-v2"], "--id tells what a file"),
    "id of a table": (["a.csv", "--id", "d4rl/hopper-medium-v2"], "leave --id out"),
    "unknown d4rl id": (["a.hdf5", "--id", "d4rl/hoper-medium-v2"], "Did you mean"),
    "unknown ogbench id": (["a.npz", "--id", "ogbench/x-v0"], "Unknown OGBench dataset"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_command_is_one_line(dataset, run, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("a.txt", "a.csv", "a.hdf5", "a.npz"):
        (tmp_path / name).write_text("x")
    arguments, message = WRONG[mistake]
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_damaged_dataset_exits_with_1(dataset, run):
    assert run("test/box-v0") == (0, "test/box-v0: sound, 3 episodes, 16 steps\n", "")
    folder = dataset.storage.data_path
    assert run(folder)[0] == run(folder.parent)[0] == 0
    known = (folder / "metadata.json").read_text()
    (folder / "metadata.json").write_text("[]")
    status, out, err = run("test/box-v0")
    assert (status, err) == (1, "")
    assert out.startswith("defect: ")
    assert "holds [] instead of names and values" in out
    (folder / "metadata.json").unlink()
    assert "has lost its metadata.json" in run("test/box-v0")[1]
    (folder / "metadata.json").write_text(known)
    (folder / "main_data.hdf5").write_bytes(b"")
    assert run("test/box-v0", "--repair")[:2] == (
        1,
        f"defect: {folder / 'main_data.hdf5'} is an empty file, not an HDF5 file; download it "
        "again.\n",
    )


def test_each_defect_is_one_line(dataset, run, tmp_path):
    path = tmp_path / "a\nb.csv"
    path.write_text("observation_0\n1\n")
    status, out, _ = run(path)
    assert status == 1
    assert out.count("\n") == 1
    gym.register("test/Bounded-v0", entry_point=lambda: Bounded(), disable_env_checker=True)
    try:
        status, out, _ = run("test/box-v0", "--env", "test/Bounded-v0")
    finally:
        del gym.registry["test/Bounded-v0"]
    assert status == 1
    assert all(line.startswith("defect: ") for line in out.splitlines())


def test_home_is_expanded(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.csv").write_text("observation_0,action_0,terminated\n0,1,0\n1,1,1\n")
    assert run("~/a.csv")[:2] == (0, "~/a.csv: sound, 1 episodes, 2 steps\n")


def test_repairing_through_the_command(dataset, run):
    with h5py.File(dataset.storage.data_path / "main_data.hdf5", "r+") as file:
        file["episode_1/rewards"][1] = np.nan
    status, out, err = run("test/box-v0", "--repair")
    assert (status, err) == (1, "")
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "defect",
        "repaired",
        "repaired copy",
    ]
    assert run("test/box-repaired-v0")[0] == 0
    assert "exists" in run("test/box-v0", "--repair")[2]
    assert run("test/box-v0", "--repair", "--overwrite")[2] == ""
