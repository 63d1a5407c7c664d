"""Samplers: specs that say how batches are drawn, bound to a dataset to draw them.

`TransitionSampler` draws recorded transitions, `GoalSampler` relabels them with hindsight goals
(and `SequenceSampler`, in sequences.py, draws windows of them).
Binding builds everything a draw needs, so that a draw is a few numpy index operations and one
gather per table, whatever the size of the dataset::

    bound = GoalSampler().bind(dataset, discount=0.99)
    batch = bound.sample(256, np.random.default_rng(0))
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.goal_laws import (
    ActorProbabilities,
    Future,
    GoalLaw,
    Probabilities,
    Rows,
    Support,
    actor_probabilities,
)
from gcrl_gym.datasets.judges import judges
from gcrl_gym.datasets.offline_dataset import OfflineDataset
from gcrl_gym.errors import UserError, nearest

logger = logging.getLogger(__name__)

RewardRule = Literal["auto", "index", "env"]


@dataclass
class Batch:
    """Transitions as tensors on the agent's device; ``B`` rows, goals of width 0 without goals.

    Args:
        observations: ``[B, *observation shape]`` float32, or integers as stored.
        actions: ``[B, A]`` float32 or ``[B]`` int64.
        rewards: ``[B]`` float32.
        terminated: ``[B]`` float32, 1 where nothing is bootstrapped.
        next_observations: like ``observations``.
        goals: ``[B, G]`` goals the rewards belong to.
        actor_goals: ``[B, G]`` goals for the policy.
        next_actions: ``[B, A]`` the data's actions at ``next_observations``, where the sampler was
            asked for them; without meaning after a termination.
        subgoals: ``[B, G]`` goals some steps ahead, from `SubgoalSampler`.
        target_observations: what lies some steps ahead on the way to the actor goal; likewise.
        target_goals: ``[B, G]`` the goal achieved there; likewise.
        windows: ``[B, context + 1, *observation shape]`` states up to the next one, zeros before
            the episode's start; from `WindowSampler`.
        mask: ``[B, context + 1]`` float32, 1 where ``windows`` holds a state; likewise.
        noise: random inputs of the update by name; filled by the training loop.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    next_observations: Tensor
    goals: Tensor
    actor_goals: Tensor
    next_actions: Tensor | None = None
    subgoals: Tensor | None = None
    target_observations: Tensor | None = None
    target_goals: Tensor | None = None
    windows: Tensor | None = None
    mask: Tensor | None = None
    noise: dict[str, Tensor] = field(default_factory=dict)


class BoundSampler(Protocol):
    """A sampler tied to a dataset and a device."""

    reward_rule: str
    """Where rewards come from: ``"recorded"``, ``"index"`` or ``"env"``."""

    def sample(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """Draw ``batch_size`` independent transitions, uniformly over the dataset's."""


@dataclass(frozen=True)
class TransitionSampler:
    """Recorded transitions with their recorded rewards, terminations and desired goals.

    Args:
        next_actions: give the next action of the same episode too. The last transition of an
            episode has none: it is drawn only where it terminated (no bootstrap reads the zeros).
    """

    next_actions: bool = False

    def bind(
        self,
        dataset: OfflineDataset,
        *,
        discount: float = 0.99,
        device: torch.device | str = "cpu",
        goal_env: Any = None,
    ) -> BoundSampler:
        """Tie the sampler to a dataset; see `GoalSampler.bind` for the arguments.

        Raises:
            UserError: goals are observations and none was recorded (OGBench data), or no transition
                has a next action.
        """
        if dataset.goal_is_observation:
            raise UserError(
                "This dataset records no desired goals (its goals are observations); "
                "use GoalSampler, which draws them."
            )
        return BoundTransitions(dataset, torch.device(device), self.next_actions)


@dataclass(frozen=True)
class GoalSampler:
    """Transitions relabelled with goals of the current, a future or a random row.

    With ``support="full"`` the goals of row ``t`` in an episode whose last row is ``T`` are the
    achieved goals of rows ``t+1..T`` (future), ``t`` (current) or any row of the dataset (random).
    ``support="ogbench"`` keeps the support of OGBench's loader: future rows ``t+1..T-1``, ``t``
    itself at ``t = T-1``, random rows among those with a transition.

    Args:
        value: probabilities of a current, future and random goal for the critic.
        actor: the same for the policy; ``"auto"``: a future goal, as OGBench's agents learn on
            its navigate, play and noisy sets; on stitch sets half, on explore sets all random.
        future: ``"geometric"``: an offset ``k >= 1`` with probability ``(1 - discount) *
            discount**(k-1)``, clipped at the episode's end; ``"uniform"``: each future row alike
            (under ``support="ogbench"`` with OGBench's rounding: half weight at both ends).
        actor_future: the same for the policy.
        discount: of the geometric law; the agent's own when None.
        support: see above.
        reward: ``"index"`` (OGBench): success when the goal is row ``t`` itself, the reward is
            success - 1, terminated on success. ``"env"`` (hindsight replay): the environment's
            reward and termination at row ``t+1``. ``"auto"``: index where goals are
            observations, else env.
        next_actions: see `TransitionSampler`; with relabelled goals no last transition is drawn,
            because relabelling decides what terminates.

    Raises:
        UserError: probabilities that are not three numbers >= 0 with sum 1, unknown options.
    """

    value: Probabilities = (0.2, 0.5, 0.3)
    actor: ActorProbabilities = (0.0, 1.0, 0.0)
    future: Future = "geometric"
    actor_future: Future = "uniform"
    discount: float | None = None
    support: Support = "full"
    reward: RewardRule = "auto"
    next_actions: bool = False

    def __post_init__(self) -> None:
        for name, values in (("value", self.value), ("actor", self.actor)):
            if name == "actor" and values == "auto":
                continue
            if (
                isinstance(values, str)
                or len(values) != 3
                or min(values) < 0
                or not math.isclose(sum(values), 1.0)
            ):
                raise UserError(
                    f"GoalSampler({name}={values!r}): expected three probabilities (current, "
                    "future, random) >= 0 with sum 1."
                )
        for name, option, options in (
            ("future", self.future, ("geometric", "uniform")),
            ("actor_future", self.actor_future, ("geometric", "uniform")),
            ("support", self.support, ("full", "ogbench")),
            ("reward", self.reward, ("auto", "index", "env")),
        ):
            if option not in options:
                raise UserError(
                    f"GoalSampler({name}={option!r}): expected one of {options}."
                    f"{nearest(option, options)}"
                )

    def bind(
        self,
        dataset: OfflineDataset,
        *,
        discount: float = 0.99,
        device: torch.device | str = "cpu",
        goal_env: Any = None,
    ) -> BoundSampler:
        """Tie the sampler to a dataset; one without goals gets its recorded transitions.

        Args:
            dataset: where to draw from.
            discount: the agent's discount, used where the sampler sets none.
            device: where batches go; the table moves there too when it fits.
            goal_env: environment, or any object, with ``compute_reward`` and
                ``compute_terminated``, for ``reward="env"``.

        Raises:
            UserError: the env's reward is needed but ``goal_env`` cannot compute it, or a
                geometric law with a discount outside (0, 1), or no transition with a next action.
        """
        if dataset.goal_dim == 0:
            return TransitionSampler(self.next_actions).bind(dataset, device=device)
        discount = self.discount if self.discount is not None else discount
        return BoundGoals(self, dataset, discount, torch.device(device), goal_env)


class BoundTransitions:
    """Gathers transitions: rows ``t`` and ``t+1`` as one window of the packed matrix.

    Args:
        dataset: where the rows are.
        device: where batches go.
        next_actions: see `TransitionSampler`.
    """

    reward_rule = "recorded"

    def __init__(
        self, dataset: OfflineDataset, device: torch.device, next_actions: bool = False
    ) -> None:
        layout = dataset.columns.layout
        self.dataset, self.device, self.next_actions = dataset, device, next_actions
        self.observation_shape = layout.observation_shape
        self.rows = place(dataset.columns.rows, device)
        cuts = layout.slices
        observation, desired = cuts["observations"].stop, cuts["desired_goals"]
        action = cuts["rewards"].start - observation
        following = observation + (action if next_actions else 0)
        # Row t and its successor are neighbours in memory: one strided window holds both.
        self.windows = self.rows.as_strided(
            (dataset.num_rows - 1, layout.width + following), (layout.width, 1)
        )
        self.widths = [observation, action, 1, 1]
        self.widths += [desired.start - sum(self.widths), desired.stop - desired.start, observation]
        self.widths += [action] if next_actions else []
        self.integers = {
            name: place(column, device) for name, column in dataset.columns.integers.items()
        }

    def sample(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """Draw recorded transitions."""
        return self.gather(self.draw_rows(batch_size, rng))

    @cached_property
    def drawable(self) -> Rows:
        """Rows that may be drawn, made on first use: not every sampler draws here."""
        rows = self.dataset.step_rows
        if not self.next_actions:
            return rows
        kept = has_next_action(self.dataset) | (self.dataset.terminated[rows] > 0)
        return rows[kept]

    def draw_rows(self, batch_size: int, rng: np.random.Generator) -> Rows:
        """Draw rows that hold a transition."""
        return self.drawable.take(rng.integers(0, len(self.drawable), size=batch_size))

    def gather(self, rows: Rows, padding: Rows | None = None) -> Batch:
        """Return the recorded transitions of these rows, zeros at the positions ``padding``."""
        window = self.select(self.windows, rows, padding)
        parts = window.split_with_sizes(self.widths, dim=1)
        observations, actions, rewards, terminated, _, goals, following = parts[:7]
        if "observations" in self.integers:
            table = self.integers["observations"]
            observations = self.select(table, rows, padding)
            following = self.select(table, rows + 1, padding)
        elif len(self.observation_shape) != 1:
            shape = (-1, *self.observation_shape)
            observations, following = observations.reshape(shape), following.reshape(shape)
        if "actions" in self.integers:
            actions = self.select(self.integers["actions"], rows, padding)
        return Batch(
            observations=observations,
            actions=actions,
            rewards=rewards.squeeze(1),
            terminated=terminated.squeeze(1),
            next_observations=following,
            goals=goals,
            actor_goals=goals,
            next_actions=parts[7] if self.next_actions else None,
        )

    def observations_at(self, rows: Rows, padding: Rows | None = None) -> Tensor:
        """Return the observations of these rows, zeros at the positions ``padding``."""
        table = self.integers.get("observations")
        if table is None:
            table = self.rows[:, : self.widths[0]]
        return self.select(table, rows, padding).reshape(-1, *self.observation_shape)

    def select(self, table: Tensor, rows: Rows, padding: Rows | None = None) -> Tensor:
        """Gather rows of a table and move them to the device."""
        index = torch.from_numpy(rows)
        if table.is_cuda:
            index = index.to(table.device, non_blocking=True)
        chosen = table.index_select(0, index)
        if padding is not None and len(padding):
            # Not a product with a mask: that would keep NaN.
            chosen.index_fill_(0, torch.from_numpy(padding).to(table.device), 0)
        return chosen if chosen.device == self.device else chosen.to(self.device)


class BoundGoals(BoundTransitions):
    """Draws goals and judges the transitions by them."""

    def __init__(
        self,
        spec: GoalSampler,
        dataset: OfflineDataset,
        discount: float,
        device: torch.device,
        goal_env: Any,
    ) -> None:
        super().__init__(dataset, device, spec.next_actions)
        # Row and episode end of each transition side by side, so that one access fetches both.
        narrow = np.int32 if dataset.num_rows < 2**31 else np.int64
        self.steps = np.empty((dataset.num_steps, 2), narrow)
        self.steps[:, 0] = dataset.step_rows
        self.steps[:, 1] = np.repeat(
            dataset.columns.episode_ends.astype(narrow), dataset.columns.lengths
        )
        if spec.next_actions:
            self.steps = self.steps[has_next_action(dataset)]
        self.value = GoalLaw(spec.value, spec.future, spec.support, discount, dataset)
        actor = actor_probabilities(spec.actor, dataset)
        self.actor = GoalLaw(actor, spec.actor_future, spec.support, discount, dataset)
        assert dataset.achieved_goals is not None  # the caller checked goal_dim
        # As a plain array: indexing a memmap would make every batch one.
        self.achieved = np.asarray(dataset.achieved_goals)
        self.goal_table = self._goal_table(dataset)
        self.reward_rule = spec.reward
        if spec.reward == "auto":
            ogbench = dataset.metadata.get("goal") in ("observation", "oracle")
            self.reward_rule = "index" if ogbench or dataset.goal_is_observation else "env"
        if self.reward_rule == "env":
            self.compute_reward, self.compute_terminated = judges(goal_env, self.achieved)
        logger.info("Goal rewards are judged by the %r rule.", self.reward_rule)

    def _goal_table(self, dataset: OfflineDataset) -> Tensor:
        """Table whose row ``t`` is the goal achieved at row ``t``."""
        if dataset.goal_is_observation and "observations" in self.integers:
            return self.integers["observations"]
        name = "observations" if dataset.goal_is_observation else "achieved_goals"
        return self.rows[:, dataset.columns.layout.slices[name]]

    def sample(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """Draw transitions and goals, and judge the one by the other."""
        rows, ends = self.draw_steps(batch_size, rng)
        value = self.value.draw(rows, ends, rng)
        actor = self.actor.draw(rows, ends, rng)
        return self.relabelled(rows, value, actor)[0]

    def draw_steps(self, batch_size: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Draw rows that hold a transition, and return the rows where their episodes end."""
        steps = self.steps.take(rng.integers(0, len(self.steps), size=batch_size), axis=0)
        return steps[:, 0].astype(np.int64), steps[:, 1].astype(np.int64)

    def relabelled(
        self, rows: Rows, value: Rows, *others: Rows
    ) -> tuple[Batch, tuple[Tensor, ...]]:
        """Return the transitions with goals, judged by the value goals.

        Args:
            rows: of the transitions.
            value: rows of the goals they are judged by.
            *others: rows of further goals; the first are the policy's.

        Returns:
            The batch, and the goals of ``others``.
        """
        batch = self.gather(rows)
        goals = self.select(self.goal_table, np.concatenate((value, *others)))
        batch.goals, *rest = goals.split_with_sizes([len(rows)] * (1 + len(others)))
        batch.actor_goals = rest[0]
        if self.reward_rule == "index":
            success = (value == rows).astype(np.float32)
            rewards, terminated = success - 1, success
        else:
            rewards, terminated = self._ask_env(rows, value)
        batch.rewards = torch.from_numpy(rewards).to(self.device)
        batch.terminated = torch.from_numpy(terminated).to(self.device)
        return batch, tuple(rest)

    def _ask_env(self, rows: Rows, value: Rows) -> tuple[Array, Array]:
        """Reward and termination that the environment gives for reaching row ``t+1``."""
        reached, goals = self.achieved[rows + 1], self.achieved[value]
        return self.compute_reward(reached, goals), self.compute_terminated(reached, goals)


def has_next_action(dataset: OfflineDataset) -> npt.NDArray[np.bool_]:
    """Return which transitions, in order, are followed by another one of the same episode.

    Raises:
        UserError: none is.
    """
    found = np.ones(dataset.num_steps, bool)
    found[np.cumsum(dataset.columns.lengths) - 1] = False
    if not found.any():
        raise UserError(
            "No transition has a next action: every episode of the dataset holds a single one; "
            "check where its episodes end."
        )
    return found


def place(array: Array, device: torch.device) -> Tensor:
    """Return a table as tensor, on the device when it takes at most half of its free memory."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda" or tensor.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return tensor
    return tensor.to(device)
