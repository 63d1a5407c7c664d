"""OPSO's offline update against formulas written again, and a test per known trap."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from gcrl_gym.agents import OPSO
from gcrl_gym.datasets import GoalSampler, OfflineDataset, WindowSampler
from gcrl_gym.errors import UserError
from tests.agents.reference import SMALL, Reference, clone, draw, goal_data, plain_dataset, stir
from tests.networks.test_latents import contrast

TINY = SMALL | {
    "encoder": "gru", "d_model": 8, "layers": 1, "context": 3, "dropout": 0.0, "bank_size": 40,
    "warmup": 0,
}  # fmt: skip
LOSSES = ("critic", "value", "state", "success", "nce", "align")


def states(constant=False):
    """Random walks of 50 states; goals are observations."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(200, 3)), 0).astype(np.float32)
    return OfflineDataset.from_arrays(
        np.ones_like(walk) if constant else walk,
        rng.uniform(-1, 1, size=(200, 2)).astype(np.float32),
        truncated=np.arange(200) % 50 == 49,
        goal_is_observation=True,
        action_space=spaces.Box(-1, 1, (2,), np.float32),
    )


def made(data="states", size=0.1, **keywords):
    """An agent whose weights are all apart, and a batch, both float64."""
    source = goal_data() if data == "maze" else (None, states())
    agent = OPSO(*source, seed=0, **(TINY | keywords))
    batch = draw(agent, scale=1.5)
    stir(agent, size)
    return agent, batch


class Parameters(Reference):
    """Without buffers."""

    def __init__(self, agent):
        found = agent.policy.networks.named_parameters()
        self.state = {n: p.detach().clone().requires_grad_() for n, p in found}
        self.grads = {}


def layer_norm(ref, name, x):
    x = x - x.mean()
    return x / (x.square().mean() + 1e-5).sqrt() * ref[f"{name}.weight"] + ref[f"{name}.bias"]


def gru(ref, prefix, rows):
    """Outputs of the encoder of one GRU layer for states [L, D] from an episode's start."""
    weights, outputs, h = f"{prefix}.sequence.blocks.0.gru", [], None
    for state in rows:
        x = ref[f"{prefix}.embed.weight"] @ state + ref[f"{prefix}.embed.bias"]
        h = torch.zeros_like(x) if h is None else h
        n = layer_norm(ref, f"{prefix}.sequence.norms.0", x)
        a = ref[f"{weights}.weight_ih_l0"] @ n + ref[f"{weights}.bias_ih_l0"]
        b = ref[f"{weights}.weight_hh_l0"] @ h + ref[f"{weights}.bias_hh_l0"]
        (ar, az, an), (br, bz, bn) = a.chunk(3), b.chunk(3)
        update = torch.sigmoid(az + bz)
        h = (1 - update) * torch.tanh(an + torch.sigmoid(ar + br) * bn) + update * h
        outputs.append(layer_norm(ref, f"{prefix}.sequence.final_norm", x + h))
    return outputs


def latents(ref, prefix, batch):
    """z, z', z_g and z_a, each [B, d]."""
    found = []
    for row, mask, goal, aim in zip(batch.windows, batch.mask, batch.goals, batch.actor_goals):
        here, after = gru(ref, prefix, row[mask > 0])[-2:]
        found.append((here, after, gru(ref, prefix, [goal])[0], gru(ref, prefix, [aim])[0]))
    return [torch.stack(part) for part in zip(*found)]


def reference_losses(ref, batch, bank, weight, rule, discount=0.99, tau=0.9):
    z, after, goal, aim = latents(ref, "encoder", batch)
    with torch.no_grad():
        z_t, after_t, goal_t, _ = latents(ref, "encoder_target", batch)
    nothing, r = z[:, :0], batch.terminated
    later = ref.q("value_target", torch.cat([after_t, goal_t], -1), nothing)[0].sigmoid()
    y = (r + discount * (1 - r) * later).detach()
    q = ref.q("critic", torch.cat([z, goal], -1), after).sigmoid()
    least = ref.q("critic_target", torch.cat([z_t, goal_t], -1), after_t).sigmoid().amin(0).detach()
    u = least - ref.q("value", torch.cat([z, goal], -1), nothing)[0].sigmoid()
    judged = z if rule == "index" else after
    s = ref.mlp("success.logit", torch.cat([judged, goal], -1))[:, 0].sigmoid()
    change, way = after - z, aim - z
    cosine = (change * way).sum(-1) / (change.norm(dim=-1) * way.norm(dim=-1))
    return {
        "critic": (0.5 * (q - y).square()).mean(1).sum(),
        "value": ((tau * (u > 0) + (1 - tau) * (u <= 0)) * u.square()).mean(),
        "state": (ref.mlp("proposer", torch.cat([z, aim], -1)) - after_t).square().mean(),
        "success": -(weight * r * s.log() + (1 - r) * (1 - s).log()).mean(),
        "nce": contrast(z, after, bank, 0.1),
        "align": -cosine.mean(),
    }, after


@pytest.mark.parametrize(
    ("data", "rule", "clip", "align"),
    [("states", "index", 5.0, 0.0), ("maze", "env", 5.0, 0.2), ("maze", "env", 0.01, 0.0)],
)
def test_update_matches_the_formulas(data, rule, clip, align):
    agent, batch = made(data, context=20, max_grad_norm=clip, align_weight=align)
    assert agent._bound.reward_rule == rule
    assert 0 < batch.terminated.mean() < 1
    assert 0 < batch.mask.mean() < 1
    old = torch.nn.functional.normalize(torch.randn(30, 8, dtype=torch.float64), dim=1)
    agent.bank.push(old)
    ref, p = Parameters(agent), batch.terminated.mean()
    losses, after = reference_losses(ref, batch, old, (1 - p) / p, rule)
    weights = dict(zip(LOSSES, (1.0, 1.0, 0.25, 0.1, 0.1, align)))
    loss = sum(weights[name] * part for name, part in losses.items())
    names = ref.names("encoder", "critic", "value", "proposer", "success")
    grads = torch.autograd.grad(loss, [ref[name] for name in names])
    norm = torch.stack([g.norm() for g in grads]).norm()
    for name, grad in zip(names, grads):
        ref.grads[name] = grad * min(1.0, clip / (float(norm) + 1e-6))
        step = 3e-4 * ref.grads[name] / (ref.grads[name].abs() + 1e-8)
        ref.state[name] = ref[name].detach() - step
    for name in ("encoder", "critic", "value"):
        ref.soft_update(f"{name}_target", name, 0.005)
    metrics = agent.update(clone(batch))
    ref.agree(agent)
    for name, part in losses.items():
        torch.testing.assert_close(metrics[f"{name}_loss"], part.detach())
    torch.testing.assert_close(metrics["gradient_norm"], norm)
    assert not any(value.requires_grad for value in metrics.values())
    unit = after.detach() / after.detach().norm(dim=1, keepdim=True)
    ring = torch.cat([unit[10:], old[22:], unit[:10]])  # 30 + 32 in 40 slots: 22 over the oldest
    torch.testing.assert_close(agent.bank.slots, ring)


# Values ----------------------------------------------------------------------------------------


def test_success_absorbs_and_targets_stay_in_the_unit_interval():
    agent, batch = made()
    with torch.no_grad():
        agent.value_target.stack.biases[-1].fill_(100.0)  # V' = 1
        agent.critic.stack.biases[-1].fill_(100.0)  # Q = 1
    z, target = agent._encode(batch)
    sure = agent._critic_loss(z, target, torch.ones(32, dtype=torch.float64))[0]
    assert float(sure.detach()) < 1e-12  # y is 1, not 1.99
    later = agent._critic_loss(z, target, torch.zeros(32, dtype=torch.float64))[0]
    torch.testing.assert_close(later, torch.tensor(2 * 0.5 * 0.01**2, dtype=torch.float64))


@pytest.mark.parametrize("expectile", [0.9, 0.3])
def test_the_expectile_is_optimistic(expectile):
    """Fitted to zeros and ones, 0.9 gives 0.9; the source's mirrored loss gives 0.1."""
    agent, batch = made(expectile=expectile)
    constant = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    agent._q = lambda critic, z: (torch.arange(32) % 2).double().expand(2, -1)
    agent._v = lambda value, states, goals: constant.expand(32)
    latents = agent._encode(batch)
    for _ in range(200):
        (slope,) = torch.autograd.grad(agent._value_loss(*latents)[0], constant)
        with torch.no_grad():
            constant -= slope
    assert float(constant.detach()) == pytest.approx(expectile)


def test_the_loss_of_v_does_not_reach_q():
    agent, batch = made()
    critics = [*agent.critic.parameters(), *agent.critic_target.requires_grad_().parameters()]
    loss, _ = agent._value_loss(*agent._encode(batch))
    assert all(g is None for g in torch.autograd.grad(loss, critics, allow_unused=True))


def test_only_goals_decide_what_is_a_success():
    """Rewards, which ends of episodes may carry, change nothing; terminations by goals do."""
    changed = []
    for rewards, flip in ((0.0, False), (7.0, False), (0.0, True)):
        agent, batch = made()
        batch.rewards = batch.rewards + rewards
        batch.terminated = 1 - batch.terminated if flip else batch.terminated
        agent.update(batch)
        changed.append(torch.nn.utils.parameters_to_vector(agent.policy.parameters()))
    assert changed[0].equal(changed[1])
    assert not changed[0].equal(changed[2])


def test_ends_of_episodes_are_no_successes():
    data = states()
    data.columns.rows[:, data.columns.layout.slices["terminated"]] = 1.0
    agent = OPSO(None, data, seed=0, **(TINY | {"batch_size": 500}))
    batch = agent.draw_batch()
    assert torch.equal(batch.terminated > 0, (batch.goals == batch.observations).all(-1))


# Heads -----------------------------------------------------------------------------------------


def test_proposals_depend_on_the_goal():
    agent, batch = made()
    z, target = agent._encode(batch)
    assert not agent.propose(z.here, z.aim).equal(agent.propose(z.here, z.aim.flip(0)))
    assert not any(part.requires_grad for part in target)
    before = agent._loss(z, target, batch.terminated)[1]["state_loss"]
    batch.actor_goals = batch.actor_goals.flip(0)
    assert agent._loss(*agent._encode(batch), batch.terminated)[1]["state_loss"] != before


# Data ------------------------------------------------------------------------------------------


def test_actions_are_not_read():
    trained = []
    for fill in (None, np.nan, 0.3):
        data = states()
        cuts = data.columns.layout.slices
        if fill is not None:
            data.columns.rows[:, cuts["observations"].stop : cuts["rewards"].start] = fill
        trained.append(OPSO(None, data, seed=0, **TINY).learn(3).policy.state_dict())
    bare = states()
    bare.metadata["state_only"] = True
    trained.append(OPSO(None, bare, seed=0, **TINY).learn(3).policy.state_dict())
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name
        assert torch.equal(value, trained[3][name]), name
        assert torch.equal(value, trained[2][name]), name
        assert bool(torch.isfinite(value).all())


def test_states_are_normalised_once():
    """Windows as observations are, goals as states are, and when acting as in training."""
    agent = OPSO(None, states(), seed=0, normalize=True, **TINY)
    batch = agent.draw_batch()
    assert torch.equal(batch.windows[:, -2], batch.observations)
    assert torch.equal(batch.windows[:, -1], batch.next_observations)
    assert float(batch.observations.std()) < 3
    observations, goals = states().observations[3:5], states().observations[90:92]
    seen, wanted = (
        (torch.as_tensor(x) - agent.policy.observation_mean) / agent.policy.observation_std
        for x in (observations, goals)
    )
    z, goal = agent.latents.alone(seen), agent.latents.alone(wanted)
    proposal = agent.proposer(torch.cat([z, goal], -1))
    action = torch.tanh(agent.inverse.body(torch.cat([z, proposal, goal], -1))).detach()
    found, _ = agent.predict({"observation": observations, "desired_goal": goals})
    torch.testing.assert_close(torch.as_tensor(found), action)


def test_padding_is_not_seen():
    losses = []
    for fill in (0.0, 50.0):
        agent, batch = made(context=20)
        assert batch.mask.mean() < 1
        batch.windows = batch.windows + fill * (1 - batch.mask[..., None])
        losses.append(agent.update(batch)["loss"])
    torch.testing.assert_close(*losses)


def test_windows_longer_than_every_episode():
    agent = OPSO(None, states(), seed=0, **(TINY | {"context": 60, "batch_size": 8})).learn(2)
    assert agent.draw_batch().windows.shape == (8, 61, 3)


def test_constant_states():
    agent = OPSO(None, states(constant=True), seed=0, normalize=True, **TINY).learn(3)
    assert all(bool(torch.isfinite(p).all()) for p in agent.policy.parameters())


def test_goals_of_the_law():
    agent = OPSO(None, states(), **TINY)
    assert agent.sampler == WindowSampler(
        value=(0.2, 0.5, 0.3), future="uniform", actor="auto", actor_future="uniform", context=3
    )
    passed = OPSO(None, states(), sampler=WindowSampler(context=7), **SMALL, encoder="gru")
    assert passed.context == 7


# Training --------------------------------------------------------------------------------------


def test_the_learning_rate_rises(tmp_path):
    def rate(agent):
        return agent.optimizers["agent"].param_groups[0]["lr"]

    agent = OPSO(None, states(), seed=0, **(TINY | {"warmup": 4}))
    assert [rate(agent.learn(1)) for _ in range(5)] == pytest.approx(
        [7.5e-5, 1.5e-4, 2.25e-4, 3e-4, 3e-4]
    )
    falling = OPSO(None, states(), seed=0, learning_rate="lin_1e-3", **(TINY | {"warmup": 4}))
    falling.learn(2)
    assert rate(falling) == pytest.approx(1e-3 * 0.5 * 0.5)
    falling.save(tmp_path / "agent.zip")
    loaded = OPSO.load(tmp_path / "agent.zip", dataset=states())
    loaded.learn(2, reset_num_timesteps=False)
    assert rate(loaded) == pytest.approx(1e-3 * 0.25)


def test_dropout_has_a_private_generator_and_spares_targets():
    agent = OPSO(None, states(), seed=0, **(TINY | {"dropout": 0.5}))
    agent.policy.train()
    batch, before = agent.draw_batch(), torch.get_rng_state()
    first, second = agent._encode(batch), agent._encode(batch)
    assert not first[0].here.equal(second[0].here)
    assert first[1].here.equal(second[1].here)
    assert torch.get_rng_state().equal(before)
    one = {"observation": np.ones(3, np.float32), "desired_goal": np.zeros(3, np.float32)}
    assert np.array_equal(agent.predict(one)[0], agent.predict(one)[0])


def test_the_inverse_model_is_not_trained_but_saved(tmp_path):
    agent = OPSO(None, states(), seed=0, **TINY)
    before = [p.clone() for p in agent.inverse.parameters()]
    agent.learn(3)
    with torch.no_grad():
        assert all(p.equal(b) for p, b in zip(agent.inverse.parameters(), before))
        agent.inverse.body[0].bias.add_(1.0)
    agent.save(tmp_path / "agent.zip")
    loaded = OPSO.load(tmp_path / "agent.zip")
    assert loaded.inverse.body[0].bias.equal(agent.inverse.body[0].bias)
    assert loaded.bank.slots.equal(agent.bank.slots)
    assert (int(loaded.bank.written), int(agent.bank.written)) == (96, 96)


# Bad input -------------------------------------------------------------------------------------


def test_goals_that_are_no_observations_are_refused():
    data = states()
    with pytest.raises(UserError, match="as wide, but differ from the observations"):
        OPSO(
            None,
            OfflineDataset.from_arrays(
                data.observations[:50], data.actions[:50], truncated=np.arange(50) == 49,
                achieved_goals=data.observations[:50] + np.float32(1),
                desired_goals=data.observations[:50], action_space=data.action_space,
            ),
            **TINY,
        )  # fmt: skip
    with pytest.raises(UserError, match="goals must be observations"):
        OPSO(gym.make("gcrl/CarRacing-v0"), **TINY)
    with pytest.raises(UserError, match="this task has none"):
        OPSO(None, plain_dataset(), **TINY)


def test_states_that_are_not_numbers_are_named():
    data = states()
    data.columns.rows[::7, 0] = np.nan
    with pytest.raises(UserError, match=r"became nan; .* look for outliers in the data"):
        OPSO(None, data, seed=0, **TINY).learn(2, log_interval=1)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"context": 0}, "context is 0; .* at least 1"),
        ({"context": 2.5}, "context is 2.5; .* whole number"),
        ({"encoder": "mamba2"}, "encoder is 'mamba2'.*mamba"),
        ({"history": "ring"}, "history is 'ring'.*window"),
        ({"expectile": 1.0}, r"expectile is 1.0; .*\(0, 1\)"),
        ({"nce_weight": -1.0}, "nce_weight is -1.0; .* >= 0"),
        ({"temperature": 0.0}, "temperature is 0.0; .* > 0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0; .* > 0"),
        ({"bank_size": 0}, "bank_size is 0; .* at least 1"),
        ({"warmup": -1}, "warmup is -1; .* at least 0"),
        ({"discount": 1.5}, "discount is 1.5"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"encoder": "transformer", "d_model": 9}, "width=9, heads=4.*such as 16"),
        ({"sampler": GoalSampler()}, "GoalSampler does not draw; pass a WindowSampler"),
        ({"sampler": WindowSampler(context=5)}, "context is 3, but the sampler .* context=5"),
        ({"contxt": 3}, "OPSO has no argument 'contxt'.*context"),
    ],
)
def test_wrong_options_are_named(keywords, words):
    with pytest.raises(UserError, match=words):
        OPSO(None, states(), **(TINY | keywords))
