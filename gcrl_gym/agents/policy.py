"""The module that holds everything an agent has learned: networks, targets and statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.samplers import Batch
from gcrl_gym.errors import UserError

# act(inputs [B, D + G], deterministic, actor) -> actions in [-1, 1] [B, A], or indices [B]
ActFunction = Callable[[Tensor, bool, int], Tensor]

# Fields of a batch on the scale of observations, and on that of goals.
STATE_FIELDS = ("observations", "next_observations", "target_observations")
GOAL_FIELDS = ("goals", "actor_goals", "subgoals", "target_goals")

_EPSILON = 1e-3  # added to standard deviations, as D4RL's and CORL's agents do


def split_space(space: spaces.Space[Any]) -> tuple[spaces.Space[Any], spaces.Space[Any] | None]:
    """Return the observation part and the goal part (None without goals) of a space.

    Raises:
        UserError: a Dict without the keys ``observation`` and ``desired_goal``, or a space that is
            not a Box.
    """
    if isinstance(space, spaces.Dict):
        missing = {"observation", "desired_goal"} - set(space.spaces)
        if missing:
            raise UserError(
                f"The Dict observation space has keys {sorted(space.spaces)}; goal-conditioned "
                f"agents need {sorted(missing)} as well (wrap the env, see gcrl_gym.wrappers)."
            )
        parts: tuple[spaces.Space[Any], spaces.Space[Any] | None]
        parts = (space.spaces["observation"], space.spaces["desired_goal"])
    else:
        parts = (space, None)
    for part in parts:
        if part is not None and not isinstance(part, spaces.Box):
            raise UserError(f"Observation space {part} is not supported; agents need a Box.")
    return parts


def flat_width(space: spaces.Space[Any] | None) -> int:
    """Return the number of numbers in one element of a Box (0 for None)."""
    return 0 if space is None else int(np.prod(space.shape or (1,)))


class GoalPolicy(BasePolicy):
    """Named networks and data statistics, and the way from an observation to an action.

    Args:
        observation_space: Box, or Dict with ``observation`` and ``desired_goal``.
        action_space: bounded Box, or Discrete.
    """

    observation_mean: Tensor
    observation_std: Tensor
    goal_mean: Tensor
    goal_std: Tensor
    action_low: Tensor
    action_high: Tensor

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        super().__init__(observation_space, action_space, normalize_images=False)
        observation, goal = split_space(observation_space)
        self.observation_dim, self.goal_dim = flat_width(observation), flat_width(goal)
        self.networks = nn.ModuleDict()
        self._pictures = np.uint8 in (observation.dtype, getattr(goal, "dtype", None))
        for name, part in (("observation", observation), ("goal", goal)):
            # Bytes become numbers in [0, 1], as in Stable-Baselines3, unless statistics are fitted.
            scale = 255.0 if part is not None and part.dtype == np.uint8 else 1.0
            self.register_buffer(f"{name}_mean", torch.zeros(flat_width(part)))
            self.register_buffer(f"{name}_std", torch.full((flat_width(part),), scale))
        if isinstance(action_space, spaces.Box):
            self.register_buffer("action_low", torch.as_tensor(action_space.low).float().flatten())
            self.register_buffer(
                "action_high", torch.as_tensor(action_space.high).float().flatten()
            )
        self._rescale_actions = isinstance(action_space, spaces.Box) and not (
            bool((action_space.low == -1).all()) and bool((action_space.high == 1).all())
        )
        self.act: ActFunction | None = None  # set by the agent

    @property
    def has_statistics(self) -> bool:
        """Whether means and deviations were taken from data; before that, means are 0."""
        return bool(self.observation_mean.any() or self.goal_mean.any())

    def fit_statistics(self, dataset: OfflineDataset) -> None:
        """Take the mean and standard deviation of observations and goals from a dataset."""
        columns = {"observation": dataset.observations}
        if dataset.goal_dim:
            assert dataset.achieved_goals is not None
            columns["goal"] = dataset.achieved_goals
        for name, column in columns.items():
            mean, std = _moments(column.reshape(len(column), -1))
            getattr(self, f"{name}_mean").copy_(torch.as_tensor(mean))
            getattr(self, f"{name}_std").copy_(torch.as_tensor(std + _EPSILON))

    def normalize_batch(self, batch: Batch, standardize: bool) -> None:
        """Bring a batch, in place, to the scales that networks see.

        Args:
            batch: as sampled from the dataset.
            standardize: standardise observations and goals too, not only rescale actions.
        """
        for name in (*STATE_FIELDS, *GOAL_FIELDS):
            value = getattr(batch, name, None)
            if value is not None:
                setattr(batch, name, self._scaled(name, value, standardize))
        windows = getattr(batch, "windows", None)
        if windows is not None:
            batch.windows = self._scaled(STATE_FIELDS[0], windows, standardize, axis=2)
        if self._rescale_actions:
            batch.actions = self.normalize_actions(batch.actions)
            if batch.next_actions is not None:
                batch.next_actions = self.normalize_actions(batch.next_actions)
        elif isinstance(self.action_space, spaces.Discrete) and self.action_space.start:
            batch.actions = batch.actions - int(self.action_space.start)

    def _scaled(self, name: str, value: Tensor, standardize: bool, axis: int = 1) -> Tensor:
        """Return states or goals, which begin at an axis, flat and standardised."""
        if value.ndim > axis + 1:  # pictures
            value = value.flatten(axis).float()
        if not (standardize or self._pictures):
            return value
        if name in STATE_FIELDS:
            return self.normalize_observations(value)
        return self.normalize_goals(value) if self.goal_dim else value

    def normalize_observations(self, observations: Tensor) -> Tensor:
        """Standardise observations [B, D], or windows of them [B, L, D]."""
        return (observations - self.observation_mean) / self.observation_std

    def normalize_goals(self, goals: Tensor) -> Tensor:
        """Standardise goals [B, G]."""
        return (goals - self.goal_mean) / self.goal_std

    def normalize_actions(self, actions: Tensor) -> Tensor:
        """Map actions [B, A] from the action space's box to [-1, 1]."""
        return 2.0 * (actions - self.action_low) / (self.action_high - self.action_low) - 1.0

    def unnormalize_actions(self, actions: Tensor) -> Tensor:
        """Map actions [B, A] from [-1, 1] to the action space's box, never outside of it."""
        span = self.action_high - self.action_low
        raw = self.action_low + 0.5 * (actions + 1.0) * span
        # Rounding can step over an asymmetric bound; strict environments raise then.
        return torch.maximum(torch.minimum(raw, self.action_high), self.action_low)

    def forward(self, observation: Any, deterministic: bool = False) -> Tensor:
        """Return actions in the action space for a batch of tensors (SB3's interface)."""
        return self._predict(observation, deterministic)

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        if isinstance(observation, dict):
            return self._actions(
                observation["observation"], observation["desired_goal"], deterministic, -1
            )
        return self._actions(observation, None, deterministic, -1)

    def _actions(
        self, observation: Tensor, goal: Tensor | None, deterministic: bool, actor: int
    ) -> Tensor:
        assert self.act is not None, "the agent sets this before anyone can call it"
        inputs = self.normalize_observations(observation.float().flatten(1))
        if goal is not None:
            inputs = torch.cat([inputs, self.normalize_goals(goal.float().flatten(1))], dim=-1)
        actions = self.act(inputs, deterministic, actor)
        if isinstance(self.action_space, spaces.Discrete):
            return actions + int(self.action_space.start)
        return self.unnormalize_actions(actions).view(-1, *self.action_space.shape)  # type: ignore[misc]

    @torch.no_grad()
    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        actor: int = -1,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return the action for one observation or a batch of them.

        Args:
            observation: array or dict of arrays, with or without a leading batch axis.
            state: returned as it came; policies without memory have none.
            episode_start: unused by policies without memory.
            deterministic: the policy's representative action, or a sample.
            actor: which actor of a chain acts; -1 is the last.

        Returns:
            Actions in the action space, with a batch axis where the input had one, and ``state``.

        Raises:
            UserError: an observation whose shape does not fit the observation space.
        """
        observation_space, goal_space = split_space(self.observation_space)
        goal = None
        if goal_space is not None:
            if not isinstance(observation, dict):
                raise UserError("This agent expects a dict with 'observation' and 'desired_goal'.")
            goal, _ = self._batched(observation["desired_goal"], goal_space, "desired_goal")
            observation = observation["observation"]
        if isinstance(observation, dict):
            raise UserError("This agent was trained without goals; pass an array, not a dict.")
        batch, single = self._batched(observation, observation_space, "observation")
        actions = self._actions(batch, goal, deterministic, actor).cpu().numpy()
        if isinstance(self.action_space, spaces.Box):
            actions = actions.astype(self.action_space.dtype, copy=False)
        return (actions[0] if single else actions), state

    def _batched(
        self, value: np.ndarray, space: spaces.Space[Any], name: str
    ) -> tuple[Tensor, bool]:
        array = np.asarray(value)
        shape = space.shape or ()
        single = array.shape == shape
        if not single and array.shape[1:] != shape:
            raise UserError(
                f"{name} has shape {array.shape}; expected {shape} or a batch (n, *{shape})."
            )
        if single:
            array = array[None]
        return torch.as_tensor(array, dtype=torch.float32, device=self.action_device), single

    @property
    def action_device(self) -> torch.device:
        """Device that the statistics, and so the inputs of the networks, live on."""
        return self.observation_mean.device


def _moments(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation [D] of a column [rows, D]."""
    mean = column.mean(0, dtype=np.float64)
    # In blocks of 32 MiB: a float64 copy of a large column, such as images, would not fit.
    rows = max(1, 2**22 // column.shape[1]) if column.shape[1] else len(column)
    blocks = (column[start : start + rows] for start in range(0, len(column), rows))
    squares = sum(np.square(block - mean).sum(0) for block in blocks)
    return mean, np.sqrt(squares / len(column))
