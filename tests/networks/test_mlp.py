"""A stack of networks is its members, each as nn.Linear would be."""

import pytest
import torch
from torch import nn

from gcrl_gym.networks import MLP, StackedCritic, StackedMLP


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 16)])
def test_stack_equals_separate_networks(outputs, hidden):
    torch.manual_seed(0)
    stack, inputs = StackedMLP(3, 5, outputs, hidden), torch.randn(7, 5)
    for index in range(3):
        single = MLP(5, outputs, hidden)
        linears = [layer for layer in single if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for layer, linear in enumerate(linears):
                linear.weight.copy_(stack.weights[layer][index].T)
                linear.bias.copy_(stack.biases[layer][index, 0])
        expected = single(inputs)
        torch.testing.assert_close(stack(inputs)[index], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(stack.member(index, inputs), expected, rtol=1e-5, atol=1e-6)


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
