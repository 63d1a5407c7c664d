"""The velocity field, its flow, and the one-step policy."""

import pytest
import torch

from gcrl_gym.networks import OneStepPolicy, VelocityField


def make(kind):
    torch.manual_seed(0)
    return kind(3, 2, (16, 16)).double()


def draw(batch=64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, width, generator=generator).double() for width in (3, 2)]


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_flow_is_eulers_method_cut_off_at_the_end(steps):
    field, (inputs, noise) = make(VelocityField), draw()
    points = noise.clone()
    for i in range(steps):
        times = torch.full((64, 1), i / steps, dtype=torch.float64)
        points = points + field(inputs, points, times) / steps
    assert points.abs().max() > 1  # or nothing would be cut off
    found = field.flow(inputs, noise, steps)
    torch.testing.assert_close(found, points.clip(-1, 1))
    assert not found.requires_grad


def test_flow_of_a_field_that_is_known():
    """v = t needs the raw time: ten Euler steps from 0 reach (0 + .. + 0.9) / 10 = 0.45."""
    field = VelocityField(3, 2, ())
    with torch.no_grad():
        field.body[0].weight.zero_()[:, -1] = 1.0
    reached = field.flow(torch.randn(5, 3), torch.zeros(5, 2), 10)
    torch.testing.assert_close(reached, torch.full((5, 2), 0.45))


def test_one_step_policy_is_cut_off_but_its_output_is_not():
    policy, (inputs, noise) = make(OneStepPolicy), draw()
    with torch.no_grad():
        policy.body[-1].weight *= 5
    raw = policy(inputs, noise)
    assert raw.abs().max() > 1
    torch.testing.assert_close(policy.sample(inputs, noise), raw.clip(-1, 1))
    middle = policy(inputs, torch.zeros_like(noise)).clip(-1, 1)
    torch.testing.assert_close(policy.mode(inputs), middle)


def test_one_step_policy_follows_the_interface():
    policy, (inputs, _) = make(OneStepPolicy), draw()
    noise = torch.randn(64, 4, 2, dtype=torch.float64)
    samples = policy.samples(inputs, noise)
    for k in range(4):
        torch.testing.assert_close(samples[:, k], policy.sample(inputs, noise[:, k]))
    assert (samples[:, 0] != samples[:, 1]).any()
    actions, density = policy.sample_with_log_prob(inputs, noise[:, 0])
    torch.testing.assert_close(actions, samples[:, 0])
    assert torch.equal(density, torch.zeros(64, dtype=torch.float64))
    samples.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in policy.parameters())


@pytest.mark.parametrize("kind", [VelocityField, OneStepPolicy])
def test_published_layers(kind):
    """GELU in its tanh form, no normalisation, Xavier weights, biases at 0."""
    layers = list(make(kind).body)
    names = [type(layer).__name__ for layer in layers]
    assert names == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    assert layers[1].approximate == "tanh"
    for layer in layers[::2]:
        bound = (6 / sum(layer.weight.shape)) ** 0.5
        assert 0.8 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()
