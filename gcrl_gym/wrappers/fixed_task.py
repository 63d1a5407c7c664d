"""A wrapper that plays one evaluation task at every reset."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from gcrl_gym.envs.goal_env import check_task_id
from gcrl_gym.errors import UserError


class FixedTask(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Reset to the same evaluation task every time.

    Tools that evaluate by resetting without options (a vector env after its automatic reset,
    Stable-Baselines3's callbacks) then measure exactly that task.

    Args:
        env: an environment with ``num_tasks`` and the reset option ``task_id``.
        task_id: the task, 1 .. num_tasks.

    Raises:
        UserError: the environment has no tasks, or no such task.
    """

    def __init__(self, env: gym.Env[Any, Any], task_id: int) -> None:
        RecordConstructorArgs.__init__(self, task_id=task_id)
        super().__init__(env)
        if not env.has_wrapper_attr("num_tasks"):
            name = env.spec.id if env.spec else env
            raise UserError(f"FixedTask needs an environment with tasks; {name} has no num_tasks.")
        self.task_id = check_task_id(task_id, env.get_wrapper_attr("num_tasks"))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset to the task; other options are passed on."""
        return self.env.reset(seed=seed, options={**(options or {}), "task_id": self.task_id})

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step."""
        return self.env.step(action)
