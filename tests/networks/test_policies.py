"""Policies: shapes, ranges and what sampling means."""

import torch

from gcrl_gym.networks import CategoricalPolicy, GaussianPolicy, TransportMap


def test_transport_map_samples_are_single_calls():
    actor, inputs, noise = TransportMap(3, 2, (8, 8)), torch.randn(5, 3), torch.randn(5, 4, 2)
    samples = actor.samples(inputs, noise)
    assert samples.shape == (5, 4, 2)
    for k in range(4):
        torch.testing.assert_close(samples[:, k], actor(inputs, noise[:, k]))
    assert float(samples.detach().abs().max()) < 1


def test_gaussian_samples_have_its_scale():
    policy = GaussianPolicy(3, 2, (8,))
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([-3.0, -2.0]))
    inputs = torch.zeros(20000, 3)
    samples = policy.act(inputs, torch.Generator().manual_seed(0))
    mean = policy.act(inputs, None)
    torch.testing.assert_close(mean, policy(inputs).clamp(-1, 1))
    torch.testing.assert_close(samples.std(0), policy.log_std.exp(), rtol=0.03, atol=0)


def test_categorical_samples_have_its_frequencies():
    policy = CategoricalPolicy(3, 4, (8,))
    inputs = torch.zeros(50000, 3)
    counts = torch.bincount(policy.act(inputs, torch.Generator().manual_seed(0)), minlength=4)
    expected = policy(inputs)[0].softmax(-1)
    torch.testing.assert_close(counts / 50000, expected, rtol=0, atol=0.01)
    assert policy.act(inputs, None).unique().tolist() == [int(expected.argmax())]
