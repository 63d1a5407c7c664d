"""Network building blocks: multilayer perceptrons, critics and policies."""

from gcrl_gym.networks.critics import StackedCritic, StackedValue
from gcrl_gym.networks.encoders import ImpalaEncoder
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
    "ImpalaEncoder",
    "OneStepPolicy",
    "StackedCritic",
    "StackedMLP",
    "StackedValue",
    "TanhGaussianPolicy",
    "TransportMap",
    "VelocityField",
]
