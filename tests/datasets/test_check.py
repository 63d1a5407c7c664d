"""``gcrl data check``: sound data passes, each defect is named with its place."""

import json
import re

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces

import gcrl_gym  # noqa: F401  (registers the environments)
from gcrl_gym.datasets import OfflineDataset, write_minari
from gcrl_gym.datasets.check import MOST_DEFECTS, check_minari, inspect_minari
from gcrl_gym.datasets.minari_open import open_minari
from gcrl_gym.errors import UserError
from tests.datasets.conftest import GOAL_SPACE, OBSERVATION, random_episode

BOX = spaces.Box(-1, 1, (2,), np.float32)


@pytest.fixture
def dataset(minari_root):
    """Two sound episodes of 5 and 3 steps."""
    rng = np.random.default_rng(0)
    return write_minari(
        "test/box-v0",
        [random_episode(OBSERVATION, BOX, steps, rng) for steps in (5, 3)],
        observation_space=OBSERVATION,
        action_space=BOX,
        metadata={"source": "test"},
    )


def damaged(dataset, change):
    """Apply ``change`` to the HDF5 file and check."""
    with h5py.File(dataset.storage.data_path / "main_data.hdf5", "r+") as file:
        change(file)
    return check_minari(dataset)


def test_sound(dataset):
    assert check_minari(dataset) == []


def set_value(key, row, value):
    def change(file):
        file[key][row] = value

    return change


def replace(key, change_array):
    def change(file):
        values = change_array(file[key][()])
        del file[key]
        file[key] = values

    return change


def shorten(key, to=-1):
    return replace(key, lambda values: values[:to])


def flags(key, value):
    def changed(values):
        values = values.astype(float)
        values[-1] = value
        return values

    return replace(f"episode_1/{key}", changed)


def group(file, key):
    del file[f"episode_1/{key}"]
    file.create_group(f"episode_1/{key}")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_value("episode_1/observations", (2, 1), np.nan), "episode 1: observations holds NaN"),
        (set_value("episode_0/rewards", 4, np.inf), "rewards holds NaN or infinity .* at step 4"),
        (
            set_value("episode_0/actions", (0, 0), np.nan),
            "actions holds NaN or infinity .* at step 0",
        ),
        (set_value("episode_0/truncations", 1, True), "truncations is set at step 1, before"),
        (shorten("episode_1/observations"), "observations has 3 rows; expected 4"),
        (shorten("episode_0/actions"), "actions has 4 rows; expected 5"),
        (shorten("episode_0/rewards"), "episode 0: rewards has 4 rows; expected 5"),
        (shorten("episode_0/truncations"), "episode 0: truncations has 4 rows; expected 5"),
        (set_value("episode_1/observations", (2, 1), 1e300), "observations holds NaN or infinity"),
        (replace("episode_1/actions", lambda v: v[:, :1]), r"actions has shape \(3, 1\); expected"),
        (replace("episode_1/observations", lambda v: v[:, :2]), r"observations has shape \(4, 2\)"),
        (
            replace("episode_1/rewards", lambda v: np.stack([v, v], 1)),
            r"rewards has shape \(3, 2\)",
        ),
        (
            replace("episode_1/rewards", lambda v: v.astype("S3")),
            r"rewards has dtype .*S3; expected",
        ),
        (replace("episode_1/observations", lambda v: v + 0j), "observations has dtype complex128"),
        (replace("episode_1/rewards", lambda v: 1.0), "rewards is a single value; expected a row"),
        (replace("episode_1/observations", lambda v: 1.0), "observations is a single value"),
        (flags("terminations", 0.5), "terminations holds 0.5 at step 2; expected 0 or 1"),
        (flags("truncations", np.nan), "truncations holds nan at step 2; expected 0 or 1"),
        (lambda file: group(file, "actions"), "actions is a group; expected an array"),
        (lambda file: file.__delitem__("episode_1/actions"), "episode 1: it has no 'actions'"),
        (lambda file: file.__delitem__("episode_1"), "episode 1: it does not exist"),
        (shorten("episode_1/infos/step", 2), "infos/step has 2 rows; expected 4"),
    ],
)
def test_defects_are_named_and_loading_refuses_them(dataset, change, expected):
    found = damaged(dataset, change)
    assert any(re.search(expected, text) for text in found), found
    if "infos" not in expected:  # which no agent reads
        with pytest.raises(UserError):
            OfflineDataset.from_minari(dataset)


@pytest.mark.parametrize("value", [9, -1, 0.5, np.nan])
def test_discrete_actions_are_of_their_space(minari_root, value):
    dataset = discrete(4)

    def change(file):
        actions = file["episode_0/actions"][()].astype(float)
        actions[1] = value
        del file["episode_0/actions"]
        file["episode_0/actions"] = actions

    (text,) = damaged(dataset, change)
    assert text == f"episode 0: actions holds {float(value)} at step 1; the space is Discrete(4)"
    with pytest.raises(UserError, match=r"actions holds .* at step 1; the space is Discrete"):
        OfflineDataset.from_minari(dataset)


def discrete(number):
    rng = np.random.default_rng(0)
    return write_minari(
        f"test/discrete{number}-v0",
        [random_episode(OBSERVATION, spaces.Discrete(number), 6, rng)],
        observation_space=OBSERVATION,
        action_space=spaces.Discrete(number),
        metadata={},
    )


@pytest.mark.parametrize(
    ("ends", "note"),
    [
        ((False, False), "the last step has no flag and is taken as truncated in 1 episode"),
        ((True, True), "both flags are set on the last step, which is taken as terminated, in 1"),
    ],
)
def test_a_note_is_no_defect(dataset, ends, note):
    def change(file):
        for key, value in zip(("terminations", "truncations"), ends):
            file[f"episode_1/{key}"][-1] = value

    assert damaged(dataset, change) == []
    (text,) = inspect_minari(dataset).notes
    assert text.startswith(note)
    assert text.endswith("(first: 1)")


def test_bad_values_in_infos(dataset):
    """Agents do not read infos: only those that tell a state or goal must be sound."""

    def change(file):
        for key in ("qpos", "reward_parts"):
            file[f"episode_1/infos/{key}"] = np.full((4, 2), np.nan)

    assert damaged(dataset, change) == ["episode 1: infos/qpos holds NaN or infinity at step 0"]
    (note,) = inspect_minari(dataset).notes
    assert note == "infos/reward_parts holds NaN or infinity in 1 episode (first: 1)"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"total_episodes": 1}, ["total_episodes is 1, main_data.hdf5 holds 2", "total_steps"]),
        ({"total_episodes": 3}, ["episode 2: it does not exist"]),
        ({"total_steps": 9}, ["metadata says total_steps is 9, the episodes hold 8"]),
        ({"total_episodes": 0, "total_steps": 0}, ["the dataset holds no episodes"]),
    ],
)
def test_wrong_counts(dataset, counts, expected):
    path = dataset.storage.data_path / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | counts))
    found = check_minari(open_minari("test/box-v0"))
    assert len(found) == len(expected)
    assert all(part in text for part, text in zip(expected, found))


def test_spaces_that_no_agent_takes_are_a_note(minari_root):
    space = spaces.Dict(image=OBSERVATION, words=spaces.Text(5))
    words = ["a", "b", "c", "d"]
    observations = {"image": np.zeros((4, 3)), "words": words}
    rng = np.random.default_rng(0)
    buffer = random_episode(OBSERVATION, BOX, 3, rng, observations=observations)
    dataset = write_minari(
        "test/odd-v0", [buffer], observation_space=space, action_space=BOX, metadata={}
    )
    findings = inspect_minari(dataset)
    assert findings.defects == []
    assert "only the goal keys" in findings.notes[0]


def test_one_cause_does_not_flood(minari_root):
    rng = np.random.default_rng(0)
    bad = {"rewards": np.full(3, np.nan)}
    many = write_minari(
        "test/many-v0",
        [random_episode(OBSERVATION, BOX, 3, rng, **bad) for _ in range(50)],
        observation_space=OBSERVATION,
        action_space=BOX,
        metadata={},
    )
    found = check_minari(many)
    assert len(found) == MOST_DEFECTS + 1
    assert "not listed" in found[-1]


@pytest.mark.parametrize("known", [(), (1,)])
def test_state_only(minari_root, known):
    """All actions NaN is what state_only means; a known one among them is a defect."""
    actions = np.full((4, 2), np.nan, np.float32)
    actions[list(known)] = 0.5
    rng = np.random.default_rng(0)
    episode = random_episode(OBSERVATION, BOX, 4, rng, actions=actions)
    states = write_minari(
        "test/states-v0",
        [episode],
        observation_space=OBSERVATION,
        action_space=BOX,
        metadata={"state_only": True},
    )
    assert [("step 1" in text) for text in check_minari(states)] == [True] * len(known)


def test_widths_of_the_environment(dataset, minari_root):
    env = gym.make("gcrl/Nav2D-v0")
    found = check_minari(dataset, env)
    assert found[-1].startswith("observations is Box of shape (3,)")
    rng = np.random.default_rng(0)
    goals = write_minari(
        "test/goals-v0",
        [random_episode(GOAL_SPACE, spaces.Discrete(5), 4, rng)],
        observation_space=GOAL_SPACE,
        action_space=spaces.Discrete(5),
        metadata={},
    )
    found = check_minari(goals, env)
    assert [text.split()[0] for text in found] == ["actions", "observations/observation"]


class Bounded(gym.Env):
    """Actions from -1 to 1; bounds of the observations that take several lines to print."""

    observation_space = spaces.Box(np.arange(12) - 9, np.arange(12) + 9, (12,), np.float64)
    action_space = spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(("value", "sound"), [(1.0000001, True), (-3.5, False), (np.nan, True)])
def test_bounds_of_the_environment(minari_root, value, sound):
    actions = np.zeros((4, 2))
    actions[2, 1] = value
    state_only = bool(np.isnan(value))
    if state_only:
        actions[:] = np.nan
    episode = random_episode(OBSERVATION, BOX, 4, np.random.default_rng(0), actions=actions)
    dataset = write_minari(
        "test/bounds-v0",
        [episode],
        observation_space=OBSERVATION,
        action_space=BOX,
        metadata={"state_only": state_only},
    )
    found = check_minari(dataset, Bounded())
    width = "observations is Box of shape (3,) (float64), but the environment has Box of shape (12"
    assert found.pop().startswith(width)
    bound = "episode 0: actions is -3.5 (column 1), below the environment's bound -1, at step 2"
    assert found == ([] if sound else [bound])


def test_number_of_actions_of_the_environment(minari_root):
    found = check_minari(discrete(4), gym.make("CartPole-v1"))
    assert "actions is Discrete(4), but the environment has Discrete(2)" in found
    assert any("above the environment's bound 1, at step" in text for text in found)


@pytest.mark.parametrize(
    "name", ["cartpole/mixed-v0", "pointmaze/umaze-v0", "cartpole/mixed-arrow-v0"]
)
def test_foreign_datasets_are_sound(real_data, monkeypatch, name):
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(real_data / "minari"))
    found = inspect_minari(minari.load_dataset(name))
    assert (found.defects, found.notes) == ([], [])
