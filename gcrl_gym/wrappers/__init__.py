"""Gymnasium wrappers for goal-conditioned environments; each rebuilds from its spec."""

from gcrl_gym.wrappers.fixed_task import FixedTask
from gcrl_gym.wrappers.goal_dict import GoalDict, make_goal_dict_env

__all__ = ["FixedTask", "GoalDict", "make_goal_dict_env"]
