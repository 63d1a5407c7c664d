"""What a user may pass to an agent, turned into what the agent works with - or one clear error."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage

from gcrl_gym import datasets
from gcrl_gym.agents.policy import split_space
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.errors import UserError, nearest

if TYPE_CHECKING:
    from gcrl_gym.agents.base import OfflineAgent


def whole_number(value: float, name: str, least: int = 1) -> int:
    """Return ``value`` as an int; 1e6 is fine, 1.5 is not.

    Raises:
        UserError: not a whole number, or below ``least``.
    """
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not np.isfinite(value) or value != int(value) or value < least:
        raise UserError(f"{name} is {value!r}; give a whole number of at least {least}.")
    return int(value)


def not_negative(**values: float) -> None:
    """Check that hyperparameters are finite numbers of at least 0.

    Raises:
        UserError: naming the first that is not.
    """
    for name, value in values.items():
        if not 0.0 <= value < float("inf"):
            raise UserError(f"{name} is {value}; give a finite number >= 0.")


def check_expectile(expectile: float) -> float:
    """Return an expectile, which lies in (0, 1).

    Raises:
        UserError: it does not.
    """
    if not 0.0 < expectile < 1.0:
        raise UserError(f"expectile is {expectile}; it must lie in (0, 1), such as 0.7.")
    return expectile


def check_probability(value: float, name: str) -> float:
    """Return a probability, which lies in [0, 1].

    Raises:
        UserError: it does not.
    """
    if not 0.0 <= value <= 1.0:
        raise UserError(f"{name} is {value}; give a probability in [0, 1].")
    return value


def keyword_arguments(cls: type, base: type) -> dict[str, inspect.Parameter]:
    """Return the keyword-only arguments of ``cls`` and its parents up to ``base``, own first."""
    found: dict[str, inspect.Parameter] = {}
    for kind in cls.__mro__:
        if issubclass(kind, base) and "__init__" in vars(kind):
            for name, parameter in inspect.signature(kind.__init__).parameters.items():
                if parameter.kind is parameter.KEYWORD_ONLY and not name.startswith("_"):
                    found.setdefault(name, parameter)
    return found


def check_unknown(unknown: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise UserError for a keyword that ``where`` does not take, with the nearest one it does."""
    known = list(known)
    for key in unknown:
        raise UserError(f"{where} has no argument {key!r}.{nearest(key, known)}")


def check_options(agent: Any, cls: type, base: type) -> None:
    """Raise for an argument annotated ``Literal`` whose attribute is none of its values.

    Raises:
        UserError: naming the argument and what it may be.
    """
    for kind in cls.__mro__:
        if not issubclass(kind, base) or "__init__" not in vars(kind):
            continue
        for name, hint in get_type_hints(kind.__init__).items():
            options = _literal_values(hint)
            value = getattr(agent, name, None)
            if options and value not in options:
                raise UserError(
                    f"{cls.__name__}: {name} is {value!r}; choose from {sorted(map(str, options))}."
                    f"{nearest(str(value), map(str, options))}"
                )


def _literal_values(hint: Any) -> tuple[Any, ...]:
    """Return the values of a Literal (with bool, of a union of both), () for other annotations."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    parts = get_args(hint)
    if set(parts) - {bool} and all(part is bool or get_origin(part) is Literal for part in parts):
        return (True, False, *(value for part in parts for value in get_args(part)))
    return ()


def _make_foreign(env_id: str) -> gym.Env[Any, Any] | None:
    """Make an environment of OGBench or Gymnasium-Robotics, None where they have no such id."""
    from gcrl_gym.wrappers.goal_dict import make_goal_dict_env

    try:
        return make_goal_dict_env(env_id)
    except UserError:  # not installed, or unknown there too
        return None


def wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
    """Wrap as Stable-Baselines3 does, but leave the channels of pictures as the data has them."""
    wrapped = BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)
    return wrapped.venv if isinstance(wrapped, VecTransposeImage) else wrapped


def resolve_env(
    env: gym.Env[Any, Any] | VecEnv | str | None,
    expected: tuple[spaces.Space[Any], spaces.Space[Any]] | None = None,
) -> gym.Env[Any, Any] | VecEnv | None:
    """Return an environment for an environment or a registered id.

    Args:
        env: what the user passed.
        expected: observation and action space that it must have.

    Raises:
        UserError: an unknown id, something that is not an environment, or other spaces.
    """
    if isinstance(env, str):
        env_id = env
        try:
            env = gym.make(env_id)
        except gym.error.UnregisteredEnv as error:
            env = _make_foreign(env_id)
            if env is None:
                hint = nearest(env_id, gym.registry)
                raise UserError(f"Unknown environment {env_id!r}.{hint}") from error
    if env is None:
        return None
    if not isinstance(env, (gym.Env, VecEnv)):
        raise UserError(f"env is {env!r}; pass a Gymnasium environment, its id, or None.")
    if expected is not None and (env.observation_space, env.action_space) != expected:
        raise UserError(
            f"The env's spaces are {env.observation_space} and {env.action_space}; the agent's are "
            f"{expected[0]} and {expected[1]}."
        )
    return env


def resolve_dataset(dataset: Any) -> OfflineDataset | None:
    """Return an OfflineDataset for one, a MinariDataset, a dataset id, a path, or None."""
    if dataset is None or isinstance(dataset, OfflineDataset):
        return dataset
    if isinstance(dataset, os.PathLike) or (isinstance(dataset, str) and os.path.exists(dataset)):
        return OfflineDataset.from_minari(os.fspath(dataset))
    if isinstance(dataset, str):
        return OfflineDataset.from_minari(datasets.load_dataset(dataset))
    return OfflineDataset.from_minari(dataset)


def dataset_spaces(
    dataset: OfflineDataset | None, agent: str
) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Return (observation space, action space) for an agent trained without an environment.

    Raises:
        UserError: no dataset either.
    """
    if dataset is None:
        raise UserError(f"{agent} needs an env, or a dataset to take the spaces from.")
    observation, action = dataset.observation_space, dataset.action_space
    if dataset.goal_dim == 0:
        return observation, action
    goal = observation
    if not dataset.goal_is_observation:
        goal = spaces.Box(-np.inf, np.inf, (dataset.goal_dim,), np.float32)
    parts = {"observation": observation, "achieved_goal": goal, "desired_goal": goal}
    return spaces.Dict(parts), action


def check_spaces(agent: OfflineAgent) -> None:
    """Raise unless the agent can act in its action space and has the goals it needs.

    Raises:
        UserError: a kind of space that the agent does not support, an unbounded Box, a task without
            goals for an agent that needs them, or with others than it needs.
    """
    space, name = agent.action_space, type(agent).__name__
    if not isinstance(space, agent.action_spaces):
        names = " or ".join(kind.__name__ for kind in agent.action_spaces)
        raise UserError(f"{name} needs a {names} action space, not {space}.")
    if isinstance(space, spaces.Box) and not np.isfinite([space.low, space.high]).all():
        raise UserError(f"{name} needs finite action bounds, not {space}; rescale the actions.")
    observation, goal = split_space(agent.observation_space)
    if agent.needs_goals and goal is None:
        raise UserError(
            f"{name} learns to reach goals, but this task has none; use goal-conditioned data, or "
            "an agent such as IQL."
        )
    if agent.needs_state_goals and goal is not None and goal.shape != observation.shape:
        raise UserError(
            f"{name} takes goals for states, so goals must be observations; here they "
            f"have shape {goal.shape}, observations {observation.shape}. Use GCIVL, GCIQL or CRL."
        )


def check_dataset(dataset: OfflineDataset, agent: OfflineAgent) -> None:
    """Raise unless the dataset's spaces are those of the agent and it has actions if needed.

    Raises:
        UserError: naming the part that differs, and both shapes.
    """
    if dataset.state_only and agent.needs_actions:
        raise UserError(
            f"{type(agent).__name__} learns from actions, but the dataset "
            f"{dataset.metadata.get('dataset_id', '')!r} holds states only (state_only is true)."
        )
    observation, goal = split_space(agent.observation_space)
    found = tuple(dataset.observations.shape[1:])
    if found != observation.shape:
        raise UserError(
            f"The dataset's observations have shape {found}, the environment's "
            f"{observation.shape}; use the environment of the data (gcrl_gym.datasets.make_env)."
        )
    goal_dim = 0 if goal is None else int(np.prod(goal.shape or (1,)))
    if goal_dim != dataset.goal_dim:
        raise UserError(
            f"The dataset has goals of width {dataset.goal_dim}, the environment of {goal_dim} "
            "(0 is none); wrap the environment with gcrl_gym.wrappers.GoalDict, or use a dataset "
            "with achieved goals."
        )
    if agent.needs_state_goals:
        _require_states(dataset, type(agent).__name__)
    _check_actions(dataset, agent.action_space)
    if agent.needs_next_actions and not getattr(agent.sampler, "next_actions", False):
        raise UserError(
            f"{type(agent).__name__} learns from the next action of the data; pass a sampler with "
            "next_actions=True."
        )


def check_rewards(dataset: OfflineDataset, agent: OfflineAgent, reward_rule: str) -> None:
    """Raise unless there are rewards to learn from, recorded or of relabelled goals.

    Raises:
        UserError: the agent needs rewards, its sampler gives the recorded ones, and all are 0.
    """
    if agent.needs_rewards and reward_rule == "recorded" and not dataset.rewards.any():
        raise UserError(
            f"{type(agent).__name__} learns from rewards, but every reward of the dataset "
            f"{dataset.metadata.get('dataset_id', '')!r} is 0; use data with rewards (OGBench: a "
            "singletask id), goals with GoalSampler, or an imitation agent such as GCBC."
        )


def check_env(env: gym.Env[Any, Any], agent: OfflineAgent) -> None:
    """Raise unless an agent can be trained in an environment: shapes, bounds and goals agree.

    Raises:
        UserError: naming the part that differs, and both spaces.
    """
    name = type(agent).__name__
    ours, theirs = (split_space(kind.observation_space) for kind in (agent, env))
    if (ours[1] is None) != (theirs[1] is None):
        who = "the agent learns to reach goals" if ours[1] else "the agent was made without goals"
        raise UserError(
            f"{name}: {who}, but the env's observations are {env.observation_space}; use the "
            "environment of its data, or wrap the env (gcrl_gym.wrappers.GoalDict, FlattenGoal)."
        )
    for part, mine, other in zip(("observations", "goals"), ours, theirs):
        if mine is not None and other is not None and _kind(mine) != _kind(other):
            raise UserError(f"{name} was made for {part} {mine}, but the env gives {other}.")
    mine, other = agent.action_space, env.action_space
    same = mine == other
    if isinstance(mine, spaces.Box) and isinstance(other, spaces.Box):
        limits = ((mine.low, other.low), (mine.high, other.high))
        same = mine.shape == other.shape and all(np.allclose(*pair) for pair in limits)
    if not same:
        raise UserError(f"{name} was made for actions {mine}, but the env takes {other}.")


def _kind(space: spaces.Space[Any]) -> tuple[tuple[int, ...], bool]:
    """Return the shape of a Box, and whether it holds floats."""
    return space.shape or (), bool(np.issubdtype(space.dtype, np.floating))


def _require_states(dataset: OfflineDataset, name: str, rows: int = 256) -> None:
    """Raise if goals that have the width of observations are something else.

    Args:
        dataset: the dataset.
        name: of the agent.
        rows: how many to look at.
    """
    achieved, states = dataset.achieved_goals, dataset.observations
    if achieved is None or dataset.goal_is_observation or achieved.shape != states.shape:
        return  # other widths are named by those who know the environment
    some = np.unique(np.linspace(0, len(states) - 1, rows).astype(np.int64))
    if not np.allclose(achieved[some], states[some]):
        raise UserError(
            f"{name} takes goals for states, so goals must be observations; those of this "
            "dataset are as wide, but differ from the observations. Use GCIVL, GCIQL or CRL."
        )


def _check_actions(dataset: OfflineDataset, space: spaces.Space[Any]) -> None:
    stored = dataset.action_space
    discrete = np.issubdtype(dataset.actions.dtype, np.integer)
    if isinstance(space, spaces.Discrete) != discrete:
        raise UserError(f"The dataset's actions are {stored}, the environment's {space}.")
    if isinstance(space, spaces.Discrete):
        if isinstance(stored, spaces.Discrete) and (stored.n, stored.start) != (
            space.n,
            space.start,
        ):
            raise UserError(f"The dataset's actions are {stored}, the environment's {space}.")
        return
    width, found = int(np.prod(space.shape or (1,))), dataset.actions.shape[1]
    if found != width:
        raise UserError(f"The dataset's actions have width {found}, the environment's {width}.")
