"""Downloads by dataset id: where they go, on the command line and on first use."""

import pytest

import gcrl_gym
from gcrl_gym.cli import main
from gcrl_gym.datasets.catalog import fetch_file, list_datasets
from gcrl_gym.datasets.sources import Remote, sources
from gcrl_gym.errors import UserError
from tests.datasets.conftest import EXCERPTS
from tests.datasets.http_server import serving


def test_where_downloads_go(server, minari_root, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "file").write_text("no folder")
    place = Remote((f"{server.address}/good/x",))
    (ogbench,) = [source for source in sources() if source.name == "ogbench"]
    monkeypatch.setitem(vars(ogbench), "remote", lambda dataset_id: place)
    default = tmp_path / "home" / ".gcrl_gym" / "data" / "ogbench"
    # A folder that cannot be made stands for one that cannot be written: root may write anywhere.
    blocked = tmp_path / "file" / "folder"
    name = "ogbench/scene-play-v0"
    assert fetch_file(name, blocked) == default / "scene-play-v0.npz"
    assert fetch_file(name, tmp_path / "new") == default / "scene-play-v0.npz"  # found there
    (default / "scene-play-v0.npz").unlink()
    assert fetch_file(name, tmp_path / "new") == tmp_path / "new" / "ogbench" / "scene-play-v0.npz"
    monkeypatch.setenv("GCRL_DATA_DIR", str(tmp_path / "other"))
    assert fetch_file(name).parent == tmp_path / "other" / "ogbench"
    with pytest.raises(UserError, match="is not made from a file"):
        fetch_file("gcrl/nav2d/play-v0")
    with pytest.raises(UserError, match="Did you mean 'ogbench/scene-play-v0'"):
        fetch_file("ogbench/scene-plya-v0")


def test_command_line(server, minari_root, tmp_path, monkeypatch, capsys):
    place = Remote((f"{server.address}/good/x",), sha256="0" * 64)
    (ogbench,) = [source for source in sources() if source.name == "ogbench"]
    monkeypatch.setitem(vars(ogbench), "remote", lambda dataset_id: place)

    def gcrl(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["data", *arguments, "--data-dir", str(tmp_path)])
        return stop.value.code, *capsys.readouterr()

    command = ["download", "ogbench/scene-play-v0"]
    status, printed, errors = gcrl(*command, "--offline")
    assert (status, printed, errors.count("\n")) == (2, "", 1)
    assert place.urls[0] in errors
    status, printed, errors = gcrl(*command)
    assert (status, printed, errors.count("\n")) == (2, "", 1)
    assert "--accept-other-bytes takes it nevertheless" in errors
    status, printed, errors = gcrl(*command, "--accept-other-bytes")
    assert "gcrl: warning: " in errors
    assert "SHA-256" in errors
    path = tmp_path / "ogbench" / "scene-play-v0.npz"
    assert (status, printed) == (0, f"{path}\n")
    assert gcrl(*command, "--offline")[:2] == (0, f"{path}\n")  # here by now
    lines = gcrl("list", "--all")[1].splitlines()
    states = {line.split()[0]: line for line in lines}
    assert states["ogbench/cube-single-play-v0"].endswith("can be downloaded")
    assert states["ogbench/scene-play-v0"].endswith("made on first use")


def test_load_dataset_downloads_and_converts(online, minari_root, tmp_path, monkeypatch):
    name = "pointmaze-medium-stitch-v0"
    content = (EXCERPTS / "ogbench" / f"{name}.npz").read_bytes()
    (ogbench,) = [source for source in sources() if source.name == "ogbench"]
    with serving(content) as (server, address):
        place = Remote((f"{address}/missing/x", f"{address}/good/x"), size=len(content))
        monkeypatch.setitem(vars(ogbench), "remote", lambda dataset_id: place)
        dataset = gcrl_gym.load_dataset(f"ogbench/{name}", tmp_path)
        assert (tmp_path / "ogbench" / f"{name}.npz").read_bytes() == content
        assert gcrl_gym.load_dataset(f"ogbench/{name}", tmp_path).id == dataset.id
        assert [way for way, _ in server.log] == ["missing", "good"]
        rows = {row.id: row for row in list_datasets(tmp_path)}
        assert rows["ogbench/scene-play-v0"].downloadable
        with pytest.raises(UserError, match=r"scene-play-v0\.npz.*being offline"):
            fetch_file("ogbench/scene-play-v0", tmp_path, offline=True)


def test_known_addresses():
    sizes = {source.name: source for source in sources()}
    hopper = sizes["d4rl"].remote("d4rl/hopper-medium-v2")
    assert hopper.urls[0].endswith("/gym_mujoco_v2/hopper_medium-v2.hdf5")
    assert (hopper.size, hopper.sha256[:8]) == (152756557, "5bdf1bc4")
    scene = sizes["ogbench"].remote("ogbench/scene-play-val-v0")
    assert scene.urls[0].endswith("/ogbench/scene-play-v0-val.npz")
    assert scene.sha256 is None
