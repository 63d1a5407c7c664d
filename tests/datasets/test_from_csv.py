"""CSV files: the same data as from arrays, and errors that name file, line and column."""

import numpy as np
import pytest
from gymnasium import spaces

from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.errors import UserError

HEADER = "observation_0,observation_1,action_0,reward,terminated,truncated"
ROWS = ["0,10,0.5,0,0,0", "1,11,-0.5,1,true,false", "2,12,0.25,0,0,0", "3,13,0,0,0,1"]


def write(tmp_path, *lines):
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_equals_the_arrays(tmp_path):
    data = OfflineDataset.from_csv(write(tmp_path, HEADER, *ROWS))
    same = OfflineDataset.from_arrays(
        [[0, 10], [1, 11], [2, 12], [3, 13.0]],
        [[0.5], [-0.5], [0.25], [0]],
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
    )
    np.testing.assert_array_equal(data.columns.rows, same.columns.rows)
    np.testing.assert_array_equal(data.columns.lengths, [2, 1])


def test_episode_numbers_next_observations_and_discrete_actions(tmp_path):
    path = write(
        tmp_path,
        "episode,next_observation_0,observation_0,action,terminated",
        "7,1,0,3,0",
        "7,2,1,0,1",
        "9,6,5,1,0",
    )
    data = OfflineDataset.from_csv(path)
    assert data.actions.dtype == np.int64
    np.testing.assert_array_equal(data.observations[:, 0], [0, 1, 2, 5, 6])
    np.testing.assert_array_equal(data.actions, [3, 0, 0, 1, 0])
    np.testing.assert_array_equal(data.terminated, [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(data.episode_end, [2, 2, 2, 4, 4])


def test_own_names_and_goals(tmp_path):
    path = write(tmp_path, "x,u,at,to,done", "0,1,5,9,0", "1,2,6,9,1")
    names = {"observations": ["x"], "actions": ["u"], "terminated": "done"}
    goals = {"achieved_goals": "at", "desired_goals": ["to"]}
    data = OfflineDataset.from_csv(path, names | goals)
    np.testing.assert_array_equal(data.achieved_goals[:, 0], [5, 6, 6])
    np.testing.assert_array_equal(data.desired_goals[:, 0], [9, 9, 9])
    assert data.actions.dtype == np.float32


def test_columns_are_ordered_by_number(tmp_path):
    names = [f"observation_{n}" for n in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)]
    path = write(
        tmp_path, ",".join([*names, "action_0", "terminated"]), "10,2,0,1,3,4,5,6,7,8,9,0,1"
    )
    np.testing.assert_array_equal(OfflineDataset.from_csv(path).observations[0], np.arange(11))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "is empty"),
        ([HEADER], "no rows"),
        ([HEADER, "0,1,oops,0,0,1"], r"line 2.*oops"),
        ([HEADER, ROWS[0], "0,1,2,0,0"], "line 3"),
        ([HEADER, "0,nan,0,0,1,0"], "line 2: observation_1 holds nan"),
        (["a,b", "1,2"], r"observation_0.*it has a, b"),
        (["observation_0,observation_0,action_0", "1,2,3"], "twice"),
        ([HEADER, *ROWS[:3]], "neither terminated nor truncated"),
        (["episode,observation_0,action_0", "1,0,0", "1,1,0", "2,0,0", "2,0,0", "1,2,0"], "line 6"),
    ],
)
def test_bad_files(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        OfflineDataset.from_csv(write(tmp_path, *lines))


def test_bad_names(tmp_path):
    path = write(tmp_path, HEADER, *ROWS)
    with pytest.raises(UserError, match=r"no column 'observation_2'.*Did you mean"):
        OfflineDataset.from_csv(path, {"observations": ["observation_2"]})
    with pytest.raises(UserError, match=r"no part 'observation'.*Did you mean 'observations'"):
        OfflineDataset.from_csv(path, {"observation": ["observation_0"]})
    with pytest.raises(UserError, match="does not exist"):
        OfflineDataset.from_csv(tmp_path / "none.csv")


# ------------------------------------------------------------------------------- damage and habits

NARROW = "observation_0,action_0,reward,terminated,truncated"
STEPS = ["0,0.5,1,0,0", "1,0.5,1,0,0", "2,0.5,1,0,1"]
DISCRETE = "observation_0,action,truncated"


def save(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode(encoding))
    return path


def refuse(message, path, *args, **keywords):
    """Expect one line that names the file, without numpy's own text."""
    with pytest.raises(UserError, match=message) as caught:
        OfflineDataset.from_csv(path, *args, **keywords)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert "could not convert" not in text


FILES = {
    "part flag": (
        [NARROW, STEPS[0], "1,0.5,1,0.3,0", STEPS[2]],
        "line 3: terminated is 0.3; a flag",
    ),
    "flag 2": ([NARROW, STEPS[0], "1,0.5,1,0,2", STEPS[2]], "line 3: truncated is 2"),
    "negative": ([DISCRETE, "0,1,0", "1,-7,0", "1,0,1"], "line 3: actions is -7"),
    "large": ([DISCRETE, "0,1,0", "1,1e30,0", "1,0,1"], r"line 3: action is 1e\+30; .* whole"),
    "half": ([DISCRETE, "0,1,0", "1,0.5,0", "1,0,1"], "line 3: action is 0.5; .* 'action_0' for"),
    "rewards": (
        [NARROW.replace("reward", "rewards"), *STEPS],
        "unknown column 'rewards', perhaps 'r",
    ),
    "Reward": ([NARROW.replace("reward", "Reward"), *STEPS], "'Reward', perhaps 'reward'"),
    "done": (
        [NARROW.replace("terminated", "done"), *STEPS],
        r"'done', perhaps 'terminated'; rename it or pass columns=\{'terminated': 'done'\}",
    ),
    "obs": (["obs_0,action_0,truncated", "0,1,0", "1,1,1"], "'obs_0', perhaps 'observation_0'"),
    "episode id": (["episode_id," + NARROW, *(f"0,{row}" for row in STEPS)], "perhaps 'episode'"),
    "gap": (
        ["observation_0,observation_2,action_0,truncated", "0,1,0,0", "1,1,0,1"],
        "has the column 'observation_2' but no 'observation_1'",
    ),
    "from 1": (
        ["observation_1,observation_2,action_0,truncated", "0,1,0,0", "1,1,0,1"],
        "has the column 'observation_1' but no 'observation_0'; number",
    ),
    "semicolon rows": (["observation_0;action_0", "0;1"], "are its cells separated by commas"),
    "nan": ([NARROW, "", "# note", "0,0.5,nan,0,1"], "line 4: reward holds nan; every cell"),
    "inf": ([NARROW, STEPS[0], "1,0.5,-inf,0,1"], "line 3: reward holds -inf"),
    "too large": ([NARROW, STEPS[0], "1,1e200,1,1,0"], "line 3: actions holds inf"),
    "no end": (
        [NARROW, "# a", STEPS[0], "", STEPS[1]],
        "data.csv: line 5, the last one, is neither",
    ),
    "text": ([NARROW, "", "0,oops,0,0,1"], "line 3: action_0 holds 'oops'; every cell"),
    "empty cell": ([NARROW, STEPS[0], "1,,0,0,1"], "line 3: action_0 holds ''"),
    "cut short": ([NARROW, *STEPS[:2], "2,0."], r"line 4 has 2 cells .* 5 columns \(the last line"),
    "long row": ([NARROW, "0,1,2,3,4,5", *STEPS], "line 2 has 6 cells but the header names 5 col"),
    "long rows": ([NARROW, *(row + ",0" for row in STEPS)], "line 2 has 6 cells"),
    "single frame": (
        ["episode," + NARROW, "0," + STEPS[0], "0," + STEPS[1], "1," + STEPS[2]],
        "data.csv: line 4 is an episode of its own",
    ),
    "next": (
        ["next_observation_0," + NARROW, "1," + STEPS[0], "", "5," + STEPS[1], "3," + STEPS[2]],
        "line 4: next_observations differs from the observations of line 5 although line 4",
    ),
    "one goal": (
        ["achieved_goal_0," + NARROW, "1," + STEPS[2]],
        "data.csv: achieved_goals is given",
    ),
    "episode again": (
        ["episode," + NARROW, "0," + STEPS[0], "1," + STEPS[1], "#", "0," + STEPS[2]],
        "line 5: episode 0 comes back",
    ),
    "no header": ([STEPS[0].replace("0.5", "7"), STEPS[1]], "line 1 holds numbers only"),
    "commented header": (["# " + NARROW, *STEPS], r"line 2 holds numbers only; .* \(without a #"),
    "pointer": (["version https://git-lfs.github.com/spec/v1", "oid sha256:0"], "Git LFS pointer"),
    "page": (
        ["<!DOCTYPE html><title>Sign in</title>"],
        r"is a web page \(HTML\) \('Sign in'\), not",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files(tmp_path, case):
    lines, message = FILES[case]
    path = save(tmp_path, "\n".join(lines) + "\n")
    refuse(message, path)


def test_a_file_that_is_not_utf8(tmp_path):
    path = save(tmp_path, "\n".join([NARROW, *STEPS]), "utf-16")
    refuse("not UTF-8 text", path)
    refuse("does not exist", tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_file_from_a_spreadsheet(tmp_path, encoding, newline):
    path = save(tmp_path, newline.join([NARROW, "", *STEPS, "# end", ""]), encoding)
    data = OfflineDataset.from_csv(path)
    assert data.observations[:, 0].tolist() == [0, 1, 2]
    assert data.rewards.tolist() == [1, 1, 0]


def test_other_columns_are_named_and_may_hold_anything(tmp_path):
    rows = [f"{row},{note},{n}" for n, (row, note) in enumerate(zip(STEPS, ["a", '"b, c"', ""]))]
    path = save(tmp_path, "\n".join([NARROW + ",note,observations_1", *rows]))
    match = r"not read: 'note', 'observations_1' \(nearest: 'observation_1'\); name them"
    with pytest.warns(UserWarning, match=match) as caught:
        data = OfflineDataset.from_csv(path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert data.observations.shape == (3, 1)


def test_both_flags_in_a_file(tmp_path):
    path = save(tmp_path, "\n".join([NARROW, "#", *STEPS[:2], "2,0.5,1,True,TRUE", ""]))
    with pytest.warns(UserWarning, match=r"data.csv: 1 row is both .* \(first: line 5\)") as caught:
        data = OfflineDataset.from_csv(path)
    assert len(caught) == 1
    assert data.terminated.tolist() == [0, 0, 1, 0]


def test_spaces_of_a_file(tmp_path):
    path = save(tmp_path, "\n".join([DISCRETE, "0,1,0", "1,7,0", "2,0,1"]))
    box, two, many = spaces.Box(-9, 9, (1,)), spaces.Discrete(2), spaces.Discrete(8)
    assert OfflineDataset.from_csv(path, action_space=box).actions.shape == (3, 1)
    assert OfflineDataset.from_csv(path, action_space=many).actions.tolist() == [1, 7, 0]
    refuse("line 3: actions is 7; .* 0 to 1", path, action_space=two)
    wide = spaces.Box(-9, 9, (2,))
    refuse(r"data.csv: actions .*\(N, 2\)", path, action_space=wide)
    named = {"observations": "action", "actions": "observation_0"}
    data = OfflineDataset.from_csv(path, named, action_space=spaces.Discrete(3))
    assert data.actions.tolist() == [0, 1, 0]


def test_a_part_of_one_column(tmp_path):
    path = save(tmp_path, "\n".join([NARROW, *STEPS]))
    names = {"rewards": ["reward", "action_0"]}
    with pytest.raises(UserError, match=r"'rewards' .* is one column only"):
        OfflineDataset.from_csv(path, names)


def test_empty_columns_of_a_spreadsheet(tmp_path, recwarn):
    path = save(tmp_path, "\n".join(f"{line},," for line in [NARROW, *STEPS]))
    assert OfflineDataset.from_csv(path).num_steps == 2
    assert len(recwarn) == 0
