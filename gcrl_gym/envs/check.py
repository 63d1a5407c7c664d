"""``check_goal_env``: does an environment keep what goal-conditioned agents rely on?"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gcrl_gym.envs.check_vector import check_vector
from gcrl_gym.envs.goal_env import GoalEnv
from gcrl_gym.errors import UserError

KEYS = ("observation", "achieved_goal", "desired_goal")
STEPS = 120
RESETS = 20
_HINT = "gcrl_gym.wrappers.GoalDict makes goal environments of foreign ones"


@dataclass(frozen=True)
class _Record:
    """One reset (``action`` is None) or step, as the environment returned it."""

    action: Any
    observation: dict[str, NDArray[Any]]
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]
    untouched: dict[str, NDArray[Any]]
    """A copy of the observation made at once."""


def check_goal_env(env: gym.Env[Any, Any], seed: int = 0) -> None:
    """Check a goal environment; return silently when it is sound.

    Checked are: the spaces and that observations lie in them; arrays that later steps leave alone;
    a goal that stays the same within an episode; the same info keys everywhere, with ``success``
    and ``is_success``; rewards and terminations equal to ``compute_reward`` and
    ``compute_terminated``, one by one and as a batch; one radius of success in rewards, ends,
    ``is_success`` and ``goal_tolerance``; no reset inside the goal; equal seeds giving equal
    episodes, without touching numpy's process-wide generator; evaluation tasks that are the same
    at every reset with the same seed; the rebuild from ``env.spec``; a native vector environment
    (``vector_entry_point`` of the spec) whose copies take the steps of single environments; and,
    with ``render_mode="rgb_array"``, pictures that show something and change.

    What an environment does not promise is not asked of it: functions of goals, tasks, a spec and
    a vector environment are checked where there are some, and the infos of reset and step may
    have different keys unless it is a `GoalEnv`.

    Args:
        env: any wrapped or bare environment; it is reset and stepped, not closed.
        seed: seed of the resets and actions used.

    Raises:
        UserError: the first property that fails, by name.
    """
    _check_spaces(env)
    _check_process_generator(env, seed)
    records = _play(env, seed)
    _check_observations(env, records)
    _check_infos(env, records)
    _check_rewards(env, records)
    _check_radius(env, records)
    _check_resets(env, seed)
    _check_equal("seeds", "two episodes with the same seed differ", records, _play(env, seed))
    _check_tasks(env, seed)
    _check_spec(env, seed, records)
    check_vector(env, seed)
    if env.render_mode == "rgb_array":
        _check_render(env, seed)


def _require(condition: Any, name: str, message: str) -> None:
    if not condition:
        raise UserError(f"check_goal_env, {name}: {message}.")


def _play(env: gym.Env[Any, Any], seed: int) -> list[_Record]:
    """Play random actions for a while; the same seed gives the same actions."""
    actions = copy.deepcopy(env.action_space)
    actions.seed(seed)
    observation, info = env.reset(seed=seed)
    records = [_Record(None, observation, 0.0, False, False, info, copy.deepcopy(observation))]
    for _ in range(STEPS):
        if records[-1].terminated or records[-1].truncated:
            action, (observation, info) = None, env.reset()
            reward, terminated, truncated = 0.0, False, False
        else:
            action = actions.sample()
            observation, reward, terminated, truncated, info = env.step(action)  # type: ignore[assignment]
        kept = copy.deepcopy(observation)
        records.append(_Record(action, observation, reward, terminated, truncated, info, kept))
    return records


def _check_spaces(env: gym.Env[Any, Any]) -> None:
    space = env.observation_space
    dict_space = isinstance(space, spaces.Dict) and set(KEYS) <= set(space.spaces)
    _require(
        dict_space, "spaces", f"observation_space must be a Dict of {KEYS}, got {space}; {_HINT}"
    )
    achieved, desired = space["achieved_goal"], space["desired_goal"]  # type: ignore[index]
    same = achieved.shape == desired.shape and achieved.dtype == desired.dtype
    _require(same, "spaces", f"achieved goal {achieved} and desired goal {desired} must be alike")


def _check_process_generator(env: gym.Env[Any, Any], seed: int) -> None:
    # As text: the state is an array and the position in it, and a draw may move either.
    before = repr(np.random.get_state())  # noqa: NPY002
    env.reset(seed=seed)
    same = repr(np.random.get_state()) == before  # noqa: NPY002
    _require(same, "process generator", "reset draws from numpy's process-wide generator")


def _check_observations(env: gym.Env[Any, Any], records: list[_Record]) -> None:
    goal = None
    for record in records:
        inside = env.observation_space.contains(record.observation)
        _require(inside, "spaces", f"observation {record.observation} lies outside its space")
        for key in KEYS:
            now, then = record.observation[key], record.untouched[key]
            _require(np.array_equal(now, then), "fresh arrays", f"a later step changed {key!r}")
        if record.action is None:
            goal = record.untouched["desired_goal"]
        same = np.array_equal(record.untouched["desired_goal"], goal)  # type: ignore[arg-type]
        _require(same, "constant goal", "the desired goal changed within an episode")


def _check_infos(env: gym.Env[Any, Any], records: list[_Record]) -> None:
    ours = isinstance(env.unwrapped, GoalEnv)
    for records_alike in [records] if ours else _resets_and_steps(records):
        first = set(records_alike[0].info)
        for record in records_alike:
            keys = set(record.info)
            _require(keys == first, "info keys", f"{sorted(keys ^ first)} come and go")
            _require(
                {"success", "is_success"} <= keys, "info keys", f"no success in {keys}; {_HINT}"
            )
            agree = bool(record.info["success"]) == bool(record.info["is_success"])
            _require(agree, "info", f"success and is_success differ in {record.info}")


def _resets_and_steps(records: list[_Record]) -> list[list[_Record]]:
    resets = [record for record in records if record.action is None]
    return [resets, [record for record in records if record.action is not None]]


def _check_rewards(env: gym.Env[Any, Any], records: list[_Record]) -> None:
    steps = _resets_and_steps(records)[1]
    achieved = np.stack([step.untouched["achieved_goal"] for step in steps])
    desired = np.stack([step.untouched["desired_goal"] for step in steps])
    infos = [step.info for step in steps]
    for name, returned in (
        ("compute_reward", [step.reward for step in steps]),
        ("compute_terminated", [step.terminated for step in steps]),
    ):
        compute = goal_function(env, name)
        if compute is None:
            continue
        batch = compute(achieved, desired, infos)
        one_by_one = [compute(a, d, info) for a, d, info in zip(achieved, desired, infos)]
        shape = np.shape(batch)
        _require(shape == (len(steps),), name, f"gives {shape} for {len(steps)} goals")
        for judged in (batch, one_by_one):
            for at, (ours, theirs) in enumerate(zip(judged, returned)):
                _require(ours == theirs, name, f"gives {ours} where step {at} returned {theirs}")


def goal_function(env: gym.Env[Any, Any], name: str) -> Callable[..., Any] | None:
    """Return a function of (achieved goal, desired goal, info), None where there is none.

    OGBench's robots have a ``compute_reward`` of their own that takes something else.

    Args:
        env: the environment, possibly wrapped.
        name: ``compute_reward`` or ``compute_terminated``.
    """
    if not env.has_wrapper_attr(name):
        return None
    function: Callable[..., Any] = env.get_wrapper_attr(name)
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError:
        ours = isinstance(env.unwrapped, GoalEnv)
        _require(not ours, name, "must take (achieved_goal, desired_goal, info)")
        return None
    return function


def _check_radius(env: gym.Env[Any, Any], records: list[_Record]) -> None:
    """Success of infos and functions, on the steps and on goals that states of them achieve."""
    if env.has_wrapper_attr("is_success"):
        judge = env.get_wrapper_attr("is_success")
        for record in records:
            goals = record.untouched["achieved_goal"], record.untouched["desired_goal"]
            told, judged = record.info["is_success"], bool(judge(*goals))
            _require(told == judged, "radius", f"info says {told}, is_success {judged} of {goals}")
    if env.has_wrapper_attr("goal_tolerance"):
        tolerance = env.get_wrapper_attr("goal_tolerance")
        for record in records:
            distance = record.info.get("distance_to_goal")
            agree = distance is None or (distance <= tolerance) == record.info["is_success"]
            message = f"distance {distance} with goal_tolerance {tolerance} is told to be "
            _require(agree, "radius", f"{message}{record.info['is_success']}")
    _check_hindsight(env, records)


def _check_hindsight(env: gym.Env[Any, Any], records: list[_Record]) -> None:
    """A state achieves its own goal, and rewards and ends of hindsight goals have one radius."""
    achieved = np.stack([record.untouched["achieved_goal"] for record in records])
    others = np.roll(achieved, 1, axis=0)  # goals reached one step before: near, not equal
    infos: list[Any] = [{} for _ in records]
    reward = goal_function(env, "compute_reward")
    if reward is None:
        return
    own, near = (np.asarray(reward(achieved, goals, infos)) for goals in (achieved, others))
    _require((own >= near).all(), "radius", "a state does not achieve its own goal best")
    ends = goal_function(env, "compute_terminated")
    sparse = len(np.unique(np.concatenate([own, near]))) <= 2
    if ends is None or not sparse or not np.any(ends(achieved, achieved, infos)):
        return
    for goals, rewards in ((achieved, own), (others, near)):
        same = np.array_equal(np.asarray(ends(achieved, goals, infos), bool), rewards == own.max())
        _require(same, "radius", "compute_reward and compute_terminated differ in what success is")


def _check_resets(env: gym.Env[Any, Any], seed: int) -> None:
    for trial in range(RESETS):
        observation, info = env.reset(seed=seed if trial == 0 else None)
        _require(not info["is_success"], "reset", "an episode starts inside the goal")
        if env.has_wrapper_attr("is_success"):
            goals = observation["achieved_goal"], observation["desired_goal"]
            judged = bool(env.get_wrapper_attr("is_success")(*goals))
            _require(not judged, "reset", "an episode starts inside the goal")


def _check_tasks(env: gym.Env[Any, Any], seed: int) -> None:
    if not env.has_wrapper_attr("num_tasks"):
        return
    for task_id in range(1, env.get_wrapper_attr("num_tasks") + 1):
        starts = []
        for _ in range(2):
            observation, info = env.reset(seed=seed, options={"task_id": task_id})
            _require(not info["is_success"], "tasks", f"task {task_id} starts inside its goal")
            starts.append(observation)
        same = all(np.array_equal(starts[0][key], starts[1][key]) for key in KEYS)
        _require(same, "tasks", f"task {task_id} differs between two resets with the same seed")


def _check_equal(name: str, message: str, one: list[_Record], two: list[_Record]) -> None:
    for a, b in zip(one, two):
        same = all(np.array_equal(a.untouched[key], b.untouched[key]) for key in KEYS)
        same &= (a.reward, a.terminated, a.truncated) == (b.reward, b.terminated, b.truncated)
        _require(same, name, message)


def _check_spec(env: gym.Env[Any, Any], seed: int, records: list[_Record]) -> None:
    if env.spec is None:
        return
    try:
        rebuilt = gym.make(env.spec)
    except Exception as error:
        raise UserError(f"check_goal_env, spec: gym.make(env.spec) failed: {error}") from error
    message = "the environment rebuilt from env.spec behaves differently"
    _check_equal("spec", message, records, _play(rebuilt, seed))
    rebuilt.close()


def _check_render(env: gym.Env[Any, Any], seed: int) -> None:
    actions = copy.deepcopy(env.action_space)
    actions.seed(seed)
    env.reset(seed=seed)
    frames: list[Any] = [env.render()]
    for _ in range(5):
        env.step(actions.sample())
        frames.append(env.render())
    for frame in frames:
        picture = isinstance(frame, np.ndarray) and frame.dtype == np.uint8
        picture = picture and frame.ndim == 3 and frame.shape[2] == 3
        _require(picture, "render", "render() must return a (height, width, 3) uint8 array")
        _require(frame.std() > 0, "render", "the picture has one colour only")
    moving = any(not np.array_equal(frames[0], frame) for frame in frames[1:])
    _require(moving, "render", "the picture does not change over six steps")
