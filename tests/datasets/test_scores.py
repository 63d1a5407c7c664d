"""D4RL's reference scores, and reward conventions."""

import numpy as np
import pytest

from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.d4rl_catalog import dataset_ids, entry_of
from gcrl_gym.datasets.rewards import episode_returns, transform_rewards
from gcrl_gym.datasets.scores import (
    REFERENCES,
    normalized_score,
    reference_scores,
    score_from_normalized,
)
from gcrl_gym.errors import UserError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hopper", (-20.272305, 3234.3)),
        ("d4rl/hopper-medium-replay-v0", (-20.272305, 3234.3)),
        ("antmaze-large-play-v2", (0.0, 1.0)),
        ("d4rl/antmaze-umaze-goal-v2", (0.0, 1.0)),
        ("maze2d-umaze-v1", (23.85, 161.86)),
        ("d4rl/maze2d-umaze-goal-v1", (23.85, 161.86)),
        ("maze2d-umaze-dense-v1", (68.537689, 193.66285642381482)),
        ("maze2d-umaze-dense-v0", (23.249793, 81.78995240126592)),
        ("maze2d-eval-large-dense-v1", (56.95455, 326.09647655082637)),
        ("ant-medium-v2", (-325.6, 3879.7)),
        ("pen-cloned-v1", (96.262799, 3076.8331017826877)),
    ],
)
def test_references(name, expected):
    assert reference_scores(name) == expected


def test_every_dataset_has_references():
    for dataset_id in dataset_ids():
        low, high = reference_scores(entry_of(dataset_id).name)
        assert low < high


def test_score_is_in_percent_and_inverts():
    assert normalized_score("hopper", 3234.3) == 100
    assert normalized_score("hopper", -20.272305) == 0
    assert normalized_score("antmaze-umaze-v2", 0.25) == 25
    scores = np.array([-10.0, 0.0, 55.5, 120.0])
    for name in REFERENCES:
        returns = score_from_normalized(name, scores)
        np.testing.assert_allclose(normalized_score(name, returns), scores, atol=1e-9)


def test_unknown_names_the_nearest():
    with pytest.raises(UserError, match=r"no reference scores for 'hoper'.*Did you mean 'hopper'"):
        reference_scores("hoper")
    with pytest.raises(UserError, match="maze2d-umaze-v7"):
        reference_scores("maze2d-umaze-v7")


# --------------------------------------------------------------------------- reward conventions


@pytest.fixture
def data():
    """Returns 6, 4 and 0 over 3, 2 and 1 steps."""
    rewards = [np.array(r, np.float32) for r in ([1, 2, 3], [4, 0], [0])]
    return OfflineDataset.from_episodes(
        [
            {
                "observations": np.arange(len(r) + 1.0)[:, None],
                "actions": np.zeros((len(r), 1), np.float32),
                "rewards": r,
            }
            for r in rewards
        ],
        metadata={"source": "here"},
    )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("none", lambda r: r),
        ("minus_one", lambda r: r - 1),
        ("times_100", lambda r: r * 100),
        ("times_10_minus_5", lambda r: r * 10 - 5),
        ("return_range", lambda r: r * 1000 / 6),
    ],
)
def test_transforms(data, name, change):
    before = data.rewards.copy()
    changed = transform_rewards(data, name)
    steps = data.step_rows
    np.testing.assert_allclose(changed.rewards[steps], change(before[steps]), rtol=1e-6)
    assert not changed.rewards[data.columns.episode_ends].any()
    np.testing.assert_array_equal(data.rewards, before)
    np.testing.assert_array_equal(changed.observations, data.observations)
    np.testing.assert_array_equal(changed.actions, data.actions)
    np.testing.assert_array_equal(changed.columns.lengths, [3, 2, 1])
    assert changed.metadata["source"] == "here"
    assert changed.observation_space == data.observation_space


def test_returns(data):
    assert episode_returns(data).tolist() == [6, 4, 0]


def test_equal_returns_are_not_divided_by_zero(data):
    data.columns["rewards"][:] = 0
    changed = transform_rewards(data, "return_range")
    assert np.isfinite(changed.rewards).all()
    assert not changed.rewards.any()


def test_unknown_transform_names_the_nearest(data):
    with pytest.raises(UserError, match="Did you mean 'minus_one'"):
        transform_rewards(data, "minus-one")
