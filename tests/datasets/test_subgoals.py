"""SubgoalSampler against its formulas, and the policy's goals by the kind of OGBench's data."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from gcrl_gym.datasets import GoalSampler, OfflineDataset
from gcrl_gym.datasets.goal_laws import actor_probabilities
from gcrl_gym.datasets.subgoals import SubgoalSampler
from gcrl_gym.errors import UserError
from tests.datasets.test_samplers import (
    DISCOUNT,
    LENGTHS,
    DistanceEnv,
    ends_of,
    future_law,
    goal_law,
    numbered,
)

ROWS = sum(LENGTHS) + 2
DRAWS = 40_000


def draw(spec, data=None, draws=DRAWS, seed=0):
    """Return the rows of transitions and of all their goals, by name, and the batch."""
    data = data or numbered(False, goal_is_observation=True)
    batch = spec.bind(data, discount=DISCOUNT, goal_env=DistanceEnv()).sample(
        draws, np.random.default_rng(seed)
    )
    names = ("observations", "goals", "actor_goals", "subgoals", "target_goals")
    names += ("target_observations",)
    rows = {name: getattr(batch, name)[:, 0].numpy().astype(int) for name in names}
    return rows, batch


def last_of(rows, support):
    return ends_of(rows) - (support == "ogbench")


def test_subgoals_lie_k_steps_ahead_or_at_the_end():
    for support in ("full", "ogbench"):
        for steps in (1, 3, 25):
            rows, _ = draw(SubgoalSampler(steps=steps, support=support), draws=500)
            here = rows["observations"]
            expected = np.minimum(here + steps, last_of(here, support))
            np.testing.assert_array_equal(rows["subgoals"], expected)


def pair_law(row, steps, p_random, law, support):
    """Probabilities of (actor goal, target): targets are on the way, or at the episode's end."""
    last = int(last_of(np.array(row), support))
    table = np.zeros((ROWS, ROWS))
    if p_random < 1:
        for goal, probability in future_law(row, law, support).items():
            table[goal, min(row + steps, goal)] += (1 - p_random) * probability
    finals = (LENGTHS[0], ROWS - 1)
    everywhere = [goal for goal in range(ROWS) if support == "full" or goal not in finals]
    for goal in everywhere:
        table[goal, min(row + steps, last)] += p_random / len(everywhere)
    return table


@pytest.mark.parametrize("support", ["full", "ogbench"])
@pytest.mark.parametrize("law", ["uniform", "geometric"])
@pytest.mark.parametrize("actor", [(0.0, 1.0, 0.0), (0.0, 0.5, 0.5), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("steps", [2, 25])
def test_goals_and_targets_follow_their_law(support, law, actor, steps):
    spec = SubgoalSampler(actor=actor, actor_future=law, support=support, steps=steps)
    rows, _ = draw(spec)
    for row in np.unique(rows["observations"]):
        here = rows["observations"] == row
        expected = pair_law(row, steps, actor[2], law, support)
        counts = np.zeros((ROWS, ROWS))
        np.add.at(counts, (rows["actor_goals"][here], rows["target_goals"][here]), 1)
        assert (counts[expected == 0] == 0).all(), "a pair outside the support"
        possible = expected > 0
        assert expected.sum() == pytest.approx(1)
        if possible.sum() > 1:
            result = chisquare(counts[possible], expected[possible] * counts.sum())
            assert result.pvalue > 1e-5, (row, counts[possible], expected[possible])


@pytest.mark.parametrize("support", ["full", "ogbench"])
def test_value_goals_follow_the_law_of_other_samplers(support):
    probabilities = (0.2, 0.5, 0.3)
    rows, batch = draw(SubgoalSampler(value=probabilities, support=support, steps=3))
    here, value = rows["observations"], rows["goals"]
    for row in np.unique(here):
        expected = goal_law(row, probabilities, "geometric", support)
        counts = np.bincount(value[here == row], minlength=ROWS)
        assert (counts[expected == 0] == 0).all()
        possible = expected > 0
        assert chisquare(counts[possible], expected[possible] * counts.sum()).pvalue > 1e-5
    success = here == value
    np.testing.assert_array_equal(batch.rewards, success - 1.0)
    np.testing.assert_array_equal(batch.terminated, success)


def test_goals_are_drawn_apart_from_one_another():
    """Value goals, actor goals and the choice between future and random ones."""
    rows, _ = draw(SubgoalSampler(value=(0, 1, 0), actor=(0, 0.5, 0.5), future="uniform", steps=1))
    start = rows["observations"] == 0
    random = rows["actor_goals"][start] > LENGTHS[0]
    assert abs(np.corrcoef(rows["goals"][start], rows["actor_goals"][start])[0, 1]) < 0.06
    assert abs(np.corrcoef(rows["goals"][start], random)[0, 1]) < 0.06


def test_what_a_batch_holds():
    """Goals are achieved goals, the target's observation belongs to the same row as its goal."""
    spec = SubgoalSampler(actor=(0.0, 0.5, 0.5), steps=3)
    rows, batch = draw(spec, numbered(), draws=300)
    assert batch.subgoals.shape == batch.target_goals.shape == batch.goals.shape == (300, 1)
    assert batch.target_observations.shape == batch.observations.shape == (300, 2)
    np.testing.assert_array_equal(rows["target_observations"], rows["target_goals"])
    assert torch.equal(batch.target_observations[:, 1], -batch.target_observations[:, 0])
    assert torch.equal(batch.next_observations[:, 0], batch.observations[:, 0] + 1)
    reached = rows["goals"] == rows["observations"] + 1  # judged by the environment
    np.testing.assert_array_equal(batch.rewards, reached)


def test_pictures_stay_bytes():
    pictures = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8)
    episode = {"observations": pictures, "actions": np.arange(5)}
    data = OfflineDataset.from_episodes([episode], goal_is_observation=True)
    batch = SubgoalSampler(steps=2).bind(data).sample(64, np.random.default_rng(0))
    here = batch.observations[:, 0, 0, 0].long()
    for value in (batch.subgoals, batch.target_observations, batch.target_goals):
        assert value.dtype == torch.uint8
        assert value.shape == (64, 2, 2, 3)
    assert torch.equal(batch.subgoals[:, 0, 0, 0].long(), (here + 2).clamp_max(5))


def test_the_same_generator_gives_the_same_batch():
    spec = SubgoalSampler(actor=(0, 0.5, 0.5))
    first, second, other = (draw(spec, draws=50, seed=seed)[1] for seed in (0, 0, 1))
    for name, value in vars(first).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(second, name))
    assert not torch.equal(first.target_goals, other.target_goals)


def test_whole_numbers_may_be_floats():
    rows, _ = draw(SubgoalSampler(steps=3.0), draws=50)
    np.testing.assert_array_equal(
        rows["subgoals"], draw(SubgoalSampler(steps=3), draws=50)[0]["subgoals"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, r"steps=0\): give a whole number >= 1"),
        ({"steps": 2.5}, r"steps=2.5\)"),
        ({"steps": True}, r"steps=True\)"),
        ({"actor": (0.2, 0.8, 0.0)}, "no current goals; give 0 as the first"),
        ({"actor": (0.0, 0.8, 0.0)}, "three probabilities"),
        ({"support": "ogbnch"}, "Did you mean 'ogbench'"),
    ],
)
def test_bad_specs(arguments, message):
    with pytest.raises(UserError, match=message):
        SubgoalSampler(**arguments)


def test_data_without_goals():
    with pytest.raises(UserError, match="SubgoalSampler needs goals"):
        SubgoalSampler().bind(numbered(goals=False))


# ------------------------------------------------------------------- goals by the kind of the data

FUTURE, HALF, RANDOM = (0.0, 1.0, 0.0), (0.0, 0.5, 0.5), (0.0, 0.0, 1.0)
KINDS = {
    "ogbench/pointmaze-medium-navigate-v0": FUTURE,
    "ogbench/antmaze-teleport-navigate-oraclerep-v0": FUTURE,
    "ogbench/pointmaze-medium-stitch-v0": HALF,
    "ogbench/antsoccer-arena-stitch-v0": HALF,
    "ogbench/visual-antmaze-giant-stitch-v0": HALF,
    "ogbench/antmaze-medium-explore-v0": RANDOM,
    "ogbench/visual-antmaze-teleport-explore-v0": RANDOM,
    "ogbench/cube-single-play-v0": FUTURE,
    "ogbench/cube-single-noisy-v0": FUTURE,
    "ogbench/powderworld-hard-play-v0": FUTURE,
    "gcrl/nav2d/medium-stitch-v0": HALF,
    "mine/explorer-v0": FUTURE,
    None: FUTURE,
}


@pytest.mark.parametrize("kind", [GoalSampler, SubgoalSampler])
@pytest.mark.parametrize("name", KINDS)
def test_the_policys_goals_go_by_the_kind_of_data(kind, name):
    data = numbered(False, goal_is_observation=True)
    if name is not None:
        data.metadata["dataset_id"] = name
    bound = kind(actor="auto").bind(data)
    law = bound.actor
    assert (law.p_current, law.p_future, law.p_random) == KINDS[name]
    value = bound.value
    assert (value.p_current, value.p_future, value.p_random) == (0.2, 0.5, 0.3)
    given = kind(actor=(0.0, 0.9, 0.1)).bind(data).actor
    assert (given.p_future, given.p_random) == (0.9, 0.1)


def test_auto_is_for_the_policy_only():
    with pytest.raises(UserError, match=r"GoalSampler\(value='auto'\)"):
        GoalSampler(value="auto")
    assert actor_probabilities((0.0, 0.9, 0.1), numbered()) == (0.0, 0.9, 0.1)
