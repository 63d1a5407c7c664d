"""Native vector environments: many copies of one environment in one NumPy program.

`GoalVectorEnv` owns what does not depend on the environment: a generator for each copy, seeds,
time limits, when copies begin anew, and the form of the infos. An environment adds five hooks. What
they do must not depend on which other copies there are, so that a copy and a single environment
with the same seed take the same steps, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from gcrl_gym.errors import UserError, nearest

Autoreset = Literal["next_step", "same_step", "disabled"]
Copies = NDArray[np.int64]
Infos = dict[str, NDArray[Any]]


class GoalVectorEnv(VectorEnv[Any, Any, Any]):
    """``num_envs`` copies of an environment; made with ``gym.make_vec(id, num_envs=..)``.

    Copy ``i`` does what a single environment seeded with ``seed + i`` does. Copies that have ended
    begin anew as ``autoreset_mode`` says: ``next_step`` (Gymnasium's default: the following step
    ignores their action and returns their first observation with reward 0), ``same_step`` (at
    once; the last observation and info are in ``infos["final_obs"]`` and ``["final_info"]``) or
    ``disabled`` (the caller resets them with ``options={"reset_mask": mask}``).

    Besides ``reset_mask``, ``(num_envs,)`` booleans, the reset options are those of the single
    environment; each value serves all copies, or is an array with one value per copy.

    Args:
        single: an environment of the same settings, for spaces, limits and ``compute_reward``.
        num_envs: number of copies.
        max_episode_steps: steps after which a copy is truncated; None for no limit.
        autoreset_mode: see above.

    Raises:
        UserError: no copies, or an unknown mode.
    """

    def __init__(
        self,
        single: gym.Env[Any, Any],
        num_envs: int,
        max_episode_steps: int | None,
        autoreset_mode: Autoreset | AutoresetMode = "next_step",
    ) -> None:
        if isinstance(num_envs, bool) or int(num_envs) != num_envs or num_envs < 1:
            raise UserError(f"num_envs must be a whole number >= 1, got {num_envs!r}.")
        self.single, self.num_envs = single, int(num_envs)
        self._mode = _mode(autoreset_mode)
        self.metadata = {**single.metadata, "autoreset_mode": self._mode}
        self.render_mode = single.render_mode
        self.single_observation_space = single.observation_space
        self.single_action_space = single.action_space
        self.observation_space = batch_space(single.observation_space, self.num_envs)
        self.action_space = batch_space(single.action_space, self.num_envs)
        self.max_episode_steps = max_episode_steps
        self._limit = np.inf if max_episode_steps is None else max_episode_steps
        self._all = np.arange(self.num_envs)
        self._steps = np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, bool)
        self._begun = np.zeros(self.num_envs, bool)
        self.generators: list[np.random.Generator] = []
        """Of each copy, as ``np_random`` of a single environment; empty before the first reset."""

    # What an environment adds --------------------------------------------------------------

    def _seeded(self, copies: Copies) -> None:
        """Drop what was drawn ahead for these copies: their generators are new."""

    def _start(self, copies: Copies, options: dict[str, Any]) -> None:
        """Begin episodes of these copies, which may be none.

        Args:
            copies: ``(K,)`` which ones.
            options: as given to ``reset``, for all copies; empty when they begin by themselves.
        """
        raise NotImplementedError

    def _advance(self, actions: NDArray[Any], copies: Copies | None) -> None:
        """Take one step.

        Args:
            actions: ``(num_envs, ...)``, checked.
            copies: ``(K,)`` the ones that step, None for all. The others begin anew right after:
                moving them as well does no harm, drawing numbers for them does.
        """
        raise NotImplementedError

    def _observe(self) -> Any:
        """Return the observations of all copies, in arrays of their own."""
        raise NotImplementedError

    def _judge(self) -> tuple[NDArray[np.float64], NDArray[np.bool_], Infos]:
        """Return rewards, terminated and infos of all copies, each ``(num_envs,)``.

        Called following `_observe`, after every step and reset; arrays of their own.
        """
        raise NotImplementedError

    def _cut(self) -> NDArray[np.bool_] | None:
        """Which copies, ``(num_envs,)``, are truncated before their time; called after judging."""
        return None

    def _check_actions(self, actions: Any) -> NDArray[Any]:
        """Return actions as an array ``(num_envs, ...)`` of numbers.

        Raises:
            UserError: another shape, or values that are none.
        """
        raise NotImplementedError

    def _frame(self, copy: int) -> NDArray[np.uint8]:
        """Draw one copy, ``(height, width, 3)``."""
        raise NotImplementedError

    # What they share -----------------------------------------------------------------------

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin episodes of all copies, or of those in ``options["reset_mask"]``.

        Args:
            seed: copy ``i`` gets ``seed + i``, or ``seed[i]`` where one for each is given.
            options: see the class.

        Returns:
            Observations of all copies; infos, of which those of other copies are masked.
        """
        options = dict(options or {})
        mask = _mask(options.pop("reset_mask", None), self.num_envs)
        copies = np.flatnonzero(mask)
        self._seed(copies, seed)
        self._begin(copies, options)
        observations = self._observe()
        infos = self._judge()[2]
        return observations, _with_masks(infos, mask)

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Take one step in every copy; see the class for those that have ended.

        Raises:
            UserError: actions of another shape, a copy that was not reset, or one that has ended
                when copies do not begin anew by themselves.
        """
        actions = self._check_actions(actions)
        if not self._begun.all():
            copy = int(np.argmin(self._begun))
            raise UserError(f"Copy {copy} of the vector environment was not reset; call reset().")
        fresh = self._take_ended()
        self._advance(actions, None if not len(fresh) else (~self._ended).nonzero()[0])
        self._steps += 1
        self._begin(fresh, {})
        observations = self._observe()
        rewards, terminated, infos = self._judge()
        rewards[fresh], terminated[fresh] = 0.0, False
        truncated = self._steps >= self._limit
        cut = self._cut()
        if cut is not None:
            truncated |= cut
            truncated[fresh] = False
        self._ended = terminated | truncated
        every = np.ones(self.num_envs, bool)
        result = _with_masks(infos, every)
        if self._mode is AutoresetMode.SAME_STEP and self._ended.any():
            observations, result = self._restart_at_once(observations, infos)
        return observations, rewards, terminated, truncated, result

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Draw every copy; None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array' given to gym.make_vec.")
            return None
        return tuple(self._frame(copy) for copy in range(self.num_envs))

    def compute_reward(self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any) -> Any:
        """Rewards of goals ``(..., G)``, as of the single environment."""
        return self.single.compute_reward(achieved_goal, desired_goal, info)  # type: ignore[attr-defined]

    def compute_terminated(
        self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any
    ) -> Any:
        """Whether goals ``(..., G)`` end an episode, as of the single environment."""
        return self.single.compute_terminated(achieved_goal, desired_goal, info)  # type: ignore[attr-defined]

    def _take_ended(self) -> Copies:
        """Return the copies that begin anew in this step.

        Raises:
            UserError: there are some, and they are not to begin by themselves.
        """
        if self._mode is AutoresetMode.NEXT_STEP:
            return self._ended.nonzero()[0]
        if self._mode is AutoresetMode.DISABLED and self._ended.any():
            copy = int(np.argmax(self._ended))
            raise UserError(
                f"The episode of copy {copy} has ended; reset it (option reset_mask) before the "
                "next step, or let autoreset_mode be 'next_step'."
            )
        return self._all[:0]

    def _begin(self, copies: Copies, options: dict[str, Any]) -> None:
        if len(copies) or options:
            self._start(copies, options)
        self._steps[copies] = 0
        self._ended[copies] = False
        self._begun[copies] = True

    def _restart_at_once(self, last: Any, infos: Infos) -> tuple[Any, dict[str, Any]]:
        """Begin ended copies anew; keep what they ended with in ``final_obs``, ``final_info``."""
        ended = self._ended.copy()
        finals = np.full(self.num_envs, None, object)
        for copy in np.flatnonzero(ended):
            finals[copy] = _pick(last, int(copy))
        self._begin(np.flatnonzero(ended), {})
        observations = self._observe()
        result = _with_masks(self._judge()[2], np.ones(self.num_envs, bool))
        result |= {"final_obs": finals, "_final_obs": ended}
        result |= {"final_info": _with_masks(infos, ended), "_final_info": ended.copy()}
        self._ended = np.zeros(self.num_envs, bool)
        return observations, result

    def _seed(self, copies: Copies, seed: int | Sequence[int | None] | None) -> None:
        """Make the generators that are missing or asked for."""
        seeds = _seeds(seed, self.num_envs)
        new = copies
        if not self.generators:
            self.generators = [seeding.np_random(None)[0] for _ in range(self.num_envs)]
            self._seeded(self._all)
        else:
            new = np.array([copy for copy in copies if seeds[copy] is not None], np.int64)
        for copy in new:
            if seeds[copy] is not None:
                self.generators[copy] = seeding.np_random(seeds[copy])[0]
        if len(new):
            self._seeded(new)


class Ahead:
    """Numbers drawn ahead from each copy's generator, so that a step draws for many at once.

    Row after row of a copy's block are the numbers its generator would have given one call after
    the other, so that a single environment that calls ``draw(generator, (width,))`` at the same
    moments gets the same.

    Args:
        draw: ``draw(generator, shape)``, such as ``np.random.Generator.random``.
        num_envs: number of copies.
        width: numbers taken at a time.
        block: rows drawn at a time.
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]],
        num_envs: int,
        width: int,
        block: int,
    ) -> None:
        self._draw, self._block = draw, block
        self._numbers = np.zeros((num_envs, block, width))
        self._next = np.full(num_envs, block)  # nothing is drawn yet

    def forget(self, copies: Copies) -> None:
        """Drop what was drawn for copies whose generators are new."""
        self._next[copies] = self._block

    def take(
        self, generators: Sequence[np.random.Generator], copies: Copies
    ) -> NDArray[np.float64]:
        """Return the next ``width`` numbers of each of these copies, ``(K, width)``."""
        for copy in copies[self._next[copies] >= self._block]:
            self._numbers[copy] = self._draw(generators[copy], self._numbers.shape[1:])
            self._next[copy] = 0
        numbers: NDArray[np.float64] = self._numbers[copies, self._next[copies]]
        self._next[copies] += 1
        return numbers


def per_copy(value: Any, copies: Copies, num_envs: int, shape: tuple[int, ...] = ()) -> list[Any]:
    """Return an option's value for each of these copies.

    Args:
        value: one for all, or an array with one per copy, ``(num_envs, *shape)``.
        copies: which copies.
        num_envs: number of all copies.
        shape: of a single value.
    """
    array = np.asarray(value)
    if array.ndim == len(shape) + 1 and len(array) == num_envs:
        return [array[copy] for copy in copies]
    return [value] * len(copies)


def _mode(mode: Autoreset | AutoresetMode) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    options = get_args(Autoreset)
    if mode not in options:
        raise UserError(
            f"Unknown autoreset_mode {mode!r}; choose one of {', '.join(options)}."
            f"{nearest(mode, options)}"
        )
    return AutoresetMode[mode.upper()]


def _mask(mask: Any, num_envs: int) -> NDArray[np.bool_]:
    """Return the reset option ``reset_mask`` as an array, all copies where it is not given."""
    if mask is None:
        return np.ones(num_envs, bool)
    array = np.asarray(mask)
    if array.dtype != bool or array.shape != (num_envs,):
        raise UserError(
            f"Reset option reset_mask must be {num_envs} booleans, one per copy; got {mask!r}."
        )
    if not array.any():
        raise UserError("Reset option reset_mask is False for every copy; reset at least one.")
    return array.copy()


def _seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """Return a seed per copy."""
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, (int, np.integer)):
        return [int(seed) + copy for copy in range(num_envs)]
    seeds = list(seed)
    if len(seeds) != num_envs:
        raise UserError(f"Got {len(seeds)} seeds for {num_envs} copies; give one for each.")
    return seeds


def _with_masks(infos: Infos, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return infos in Gymnasium's form: values, zero where masked, and ``_key`` masks."""
    result: dict[str, Any] = {}
    everybody = bool(mask.all())
    for key, values in infos.items():
        result[key] = values if everybody else np.where(mask, values, np.zeros((), values.dtype))
        result[f"_{key}"] = mask.copy()
    return result


def _pick(observations: Any, copy: int) -> Any:
    """Return the observation of one copy, in arrays of its own."""
    if isinstance(observations, dict):
        return {key: _pick(part, copy) for key, part in observations.items()}
    return observations[copy].copy()
