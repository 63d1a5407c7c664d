"""Gymnasium wrappers for goal-conditioned environments; each rebuilds from its spec.

`SB3VecEnv` is a Stable-Baselines3 ``VecEnv``; it is imported on first use, as torch comes with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gcrl_gym.wrappers.fixed_task import FixedTask
from gcrl_gym.wrappers.flatten_goal import FlattenGoal
from gcrl_gym.wrappers.frame_stack import FrameStack
from gcrl_gym.wrappers.goal_dict import GoalDict, make_goal_dict_env
from gcrl_gym.wrappers.state_only import StateOnly
from gcrl_gym.wrappers.subgoal_action import SubgoalAction

if TYPE_CHECKING:
    from gcrl_gym.wrappers.sb3_vec_env import SB3VecEnv

__all__ = [
    "FixedTask",
    "FlattenGoal",
    "FrameStack",
    "GoalDict",
    "SB3VecEnv",
    "StateOnly",
    "SubgoalAction",
    "make_goal_dict_env",
]


def __getattr__(name: str) -> Any:
    """Import the adapter on first use."""
    if name == "SB3VecEnv":
        from gcrl_gym.wrappers.sb3_vec_env import SB3VecEnv

        return SB3VecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
