import numpy as np
import pytest
from gymnasium import spaces

from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.errors import UserError

# Two episodes, T = 3 (terminated) and T = 2 (truncated), as flat transitions.
OBSERVATIONS = np.array([[0.0], [1], [2], [10], [11]])
NEXT = np.array([[1.0], [2], [3], [11], [12]])
ACTIONS = np.array([[0.5, 0], [0.5, 1], [0.5, 2], [0.5, 10], [0.5, 11]])
REWARDS = np.array([0.0, 0, 1, 2, 3])
TERMINATED = np.array([0, 0, 1, 0, 0], bool)
TRUNCATED = np.array([0, 0, 0, 0, 1], bool)
FLAT = (OBSERVATIONS, ACTIONS, REWARDS, TERMINATED, TRUNCATED)


def test_rows_with_next_observations():
    data = OfflineDataset.from_arrays(*FLAT, next_observations=NEXT)
    assert data.observations[:, 0].tolist() == [0, 1, 2, 3, 10, 11, 12]
    assert data.actions[:, 1].tolist() == [0, 1, 2, 0, 10, 11, 0]
    assert data.rewards.tolist() == [0, 0, 1, 0, 2, 3, 0]
    assert data.terminated.tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert data.terminated.dtype == bool
    assert data.episode_end.tolist() == [3, 3, 3, 3, 6, 6, 6]
    assert data.step_rows.tolist() == [0, 1, 2, 4, 5]
    assert (data.num_rows, data.num_steps, data.num_episodes, data.goal_dim) == (7, 5, 2, 0)
    assert data.achieved_goals is None
    assert data.desired_goals is None


def test_rows_without_next_observations():
    """The truncated row becomes the last state; the terminated transition is kept."""
    data = OfflineDataset.from_arrays(*FLAT)
    assert data.observations[:, 0].tolist() == [0, 1, 2, 2, 10, 11]
    assert data.actions[:, 1].tolist() == [0, 1, 2, 0, 10, 0]
    assert data.rewards.tolist() == [0, 0, 1, 0, 2, 0]
    assert data.terminated.tolist() == [0, 0, 1, 0, 0, 0]
    assert data.episode_end.tolist() == [3, 3, 3, 3, 5, 5]


def test_goals_in_arrays_follow_the_states():
    goals = OBSERVATIONS.repeat(2, axis=1)
    data = OfflineDataset.from_arrays(*FLAT, achieved_goals=goals, desired_goals=goals + 100)
    assert data.goal_dim == 2
    np.testing.assert_array_equal(data.achieved_goals, data.observations.repeat(2, axis=1))
    np.testing.assert_array_equal(data.desired_goals, data.achieved_goals + 100)


def test_float_columns_are_float32_views_of_one_matrix():
    data = OfflineDataset.from_arrays(*FLAT)
    for column in (data.observations, data.actions, data.rewards):
        assert column.dtype == np.float32
        assert np.shares_memory(column, data.columns.rows)
    assert data.columns.rows.flags.c_contiguous


def test_integer_columns_keep_their_dtype():
    images = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    data = OfflineDataset.from_arrays(images, np.array([0, 1, 2, 3, 4]), None, None, TRUNCATED)
    assert data.observations.dtype == np.uint8
    np.testing.assert_array_equal(data.observations, images)
    assert data.actions.dtype == np.int64
    assert data.actions.tolist() == [0, 1, 2, 3, 0]
    assert data.action_space == spaces.Discrete(4)
    assert data.observation_space == spaces.Box(0, 255, (4, 4, 3), np.uint8)


def test_goal_is_observation_aliases_the_observations():
    data = OfflineDataset.from_arrays(*FLAT, goal_is_observation=True)
    assert np.shares_memory(data.achieved_goals, data.observations)
    assert data.goal_dim == 1


def test_from_episodes_with_goal_observations():
    episode = {
        "observations": {
            "observation": np.arange(4.0)[:, None],
            "achieved_goal": np.arange(8.0).reshape(4, 2),
            "desired_goal": np.ones((4, 2)),
        },
        "actions": np.array([1, 2, 3]),
        "rewards": [0, 0, 1],
        "terminations": [0, 0, 1],
    }
    data = OfflineDataset.from_episodes([episode, episode])
    assert data.num_episodes == 2
    assert data.achieved_goals[:, 1].tolist() == [1, 3, 5, 7, 1, 3, 5, 7]
    assert data.desired_goals.shape == (8, 2)
    assert data.actions.tolist() == [1, 2, 3, 0, 1, 2, 3, 0]
    assert data.terminated.tolist() == [0, 0, 1, 0, 0, 0, 1, 0]


def test_describe_names_the_numbers():
    text = OfflineDataset.from_arrays(*FLAT).describe()
    assert text.startswith("2 episodes, 4 transitions (lengths 1-3)")


def with_value(array, index, value):
    changed = np.array(array, float)
    changed[index] = value
    return changed


BAD_ARRAYS = {
    "empty": ({"observations": np.zeros((0, 1)), "actions": np.zeros((0, 2))}, "is empty"),
    "short actions": ({"actions": ACTIONS[:4]}, r"actions has shape \(4, 2\); expected 5 rows"),
    "short rewards": ({"rewards": REWARDS[:4]}, r"rewards has shape \(4,\); expected \(5,\)"),
    "wide rewards": ({"rewards": np.zeros((5, 2))}, r"rewards has shape \(5, 2\)"),
    "flat actions": ({"actions": ACTIONS[:, 0]}, r"expected \(N, action width\)"),
    "two integers": ({"actions": ACTIONS.astype(int)}, "one integer per row"),
    "objects": ({"observations": np.array([None] * 5)}, "observations has dtype object"),
    "ragged": ({"observations": [[1], [1, 2], [3], [4], [5]]}, "observations is ragged"),
    "no end": ({"truncated": None}, "row 4, the last one"),
    "nan": ({"rewards": with_value(REWARDS, 3, np.nan)}, r"rewards\[3\] holds nan"),
    "inf": ({"actions": with_value(ACTIONS, (3, 1), np.inf)}, r"actions\[3\] holds inf"),
    "too large": (
        {"observations": with_value(OBSERVATIONS, 2, 1e200)},
        "observations.2. holds inf",
    ),
    "next shape": ({"next_observations": NEXT[:4]}, r"next_observations has shape \(4, 1\)"),
    "next jumps": ({"next_observations": NEXT + 1}, r"next_observations\[0\] differs"),
    "one goal": ({"achieved_goals": OBSERVATIONS}, "achieved_goals is given alone"),
    "goal rows": (
        {"achieved_goals": NEXT[:4], "desired_goals": NEXT},
        r"achieved_goals has shape \(4, 1\); expected 5 rows",
    ),
    "single row": (
        {"terminated": None, "truncated": np.array([0, 0, 0, 1, 1], bool)},
        "row 4 is an episode of its own",
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_name_the_array(case):
    changes, message = BAD_ARRAYS[case]
    names = ("observations", "actions", "rewards", "terminated", "truncated")
    arguments = {**dict(zip(names, FLAT)), **changes}
    with pytest.raises(UserError, match=message):
        OfflineDataset.from_arrays(**arguments)


def test_goals_with_next_observations_are_refused():
    with pytest.raises(UserError, match="from_episodes"):
        OfflineDataset.from_arrays(
            *FLAT, next_observations=NEXT, achieved_goals=NEXT, desired_goals=NEXT
        )


EPISODE = {"observations": np.zeros((3, 1)), "actions": np.zeros((2, 1))}
BAD_EPISODES = {
    "none": ([], "episodes is empty"),
    "key": ([{"observations": np.zeros((3, 1))}], r"episodes\[0\] has no 'actions'"),
    "lengths": (
        [EPISODE, EPISODE | {"observations": np.zeros((2, 1))}],
        r"episodes\[1\] observations has 2 rows; expected 3",
    ),
    "no steps": ([EPISODE | {"actions": np.zeros((0, 1))}], "no actions"),
    "goal keys": ([EPISODE | {"observations": {"state": np.zeros((3, 1))}}], r"\['state'\]"),
    "widths": (
        [EPISODE, EPISODE | {"actions": np.zeros((2, 4))}],
        r"episodes\[1\] actions: .* \(4,\)",
    ),
    # Rewards may be left out of some episodes, but are checked where given.
    "nan": (
        [EPISODE, EPISODE | {"rewards": [0, np.nan]}],
        r"rewards holds nan in episode 1 at step 1",
    ),
    "nan obs": (
        [EPISODE, EPISODE | {"observations": np.array([[0], [np.nan], [0]])}],
        r"observations holds nan in episode 1 at step 1",
    ),
}


@pytest.mark.parametrize("case", BAD_EPISODES)
def test_bad_episodes_name_the_episode(case):
    episodes, message = BAD_EPISODES[case]
    with pytest.raises(UserError, match=message):
        OfflineDataset.from_episodes(episodes)
