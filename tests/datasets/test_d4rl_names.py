"""D4RL ids, files and environments are found by name."""

import hashlib
import re
import shutil
import sys

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

import gcrl_gym
from gcrl_gym.datasets import make_env
from gcrl_gym.datasets.d4rl_catalog import CHECKSUMS, dataset_ids, entry_of
from gcrl_gym.datasets.d4rl_envs import evaluation_spec
from gcrl_gym.datasets.d4rl_io import SOURCE, convert_d4rl
from gcrl_gym.datasets.scores import normalized_score
from gcrl_gym.errors import UserError
from gcrl_gym.evaluation import stored_references
from tests.datasets.test_d4rl import (
    ANT,
    DOOR,
    IDS,
    MAZE,
    MEDIUM,
    at,
    edit,
    read_all,
    synthetic,
)


def test_ids_files_and_addresses():
    ids = dataset_ids()
    assert len(ids) == len(set(ids)) == 4 * (5 + 6 + 6) + 2 * 6 + 2 * 12 + 3 + 24
    assert {"d4rl/ant-full-replay-v1", "d4rl/maze2d-large-dense-goal-v1"} <= set(ids)
    assert "d4rl/hopper-full-replay-v0" not in ids
    files = [entry_of(name).file for name in ids if not entry_of(name).goals]
    assert len(files) == len(set(files))
    assert set(CHECKSUMS) <= set(files)
    for name, file, folder in (
        ("hopper-medium-replay-v0", "hopper_mixed.hdf5", "gym_mujoco"),
        ("walker2d-medium-replay-v0", "walker_mixed.hdf5", "gym_mujoco"),
        ("walker2d-medium-expert-v2", "walker2d_medium_expert-v2.hdf5", "gym_mujoco_v2"),
        ("pen-cloned-v0", "pen-demos-v0-bc-combined.hdf5", "hand_dapg"),
        ("pen-cloned-v1", "pen-cloned-v1.hdf5", "hand_dapg_v1"),
        ("maze2d-umaze-v1", "maze2d-umaze-sparse-v1.hdf5", "maze2d"),
        ("maze2d-umaze-dense-v1", "maze2d-umaze-dense-v1.hdf5", "maze2d"),
    ):
        assert SOURCE.file(f"d4rl/{name}") == file
        url = f"http://rail.eecs.berkeley.edu/datasets/offline_rl/{folder}/{file}"
        remote = SOURCE.remote(f"d4rl/{name}")
        assert remote.urls == (url, f"https://web.archive.org/web/2id_/{url}")
    remote = SOURCE.remote("d4rl/hopper-medium-v2")
    assert remote.size == 152756557
    assert remote.sha256.startswith("5bdf1bc4a713")
    assert SOURCE.remote("d4rl/maze2d-umaze-v1").sha256 is None


def test_checksums_are_well_formed():
    sums = [sha256 for _, sha256 in CHECKSUMS.values()]
    assert len(sums) == len(set(sums)) == 98
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in sums)
    assert all(size > 1_000_000 for size, _ in CHECKSUMS.values())
    entries = [entry_of(name) for name in dataset_ids()]
    without = {entry.env for entry in entries if entry.file not in CHECKSUMS}
    assert without == {"maze2d", "kitchen", "relocate"}


@pytest.mark.parametrize("name", IDS)
def test_load_dataset_finds_the_file(minari_root, tmp_path, name):
    (tmp_path / "d4rl").mkdir()
    shutil.copy(IDS[name], tmp_path / "d4rl")
    assert gcrl_gym.load_dataset(name, data_dir=tmp_path).id == name


def test_the_official_file_is_known_by_its_checksum(minari_root, monkeypatch):
    checksum = hashlib.sha256(MEDIUM.read_bytes()).hexdigest()
    monkeypatch.setitem(CHECKSUMS, MEDIUM.name, (1, checksum))
    assert convert_d4rl(MEDIUM).storage.metadata["official"] is True


def test_unknown_names(minari_root, tmp_path):
    path = shutil.copy(MEDIUM, tmp_path / "mine.hdf5")
    with pytest.raises(UserError, match=r"no file of D4RL is named 'mine\.hdf5'"):
        convert_d4rl(path)
    assert convert_d4rl(path, "d4rl/hopper-medium-v2").total_episodes == 3
    with pytest.raises(UserError, match="Did you mean 'd4rl/hopper-medium-v2'"):
        convert_d4rl(path, "d4rl/hoper-medium-v2")


def test_hopper_is_evaluated_in_gymnasium(minari_root):
    pytest.importorskip("mujoco")
    dataset = convert_d4rl(MEDIUM)
    for env in (dataset.recover_environment(), make_env(dataset)):
        assert env.spec.id == "Hopper-v5"
        assert env.reset(seed=0)[0].shape == dataset.observation_space.shape
        assert env.action_space == dataset.action_space
        env.close()


@pytest.mark.parametrize(
    ("path", "goals"),
    [(MAZE, False), (MAZE, True), (ANT, False), (ANT, True), (DOOR, False)],
    ids=lambda value: getattr(value, "stem", str(value)),
)
def test_robotics_environments_have_the_datas_layout(minari_root, path, goals):
    pytest.importorskip("gymnasium_robotics")
    dataset = convert_d4rl(path, goals=goals)
    env = make_env(dataset)
    observation, _ = env.reset(seed=0)
    assert env.spec.max_episode_steps == dataset.storage.metadata["horizon"]
    assert stored_references(dataset.storage.metadata, env) is not None
    if goals:
        for key, space in dataset.observation_space.items():
            assert observation[key].shape == space.shape
    else:
        assert observation.shape == dataset.observation_space.shape
    env.close()


@pytest.mark.parametrize(("shift", "frame"), [(0, "robotics"), (100, "d4rl")])
def test_frame_of_maze_coordinates(minari_root, tmp_path, shift, frame):
    raw = read_all(MAZE)
    raw["observations"][:, :2] += shift
    dataset = convert_d4rl(edit(shutil.copy(MAZE, tmp_path), raw))
    assert dataset.env_spec.kwargs["frame"] == frame


@pytest.mark.parametrize("forces", [True, False])
def test_ant_shows_forces_as_the_data_do(minari_root, tmp_path, forces):
    path = synthetic(tmp_path / "ant_random-v2.hdf5", "ant", 50, ends=[], timeouts=at(50, 49))
    observations = read_all(path)["observations"]
    observations[:, 27:] *= forces
    dataset = convert_d4rl(edit(path, {"observations": observations}))
    assert dataset.env_spec.kwargs == {"contact_forces": forces}


def test_missing_robotics_is_one_sentence(minari_root, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(UserError, match=r"pip install 'gcrl-gym\[robotics\]'"):
        make_env(convert_d4rl(MAZE))


ONE_OF_EACH = {entry_of(name).name.rsplit("-", 1)[0]: name for name in dataset_ids()}


@pytest.mark.parametrize("name", sorted(ONE_OF_EACH.values()))
def test_every_environment_can_be_recovered(name):
    entry = entry_of(name)
    width, actions = entry.family.widths
    states = np.random.default_rng(0).uniform(1.0, 2.0, (50, width)).astype(np.float32)
    spec, sentence = evaluation_spec(entry, states)
    assert len(sentence) > 20
    if entry.env == "kitchen":
        pytest.importorskip("gymnasium_robotics")
    again = gym.make(EnvSpec.from_json(spec.to_json()), disable_env_checker=True)
    observation, _ = again.reset(seed=0)
    flat = observation["observation"] if isinstance(observation, dict) else observation
    assert flat.shape == (width,)
    assert again.action_space.shape == (actions,)
    again.step(again.action_space.sample())
    again.close()


@pytest.mark.parametrize("path", [MEDIUM, MAZE, ANT, DOOR], ids=lambda path: path.stem)
def test_minaris_score_is_ours(minari_root, path):
    dataset = convert_d4rl(path)
    returns = np.array([-5.0, 0.0, 100.0, 3000.0])
    ours = normalized_score(dataset.id, returns)
    np.testing.assert_allclose(100 * minari.get_normalized_score(dataset, returns), ours)
    spec = dataset.recover_environment().spec
    assert spec.id == make_env(dataset).spec.id == dataset.env_spec.id
