"""Named hyperparameter sets: a YAML file per agent that holds only what differs from defaults."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

from gcrl_gym.errors import UserError, nearest


def presets_of(agent: str) -> dict[str, dict[str, Any]]:
    """Return all presets of an agent: name -> keyword arguments (empty for an agent without)."""
    file = resources.files("gcrl_gym.experiments") / "presets" / f"{agent}.yaml"
    if not file.is_file():
        return {}
    presets: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    return presets


def load_preset(agent: str, preset: str) -> dict[str, Any]:
    """Return the keyword arguments of one preset; "default" is the constructor's defaults.

    Raises:
        UserError: unknown name.
    """
    presets = {"default": {}, **presets_of(agent)}
    if preset not in presets:
        raise UserError(
            f"{agent} has no preset {preset!r}; it has {sorted(presets)}.{nearest(preset, presets)}"
        )
    return dict(presets[preset])
