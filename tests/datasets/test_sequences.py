"""Sequences against a plain Python loop: windows, masks, returns-to-go, uniform draws."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from gcrl_gym.datasets import OfflineDataset, sequences
from gcrl_gym.datasets.sequences import SequenceBatch, SequenceSampler
from gcrl_gym.errors import UserError

LENGTHS = (7, 1, 3, 12)
KINDS = ("plain", "goals", "discrete", "images", "matrices")


def make_episodes(kind, lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    episodes = []
    for steps in lengths:
        shape = {"images": (4, 4, 3), "matrices": (2, 3)}.get(kind, (3,))
        states = rng.standard_normal((steps + 1, *shape), np.float32)
        if kind == "images":
            states = rng.integers(1, 256, (steps + 1, *shape), dtype=np.uint8)
        if kind == "goals":
            goals = rng.standard_normal((2, steps + 1, 2), np.float32)
            states = {"observation": states, "achieved_goal": goals[0], "desired_goal": goals[1]}
        actions = rng.standard_normal((steps, 2), np.float32)
        if kind in ("discrete", "images"):
            actions = rng.integers(1, 5, steps)
        terminations = np.zeros(steps, bool)
        terminations[-1] = rng.integers(2)
        rewards = rng.standard_normal(steps, np.float32)
        episodes.append(
            {
                "observations": states,
                "actions": actions,
                "rewards": rewards,
                "terminations": terminations,
            }
        )
    return episodes


def plain_windows(episodes, context, padding):
    """Every window, in the order of the transitions, written out one number at a time."""
    windows = []
    for episode in episodes:
        states = episode["observations"]
        goals = np.zeros((len(episode["rewards"]) + 1, 0), np.float32)
        if isinstance(states, dict):
            states, goals = states["observation"], states["desired_goal"]
        steps = len(episode["rewards"])
        for drawn in range(steps):
            start = drawn - context + 1 if padding == "left" else drawn
            window = {name: [] for name in SequenceBatch.__dataclass_fields__ if name != "noise"}
            for step in range(start, start + context):
                inside = 0 <= step < steps
                at = step if inside else 0
                values = {
                    "observations": states[at],
                    "next_observations": states[at + 1],
                    "actions": episode["actions"][at],
                    "rewards": episode["rewards"][at],
                    "terminated": np.float32(episode["terminations"][at]),
                    "goals": goals[at],
                    "actor_goals": goals[at],
                    "returns_to_go": np.float32(sum(float(r) for r in episode["rewards"][at:])),
                    "timesteps": np.int64(at),
                    "mask": np.float32(1),
                }
                for name, value in values.items():
                    window[name].append(value if inside else np.zeros_like(value))
            windows.append({name: np.stack(parts) for name, parts in window.items()})
    return {name: np.stack([window[name] for window in windows]) for name in windows[0]}


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", [1, 4, 9])
def test_windows_equal_a_plain_loop(kind, padding, context):
    episodes = make_episodes(kind)
    bound = SequenceSampler(context, padding).bind(OfflineDataset.from_episodes(episodes))
    batch = bound.windows(np.arange(sum(LENGTHS)))
    for name, expected in plain_windows(episodes, context, padding).items():
        found = getattr(batch, name).numpy()
        assert found.dtype == expected.dtype, name
        assert found.shape == expected.shape, name
        # The returns are the same float64 sums in another order.
        slack = 1e-6 if name == "returns_to_go" else 0
        np.testing.assert_allclose(found, expected, rtol=slack, atol=slack, err_msg=name)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_draws_are_uniform_over_the_transitions(padding):
    data = OfflineDataset.from_episodes(make_episodes("plain"))
    data.rewards[data.step_rows] = np.arange(data.num_steps)
    batch = SequenceSampler(5, padding).bind(data).sample(20_000, np.random.default_rng(0))
    drawn = batch.rewards[:, -1 if padding == "left" else 0].numpy().astype(int)
    counts = np.bincount(drawn, minlength=data.num_steps)
    assert len(counts) == data.num_steps
    assert chisquare(counts).pvalue > 1e-5
    assert batch.mask[:, -1 if padding == "left" else 0].all()


def test_same_generator_same_batch_and_no_other_randomness():
    bound = SequenceSampler(3).bind(OfflineDataset.from_episodes(make_episodes("plain")))
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    first, second, other = (bound.sample(30, np.random.default_rng(s)) for s in (0, 0, 1))
    assert torch.equal(first.observations, second.observations)
    assert not torch.equal(first.observations, other.observations)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_batches_do_not_alias_the_dataset():
    data = OfflineDataset.from_episodes(make_episodes("images"))
    before = data.observations.copy(), data.columns.rows.copy()
    batch = SequenceSampler(4).bind(data).sample(50, np.random.default_rng(0))
    for tensor in (batch.observations, batch.rewards, batch.actions):
        tensor.fill_(7)
    np.testing.assert_array_equal(data.observations, before[0])
    np.testing.assert_array_equal(data.columns.rows, before[1])


def test_absent_actions_are_empty_in_the_padding():
    episodes = make_episodes("plain")
    data = OfflineDataset.from_episodes(episodes)
    data.actions[data.step_rows] = np.nan
    batch = SequenceSampler(20).bind(data).sample(16, np.random.default_rng(0))
    assert torch.equal(batch.actions.isnan().all(2), batch.mask == 1)


def test_goals_that_are_observations_are_not_recorded_goals():
    data = OfflineDataset.from_episodes(make_episodes("plain"), goal_is_observation=True)
    bound = SequenceSampler(4).bind(data, discount=0.5, device="cpu", goal_env=None)
    batch = bound.sample(3, np.random.default_rng(0))
    assert bound.reward_rule == "recorded"
    assert batch.goals.shape == (3, 4, 0)


def test_returns_to_go_in_blocks_equal_those_in_one(monkeypatch):
    lengths = (5, 40, 1, 1, 9, 30, 2)
    columns = OfflineDataset.from_episodes(make_episodes("plain", lengths)).columns
    whole = sequences.returns_to_go(columns)
    for rows in (1, 7, 20, 41):
        monkeypatch.setattr(sequences, "_BLOCK_ROWS", rows)
        np.testing.assert_allclose(sequences.returns_to_go(columns), whole, rtol=1e-5, atol=1e-6)


def test_returns_to_go_keep_small_rewards_behind_large_ones():
    rewards = np.array([1e8, 0.25, 0.5])
    episode = {"observations": np.zeros((4, 1)), "actions": np.zeros((3, 1)), "rewards": rewards}
    columns = OfflineDataset.from_episodes([episode, episode]).columns
    returns = sequences.returns_to_go(columns)
    assert returns[[1, 2, 3]].tolist() == [0.75, 0.5, 0.0]
    assert returns[[5, 6, 7]].tolist() == [0.75, 0.5, 0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context": 0}, r"context=0\): expected a whole number >= 1"),
        ({"context": 2.5}, "whole number"),
        ({"context": True}, "whole number"),
        ({"context": "four"}, "whole number"),
        ({"context": float("inf")}, "whole number"),
        ({"context": 4, "padding": "lefft"}, "Did you mean 'left'"),
    ],
)
def test_bad_specs(arguments, message):
    with pytest.raises(UserError, match=message):
        SequenceSampler(**arguments)
