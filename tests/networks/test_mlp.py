"""A stack of networks is its members, each as nn.Linear would be."""

import pytest
import torch
from torch import nn

from gcrl_gym.networks import MLP, StackedCritic, StackedMLP
from gcrl_gym.networks.mlp import GROUP

# One group, with and without a gradient several, and a last group that is not full.
COUNTS = (1, 3, GROUP + 1, 2 * GROUP + 3)


@pytest.mark.parametrize("members", COUNTS)
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"layer_norm": True, "activation": "gelu"}, {"layer_norm": True}], ids=str
)
@pytest.mark.parametrize("hidden", [(), (8,), (8, 16)])
def test_stack_equals_separate_networks(members, outputs, options, hidden):
    torch.manual_seed(0)
    stack, inputs = StackedMLP(members, 5, outputs, hidden, **options), torch.randn(7, 5)
    stack.double()
    inputs = inputs.double()
    singles = [MLP(5, outputs, hidden, **options).double() for _ in range(members)]
    with torch.no_grad():
        for index, single in enumerate(singles):
            linears = [layer for layer in single if isinstance(layer, nn.Linear)]
            norms = [layer for layer in single if isinstance(layer, nn.LayerNorm)]
            for layer, linear in enumerate(linears):
                linear.weight.copy_(stack.weights[layer][index].T)
                linear.bias.copy_(stack.biases[layer][index, 0])
            for layer, norm in enumerate(norms):
                norm.weight.copy_(stack.norm_scales[layer][index, 0].uniform_(0.5, 2))
                norm.bias.copy_(stack.norm_shifts[layer][index, 0].uniform_(-1, 1))
    expected = torch.stack([single(inputs) for single in singles])
    close = {"rtol": 1e-12, "atol": 1e-12}
    own = torch.stack([inputs] * members)
    for found in (stack(inputs), stack(own)):
        torch.testing.assert_close(found, expected, **close)
    with torch.no_grad():
        torch.testing.assert_close(stack(inputs), expected, **close)
        torch.testing.assert_close(stack(own), expected, **close)
    last = members - 1
    torch.testing.assert_close(stack.member(last, inputs), expected[last], **close)

    cotangent = torch.randn_like(expected)
    stack(inputs).backward(cotangent)
    expected.backward(cotangent)
    for layer, weight in enumerate(stack.weights):
        grads = [[x for x in s if isinstance(x, nn.Linear)][layer].weight.grad.T for s in singles]
        torch.testing.assert_close(weight.grad, torch.stack(grads), **close)


def by_autograd(stack, inputs, first):
    """Outputs and each member's gradient in the last columns, twice differentiable."""
    own = torch.stack([inputs] * stack.members).requires_grad_()
    outputs = stack(own)
    (gradients,) = torch.autograd.grad(outputs.sum(), own, create_graph=True)
    return outputs, gradients[..., first:]


@pytest.mark.parametrize("members", COUNTS)
@pytest.mark.parametrize("hidden", [(8,), (16, 8, 16)])
def test_gradients_in_the_inputs_are_autograds(members, hidden):
    """Values, gradients, and what a loss of both sends into the weights."""
    torch.manual_seed(0)
    stack, inputs = StackedMLP(members, 6, 1, hidden).double(), torch.randn(9, 6).double()
    weights = list(stack.parameters())
    results = []
    for outputs, gradients in (stack.with_gradients(inputs, 4), by_autograd(stack, inputs, 4)):
        loss = outputs.square().mean() + gradients.pow(3).sum() + (outputs * gradients).sum()
        second = torch.autograd.grad(loss, weights, allow_unused=True)
        results.append([outputs, gradients, *second])
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("members", COUNTS)
def test_each_row_has_its_own_members_gradient(members):
    torch.manual_seed(1)
    stack, inputs = StackedMLP(members, 6, 1, (16, 16)).double(), torch.randn(40, 6).double()
    which = torch.randint(members, (40,))
    which[which == 1] = 0  # one that nobody asks for
    expected = by_autograd(stack, inputs, 2)[1][which, torch.arange(40)]
    found = stack.gradients_of(which, inputs, 2)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=1e-12)
    assert not found.requires_grad


@pytest.mark.parametrize(
    "options",
    [{"activation": "gelu"}, {"layer_norm": True}, {"outputs": 2}, {"hidden_sizes": ()}],
    ids=str,
)
def test_gradients_of_other_networks_are_refused(options):
    stack = StackedMLP(2, 3, **({"outputs": 1, "hidden_sizes": (4,)} | options))
    with pytest.raises(ValueError, match="hidden layers, ReLU, one output"):
        stack.with_gradients(torch.zeros(1, 3), 1)
    with pytest.raises(ValueError, match="hidden layers, ReLU, one output"):
        stack.gradients_of(torch.zeros(1, dtype=torch.long), torch.zeros(1, 3), 1)


def test_members_start_apart_and_within_torchs_bounds():
    stack = StackedMLP(2, 100, 1, (50,))
    assert not torch.equal(stack.weights[0][0], stack.weights[0][1])
    assert 0.09 < float(stack.weights[0].detach().abs().max()) <= 0.1  # 1 / sqrt(100)
    assert float(stack.weights[1].detach().abs().max()) <= 50**-0.5


def test_first_critic_is_row_zero():
    critic = StackedCritic(4, 2, (8, 8))
    inputs, actions = torch.randn(6, 4), torch.randn(6, 2)
    both = critic(inputs, actions)
    assert both.shape == (2, 6)
    torch.testing.assert_close(critic.first(inputs, actions), both[0])
