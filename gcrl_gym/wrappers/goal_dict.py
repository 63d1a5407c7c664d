"""A wrapper that turns goals given in ``info["goal"]`` into Dict goal observations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from gcrl_gym.errors import UserError, nearest


class GoalDict(gym.Wrapper[dict[str, Any], Any, Any, Any], RecordConstructorArgs):
    """Give an environment such as OGBench's the Dict observations of a goal environment.

    The wrapped environment hands out its goal once, in ``info["goal"]`` of ``reset``, as an
    observation of the goal state. Here every observation is a dict of ``observation``,
    ``achieved_goal`` (equal to the observation) and ``desired_goal``; floats become float32. The
    info of reset and step gains ``success`` (1.0 or 0.0) and ``is_success`` (bool). ``num_tasks``
    and reset options such as ``{"task_id": 1}`` are those of the wrapped environment.

    OGBench's ``reset`` draws from numpy's process-wide generator and from its own action space.
    Here both are seeded for the time of the reset from a generator of the wrapper's, and put back
    as they were afterwards: ``reset(seed=s)`` is reproducible, and no reset disturbs the process.

    Args:
        env: an environment with a Box observation space.

    Raises:
        UserError: the observations are not a Box.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        box = env.observation_space
        if not isinstance(box, spaces.Box):
            raise UserError(f"GoalDict needs Box observations, but this environment has {box}.")
        self._dtype = np.float32 if np.issubdtype(box.dtype, np.floating) else box.dtype
        space = spaces.Box(
            box.low.astype(self._dtype), box.high.astype(self._dtype), dtype=self._dtype
        )
        self.observation_space = spaces.Dict(
            {"observation": space, "achieved_goal": space, "desired_goal": space}
        )
        self._goal = np.zeros(space.shape, self._dtype)
        self._reset_rng = np.random.default_rng()

    @property
    def num_tasks(self) -> int:
        """Number of evaluation tasks of the wrapped environment."""
        return int(self.env.get_wrapper_attr("num_tasks"))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start an episode; the same seed and options give the same start and goal.

        Raises:
            UserError: the info has no goal, or one that is not shaped like an observation.
        """
        if seed is not None:
            self._reset_rng = np.random.default_rng(seed)
        with seeded(self._reset_rng, self.env.unwrapped.action_space):
            observation, info = self.env.reset(seed=seed, options=options)
        goal = np.array(info.get("goal", np.nan), dtype=self._dtype)
        if goal.shape != self._goal.shape:
            raise UserError(
                "GoalDict needs info['goal'] at reset with the shape of an observation,"
                f" {self._goal.shape}; got {goal.shape if 'goal' in info else 'no goal'}."
            )
        self._goal = goal
        return self._as_dict(observation), {**info, "success": 0.0, "is_success": False}

    def step(
        self, action: Any
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Take one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, "is_success": bool(info["success"])}
        return self._as_dict(observation), float(reward), terminated, truncated, info

    def _as_dict(self, observation: Any) -> dict[str, NDArray[Any]]:
        observation = np.array(observation, dtype=self._dtype)
        return {
            "observation": observation,
            "achieved_goal": observation.copy(),
            "desired_goal": self._goal.copy(),
        }


@contextlib.contextmanager
def seeded(rng: np.random.Generator, space: spaces.Space[Any]) -> Iterator[None]:
    """Seed numpy's process-wide generator and a space's from ``rng``, and put both back."""
    process_state = np.random.get_state()  # noqa: NPY002 (the generator that OGBench draws from)
    space_bits = space.np_random.bit_generator
    space_state = space_bits.state
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    space_bits.state = np.random.PCG64(int(rng.integers(2**32))).state
    try:
        yield
    finally:
        np.random.set_state(process_state)  # noqa: NPY002
        space_bits.state = space_state


def make_goal_dict_env(
    env_id: str, render_mode: str | None = None, **kwargs: Any
) -> gym.Env[dict[str, Any], Any]:
    """Make an OGBench environment with Dict goal observations.

    The entry point of the environment specs that are stored with OGBench data.

    Args:
        env_id: OGBench's name, for example ``pointmaze-medium-v0``.
        render_mode: passed on when given.
        **kwargs: passed on to the environment.

    Raises:
        UserError: OGBench is not installed, or has no such environment.
    """
    try:
        import ogbench  # noqa: F401  (registers its ids)
    except ImportError as error:
        raise UserError(
            f"Environment {env_id!r} needs OGBench: pip install 'gcrl-gym[ogbench]'."
        ) from error
    if env_id not in gym.registry:
        names = [name for name, spec in gym.registry.items() if "ogbench." in str(spec.entry_point)]
        raise UserError(f"OGBench has no environment {env_id!r}.{nearest(env_id, names)}")
    if render_mode is not None:
        kwargs["render_mode"] = render_mode
    return GoalDict(gym.make(env_id, **kwargs))
