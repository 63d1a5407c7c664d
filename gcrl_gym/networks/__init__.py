"""Network building blocks: multilayer perceptrons, critics and policies."""

from gcrl_gym.networks.bilinear import BilinearValue
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
from gcrl_gym.networks.quasimetric import LatentDynamics, Multiplier, Quasimetric

__all__ = [
    "MLP",
    "BilinearValue",
    "CategoricalPolicy",
    "ContinuousPolicy",
    "DeterministicPolicy",
    "GaussianPolicy",
    "ImpalaEncoder",
    "LatentDynamics",
    "Multiplier",
    "OneStepPolicy",
    "Quasimetric",
    "StackedCritic",
    "StackedMLP",
    "StackedValue",
    "TanhGaussianPolicy",
    "TransportMap",
    "VelocityField",
]
