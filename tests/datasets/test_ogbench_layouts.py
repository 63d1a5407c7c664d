"""OGBench's other layouts: images, the regular layout, folders of shards; and the report."""

import itertools
import shutil
import tracemalloc

import numpy as np
import pytest
from gymnasium import spaces

import gcrl_gym
from gcrl_gym.datasets import GoalSampler, OfflineDataset, convert_ogbench, make_env
from gcrl_gym.datasets.ogbench_io import SOURCE, shards
from gcrl_gym.errors import UserError

from .conftest import EXCERPTS

STITCH = EXCERPTS / "ogbench" / "pointmaze-medium-stitch-v0.npz"
PUZZLE = EXCERPTS / "ogbench" / "puzzle-3x3-play-v0-val.npz"


def assert_same_data(first, second, infos=True):
    """Compare all that is stored of two Minari datasets."""
    assert first.total_episodes == second.total_episodes
    assert first.total_steps == second.total_steps
    assert first.observation_space == second.observation_space
    for one, other in zip(first.iterate_episodes(), second.iterate_episodes()):
        for key in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(one, key), getattr(other, key))
        for key in one.infos:
            rows = len(other.infos[key])
            assert rows == len(one.infos[key]) if infos else len(other.actions)
            np.testing.assert_array_equal(one.infos[key][:rows], other.infos[key])


def images(path, shape=(64, 64, 3), discrete=False, episodes=3, rows=9, seed=0):
    """Write a file of random images and return its arrays."""
    rng = np.random.default_rng(seed)
    count = episodes * rows
    arrays = {
        "observations": rng.integers(256, size=(count, *shape), dtype=np.uint8),
        "actions": rng.uniform(-1, 1, (count, 5)).astype(np.float32),
        "terminals": np.arange(count) % rows == rows - 1,
    }
    if discrete:
        arrays["actions"] = rng.integers(8, size=count, dtype=np.int32)
    np.savez_compressed(path, **arrays)
    return arrays


# ------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize(
    ("name", "shape", "discrete"),
    [
        ("visual-cube-single-play-v0", (64, 64, 3), False),
        ("powderworld-easy-play-v0", (32, 32, 6), True),
    ],
)
def test_images_stay_bytes_and_equal_ogbenchs_loader(minari_root, tmp_path, name, shape, discrete):
    load_dataset = pytest.importorskip("ogbench.utils").load_dataset
    path = tmp_path / f"{name}.npz"
    images(path, shape, discrete)
    dataset = convert_ogbench(path)
    data = OfflineDataset.from_minari(dataset)
    action_dtype = np.int32 if discrete else np.float32
    regular = load_dataset(str(path), ob_dtype=np.uint8, action_dtype=action_dtype)
    steps = data.step_rows
    assert data.observations.dtype == np.uint8
    assert data.observations.shape[1:] == shape
    np.testing.assert_array_equal(data.observations[steps], regular["observations"])
    np.testing.assert_array_equal(data.observations[steps + 1], regular["next_observations"])
    np.testing.assert_array_equal(data.actions[steps], regular["actions"])
    assert dataset.observation_space == spaces.Box(0, 255, shape, np.uint8)
    assert isinstance(dataset.action_space, spaces.Discrete) == discrete
    assert dataset.storage.metadata["report"]["largest_jump"] is None
    batch = GoalSampler(support="ogbench").bind(data).sample(8, np.random.default_rng(0))
    assert batch.goals.shape == batch.observations.shape == (8, *shape)


@pytest.mark.parametrize("name", ["visual-cube-single-play-v0", "powderworld-easy-play-v0"])
def test_environment_of_images(minari_root, tmp_path, name):
    pytest.importorskip("ogbench")
    mujoco = pytest.importorskip("mujoco")
    powder = name.startswith("powder")
    path = tmp_path / f"{name}.npz"
    images(path, (32, 32, 6) if powder else (64, 64, 3), powder)
    dataset = convert_ogbench(path)
    try:
        env = make_env(dataset)
        observation, _ = env.reset(seed=0, options={"task_id": 1})
    except (RuntimeError, AttributeError, ImportError, mujoco.FatalError) as error:
        if powder:
            raise
        pytest.skip(f"this machine renders no MuJoCo images (try MUJOCO_GL=egl): {error}")
    assert env.observation_space["observation"] == dataset.observation_space
    assert env.action_space == dataset.action_space
    assert env.observation_space.contains(observation)
    env.step(env.action_space.sample())
    env.close()


def test_powderworld_actions_out_of_range(minari_root, tmp_path):
    path = tmp_path / "powderworld-easy-play-v0.npz"
    arrays = images(path, (32, 32, 6), discrete=True)
    arrays["actions"][4] = 9
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"actions holds 9 in row 4; .* has the actions 0 to 7"):
        convert_ogbench(path)
    assert list(minari_root.rglob("*")) == []


# ----------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("compact", [True, False], ids=["valids", "regular"])
@pytest.mark.parametrize("path", [STITCH, PUZZLE], ids=lambda path: path.stem)
def test_what_ogbenchs_loader_returns_converts_to_the_same(minari_root, tmp_path, path, compact):
    load_dataset = pytest.importorskip("ogbench.utils").load_dataset
    saved = tmp_path / path.name
    np.savez(saved, **load_dataset(str(path), compact_dataset=compact, add_info=True))
    dataset = convert_ogbench(path)
    again = convert_ogbench(saved, "ogbench/again-and-again-v0")
    assert_same_data(dataset, again, infos=compact)
    dropped = again.storage.metadata["report"]["dropped"]
    assert len(dropped) == 1
    assert ("no row for the last state" in dropped[0]) == (not compact)


def test_oracle_goals_need_the_published_layout(minari_root, tmp_path):
    load_dataset = pytest.importorskip("ogbench.utils").load_dataset
    saved = tmp_path / STITCH.name
    np.savez(saved, **load_dataset(str(STITCH), add_info=True))
    with pytest.raises(UserError, match="has the regular layout, which lacks qpos"):
        convert_ogbench(saved, "ogbench/pointmaze-medium-stitch-oraclerep-v0")
    assert list(minari_root.rglob("*.hdf5")) == []


# ------------------------------------------------------------------------------------------ report


def test_report(minari_root, tmp_path):
    path = tmp_path / STITCH.name
    np.savez(path, **np.load(STITCH), hello=np.arange(3), rewards=np.zeros(4))
    report = convert_ogbench(path).storage.metadata["report"]
    assert report["source_file"] == path.name
    assert report["official"] is None
    assert (report["episodes"], report["transitions"]) == (5, 1000)
    assert report["lengths"] == [200, 200, 200]
    assert report["reward_sum"] == 0
    assert report["largest_jump"][0] < 1
    assert report["dropped"] == [
        "the action in the last row of each episode (5 rows): no state follows it",
        "unknown keys of the file: hello, rewards",
    ]


# ------------------------------------------------------------------------------------------ shards


def cut_into_shards(path, folder, sizes=(2, 2, 1), suffix=""):
    """Write the episodes of a file as several files; return their names."""
    arrays = dict(np.load(path))
    rows = np.append(0, np.flatnonzero(arrays["terminals"]) + 1)
    cuts = rows[np.append(0, np.cumsum(sizes))]
    folder.mkdir(exist_ok=True)
    for number, (start, stop) in enumerate(itertools.pairwise(cuts)):
        part = {key: array[start:stop] for key, array in arrays.items()}
        np.savez(folder / f"{path.stem}-{number:03}{suffix}.npz", **part)


@pytest.mark.parametrize("variant", ["", "-oraclerep", "-singletask"])
def test_shards_give_what_one_file_gives(minari_root, tmp_path, variant):
    if variant == "-singletask":
        pytest.importorskip("ogbench")
    folder = tmp_path / "pointmaze-medium-stitch-100m-v0"
    cut_into_shards(STITCH, folder)
    cut_into_shards(STITCH, folder, sizes=(1, 1), suffix="-val")
    whole = convert_ogbench(STITCH, f"ogbench/pointmaze-medium-stitch{variant}-v0")
    parts = convert_ogbench(folder, f"ogbench/pointmaze-medium-stitch-100m{variant}-v0")
    if variant == "-oraclerep":
        assert parts.total_steps == whole.total_steps
        one, other = (OfflineDataset.from_minari(dataset) for dataset in (whole, parts))
        np.testing.assert_array_equal(one.columns.rows, other.columns.rows)
    else:
        assert_same_data(whole, parts)
    metadata = [dataset.storage.metadata for dataset in (whole, parts)]
    for key in ("episodes", "transitions", "lengths", "largest_jump", "dropped"):
        assert metadata[0]["report"][key] == metadata[1]["report"][key]
    assert metadata[1]["source_file"] == folder.name
    val = convert_ogbench(folder, f"ogbench/pointmaze-medium-stitch-100m{variant}-val-v0")
    assert val.total_episodes == 2


def test_shard_ids_and_order(tmp_path):
    assert SOURCE.file("ogbench/scene-play-100m-v0") == "scene-play-100m-v0"
    for name in ("b-001.npz", "b-000.npz", "b-000-val.npz", "notes.txt"):
        (tmp_path / name).write_text("")
    assert [path.name for path in shards(tmp_path)] == ["b-000.npz", "b-001.npz"]
    assert [path.name for path in shards(tmp_path, val=True)] == ["b-000-val.npz"]


def test_bad_shards_leave_nothing(minari_root, tmp_path):
    folder = tmp_path / "pointmaze-medium-stitch-100m-v0"
    folder.mkdir()
    with pytest.raises(UserError, match=r"holds no \*\.npz"):
        convert_ogbench(folder)
    cut_into_shards(STITCH, folder)
    with pytest.raises(UserError, match=r"holds no \*-val\.npz"):
        convert_ogbench(folder, "ogbench/pointmaze-medium-stitch-100m-val-v0")
    last = folder / "pointmaze-medium-stitch-v0-002.npz"
    good = last.read_bytes()
    last.write_bytes(good[:500])
    with pytest.raises(UserError, match=r"002\.npz is damaged or incomplete"):
        convert_ogbench(folder)
    arrays = dict(np.load(folder / "pointmaze-medium-stitch-v0-001.npz"))
    del arrays["qvel"]
    np.savez(last, **arrays)
    with pytest.raises(UserError, match=r"002\.npz holds .* must belong to one dataset"):
        convert_ogbench(folder)
    assert [path for path in minari_root.rglob("*") if path.is_file()] == []


def test_shards_take_the_memory_of_one(minari_root, tmp_path):
    folder = tmp_path / "visual-cube-single-play-100m-v0"
    folder.mkdir()
    images(folder / "first.npz", episodes=10, rows=100)  # 12 MB decompressed
    size = np.load(folder / "first.npz")["observations"].nbytes
    for number in range(5):
        shutil.copy(folder / "first.npz", folder / f"more-{number}.npz")
    convert_ogbench(STITCH)  # imports
    tracemalloc.start()
    dataset = convert_ogbench(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dataset.total_episodes == 60
    assert peak < 1.6 * size


def test_load_dataset_converts_a_variant(minari_root):
    dataset = gcrl_gym.load_dataset(
        "ogbench/pointmaze-medium-stitch-oraclerep-v0", data_dir=EXCERPTS
    )
    assert dataset.id == "ogbench/pointmaze-medium-stitch-oraclerep-v0"
