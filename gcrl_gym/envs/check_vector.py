"""The part of ``check_goal_env`` about native vector environments."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from gcrl_gym.errors import UserError

COPIES = 3
STEPS = 40
LIMIT = 12
"""Steps after which copies are truncated, so that they begin anew a few times."""


def check_vector(env: gym.Env[Any, Any], seed: int) -> None:
    """Check that copies in the native vector environment take the steps of single environments.

    They are compared with Gymnasium's ``SyncVectorEnv`` in the autoreset mode that the vector
    environment declares: observations, rewards, ends and infos have to be equal. Nothing is
    checked of an environment without a ``vector_entry_point``, or inside a wrapper.

    Args:
        env: see `check_goal_env`.
        seed: seed of the resets and actions.

    Raises:
        UserError: a mode that is not declared, or the first thing that differs.
    """
    spec = env.spec
    if spec is None or spec.vector_entry_point is None or spec.additional_wrappers:
        return
    plain = copy.deepcopy(spec)
    plain.kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    if plain.max_episode_steps is not None:
        plain.max_episode_steps = min(LIMIT, plain.max_episode_steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's about a missing mode; it is an error here
        native = gym.make_vec(plain, COPIES, vectorization_mode="vector_entry_point")
    mode = native.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise _differs("metadata['autoreset_mode'] of the vector environment is no AutoresetMode")
    single = [lambda: gym.make(plain, disable_env_checker=True)] * COPIES
    reference = SyncVectorEnv(single, autoreset_mode=mode)
    try:
        _compare(native, reference, mode, seed)
    finally:
        native.close()
        reference.close()


def _compare(native: VectorEnv, reference: SyncVectorEnv, mode: AutoresetMode, seed: int) -> None:
    if native.num_envs != COPIES:
        raise _differs(f"asked for {COPIES} copies, the vector environment has {native.num_envs}")
    for name in ("single_observation_space", "single_action_space"):
        if getattr(native, name) != getattr(reference, name):
            raise _differs(f"{name} is not the space of a single environment")
    _require_same(native.reset(seed=seed), reference.reset(seed=seed), "at reset")
    actions = copy.deepcopy(reference.action_space)
    actions.seed(seed)
    for step in range(STEPS):
        action = actions.sample()
        expected = reference.step(action)
        _require_same(native.step(action), expected, f"in step {step}")
        ended = expected[2] | expected[3]
        if mode is AutoresetMode.DISABLED and ended.any():
            again = native.reset(options={"reset_mask": ended.copy()})
            other = reference.reset(options={"reset_mask": ended.copy()})
            _require_same(again, other, f"at the reset after step {step}")


def _require_same(found: Any, expected: Any, when: str) -> None:
    names = ["observation", "infos"]
    if len(expected) == 5:
        names[1:1] = ["rewards", "terminated", "truncated"]
    for name, one, other in zip(names, found, expected):
        where = _difference(one, other, name)
        if where:
            raise _differs(f"{where} of a copy differs from the single environment's {when}")


def _difference(found: Any, expected: Any, path: str) -> str:
    """Return the path of the first part that differs, an empty text where none does."""
    if isinstance(expected, dict):
        if not isinstance(found, dict) or set(found) != set(expected):
            return path
        parts = (_difference(found[key], expected[key], f"{path}/{key}") for key in expected)
        return next((part for part in parts if part), "")
    if isinstance(expected, np.ndarray) and expected.dtype == object:
        if len(found) != len(expected):
            return path
        parts = (_difference(one, other, path) for one, other in zip(found, expected))
        return next((part for part in parts if part), "")
    return "" if np.array_equal(found, expected) else path


def _differs(message: str) -> UserError:
    return UserError(f"check_goal_env, vector: {message}.")
