"""`ReplayBuffer`: the episodes of online training as a dataset that any sampler can be bound to.

Episodes are collected whole, in the rows of an `OfflineDataset`, one behind the other::

    rows     0 .. 2 | 3 .. 8 | 9 .. 12 | 13 14 ..
             left     drawn from         being recorded
             ^ the oldest leave          ^ no sampler sees it before it has ended

So hindsight relabelling, next actions and windows are those of offline training: there is no second
implementation of them. `publish` hands out what has ended; it costs as much as binding a sampler,
therefore a large buffer waits until it has grown by a hundredth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from gcrl_gym.datasets.columns import Array, Columns, Layout
from gcrl_gym.datasets.from_memory import GOAL_KEYS
from gcrl_gym.datasets.offline_dataset import OfflineDataset
from gcrl_gym.errors import UserError

GROWTH = 100  # a sampler is bound again when this part of the transitions is new
_LEAST_ROWS = 1024
_STATES = ("observations", "achieved_goals", "desired_goals")


class ReplayBuffer:
    """Recorded episodes, the newest ones.

    Args:
        layout: of the rows; goals of width 0 where they are observations.
        capacity: most transitions that can be drawn; whole episodes leave, the oldest first, and
            the newest stays however long it is.
        goal_is_observation: see `OfflineDataset`.
        observation_space: of one observation, without goals.
        action_space: of one action.
        metadata: of the dataset.
    """

    def __init__(
        self,
        layout: Layout,
        capacity: int,
        *,
        goal_is_observation: bool = False,
        observation_space: gym.Space[Any] | None = None,
        action_space: gym.Space[Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.layout, self.capacity = layout, capacity
        self.kept: dict[str, Any] = {
            "goal_is_observation": goal_is_observation,
            "observation_space": observation_space,
            "action_space": action_space,
            "metadata": dict(metadata or {}),
        }
        self.lengths: list[int] = []  # of the episodes that have ended
        self.published = 0  # how many of them, from the first on, samplers see
        self.num_steps = self.published_steps = 0  # transitions of both
        self.running = -1  # transitions of the episode that is being recorded, -1: there is none
        self._first = self._end = 0  # rows of the episodes that have ended
        self._allocate(_LEAST_ROWS)

    def _allocate(self, rows: int) -> None:
        """Make room for so many rows and move there what is kept; datasets keep their old rows."""
        stop = self._end + self.running + 1
        before = self.tables(self._first, stop) if stop else {}
        self._columns = Columns.allocate(self.layout, rows, 0)
        for name, table in self._tables().items():
            if name in before:
                table[: stop - self._first] = before[name]
        self._end, self._first = self._end - self._first, 0
        names = [*_STATES, "actions", "rewards", "terminated"]
        views = {name: self._columns[name] for name in names}
        self._views = {name: view for name, view in views.items() if 0 not in view.shape[1:]}

    def _tables(self) -> dict[str, Array]:
        return {"rows": self._columns.rows, **self._columns.integers}

    def tables(self, start: int, stop: int) -> dict[str, Array]:
        """Return these rows of the packed matrix and of the integer columns, by name."""
        return {name: table[start:stop] for name, table in self._tables().items()}

    # Recording -----------------------------------------------------------------------------

    def begin(self, observation: Any) -> None:
        """Begin an episode with the observation of a reset."""
        assert self.running < 0, "an episode is being recorded"
        self._reserve(1)
        self.running = 0
        self._write(0, observation)

    def add(self, action: Any, reward: float, terminated: bool, observation: Any) -> None:
        """Record a transition of the running episode.

        Args:
            action: in the action space.
            reward: as learned from.
            terminated: the task has ended: nothing is bootstrapped. A time limit is no such end.
            observation: after the step.
        """
        self._reserve(self.running + 2)
        row = self._end + self.running
        self._views["actions"][row] = action
        self._views["rewards"][row] = reward
        self._views["terminated"][row] = terminated
        self.running += 1
        self._write(self.running, observation)

    def finish(self) -> int:
        """End the running episode, terminated or cut off, and return its length.

        Raises:
            UserError: NaN or infinity in it.
        """
        steps, self.running = self.running, -1
        if steps < 1:
            return 0
        start, stop = self._end, self._end + steps + 1
        lengths = np.array([steps], np.int64)
        bad = Columns(self.layout, self._columns.rows[start:stop], lengths).first_bad_value()
        if bad is not None:
            name, step, value = bad
            raise UserError(
                f"The environment gave {name} {value} at step {step} of an episode; mend the "
                "environment, or lower the learning rate if the actions have become extreme."
            )
        self.lengths.append(steps)
        self.num_steps += steps
        self._end = stop
        return steps

    def agrees(self, step: int, observation: Any) -> bool:
        """Return whether this is what was recorded after so many steps of the running episode."""
        row = self._end + step
        for name, value in self._parts(observation).items():
            view = self._views[name]
            if not np.array_equal(view[row], np.asarray(value, view.dtype).reshape(view.shape[1:])):
                return False
        return True

    def actions(self) -> Array:
        """Return a copy of the actions of the running episode, in order."""
        return np.array(self._views["actions"][self._end : self._end + max(self.running, 0)])

    def _reserve(self, rows: int) -> None:
        """Make room for so many rows of the running episode."""
        if self._end + rows > len(self._columns.rows):
            self._allocate(2 * (self._end - self._first + rows))

    def _write(self, step: int, observation: Any) -> None:
        """Write the state after so many steps; its row has no transition yet."""
        row = self._end + step
        for name in ("actions", "rewards", "terminated"):
            self._views[name][row] = 0
        for name, value in self._parts(observation).items():
            view = self._views[name]
            view[row] = np.reshape(value, view.shape[1:])

    def _parts(self, observation: Any) -> dict[str, Any]:
        if not isinstance(observation, Mapping):
            return {"observations": observation}
        named = zip(_STATES, GOAL_KEYS)
        return {name: observation[key] for name, key in named if name in self._views}

    # Drawing -------------------------------------------------------------------------------

    @property
    def stale(self) -> bool:
        """Whether enough has ended since `publish` that it pays to call it again."""
        new = self.num_steps - self.published_steps
        return new > 0 and new * GROWTH >= self.published_steps

    def publish(self) -> OfflineDataset:
        """Let the oldest episodes leave and return all others that have ended.

        What was published before stays as it was.
        """
        left = 0
        while self.num_steps > self.capacity and left < len(self.lengths) - 1:
            self.num_steps -= self.lengths[left]
            self._first += self.lengths[left] + 1
            left += 1
        del self.lengths[:left]
        self.published, self.published_steps = len(self.lengths), self.num_steps
        return self.dataset()

    def dataset(self) -> OfflineDataset:
        """Return the episodes of the latest `publish`, without a copy."""
        lengths = np.array(self.lengths[: self.published], np.int64)
        tables = self.tables(self._first, self._first + int((lengths + 1).sum()))
        columns = Columns(self.layout, tables.pop("rows"), lengths, tables)
        return OfflineDataset(columns, **self.kept)

    # Saving --------------------------------------------------------------------------------

    def to_archive(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return everything, the running episode too, as JSON values and tensors."""
        header = {
            "layout": asdict(self.layout),
            "capacity": self.capacity,
            "goal_is_observation": self.kept["goal_is_observation"],
            "metadata": self.kept["metadata"],
            "published": self.published,
            "running": self.running,
        }
        tables = self.tables(self._first, self._end + self.running + 1)
        tensors = {name: torch.from_numpy(table) for name, table in tables.items()}
        return header, {"lengths": torch.tensor(self.lengths, dtype=torch.int64), **tensors}

    @classmethod
    def from_archive(
        cls,
        header: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
    ) -> ReplayBuffer:
        """Make a buffer of what `to_archive` returned.

        Raises:
            UserError: parts that do not fit each other.
        """
        layout: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in header["layout"].items()
        }
        buffer = cls(
            Layout(**layout),
            int(header["capacity"]),
            goal_is_observation=bool(header["goal_is_observation"]),
            observation_space=observation_space,
            action_space=action_space,
            metadata=header["metadata"],
        )
        lengths = [int(length) for length in tensors["lengths"].tolist()]
        ended, running = sum(lengths) + len(lengths), int(header["running"])
        rows = ended + running + 1
        expected = {name: shape for name, (shape, _) in buffer.layout.tables(rows).items()}
        found = {name: tuple(tensors[name].shape) for name in expected}
        published = int(header["published"])
        if found != expected or min(lengths, default=1) < 1 or not 0 <= published <= len(lengths):
            raise UserError(
                f"The archive's replay buffer is damaged: it holds {found}, expected {expected}."
            )
        buffer._allocate(max(_LEAST_ROWS, 2 * rows))
        for name, table in buffer._tables().items():
            table[:rows] = tensors[name].numpy()
        buffer.lengths, buffer.published, buffer.running = lengths, published, running
        buffer.num_steps, buffer.published_steps = sum(lengths), sum(lengths[:published])
        buffer._end = ended
        return buffer
