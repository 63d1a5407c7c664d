"""gcrl_gym: offline goal-conditioned reinforcement learning in PyTorch.

Importing registers the ``gcrl/*`` environments with Gymnasium and loads nothing heavy; every other
public name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gcrl_gym.envs import register as _register

if TYPE_CHECKING:
    from gcrl_gym import agents, datasets, envs, networks, transport, wrappers
    from gcrl_gym.datasets import load_dataset
    from gcrl_gym.evaluation import EvaluationResult, evaluate
    from gcrl_gym.video import record_video

__version__ = "0.1.0"

__all__ = [
    "EvaluationResult",
    "agents",
    "datasets",
    "envs",
    "evaluate",
    "load_dataset",
    "networks",
    "record_video",
    "transport",
    "wrappers",
]

_HOME = {
    "load_dataset": "datasets",
    "evaluate": "evaluation",
    "EvaluationResult": "evaluation",
    "record_video": "video",
}
_MODULES = {"agents", "datasets", "envs", "networks", "transport", "wrappers"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted([*globals(), *__all__])


_register()
