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


def gelu(x):
    """GELU in its tanh form, from its definition."""
    return 0.5 * x * (1 + torch.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


def stir(agent, size=0.1, seed=0):
    """Move every weight at random, so that no bias is 0 and no target equals its network."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(size * noise)


def picture_data(discrete=False, vector_goals=False, side=8, steps=40):
    """Episodes of random pictures; goals are pictures too, or two numbers."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(3):
        states = rng.integers(0, 256, size=(steps + 1, side, side, 3), dtype=np.uint8)
        if vector_goals:
            places = rng.normal(size=(steps + 1, 2)).astype(np.float32)
            states = {"observation": states, "achieved_goal": places, "desired_goal": places}
        box = rng.uniform(-1, 1, size=(steps, 2)).astype(np.float32)
        actions = rng.integers(0, 4, size=steps) if discrete else box
        episodes.append({"observations": states, "actions": actions})
    space = spaces.Discrete(4) if discrete else spaces.Box(-1, 1, (2,), np.float32)
    return OfflineDataset.from_episodes(
        episodes, action_space=space, goal_is_observation=not vector_goals
    )


def impala(ref, prefix, inputs, pictures):
    """The encoder under a prefix, its convolutions and maxima from their definitions.

    Pictures, given by their shapes, lie flat in the inputs; what follows them is passed on.
    """
    laid = []
    for shape in pictures:
        laid.append(inputs[:, : np.prod(shape)].reshape(-1, *shape))
        inputs = inputs[:, np.prod(shape) :]
    hidden = torch.cat(laid, -1)
    for stack in sorted({n.split(".stacks.")[1][0] for n in ref.names(prefix) if ".stacks." in n}):
        name = f"{prefix}.stacks.{stack}"
        hidden = maxima(convolution(hidden, ref, f"{name}.first"))
        blocks = {n.split(".blocks.")[1][0] for n in ref.names(name) if ".blocks." in n}
        for block in sorted(blocks):
            inner = convolution(relu(hidden), ref, f"{name}.blocks.{block}.1")
            hidden = hidden + convolution(relu(inner), ref, f"{name}.blocks.{block}.3")
    flat = relu(hidden).flatten(1)
    features = gelu(flat @ ref[f"{prefix}.dense.weight"].T + ref[f"{prefix}.dense.bias"])
    return torch.cat([features, inputs], -1)


def convolution(pictures, ref, name):
    """3 x 3, zeros outside; pictures [B, H, W, C]."""
    _, height, width, _ = pictures.shape
    padded = torch.nn.functional.pad(pictures, (0, 0, 1, 1, 1, 1))
    total = ref[f"{name}.bias"]
    for i in range(3):
        for j in range(3):
            part = padded[:, i : i + height, j : j + width]
            total = total + part @ ref[f"{name}.weight"][:, :, i, j].T
    return total


def maxima(pictures):
    """Maxima over 3 x 3 at every second place, with the padding that XLA calls SAME."""
    for axis in (1, 2):
        size = pictures.shape[axis]
        places = -(-size // 2)
        before = max(2 * (places - 1) + 3 - size, 0) // 2
        taken = []
        for place in range(places):
            first = 2 * place - before
            rows = range(max(first, 0), min(first + 3, size))
            taken.append(pictures.index_select(axis, torch.tensor(rows)).max(axis).values)
        pictures = torch.stack(taken, axis)
    return pictures


def cropped(pictures, shifts, padding=3):
    """Flat pictures [B, H * H * 3], each cut out of itself with its edges repeated."""
    side = int((pictures.shape[1] / 3) ** 0.5)
    moved = []
    for picture, (row, column) in zip(pictures.reshape(-1, side, side, 3).numpy(), shifts):
        edge = ((padding, padding), (padding, padding), (0, 0))
        moved.append(np.pad(picture, edge, mode="edge")[row : row + side, column : column + side])
    return torch.as_tensor(np.stack(moved)).flatten(1)


def normalised(hidden, scale, shift):
    """Layer normalisation from its definition, with Flax's epsilon."""
    mean = hidden.mean(-1, keepdim=True)
    var = ((hidden - mean) ** 2).mean(-1, keepdim=True)
    return (hidden - mean) / (var + 1e-6).sqrt() * scale + shift


def sequential(ref, prefix, inputs):
    """An MLP of GELU layers, each normalised after its activation where it has a scale: [B, out].

    Its layers are called ``prefix.0`` (linear), ``prefix.2`` (normalisation or linear), ..
    """
    places = {int(n[len(prefix) + 1 :].split(".")[0]) for n in ref.names(prefix)}
    for place in sorted(places):
        weight, bias = ref[f"{prefix}.{place}.weight"], ref[f"{prefix}.{place}.bias"]
        if weight.dim() == 1:
            inputs = normalised(inputs, weight, bias)
        else:
            inputs = inputs @ weight.T + bias
            inputs = inputs if place == max(places) else gelu(inputs)
    return inputs


def stacked(ref, prefix, inputs):
    """All outputs of a stack of GELU networks, one member at a time: [members, B, out]."""
    kinds = ("weights", "biases", "norm_scales", "norm_shifts")
    weights, biases, scales, shifts = (
        [ref[n] for n in ref.names(prefix) if f".{kind}." in n] for kind in kinds
    )
    outputs = []
    for member in range(len(weights[0])):
        hidden = inputs
        for layer, (weight, bias) in enumerate(zip(weights, biases)):
            hidden = hidden @ weight[member] + bias[member, 0]
            if layer < len(weights) - 1:
                hidden = gelu(hidden)
                if scales:
                    hidden = normalised(hidden, scales[layer][member, 0], shifts[layer][member, 0])
        outputs.append(hidden)
    return torch.stack(outputs)
