"""Samplers: what a batch holds, and the laws of its goals against their formulas."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from gcrl_gym.datasets import GoalSampler, OfflineDataset, TransitionSampler
from gcrl_gym.errors import UserError

LENGTHS = (7, 4)  # rows 0..7 and 8..12
DRAWS = 40_000
DISCOUNT = 0.8


class DistanceEnv:
    """Judges batches: reward 1 and termination within 0.5."""

    def compute_reward(self, achieved, desired, info):
        return self.compute_terminated(achieved, desired, info).astype(float)

    def compute_terminated(self, achieved, desired, info):
        return np.abs(achieved - desired).max(axis=-1) <= 0.5


class OnePairEnv:
    """Judges one pair only, as some published environments do; no compute_terminated."""

    def compute_reward(self, achieved, desired, info):
        return float(np.linalg.norm(achieved - desired) <= 0.5)


def numbered(goals=True, goal_is_observation=False):
    """Data whose observation is (row, -row), whose achieved goal is its row, desired 100 + row."""
    episodes, first = [], 0
    for steps in LENGTHS:
        rows = np.arange(first, first + steps + 1.0)
        states = np.stack([rows, -rows], axis=1)
        if goals:
            states = {
                "observation": states,
                "achieved_goal": rows[:, None],
                "desired_goal": rows[:, None] + 100,
            }
        terminations = np.arange(steps) == steps - 1
        episodes.append(
            {
                "observations": states,
                "actions": rows[:-1, None] + 0.5,
                "rewards": rows[:-1] * 10,
                "terminations": terminations if first == 0 else None,
            }
        )
        first += steps + 1
    return OfflineDataset.from_episodes(episodes, goal_is_observation=goal_is_observation)


def ends_of(rows):
    return np.where(rows <= LENGTHS[0], LENGTHS[0], LENGTHS[0] + LENGTHS[1] + 1)


def draw(spec, dataset=None, draws=DRAWS, seed=0, goal_env=None):
    """Return (current rows, value goal rows, actor goal rows, batch)."""
    bound = spec.bind(dataset or numbered(), discount=DISCOUNT, goal_env=goal_env or DistanceEnv())
    batch = bound.sample(draws, np.random.default_rng(seed))
    parts = (batch.observations, batch.goals, batch.actor_goals)
    return *(part[:, 0].numpy().astype(int) for part in parts), batch


# ---------------------------------------------------------------- laws, as tables of probabilities


def future_law(row, law, support):
    """Probability of each future row, by the formulas of OGBench's loader and of design.md."""
    last = int(ends_of(np.array(row))) - (support == "ogbench")
    rows = np.arange(row + 1, last + 1)
    if len(rows) == 0:  # only under "ogbench", at t = T - 1
        return {row: 1.0}
    if law == "geometric":
        weights = (1 - DISCOUNT) * DISCOUNT ** np.arange(len(rows))
        weights[-1] = DISCOUNT ** (len(rows) - 1)  # clipped at the end
    else:
        weights = np.ones(len(rows))
        if support == "ogbench" and len(rows) > 1:  # rounding: half weight at both ends
            weights[[0, -1]] = 0.5
    return dict(zip(rows.tolist(), weights / weights.sum()))


def goal_law(row, probabilities, law, support):
    current, future, random = probabilities
    table = np.zeros(sum(LENGTHS) + 2)
    table[row] += current
    for goal, probability in future_law(row, law, support).items():
        table[goal] += future * probability
    everywhere = np.ones(len(table))
    if support == "ogbench":
        everywhere[[LENGTHS[0], -1]] = 0  # final states are never goals
    return table + random * everywhere / everywhere.sum()


@pytest.mark.parametrize("support", ["full", "ogbench"])
@pytest.mark.parametrize("law", ["geometric", "uniform"])
@pytest.mark.parametrize(
    "probabilities", [(0.2, 0.5, 0.3), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
)
def test_goals_follow_their_law(support, law, probabilities):
    spec = GoalSampler(
        value=probabilities, future=law, actor=probabilities, actor_future=law, support=support
    )
    rows, value, actor, _ = draw(spec)
    for goals in (value, actor):
        for row in np.unique(rows):
            expected = goal_law(row, probabilities, law, support)
            counts = np.bincount(goals[rows == row], minlength=len(expected))
            assert (counts[expected == 0] == 0).all(), "a goal outside the support"
            possible = expected > 0
            if possible.sum() > 1:
                result = chisquare(counts[possible], expected[possible] * counts.sum())
                assert result.pvalue > 1e-5, (row, counts, expected * counts.sum())


def test_value_and_actor_have_laws_of_their_own():
    spec = GoalSampler(value=(1, 0, 0), actor=(0, 1, 0), actor_future="geometric")
    rows, value, actor, _ = draw(spec)
    assert (value == rows).all()
    assert (actor > rows).all()
    assert (actor <= ends_of(rows)).all()


def test_value_and_actor_goals_are_independent():
    rows, value, actor, _ = draw(GoalSampler(value=(0, 1, 0), future="uniform"))
    at_start = rows == 0
    assert abs(np.corrcoef(value[at_start], actor[at_start])[0, 1]) < 0.06


def test_own_discount_replaces_the_agents():
    rows, value, _, _ = draw(GoalSampler(value=(0, 1, 0), discount=0.01))
    assert (value == rows + 1).mean() > 0.98


@pytest.mark.parametrize("spec", [TransitionSampler(), GoalSampler()])
def test_rows_are_drawn_uniformly_from_the_transitions(spec):
    rows, *_ = draw(spec)
    counts = np.bincount(rows, minlength=13)
    assert counts[[7, 12]].sum() == 0, "a final state was drawn as a transition"
    assert chisquare(counts[counts > 0]).pvalue > 1e-5
    assert (counts > 0).sum() == sum(LENGTHS)


# ------------------------------------------------------------------------------ what a batch holds


def test_recorded_transitions():
    rows, goals, actor, batch = draw(TransitionSampler(), draws=200)
    assert batch.observations.dtype == batch.rewards.dtype == torch.float32
    assert torch.equal(batch.observations[:, 1], -batch.observations[:, 0])
    assert torch.equal(batch.next_observations, batch.observations + torch.tensor([1.0, -1.0]))
    assert torch.equal(batch.actions, batch.observations[:, :1] + 0.5)
    assert torch.equal(batch.rewards, batch.observations[:, 0] * 10)
    assert batch.terminated.numpy().tolist() == (rows == 6).astype(float).tolist()
    assert (goals == rows + 100).all()
    assert (actor == goals).all()
    assert batch.rewards.shape == batch.terminated.shape == (200,)


def test_relabelled_batches_keep_states_and_actions():
    _, _, _, batch = draw(GoalSampler(), draws=200)
    assert torch.equal(batch.next_observations, batch.observations + torch.tensor([1.0, -1.0]))
    assert torch.equal(batch.actions, batch.observations[:, :1] + 0.5)


def test_without_goals_the_width_is_zero():
    bound = GoalSampler().bind(numbered(goals=False))
    batch = bound.sample(5, np.random.default_rng(0))
    assert bound.reward_rule == "recorded"
    assert batch.goals.shape == batch.actor_goals.shape == (5, 0)
    assert torch.equal(batch.rewards, batch.observations[:, 0] * 10)


def test_index_rule_judges_row_t():
    data = numbered(goals=False, goal_is_observation=True)
    rows, value, _, batch = draw(GoalSampler(value=(0.5, 0.5, 0)), data)
    success = value == rows
    assert 0.4 < success.mean() < 0.6
    np.testing.assert_array_equal(batch.rewards, success - 1.0)
    np.testing.assert_array_equal(batch.terminated, success)
    assert torch.equal(batch.goals[:, 1], -batch.goals[:, 0])


def test_env_rule_judges_row_t_plus_one():
    rows, value, _, batch = draw(GoalSampler(value=(0.3, 0.7, 0)))
    np.testing.assert_array_equal(batch.rewards, value == rows + 1)
    np.testing.assert_array_equal(batch.terminated, value == rows + 1)


def test_env_that_judges_single_pairs_gives_the_same_rewards():
    *_, batch = draw(GoalSampler(), draws=500)
    *_, slow = draw(GoalSampler(), draws=500, goal_env=OnePairEnv())
    assert torch.equal(slow.rewards, batch.rewards)
    assert slow.terminated.sum() == 0


def test_published_goal_environment():
    """PointMaze judges rewards in batches but terminations one by one."""
    robotics = pytest.importorskip("gymnasium_robotics")
    gym.register_envs(robotics)
    env = gym.make("PointMaze_UMaze-v3", continuing_task=False).unwrapped
    data = numbered()
    rows, value, _, batch = draw(GoalSampler(), data, draws=300, goal_env=env)
    pairs = zip(data.achieved_goals[rows + 1], data.achieved_goals[value])
    expected = [float(env.compute_terminated(a, b, {})) for a, b in pairs]
    assert 0 < sum(expected) < 300
    assert batch.terminated.tolist() == expected
    assert batch.rewards.tolist() == expected


def test_auto_rule_depends_on_the_goals():
    with_columns = GoalSampler().bind(numbered(), goal_env=DistanceEnv())
    with_observations = GoalSampler().bind(numbered(False, goal_is_observation=True))
    assert (with_columns.reward_rule, with_observations.reward_rule) == ("env", "index")
    forced = GoalSampler(reward="index").bind(numbered())
    assert forced.reward_rule == "index"


def test_images_and_discrete_actions():
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8)
    episode = {"observations": images, "actions": np.arange(5)}
    data = OfflineDataset.from_episodes([episode], goal_is_observation=True)
    batch = GoalSampler().bind(data).sample(64, np.random.default_rng(0))
    assert batch.observations.dtype == batch.goals.dtype == torch.uint8
    assert batch.observations.shape == (64, 2, 2, 3)
    assert batch.actions.dtype == torch.int64
    assert torch.equal(batch.observations[:, 0, 0, 0].long(), batch.actions)
    assert torch.equal(batch.next_observations, batch.observations + 1)


def test_matrix_observations_keep_their_shape():
    states = np.arange(24.0).reshape(4, 2, 3)
    data = OfflineDataset.from_episodes([{"observations": states, "actions": np.zeros((3, 1))}])
    batch = TransitionSampler().bind(data).sample(16, np.random.default_rng(0))
    assert batch.observations.shape == (16, 2, 3)
    assert torch.equal(batch.next_observations, batch.observations + 6)


def test_same_generator_same_batch_and_no_other_randomness():
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    first, second = (draw(GoalSampler(), draws=50)[-1] for _ in range(2))
    other = draw(GoalSampler(), draws=50, seed=1)[-1]
    assert torch.equal(first.goals, second.goals)
    assert torch.equal(first.observations, second.observations)
    assert not torch.equal(first.observations, other.observations)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.random.get_rng_state(), before[1])


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": (0.5, 0.5, 0.5)}, r"GoalSampler\(value="),
        ({"actor": (-0.5, 1.0, 0.5)}, r"GoalSampler\(actor="),
        ({"value": (0.5, 0.5)}, "three probabilities"),
        ({"future": "geometrical"}, "Did you mean 'geometric'"),
        ({"actor_future": "x"}, "actor_future='x'"),
        ({"support": "ogbnch"}, "Did you mean 'ogbench'"),
        ({"reward": "envs"}, "Did you mean 'env'"),
    ],
)
def test_bad_specs(arguments, message):
    with pytest.raises(UserError, match=message):
        GoalSampler(**arguments)


def test_missing_env_and_discount_and_goals():
    with pytest.raises(UserError, match="compute_reward"):
        GoalSampler().bind(numbered())
    with pytest.raises(UserError, match=r"discount in \(0, 1\), found 1"):
        GoalSampler(discount=1.0).bind(numbered(), goal_env=DistanceEnv())
    with pytest.raises(UserError, match="use GoalSampler"):
        TransitionSampler().bind(numbered(False, goal_is_observation=True))


def test_next_actions_are_those_of_the_following_row():
    """Rows 0..6 and 8..11 hold transitions; row 6 terminates, row 11 is truncated."""
    bound = TransitionSampler(next_actions=True).bind(numbered(goals=False))
    batch = bound.sample(2000, np.random.default_rng(0))
    rows = batch.observations[:, 0].numpy()
    assert set(rows) == {0, 1, 2, 3, 4, 5, 6, 8, 9, 10}
    follows = batch.terminated.numpy() == 0
    assert set(rows[~follows]) == {6}
    np.testing.assert_array_equal(batch.next_actions[:, 0].numpy()[follows], rows[follows] + 1.5)
    np.testing.assert_array_equal(batch.next_observations[:, 0].numpy(), rows + 1)
    np.testing.assert_array_equal(batch.actions[:, 0].numpy(), rows + 0.5)


def test_next_actions_with_relabelled_goals_need_a_following_row():
    bound = GoalSampler(next_actions=True, reward="env").bind(numbered(), goal_env=DistanceEnv())
    batch = bound.sample(2000, np.random.default_rng(0))
    rows = batch.observations[:, 0].numpy()
    assert set(rows) == {0, 1, 2, 3, 4, 5, 8, 9, 10}
    np.testing.assert_array_equal(batch.next_actions[:, 0].numpy(), rows + 1.5)
    assert batch.goals.shape == (2000, 1)


def test_next_actions_are_given_only_where_asked_for():
    assert (
        TransitionSampler().bind(numbered()).sample(4, np.random.default_rng(0)).next_actions
        is None
    )
    single = OfflineDataset.from_episodes(
        [{"observations": np.zeros((2, 1)), "actions": np.zeros((1, 1)), "rewards": [0.0]}] * 3
    )
    with pytest.raises(UserError, match="No transition has a next action"):
        TransitionSampler(next_actions=True).bind(single).sample(1, np.random.default_rng(0))
