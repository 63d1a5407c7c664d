"""SAC-N's update against the published formulas, and a test per known trap."""

import numpy as np
import pytest
import torch

from gcrl_gym.agents import SACN
from gcrl_gym.agents.ensembles import lowest_q
from gcrl_gym.agents.presets import load_preset
from gcrl_gym.errors import UserError
from gcrl_gym.networks import StackedCritic
from tests.agents.reference import SMALL, Reference, clone, draw, goal_data, plain_dataset
from tests.agents.soft import prepare, reference_update

FIVE = SMALL | {"num_critics": 5}


@pytest.mark.parametrize("weights", [(), (0.3, 0.7)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_critics": 1},
        {"num_critics": 13},
        {"target_entropy": -0.5, "alpha_learning_rate": 0.3},
        {"discount": 0.9, "tau": 0.1},
    ],
    ids=str,
)
def test_update_equals_the_formulas(weights, options):
    """A large step of alpha shows that the actor and the critics see alpha after its step."""
    agent = SACN(None, plain_dataset(), w2_weights=weights, seed=0, **(FIVE | options))
    batch = draw(agent, scale=1.5)
    prepare(agent)
    ref = Reference(agent)
    options = {k: v for k, v in options.items() if k != "num_critics"}
    reference_update(ref, clone(batch), weights, **options)
    metrics = agent.update(batch)
    ref.agree(agent)
    assert float(metrics["q_deviation"]) > 0 or agent.num_critics == 1
    assert float(metrics["alpha"]) == float(ref["temperature.log_alpha"].detach().exp())


def test_update_equals_the_formulas_with_goals():
    agent = SACN(*goal_data(), w2_weights=(0.3,), seed=1, **FIVE)
    batch = draw(agent, scale=1.5)
    prepare(agent)
    assert not torch.equal(batch.goals, batch.actor_goals)
    ref = Reference(agent)
    reference_update(ref, clone(batch), (0.3,))
    agent.update(batch)
    ref.agree(agent)


def test_states_are_not_normalised_and_defaults_are_the_published_ones():
    agent = SACN(None, plain_dataset(), device="cpu")
    assert not agent.normalize
    assert agent.critic.stack.members == 10
    assert [weight.shape[-1] for weight in agent.critic.stack.weights] == [256, 256, 256, 1]
    assert {o.param_groups[0]["lr"] for o in agent.optimizers.values()} == {3e-4}


def test_members_start_apart_from_the_published_values():
    """Members that share their start stay equal, and the minimum over them says nothing."""
    agent = SACN(None, plain_dataset(), seed=0, **FIVE)
    *hidden, last = agent.critic.stack.weights
    for weight in (*hidden, last):
        for member in weight[1:]:
            assert not member.equal(weight[0])
    assert all(torch.all(bias == 0.1) for bias in agent.critic.stack.biases[:-1])
    assert 1.5e-3 < last.abs().max() <= 3e-3
    for head in (agent.actor.mean_head, agent.actor.log_std_head):
        assert 5e-4 < head.weight.abs().max() <= 1e-3
    assert all(
        torch.all(layer.bias == 0.1)
        for layer in agent.actor.trunk.modules()
        if isinstance(layer, torch.nn.Linear)
    )
    assert agent.actor.log_std_range == (-5.0, 2.0)


@pytest.mark.parametrize("members", [1, 2, 5, 13, 40])
def test_the_lowest_critic_alone_has_a_gradient(members):
    """As if autograd went back through the minimum of all of them, only for less."""
    torch.manual_seed(0)
    critic = StackedCritic(3, 2, (16, 16), members=members).double()
    inputs = torch.randn(50, 3).double()
    actions = torch.rand(50, 2).double().requires_grad_()
    values = critic(inputs, actions)
    expected = torch.autograd.grad(values.min(0).values.square().sum(), actions)[0]
    lowest, found = lowest_q(critic, inputs, actions)
    gradient = torch.autograd.grad(lowest.square().sum(), actions)[0]
    torch.testing.assert_close(lowest, values.min(0).values, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found, values.detach(), rtol=1e-12, atol=0)
    assert not found.requires_grad


def test_compiled_updates_take_the_minimum_of_all(monkeypatch):
    """Their shapes must not depend on the batch; the update is the same."""
    agents = [SACN(None, plain_dataset(), w2_weights=(0.3,), seed=0, **FIVE) for _ in range(2)]
    batches = [draw(agent) for agent in agents]
    agents[0].update(batches[0])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    agents[1].update(batches[1])
    for one, other in zip(*(agent.policy.parameters() for agent in agents)):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_temperature_is_saved(tmp_path):
    agent = SACN(None, plain_dataset(), seed=0, **FIVE).learn(5)
    agent.save(tmp_path / "sac_n.zip")
    again = SACN.load(tmp_path / "sac_n.zip")
    assert float(agent.temperature().detach()) != 1.0
    assert torch.equal(again.temperature.log_alpha, agent.temperature.log_alpha)


def test_sampled_actions_differ():
    agent = SACN(None, plain_dataset(), seed=0, **FIVE)
    one = np.zeros(3, np.float32)
    assert not np.array_equal(agent.predict(one)[0], agent.predict(one)[0])
    same = [agent.predict(one, deterministic=True)[0] for _ in range(2)]
    assert np.array_equal(*same)


@pytest.mark.parametrize(
    ("dataset", "critics"),
    [
        ("halfcheetah-medium-expert", None),
        ("hopper-medium", 500),
        ("hopper-medium-replay", 200),
        ("hopper-medium-expert", 200),
        ("walker2d-medium-replay", 20),
        ("antmaze-large-diverse", 25),
    ],
)
def test_published_numbers_of_critics(dataset, critics):
    assert load_preset("sac_n", "auto", f"d4rl/{dataset}-v2").get("num_critics") == critics


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"num_critics": 0}, "num_critics is 0; give a whole number"),
        ({"num_critics": 2.5}, "num_critics is 2.5"),
        ({"target_entropy": float("nan")}, "target_entropy is nan; .* None"),
        ({"alpha_learning_rate": -1e-3}, "alpha_learning_rate is -0.001; give a number > 0"),
        ({"w2_weights": (-1.0,)}, r"w2_weights\[0\] is -1.0"),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        SACN(None, plain_dataset(), **(FIVE | keywords))
