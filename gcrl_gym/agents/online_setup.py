"""What ``finetune`` is asked for, checked before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from gcrl_gym.agents import inputs
from gcrl_gym.agents.policy import flat_width, split_space
from gcrl_gym.agents.schedules import resolve_learning_rate
from gcrl_gym.datasets.columns import Layout
from gcrl_gym.datasets.replay import ReplayBuffer
from gcrl_gym.datasets.rewards import transform_rewards
from gcrl_gym.envs.check import goal_function
from gcrl_gym.errors import UserError, nearest
from gcrl_gym.pools import single_env

if TYPE_CHECKING:
    from gcrl_gym.agents.base import OfflineAgent

_SHARES = {"symmetric": 0.5, "online": 0.0}


@dataclass(frozen=True)
class Settings:
    """The arguments of ``finetune``, see there.

    Attributes:
        share: of offline transitions in a batch, in [0, 1].
        learning_starts: see ``finetune``.
        updates_per_step: see ``finetune``.
        buffer_size: see ``finetune``.
        noise: of actions scaled to [-1, 1].
        actor: see ``finetune``.
        rate: learning rate or schedule of every optimiser; None for each its own.
        seed: see ``finetune``.
        log_interval: see ``finetune``.
    """

    share: float
    learning_starts: int
    updates_per_step: int
    buffer_size: int
    noise: float
    actor: int
    rate: float | Schedule | None
    seed: int | None
    log_interval: int

    @classmethod
    def of(
        cls,
        agent: OfflineAgent,
        mix: Any = "symmetric",
        *,
        learning_starts: int = 0,
        updates_per_step: int = 1,
        buffer_size: int = 1,
        exploration_noise: float | None = None,
        actor: int = -1,
        learning_rate: float | str | Schedule | None = None,
        seed: int | None = None,
        log_interval: int = 1,
    ) -> Settings:
        """Check the arguments of ``finetune``.

        Raises:
            UserError: an agent that does not learn online, or a number out of range.
        """
        if not agent.finetunes:
            raise UserError(
                f"{type(agent).__name__} does not learn online; finetune is for "
                f"{', '.join(_supporters())}."
            )
        whole = inputs.whole_number
        actor = whole(actor, "actor", -agent.num_actors)
        if actor >= agent.num_actors:
            last = agent.num_actors - 1
            raise UserError(f"actor is {actor}; this agent has actors 0 to {last}.")
        return cls(
            share=_share(mix),
            learning_starts=whole(learning_starts, "learning_starts", 0),
            updates_per_step=whole(updates_per_step, "updates_per_step"),
            buffer_size=whole(buffer_size, "buffer_size"),
            noise=_noise(agent, exploration_noise, actor),
            actor=actor,
            rate=None if learning_rate is None else resolve_learning_rate(learning_rate),
            seed=None if seed is None else whole(seed, "seed", 0),
            log_interval=whole(log_interval, "log_interval"),
        )

    def offline_rows(self, update: int, batch_size: int) -> int:
        """Return how many transitions of a batch are offline ones; the mean is the share exactly.

        Args:
            update: number of the batch, from 0 on.
            batch_size: transitions in it.
        """
        wanted = self.share * batch_size
        return int((update + 1) * wanted) - int(update * wanted)


def _supporters() -> list[str]:
    from gcrl_gym.agents import agent_names, get_agent

    return [kind.__name__ for kind in map(get_agent, agent_names()) if kind.finetunes]


def _share(mix: Any) -> float:
    if isinstance(mix, str) and mix in _SHARES:
        return _SHARES[mix]
    number = isinstance(mix, (int, float)) and not isinstance(mix, bool)
    if not number or not 0.0 <= mix <= 1.0:
        hint = nearest(mix, _SHARES) if isinstance(mix, str) else ""
        raise UserError(
            f'mix is {mix!r}; give "symmetric" (half), "online" (no offline data) or the share of '
            f"offline transitions, 0 to 1.{hint}"
        )
    return float(mix)


def _noise(agent: OfflineAgent, given: Any, actor: int) -> float:
    if given is None:
        return agent.exploration_noise if agent.is_deterministic(actor) else 0.0
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not number or not 0.0 <= given < float("inf"):
        raise UserError(f"exploration_noise is {given!r}; give a finite number >= 0.")
    if given > 0.0 and isinstance(agent.action_space, spaces.Discrete):
        raise UserError("exploration_noise is for continuous actions; discrete ones are sampled.")
    return float(given)


def prepare(agent: OfflineAgent, settings: Settings, env: Any, dataset: Any) -> gym.Env[Any, Any]:
    """Give the agent its environment and data, and return the environment to train in.

    Raises:
        UserError: no environment, one that does not fit, or no data to mix with or to scale by.
    """
    name = type(agent).__name__
    resolved = inputs.resolve_env(agent.env if env is None else env)
    if resolved is None:
        raise UserError(f"{name}.finetune needs an environment to act in; pass env=....")
    single = single_env(resolved)
    inputs.check_env(single, agent)
    if dataset is None and agent.dataset is None and settings.share > 0.0:
        raise UserError(
            f"{name} has no offline data to mix with; pass dataset=..., or finetune("
            'mix="online") to learn from what is collected alone.'
        )
    if env is not None:
        agent.env, agent.n_envs = agent._wrap_env(single), 1
    if dataset is not None:
        agent.set_dataset(dataset, statistics=not agent.policy.has_statistics)
    elif env is not None and agent.dataset is not None and agent._bound.reward_rule == "env":
        agent.set_dataset(agent.dataset, statistics=False)  # rewards are this env's from now on
    reward_spread(agent)
    return single


def make_buffer(agent: OfflineAgent, env: gym.Env[Any, Any], capacity: int) -> ReplayBuffer:
    """Return an empty buffer whose rows are those of the agent's data, or what the env gives."""
    observation, goal = split_space(agent.observation_space)
    data, metadata = agent.dataset, dict[str, Any]()
    if data is not None:
        layout, goal_is_observation = data.columns.layout, data.goal_is_observation
        metadata |= {k: data.metadata[k] for k in ("goal", "dataset_id") if k in data.metadata}
    else:
        discrete = isinstance(agent.action_space, spaces.Discrete)
        integers = np.issubdtype(observation.dtype, np.integer)
        layout = Layout(
            observation_shape=tuple(observation.shape or ()),
            observation_dtype=str(observation.dtype) if integers else "float32",
            action_shape=() if discrete else (agent.action_dim,),
            action_dtype="int64" if discrete else "float32",
            achieved_dim=flat_width(goal),
            desired_dim=flat_width(goal),
        )
        goal_is_observation = False
        if "dataset_id" in agent.trained_on:
            metadata["dataset_id"] = agent.trained_on["dataset_id"]
        if goal is not None and goal_function(env, "compute_reward") is None:
            metadata["goal"] = "oracle"  # judged by rows, as what `collect` records
    return ReplayBuffer(
        layout,
        capacity,
        goal_is_observation=goal_is_observation,
        observation_space=observation,
        action_space=agent.action_space,
        metadata=metadata,
    )


def reward_spread(agent: OfflineAgent) -> float:
    """Return the spread of returns in the offline data where rewards are scaled by it.

    Raises:
        UserError: it is not known.
    """
    if agent.reward_transform != "return_range":
        return 0.0
    if "return_spread" in agent.trained_on:
        return float(agent.trained_on["return_spread"])
    if agent.dataset is None:
        raise UserError(
            'reward_transform="return_range" needs the returns of the offline data; pass '
            "dataset=... to finetune."
        )
    data = transform_rewards(agent.dataset, agent.reward_transform)
    return float(data.metadata["return_spread"])
