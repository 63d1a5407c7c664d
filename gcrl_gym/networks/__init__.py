"""Network building blocks: perceptrons, critics, policies and sequence encoders."""

from gcrl_gym.networks.bilinear import BilinearValue
from gcrl_gym.networks.critics import StackedCritic, StackedValue
from gcrl_gym.networks.encoders import ImpalaEncoder
from gcrl_gym.networks.flow import OneStepPolicy, VelocityField
from gcrl_gym.networks.mamba import MambaBlock, backend_on
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
from gcrl_gym.networks.scan import selective_scan
from gcrl_gym.networks.sequence import SequenceEncoder

__all__ = [
    "MLP",
    "BilinearValue",
    "CategoricalPolicy",
    "ContinuousPolicy",
    "DeterministicPolicy",
    "GaussianPolicy",
    "ImpalaEncoder",
    "LatentDynamics",
    "MambaBlock",
    "Multiplier",
    "OneStepPolicy",
    "Quasimetric",
    "SequenceEncoder",
    "StackedCritic",
    "StackedMLP",
    "StackedValue",
    "TanhGaussianPolicy",
    "TransportMap",
    "VelocityField",
    "backend_on",
    "selective_scan",
]
