"""``gcrl data convert`` on the command line: what it makes, and what it refuses."""

import shutil

import pytest

from gcrl_gym.cli import main
from tests.datasets.conftest import EXCERPTS
from tests.datasets.damage import FOREIGN
from tests.datasets.test_d4rl import MEDIUM

STITCH = EXCERPTS / "ogbench" / "pointmaze-medium-stitch-v0.npz"


def gcrl(capsys, *arguments):
    """Return exit status, output and errors of ``gcrl data convert ..``."""
    status = 0
    try:
        main(["data", "convert", *map(str, arguments)])
    except SystemExit as stop:
        status = stop.code or 0
    return status, *capsys.readouterr()


@pytest.mark.parametrize("damage", FOREIGN)
@pytest.mark.parametrize("source", [MEDIUM, STITCH], ids=["hdf5", "npz"])
def test_damaged_files(minari_root, tmp_path, capsys, source, damage):
    path = tmp_path / source.name
    shutil.copy(source, path)
    FOREIGN[damage][0](path)
    status, output, errors = gcrl(capsys, path)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert str(path) in errors
    assert list(minari_root.rglob("*")) == []


def test_a_dataset_is_replaced_on_request(minari_root, capsys):
    status, output, _ = gcrl(capsys, MEDIUM)
    assert status == 0
    assert "d4rl/hopper-medium-v2" in output
    status, _, errors = gcrl(capsys, MEDIUM)
    assert (status, errors.count("\n")) == (2, 1)
    assert "exists" in errors
    assert gcrl(capsys, MEDIUM, "--overwrite")[0] == 0


def test_a_folder_needs_an_id(minari_root, tmp_path, capsys):
    folder = tmp_path / "shards"
    folder.mkdir()
    shutil.copy(STITCH, folder / "part-000.npz")
    status, _, errors = gcrl(capsys, folder)
    assert (status, errors.count("\n")) == (2, 1)
    assert "say with --id" in errors
    status, output, errors = gcrl(capsys, folder, "--id", "ogbench/pointmaze-medium-stitch-v0")
    assert status == 0, errors
    assert "ogbench/pointmaze-medium-stitch-v0" in output


def test_the_home_folder_is_expanded(minari_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(MEDIUM, tmp_path)
    assert gcrl(capsys, f"~/{MEDIUM.name}")[0] == 0


def test_ids_that_are_made_from_no_file(minari_root, capsys):
    status, _, errors = gcrl(capsys, MEDIUM, "--id", "gcrl/nav2d/play-v0")
    assert status == 2
    assert "made from a file" in errors
