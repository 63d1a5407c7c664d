"""D4RL files: transitions equal D4RL's own functions', and damage is one clear error."""

import hashlib
import shutil

import h5py
import numpy as np
import pytest

import gcrl_gym
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.d4rl_catalog import FAMILIES
from gcrl_gym.datasets.d4rl_io import convert_d4rl
from gcrl_gym.errors import UserError

from .conftest import EXCERPTS

FOLDER = EXCERPTS / "d4rl"
REPLAY = FOLDER / "hopper_medium_replay-v2.hdf5"
MEDIUM = FOLDER / "hopper_medium-v2.hdf5"
DOOR = FOLDER / "door-v0_demos_clipped.hdf5"
MAZE = FOLDER / "maze2d-umaze-sparse-v1.hdf5"
ANT = FOLDER / "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5"
IDS = {
    "d4rl/hopper-medium-replay-v2": REPLAY,
    "d4rl/hopper-medium-v2": MEDIUM,
    "d4rl/door-human-v0": DOOR,
    "d4rl/maze2d-umaze-v1": MAZE,
    "d4rl/antmaze-umaze-v2": ANT,
}


def read_all(path):
    with h5py.File(path) as file:
        found = {}
        file.visititems(
            lambda key, item: found.update({key: item[()]}) if hasattr(item, "dtype") else None
        )
    return found


def edit(path, changes):
    """Rewrite a file with some arrays replaced, or left out where None."""
    arrays = {**read_all(path), **changes}
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            if array is not None:
                file[key] = array
    return path


def qlearning_dataset(path):
    """D4RL's function of this name, as its documentation tells it (terminate_on_end=False)."""
    raw = read_all(path)
    kept = {key: [] for key in ("observations", "actions", "next", "rewards", "terminals")}
    for row in range(len(raw["rewards"]) - 1):
        if raw["timeouts"][row]:
            continue
        kept["observations"].append(raw["observations"][row])
        kept["next"].append(raw["observations"][row + 1])
        kept["actions"].append(raw["actions"][row])
        kept["rewards"].append(raw["rewards"][row])
        kept["terminals"].append(bool(raw["terminals"][row]))
    return {key: np.array(value) for key, value in kept.items()}


def sequence_lengths(path):
    """Lengths of the trajectories of D4RL's sequence_dataset: cut at ends, open tail dropped."""
    raw = read_all(path)
    ends = np.flatnonzero((raw["terminals"] > 0) | (raw["timeouts"] > 0))
    return np.diff(ends, prepend=-1).tolist()


def compare_with_d4rl(path):
    """Compare a file without wrong flags with qlearning_dataset, row by row."""
    raw, theirs = read_all(path), qlearning_dataset(path)
    data = OfflineDataset.from_minari(convert_d4rl(path))
    steps = data.step_rows
    ours = {
        "observations": data.observations[steps],
        "next": data.observations[steps + 1],
        "actions": data.actions[steps],
        "rewards": data.rewards[steps],
        "terminals": data.terminated[steps],
    }
    rows = np.arange(len(raw["rewards"]))
    if "next_observations" in raw:  # then we keep every row, D4RL all but these
        same = (raw["timeouts"] == 0) & (rows < len(rows) - 1)
        assert len(steps) == len(rows)
        ours = {key: value[same] for key, value in ours.items()}
    for key, array in theirs.items():
        if key == "next":  # D4RL takes the first state of the next episode after a terminal
            going_on = ~theirs["terminals"]
            np.testing.assert_array_equal(
                ours[key][going_on], array[going_on].astype(np.float32), key
            )
        else:
            np.testing.assert_array_equal(ours[key], array.astype(ours[key].dtype), key)
    return data


@pytest.mark.parametrize("path", [REPLAY, MEDIUM, DOOR], ids=lambda path: path.stem)
def test_transitions_equal_d4rls(minari_root, path):
    data = compare_with_d4rl(path)
    shorter = 0 if path != DOOR else 1
    lengths = [length - shorter for length in sequence_lengths(path)]
    assert data.columns.lengths[:-1].tolist() == lengths  # the last one is the open tail


@pytest.mark.parametrize("path", [REPLAY, MEDIUM], ids=lambda path: path.stem)
def test_last_observations_are_the_true_ones(minari_root, path):
    raw = read_all(path)
    data = OfflineDataset.from_minari(convert_d4rl(path))
    steps = data.step_rows
    np.testing.assert_array_equal(
        data.observations[steps + 1], raw["next_observations"].astype(np.float32)
    )


def test_flags_infos_and_metadata(minari_root):
    raw, dataset = read_all(REPLAY), convert_d4rl(REPLAY)
    assert dataset.id == "d4rl/hopper-medium-replay-v2"
    episodes = list(dataset.iterate_episodes())
    assert [len(e.actions) for e in episodes] == [146, 288, 66]
    assert [bool(e.terminations[-1]) for e in episodes] == [True, True, False]
    assert [bool(e.truncations[-1]) for e in episodes] == [False, False, True]
    assert sum(int(e.terminations.sum() + e.truncations.sum()) for e in episodes) == 3
    for key in ("qpos", "qvel", "action_log_probs"):
        infos = [e.infos[key] for e in episodes]
        for info in infos:
            np.testing.assert_array_equal(info[-1], info[-2])
        joined = np.concatenate([info[:-1] for info in infos])
        np.testing.assert_array_equal(joined, raw[f"infos/{key}"])
    assert episodes[0].rewards.dtype == episodes[0].observations.dtype == np.float64
    metadata = dataset.storage.metadata
    assert metadata["source_sha256"] == hashlib.sha256(REPLAY.read_bytes()).hexdigest()
    assert metadata["official"] is False
    assert (metadata["family"], metadata["horizon"]) == ("locomotion", 1000)
    assert (metadata["ref_min_score"], metadata["ref_max_score"]) == (-20.272305, 3234.3)
    assert "Hopper-v5" in metadata["evaluation"]
    report = metadata["report"]
    assert (report["episodes"], report["transitions"]) == (3, 500)
    assert report["repaired"] == [
        "the file ends in the middle of an episode: its 66 rows (from 434) are kept as a truncated "
        "one"
    ]
    assert report["dropped"] == ["keys that are no rows: metadata"]


def test_open_tail_can_be_dropped(minari_root):
    dataset = convert_d4rl(REPLAY, open_tail="drop")
    assert (dataset.total_episodes, dataset.total_steps) == (2, 434)
    assert "its 66 rows (from 434)" in dataset.storage.metadata["report"]["dropped"][0]
    with pytest.raises(UserError, match="choose 'keep' or 'drop'"):
        convert_d4rl(REPLAY, open_tail="cut")


def test_a_tail_of_one_row_is_dropped(minari_root, tmp_path):
    path = shutil.copy(DOOR, tmp_path)
    edit(path, {key: array[:351] for key, array in read_all(path).items()})
    dataset = convert_d4rl(path)
    assert dataset.total_episodes == 2
    assert "its 1 rows (from 350)" in str(dataset.storage.metadata["report"]["dropped"])


def test_maze2d_is_one_run_with_its_goals_kept(minari_root):
    raw, dataset = read_all(MAZE), convert_d4rl(MAZE)
    assert raw["timeouts"].sum() > 3
    (episode,) = dataset.iterate_episodes()
    np.testing.assert_array_equal(episode.observations, raw["observations"])
    np.testing.assert_array_equal(episode.actions, raw["actions"][:-1])
    np.testing.assert_array_equal(episode.rewards, raw["rewards"][:-1])
    np.testing.assert_array_equal(episode.infos["goal"], raw["infos/goal"])
    assert np.flatnonzero(episode.truncations).tolist() == [398]
    assert not episode.terminations.any()
    assert dataset.storage.metadata["official"] is None  # no checksum is published
    # Nor does an end that is not wanted drop it.
    assert convert_d4rl(MAZE, open_tail="drop", overwrite=True).total_episodes == 1


def test_maze2d_is_cut_where_the_state_jumps(minari_root, tmp_path):
    raw = read_all(MAZE)
    raw["observations"][120:, :2] += 1.0
    path = edit(shutil.copy(MAZE, tmp_path), raw)
    dataset = convert_d4rl(path)
    assert [len(e.actions) for e in dataset.iterate_episodes()] == [119, 279]
    assert "first: row 119" in dataset.storage.metadata["report"]["repaired"][0]


def test_antmaze_goes_on_after_success(minari_root):
    raw, dataset = read_all(ANT), convert_d4rl(ANT)
    first, second = dataset.iterate_episodes()
    assert len(first.actions) == 52  # the action of the timeout's row is dropped
    np.testing.assert_array_equal(second.observations, raw["observations"][53:])
    marks = raw["terminals"][53:-1] > 0
    assert marks.sum() > 3
    np.testing.assert_array_equal(second.terminations, marks)
    np.testing.assert_array_equal(second.rewards, raw["rewards"][53:-1])
    assert first.truncations[-1]
    assert not marks[-1]


@pytest.mark.parametrize(
    ("path", "name"),
    [(MAZE, "d4rl/maze2d-umaze-goal-v1"), (ANT, "d4rl/antmaze-umaze-goal-v2")],
)
@pytest.mark.parametrize("by", ["keyword", "id", "both"])
def test_goals_on_request(minari_root, path, name, by):
    plain_id = name.replace("-goal", "")
    dataset_id = {"keyword": None, "id": name, "both": plain_id}[by]
    dataset = convert_d4rl(path, dataset_id, goals=by != "id")
    assert dataset.id == name
    raw, plain = read_all(path), OfflineDataset.from_minari(convert_d4rl(path))
    data = OfflineDataset.from_minari(dataset)
    np.testing.assert_array_equal(data.observations, plain.observations)
    np.testing.assert_array_equal(data.achieved_goals, plain.observations[:, :2])
    np.testing.assert_array_equal(data.desired_goals, raw["infos/goal"])
    assert plain.goal_dim == 0


def test_goals_need_infos(minari_root, tmp_path):
    with pytest.raises(UserError, match="hopper-medium-v2 has no goals"):
        convert_d4rl(MEDIUM, goals=True)
    path = edit(shutil.copy(MAZE, tmp_path), {"infos/goal": None})
    with pytest.raises(UserError, match="infos/goal is missing"):
        convert_d4rl(path, goals=True)
    goal = read_all(MAZE)["infos/goal"]
    goal[7] = np.nan
    with pytest.raises(UserError, match="infos/goal holds NaN or infinity in row 7"):
        convert_d4rl(edit(path, {"infos/goal": goal}), goals=True)


# --------------------------------------------------------------------------- layouts of the files


def test_columns_and_float_flags(minari_root, tmp_path):
    wanted = OfflineDataset.from_minari(convert_d4rl(DOOR))
    raw, column = read_all(DOOR), {}
    for key in ("rewards", "terminals", "timeouts"):
        column[key] = raw[key].astype(np.float64)[:, None]
    column |= {key: raw[key].astype(np.float64) for key in ("observations", "actions")}
    path = edit(shutil.copy(DOOR, tmp_path), column)
    data = OfflineDataset.from_minari(convert_d4rl(path, overwrite=True))
    np.testing.assert_array_equal(data.columns.rows, wanted.columns.rows)


def synthetic(path, env, rows, **changes):
    """Write a file of a family that has no excerpt: a smooth walk with resets where it ends."""
    rng = np.random.default_rng(0)
    width, actions = FAMILIES[env].widths
    ends = changes.pop("ends")
    speed = rng.uniform(0.01, 0.02, width)
    observations = np.cumsum(np.tile(speed, (rows, 1)), axis=0)
    for row in ends:
        observations[row + 1 :] += rng.uniform(1, 2, width)
    arrays = {
        "observations": observations.astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, actions)).astype(np.float32),
        "rewards": rng.uniform(size=rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        **changes,
    }
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array
    return path


def at(rows, *where):
    flags = np.zeros(rows, np.float32)
    flags[list(where)] = 1
    return flags


def test_kitchen(minari_root, tmp_path):
    path = tmp_path / "kitchen_microwave_kettle_light_slider-v0.hdf5"
    demo = np.repeat([0, 1], [40, 50])
    synthetic(path, "kitchen", 90, ends=[39], terminals=at(90, 39, 89), infos=demo)
    dataset = convert_d4rl(path)
    assert dataset.id == "d4rl/kitchen-partial-v0"
    first, second = dataset.iterate_episodes()
    assert (len(first.actions), len(second.actions)) == (40, 50)
    assert first.terminations[-1]
    assert second.terminations[-1]
    np.testing.assert_array_equal(first.infos["demo"], np.zeros(41))
    np.testing.assert_array_equal(first.observations[-1], first.observations[-2])
    metadata = dataset.storage.metadata
    assert metadata["official"] is None
    assert "their last state is not stored" in str(metadata["report"]["dropped"])
    tasks = ["microwave", "kettle", "light switch", "slide cabinet"]
    assert dataset.env_spec.kwargs == {"tasks": tasks}
    assert dataset.env_spec.max_episode_steps == 280
    assert "60 kitchen observations" in metadata["evaluation"]


def test_locomotion_v0_without_timeouts(minari_root, tmp_path):
    path = tmp_path / "halfcheetah_random.hdf5"
    synthetic(path, "halfcheetah", 2400, ends=[999])
    dataset = convert_d4rl(path)  # one end shows in the states, the next in the time limit only
    assert dataset.id == "d4rl/halfcheetah-random-v0"
    assert [len(e.actions) for e in dataset.iterate_episodes()] == [999, 999, 399]
    repaired = dataset.storage.metadata["report"]["repaired"]
    assert "1 end (first: row 999) without a flag" in repaired[0]
    assert "1 end (first: row 1999) added after 1000 rows, the time limit" in repaired[1]


@pytest.mark.parametrize("beside", [-1, 1])
def test_flags_out_of_step_are_moved(minari_root, tmp_path, beside):
    path = tmp_path / ANT.name.replace("_fixed", "")
    synthetic(path, "antmaze", 300, ends=[99, 199], timeouts=at(300, 99 + beside, 199, 299))
    dataset = convert_d4rl(path)
    assert dataset.id == "d4rl/antmaze-umaze-v0"
    assert [len(e.actions) for e in dataset.iterate_episodes()] == [99, 99, 99]
    assert dataset.storage.metadata["report"]["repaired"] == [
        f"1 end (first: row {99 + beside}) moved by one row to where the state jumps"
    ]


def test_both_flags_at_once(minari_root, tmp_path):
    raw = read_all(REPLAY)
    raw["timeouts"][145] = True
    dataset = convert_d4rl(edit(shutil.copy(REPLAY, tmp_path), raw))
    first = dataset[0]
    assert first.terminations[-1]
    assert not first.truncations.any()
    assert "(first: row 145)" in dataset.storage.metadata["report"]["repaired"][0]


def test_next_observations_show_an_end_without_a_flag(minari_root, tmp_path):
    raw = read_all(MEDIUM)
    raw["timeouts"][99] = False
    dataset = convert_d4rl(edit(shutil.copy(MEDIUM, tmp_path), raw))
    first = dataset[0]
    assert first.truncations[-1]
    np.testing.assert_array_equal(first.observations[-1], raw["next_observations"][99])
    assert "without a flag added" in dataset.storage.metadata["report"]["repaired"][0]


def test_episodes_of_one_row_are_dropped(minari_root, tmp_path):
    raw = read_all(DOOR)
    raw["timeouts"][[100, 101]] = True
    dataset = convert_d4rl(edit(shutil.copy(DOOR, tmp_path), raw))
    assert [len(e.actions) for e in dataset.iterate_episodes()] == [49, 50, 247, 49]
    assert "1 episodes of a single row (first: 101)" in str(dataset.storage.metadata["report"])


# -------------------------------------------------------------------------------------- full files


@pytest.mark.parametrize(
    ("name", "episodes", "steps", "terminated"),
    [
        ("d4rl/hopper-medium-replay-v2", 295, 100000, 292),
        ("d4rl/hopper-medium-v2", 123, 50000, 120),
        ("d4rl/door-human-v0", 25, 6704, 0),
        ("d4rl/maze2d-umaze-v1", 1, 99999, 0),
        ("d4rl/antmaze-umaze-v2", 29, 19971, 61),
        ("d4rl/antmaze-umaze-goal-v2", 29, 19971, 61),
    ],
)
def test_full_files(minari_root, real_data, name, episodes, steps, terminated):
    dataset = gcrl_gym.load_dataset(name, data_dir=real_data)
    data = OfflineDataset.from_minari(dataset)
    assert (data.num_episodes, data.num_steps) == (episodes, steps)
    assert data.terminated.sum() == terminated
    assert dataset.storage.metadata["official"] is not True
    repaired = dataset.storage.metadata["report"]["repaired"]
    assert all("are kept as a truncated one" in text for text in repaired)


@pytest.mark.parametrize("path", [REPLAY, MEDIUM, DOOR], ids=lambda path: path.stem)
def test_full_files_equal_d4rls(minari_root, real_data, path):
    compare_with_d4rl(real_data / "d4rl" / path.name)
