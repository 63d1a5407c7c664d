"""Sets of states without actions: NaN in all actions, and nowhere else."""

import dataclasses

import numpy as np
import pytest

from gcrl_gym.datasets import OfflineDataset, TransitionSampler
from gcrl_gym.errors import UserError

from .test_minari import episodes, write


def write_states(actions, state_only=True, **changes):
    """Three episodes whose actions go through ``actions(episode index, array)``."""
    parts = []
    for index, part in enumerate(episodes()):
        values = {name: change(getattr(part, name)) for name, change in changes.items()}
        parts.append(dataclasses.replace(part, actions=actions(index, part.actions), **values))
    return write(buffers=parts, metadata={"source": "test", "state_only": state_only})


def absent(index, actions):
    return np.full_like(actions, np.nan)


def test_state_only_data_loads_with_nan_actions(minari_root):
    write_states(absent)
    for _ in range(2):  # from the episodes, from the cache
        loaded = OfflineDataset.from_minari("test/box-v0")
        assert loaded.state_only
        assert np.isnan(loaded.actions[loaded.step_rows]).all()
        assert (loaded.actions[loaded.columns.episode_ends] == 0).all()
        batch = TransitionSampler().bind(loaded).sample(8, np.random.default_rng(0))
        assert batch.actions.isnan().all()
        assert batch.next_observations.isfinite().all()


def test_state_only_data_may_have_actions(minari_root):
    write_states(lambda index, actions: actions)
    assert np.isfinite(OfflineDataset.from_minari("test/box-v0").actions).all()


def absent_but_one(index, actions):
    actions = absent(index, actions)
    actions[2, 1] = 0.5 if index == 1 else np.nan
    return actions


def absent_in_the_last_episode(index, actions):
    return absent(index, actions) if index == 2 else actions


def infinite_in_one(index, actions):
    actions = absent(index, actions)
    actions[1, 0] = np.inf if index == 1 else np.nan
    return actions


@pytest.mark.parametrize(
    ("actions", "changes", "message"),
    [
        (absent_but_one, {}, r"actions holds 0\.5 in episode 1 at step 2 \(row 8\); state-only"),
        (absent_in_the_last_episode, {}, r"actions holds nan in episode 2 at step 0 \(row 10\)"),
        (infinite_in_one, {}, r"actions holds inf in episode 1 at step 1 \(row 7\); remove"),
        (absent, {"rewards": lambda v: v * np.nan}, "rewards holds nan in episode 0 at step 0"),
        (absent, {"observations": lambda v: v * np.nan}, "observations holds nan in episode 0"),
        (absent, {"state_only": False}, "actions holds nan in episode 0 at step 0"),
    ],
)
def test_other_nan_is_refused_in_state_only_data(minari_root, actions, changes, message):
    write_states(actions, **changes)
    with pytest.raises(UserError, match=message):
        OfflineDataset.from_minari("test/box-v0")
