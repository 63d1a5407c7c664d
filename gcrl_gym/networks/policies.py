"""Policies: every one maps (state-and-goal, ...) to actions in [-1, 1], or to class scores.

Continuous ones share an interface, so that a chain can mix them:

    kind                  "deterministic", "gaussian" or "stochastic": what a distance may assume
    mode(inputs)          the representative action [B, A]: mean, z = 0, or the action itself
    sample(inputs, z)     actions [B, A], differentiable, from noise z ~ N(0, I) [B, A]
    samples(inputs, z)    actions [B, K, A] from K noises per state [B, K, A]
    sample_with_log_prob  actions and log densities [B], 0 for a class without densities
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from gcrl_gym.networks.encoders import ImpalaEncoder, with_encoder
from gcrl_gym.networks.mlp import MLP, Activation, Init

Kind = Literal["deterministic", "gaussian", "stochastic"]


class ContinuousPolicy(nn.Module):
    """The interface of policies with continuous actions; see the module."""

    kind: ClassVar[Kind]
    pass_of: ClassVar[str] = ""
    """Name of the method that runs the network on inputs alone; "" where noise goes through it."""

    def once(self, inputs: Tensor) -> Self:
        """Return a view of the policy whose network has run on ``inputs`` [B, D] already.

        Asked for anything at these inputs it does not run again; it must not be asked for others.
        """
        if not self.pass_of:
            return self
        outputs = getattr(self, self.pass_of)(inputs)
        view = copy.copy(self)  # with the same parameters
        setattr(view, self.pass_of, lambda _inputs: outputs)
        return view

    def mode(self, inputs: Tensor) -> Tensor:
        """Return the representative action [B, A] of inputs [B, D]."""
        raise NotImplementedError

    def sample(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return actions [B, A] for inputs [B, D] and standard normal noise [B, A]."""
        raise NotImplementedError

    def samples(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return actions [B, K, A] for inputs [B, D] and K noise vectors per state [B, K, A]."""
        batch, count, width = noise.shape
        tiled = (
            inputs.unsqueeze(1).expand(batch, count, inputs.shape[-1]).reshape(batch * count, -1)
        )
        return self.sample(tiled, noise.reshape(batch * count, width)).view(batch, count, width)

    def sample_with_log_prob(self, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return `sample` and the logarithm of its density [B]; 0 where there is no density."""
        actions = self.sample(inputs, noise)
        return actions, actions.new_zeros(len(actions))


class DeterministicPolicy(ContinuousPolicy):
    """a = tanh(f(s, g)).

    Args:
        inputs: width of the observation and goal, concatenated.
        action_dim: width of the action.
        hidden_sizes: widths of the hidden layers.
        activation: see `networks.mlp.MLP`.
        init: see `networks.mlp.initialize`.
    """

    kind = "deterministic"
    pass_of = "mode"

    def __init__(
        self,
        inputs: int,
        action_dim: int,
        hidden_sizes: Sequence[int],
        activation: Activation = "relu",
        init: Init = "torch",
    ) -> None:
        super().__init__()
        self.body = MLP(inputs, action_dim, hidden_sizes, activation, init=init)

    def mode(self, inputs: Tensor) -> Tensor:
        """Return the action."""
        return torch.tanh(self.body(inputs))

    def sample(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return the action; the noise is not used."""
        return self.mode(inputs)

    def samples(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return the action K times."""
        return self.mode(inputs).unsqueeze(1).expand_as(noise)


class TransportMap(ContinuousPolicy):
    """Policy as a map of noise: a = tanh(f(s, g, z)) with z ~ N(0, I) of the action's width.

    Args:
        inputs: width of the observation and goal, concatenated.
        action_dim: width of the action and of z.
        hidden_sizes: widths of the hidden layers.
    """

    kind = "stochastic"

    def __init__(self, inputs: int, action_dim: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.body = MLP(inputs + action_dim, action_dim, hidden_sizes)

    def forward(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return actions [B, A] in (-1, 1) for inputs [B, D] and noise [B, A]."""
        return torch.tanh(self.body(torch.cat([inputs, noise], dim=-1)))

    def mode(self, inputs: Tensor) -> Tensor:
        """Return the action at z = 0."""
        return self.forward(inputs, inputs.new_zeros(len(inputs), self.action_dim))

    def sample(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return the actions at z."""
        return self.forward(inputs, noise)


class GaussianPolicy(ContinuousPolicy):
    """Diagonal Gaussian with a state-independent scale; samples are cut off at [-1, 1].

    Args:
        inputs: width of the observation and goal, concatenated.
        action_dim: width of the action.
        hidden_sizes: widths of the hidden layers.
        squash_mean: the mean is tanh(f(s, g)), as in IQL, instead of f(s, g).
        activation: see `networks.mlp.MLP`.
        init: see `networks.mlp.initialize`.
        encoder: what the network sees the inputs through.
    """

    kind = "gaussian"
    pass_of = "gaussian"

    def __init__(
        self,
        inputs: int,
        action_dim: int,
        hidden_sizes: Sequence[int],
        squash_mean: bool = False,
        activation: Activation = "relu",
        init: Init = "torch",
        encoder: ImpalaEncoder | None = None,
    ) -> None:
        super().__init__()
        self.squash_mean = squash_mean
        inputs = inputs if encoder is None else encoder.outputs
        body = MLP(inputs, action_dim, hidden_sizes, activation, init=init)
        self.mean = with_encoder(encoder, body)
        self.log_std = nn.Parameter(torch.zeros(action_dim))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mean action [B, A] of inputs [B, D], not cut off."""
        mean: Tensor = self.mean(inputs)
        return torch.tanh(mean) if self.squash_mean else mean

    def gaussian(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return means [B, A] and standard deviations [A], exp of log_std in [-20, 2]."""
        return self.forward(inputs), self.log_std.clamp(-20.0, 2.0).exp()

    def mode(self, inputs: Tensor) -> Tensor:
        """Return the mean, cut off."""
        return self.forward(inputs).clamp(-1.0, 1.0)

    def sample(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return mean + std * noise, cut off."""
        mean, std = self.gaussian(inputs)
        return (mean + std * noise).clamp(-1.0, 1.0)

    def samples(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return K actions per state; they share its mean."""
        mean, std = self.gaussian(inputs)
        return (mean.unsqueeze(1) + std * noise).clamp(-1.0, 1.0)

    def log_prob(self, inputs: Tensor, actions: Tensor) -> Tensor:
        """Return the logarithm of the normal density at actions [B, A], summed over dims: [B]."""
        mean, std = self.gaussian(inputs)
        return normal_log_prob((actions - mean) / std, std.log())

    def sample_with_log_prob(self, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return a sample and the normal density at it, as if it were not cut off."""
        actions = self.sample(inputs, noise)
        return actions, self.log_prob(inputs, actions)


class TanhGaussianPolicy(ContinuousPolicy):
    """a = tanh(u), u ~ N(mean(s, g), std(s, g)^2), as in SAC.

    Args:
        inputs: width of the observation and goal, concatenated.
        action_dim: width of the action.
        hidden_sizes: widths of the hidden layers, at least one.
        log_std_range: what log std is clamped to.
        affine_log_std: log std is a learned multiple of the network's output plus a learned
            number, starting at 1 and -1, as in CQL.
        small_heads: hidden biases 0.1 and small uniform heads at the start, as in SAC-N and EDAC.
    """

    kind = "stochastic"
    pass_of = "before_tanh"

    def __init__(
        self,
        inputs: int,
        action_dim: int,
        hidden_sizes: Sequence[int],
        log_std_range: tuple[float, float] = (-20.0, 2.0),
        affine_log_std: bool = False,
        small_heads: bool = False,
    ) -> None:
        super().__init__()
        self.log_std_range = log_std_range
        self.trunk = nn.Sequential(MLP(inputs, hidden_sizes[-1], hidden_sizes[:-1]), nn.ReLU())
        self.mean_head = nn.Linear(hidden_sizes[-1], action_dim)
        self.log_std_head = nn.Linear(hidden_sizes[-1], action_dim)
        self.scale = nn.Parameter(torch.tensor([1.0, -1.0])) if affine_log_std else None
        if small_heads:
            for layer in self.trunk.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.constant_(layer.bias, 0.1)
            for head in (self.mean_head, self.log_std_head):
                nn.init.uniform_(head.weight, -1e-3, 1e-3)
                nn.init.uniform_(head.bias, -1e-3, 1e-3)

    def before_tanh(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log std [B, A] before the tanh."""
        hidden = self.trunk(inputs)
        log_std: Tensor = self.log_std_head(hidden)
        if self.scale is not None:
            log_std = self.scale[0] * log_std + self.scale[1]
        return self.mean_head(hidden), log_std.clamp(*self.log_std_range)

    def mode(self, inputs: Tensor) -> Tensor:
        """Return tanh of the mean."""
        return torch.tanh(self.before_tanh(inputs)[0])

    def samples(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return K actions per state; they share its mean and scale."""
        mean, log_std = self.before_tanh(inputs)
        return torch.tanh(mean.unsqueeze(1) + log_std.exp().unsqueeze(1) * noise)

    def sample(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Return tanh(mean + std * noise)."""
        mean, log_std = self.before_tanh(inputs)
        return torch.tanh(mean + log_std.exp() * noise)

    def sample_with_log_prob(self, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return a sample and its log density; change of variables as in SAC, appendix C."""
        mean, log_std = self.before_tanh(inputs)
        u = mean + log_std.exp() * noise
        return torch.tanh(u), normal_log_prob(noise, log_std) - _log_tanh_slope(u).sum(-1)

    def log_prob(self, inputs: Tensor, actions: Tensor) -> Tensor:
        """Return the log density [B] of given actions [B, A], cut off 1e-6 before -1 and 1."""
        mean, log_std = self.before_tanh(inputs)
        u = torch.atanh(actions.clamp(-1.0 + 1e-6, 1.0 - 1e-6))
        standard = (u - mean) * (-log_std).exp()
        return normal_log_prob(standard, log_std) - _log_tanh_slope(u).sum(-1)


def _log_tanh_slope(u: Tensor) -> Tensor:
    """Return log(1 - tanh(u)^2) in a form that is exact where the tanh saturates.

    The usual ``log(1 - a^2 + 1e-6)`` is not.
    """
    return 2.0 * (math.log(2.0) - u - nn.functional.softplus(-2.0 * u))


def normal_log_prob(standard: Tensor, log_std: Tensor) -> Tensor:
    """Return log densities [B] of diagonal normals.

    Args:
        standard: (x - mean) / std, [B, A].
        log_std: logarithms of the standard deviations, [B, A] or [A].
    """
    each = -0.5 * standard.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    return each.sum(-1)


class CategoricalPolicy(nn.Module):
    """Scores (logits) of discrete actions.

    Args:
        inputs: width of the observation and goal, concatenated.
        actions: number of actions.
        hidden_sizes: widths of the hidden layers.
        activation: see `networks.mlp.MLP`.
        init: see `networks.mlp.initialize`.
        encoder: what the network sees the inputs through.
    """

    kind: ClassVar[str] = "categorical"

    def __init__(
        self,
        inputs: int,
        actions: int,
        hidden_sizes: Sequence[int],
        activation: Activation = "relu",
        init: Init = "torch",
        encoder: ImpalaEncoder | None = None,
    ) -> None:
        super().__init__()
        inputs = inputs if encoder is None else encoder.outputs
        self.logits = with_encoder(
            encoder, MLP(inputs, actions, hidden_sizes, activation, init=init)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits [B, actions] of inputs [B, D]."""
        return self.logits(inputs)  # type: ignore[no-any-return]

    def log_prob(self, inputs: Tensor, actions: Tensor) -> Tensor:
        """Return the log probabilities [B] of actions [B]."""
        return -nn.functional.cross_entropy(self.forward(inputs), actions, reduction="none")

    def act(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a sample drawn with the generator, or the likeliest action without one; [B]."""
        logits = self.forward(inputs)
        if generator is None:
            return logits.argmax(-1)
        return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)
