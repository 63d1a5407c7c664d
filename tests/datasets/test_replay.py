"""The replay buffer against `OfflineDataset.from_episodes`, which was written before it."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrl_gym.datasets import (
    GoalSampler,
    OfflineDataset,
    SequenceSampler,
    SubgoalSampler,
    TransitionSampler,
    WindowSampler,
)
from gcrl_gym.datasets.columns import Layout
from gcrl_gym.datasets.replay import ReplayBuffer
from gcrl_gym.errors import UserError

LAYOUT = Layout((3,), "float32", (2,), "float32", 2, 2)
SPACES = {"observation_space": spaces.Box(-np.inf, np.inf, (3,), np.float32)}
SPACES |= {"action_space": spaces.Box(-1, 1, (2,), np.float32)}


def episode(length, seed=0, terminated=False):
    """An episode as `from_episodes` takes it."""
    rng = np.random.default_rng(seed)
    states = {"observation": rng.normal(size=(length + 1, 3)).astype(np.float32)}
    states["achieved_goal"] = states["observation"][:, :2].copy()
    states["desired_goal"] = np.tile(rng.normal(size=2).astype(np.float32), (length + 1, 1))
    ends = np.zeros((2, length), bool)
    ends[0 if terminated else 1, -1] = True
    return {
        "observations": states,
        "actions": rng.uniform(-1, 1, (length, 2)).astype(np.float32),
        "rewards": rng.normal(size=length).astype(np.float32),
        "terminations": ends[0],
        "truncations": ends[1],
    }


def state(recorded, row):
    return {key: values[row] for key, values in recorded["observations"].items()}


def record(buffer, recorded, steps=None, finish=True):
    length = len(recorded["actions"]) if steps is None else steps
    buffer.begin(state(recorded, 0))
    for t in range(length):
        buffer.add(
            recorded["actions"][t],
            recorded["rewards"][t],
            recorded["terminations"][t],
            state(recorded, t + 1),
        )
    if finish:
        buffer.finish()


def make(capacity=1000, layout=LAYOUT, **keywords):
    return ReplayBuffer(layout, capacity, **(SPACES | keywords))


class Judge:
    def compute_reward(self, achieved, desired, info):
        return -np.linalg.norm(achieved - desired, axis=-1)

    def compute_terminated(self, achieved, desired, info):
        return np.linalg.norm(achieved - desired, axis=-1) < 0.5


def assert_equal(found, expected):
    assert found.columns.layout == expected.columns.layout
    assert np.array_equal(found.columns.lengths, expected.columns.lengths)
    assert np.array_equal(found.columns.rows, expected.columns.rows)
    for name, column in expected.columns.integers.items():
        assert np.array_equal(found.columns.integers[name], column)
        assert found.columns.integers[name].dtype == column.dtype


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 600), min_size=1, max_size=12), st.integers(1, 2000))
def test_it_is_the_dataset_of_the_newest_episodes(lengths, capacity):
    episodes = [episode(n, seed, seed % 2 == 0) for seed, n in enumerate(lengths)]
    buffer = make(capacity)
    for number, recorded in enumerate(episodes):
        record(buffer, recorded)
        kept = [number]  # the newest always
        while kept[0] > 0 and sum(lengths[kept[0] - 1 : number + 1]) <= capacity:
            kept.insert(0, kept[0] - 1)
        expected = OfflineDataset.from_episodes([episodes[i] for i in kept], **SPACES)
        assert_equal(buffer.publish(), expected)
        assert buffer.num_steps == expected.num_steps


@pytest.mark.parametrize(
    "sampler",
    [
        GoalSampler(),
        GoalSampler(next_actions=True, support="ogbench", reward="index"),
        SubgoalSampler(steps=4),
        WindowSampler(context=5),
        SequenceSampler(context=6),
        TransitionSampler(next_actions=True),
    ],
)
def test_any_sampler_draws_what_it_draws_offline(sampler):
    """Hindsight goals, their rewards and ends, next actions: all from the one implementation."""
    episodes = [episode(n, n, n == 7) for n in (7, 12, 2, 30)]
    buffer = make()
    for recorded in episodes:
        record(buffer, recorded)
    record(buffer, episode(5, 99), finish=False)  # not seen before it ends
    offline = OfflineDataset.from_episodes(episodes, **SPACES)
    batches = [
        sampler.bind(data, discount=0.9, goal_env=Judge()).sample(300, np.random.default_rng(3))
        for data in (buffer.publish(), offline)
    ]
    one, two = map(vars, batches)
    for name, value in two.items():
        if isinstance(value, torch.Tensor):
            assert one[name].equal(value), name
        else:
            assert one[name] == value


def test_the_end_of_a_task_is_no_time_limit():
    """Terminated is 1 only where the task ended; an episode cut off bootstraps."""
    buffer = make()
    record(buffer, episode(4, 0, terminated=True))
    record(buffer, episode(3, 1, terminated=False))
    data = buffer.publish()
    assert np.flatnonzero(data.terminated).tolist() == [3]
    assert data.columns.lengths.tolist() == [4, 3]
    batch = TransitionSampler().bind(data).sample(400, np.random.default_rng(0))
    last = (batch.next_observations[:, None] == torch.from_numpy(data.observations[[4, 8]])).all(2)
    assert batch.terminated[last[:, 0]].eq(1).all()
    assert batch.terminated[last[:, 1]].eq(0).all()
    assert last.any(0).all()


def test_pictures_and_discrete_actions_keep_their_types():
    layout = Layout((4, 4, 3), "uint8", (), "int64", 2, 2)
    rng = np.random.default_rng(0)
    recorded = []
    for length in (3, 700):
        states = {"observation": rng.integers(0, 256, (length + 1, 4, 4, 3), np.uint8)}
        states |= {k: rng.normal(size=(length + 1, 2)) for k in ("achieved_goal", "desired_goal")}
        recorded.append(
            episode(length) | {"observations": states, "actions": rng.integers(0, 5, length)}
        )
    buffer = make(layout=layout, observation_space=None, action_space=None)
    for one in recorded:
        record(buffer, one)
    assert_equal(buffer.publish(), OfflineDataset.from_episodes(recorded))


def test_goals_that_are_observations_are_stored_once():
    buffer = make(layout=Layout((3,), "float32", (2,), "float32"), goal_is_observation=True)
    record(buffer, episode(5))
    data = buffer.publish()
    assert data.columns.rows.shape == (6, 3 + 2 + 2)
    assert np.array_equal(data.achieved_goals, episode(5)["observations"]["observation"])


def test_what_was_published_stays_as_it_was():
    """A sampler may draw on from old rows while new ones are recorded and old ones leave."""
    buffer = make(capacity=50)
    record(buffer, episode(40))
    data = buffer.publish()
    before = data.columns.rows.copy()
    for seed in range(100):
        record(buffer, episode(45, seed))
        buffer.publish()
    assert np.array_equal(data.columns.rows, before)
    assert len(buffer._columns.rows) <= 2048  # memory is bounded


def test_it_is_stale_when_it_has_grown_by_a_hundredth():
    buffer = make(capacity=10**6)
    assert not buffer.stale
    record(buffer, episode(1000))
    assert buffer.stale
    buffer.publish()
    record(buffer, episode(9))
    assert not buffer.stale
    record(buffer, episode(1))
    assert buffer.stale


@pytest.mark.parametrize("running", [None, 0, 3, 1500])
def test_saved_and_restored(running):
    buffer = make(capacity=30)
    for seed, length in enumerate([20, 10, 8]):
        record(buffer, episode(length, seed))
        if seed < 2:
            buffer.publish()
    if running is not None:
        record(buffer, episode(1500, 7), steps=running, finish=False)
    header, tensors = buffer.to_archive()
    again = ReplayBuffer.from_archive(header, tensors, *SPACES.values())
    assert_equal(again.dataset(), buffer.dataset())
    assert again.running == buffer.running
    assert np.array_equal(again.actions(), buffer.actions())
    for one in (buffer, again):
        if running is not None:
            one.finish()
        record(one, episode(6, 8))
    assert_equal(again.publish(), buffer.publish())
    assert (again.capacity, again.num_steps) == (buffer.capacity, buffer.num_steps)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("lengths", lambda lengths: lengths + 1),
        ("lengths", lambda lengths: lengths[:-1]),
        ("rows", lambda rows: rows[:-1]),
        ("rows", lambda rows: rows[:, :-1]),
    ],
)
def test_damaged_buffers_are_refused(name, change):
    buffer = make()
    record(buffer, episode(5))
    record(buffer, episode(6))
    buffer.publish()
    header, tensors = buffer.to_archive()
    with pytest.raises(UserError, match="damaged"):
        ReplayBuffer.from_archive(header, tensors | {name: change(tensors[name])}, *SPACES.values())


def test_observations_that_are_no_numbers():
    buffer = make()
    recorded = episode(5)
    recorded["observations"]["observation"][3, 1] = np.nan
    with pytest.raises(UserError, match="observations nan at step 3"):
        record(buffer, recorded)


def test_agrees_compares_everything_that_is_recorded():
    buffer, recorded = make(), episode(5)
    record(buffer, recorded, finish=False)
    assert all(buffer.agrees(t, state(recorded, t)) for t in range(6))
    for key in recorded["observations"]:
        other = {k: v.copy() for k, v in state(recorded, 2).items()}
        other[key][0] += 1e-6
        assert not buffer.agrees(2, other)
