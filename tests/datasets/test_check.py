"""``gcrl data check``: sound data passes, each defect is named with its place."""

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces

import gcrl_gym  # noqa: F401  (registers the environments)
from gcrl_gym.datasets import write_minari
from gcrl_gym.datasets.check import MOST_DEFECTS, check_minari
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


def shorten(key):
    def change(file):
        values = file[key][:-1]
        del file[key]
        file[key] = values

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_value("episode_1/observations", (2, 1), np.nan), "episode 1: observations holds NaN"),
        (set_value("episode_0/rewards", 4, np.inf), "rewards holds NaN or infinity at step 4"),
        (set_value("episode_0/actions", (0, 0), np.nan), "actions holds NaN or infinity at step 0"),
        (set_value("episode_0/truncations", 1, True), "truncations is set at step 1, before"),
        (shorten("episode_1/observations"), "observations has 3 rows; expected 4"),
        (shorten("episode_0/actions"), "actions has 4 rows; expected 5"),
        (shorten("episode_0/rewards"), "total_steps is 8, the episodes hold 7"),
    ],
)
def test_defects_are_named(dataset, change, expected):
    assert any(expected in text for text in damaged(dataset, change))


def test_an_episode_without_an_end(dataset):
    def change(file):
        for key in ("terminations", "truncations"):
            file[f"episode_1/{key}"][-1] = False

    (text,) = damaged(dataset, change)
    assert text == "episode 1: step 2, its last, is neither terminated nor truncated"


def test_unreadable_episodes(dataset):
    (text,) = damaged(dataset, lambda file: file["episode_1"].__delitem__("actions"))
    assert "cannot be read" in text


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
    (text,) = check_minari(dataset, env)
    assert text.startswith("observations is Box")
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
    assert check_minari(goals, gym.make("gcrl/Nav2DDiscrete-v0")) == found[1:]


@pytest.mark.parametrize("name", ["cartpole/mixed-v0", "pointmaze/umaze-v0"])
def test_foreign_datasets_are_sound(real_data, monkeypatch, name):
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(real_data / "minari"))
    assert check_minari(minari.load_dataset(name)) == []
