"""GCBC's update against maximum likelihood, and a test per known trap."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from gcrl_gym.agents import GCBC
from gcrl_gym.datasets import GoalSampler
from gcrl_gym.errors import UserError
from tests.agents.reference import (
    SMALL,
    Reference,
    clone,
    cropped,
    draw,
    gelu,
    goal_data,
    impala,
    picture_data,
    plain_dataset,
    stir,
)

ONE = (8, 8, 3)
PICTURES = {"pictures": (ONE, ONE), "places": (ONE,), "discrete pictures": (ONE, ONE)}
DATA = {
    "continuous": goal_data,
    "pictures": lambda: (None, picture_data()),
    "places": lambda: (None, picture_data(vector_goals=True)),
    "discrete pictures": lambda: (None, picture_data(discrete=True)),
    "without goals": lambda: (None, plain_dataset()),
}


def made(data, **keywords):
    agent = GCBC(*DATA[data](), seed=0, **(SMALL | keywords))
    batch = draw(agent, scale=1.5)
    stir(agent, 0.05)
    return agent, batch


def agreement(agent, batch, moved, pictures):
    """One update on ``batch`` is the step of the formula on ``moved``."""
    ref = Reference(agent)
    discrete = not batch.actions.is_floating_point()
    head = "actor.logits" if discrete else "actor.mean"
    inputs = torch.cat([moved.observations, moved.actor_goals], -1)
    if pictures:
        inputs, head = impala(ref, f"{head}.0", inputs, pictures), f"{head}.1"
    output = ref.mlp(head, inputs, gelu)
    if discrete:
        loss = -torch.log_softmax(output, -1)[torch.arange(len(output)), batch.actions].mean()
        ref.step("actor", loss)
    else:
        half_squares = ((output - batch.actions) ** 2).sum(-1) / 2
        loss = half_squares.mean() + output.shape[1] * math.log(2 * math.pi) / 2
        normal = torch.distributions.Normal(output.detach(), ref["actor.log_std"].exp())
        ref.step("actor", loss - normal.log_prob(batch.actions).sum(-1).mean())
    metrics = agent.update(batch)
    ref.agree(agent)
    torch.testing.assert_close(metrics["actor_loss"], loss.detach())
    return metrics


@pytest.mark.parametrize("data", DATA)
def test_update_equals_the_formula(data):
    agent, batch = made(data)
    metrics = agreement(agent, batch, clone(batch), PICTURES.get(data, ()))
    assert set(metrics) == {"actor_loss", "accuracy" if "discrete" in data else "actor_mse"}


def test_pictures_are_cropped_before_the_update():
    agent, batch = made("pictures", p_aug=1.0)
    moved = clone(batch)
    shifts = np.floor(7 * norm.cdf(batch.noise["crop"].numpy())).astype(int)
    moved.observations = cropped(batch.observations, shifts)
    moved.actor_goals = cropped(batch.actor_goals, shifts)
    agreement(agent, batch, moved, PICTURES["pictures"])


def test_the_mean_is_fitted_as_if_the_variance_were_one():
    """However narrow samples have become, a residual counts the same."""
    gradients = []
    for log_std in (0.0, -3.0):
        agent, batch = made("continuous")
        with torch.no_grad():
            agent.actor.log_std.fill_(log_std)
        agent.update(batch)
        gradients.append(torch.cat([p.grad.flatten() for p in agent.actor.mean.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_samples_have_the_spread_of_the_residuals():
    agent = GCBC(None, plain_dataset(), seed=0, **(SMALL | {"learning_rate": 1e-2})).learn(400)
    actions = torch.as_tensor(agent.dataset.actions)[torch.as_tensor(agent.dataset.step_rows)]
    spread = float(actions.std())
    found = agent.actor.log_std.detach().exp()
    assert found.tolist() == pytest.approx([spread, spread], rel=0.15)


@pytest.mark.parametrize("kind", ["navigate", "stitch", "explore"])
def test_goals_are_later_states_on_every_kind_of_data(kind):
    env, data = goal_data()
    data.metadata["dataset_id"] = f"ogbench/pointmaze-medium-{kind}-v0"
    agent = GCBC(env, data, **SMALL)
    assert agent._bound.actor.p_future == 1
    assert GCBC.sampler == GoalSampler(
        value=(0, 1, 0), actor=(0, 1, 0), actor_future="uniform", support="ogbench", reward="index"
    )


def test_acting():
    agent = GCBC(None, picture_data(discrete=True), seed=0, **SMALL)
    pictures = np.zeros((200, 8, 8, 3), np.uint8)
    many = {"observation": pictures, "desired_goal": pictures}
    assert len(set(agent.predict(many)[0].tolist())) == 4
    assert len(set(agent.predict(many, deterministic=True)[0].tolist())) == 1


@pytest.mark.parametrize(
    ("data", "keywords", "words"),
    [
        ("continuous", {"encoder": "impala_small"}, 'not pictures .* use "auto"'),
        ("pictures", {"encoder": "impla"}, "encoder is 'impla'.*impala"),
        ("pictures", {"p_aug": 2.0}, r"p_aug is 2.0.*\[0, 1\]"),
    ],
)
def test_wrong_options_are_named(data, keywords, words):
    with pytest.raises(UserError, match=words):
        GCBC(*DATA[data](), **(SMALL | keywords))
