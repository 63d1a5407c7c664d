"""Gymnasium-Robotics 1.4: importing it in silence, and a repair under MuJoCo 4."""

from __future__ import annotations

import contextlib
import importlib
import io
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


def import_robotics() -> ModuleType:
    """Import Gymnasium-Robotics without the notes that it prints on standard error.

    Raises:
        ImportError: it is not installed.
    """
    with contextlib.redirect_stderr(io.StringIO()):
        return importlib.import_module("gymnasium_robotics")


def repair_joint_types() -> None:
    """Make Gymnasium-Robotics 1.4 know the types of joints with MuJoCo 4.

    It asks whether a joint's type, a NumPy integer, is in a tuple of members of
    ``mujoco.mjtJoint``. Python then asks the members whether they equal the integer. In MuJoCo 4.0
    they equal Python's integers only, so an assertion fails where the position of a joint is read,
    for example in FrankaKitchen and Fetch. Here the module with this test gets a view of
    ``mujoco`` in which the types of joints are Python integers, and all else is as it was.
    ``mujoco`` itself is not changed. Nothing is done where the test works, so also not twice.

    Raises:
        ImportError: Gymnasium-Robotics is not installed.
    """
    utils: Any = importlib.import_module("gymnasium_robotics.utils.mujoco_utils")
    mujoco = utils.mujoco
    hinge = mujoco.mjtJoint.mjJNT_HINGE
    if np.int32(int(hinge)) in (hinge,):
        return
    members = mujoco.mjtJoint.__members__.items()
    view = ModuleType(mujoco.__name__)
    vars(view)["__getattr__"] = partial(getattr, mujoco)
    vars(view)["mjtJoint"] = SimpleNamespace(**{name: int(member) for name, member in members})
    utils.mujoco = view
