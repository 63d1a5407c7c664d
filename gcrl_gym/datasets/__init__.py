"""Offline data: flat datasets, goal samplers, Minari, OGBench and generated data."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcrl_gym.datasets.catalog import DatasetRow, list_datasets, load_dataset, make_env
    from gcrl_gym.datasets.minari_io import write_minari
    from gcrl_gym.datasets.offline_dataset import OfflineDataset
    from gcrl_gym.datasets.ogbench_io import convert_ogbench
    from gcrl_gym.datasets.samplers import Batch, BoundSampler, GoalSampler, TransitionSampler
    from gcrl_gym.datasets.sequences import SequenceBatch, SequenceSampler
    from gcrl_gym.datasets.subgoals import SubgoalSampler
    from gcrl_gym.datasets.windows import WindowSampler

__all__ = [
    "Batch",
    "BoundSampler",
    "DatasetRow",
    "GoalSampler",
    "OfflineDataset",
    "SequenceBatch",
    "SequenceSampler",
    "SubgoalSampler",
    "TransitionSampler",
    "WindowSampler",
    "convert_ogbench",
    "list_datasets",
    "load_dataset",
    "make_env",
    "write_minari",
]

_HOME = {
    "Batch": "samplers",
    "BoundSampler": "samplers",
    "DatasetRow": "catalog",
    "GoalSampler": "samplers",
    "OfflineDataset": "offline_dataset",
    "SequenceBatch": "sequences",
    "SequenceSampler": "sequences",
    "SubgoalSampler": "subgoals",
    "TransitionSampler": "samplers",
    "WindowSampler": "windows",
    "convert_ogbench": "ogbench_io",
    "list_datasets": "catalog",
    "load_dataset": "catalog",
    "make_env": "catalog",
    "write_minari": "minari_io",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that importing the package stays light."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted([*globals(), *__all__])
