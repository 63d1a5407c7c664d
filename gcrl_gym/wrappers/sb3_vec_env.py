"""Native vector environments for Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

from gcrl_gym.envs.vector import GoalVectorEnv
from gcrl_gym.errors import UserError, nearest

_OF_ONE_COPY = ("reset", "step", "close")


class SB3VecEnv(VecEnv):
    """Many copies of an environment in one NumPy program, as Stable-Baselines3 takes them.

    What it returns is what SB3's ``DummyVecEnv`` over single environments with the same seeds
    would: copies that end begin anew at once, and their last observation is in the info under
    ``terminal_observation``.

        env = SB3VecEnv("gcrl/Nav2D-v0", num_envs=64, reward="penalty")
        SAC("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer).learn(100_000)

    The copies share one environment's settings. So ``get_attr`` gives the same for each,
    ``env_method`` calls methods that concern no single copy, such as ``compute_reward``, and
    ``set_attr`` is for all copies (of settings which are read at each step: ``goal_tolerance``,
    ``reward_kind``).

    Args:
        env: id of an environment with a native vector environment, or a `GoalVectorEnv` made with
            ``autoreset_mode="same_step"``.
        num_envs: number of copies, for an id; 64 by default.
        seed: copy ``i`` is reset with ``seed + i`` first.
        **keywords: of the environment, for an id.

    Raises:
        UserError: an environment without a native form, or one that begins anew otherwise.
    """

    def __init__(
        self,
        env: str | GoalVectorEnv,
        num_envs: int | None = None,
        seed: int | None = None,
        **keywords: Any,
    ) -> None:
        self.vector = _make(env, 64 if num_envs is None else num_envs, keywords)
        if num_envs not in (None, self.vector.num_envs) or (keywords and not isinstance(env, str)):
            raise UserError("num_envs and keywords are for an id; the vector environment is made.")
        if self.vector.metadata["autoreset_mode"] is not AutoresetMode.SAME_STEP:
            raise UserError(
                "SB3VecEnv needs copies that begin anew at once: make the vector environment with "
                "autoreset_mode='same_step'."
            )
        if self.vector.render_mode not in (None, "rgb_array"):
            raise UserError("SB3VecEnv draws with render_mode='rgb_array' only.")
        super().__init__(
            self.vector.num_envs,
            self.vector.single_observation_space,
            self.vector.single_action_space,
        )
        self.metadata = self.vector.single.metadata
        self._actions: Any = None
        self._begun = False
        if seed is not None:
            self.seed(seed)

    def reset(self) -> VecEnvObs:
        """Begin episodes of all copies, with the seeds and options set for the next reset."""
        groups = _groups(self._options)
        if len(groups) > 1 and not self._begun:
            self.vector.reset(seed=self._seeds)  # groups begin one after the other; all must have
        observations: Any = None
        for copies, options in groups:
            mask = np.zeros(self.num_envs, bool)
            mask[copies] = True
            options = {**options, "reset_mask": mask}
            observations, infos = self.vector.reset(seed=self._seeds, options=options)
            for copy, info in zip(copies, _rows(infos, copies)):
                self.reset_infos[copy] = info
        self._begun = True
        self._reset_seeds()
        self._reset_options()
        return observations  # type: ignore[no-any-return]

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions ``(num_envs, ...)`` for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step; see `VecEnv.step_wait`."""
        observations, rewards, terminated, truncated, infos = self.vector.step(self._actions)
        ended = terminated | truncated
        final_observations = infos.pop("final_obs", None)
        final_infos = infos.pop("final_info", None)
        rows = _rows(infos, range(self.num_envs))
        copies = np.flatnonzero(ended).tolist()
        for copy, last in zip(copies, _rows(final_infos or {}, copies)):
            self.reset_infos[copy], rows[copy] = rows[copy], last
        for row, cut in zip(rows, (truncated & ~terminated).tolist()):
            row["TimeLimit.truncated"] = cut
        for copy in copies:
            rows[copy]["terminal_observation"] = final_observations[copy]
        return observations, rewards.astype(np.float32), ended, rows

    def close(self) -> None:
        """Close the vector environment."""
        self.vector.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return a picture of each copy, ``(height, width, 3)``."""
        frames = self.vector.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the environment, once for each copy.

        Raises:
            AttributeError: it has none of that name.
        """
        own = attr_name in ("spec", "render_mode", "metadata")
        value = getattr(self.vector if own else self.vector.single, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environment, for all copies.

        Raises:
            UserError: some of the copies only.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise UserError(f"The copies share their settings: set {attr_name!r} for all of them.")
        setattr(self.vector.single, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method of the environment, once for each copy.

        Raises:
            UserError: a method that would move one copy and not the others.
            AttributeError: it has none of that name.
        """
        copies = list(self._get_indices(indices))
        if method_name == "render":
            frames = self.get_images()
            return [frames[copy] for copy in copies]
        if method_name in _OF_ONE_COPY:
            raise UserError(f"The copies move together; call {method_name}() of the SB3VecEnv.")
        method = getattr(self.vector.single, method_name)
        return [method(*method_args, **method_kwargs) for _ in copies]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return False for each copy: there are no wrappers inside."""
        return [False for _ in self._get_indices(indices)]


def _make(env: Any, num_envs: int, keywords: dict[str, Any]) -> GoalVectorEnv:
    """Return the vector environment, made from its id where needed."""
    if isinstance(env, GoalVectorEnv):
        return env
    if not isinstance(env, str):
        raise UserError(
            f"SB3VecEnv takes an id or a GoalVectorEnv, not a {type(env).__name__}; for other "
            "environments there is Stable-Baselines3's make_vec_env."
        )
    try:
        entry = gym.spec(env).vector_entry_point
    except gym.error.Error as error:
        raise UserError(f"Unknown environment {env!r}.{nearest(env, gym.registry)}") from error
    creator: Any = load_env_creator(entry) if isinstance(entry, str) else entry
    if not (isinstance(creator, type) and issubclass(creator, GoalVectorEnv)):
        raise UserError(
            f"{env!r} has no native vector environment; use Stable-Baselines3's make_vec_env."
        )
    mode: Any = {"vectorization_mode": "vector_entry_point", "autoreset_mode": "same_step"}
    try:
        made: Any = gym.make_vec(env, num_envs, **mode, **keywords)
    except TypeError as error:
        raise UserError(f"Cannot make {env!r}: {error}.") from error
    return made  # type: ignore[no-any-return]


def _rows(infos: dict[str, Any], copies: Sequence[int] | range) -> list[dict[str, Any]]:
    """Return the info of each of these copies, with the types a single environment gives."""
    keys = [key for key in infos if not key.startswith("_")]
    if not keys:
        return [{} for _ in copies]
    columns = [infos[key][list(copies)].tolist() for key in keys]
    return [dict(zip(keys, row)) for row in zip(*columns)]


def _groups(options: list[dict[str, Any]]) -> list[tuple[list[int], dict[str, Any]]]:
    """Return copies with options of the same names, and these options with a value per copy."""
    members: dict[tuple[str, ...], list[int]] = {}
    for copy, given in enumerate(options):
        members.setdefault(tuple(sorted(given)), []).append(copy)
    groups = []
    for names, copies in members.items():
        columns = {}
        for name in names:
            first = np.asarray(options[copies[0]][name])
            # Copies of other groups get the first value, which is not looked at.
            columns[name] = np.stack(
                [np.asarray(given[name]) if name in given and copy in copies else first
                 for copy, given in enumerate(options)]
            )  # fmt: skip
        groups.append((copies, columns))
    return groups
