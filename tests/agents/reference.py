"""Tools to write an agent's update a second time: plain autograd on copied float64 weights.

A test takes ``Reference(agent)``, writes the published formulas with ``mlp``, ``q`` and ``step``,
lets the agent update on the same batch, and calls ``agree``: every weight and every gradient.
Gradients are compared because Adam's first step hides the scale of a loss.
"""

import copy

import gymnasium as gym
import numpy as np
import torch
from geomloss import SamplesLoss
from gymnasium import spaces

from gcrl_gym.datasets import OfflineDataset

SMALL = {"hidden_sizes": (16, 16), "batch_size": 32, "device": "cpu", "matmul": "highest"}


def plain_dataset(rows=400, low=-1.0, high=1.0, action_dim=2, seed=0):
    """Noise without goals; episodes of 50, terminated and truncated in turn."""
    rng = np.random.default_rng(seed)
    ends = np.arange(rows) % 50 == 49
    return OfflineDataset.from_arrays(
        rng.normal(size=(rows, 3)).astype(np.float32),
        rng.uniform(low, high, size=(rows, action_dim)).astype(np.float32),
        rng.normal(size=rows).astype(np.float32),
        terminated=ends & (np.arange(rows) % 100 == 99),
        truncated=ends & (np.arange(rows) % 100 == 49),
        observation_space=spaces.Box(-np.inf, np.inf, (3,), np.float32),
        action_space=spaces.Box(low, high, (action_dim,), np.float32),
    )


def goal_data():
    """A maze and a random walk through it, with goals."""
    env = gym.make("gcrl/Nav2D-v0", maze="open")
    rng = np.random.default_rng(0)
    xy = np.cumsum(rng.uniform(-0.3, 0.3, size=(101, 2)), 0).astype(np.float32) + 5
    episode = {
        "observations": {"observation": xy, "achieved_goal": xy, "desired_goal": np.ones_like(xy)},
        "actions": rng.uniform(-1, 1, size=(100, 2)).astype(np.float32),
        "rewards": np.zeros(100),
        "terminations": np.zeros(100, bool),
        "truncations": np.arange(100) == 99,
    }
    return env, OfflineDataset.from_episodes([episode])


def draw(agent, scale=None):
    """A batch and its noise in float64; with ``scale`` the weights are made that much larger.

    Starting weights give Q near 0, where a wrong term can hide; larger ones do not.
    """
    agent.policy.double()
    if scale is not None:
        with torch.no_grad():
            for parameter in agent.policy.parameters():
                parameter.mul_(scale)
    batch = agent.draw_batch()
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            setattr(batch, name, value.double())
    batch.noise = {name: value.double() for name, value in batch.noise.items()}
    return batch


def relu(x):
    return x.clamp_min(0)


class Reference:
    """Copied weights by name ("critic.stack.weights.0"), and the gradients taken on the way."""

    def __init__(self, agent):
        state = agent.policy.networks.state_dict()
        self.state = {name: value.clone().requires_grad_() for name, value in state.items()}
        self.grads = {}

    def __getitem__(self, name):
        return self.state[name]

    def names(self, *prefixes):
        """Names of the parameters of networks."""
        return [n for n in self.state if any(n.startswith(f"{p}.") for p in prefixes)]

    def mlp(self, prefix, inputs, activation=relu):
        """An MLP with nn.Linear layers called ``prefix.0``, ``prefix.2``, .."""
        layers = sorted(
            int(name[len(prefix) + 1 :].split(".")[0])
            for name in self.state
            if name.startswith(f"{prefix}.") and name.endswith(".weight")
        )
        for layer in layers:
            inputs = inputs @ self[f"{prefix}.{layer}.weight"].T + self[f"{prefix}.{layer}.bias"]
            if layer != layers[-1]:
                inputs = activation(inputs)
        return inputs

    def q(self, name, inputs, actions, activation=relu):
        """Q values of all members of a stacked critic, one at a time: [members, B]."""
        weights = [self[n] for n in self.names(name) if ".weights." in n]
        biases = [self[n] for n in self.names(name) if ".biases." in n]
        scales = [self[n] for n in self.names(name) if ".norm_scales." in n]
        shifts = [self[n] for n in self.names(name) if ".norm_shifts." in n]
        values = []
        for member in range(len(weights[0])):
            hidden = torch.cat([inputs, actions], -1)
            for layer, (weight, bias) in enumerate(zip(weights, biases)):
                hidden = hidden @ weight[member] + bias[member, 0]
                if layer < len(weights) - 1:
                    hidden = activation(hidden)
                    if scales:
                        mean = hidden.mean(-1, keepdim=True)
                        var = ((hidden - mean) ** 2).mean(-1, keepdim=True)
                        hidden = (hidden - mean) / (var + 1e-6).sqrt()
                        hidden = hidden * scales[layer][member, 0] + shifts[layer][member, 0]
            values.append(hidden[:, 0])
        return torch.stack(values)

    def step(self, prefixes, loss, lr=3e-4, eps=1e-8):
        """First step of Adam from its definition: lr * g / (|g| + eps)."""
        names = self.names(*([prefixes] if isinstance(prefixes, str) else prefixes))
        grads = torch.autograd.grad(loss, [self.state[name] for name in names])
        for name, grad in zip(names, grads):
            self.grads[name] = grad
            new = self.state[name].detach() - lr * grad / (grad.abs() + eps)
            self.state[name] = new.requires_grad_()

    def soft_update(self, target, source, tau):
        for name in self.names(target):
            online = self.state[name.replace(target, source, 1)]
            self.state[name] = ((1 - tau) * self.state[name] + tau * online).detach()

    def agree(self, agent, rtol=1e-6):
        """Weights and gradients are the agent's; float64 leaves no excuse of rounding."""
        found = dict(agent.policy.networks.named_parameters())
        assert set(found) == set(self.state)
        for name, value in self.state.items():
            torch.testing.assert_close(
                found[name].detach(), value.detach(), rtol=rtol, atol=1e-12, msg=name
            )
        for name, grad in self.grads.items():
            scale = float(grad.abs().max())
            torch.testing.assert_close(
                found[name].grad, grad, rtol=rtol, atol=1e-7 * scale, msg=f"gradient of {name}"
            )


def sinkhorn_w2(samples, reference):
    """Squared W2 of sample sets [B, K, A]; geomloss's cost is half the squared distance."""
    return 2 * SamplesLoss("sinkhorn", p=2, blur=0.05)(samples, reference.detach()).mean()


def gaussian_w2(mean, std, other_mean, other_std):
    """Squared W2 of diagonal Gaussians, mean over states."""
    return ((mean - other_mean) ** 2).sum(-1).mean() + ((std - other_std) ** 2).sum(-1).mean()


def each(noise, sample):
    """Stack ``sample(z)`` over the K noises [B, K, A]."""
    return torch.stack([sample(noise[:, k]) for k in range(noise.shape[1])], 1)


def clone(batch):
    return copy.deepcopy(batch)
