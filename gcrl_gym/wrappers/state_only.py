"""A wrapper that marks what is recorded from an environment as data without actions."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from gcrl_gym.errors import UserError


class StateOnly(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Leave actions, and rewards if asked to, out of recorded data: "video" data.

    The environment plays as before; it is ``gcrl_gym.datasets.collect`` and ``gcrl play`` that
    look at ``unrecorded``. In the dataset every action is NaN, rewards that are left out are 0,
    and the metadata say ``state_only: true``, so that agents which need actions refuse it.

        from gcrl_gym.datasets.collect import collect_dataset
        env = StateOnly(gym.make("gcrl/Nav2D-v0"), rewards=False)
        collect_dataset("me/nav2d-video-v0", env, policy, episodes=100)

    Args:
        env: any environment with continuous actions.
        rewards: whether rewards are recorded.

    Attributes:
        unrecorded: what is left out: ``("actions",)`` or ``("actions", "rewards")``.

    Raises:
        UserError: actions that are no floats, for which nothing says that they are missing.
    """

    def __init__(self, env: gym.Env[Any, Any], rewards: bool = True) -> None:
        RecordConstructorArgs.__init__(self, rewards=rewards)
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
            raise UserError(
                f"StateOnly marks missing actions with NaN, which {space} cannot hold; use the "
                "variant of the environment with continuous actions."
            )
        self.unrecorded = ("actions",) if rewards else ("actions", "rewards")

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step, as the environment does."""
        return self.env.step(action)
