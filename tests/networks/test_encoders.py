"""Encoders: against convolutions and maxima written as loops, and crops against numpy's."""

import math

import numpy as np
import pytest
import torch

from gcrl_gym.networks import CategoricalPolicy, GaussianPolicy, StackedCritic, StackedValue
from gcrl_gym.networks.encoders import SIZES, ImpalaEncoder, make_encoder, random_crop

GELU = np.vectorize(
    lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
)


def convolution(picture, weight, bias):
    """3 x 3 over [H, W, C] with zeros outside; weight [out, in, 3, 3]."""
    height, width, _ = picture.shape
    result = np.tile(bias, (height, width, 1))
    for row in range(height):
        for column in range(width):
            for i in range(3):
                for j in range(3):
                    r, c = row + i - 1, column + j - 1
                    if 0 <= r < height and 0 <= c < width:
                        result[row, column] += weight[:, :, i, j] @ picture[r, c]
    return result


def maxima(picture):
    """3 x 3 at every second place: even sizes start at 0, odd ones half outside, as in XLA."""
    height, width, channels = picture.shape
    result = np.empty(((height + 1) // 2, (width + 1) // 2, channels))
    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            r, c = 2 * row - height % 2, 2 * column - width % 2
            seen = picture[max(r, 0) : r + 3, max(c, 0) : c + 3]
            result[row, column] = seen.max((0, 1))
    return result


def naive(encoder, picture):
    """Features of one picture [H, W, C], its values in [0, 1]."""
    weights = {name: p.detach().numpy() for name, p in encoder.named_parameters()}

    def layer(name, hidden):
        return convolution(hidden, weights[f"{name}.weight"], weights[f"{name}.bias"])

    hidden = picture
    for s in range(3):
        hidden = maxima(layer(f"stacks.{s}.first", hidden))
        for b in range(len(encoder.stacks[s].blocks)):
            inner = layer(f"stacks.{s}.blocks.{b}.1", np.maximum(hidden, 0))
            hidden = hidden + layer(f"stacks.{s}.blocks.{b}.3", np.maximum(inner, 0))
    flat = np.maximum(hidden, 0).reshape(-1)
    return GELU(weights["dense.weight"] @ flat + weights["dense.bias"])


def moved(encoder):
    """The same in float64, its biases away from 0."""
    generator = torch.Generator().manual_seed(0)
    encoder.double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator).double())
    return encoder


@pytest.mark.parametrize("kind", ["impala_small", "impala"])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (9, 6), (1, 5), (10, 13)])
def test_features_are_the_definitions(kind, size):
    torch.manual_seed(0)
    encoder = moved(make_encoder(kind, [(*size, 3)]))
    assert len(encoder.stacks[0].blocks) == {"impala_small": 1, "impala": 2}[kind]
    pictures = torch.rand(2, *size, 3, dtype=torch.float64)
    found = encoder(pictures.flatten(1)).detach()
    expected = np.stack([naive(encoder, picture.numpy()) for picture in pictures])
    assert found.shape == (2, 512)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_pictures_are_stacked_along_their_channels_and_the_rest_is_passed_on():
    torch.manual_seed(0)
    encoder = moved(ImpalaEncoder([(8, 8, 3), (8, 8, 1)], (4, 8, 8), features=16, rest=5))
    assert encoder.outputs == 16 + 5
    first, second = torch.rand(2, 8, 8, 3).double(), torch.rand(2, 8, 8, 1).double()
    rest = torch.randn(2, 5).double()
    found = encoder(torch.cat([first.flatten(1), second.flatten(1), rest], 1)).detach()
    together = torch.cat([first, second], -1).numpy()
    expected = np.stack([naive(encoder, picture) for picture in together])
    np.testing.assert_allclose(found[:, :16].numpy(), expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(found[:, 16:], rest)


def test_the_gradient_reaches_all_weights_and_equals_a_difference():
    torch.manual_seed(0)
    encoder = moved(ImpalaEncoder([(6, 6, 2)], (3, 3, 3), features=8))
    inputs = torch.rand(4, 72, dtype=torch.float64)
    encoder(inputs).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        with torch.no_grad():
            place = tuple(i // 2 for i in parameter.shape)
            sides = []
            for step in (1e-6, -2e-6):
                parameter[place] += step
                sides.append(float(encoder(inputs).square().sum()))
            parameter[place] += 1e-6
        slope = (sides[0] - sides[1]) / 2e-6
        assert float(parameter.grad[place]) == pytest.approx(slope, rel=1e-4, abs=1e-6), name


def test_starting_weights_are_xaviers():
    torch.manual_seed(0)
    encoder = make_encoder("impala", [(64, 64, 6)])
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
            continue
        fans = parameter.shape[0] * parameter[0, 0].numel(), parameter[0].numel()
        bound = math.sqrt(6 / sum(fans))
        assert 0.98 * bound < float(parameter.detach().abs().max()) <= bound, name
    assert encoder.dense.weight.shape == (512, 8 * 8 * 32)
    assert SIZES["impala_small"] == ((16, 32, 32), 1)


def test_no_pictures_no_encoder():
    assert make_encoder("auto", []) is None
    assert make_encoder("none", [(8, 8, 3)]) is None
    assert len(make_encoder("auto", [(8, 8, 3)]).stacks[0].blocks) == 1


def test_all_networks_see_pictures_through_it():
    inputs, actions = torch.rand(6, 192), torch.randn(6, 2)

    def one():
        torch.manual_seed(0)
        return ImpalaEncoder([(8, 8, 3)], (4, 4, 4), features=10)

    features = one()(inputs)
    critic = StackedCritic(192, 2, (16,), encoder=one())
    torch.testing.assert_close(
        critic(inputs, actions), critic.stack(torch.cat([features, actions], -1)).squeeze(-1)
    )
    torch.testing.assert_close(critic.first(inputs, actions), critic(inputs, actions)[0])
    value = StackedValue(192, (16,), encoder=one())
    torch.testing.assert_close(value(inputs), value.stack(features).squeeze(-1))
    gaussian = GaussianPolicy(192, 2, (16,), encoder=one())
    torch.testing.assert_close(gaussian(inputs), gaussian.mean[1](features))
    categorical = CategoricalPolicy(192, 3, (16,), encoder=one())
    torch.testing.assert_close(categorical(inputs), categorical.logits[1](features))


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (2, 3)])
@pytest.mark.parametrize("padding", [1, 3])
def test_crops_are_numpys(size, padding):
    """Every shift, of padded pictures whose edges are repeated."""
    generator = torch.Generator().manual_seed(0)
    places = torch.arange(2 * padding + 1)
    shifts = torch.cartesian_prod(places, places)
    pictures = torch.rand(len(shifts), *size, 3, generator=generator)
    found = random_crop(pictures, shifts, padding)
    edge = ((padding, padding), (padding, padding), (0, 0))
    for picture, (row, column), result in zip(pictures.numpy(), shifts.tolist(), found.numpy()):
        padded = np.pad(picture, edge, mode="edge")
        expected = padded[row : row + size[0], column : column + size[1]]
        np.testing.assert_array_equal(result, expected)
    assert torch.equal(found[len(shifts) // 2], pictures[len(shifts) // 2])  # the middle one
