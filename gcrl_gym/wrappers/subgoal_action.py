"""A wrapper whose actions are subgoals, pursued by an inverse-dynamics model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import ArrayLike

from gcrl_gym.envs.goal_env import check_count
from gcrl_gym.errors import UserError


class SubgoalAction(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Let an agent, such as Stable-Baselines3's PPO, set goals for a model that acts below it.

    An action is a subgoal: a point of the goal space. For ``steps`` steps, or until the episode
    ends, the model chooses the actions of the wrapped environment. The reward is the sum of
    theirs, the info that of the last one and ``subgoal_steps``, how many there were.
    ``compute_reward`` remains that of one step.

        env = SubgoalAction(gym.make("gcrl/Nav2D-v0"), GCBC.load("low.zip"), steps=10)
        PPO("MultiInputPolicy", gym.wrappers.RescaleAction(env, -1.0, 1.0)).learn(100_000)

    Args:
        env: a goal environment (Dict observations).
        inverse_dynamics: an agent, whose ``predict`` sees the subgoal in the place of
            ``desired_goal``; a function of (observation, subgoal) that returns the action, where
            the observation is the part of that name; or ``"module:function"``, the only one that
            can be written into a JSON spec.
        steps: steps of the environment for a subgoal.
        low: smallest subgoal, ``(G,)`` or a number; by default that of the goal space.
        high: largest subgoal.
        deterministic: whether an agent acts deterministically.

    Raises:
        UserError: no goal environment, or a model that is none of these.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        inverse_dynamics: Any,
        steps: int = 10,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
        deterministic: bool = True,
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            _disable_deepcopy=True,  # of networks
            inverse_dynamics=inverse_dynamics,
            steps=steps,
            low=low,
            high=high,
            deterministic=deterministic,
        )
        super().__init__(env)
        space = env.observation_space
        goals = space.spaces.get("desired_goal") if isinstance(space, spaces.Dict) else None
        if not isinstance(goals, spaces.Box) or goals.dtype.kind != "f":
            raise UserError(
                "SubgoalAction needs Dict observations with a float Box 'desired_goal'; this "
                f"environment has {space}."
            )
        bounds = [
            np.broadcast_to(default if given is None else np.asarray(given), goals.shape)
            for given, default in ((low, goals.low), (high, goals.high))
        ]
        low, high = (bound.astype(goals.dtype) for bound in bounds)
        self._goals = goals
        self.action_space = spaces.Box(low, high, dtype=goals.dtype.type)
        self.steps = check_count("steps", steps, 1, 10**6)
        self._act = _as_function(inverse_dynamics, deterministic)
        self._observation: dict[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, {**info, "subgoal_steps": 0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Pursue a subgoal.

        Args:
            action: the subgoal ``(G,)``; values outside of the bounds are clipped.

        Raises:
            UserError: an action of another shape, or one that is not a number.
        """
        subgoal = np.asarray(action, self._goals.dtype)
        if subgoal.shape != self._goals.shape or np.isnan(subgoal).any():
            raise UserError(
                f"SubgoalAction takes subgoals of shape {self._goals.shape}, got {action!r}."
            )
        space: Any = self.action_space
        subgoal = np.clip(subgoal, space.low, space.high)
        total, taken = 0.0, 0
        terminated = truncated = False
        info: dict[str, Any] = {}
        while taken < self.steps and not (terminated or truncated):
            below = self._act(self._observation, subgoal.copy())
            self._observation, reward, terminated, truncated, info = self.env.step(below)
            total += float(reward)
            taken += 1
        return self._observation, total, terminated, truncated, {**info, "subgoal_steps": taken}


def _as_function(model: Any, deterministic: bool) -> Callable[[dict[str, Any], Any], Any]:
    """Return a function of the Dict observation and the subgoal."""
    if isinstance(model, str):
        try:
            model = load_env_creator(model)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"inverse_dynamics {model!r} cannot be imported ({error}); give 'module:function'."
            ) from error
    if hasattr(model, "predict"):
        return lambda observation, subgoal: model.predict(
            {**observation, "desired_goal": subgoal}, deterministic=deterministic
        )[0]
    if callable(model):
        return lambda observation, subgoal: model(observation["observation"], subgoal)
    raise UserError(
        f"inverse_dynamics is {model!r}; expected an agent, a function of (observation, subgoal), "
        "or 'module:function'."
    )
