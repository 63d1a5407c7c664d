"""Our batched layout against geomloss: the same algorithm, so equal to 1e-4 and far better."""

import pytest
import torch

from gcrl_gym.transport import sinkhorn_w2
from gcrl_gym.transport.sinkhorn import BATCHED_MAX_SAMPLES


def clouds(k, spread, dtype=torch.float32):
    """Action-like samples: squashed into [-1, 1]^6; independent (spread None) or neighbours."""
    generator = torch.Generator().manual_seed(k)
    a = torch.randn(128, k, 6, generator=generator, dtype=dtype).tanh()
    noise = torch.randn(128, k, 6, generator=generator, dtype=dtype)
    return a, noise.tanh() if spread is None else a + spread * noise


def value_and_gradients(a, b, blur, backend):
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    value = sinkhorn_w2(a, b, blur=blur, backend=backend)
    return value.detach(), *torch.autograd.grad(value, (a, b))


@pytest.mark.parametrize("spread", [None, 0.3, 0.1, 0.01])
@pytest.mark.parametrize("k", [1, 2, 4, 16])
@pytest.mark.parametrize("blur", [0.05, 0.5])
def test_equals_geomloss(k, spread, blur):
    a, b = clouds(k, spread)
    ours = value_and_gradients(a, b, blur, "auto")
    theirs = value_and_gradients(a, b, blur, "tensorized")
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-7)
    for mine, reference in zip(ours[1:], theirs[1:]):
        assert (mine - reference).norm() <= 1e-4 * reference.norm()


def test_equals_geomloss_in_float64_to_the_last_digits():
    a, b = clouds(4, None, torch.float64)
    ours = value_and_gradients(a, b, 0.05, "auto")
    theirs = value_and_gradients(a, b, 0.05, "tensorized")
    for mine, reference in zip(ours, theirs):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-12)


def test_auto_hands_large_sets_to_geomloss():
    a, b = clouds(BATCHED_MAX_SAMPLES + 1, None)
    assert torch.equal(sinkhorn_w2(a, b, backend="auto"), sinkhorn_w2(a, b, backend="tensorized"))
