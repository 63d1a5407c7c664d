"""POGO's update against mathematics written independently, and a test per known trap."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from geomloss import SamplesLoss

from gcrl_gym.agents import POGO
from gcrl_gym.agents.check import same_weights
from gcrl_gym.errors import UserError
from tests.agents.reference import SMALL, goal_data, plain_dataset


def linear_stack(state, name, layer):
    return state[f"networks.{name}.stack.weights.{layer}"], state[
        f"networks.{name}.stack.biases.{layer}"
    ]


def q_value(state, name, member, inputs, action):
    """Q of one member written with plain matrix products."""
    hidden = torch.cat([inputs, action], -1)
    for layer in range(3):
        weight, bias = linear_stack(state, name, layer)
        hidden = hidden @ weight[member] + bias[member]
        if layer < 2:
            hidden = hidden.clamp_min(0)
    return hidden[:, 0]


def transport(state, i, inputs, z):
    hidden = torch.cat([inputs, z], -1)
    for layer in (0, 2, 4):
        prefix = f"networks.actor_{i}.body.{layer}"
        hidden = hidden @ state[f"{prefix}.weight"].T + state[f"{prefix}.bias"]
        if layer < 4:
            hidden = hidden.clamp_min(0)
    return hidden.tanh()


class Adam:
    """First step of Adam from its definition: lr * g / (|g| + eps)."""

    @staticmethod
    def step(state, names, loss, lr=3e-4, eps=1e-8):
        grads = torch.autograd.grad(loss, [state[name] for name in names])
        for name, grad in zip(names, grads, strict=True):
            state[name] = (state[name].detach() - lr * grad / (grad.abs() + eps)).requires_grad_()


def reference_update(state, batch, weights, discount=0.99, tau=0.005):
    """One POGO update of the first step, from the formulas: critic, actors in order, targets."""
    state = {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in state.items()}
    next_in = torch.cat([batch.next_observations, batch.goals], -1)
    here = torch.cat([batch.observations, batch.goals], -1)
    actor_in = torch.cat([batch.observations, batch.actor_goals], -1)
    noise = (0.2 * batch.noise["target_noise"]).clip(-0.5, 0.5)
    a_next = (transport(state, 0, next_in, batch.noise["target_z"]) + noise).clip(-1, 1)
    q_next = torch.minimum(*(q_value(state, "critic_target", j, next_in, a_next) for j in (0, 1)))
    target = (batch.rewards + discount * (1 - batch.terminated) * q_next).detach()
    loss = sum(
        ((q_value(state, "critic", j, here, batch.actions) - target) ** 2).mean() for j in (0, 1)
    )
    Adam.step(state, [k for k in state if k.startswith("networks.critic.")], loss)
    for i, w in enumerate(weights):
        a = transport(state, i, actor_in, batch.noise[f"actor_{i}"])
        q = q_value(state, "critic", 0, actor_in, a)
        if i == 0:
            distance = ((a - batch.actions) ** 2).sum(-1).mean()
        else:
            k = batch.noise[f"samples_{i}"].shape[1]
            own = torch.stack(
                [
                    transport(state, i, actor_in, batch.noise[f"samples_{i}"][:, j])
                    for j in range(k)
                ],
                1,
            )
            before = torch.stack(
                [
                    transport(state, i - 1, actor_in, batch.noise[f"reference_{i}"][:, j])
                    for j in range(k)
                ],
                1,
            ).detach()
            # geomloss's cost is half the squared distance
            distance = 2 * SamplesLoss("sinkhorn", p=2, blur=0.05)(own, before).mean()
        loss = -q.mean() / q.detach().abs().mean() + w * distance
        Adam.step(state, [n for n in state if n.startswith(f"networks.actor_{i}.")], loss)
    for name in [n for n in state if n.startswith("networks.critic_target.")]:
        online = state[name.replace("critic_target", "critic")]
        state[name] = (1 - tau) * state[name] + tau * online
    return state


def agree(found, expected):
    """Weights agree to 1e-5 of the step taken, up to float32 rounding of the weights."""
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=3e-7, msg=name)


def test_update_equals_the_formulas_on_plain_data():
    agent = POGO(None, plain_dataset(), w2_weights=(0.3, 0.2, 0.1), seed=0, **SMALL)
    before = {k: v.clone() for k, v in agent.policy.state_dict().items()}
    batch = agent.draw_batch()
    expected = reference_update(before, copy.deepcopy(batch), (0.3, 0.2, 0.1))
    agent.update(batch)
    agree(agent.policy.state_dict(), expected)


def test_update_equals_the_formulas_with_goals():
    env, data = goal_data()
    agent = POGO(env, data, w2_weights=(0.3, 0.2), seed=1, **SMALL)
    batch = agent.draw_batch()
    assert batch.goals.shape == (32, 2)
    assert not torch.equal(batch.goals, batch.actor_goals)
    expected = reference_update(agent.policy.state_dict(), copy.deepcopy(batch), (0.3, 0.2))
    agent.update(batch)
    agree(agent.policy.state_dict(), expected)


def test_goals_have_width_zero_on_plain_data():
    agent = POGO(None, plain_dataset(), seed=0, **SMALL)
    assert agent.draw_batch().goals.shape == (32, 0)


def test_terminated_stops_the_bootstrap_and_truncated_does_not():
    data = plain_dataset()
    agent = POGO(None, data, seed=0, **SMALL)
    batch = agent.draw_batch()
    batch.rewards = torch.ones_like(batch.rewards)
    for flag, expected in ((1.0, 1.0), (0.0, None)):
        twin = POGO(None, data, seed=0, **SMALL)
        batch.terminated = torch.full_like(batch.terminated, flag)
        target = float(twin.update(copy.deepcopy(batch))["target_q"])
        assert (target == pytest.approx(expected)) if expected else abs(target - 1.0) > 1e-4


@pytest.mark.parametrize("td_actor", ["online", "target"])
def test_td_actor_is_explicit(td_actor):
    """The source's README and code disagree on it, so both exist and differ."""
    agent = POGO(None, plain_dataset(), td_actor=td_actor, seed=0, tau=0.5, **SMALL).learn(3)
    assert (agent.bootstrap_actor is agent.actors[0]) == (td_actor == "online")
    if td_actor == "target":
        online = dict(agent.actors[0].named_parameters())
        moved = [not p.equal(online[n]) for n, p in agent.bootstrap_actor.named_parameters()]
        assert all(moved), "the target follows with a lag"
        assert not any(p.requires_grad for p in agent.bootstrap_actor.parameters())


def test_q_normalisation_is_switchable_and_logged():
    on = POGO(None, plain_dataset(), seed=0, **SMALL)
    off = POGO(None, plain_dataset(), seed=0, normalize_q=False, **SMALL)
    raw, scaled = off.update(off.draw_batch()), on.update(on.draw_batch())
    assert float(raw["actor_0/lambda"]) == float(raw["actor_1/lambda"]) == 1.0
    assert float(scaled["actor_0/lambda"]) != 1.0
    expected = raw["actor_0/energy"] * scaled["actor_0/lambda"]
    torch.testing.assert_close(scaled["actor_0/energy"], expected)
    assert abs(float(scaled["actor_0/energy"])) <= 1.0 + 1e-6


def test_target_noise_is_scaled_to_the_box_once():
    """In a box ten times larger the same normalised batch gives the same targets."""
    small = POGO(None, plain_dataset(), seed=0, **SMALL)
    large = POGO(None, plain_dataset(low=-10.0, high=10.0), seed=0, **SMALL)
    first, second = small.draw_batch(), large.draw_batch()
    torch.testing.assert_close(first.actions, second.actions)
    torch.testing.assert_close(
        small.update(first)["target_q"], large.update(second)["target_q"], rtol=1e-6, atol=0
    )


def test_noise_of_different_seeds_is_not_a_shift_of_one_another():
    """The source's seeding formula made run k a copy of run 0, 1000 k updates later."""
    draws = [
        torch.cat(
            [
                POGO(None, plain_dataset(), seed=seed, **SMALL).generators.randn(
                    "noise/actor_0", 1000
                )
                for _ in range(1)
            ]
        )
        for seed in range(4)
    ]
    flat = torch.cat(draws).numpy().round(6)
    assert len(np.unique(flat)) > 0.999 * len(flat)


def test_gauss_seidel_reference_is_the_updated_predecessor():
    """With weight infinity-like and shared noise, actor 1 chases where actor 0 is now."""
    agent = POGO(None, plain_dataset(), w2_weights=(0.1, 0.1), w2_noise="shared", seed=0, **SMALL)
    agent.actors[1].load_state_dict(agent.actors[0].state_dict())
    metrics = agent.update(agent.draw_batch())
    # Equal weights and shared noise: zero, were the reference taken before actor 0's step.
    assert float(metrics["actor_1/w2"]) > 1e-9


def test_critic_never_sees_the_actors_losses():
    """Huge actor weights change actors, not the critic."""
    light = POGO(None, plain_dataset(), w2_weights=(0.1, 0.1), seed=0, **SMALL).learn(1)
    heavy = POGO(None, plain_dataset(), w2_weights=(0.1, 1e4), seed=0, **SMALL).learn(1)
    assert same_weights(light, heavy, "networks.critic.")
    assert same_weights(light, heavy, "networks.actor_0.")
    assert not same_weights(light, heavy, "networks.actor_1.")


def test_policy_freq_delays_actors_and_targets():
    agent = POGO(None, plain_dataset(), policy_freq=2, seed=0, **SMALL)
    before = copy.deepcopy(agent.actors[0].state_dict())
    target = copy.deepcopy(agent.critic_target.state_dict())
    agent.learn(1)
    assert all(v.equal(before[k]) for k, v in agent.actors[0].state_dict().items())
    assert all(v.equal(target[k]) for k, v in agent.critic_target.state_dict().items())
    agent.learn(1, reset_num_timesteps=False)
    assert not any(v.equal(before[k]) for k, v in agent.actors[0].state_dict().items())


@pytest.mark.parametrize("w2", ["sinkhorn", "exact"])
@pytest.mark.parametrize("w2_noise", ["independent", "shared"])
def test_options_train(w2, w2_noise):
    agent = POGO(None, plain_dataset(), w2=w2, w2_noise=w2_noise, seed=0, **SMALL).learn(5)
    assert agent.predict(np.zeros(3, np.float32))[0].shape == (2,)


def test_identical_actors_with_shared_noise_are_at_distance_zero():
    agent = POGO(None, plain_dataset(), w2="exact", w2_noise="shared", seed=0, **SMALL)
    agent.actors[1].load_state_dict(agent.actors[0].state_dict())
    batch = agent.draw_batch()
    inputs = torch.cat([batch.observations, batch.actor_goals], -1)
    metrics = agent.chain.update(inputs, agent._energy, batch.noise)
    assert float(metrics["actor_1/w2"]) == 0.0


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"w2_weights": ()}, "w2_weights"),
        ({"w2_weights": (0.1, -1.0)}, r"w2_weights\[1\]"),
        ({"w2_weights": (float("nan"),)}, "finite"),
        ({"w2": "exat"}, "exact"),
        ({"w2": "exact", "K": 9}, "9"),
        ({"backend": "online"}, "pykeops"),
        ({"backend": "fast"}, "tensorized"),
        ({"w2_weigths": (0.1,)}, "w2_weights"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"blur": 0.0}, "blur"),
        ({"td_actor": "both"}, "td_actor"),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        POGO(None, plain_dataset(), **(SMALL | keywords))


def test_discrete_actions_are_refused():
    env = gym.make("gcrl/Nav2DDiscrete-v0")
    with pytest.raises(UserError, match="POGO needs a Box action space"):
        POGO(env)
