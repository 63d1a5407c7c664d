"""`OfflineDataset`: the in-memory form every sampler and agent works on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from gcrl_gym.datasets.array_checks import LARGEST_ACTION, observation_leaf
from gcrl_gym.datasets.columns import Array, Columns
from gcrl_gym.datasets.from_csv import columns_from_csv
from gcrl_gym.datasets.from_episodes import columns_from_episodes
from gcrl_gym.datasets.from_memory import columns_from_arrays

if TYPE_CHECKING:
    from minari import MinariDataset


class OfflineDataset:
    """Transitions as flat columns with one copy of each observation.

    An episode of ``T`` transitions takes ``T + 1`` rows; its last row holds only a state::

        row          0    1    2    3  |  4    5    6        T = 3 and T = 2
        observation  s0   s1   s2   s3 |  s0   s1   s2       next observation of row t is row t+1
        action       a0   a1   a2   -  |  a0   a1   -
        terminated   0    0    1    -  |  0    0    -        terminated: no bootstrap
        episode_end  3    3    3    3  |  6    6    6

    Float columns are float32 (wider floats are narrowed, as Stable-Baselines3's buffers do) and
    are views of one packed matrix; integer columns keep their dtype. Build one with
    `from_minari`, `from_arrays` or `from_episodes`.

    Args:
        columns: the flat columns.
        goal_is_observation: the goal space is the observation space (OGBench): the achieved goal
            of a row is its observation.
        observation_space: space of one observation; unbounded when None.
        action_space: space of one action; unbounded, or counted from the data, when None.
        metadata: where the data came from.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        goal_is_observation: bool = False,
        observation_space: gym.Space[Any] | None = None,
        action_space: gym.Space[Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.columns = columns
        self.goal_is_observation = goal_is_observation
        self.observation_space = observation_space or _default_space(columns["observations"])
        self.action_space = action_space or _default_space(columns["actions"])
        self.metadata: dict[str, Any] = dict(metadata or {})

    @classmethod
    def from_minari(cls, source: MinariDataset | str | Path) -> OfflineDataset:
        """Load a Minari dataset; the first load leaves a flat cache that makes later ones fast.

        Args:
            source: a MinariDataset, the id of a local one, or its folder.

        Raises:
            UserError: no such dataset, a damaged file, values that are not finite, observations
                other than arrays or the three goal keys.
        """
        from gcrl_gym.datasets.minari_reader import read_minari

        columns, dataset = read_minari(source)
        metadata = dict(dataset.storage.metadata)
        space = dataset.observation_space
        if isinstance(space, spaces.Dict):
            space = space["observation"]
        return cls(
            columns,
            goal_is_observation=metadata.get("goal") == "observation",
            observation_space=space,
            action_space=dataset.action_space,
            metadata=metadata,
        )

    @classmethod
    def from_arrays(
        cls,
        observations: npt.ArrayLike,
        actions: npt.ArrayLike,
        rewards: npt.ArrayLike | None = None,
        terminated: npt.ArrayLike | None = None,
        truncated: npt.ArrayLike | None = None,
        *,
        next_observations: npt.ArrayLike | None = None,
        achieved_goals: npt.ArrayLike | None = None,
        desired_goals: npt.ArrayLike | None = None,
        goal_is_observation: bool = False,
        observation_space: gym.Space[Any] | None = None,
        action_space: gym.Space[Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> OfflineDataset:
        """Build from flat transition arrays of ``N`` rows, laid out as in D4RL.

        An episode ends at each row that is terminated or truncated, and the last row must be one.
        A row with both flags, which Gymnasium allows, is terminated: nothing follows the end of a
        task. One warning counts such rows.

        Without ``next_observations`` the state after an episode's last row is unknown: where that
        row is truncated it becomes the episode's last state (its action is dropped, as D4RL's
        ``qlearning_dataset`` does); where it is terminated the transition is kept and its next
        observation repeats the observation, which no bootstrap ever reads.

        Args:
            observations: ``(N, *shape)``; integer observations (images) keep their dtype.
            actions: ``(N, A)`` floats or ``(N,)`` integers, discrete actions from 0 on.
            rewards: ``(N,)``; zeros when None.
            terminated: ``(N,)`` booleans or 0/1: the task ended, no bootstrap.
            truncated: ``(N,)`` booleans or 0/1: the recording ended (time limit), bootstrap.
            next_observations: ``(N, *shape)``; must equal the next row inside an episode, up to a
                relative 1e-6.
            achieved_goals: ``(N, G)``, needs ``desired_goals``.
            desired_goals: ``(N, G)``, needs ``achieved_goals``.
            goal_is_observation: goals are observations.
            observation_space: space of one observation, or a Dict with the goal keys.
            action_space: space of one action.
            metadata: kept with the dataset.

        Raises:
            UserError: lengths or shapes that differ or that the spaces do not have, no rows, a last
                row that does not end an episode, NaN or infinity, a flag other than 0 and 1, a
                discrete action outside its space, a next observation that is not the next row.
        """
        columns = columns_from_arrays(
            observations,
            actions,
            {"rewards": rewards, "terminated": terminated, "truncated": truncated},
            next_observations=next_observations,
            goals={"achieved_goals": achieved_goals, "desired_goals": desired_goals},
            spaces=(observation_space, action_space),
        )
        return cls(
            columns,
            goal_is_observation=goal_is_observation,
            observation_space=observation_leaf(observation_space),
            action_space=action_space,
            metadata=metadata,
        )

    @classmethod
    def from_episodes(
        cls,
        episodes: Iterable[Mapping[str, Any]],
        *,
        goal_is_observation: bool = False,
        observation_space: gym.Space[Any] | None = None,
        action_space: gym.Space[Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> OfflineDataset:
        """Build from whole episodes.

        An episode whose last step is not terminated is truncated there; where it is flagged as both
        it is terminated, and one warning counts such episodes.

        Args:
            episodes: one mapping per episode, in a list or from a generator, with ``observations``
                (T+1 rows, or a mapping of ``observation``, ``achieved_goal`` and ``desired_goal``
                with T+1 rows each), ``actions`` (T rows) and optionally ``rewards``,
                ``terminations`` and ``truncations`` (T rows, the last set only at the end).
                ``next_observations`` (T rows) are compared with the observations; ``id``, ``seed``,
                ``options`` and ``infos`` of Minari's episodes are not read.
            goal_is_observation: goals are observations.
            observation_space: space of one observation, or a Dict with the goal keys.
            action_space: space of one action.
            metadata: kept with the dataset.

        Raises:
            UserError: no episodes, an unknown key, lengths or shapes that differ or that the spaces
                do not have, NaN or infinity, a flag other than 0 and 1, a discrete action outside
                its space.
        """
        return cls(
            columns_from_episodes(episodes, (observation_space, action_space)),
            goal_is_observation=goal_is_observation,
            observation_space=observation_leaf(observation_space),
            action_space=action_space,
            metadata=metadata,
        )

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        *,
        goal_is_observation: bool = False,
        observation_space: gym.Space[Any] | None = None,
        action_space: gym.Space[Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> OfflineDataset:
        """Build from a CSV file with a header and one row per step.

        Columns ``observation_0, observation_1, .., action_0, .., reward, terminated, truncated``
        are found by these names, numbered from 0 without gaps (``action`` alone: discrete actions,
        unless ``action_space`` is a Box); ``next_observation_*``, ``achieved_goal_*``,
        ``desired_goal_*`` and ``episode`` (a number per episode, in place of ``truncated``) are
        optional. A misspelt column is refused, one that is not used is named in a warning. Blank
        lines and those that begin with ``#`` are skipped. The rules are those of `from_arrays`.

        Args:
            path: the file, UTF-8 text with or without a byte-order mark.
            columns: other column names, such as ``{"observations": ["x", "y"], "actions": "u"}``.
            goal_is_observation: goals are observations.
            observation_space: space of one observation, or a Dict with the goal keys.
            action_space: space of one action.
            metadata: kept with the dataset.

        Raises:
            UserError: a missing or misspelt column, a cell that is not a number, a row of another
                width, and all of `from_arrays`; naming the file and the line.
        """
        return cls(
            columns_from_csv(path, columns, (observation_space, action_space)),
            goal_is_observation=goal_is_observation,
            observation_space=observation_leaf(observation_space),
            action_space=action_space,
            metadata=metadata,
        )

    @property
    def state_only(self) -> bool:
        """Whether the data holds states without actions (they are NaN)."""
        return bool(self.metadata.get("state_only"))

    @property
    def observations(self) -> Array:
        """Observations, ``(rows, *observation shape)``."""
        return self.columns["observations"]

    @property
    def actions(self) -> Array:
        """Actions, ``(rows, A)`` float32 or ``(rows,)`` int64; zero in an episode's last row."""
        return self.columns["actions"]

    @property
    def rewards(self) -> Array:
        """Recorded rewards, ``(rows,)`` float32; zero in the last row of an episode."""
        return self.columns["rewards"]

    @cached_property
    def terminated(self) -> npt.NDArray[np.bool_]:
        """Whether the transition of the row ended the task, ``(rows,)``."""
        flags: npt.NDArray[np.bool_] = self.columns["terminated"] != 0
        return flags

    @property
    def achieved_goals(self) -> Array | None:
        """Achieved goal of each row, ``(rows, G)``; the observations themselves on OGBench data."""
        if self.goal_is_observation:
            return self.observations
        return self.columns["achieved_goals"] if self.columns.layout.achieved_dim else None

    @property
    def desired_goals(self) -> Array | None:
        """Goal that was pursued in each row, ``(rows, G)``, or None where none was recorded."""
        return self.columns["desired_goals"] if self.columns.layout.desired_dim else None

    @cached_property
    def episode_end(self) -> npt.NDArray[np.int64]:
        """Last row of the episode of each row, ``(rows,)``."""
        return np.repeat(self.columns.episode_ends, self.columns.lengths + 1)

    @cached_property
    def step_rows(self) -> npt.NDArray[np.int64]:
        """Rows that hold a transition (all but the last of each episode), ``(steps,)``."""
        is_step = np.ones(self.num_rows, bool)
        is_step[self.columns.episode_ends] = False
        return np.flatnonzero(is_step)

    @property
    def goal_dim(self) -> int:
        """Width of a goal, 0 when the data has none."""
        goals = self.achieved_goals
        return 0 if goals is None else int(np.prod(goals.shape[1:]))

    @property
    def num_rows(self) -> int:
        """Number of rows, final states included."""
        return len(self.columns.rows)

    @property
    def num_steps(self) -> int:
        """Number of transitions."""
        return int(self.columns.lengths.sum())

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return len(self.columns.lengths)

    def describe(self) -> str:
        """Return one line: episodes, transitions, lengths, widths, goals, memory."""
        lengths = self.columns.lengths
        goals = "observation" if self.goal_is_observation else (self.goal_dim or "none")
        return (
            f"{self.num_episodes} episodes, {self.num_steps} transitions "
            f"(lengths {lengths.min()}-{lengths.max()}), "
            f"observation {self.observations.shape[1:]} {self.observations.dtype}, "
            f"action {self.actions.shape[1:]} {self.actions.dtype}, goal {goals}, "
            f"{self.columns.nbytes / 2**20:.1f} MiB"
        )

    def __repr__(self) -> str:
        return f"OfflineDataset({self.describe()})"


def _default_space(column: Array) -> gym.Space[Any]:
    """Space that holds every value of a column: unbounded floats, or 0..max for integers."""
    shape = column.shape[1:]
    if column.dtype.kind == "f":
        return spaces.Box(-np.inf, np.inf, shape, np.float32)
    if not shape and column.min() >= 0 and column.max() <= LARGEST_ACTION:
        return spaces.Discrete(int(column.max()) + 1)
    limits = np.iinfo(column.dtype)
    return spaces.Box(limits.min, limits.max, shape, column.dtype.type)
