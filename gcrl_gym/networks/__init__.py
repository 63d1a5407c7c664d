"""Network building blocks: multilayer perceptrons, critics and policies."""

from gcrl_gym.networks.critics import StackedCritic
from gcrl_gym.networks.mlp import MLP, StackedMLP
from gcrl_gym.networks.policies import CategoricalPolicy, GaussianPolicy, TransportMap

__all__ = [
    "MLP",
    "CategoricalPolicy",
    "GaussianPolicy",
    "StackedCritic",
    "StackedMLP",
    "TransportMap",
]
