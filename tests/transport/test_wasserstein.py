import math
import shutil

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from gcrl_gym.errors import UserError
from gcrl_gym.transport import exact_w2, gaussian_w2, sinkhorn_w2, squared_l2
from gcrl_gym.transport.wasserstein import EXACT_MAX_SAMPLES


def uniform(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=dtype) * 2 - 1


def normal(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def pot_w2(a, b):
    """Mean over states of the exact discrete optimal transport cost, by the POT library."""
    pairs = zip(a.double().numpy(), b.double().numpy())
    return float(np.mean([ot.emd2([], [], ot.dist(x, y)) for x, y in pairs]))


def assignment_w2(a, b):
    values = []
    for x, y in zip(a.double().numpy(), b.double().numpy()):
        cost = ((x[:, None] - y[None]) ** 2).sum(-1)
        values.append(cost[linear_sum_assignment(cost)].mean())
    return float(np.mean(values))


def sinkhorn(backend):
    return lambda a, b: sinkhorn_w2(a, b, backend=backend)


SAMPLED = {
    "sinkhorn": sinkhorn("tensorized"),
    "sinkhorn-auto": sinkhorn("auto"),
    "exact": exact_w2,
}
sampled = pytest.mark.parametrize("distance", SAMPLED.values(), ids=SAMPLED.keys())


# One quantity: squared, summed over dims, averaged over states ------------------------------------


@sampled
def test_two_points_at_squared_distance_two_read_two_not_one(distance):
    a = torch.zeros(1, 1, 2)
    b = torch.ones(1, 1, 2)
    assert distance(a, b).item() == pytest.approx(2.0, abs=1e-5)


def test_closed_forms_at_squared_distance_two_read_two():
    zero, one = torch.zeros(1, 2), torch.ones(1, 2)
    assert squared_l2(zero, one).item() == 2.0
    assert gaussian_w2(zero, one, one, one).item() == 2.0


@sampled
def test_sum_over_dims_and_mean_over_states(distance):
    a = torch.zeros(3, 2, 4)
    b = torch.zeros(3, 2, 4)
    b[0] = 0.5  # one of three states is 0.5 away in each of four dims
    assert distance(a, b).item() == pytest.approx(4 * 0.25 / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("mean_b", "std_a", "std_b", "expected"),
    [
        ([0.0, 0.0], [1.0, 1.0], [1.0, 1.0], 0.0),
        ([3.0, 4.0], [1.0, 1.0], [1.0, 1.0], 25.0),
        ([0.0, 0.0], [1.0, 2.0], [3.0, 1.0], 5.0),
        ([1.0, 0.0], [0.5, 0.5], [0.25, 0.5], 1.0625),
    ],
)
def test_gaussian_closed_form(mean_b, std_a, std_b, expected):
    mean_a = torch.zeros(2)
    value = gaussian_w2(mean_a, torch.tensor(std_a), torch.tensor(mean_b), torch.tensor(std_b))
    assert value.item() == pytest.approx(expected)


def test_gaussian_state_independent_std_broadcasts():
    mean_a, mean_b = uniform(8, 3, seed=1), uniform(8, 3, seed=2)
    std_a, std_b = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.3, 0.3, 0.3])
    full = gaussian_w2(mean_a, std_a.expand(8, 3), mean_b, std_b.expand(8, 3))
    assert torch.equal(gaussian_w2(mean_a, std_a, mean_b, std_b), full)


# Oracles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "seed"), [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5)])
@pytest.mark.parametrize("spread", [1.0, 0.1, 0.01])
def test_exact_equals_scipy_linear_assignment(k, seed, spread):
    a = uniform(64, k, 6, seed=seed)
    b = a.flip(1) + spread * normal(64, k, 6, seed=seed + 10)
    assert exact_w2(a, b).item() == pytest.approx(assignment_w2(a, b), rel=1e-6)


def test_exact_ignores_reduced_matmul_precision():
    a, b = uniform(256, 4, 6, seed=1), uniform(256, 4, 6, seed=2)
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert exact_w2(a, b).item() == pytest.approx(assignment_w2(a, b), rel=1e-6)
    finally:
        torch.set_float32_matmul_precision(previous)


def test_sinkhorn_tends_to_optimal_transport_as_blur_falls():
    a = uniform(64, 4, 3)
    b = a + 0.1 * normal(64, 4, 3, seed=1)
    reference = pot_w2(a, b)
    tolerances = {1.0: 0.6, 0.5: 0.2, 0.3: 0.05, 0.2: 0.01, 0.1: 2e-3, 0.05: 1e-4}
    errors = []
    for blur, tolerance in tolerances.items():
        errors.append(abs(sinkhorn_w2(a, b, blur=blur).item() / reference - 1))
        assert errors[-1] < tolerance, blur
    assert errors == sorted(errors, reverse=True)


def test_sinkhorn_of_distant_sets_stays_below_optimal_transport_by_a_few_percent():
    a, b = uniform(256, 4, 3, seed=1), uniform(256, 4, 3, seed=2)
    reference = pot_w2(a, b)
    for blur in (0.05, 0.01):
        assert 0.95 * reference < sinkhorn_w2(a, b, blur=blur).item() <= reference * (1 + 1e-6)


def test_the_distances_agree_on_one_pair_of_gaussian_policies():
    mean, shift, std_a, std_b = torch.zeros(1, 2), 0.5, 0.2, 0.3
    closed = gaussian_w2(
        mean, torch.full((1, 2), std_a), mean + shift, torch.full((1, 2), std_b)
    ).item()
    assert closed == pytest.approx(0.52)
    # Large K, independent noise: what remains is the sampling bias (positive) and Sinkhorn's own.
    a = std_a * normal(2, 1500, 2, seed=1)
    b = std_b * normal(2, 1500, 2, seed=2) + shift
    assert sinkhorn_w2(a, b).item() == pytest.approx(closed, rel=0.03)
    assert pot_w2(a, b) == pytest.approx(closed, rel=0.03)
    # Shared noise couples two Gaussians optimally, so K = 4 over many states is unbiased.
    noise = normal(5000, 4, 2, seed=3)
    a, b = std_a * noise, std_b * noise + shift
    for value in (exact_w2(a, b), squared_l2(a, b), sinkhorn_w2(a, b)):
        assert value.item() == pytest.approx(closed, rel=0.01)


def test_independent_noise_is_biased_at_small_k_and_shared_noise_is_not():
    sigma, expected = 0.3, 2 * 0.157  # geomloss's half, measured on the published settings
    a = sigma * normal(4096, 4, 3, seed=1)
    b = sigma * normal(4096, 4, 3, seed=2)
    assert sinkhorn_w2(a, b).item() == pytest.approx(expected, rel=0.05)
    assert sinkhorn_w2(a, a.clone()).item() == pytest.approx(0.0, abs=1e-6)
    assert exact_w2(a, a.clone()).item() == 0.0
    more = sinkhorn_w2(sigma * normal(256, 64, 3, seed=3), sigma * normal(256, 64, 3, seed=4))
    assert more.item() == pytest.approx(2 * 0.031, rel=0.1)


# Gradients ---------------------------------------------------------------------------------------


@sampled
def test_gradient_equals_finite_differences(distance):
    # Matched points nearer than any others: there geomloss's single pass of annealing converges.
    corners = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]], dtype=torch.float64)
    b = corners + 0.1 * normal(3, 4, 2, seed=1, dtype=torch.float64)
    a = (b.flip(1) + 0.3 * normal(3, 4, 2, seed=2, dtype=torch.float64)).requires_grad_()
    distance(a, b).backward()
    step, numeric = 1e-6, torch.zeros_like(a)
    with torch.no_grad():
        for index in np.ndindex(*a.shape):
            for sign in (1, -1):
                moved = a.clone()
                moved[index] += sign * step
                numeric[index] += sign * distance(moved, b) / (2 * step)
    torch.testing.assert_close(a.grad, numeric, rtol=1e-6, atol=1e-7)


@sampled
def test_gradient_of_matched_points_is_the_displacement(distance):
    # d/da_i of mean_K |a_i - b_i|^2 = 2 (a_i - b_i) / K: a doubled gradient would show here.
    a = torch.tensor([[[-1.0, -1.0], [1.0, 1.0]]], requires_grad=True)
    b = torch.tensor([[[-0.9, -1.0], [1.0, 0.8]]])
    distance(a, b).backward()
    torch.testing.assert_close(a.grad, a.detach() - b, rtol=1e-4, atol=1e-5)


@sampled
def test_gradient_flows_into_both_arguments_unless_detached(distance):
    a = uniform(4, 3, 2, seed=1).requires_grad_()
    b = uniform(4, 3, 2, seed=2).requires_grad_()
    distance(a, b.detach()).backward()
    assert b.grad is None
    alone = a.grad.clone()
    a.grad = None
    distance(a, b).backward()
    torch.testing.assert_close(a.grad, alone)
    assert b.grad.abs().sum() > 0


POINT_SETS = {
    "identical sets": (uniform(4, 4, 2), uniform(4, 4, 2)),
    "all points equal": (torch.full((4, 4, 2), 0.3), torch.full((4, 4, 2), 0.3)),
    "all points zero": (torch.zeros(4, 4, 2), torch.zeros(4, 4, 2)),
    "one cloud a point": (torch.zeros(4, 4, 2), uniform(4, 4, 2)),
    "collinear": (
        torch.arange(4.0).view(1, 4, 1).expand(4, 4, 2).contiguous(),
        torch.ones(4, 4, 2),
    ),
    "almost equal": (torch.zeros(4, 4, 2), torch.full((4, 4, 2), 1e-30)),
    "far": (uniform(4, 4, 2), uniform(4, 4, 2, seed=1) + 1e4),
}


@sampled
@pytest.mark.parametrize("name", POINT_SETS)
def test_value_and_gradient_are_finite(distance, name):
    a, b = POINT_SETS[name]
    a = a.clone().requires_grad_()
    value = distance(a, b)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(a.grad).all()
    assert value.item() == pytest.approx(pot_w2(a.detach(), b), rel=0.05, abs=1e-5)
    if name in ("identical sets", "all points equal", "all points zero"):
        torch.testing.assert_close(a.grad, torch.zeros_like(a), rtol=0, atol=1e-4)


@sampled
def test_nan_reaches_the_value_instead_of_an_exception(distance):
    a = torch.full((2, 3, 2), math.nan)
    assert torch.isnan(distance(a, torch.zeros(2, 3, 2)))


# Behaviour around the functions ------------------------------------------------------------------


@sampled
def test_gradient_mode_of_the_caller_is_kept(distance):
    a, b = uniform(2, 3, 2, seed=1), uniform(2, 3, 2, seed=2)
    with torch.no_grad():
        distance(a, b)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


@sampled
def test_samples_in_any_memory_layout(distance):
    a, b = uniform(4, 8, 2, seed=1), uniform(4, 8, 2, seed=2)  # [K, B, d]
    strided = distance(a.transpose(0, 1), b.transpose(0, 1))
    packed = distance(a.transpose(0, 1).contiguous(), b.transpose(0, 1).contiguous())
    torch.testing.assert_close(strided, packed)


def test_exact_names_its_limit_and_the_alternative():
    a = uniform(2, EXACT_MAX_SAMPLES + 1, 2)
    with pytest.raises(UserError, match=r'at most 6 samples per state, not 7.*w2="sinkhorn"'):
        exact_w2(a, a)


def test_online_without_pykeops_is_one_clear_error():
    if pytest.importorskip("importlib.util").find_spec("pykeops"):
        pytest.skip("pykeops is installed")
    a = uniform(2, 4, 2)
    with pytest.raises(UserError, match="pip install pykeops"):
        sinkhorn_w2(a, a, backend="online")


@pytest.mark.parametrize("blur", [0.0, -1.0, math.nan, math.inf])
def test_impossible_blur(blur):
    a = uniform(2, 4, 2)
    with pytest.raises(UserError, match="blur is"):
        sinkhorn_w2(a, a, blur=blur)


def test_unknown_backend():
    a = uniform(2, 4, 2)
    with pytest.raises(UserError, match='choose "tensorized", "online" or "auto"'):
        sinkhorn_w2(a, a, backend="multiscale")


@sampled
@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 3, 2), (1, 4, 2), (4, 2)])
def test_shapes_that_do_not_match(distance, shape):
    with pytest.raises(UserError, match=r"\[2, 4, 2\]"):
        distance(uniform(2, 4, 2), uniform(*shape))


@pytest.mark.slow
@pytest.mark.filterwarnings("error:Dynamo detected")
def test_exact_compiles_into_one_graph():
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    a, b = uniform(8, 4, 2, seed=1).requires_grad_(), uniform(8, 4, 2, seed=2)
    value = torch.compile(exact_w2, fullgraph=True)(a, b)
    torch.testing.assert_close(value, exact_w2(a, b))
    (gradient,) = torch.autograd.grad(value, a)
    torch.testing.assert_close(gradient, torch.autograd.grad(exact_w2(a, b), a)[0])
