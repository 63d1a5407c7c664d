"""EDAC's update against the published formulas; what it shares with SAC-N is tested there too."""

import pytest
import torch

from gcrl_gym.agents import EDAC
from gcrl_gym.agents.ensembles import diversity
from gcrl_gym.agents.presets import load_preset
from gcrl_gym.errors import UserError
from tests.agents.reference import SMALL, Reference, clone, draw, goal_data, plain_dataset
from tests.agents.soft import prepare, reference_update

FIVE = SMALL | {"num_critics": 5}


def published(q, actions):
    """Sum of the cosine similarities of all pairs, from gradients of gradients."""
    directions = []
    for q_j in q:
        (gradient,) = torch.autograd.grad(q_j.sum(), actions, create_graph=True)
        directions.append(gradient / (gradient.square().sum(-1, keepdim=True).sqrt() + 1e-10))
    n = len(q)
    pairs = [(directions[i] * directions[j]).sum(-1) for i in range(n) for j in range(n) if i != j]
    return sum(pairs).mean() / (n - 1)


@pytest.mark.parametrize("weights", [(), (0.3, 0.7)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eta": 5.0},
        {"eta": 0.0},
        {"num_critics": 2},
        {"num_critics": 13},
        {"target_entropy": -0.5, "alpha_learning_rate": 0.3},
    ],
    ids=str,
)
def test_update_equals_the_formulas(weights, options):
    agent = EDAC(None, plain_dataset(), w2_weights=weights, seed=0, **(FIVE | options))
    batch = draw(agent, scale=1.5)
    prepare(agent)
    ref = Reference(agent)
    rest = {k: v for k, v in options.items() if k not in ("num_critics", "eta")}
    eta, alike = options.get("eta", 1.0), []

    def penalty(q, actions):
        alike.append(published(q, actions))
        return eta * alike[0]

    reference_update(ref, clone(batch), weights, penalty=penalty, **rest)
    metrics = agent.update(batch)
    ref.agree(agent)
    torch.testing.assert_close(metrics["diversity_loss"], alike[0].detach(), rtol=1e-9, atol=1e-12)


def test_update_equals_the_formulas_with_goals():
    agent = EDAC(*goal_data(), w2_weights=(0.3,), seed=1, **FIVE)
    batch = draw(agent, scale=1.5)
    prepare(agent)
    assert not torch.equal(batch.goals, batch.actor_goals)
    ref = Reference(agent)
    reference_update(ref, clone(batch), (0.3,), penalty=published)
    agent.update(batch)
    ref.agree(agent)


def test_diversity_at_its_ends():
    """Parallel gradients of N critics give N, opposite ones of two -2, orthogonal ones 0."""
    one = torch.tensor([3.0, 4.0]).expand(7, 2)
    assert float(diversity(torch.stack([one, 2 * one, 9 * one]))) == pytest.approx(3.0)
    assert float(diversity(torch.stack([one, -0.1 * one]))) == pytest.approx(-2.0)
    assert float(diversity(torch.stack([one, one.flip(1) * torch.tensor([1, -1])]))) < 1e-6
    assert float(diversity(torch.zeros(4, 7, 2))) == 0.0  # dead critics: no division by zero


def test_a_dead_critic_has_a_finite_gradient():
    gradients = torch.zeros(3, 4, 2, requires_grad=True)
    diversity(gradients).backward()
    assert torch.isfinite(gradients.grad).all()


def test_eta_pushes_the_gradients_apart():
    alike = []
    for eta in (0.0, 5.0):
        agent = EDAC(None, plain_dataset(), eta=eta, seed=0, learning_rate=3e-3, **FIVE).learn(60)
        alike.append(float(agent.update(agent.draw_batch())["diversity_loss"]))
    assert alike[1] < alike[0] - 0.3


@pytest.mark.parametrize(
    ("dataset", "published"),
    [
        ("halfcheetah-medium", {}),
        ("halfcheetah-medium-expert", {"eta": 5.0}),
        ("hopper-medium-replay", {"num_critics": 50}),
        ("walker2d-medium-replay", {}),
        ("walker2d-medium-expert", {"eta": 5.0}),
        ("antmaze-umaze", {}),
    ],
)
def test_published_presets(dataset, published):
    assert load_preset("edac", "auto", f"d4rl/{dataset}-v2") == published


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"num_critics": 1}, "num_critics is 1; .* Use SACN, or 2"),
        ({"num_critics": 0}, "num_critics is 0"),
        ({"eta": -1.0}, "eta is -1.0; give a finite number >= 0"),
        ({"eta": float("nan")}, "eta is nan"),
        ({"target_entropy": float("inf")}, "target_entropy is inf"),
        ({"alpha_learning_rate": 0.0}, "alpha_learning_rate is 0.0"),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        EDAC(None, plain_dataset(), **(FIVE | keywords))
