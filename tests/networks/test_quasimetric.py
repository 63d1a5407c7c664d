"""Quasimetrics: union lengths by brute force, the axioms, and gradients by differences."""

import pytest
import torch

from gcrl_gym.networks.quasimetric import interval_union, iqe_distance, mrn_distance


def union_on_a_grid(starts, ends, cells=200_000):
    """Length of a union, counted on a fine grid."""
    low, high = float(starts.min()), float(ends.max())
    if high <= low:
        return 0.0
    points = torch.linspace(low, high, cells, dtype=torch.float64)
    covered = torch.zeros(cells, dtype=torch.bool)
    for start, end in zip(starts.tolist(), ends.tolist()):
        covered |= (points >= start) & (points < end)
    return float(covered.double().mean()) * (high - low)


@pytest.mark.parametrize("seed", range(20))
def test_union_by_counting(seed):
    torch.manual_seed(seed)
    starts = torch.randn(6, dtype=torch.float64)
    ends = starts + torch.randn(6, dtype=torch.float64)
    expected = union_on_a_grid(starts, ends)
    assert float(interval_union(starts, ends)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("starts", "ends", "length"),
    [
        ([0.0, 1.0], [2.0, 3.0], 3.0),  # they overlap
        ([0.0, 2.0], [1.0, 3.0], 2.0),  # they do not
        ([0.0, 1.0], [4.0, 2.0], 4.0),  # one inside the other
        ([0.0, 1.0, 1.5], [4.0, 0.0, 5.0], 5.0),  # an empty one
        ([1.0, 2.0], [0.0, 1.0], 0.0),  # only empty ones
        ([0.0, 0.0], [1.0, 1.0], 1.0),  # the same twice
    ],
)
def test_union_by_hand(starts, ends, length):
    assert float(interval_union(torch.tensor(starts), torch.tensor(ends))) == length


def distances():
    mixture = torch.tensor(0.3, dtype=torch.float64)
    return {
        "iqe": lambda s, g: iqe_distance(s, g, mixture, 4),
        "mrn": mrn_distance,
    }


@pytest.mark.parametrize("name", ["iqe", "mrn"])
def test_axioms(name):
    distance = distances()[name]
    torch.manual_seed(0)
    a, b, c = torch.randn(3, 500, 16, dtype=torch.float64)
    assert float(distance(a, b).min()) > 0
    torch.testing.assert_close(distance(a, a), torch.zeros(500).double(), atol=1e-5, rtol=0)
    assert bool((distance(a, c) <= distance(a, b) + distance(b, c) + 1e-9).all())
    assert float((distance(a, b) - distance(b, a)).abs().max()) > 0.1  # not symmetric


@pytest.mark.parametrize("name", ["iqe", "mrn"])
def test_gradients(name):
    torch.manual_seed(1)
    a, b = torch.randn(2, 5, 16, dtype=torch.float64)
    inputs = (a.requires_grad_(), b.requires_grad_())
    assert torch.autograd.gradcheck(distances()[name], inputs)


def test_mixture_pools_mean_and_maximum():
    state = torch.tensor([[0.0, 0.0, 0.0, 0.0]])
    goal = torch.tensor([[1.0, 2.0, 4.0, 3.0]])  # components of 2: unions 2 and 4
    for weight, expected in ((0.0, 4.0), (1.0, 3.0), (0.5, 3.5)):
        assert float(iqe_distance(state, goal, torch.tensor(weight), 2)) == expected


def test_mrn_by_hand():
    state = torch.tensor([[3.0, 4.0, 1.0, 5.0]])
    goal = torch.tensor([[0.0, 0.0, 2.0, 3.0]])
    assert float(mrn_distance(state, goal)) == pytest.approx(5.0 + 2.0)
