"""CSV files: the same data as from arrays, and errors that name file, line and column."""

import numpy as np
import pytest

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
        ([HEADER, "0,nan,0,0,1,0"], r"observations\[0\] holds nan"),
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
