"""Which environment of today a D4RL dataset is evaluated in, and how far it is from D4RL's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from gcrl_gym.datasets.columns import Array

if TYPE_CHECKING:
    from gcrl_gym.datasets.d4rl_catalog import Entry

_GYMNASIUM = {"hopper": "Hopper-v5", "halfcheetah": "HalfCheetah-v5", "walker2d": "Walker2d-v5"}
_ADROIT = {
    "pen": "AdroitHandPen-v1",
    "hammer": "AdroitHandHammer-v1",
    "door": "AdroitHandDoor-v1",
    "relocate": "AdroitHandRelocate-v1",
}
_MODULE = "gcrl_gym.wrappers.d4rl_env"
_KITCHEN_MODULE = "gcrl_gym.wrappers.d4rl_kitchen"
_SUBTASKS = {
    "complete": ("microwave", "kettle", "light switch", "slide cabinet"),
    "partial": ("microwave", "kettle", "light switch", "slide cabinet"),
    "mixed": ("microwave", "kettle", "bottom burner", "light switch"),
}
_BODY_COLUMNS = 27  # of ant: positions and velocities; contact forces follow
_MARGIN = {"antmaze": -2.5, "maze2d": -0.75}


def evaluation_spec(entry: Entry, observations: Array) -> tuple[EnvSpec, str]:
    """Return the environment to evaluate in and a sentence about it.

    Args:
        entry: the dataset.
        observations: its observations, ``(N, D)``, which tell the frame of maze coordinates and
            whether ant's contact forces were recorded.
    """
    if entry.env in _GYMNASIUM or entry.env == "ant":
        return _locomotion(entry, observations)
    if entry.env == "kitchen":
        return _kitchen(entry)
    if entry.env in _ADROIT:
        keywords: dict[str, Any] = {"env_id": _ADROIT[entry.env]}
        return _spec(entry, "make_adroit_env", keywords), (
            f"Evaluated in Gymnasium-Robotics' {_ADROIT[entry.env]} (MuJoCo) with D4RL's reward "
            f"and end, not in D4RL's {entry.env}-{entry.name[-2:]} (mujoco-py): returns are close, "
            "not equal."
        )
    frame = "d4rl" if observations[:, :2].min() > _MARGIN[entry.env] else "robotics"
    keywords = {
        "family": entry.env,
        "size": entry.name.split("-")[1],
        "frame": frame,
        "goals": entry.goals,
        "dense": "-dense" in entry.name,
    }
    return _spec(entry, "make_maze_env", keywords), (
        "Evaluated in Gymnasium-Robotics' maze with D4RL's layout, goal and success radius (0.5) "
        f"in the coordinates of the data ({frame} frame); the bodies are Gymnasium's, not "
        "mujoco-py's."
    )


def _locomotion(entry: Entry, observations: Array) -> tuple[EnvSpec, str]:
    sentence = (
        "Evaluated in Gymnasium's {0}, not in the mujoco-py environment the data come from: "
        "healthy rewards, contacts and solver differ, so normalised scores are close to published "
        "ones, not equal by construction."
    )
    if entry.env != "ant":
        import gymnasium as gym

        name = _GYMNASIUM[entry.env]
        return gym.spec(name), sentence.format(name)
    forces = bool(np.any(observations[:, _BODY_COLUMNS:]))
    kind = "with contact forces" if forces else "with contact forces set to 0, as in the data"
    spec = _spec(entry, "make_ant_env", {"contact_forces": forces})
    return spec, sentence.format(f"Ant-v5 ({kind})")


def _kitchen(entry: Entry) -> tuple[EnvSpec, str]:
    keywords = {"tasks": list(_SUBTASKS[entry.name.split("-")[1]])}
    return _spec(entry, "make_kitchen_env", keywords, _KITCHEN_MODULE), (
        "Evaluated in Gymnasium-Robotics' FrankaKitchen-v1 with D4RL's 60 kitchen observations, "
        "noise, action scaling (1 is 2 rad/s), rewards and end, in today's MuJoCo instead of "
        "D4RL's (dm_control): returns are close, not equal. A finished sub-task is rewarded once, "
        "in the data at every step while it is."
    )


def _spec(entry: Entry, function: str, keywords: dict[str, Any], module: str = _MODULE) -> EnvSpec:
    return EnvSpec(
        id=entry.dataset_id,
        entry_point=f"{module}:{function}",
        max_episode_steps=entry.horizon,
        kwargs=keywords,
    )
