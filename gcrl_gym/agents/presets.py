"""Named hyperparameter sets: a YAML file per agent that holds only what differs from defaults.

A key with a slash is a pattern of dataset ids, such as ``d4rl/antmaze-*``: the preset "auto" merges
all patterns that match the dataset, in the order of the file. Other keys are names. Several are
joined by a plus, later ones win: ``auto+chain``. An empty pattern says that the constructor's
defaults are what is published.
"""

from __future__ import annotations

import fnmatch
import os
import warnings
from importlib import resources
from typing import Any

import yaml

from gcrl_gym.errors import UserError, nearest


def presets_of(agent: str) -> dict[str, dict[str, Any]]:
    """Return all presets of an agent: name or pattern -> keyword arguments."""
    file = resources.files("gcrl_gym.experiments") / "presets" / f"{agent}.yaml"
    if not file.is_file():
        return {}
    presets: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    return presets


def load_preset(agent: str, preset: str, dataset: Any = None) -> dict[str, Any]:
    """Return the keyword arguments of a preset; "default" is the constructor's defaults.

    Args:
        agent: its name.
        preset: a name, "auto" for what is published for the dataset, or several joined by "+".
        dataset: dataset, its id or path; "auto" needs it, and warns where nothing is published.

    Raises:
        UserError: unknown name, or "auto" without a dataset.
    """
    presets = {"default": {}, **presets_of(agent)}
    names = [name for name in presets if "/" not in name]
    found: dict[str, Any] = {}
    for name in preset.split("+"):
        if name == "auto":
            found |= _published(agent, presets, dataset_name(dataset))
        elif name in names:
            found |= presets[name]
        else:
            known = sorted([*names, "auto"])
            raise UserError(
                f"{agent} has no preset {name!r}; it has {known}.{nearest(name, known)}"
            )
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}


def dataset_name(dataset: Any) -> str | None:
    """Return the id or path of a dataset, None where it has none."""
    if dataset is None or isinstance(dataset, (str, os.PathLike)):
        return None if dataset is None else os.fspath(dataset)
    storage = getattr(dataset, "storage", None)  # of a MinariDataset
    metadata = getattr(dataset, "metadata", None) if storage is None else storage.metadata
    name = (metadata or {}).get("dataset_id")
    return None if name is None else str(name)


def _published(
    agent: str, presets: dict[str, dict[str, Any]], dataset: str | None
) -> dict[str, Any]:
    if dataset is None:
        raise UserError(
            f'The preset "auto" of {agent} goes by the dataset id; pass a dataset that has one, or '
            'the preset "default".'
        )
    found: dict[str, Any] = {}
    matched = False
    for pattern, values in presets.items():
        if "/" in pattern and any(
            fnmatch.fnmatchcase(dataset, way) for way in (pattern, f"*/{pattern}")
        ):
            matched = True
            found |= values or {}
    if not matched:
        warnings.warn(
            f"No hyperparameters of {agent} are published for {dataset}: its defaults are used.",
            stacklevel=4,
        )
    return found
