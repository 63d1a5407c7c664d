"""The comparison with OGBench's own agents: weights that are copied, spreads, labels."""

import itertools

import numpy as np
import pytest
import torch

from benchmarks.evidence.ogbench_results import Runs, check_same, label, losses_follow
from benchmarks.evidence.ogbench_weights import copy_weights
from gcrl_gym.agents import GCIQL
from tests.agents.reference import goal_data

WIDTHS = (6, 5)
PARTS, NORM_PARTS = ("kernel", "bias"), ("scale", "bias")


def dense(rng, module, sizes, members=(), norm=False):
    """Random layers of one flax module."""
    found = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        found[f"{module}/Dense_{layer}/kernel"] = rng.normal(size=(*members, inputs, outputs))
        found[f"{module}/Dense_{layer}/bias"] = rng.normal(size=(*members, outputs))
        if norm and layer < len(sizes) - 2:
            found[f"{module}/LayerNorm_{layer}/scale"] = rng.normal(size=(*members, outputs))
            found[f"{module}/LayerNorm_{layer}/bias"] = rng.normal(size=(*members, outputs))
    return found


def forward(weights, module, hidden, pick=()):
    """Flax's MLP: tanh-GELU, then the norm, on hidden layers only."""
    last = sum(name.startswith(f"{module}/Dense") for name in weights) // 2 - 1
    for layer in range(last + 1):
        kernel, bias = (weights[f"{module}/Dense_{layer}/{part}"][pick] for part in PARTS)
        hidden = hidden @ kernel + bias
        if layer < last:
            cube = hidden + 0.044715 * hidden**3
            hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * cube))
            hidden = hidden - hidden.mean(-1, keepdims=True)
            hidden = hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + 1e-6)
            scale, shift = (weights[f"{module}/LayerNorm_{layer}/{p}"][pick] for p in NORM_PARTS)
            hidden = hidden * scale + shift
    return hidden


def flax_gciql(rng):
    weights = dense(rng, "value/value_net", (4, *WIDTHS, 1), norm=True)
    for name in ("critic", "target_critic"):
        weights |= dense(rng, f"{name}/value_net", (6, *WIDTHS, 1), (2,), norm=True)
    weights |= dense(rng, "actor/actor_net", (4, *WIDTHS))
    weights |= {"actor/mean_net/kernel": rng.normal(size=(WIDTHS[-1], 2))}
    return weights | {"actor/mean_net/bias": rng.normal(size=2)}


@pytest.fixture
def gciql():
    env, data = goal_data()
    agent = GCIQL(env, data, seed=0, device="cpu", hidden_sizes=WIDTHS, batch_size=8)
    agent.policy.double()
    return agent


def test_copied_networks_compute_what_flax_computes(gciql):
    rng = np.random.default_rng(0)
    weights = flax_gciql(rng)
    copy_weights("gciql", gciql.policy.networks, weights)
    inputs, actions = rng.normal(size=(7, 4)), rng.normal(size=(7, 2))
    both = np.concatenate([inputs, actions], -1)
    x, a = torch.from_numpy(inputs), torch.from_numpy(actions)
    value = forward(weights, "value/value_net", inputs)
    np.testing.assert_allclose(gciql.value(x)[0].detach(), value[:, 0], rtol=1e-10)
    for ours, name in ((gciql.critic, "critic"), (gciql.critic_target, "target_critic")):
        q = [forward(weights, f"{name}/value_net", both, member)[:, 0] for member in range(2)]
        np.testing.assert_allclose(ours(x, a).detach(), q, rtol=1e-10)


@pytest.mark.parametrize("name", ["actor/mean_net/bias", "value/value_net/LayerNorm_1/scale"])
def test_a_weight_without_partner_is_an_error(gciql, name):
    weights = flax_gciql(np.random.default_rng(0))
    del weights[name]
    with pytest.raises((ValueError, KeyError)):
        copy_weights("gciql", gciql.policy.networks, weights)
    weights = flax_gciql(np.random.default_rng(0)) | {"value/other/kernel": np.ones(3)}
    with pytest.raises(ValueError, match="other"):
        copy_weights("gciql", gciql.policy.networks, weights)


def result(rate):
    return {
        "curve": [{"step": 25_000, "success_rate": rate, "per_task": [rate] * 5}],
        "protocol": {"episodes_per_task": 20},
    }


def runs(ours, theirs, dataset="ogbench/pointmaze-medium-navigate-v0"):
    return Runs("gciql", dataset, [result(r) for r in ours], [result(r) for r in theirs], [])


def test_spread_is_the_seeds_or_the_binomial_one():
    wide = runs([0.2, 0.5, 0.8], [0.5])  # seeds deviate by 0.3, a binomial law of 100 by 0.05
    assert wide.spread() == pytest.approx(2 * 30 * np.sqrt(1 / 3 + 1))
    assert wide.difference() == pytest.approx(0)
    narrow = runs([0.0, 0.0, 0.0], [0.0])
    rate = 1 / 402
    binomial = 100 * np.sqrt(rate * (1 - rate) / 100)
    assert narrow.spread() == pytest.approx(2 * binomial * np.sqrt(4 / 3))
    assert narrow.agree()
    assert not runs([0.5, 0.5, 0.5], [0.7]).agree()


def losses(difference, floor, updates=500):
    return {
        "updates": updates,
        "terms": {"value": {"difference": difference, "floor": floor}},
    }


def test_losses_follow_within_one_percent_or_the_references_own_drift():
    assert losses_follow(losses([1e-7, 1e-3, 9e-3], [0, 0, 0]))
    assert losses_follow(losses([1e-7, 1e-3, 0.2], [0, 0, 0.1]))
    assert not losses_follow(losses([1e-7, 1e-3, 0.4], [0, 0, 0.1]))
    assert not losses_follow(losses([1e-4, 1e-3, 1e-3], [0, 0, 0]))
    assert not losses_follow(losses([1e-7], [0], updates=10))


def test_labels():
    good, bad = losses([0.0], [0.0]), losses([1.0], [0.0])
    same, apart = runs([0.5] * 3, [0.5]), runs([0.1] * 3, [0.9])
    assert label(True, good, [same]) == "verified"
    assert label(True, good, [same, apart]) == "partly verified"
    assert label(True, good, [runs([0.5], [0.5])]) == "partly verified"  # seeds are missing
    assert label(True, good, [runs([0.5], [0.5], "another")]) == "verified"
    assert label(True, bad, [same]) == label(True, None, [same]) == "unverified"
    assert label(False, good, [same]) == "unverified"


def test_hyperparameters_have_to_be_the_same():
    ours = {"alpha": 0.3, "learning_rate": 3e-4, "hidden_sizes": (256, 256), "encoder": "auto"}
    theirs = {"alpha": 0.3, "lr": 3e-4, "actor_hidden_dims": [256, 256], "encoder": None}
    check_same("gciql", ours, theirs)
    with pytest.raises(ValueError, match="alpha"):
        check_same("gciql", ours, theirs | {"alpha": 0.003})
    with pytest.raises(ValueError, match="actor_hidden_dims"):
        check_same("gciql", ours, theirs | {"actor_hidden_dims": [512, 512]})
