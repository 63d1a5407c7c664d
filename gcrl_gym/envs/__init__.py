"""Environments. Every module in this folder that has a list ``SPECS`` is an environment family.

``SPECS`` holds ``gymnasium.envs.registration.EnvSpec`` objects with entry points given as strings.
Modules here import nothing heavy at the top, so that reading their specs is cheap.
"""

from __future__ import annotations

import importlib
import pkgutil

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from gcrl_gym.envs.check import check_goal_env

__all__ = ["check_goal_env", "register", "specs"]


def specs() -> list[EnvSpec]:
    """Specs of every environment in this folder, by module name."""
    modules = (
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    )
    return [spec for module in modules for spec in getattr(module, "SPECS", ())]


def register() -> None:
    """Register every environment of the package with Gymnasium (again is harmless)."""
    for spec in specs():
        gym.registry[spec.id] = spec
