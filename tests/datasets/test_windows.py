"""WindowSampler: what a window holds; everything else is GoalSampler's."""

import dataclasses

import numpy as np
import pytest
import torch

from gcrl_gym.datasets import GoalSampler, OfflineDataset, WindowSampler
from gcrl_gym.errors import UserError
from tests.datasets.test_samplers import DISCOUNT, LENGTHS, DistanceEnv, numbered

STARTS = (0, LENGTHS[0] + 1)


def batch_of(spec, data=None, draws=400, seed=0):
    bound = spec.bind(data or numbered(), discount=DISCOUNT, goal_env=DistanceEnv())
    return bound.sample(draws, np.random.default_rng(seed))


@pytest.mark.parametrize("goal_is_observation", [False, True])
@pytest.mark.parametrize("context", [1, 2, 4, 30])
def test_a_window_is_the_states_of_the_episode_up_to_the_next_one(context, goal_is_observation):
    data = numbered(not goal_is_observation, goal_is_observation=goal_is_observation)
    batch = batch_of(WindowSampler(context=context), data)
    assert batch.windows.shape == (400, context + 1, 2)
    assert batch.mask.shape == (400, context + 1)
    assert batch.windows.dtype == batch.mask.dtype == torch.float32
    for row, window, mask in zip(
        batch.observations[:, 0].int().tolist(), batch.windows, batch.mask
    ):
        first = max(start for start in STARTS if start <= row)
        states = [r for r in range(row - context + 1, row + 2) if r >= first]
        missing = context + 1 - len(states)
        assert mask.tolist() == [0.0] * missing + [1.0] * len(states)
        expected = [[0.0, 0.0]] * missing + [[float(r), -float(r)] for r in states]
        assert window.tolist() == expected
    assert {int(m.sum()) for m in batch.mask} == set(range(2, min(context, max(LENGTHS)) + 2))


def test_the_last_two_states_are_those_of_the_transition():
    batch = batch_of(WindowSampler(context=3))
    assert torch.equal(batch.windows[:, -1], batch.next_observations)
    assert torch.equal(batch.windows[:, -2], batch.observations)
    assert bool(batch.mask[:, -2:].all())


@pytest.mark.parametrize(
    "law", [{}, {"support": "ogbench", "reward": "index", "actor": (0, 0.5, 0.5)}]
)
def test_everything_else_is_the_goal_samplers(law):
    plain, ours = batch_of(GoalSampler(**law)), batch_of(WindowSampler(context=3, **law))
    for field in dataclasses.fields(plain):
        one, other = getattr(plain, field.name), getattr(ours, field.name)
        if field.name in ("windows", "mask"):
            assert one is None
        elif isinstance(one, torch.Tensor):
            assert torch.equal(one, other), field.name
        else:
            assert one == other, field.name


def test_windows_of_pictures_are_bytes():
    pictures = np.random.default_rng(0).integers(1, 255, (6, 4, 4, 3), dtype=np.uint8)
    data = OfflineDataset.from_episodes(
        [{"observations": pictures, "actions": np.zeros((5, 1)), "rewards": np.zeros(5)}],
        goal_is_observation=True,
    )
    batch = batch_of(WindowSampler(context=3), data, draws=50)
    assert batch.windows.dtype == torch.uint8
    assert torch.equal(batch.windows[:, -1], batch.next_observations)
    assert torch.equal(batch.windows.flatten(2).bool().any(-1).float(), batch.mask)


def test_padding_is_zero_where_the_data_is_not_a_number():
    data = numbered(False, goal_is_observation=True)
    data.columns.rows[STARTS[1], :2] = np.nan
    batch = batch_of(WindowSampler(context=4), data)
    assert bool((batch.windows[batch.mask == 0] == 0).all())


@pytest.mark.parametrize("context", [0, -1, 2.5, True])
def test_a_context_that_is_no_length_is_refused(context):
    with pytest.raises(UserError, match="whole number >= 1"):
        WindowSampler(context=context)


def test_data_without_goals_is_refused():
    with pytest.raises(UserError, match="needs goals"):
        WindowSampler().bind(numbered(False))
