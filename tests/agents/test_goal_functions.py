"""What the goal-conditioned agents share: losses, encoders, crops."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy.stats import binomtest, chisquare

from gcrl_gym.agents import GCBC, GCIQL, GCIVL, HIQL, goals
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.datasets.subgoals import SubgoalSampler
from gcrl_gym.errors import UserError
from gcrl_gym.networks import CategoricalPolicy, GaussianPolicy
from tests.agents.reference import SMALL, goal_data, picture_data

PICTURE = spaces.Box(0, 255, (8, 8, 3), np.uint8)
VECTOR = spaces.Box(-1, 1, (4,), np.float32)


class Spaces(gym.Env):
    """Only its spaces matter."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, observation, goal):
        parts = {"observation": observation, "achieved_goal": goal, "desired_goal": goal}
        self.observation_space = spaces.Dict(parts)


def agent_of(observation, goal, **keywords):
    return GCBC(Spaces(observation, goal), None, seed=0, **(SMALL | keywords))


# -------------------------------------------------------------------------------------- losses


def half_square(policy, inputs, actions):
    """-log pi at variance one, [B]."""
    error = ((policy(inputs) - actions) ** 2).sum(-1)
    return error / 2 + actions.shape[1] * math.log(2 * math.pi) / 2


def gradients(policy, loss):
    return torch.autograd.grad(loss, list(policy.mean.parameters()), retain_graph=True)


@pytest.fixture
def gaussian():
    torch.manual_seed(0)
    policy = GaussianPolicy(3, 2, (16,)).double()
    return policy, torch.randn(6, 3).double(), torch.randn(6, 2).double()


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_awr_weights_imitation_by_at_most_a_hundred(gaussian, alpha):
    policy, inputs, actions = gaussian
    advantage = torch.tensor([-1000.0, -1.0, 0.0, 1.0, 50.0, 1000.0]).double()
    weight = torch.tensor([min(math.exp(min(alpha * a, 100.0)), 100.0) for a in advantage.tolist()])
    loss, metrics = goals.awr(policy, inputs, actions, advantage, alpha)
    expected = (weight.double() * half_square(policy, inputs, actions)).mean()
    torch.testing.assert_close(metrics["actor_loss"], expected.detach())
    assert float(metrics["weight"]) == pytest.approx(float(weight.mean()))
    for found, wanted in zip(gradients(policy, loss), gradients(policy, expected)):
        torch.testing.assert_close(found, wanted)


def test_ddpg_bc_divides_by_the_magnitude_without_its_gradient(gaussian):
    policy, inputs, actions = gaussian
    inputs = 5 * inputs

    def value_of(taken):
        assert float(taken.detach().abs().max()) <= 1
        return 40 * taken.square().sum(-1) + 9 * taken[:, 0] - 30

    mean = policy(inputs)
    assert 0 < float((mean.detach().abs() > 1).double().mean()) < 1
    q = value_of(mean.clip(-1, 1))
    assert float(q.detach().min()) < 0 < float(q.detach().max())
    loss, metrics = goals.ddpg_bc(policy, inputs, actions, value_of, 0.7)
    expected = -q.mean() / (q.detach().abs().mean() + 1e-6)
    expected = expected + 0.7 * half_square(policy, inputs, actions).mean()
    torch.testing.assert_close(metrics["actor_loss"], expected.detach())
    for found, wanted in zip(gradients(policy, loss), gradients(policy, expected)):
        torch.testing.assert_close(found, wanted)


def test_the_scale_and_the_mean_do_not_see_each_other(gaussian):
    policy, inputs, actions = gaussian
    _, log_prob, scale, metrics = goals.imitation(policy, inputs, actions)
    error = (policy(inputs) - actions).detach()
    assert float(metrics["actor_mse"]) == pytest.approx(float((error**2).mean()))
    normal = torch.distributions.Normal(torch.zeros(2).double(), policy.log_std.exp())
    torch.testing.assert_close(scale, -normal.log_prob(error).sum(-1).mean())
    (least,) = torch.autograd.grad(scale, policy.log_std)
    torch.testing.assert_close(least, 1 - (error**2).mean(0))  # 0 at the residuals' own variance
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(scale, list(policy.mean.parameters()))
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(log_prob.mean(), policy.log_std)


def test_imitation_of_discrete_actions():
    torch.manual_seed(0)
    policy = CategoricalPolicy(3, 4, (16,))
    inputs, actions = torch.randn(50, 3), torch.randint(4, (50,))
    logits, log_prob, scale, metrics = goals.imitation(policy, inputs, actions)
    torch.testing.assert_close(log_prob, logits.log_softmax(-1)[torch.arange(50), actions])
    assert float(scale) == 0
    assert float(metrics["accuracy"]) == pytest.approx(
        float((logits.argmax(-1) == actions).double().mean())
    )


# --------------------------------------------------------------------------------------- crops


def coded(count, side=16):
    """Pictures whose pixels hold their own row and column, flat: [count, side * side * 3]."""
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    picture = np.stack([rows, columns, 0 * rows], -1).astype(np.float32)
    return torch.as_tensor(picture.reshape(1, -1)).expand(count, -1).contiguous()


def shifts_of(pictures, side=16):
    """How far such pictures were moved, [count, 2] in 0 .. 6."""
    centre = pictures.reshape(-1, side, side, 3)[:, side // 2, side // 2, :2]
    return (centre - side // 2 + 3).long()


def picture_batch(agent, count, seed, **more):
    parts = dict.fromkeys(("observations", "next_observations", "goals", "actor_goals"))
    parts |= {name: coded(count) for name in parts}
    generator = torch.Generator().manual_seed(seed)
    shapes = goals.crop_noise(agent.p_aug, count)
    noise = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    nothing = torch.zeros(count)
    return Batch(
        actions=nothing, rewards=nothing, terminated=nothing, noise=noise, **(parts | more)
    )


def cropping_agent(p_aug, goal=None):
    shape = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    return agent_of(shape, goal or shape, p_aug=p_aug)


def test_shifts_are_uniform():
    agent = cropping_agent(1.0)
    moved = goals.crop(agent, picture_batch(agent, 40_000, 0), 1.0)
    shifts = shifts_of(moved.observations)
    counts = np.bincount(7 * shifts[:, 0] + shifts[:, 1], minlength=49)
    assert counts.shape == (49,)
    assert chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("p_aug", [0.2, 0.5])
def test_whole_batches_are_cropped_or_left_alone(p_aug):
    agent, cropped = cropping_agent(p_aug), 0
    for seed in range(400):
        batch = picture_batch(agent, 8, seed)
        moved = shifts_of(goals.crop(agent, batch, p_aug).observations) != 3
        cropped += bool(moved.any())
        assert not moved.any() or moved.any(1).sum() >= 5  # each stays with probability 1/49
    assert binomtest(cropped, 400, p_aug).pvalue > 1e-3


def test_all_pictures_of_a_transition_are_moved_alike_and_the_batch_is_not_changed():
    agent = cropping_agent(1.0)
    names = ("subgoals", "target_observations", "target_goals")
    batch = picture_batch(agent, 64, 0, **{name: coded(64) for name in names})
    moved = goals.crop(agent, batch, 1.0)
    shifts = shifts_of(moved.observations)
    assert len(shifts.unique(dim=0)) > 20
    for name in ("next_observations", "goals", "actor_goals", *names):
        assert torch.equal(shifts_of(getattr(moved, name)), shifts), name
    assert all(torch.equal(getattr(batch, n), coded(64)) for n in ("observations", *names))
    assert torch.equal(moved.observations, goals.crop(agent, batch, 1.0).observations)


def test_goals_that_are_no_pictures_are_not_moved():
    agent = cropping_agent(1.0, goal=spaces.Box(-1, 1, (2,), np.float32))
    places = torch.randn(64, 2)
    batch = picture_batch(agent, 64, 0, goals=places, actor_goals=places)
    moved = goals.crop(agent, batch, 1.0)
    assert torch.equal(moved.goals, places)
    assert torch.equal(moved.actor_goals, places)
    assert (shifts_of(moved.next_observations) != 3).any()


def test_without_crops_no_noise_is_drawn():
    assert GCBC(None, picture_data(), **SMALL).draw_batch().noise == {}
    noise = GCBC(None, picture_data(), p_aug=0.5, **SMALL).draw_batch().noise
    assert {name: tuple(value.shape) for name, value in noise.items()} == {
        "crop": (32, 2), "crop_batch": (1, 1)
    }  # fmt: skip
    env, data = goal_data()
    GCBC(env, data, p_aug=0.5, **SMALL).learn(2)  # nothing to crop


@pytest.mark.parametrize("data", ["vectors", "pictures"])
def test_all_goals_and_targets_are_brought_to_one_scale(data):
    """Normalised together, or bytes divided by 255."""
    env, made = goal_data() if data == "vectors" else (None, picture_data())
    sampler, keywords = SubgoalSampler(steps=5, reward="index"), {"normalize": data == "vectors"}
    agent = GCBC(env, made, sampler=sampler, seed=0, **(SMALL | keywords))
    other = GCBC(env, made, sampler=sampler, seed=0, **SMALL)
    raw, batch = other._bound.sample(32, other.generators.batches), agent.draw_batch()
    for kind, names in (
        ("observation", ("observations", "next_observations", "target_observations")),
        ("goal", ("goals", "actor_goals", "subgoals", "target_goals")),
    ):
        mean, std = (getattr(agent.policy, f"{kind}_{part}") for part in ("mean", "std"))
        assert (data == "vectors") == bool(mean.any())
        for name in names:
            expected = (getattr(raw, name).flatten(1).float() - mean) / std
            torch.testing.assert_close(getattr(batch, name), expected, msg=name)
            assert data == "vectors" or 0 <= float(expected.min()) < float(expected.max()) == 1


# ------------------------------------------------------------------------------------- encoders


def test_which_parts_are_encoded():
    both = goals.encoder(agent_of(PICTURE, PICTURE), "auto", "observation", "goal")
    assert (both.pictures, both.widths, both.outputs) == (((8, 8, 3),) * 2, [192, 192], 512)
    mixed = goals.encoder(agent_of(PICTURE, VECTOR), "auto", "observation", "goal")
    assert (mixed.pictures, mixed.widths, mixed.outputs) == (((8, 8, 3),), [192, 4], 516)
    assert goals.encoder(agent_of(PICTURE, VECTOR), "auto", "goal") is None
    assert goals.encoder(agent_of(PICTURE, VECTOR), "auto", "observation").outputs == 512
    assert goals.encoder(agent_of(VECTOR, VECTOR), "auto", "observation", "goal") is None
    assert goals.encoder(agent_of(PICTURE, PICTURE), "none", "observation", "goal") is None
    large = goals.encoder(agent_of(PICTURE, PICTURE), "impala", "observation", "goal")
    assert [len(stack.blocks) for stack in large.stacks] == [2, 2, 2]
    assert [len(stack.blocks) for stack in both.stacks] == [1, 1, 1]


def test_pictures_as_goals_of_vectors_are_not_encoded():
    agent = agent_of(VECTOR, PICTURE)
    assert goals.encoder(agent, "auto", "observation", "goal") is None
    agent.act(torch.zeros(5, 4 + 192), True, 0)


def test_pictures_of_two_sizes():
    other = spaces.Box(0, 255, (6, 8, 3), np.uint8)
    with pytest.raises(UserError, match=r'same height and width, or use encoder="none"'):
        agent_of(PICTURE, other)
    agent_of(PICTURE, other, encoder="none")
    agent_of(PICTURE, spaces.Box(0, 255, (8, 8, 1), np.uint8))  # stacked along their channels


def test_which_data_has_pictures():
    assert goals.pictures(agent_of(PICTURE, VECTOR)) == ([(8, 8, 3)], [])
    assert goals.pictures(agent_of(VECTOR, PICTURE)) == ([], [(8, 8, 3)])
    floats = spaces.Box(0, 1, (8, 8, 3), np.float32)
    assert goals.pictures(agent_of(floats, floats)) == ([], [])
    data = OfflineDataset.from_episodes(
        [{"observations": np.zeros((5, 8, 8, 3), np.uint8), "actions": np.zeros(4, int)}],
        action_space=spaces.Discrete(2),
    )
    agent = GCBC(None, data, **SMALL)
    assert goals.pictures(agent) == ([(8, 8, 3)], [])
    agent.learn(2)  # no goals: plain cloning of pictures


@pytest.mark.parametrize("agent", [GCIVL, GCIQL, HIQL])
def test_an_environment_that_judges_goals_is_asked_to(agent):
    """OGBench's rule, success at the goal itself, is for data whose goals are observations."""
    env, data = goal_data()
    batch = agent(env, data, seed=0, hidden_sizes=(8,), batch_size=256).draw_batch()
    near = (batch.next_observations - batch.goals).norm(dim=1) <= env.unwrapped.goal_tolerance
    assert 0 < near.float().mean() < 1
    torch.testing.assert_close(batch.rewards, near.float())
    torch.testing.assert_close(batch.terminated, near.float())
