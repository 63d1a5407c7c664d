"""``gcrl data check`` of source files agrees with the converters."""

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym  # noqa: F401  (registers the environments)
from gcrl_gym.datasets.check_files import check_file, official_name
from gcrl_gym.datasets.d4rl_io import convert_d4rl
from gcrl_gym.datasets.ogbench_io import convert_ogbench
from gcrl_gym.errors import UserError
from tests.datasets.damage import put
from tests.datasets.test_d4rl import ANT, DOOR, MAZE, MEDIUM, REPLAY
from tests.datasets.test_repair_files import NPZ, changed_hdf5, changed_npz


@pytest.mark.parametrize("path", [ANT, DOOR, MAZE, MEDIUM, REPLAY, NPZ])
def test_excerpts_are_sound(path):
    found = check_file(path)
    assert (found.defects, found.notes) == ([], [])
    assert " episodes, " in found.facts


@pytest.mark.parametrize(
    "change", [lambda a: np.repeat(a, 2, 1), lambda a: a[:, :0], lambda a: a.astype(int)[:, 0]]
)
def test_npz_that_does_not_convert_is_not_sound(tmp_path, minari_root, change):
    path, _ = changed_npz(tmp_path, actions=change)
    with pytest.raises(UserError) as refused:
        convert_ogbench(path)
    assert check_file(path).defects == [str(refused.value)]


def test_hdf5_that_does_not_convert_is_not_sound(tmp_path, minari_root):
    path = changed_hdf5(tmp_path, REPLAY, actions=lambda a: a[:, :2])
    with pytest.raises(UserError, match="actions is 2 wide, but hopper has 3") as refused:
        convert_d4rl(path)
    assert check_file(path).defects == [str(refused.value)]


def test_an_unknown_name_is_a_note(tmp_path):
    for source in (NPZ, REPLAY):
        path = tmp_path / f"mine{source.suffix}"
        path.write_bytes(source.read_bytes())
        found = check_file(path)
        assert found.defects == []
        assert "tells no dataset" in found.notes[0]
        assert "--id" in found.notes[0]
    hopper, door = "d4rl/hopper-medium-replay-v2", "d4rl/door-human-v0"
    assert check_file(path, dataset_id=hopper).notes == []
    assert "is 11 wide, but door has 39" in check_file(path, dataset_id=door).defects[0]
    path = tmp_path / "mine.npz"
    maze = "ogbench/antmaze-large-navigate-v0"
    assert "antmaze-large has float32" in check_file(path, dataset_id=maze).defects[0]


@pytest.mark.parametrize("name", ["a.repaired.npz", "a.repaired.repaired.NPZ", "a.npz"])
def test_name_of_a_repaired_copy(tmp_path, name):
    assert official_name(tmp_path / name) == tmp_path / "a.npz"


def test_both_flags_are_a_note_as_the_conversion_has_one_reading(tmp_path, minari_root):
    path = changed_hdf5(tmp_path, REPLAY, timeouts=put(145, True))
    found = check_file(path)
    assert found.defects == []
    assert found.notes == [convert_d4rl(path).storage.metadata["report"]["repaired"][0]]


def test_a_single_row_is_named(tmp_path):
    path = changed_hdf5(tmp_path, DOOR, timeouts=put(50, True))
    (text,) = check_file(path).defects
    assert text.startswith("1 episode(s) of a single row (first: row 50)")


def test_infos_that_are_not_read_or_bad(tmp_path):
    path = changed_hdf5(
        tmp_path,
        REPLAY,
        **{
            "infos/qvel": lambda a: np.array([b"x"] * len(a)),
            "infos/qpos": put(8, np.nan),
            "infos/action_log_probs": put(9, -np.inf),
        },
    )
    found = check_file(path)
    assert found.defects == ["infos/qpos holds NaN or infinity (in float32) in row 8"]
    assert found.notes[0].startswith("infos/action_log_probs holds NaN")
    assert found.notes[1] == "no rows of numbers, so not read: 'infos/qvel'"


def test_unknown_keys_of_an_npz_are_noted(tmp_path):
    path, _ = changed_npz(tmp_path, extra=lambda a: np.zeros(3))
    assert check_file(path).notes == ["not read: 'extra'"]


# --------------------------------------------------------------------------------- environments


def test_npz_and_an_environment(tmp_path):
    env = gym.make("gcrl/Nav2D-v0")
    assert check_file(NPZ, env).defects == []
    path, _ = changed_npz(tmp_path, actions=put((4, 1), 1.5))
    assert check_file(path).defects == []
    (text,) = check_file(path, env).defects
    assert text == "actions is 1.5 (column 1), above the environment's bound 1, in row 4"
    found = check_file(NPZ, gym.make("gcrl/Nav2DDiscrete-v0")).defects
    assert found == ["actions is Box of shape (2,) (float32), but the environment has Discrete(5)"]


def table(tmp_path, *rows, head="observation_0,observation_1,action_0,action_1,terminated"):
    path = tmp_path / "a.csv"
    path.write_text("\n".join((head, *rows)) + "\n")
    return path


def test_csv(tmp_path):
    path = table(tmp_path, "0,0,0.5,1,0", "1,0,0.5,-1,1", "0,0,0,0.2,1")
    env = gym.make("gcrl/Nav2D-v0")
    found = check_file(path, env)
    assert (found.defects, found.facts) == ([], "2 episodes, 3 steps")
    path = table(tmp_path, "0,0,0.5,1,0", "1,0,0.5,-1,1", "0,0,0,-7,1")
    assert check_file(path).defects == []
    (text,) = check_file(path, env).defects
    assert text.endswith("(column 1), below the environment's bound -1, in episode 1 at step 0")
    path = table(tmp_path, "0,0,0.5,nan,1")
    (text,) = check_file(path).defects
    assert "a.csv" in text


def test_discrete_csv(tmp_path):
    head = "observation_0,observation_1,observation_2,observation_3,action,terminated"
    env = gym.make("CartPole-v1")
    assert check_file(table(tmp_path, "0,1,1,1,0,0", "1,1,1,1,0,1", head=head), env).defects == []
    (text,) = check_file(table(tmp_path, "0,1,1,1,7,1", head=head), env).defects
    assert text == "actions is 7, above the environment's bound 1, in episode 0 at step 0"
