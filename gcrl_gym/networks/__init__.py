"""Network building blocks: multilayer perceptrons, critics and policies."""

from gcrl_gym.networks.critics import StackedCritic
from gcrl_gym.networks.flow import OneStepPolicy, VelocityField
from gcrl_gym.networks.mlp import MLP, StackedMLP
from gcrl_gym.networks.policies import (
    CategoricalPolicy,
    ContinuousPolicy,
    DeterministicPolicy,
    GaussianPolicy,
    TanhGaussianPolicy,
    TransportMap,
)

__all__ = [
    "MLP",
    "CategoricalPolicy",
    "ContinuousPolicy",
    "DeterministicPolicy",
    "GaussianPolicy",
    "OneStepPolicy",
    "StackedCritic",
    "StackedMLP",
    "TanhGaussianPolicy",
    "TransportMap",
    "VelocityField",
]
