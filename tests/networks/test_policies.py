"""Policies: shapes, ranges, what sampling means, and densities."""

import math

import pytest
import torch

from gcrl_gym.networks import (
    CategoricalPolicy,
    DeterministicPolicy,
    GaussianPolicy,
    TanhGaussianPolicy,
    TransportMap,
)

POLICIES = {
    "deterministic": lambda: DeterministicPolicy(3, 2, (8, 8)),
    "gaussian": lambda: GaussianPolicy(3, 2, (8, 8)),
    "gaussian, squashed mean": lambda: GaussianPolicy(3, 2, (8, 8), squash_mean=True),
    "tanh gaussian": lambda: TanhGaussianPolicy(3, 2, (8, 8)),
    "tanh gaussian, affine": lambda: TanhGaussianPolicy(3, 2, (8, 8), affine_log_std=True),
    "tanh gaussian, small": lambda: TanhGaussianPolicy(3, 2, (8, 8), (-5.0, 2.0), small_heads=True),
    "transport map": lambda: TransportMap(3, 2, (8, 8)),
}


@pytest.mark.parametrize("name", POLICIES)
def test_many_samples_are_single_ones(name):
    torch.manual_seed(0)
    policy, inputs, noise = POLICIES[name](), torch.randn(5, 3), torch.randn(5, 4, 2)
    samples = policy.samples(inputs, noise)
    assert samples.shape == (5, 4, 2)
    for k in range(4):
        torch.testing.assert_close(samples[:, k], policy.sample(inputs, noise[:, k]))
    for actions in (samples, policy.mode(inputs)):
        assert float(actions.detach().abs().max()) <= 1
    differ = float((samples[:, 0] - samples[:, 1]).detach().abs().max())
    assert (differ == 0) == (policy.kind == "deterministic")


@pytest.mark.parametrize("name", POLICIES)
def test_every_parameter_moves_an_action_or_its_density(name):
    torch.manual_seed(0)
    policy = POLICIES[name]()
    actions, density = policy.sample_with_log_prob(torch.randn(64, 3), 0.3 * torch.randn(64, 2))
    assert density.shape == (64,)
    torch.testing.assert_close(actions.shape, torch.Size([64, 2]))
    (actions.square().sum() + density.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())


def test_gaussian_samples_have_its_scale():
    policy = GaussianPolicy(3, 2, (8,))
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([-3.0, -2.0]))
    inputs = torch.zeros(20000, 3)
    samples = policy.sample(
        inputs, torch.randn(20000, 2, generator=torch.Generator().manual_seed(0))
    )
    torch.testing.assert_close(policy.mode(inputs), policy(inputs).clamp(-1, 1))
    torch.testing.assert_close(samples.std(0), policy.log_std.exp(), rtol=0.03, atol=0)


def test_gaussian_density_is_torchs():
    policy = GaussianPolicy(3, 2, (8,), squash_mean=True)
    inputs, actions = torch.randn(7, 3), torch.rand(7, 2) * 2 - 1
    mean, std = torch.tanh(policy.mean(inputs)), policy.log_std.exp()
    expected = torch.distributions.Normal(mean, std).log_prob(actions).sum(-1)
    torch.testing.assert_close(policy.log_prob(inputs, actions), expected)


@pytest.mark.parametrize("affine", [False, True])
def test_tanh_gaussian_density_is_torchs(affine):
    policy = TanhGaussianPolicy(3, 2, (8, 8), affine_log_std=affine).double()
    inputs = torch.randn(50, 3, dtype=torch.float64)
    noise = torch.randn(50, 2, dtype=torch.float64)
    actions, density = policy.sample_with_log_prob(inputs, noise)
    mean, log_std = policy.before_tanh(inputs)
    normal = torch.distributions.Normal(mean, log_std.exp())
    law = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    torch.testing.assert_close(density, law.log_prob(actions).sum(-1), rtol=1e-6, atol=1e-6)
    if affine:  # at the start: the network's output minus 1
        torch.testing.assert_close(log_std, policy.log_std_head(policy.trunk(inputs)) - 1)


@pytest.mark.parametrize("bias", [0.0, 1.5])
def test_tanh_gaussian_density_of_given_actions_integrates_to_one(bias):
    policy = TanhGaussianPolicy(1, 1, (4,), affine_log_std=True).double()
    with torch.no_grad():
        policy.mean_head.bias.fill_(bias)
        policy.log_std_head.bias.fill_(0.3)
    # The midpoint rule; what it leaves out beyond +-(1 - 1e-6) is far in the tail.
    actions = ((torch.arange(400_000, dtype=torch.float64) + 0.5) / 200_000 - 1).unsqueeze(1)
    density = policy.log_prob(torch.zeros(1, 1, dtype=torch.float64), actions).exp()
    assert float(density.detach().mean() * 2) == pytest.approx(1.0, abs=1e-5)


def test_tanh_gaussian_density_of_given_actions_is_that_of_its_samples():
    policy = TanhGaussianPolicy(3, 2, (8, 8)).double()
    inputs, noise = torch.randn(50, 3).double(), torch.randn(50, 2).double()
    actions, density = policy.sample_with_log_prob(inputs, noise)
    torch.testing.assert_close(policy.log_prob(inputs, actions.detach()), density)


def test_tanh_gaussian_density_of_actions_on_the_bounds_is_finite():
    policy = TanhGaussianPolicy(3, 2, (8, 8))
    density = policy.log_prob(torch.zeros(2, 3), torch.tensor([[1.0, -1.0], [0.0, 1.0]]))
    density.sum().backward()
    assert density.isfinite().all()
    assert all(p.grad.isfinite().all() for p in policy.parameters())


def test_tanh_gaussian_density_stays_finite_where_the_tanh_saturates():
    policy = TanhGaussianPolicy(1, 1, (4,))
    with torch.no_grad():
        policy.mean_head.weight.zero_()
        policy.mean_head.bias.fill_(30.0)
        policy.log_std_head.weight.zero_()
        policy.log_std_head.bias.zero_()
    action, density = policy.sample_with_log_prob(torch.zeros(1, 1), torch.zeros(1, 1))
    assert action.item() == 1.0
    # log N(0) - log(1 - tanh(30)^2), the latter -58.6137 to four digits
    assert density.item() == pytest.approx(-0.5 * math.log(2 * math.pi) + 58.6137, abs=1e-3)


def test_categorical_samples_have_its_frequencies():
    policy = CategoricalPolicy(3, 4, (8,))
    inputs = torch.zeros(50000, 3)
    counts = torch.bincount(policy.act(inputs, torch.Generator().manual_seed(0)), minlength=4)
    expected = policy(inputs)[0].softmax(-1)
    torch.testing.assert_close(counts / 50000, expected, rtol=0, atol=0.01)
    assert policy.act(inputs, None).unique().tolist() == [int(expected.argmax())]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_seen_once_says_the_same_and_runs_once(name):
    torch.manual_seed(0)
    policy, inputs = POLICIES[name](), torch.randn(5, 3)
    noise, several = torch.randn(5, 2), torch.randn(5, 4, 2)
    expected = [policy.sample_with_log_prob(inputs, noise)[0], policy.samples(inputs, several)]
    body = next(child for child in policy.children())
    runs = []
    body.register_forward_hook(lambda *_: runs.append(1))
    view = policy.once(inputs)
    found = [view.sample_with_log_prob(inputs, noise)[0], view.samples(inputs, several)]
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other)
    assert len(runs) == (2 if name == "transport map" else 1)
    sum(one.sum() for one in found).backward()
    assert all(parameter.grad is not None for parameter in body.parameters())
    assert type(view) is type(policy)
    policy.sample(torch.randn(7, 3), torch.randn(7, 2))  # the policy itself goes on as before
