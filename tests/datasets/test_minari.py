"""Minari in and out: what is written comes back, foreign data loads, damage is one clear error."""

import json
import shutil
import warnings

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.namespace import list_local_namespaces

from gcrl_gym.datasets import GoalSampler, OfflineDataset, TransitionSampler, write_minari
from gcrl_gym.datasets.catalog import list_datasets
from gcrl_gym.datasets.sequences import SequenceSampler
from gcrl_gym.errors import UserError

from .conftest import GOAL_SPACE, OBSERVATION, random_episode

BOX = spaces.Box(-1, 1, (2,), np.float32)
IMAGE = spaces.Box(0, 255, (32, 32, 3), np.uint8)
SPACES = {
    "box": (OBSERVATION, BOX),
    "goals": (GOAL_SPACE, BOX),
    "discrete": (OBSERVATION, spaces.Discrete(4)),
    "discrete states": (spaces.Discrete(9), spaces.Discrete(4)),
    "images": (IMAGE, spaces.Discrete(4)),
}
STEPS = (5, 3, 8)


def episodes(kind="box", **changes):
    rng = np.random.default_rng(0)
    return [random_episode(*SPACES[kind], steps, rng, **changes) for steps in STEPS]


def write(kind="box", dataset_id="test/box-v0", buffers=None, **arguments):
    observation_space, action_space = SPACES[kind]
    return write_minari(
        dataset_id,
        episodes(kind) if buffers is None else buffers,
        observation_space=observation_space,
        action_space=action_space,
        metadata=arguments.pop("metadata", {"source": "test"}),
        **arguments,
    )


def concatenated(dataset):
    """What Minari's own iteration gives, one padded row per final state."""

    def pad(array):
        return np.concatenate([array, np.zeros_like(array[:1])])

    parts = list(dataset.iterate_episodes())
    result = {
        "actions": [pad(part.actions) for part in parts],
        "rewards": [pad(part.rewards) for part in parts],
        "terminated": [pad(part.terminations) for part in parts],
    }
    if isinstance(dataset.observation_space, spaces.Dict):
        names = {"observations": "observation", "achieved_goals": "achieved_goal"}
        for name, key in (names | {"desired_goals": "desired_goal"}).items():
            result[name] = [part.observations[key] for part in parts]
    else:
        result["observations"] = [part.observations for part in parts]
    return {name: np.concatenate(arrays) for name, arrays in result.items()}


def assert_equals_minari(dataset):
    loaded = OfflineDataset.from_minari(dataset)
    for name, expected in concatenated(dataset).items():
        column = getattr(loaded, name)
        assert column.dtype == (expected.dtype if expected.dtype.kind in "iub" else np.float32), (
            name
        )
        np.testing.assert_array_equal(column, expected.astype(column.dtype), err_msg=name)
    assert loaded.columns.lengths.tolist() == [len(e.rewards) for e in dataset.iterate_episodes()]
    return loaded


@pytest.mark.parametrize("kind", SPACES)
def test_written_episodes_come_back(minari_root, kind):
    dataset = write(kind)
    for stored, buffer in zip(dataset.iterate_episodes(), episodes(kind), strict=True):
        np.testing.assert_array_equal(stored.actions, buffer.actions)
        np.testing.assert_array_equal(stored.infos["step"], buffer.infos["step"])
    loaded = assert_equals_minari(dataset)
    assert loaded.num_steps == sum(STEPS)
    assert loaded.action_space == SPACES[kind][1]
    assert loaded.goal_dim == (2 if kind == "goals" else 0)


@pytest.mark.parametrize("kind", ["box", "goals", "discrete", "images"])
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_foreign_datasets_equal_minaris_iteration(minari_root, kind, data_format):
    """Written by Minari itself, images as JPEG; its arrow storage cannot read scalar infos."""
    if data_format == "arrow":
        pytest.importorskip("pyarrow")
    observation_space, action_space = SPACES[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = minari.create_dataset_from_buffers(
            "foreign/data-v0",
            episodes(kind, infos=None),
            observation_space=observation_space,
            action_space=action_space,
            data_format=data_format,
        )
    assert_equals_minari(dataset)


@pytest.mark.parametrize(
    ("name", "steps", "goal_dim"),
    [
        ("cartpole/mixed-v0", 25968, 0),
        ("cartpole/mixed-arrow-v0", 5215, 0),
        ("pointmaze/umaze-v0", 10000, 2),
        ("pointmaze/umaze-arrow-v0", 600, 2),
    ],
)
def test_recorded_datasets_equal_minaris_iteration(
    minari_root, real_data, tmp_path, name, steps, goal_dim
):
    folder = tmp_path / "copy"  # the original must not get a cache
    shutil.copytree(real_data / "minari" / name, folder)
    loaded = assert_equals_minari(minari.MinariDataset(folder / "data"))
    assert (loaded.num_steps, loaded.goal_dim) == (steps, goal_dim)
    assert not loaded.state_only
    for spec in (TransitionSampler(), GoalSampler(reward="index"), SequenceSampler(20)):
        batch = spec.bind(loaded).sample(32, np.random.default_rng(0))
        assert batch.goals.shape[-1] == goal_dim
        assert all(value.isfinite().all() for value in (batch.observations, batch.rewards))


def test_sources_of_from_minari(minari_root):
    dataset = write()
    expected = OfflineDataset.from_minari(dataset).observations
    folder = minari_root / "test" / "box-v0"
    for source in ("test/box-v0", folder, str(folder), folder / "data"):
        np.testing.assert_array_equal(OfflineDataset.from_minari(source).observations, expected)


def test_filtered_dataset_keeps_its_episodes(minari_root):
    dataset = write()
    OfflineDataset.from_minari(dataset)  # leaves a cache of all episodes
    some = dataset.filter_episodes(lambda episode: len(episode) != 3)
    assert_equals_minari(some)


# ---------------------------------------------------------------------------------------- writing


def test_written_dataset_is_listed_and_described(minari_root, capfd):
    write(metadata={"source": "test", "ref_min_score": 1.0, "ref_max_score": 3.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        listed = minari.list_local_datasets()
    assert list(listed) == ["test/box-v0"]
    assert list_local_namespaces() == ["test"]
    metadata = minari.load_dataset("test/box-v0").storage.metadata
    assert metadata["total_steps"] == sum(STEPS)
    assert metadata["versions"]["minari"] == minari.__version__
    dataset = minari.load_dataset("test/box-v0")
    assert minari.get_normalized_score(dataset, np.array([2.0])).tolist() == [0.5]
    assert "test/box-v0" in [row.id for row in list_datasets() if row.local]
    assert capfd.readouterr() == ("", "")


def test_writing_warns_of_nothing(minari_root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write()


def leftovers(root):
    return sorted(path.name for path in root.rglob("*"))


def test_failed_writing_leaves_nothing(minari_root):
    def failing():
        yield episodes()[0]
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write(buffers=failing())
    assert leftovers(minari_root) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset_id": "no version"}, "is not a dataset id"),
        ({"dataset_id": "name"}, "is not a dataset id"),
        ({"buffers": []}, "no episodes to write"),
    ],
)
def test_bad_writing(minari_root, arguments, message):
    with pytest.raises(UserError, match=message):
        write(**arguments)
    assert leftovers(minari_root) == []


def test_existing_dataset_is_replaced_only_on_request(minari_root):
    write()
    with pytest.raises(UserError, match="exists in"):
        write()
    shorter = write(buffers=episodes()[:1], overwrite=True)
    assert shorter.total_episodes == 1
    assert OfflineDataset.from_minari(shorter).num_episodes == 1
    assert not [name for name in leftovers(minari_root) if name.startswith(".")]


def test_unwritable_root_is_a_clear_error(tmp_path, monkeypatch):
    blocked = tmp_path / "root"
    blocked.write_text("a file, where the folder should be")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(blocked))
    with pytest.raises(UserError, match="set MINARI_DATASETS_PATH"):
        write()


# ------------------------------------------------------------------------------------- bad input


def hdf5(root):
    return root / "test" / "box-v0" / "data" / "main_data.hdf5"


def edit(key, change):
    """Return a damage that replaces ``episode_1/<key>``."""

    def damage(root):
        with h5py.File(hdf5(root), "a") as file:
            values = file[f"episode_1/{key}"][()]
            del file[f"episode_1/{key}"]
            if change is not None:
                file[f"episode_1/{key}"] = change(values)

    return damage


def nan_at_2(values):
    values[2] = np.nan
    return values


def group_in_place_of_rewards(root):
    with h5py.File(hdf5(root), "a") as file:
        del file["episode_1/rewards"]
        file.create_group("episode_1/rewards")


def cut(root):
    size = hdf5(root).stat().st_size
    with open(hdf5(root), "r+b") as file:
        file.truncate(size // 2)


def metadata(change):
    def damage(root):
        path = hdf5(root).with_name("metadata.json")
        path.write_text(change(json.loads(path.read_text())))

    return damage


DAMAGES = {
    "nan": (edit("observations", nan_at_2), "observations holds nan in episode 1 at step 2"),
    "inf": (edit("rewards", lambda v: v + np.inf), "rewards holds inf in episode 1 at step 0"),
    "no key": (edit("rewards", None), "main_data.hdf5 episode_1: it has no 'rewards'"),
    "short": (edit("actions", lambda v: v[:2]), "episode_1: actions has 2 rows; expected 3"),
    "no last state": (
        edit("observations", lambda v: v[:3]),
        "observations has 3 rows; expected 4",
    ),
    "width": (edit("actions", lambda v: v[:, :1].repeat(3, 1)), "actions has shape"),
    "text": (
        edit("rewards", lambda v: [b"x"] * len(v)),
        "episode_1: rewards has dtype .*; expected numbers",
    ),
    "group": (group_in_place_of_rewards, "episode_1: rewards is a group; expected an array"),
    "cut": (cut, "main_data.hdf5.*damaged or incomplete"),
    "not hdf5": (
        lambda root: hdf5(root).write_text("<html>"),
        r"is a web page \(HTML\), not an HDF5",
    ),
    "no file": (lambda root: hdf5(root).unlink(), "main_data.hdf5 does not exist"),
    "no json": (metadata(lambda known: "{"), "metadata.json is incomplete or damaged; copy"),
    "no space": (
        metadata(lambda known: json.dumps(known | {"observation_space": '{"type": "Odd"}'})),
        "observation_space is .*, which is no space",
    ),
    "too few steps": (
        metadata(lambda known: json.dumps(known | {"total_steps": 4})),
        "total_steps is 4, but the episodes hold",
    ),
    "too many steps": (
        metadata(lambda known: json.dumps(known | {"total_steps": 40})),
        "total_steps is 40, but the episodes hold 16",
    ),
    "too many episodes": (
        metadata(lambda known: json.dumps(known | {"total_episodes": 4})),
        "episode_3: it does not exist, although metadata.json counts it",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_clear_error(minari_root, damage):
    write()
    change, message = DAMAGES[damage]
    change(minari_root)
    with pytest.raises(UserError, match=message) as caught:
        OfflineDataset.from_minari("test/box-v0")
    assert "box-v0" in str(caught.value)
    assert not (minari_root / "test" / "box-v0" / "gcrl_cache").exists()


def test_unknown_id_names_the_nearest(minari_root):
    write()
    with pytest.raises(UserError, match=r"Did you mean 'test/box-v0'"):
        OfflineDataset.from_minari("test/bx-v0")


@pytest.mark.parametrize(
    ("space", "action_space", "message"),
    [
        (spaces.Dict(image=OBSERVATION, state=OBSERVATION), BOX, r"keys \['image', 'state'\]"),
        (spaces.Dict({**GOAL_SPACE, "desired_goal": spaces.Discrete(3)}), BOX, "must be floats"),
        (OBSERVATION, spaces.MultiDiscrete([2, 2]), "float Box and Discrete actions"),
    ],
)
def test_unsupported_spaces(minari_root, space, action_space, message):
    rng = np.random.default_rng(0)
    actions = np.zeros((3, 2), np.int64) if isinstance(action_space, spaces.MultiDiscrete) else None
    changes = {} if actions is None else {"actions": actions}
    buffer = random_episode(space, BOX, 3, rng, **changes)
    dataset = write_minari(
        "test/odd-v0", [buffer], observation_space=space, action_space=action_space, metadata={}
    )
    with pytest.raises(UserError, match=message):
        OfflineDataset.from_minari(dataset)
