"""Arrays and episodes with mistakes: each is refused by one sentence with its place."""

import warnings

import numpy as np
import pytest
import torch
from gymnasium import spaces

from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.samplers import TransitionSampler
from gcrl_gym.errors import UserError

STATES = np.arange(6.0)[:, None]
ACTIONS = np.linspace(-1, 1, 6)[:, None]
END = np.arange(6) == 5


@pytest.fixture(autouse=True)
def no_other_warnings():
    """A warning that a test does not expect is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def changed(values, index, value):
    values = np.array(values, np.float64)
    values[index] = value
    return values


def from_arrays(**changes):
    keywords = {"observations": STATES, "actions": ACTIONS, "truncated": END} | changes
    return OfflineDataset.from_arrays(**keywords)


def refuse(message, function, *args, **keywords):
    """Expect one sentence (and a hint at the nearest name) without numpy's own text."""
    with pytest.raises(UserError, match=message) as caught:
        function(*args, **keywords)
    text = str(caught.value)
    assert "\n" not in text
    assert "could not convert" not in text


# ------------------------------------------------------------------------------------------ arrays

MANY = np.zeros((6, 2))
ARRAYS = {
    "nan flag": ({"truncated": changed(END, 1, np.nan)}, r"truncated\[1\] is nan; a flag must"),
    "part flag": ({"terminated": changed(END, 2, 0.3)}, r"terminated\[2\] is 0.3"),
    "flag 2": ({"truncated": [0, 2, 0, 0, 0, 1]}, r"truncated\[1\] is 2"),
    "flag -1": ({"terminated": [0, 0, 0, -1, 0, 1]}, r"terminated\[3\] is -1"),
    "negative": ({"actions": [0, 1, -7, 0, 0, 0]}, r"actions\[2\] is -7; .* from 0 to 2147483647"),
    "dropped negative": ({"actions": [0, 1, 0, 0, 0, -7]}, r"actions\[5\] is -7"),
    "uint64": (
        {"actions": np.array([2**63 + 5] * 6, np.uint64)},
        r"actions\[0\] is 9223372036854775813",
    ),
    "beyond the space": (
        {"actions": [0, 1, 7, 0, 0, 0], "action_space": spaces.Discrete(2)},
        r"actions\[2\] is 7; .* 0 to 1, as its space is Discrete\(2\)",
    ),
    "below the start": (
        {"actions": [2, 3, 1, 2, 2, 2], "action_space": spaces.Discrete(2, start=2)},
        r"actions\[2\] is 1; .* 2 to 3",
    ),
    "floats for Discrete": (
        {"action_space": spaces.Discrete(3)},
        r"actions has dtype float64 and shape \(6, 1\).* expected integers of shape \(N,\)",
    ),
    "integers for Box": (
        {"actions": [0] * 6, "action_space": spaces.Box(-1, 1, (1,))},
        r"actions has dtype int64 .* expected floats of shape \(N, 1\)",
    ),
    "action width": (
        {"action_space": spaces.Box(-1, 1, (3,))},
        r"shape \(6, 1\), but action_space is .* expected floats of shape \(N, 3\)",
    ),
    "kind of space": ({"action_space": spaces.MultiBinary(2)}, "pass a Box or a Discrete space"),
    "observation width": (
        {"observation_space": spaces.Box(-9, 9, (2,))},
        r"observations has rows of shape \(1,\).* expected rows of shape \(2,\)",
    ),
    "observation kind": (
        {"observation_space": spaces.Box(0, 255, (1,), np.uint8)},
        "observations has dtype float64, but .* pass integers",
    ),
    "observation number": (
        {"observations": [0, 1, 2, 3, 9, 0], "observation_space": spaces.Discrete(4)},
        r"observations\[4\] is 9; .* 0 to 3",
    ),
    "observation dict": (
        {"observation_space": spaces.Dict({"state": spaces.Box(-9, 9, (1,))})},
        r"a Dict with the keys \['state'\]",
    ),
    "observation tuple": (
        {"observation_space": spaces.Tuple([spaces.Box(-9, 9, (1,))])},
        "pass the space of an array",
    ),
    "no observation width": (
        {"observations": MANY[:, :0]},
        r"observations has shape \(6, 0\), row",
    ),
    "no action width": ({"actions": MANY[:, :0]}, r"actions has shape \(6, 0\)"),
    "scalar": ({"observations": 1.0}, r"observations is a single number \(1.0\)"),
    "scalar actions": ({"actions": 1.0}, r"actions has shape \(\)"),
    "scalar flag": ({"truncated": True}, r"truncated has shape \(\)"),
    "scalar next": ({"next_observations": 1.0}, r"next_observations has shape \(\)"),
    "ragged": (
        {"observations": [[1.0]] * 5 + [[1.0, 2.0]]},
        r"ragged \(row 5 is of length 2, row 0 of",
    ),
    "ragged number": (
        {"observations": [[1.0]] * 5 + [2.0]},
        r"ragged \(row 5 is a single number, row 0",
    ),
    "last next": (
        {"next_observations": changed(STATES + 1, 5, np.nan)},
        r"next_observations\[5\] holds nan",
    ),
    "too large last next": (
        {"next_observations": changed(STATES + 1, 5, 1e200)},
        r"next_observations\[5\] holds inf",
    ),
    "inner next": (
        {"next_observations": changed(STATES + 1, 2, np.nan)},
        r"next_observations\[2\] holds nan; remove",
    ),
    "next jumps": (
        {"next_observations": (STATES + 1) * (1 + 3e-6)},
        r"next_observations\[0\] differs from the observations of row 1",
    ),
    "next integer jumps": (
        {"observations": np.arange(6) + 10**7, "next_observations": np.arange(6) + 10**7 + 2},
        r"next_observations\[0\] differs",
    ),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays(case):
    changes, message = ARRAYS[case]
    refuse(message, from_arrays, **changes)


def test_a_tensor_that_numpy_cannot_read():
    refuse(
        "is a Tensor that NumPy", from_arrays, observations=torch.zeros(6, 1, requires_grad=True)
    )


def test_both_flags_are_a_termination():
    with pytest.warns(UserWarning, match=r"^2 rows are both .* \(first: row 2\)") as caught:
        data = from_arrays(terminated=changed(END, 2, 1), truncated=changed(END, 2, 1))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert data.terminated.tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    batch = TransitionSampler().bind(data).sample(64, np.random.default_rng(0))
    assert set(batch.terminated.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("flags", [END, END * 1, END * 1.0, (END * 1.0)[:, None], list(END * 1)])
def test_flags_of_any_type(flags):
    assert from_arrays(truncated=flags).num_steps == 5


def test_foreign_byte_order():
    data = from_arrays(observations=STATES.astype(">i4"), actions=ACTIONS.astype(">f4"))
    assert data.observations.dtype == np.int32
    assert data.observations.dtype.isnative
    assert data.observations[:, 0].tolist() == list(range(6))
    TransitionSampler().bind(data).sample(4, np.random.default_rng(0))
    images = from_arrays(observations=STATES.astype(">u2"), actions=np.arange(6).astype(">i8"))
    assert images.actions.tolist() == [0, 1, 2, 3, 4, 0]


def test_next_observations_rounded_to_float32():
    states = np.cumsum(np.random.default_rng(0).normal(size=(6, 3)), axis=0) * 1000
    following = np.roll(states, -1, axis=0)
    assert from_arrays(observations=states, next_observations=following.astype(np.float32))
    tiny = changed(states, (3, 0), 1e-50)  # below what float32 holds
    following = np.roll(tiny, -1, axis=0).astype(np.float32)
    assert from_arrays(observations=tiny, next_observations=following).num_steps == 6


def test_next_observations_of_episodes_of_one_step():
    data = from_arrays(next_observations=STATES + 9, truncated=np.ones(6))
    assert data.observations[:4, 0].tolist() == [0, 9, 1, 10]


def test_spaces_that_fit():
    box = spaces.Box(-9, 9, (1,))
    goals = spaces.Dict({key: box for key in ("observation", "achieved_goal", "desired_goal")})
    data = from_arrays(observation_space=goals, action_space=spaces.Box(-1, 1, (1,)))
    assert data.observation_space == box
    start = from_arrays(actions=[2, 3] * 3, action_space=spaces.Discrete(2, start=2))
    assert start.actions[:5].tolist() == [2, 3, 2, 3, 2]
    assert from_arrays(actions=[True, False] * 3).action_space == spaces.Discrete(2)
    below = from_arrays(observations=[-5, -4, -3, -3, -3, -3])
    assert below.observation_space.contains(np.array(-5))


# ---------------------------------------------------------------------------------------- episodes


def episode(**changes):
    found = {"observations": STATES, "actions": ACTIONS[:5], **changes}
    return {key: value for key, value in found.items() if value is not ...}


def with_goals(achieved=2, desired=2):
    return {
        "observation": STATES,
        "achieved_goal": np.zeros((6, achieved)),
        "desired_goal": np.zeros((6, desired)),
    }


FLAGS = [0, 0, 0, 0, 1]
EPISODES = {
    "reward": ({"reward": FLAGS}, r"unknown key 'reward'; .* Did you mean 'rewards'"),
    "terminated": ({"terminated": FLAGS}, "Did you mean 'terminations'"),
    "action": ({"action": FLAGS, "actions": ...}, "Did you mean 'actions'"),
    "part flag": ({"terminations": [0, 0.5, 0, 0, 0]}, r"episodes\[1\] terminations\[1\] is 0.5"),
    "nan flag": ({"truncations": [0, 0, 0, np.nan, 0]}, r"episodes\[1\] truncations\[3\] is nan"),
    "short flags": ({"truncations": FLAGS[1:]}, r"episodes\[1\] truncations has shape \(4,\)"),
    "long flags": ({"terminations": [*FLAGS, 0]}, r"episodes\[1\] terminations has shape \(6,\)"),
    "short rewards": ({"rewards": FLAGS[1:]}, r"episodes\[1\] rewards has shape \(4,\); .* \(5,\)"),
    "early end": (
        {"truncations": [0, 1, 0, 0, 1]},
        r"episodes\[1\] truncations\[1\] is set before the last step, 4",
    ),
    "inf": ({"rewards": [0, 0, np.inf, 0, 0]}, "rewards holds inf in episode 1 at step 2"),
    "inf state": ({"observations": changed(STATES, 5, -np.inf)}, "-inf in episode 1 at step 5"),
    "objects": ({"observations": np.array([None] * 6)}, r"episodes\[1\] observations has dtype ob"),
    "object actions": ({"actions": [{}] * 5}, r"episodes\[1\] actions has dtype object"),
    "scalar": ({"observations": 3.0}, r"episodes\[1\] observations is a single number"),
    "scalar actions": ({"actions": 3}, r"episodes\[1\] actions has dtype int64 and shape \(\)"),
    "no width": ({"observations": STATES[:, :0]}, r"episodes\[1\] observations has shape \(6, 0\)"),
    "no action width": ({"actions": ACTIONS[:5, :0]}, r"episodes\[1\] actions has shape \(5, 0\)"),
    "negative": ({"actions": [0, -7, 0, 0, 0]}, r"episodes\[1\] actions\[1\] is -7"),
    "width": (
        {"observations": np.zeros((6, 4))},
        r"^episodes\[1\] observations: rows of shape \(4,\) float32, but episodes\[0\]: rows of sh",
    ),
    "dtype": ({"actions": [0] * 5}, r"rows of shape \(\) int64, but episodes\[0\]: .*\(1,\) float"),
    "next rows": (
        {"next_observations": STATES},
        r"episodes\[1\] next_observations has 6 rows; expected 5: as many as its actions",
    ),
    "next": (
        {"next_observations": STATES[:5]},
        r"next_observations\[0\] differs from observations\[1\]",
    ),
    "next shape": (
        {"next_observations": np.zeros((5, 2))},
        r"has shape \(5, 2\); expected \(5, 1\)",
    ),
    "next kind": ({"next_observations": with_goals()}, "has 6 rows; expected 5"),
    "goals differ": (
        {"observations": with_goals(2, 3)},
        r"achieved_goal has shape \(6, 2\) but desired_goal \(6, 3\)",
    ),
    "goals in one": (
        {"observations": with_goals()},
        r"episodes\[1\] achieved_goals: rows of shape \(2,\) float32, but episodes\[0\]: none",
    ),
}


@pytest.mark.parametrize("case", EPISODES)
def test_episodes(case):
    changes, message = EPISODES[case]
    refuse(message, OfflineDataset.from_episodes, [episode(), episode(**changes)])


def test_goal_widths_of_episodes():
    first, second = (episode(observations=with_goals(width, width)) for width in (2, 3))
    message = r"episodes\[1\] achieved_goals: rows of shape \(3,\) .* episodes\[0\]: .* \(2,\)"
    refuse(message, OfflineDataset.from_episodes, [first, second])
    wrong = {key: value[:5] for key, value in with_goals().items()}
    message = r"next_observations observation\[0\] differs"
    both = episode(observations=with_goals(), next_observations=wrong)
    refuse(message, OfflineDataset.from_episodes, [both])


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        (None, "episodes is a NoneType"),
        (episode(), "episodes is a dict; pass a list of mappings"),
        ("data.csv", "episodes is a str"),
        ([STATES], r"episodes\[0\] is a ndarray; pass a mapping"),
        ((part for part in ()), "episodes is empty"),
    ],
)
def test_no_episodes(episodes, message):
    refuse(message, OfflineDataset.from_episodes, episodes)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"action_space": spaces.Box(-1, 1, (2,))}, r"^episodes\[0\] actions .* \(N, 2\)"),
        ({"action_space": spaces.Discrete(3)}, r"expected integers of shape \(N,\)"),
        ({"observation_space": spaces.Box(-9, 9, (2,))}, r"expected rows of shape \(2,\)"),
    ],
)
def test_spaces_of_episodes(keywords, message):
    refuse(message, OfflineDataset.from_episodes, [episode()], **keywords)
    numbers = [episode(actions=[0, 1, 2, 9, 0])]
    message = r"episodes\[0\] actions\[3\] is 9"
    refuse(message, OfflineDataset.from_episodes, numbers, action_space=spaces.Discrete(3))


def test_goal_spaces_of_episodes():
    space = {key: spaces.Box(-9, 9, (2,)) for key in ("achieved_goal", "desired_goal")}
    space = spaces.Dict(space | {"observation": spaces.Box(-9, 9, (1,))})
    fits = [episode(observations=with_goals())]
    data = OfflineDataset.from_episodes(fits, observation_space=space)
    assert data.observation_space == space["observation"]
    wide = [episode(observations=with_goals(3, 3))]
    message = r"episodes\[0\] \w+_goals has rows of shape \(3,\).* shape \(2,\)\.$"
    refuse(message, OfflineDataset.from_episodes, wide, observation_space=space)


def test_a_generator_of_episodes():
    parts = {"next_observations": STATES[1:], "infos": {}, "id": 3, "truncations": FLAGS}
    data = OfflineDataset.from_episodes(episode(**parts) for _ in range(3))
    assert data.num_episodes == 3


def test_episodes_with_both_flags():
    both = episode(terminations=FLAGS, truncations=FLAGS)
    with pytest.warns(UserWarning, match=r"^1 episode ends both .*episodes\[1\]\)") as caught:
        data = OfflineDataset.from_episodes([episode(), both])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert np.flatnonzero(data.terminated).tolist() == [10]
