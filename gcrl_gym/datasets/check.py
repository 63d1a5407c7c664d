"""``gcrl data check``: is a source file or a Minari dataset sound, and what is wrong if not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.finite import first_bad_row
from gcrl_gym.errors import UserError
from gcrl_gym.progress import with_progress

if TYPE_CHECKING:
    from minari import MinariDataset

MOST_DEFECTS = 20
"""A check stops after this many; one cause often has many symptoms."""


def check_minari(dataset: MinariDataset, env: gym.Env[Any, Any] | None = None) -> list[str]:
    """Return the defects of a Minari dataset, one sentence each; none means it is sound.

    Args:
        dataset: the dataset.
        env: environment whose observation and action widths it must have.
    """
    found = list(_limited(_defects(dataset)))
    if env is not None:
        found += _width_defects(dataset.observation_space, dataset.action_space, env)
    return found


def _limited(defects: Iterator[str]) -> Iterator[str]:
    for number, text in enumerate(defects):
        if number == MOST_DEFECTS:
            yield f"more than {MOST_DEFECTS} defects; the rest is not listed"
            return
        yield text


def _defects(dataset: MinariDataset) -> Iterator[str]:
    total, state_only = 0, bool(dataset.storage.metadata.get("state_only"))
    count = int(dataset.total_episodes)
    episodes = with_progress(dataset.iterate_episodes(), f"Checking {dataset.id}", total=count)
    try:
        for episode in episodes:
            total += len(episode.rewards)
            place = f"episode {episode.id}"
            yield from (f"{place}: {text}" for text in episode_defects(episode, state_only))
    except (OSError, ValueError, KeyError) as error:
        yield f"the episodes cannot be read: {error}; convert or copy the dataset again"
        return
    if count == 0:
        yield "the dataset holds no episodes"
    if total != dataset.total_steps:
        yield f"metadata says total_steps is {dataset.total_steps}, the episodes hold {total}"


def episode_defects(episode: Any, state_only: bool) -> Iterator[str]:
    """Yield the defects of one Minari episode, one sentence each."""
    steps = len(episode.rewards)
    if steps == 0:
        yield "it has no steps"
        return
    states = dict(_leaves("observations", episode.observations))
    names = ("actions", "rewards", "terminations", "truncations")
    others = {name: np.asarray(getattr(episode, name)) for name in names}
    for arrays, rows in ((states, steps + 1), (others, steps)):
        for key, array in arrays.items():
            if len(array) != rows:
                yield f"{key} has {len(array)} rows; expected {rows} (it has {steps} steps)"
    if state_only:
        yield from _state_only_defects(others.pop("actions"))
    for key, array in (states | others).items():
        yield from _bad_values(key, array)
    if not (episode.terminations[-1] or episode.truncations[-1]):
        yield f"step {steps - 1}, its last, is neither terminated nor truncated"
    early = np.flatnonzero(episode.truncations[:-1])
    if len(early):
        yield f"truncations is set at step {early[0]}, before its last step {steps - 1}"


def _state_only_defects(actions: Array) -> Iterator[str]:
    known = ~np.isnan(actions).reshape(len(actions), -1).all(axis=1)
    if known.any():
        yield f"the dataset is state_only, but actions is not NaN at step {np.argmax(known)}"


def _bad_values(key: str, array: Array) -> Iterator[str]:
    row = first_bad_row(array)
    if row is not None:
        yield f"{key} holds NaN or infinity at step {row}"


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Array]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(f"{key}/{name}", part)
    else:
        yield key, np.asarray(value)


def _width_defects(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], env: gym.Env[Any, Any]
) -> list[str]:
    """Compare shapes with those of the environment."""
    pairs: list[tuple[str, spaces.Space[Any] | None, spaces.Space[Any] | None]]
    pairs = [("actions", action_space, env.action_space)]
    theirs = env.observation_space
    if isinstance(observation_space, spaces.Dict) and isinstance(theirs, spaces.Dict):
        keys = sorted(set(observation_space) | set(theirs))
        pairs += [
            (f"observations/{key}", observation_space.spaces.get(key), theirs.spaces.get(key))
            for key in keys
        ]
    elif isinstance(theirs, spaces.Dict):  # goals that are observations
        pairs.append(("observations", observation_space, theirs.spaces.get("observation")))
    else:
        pairs.append(("observations", observation_space, theirs))
    return [
        f"{name} is {ours}, but the environment has {theirs}"
        for name, ours, theirs in pairs
        if ours is None
        or theirs is None
        or ours.shape != theirs.shape
        or isinstance(ours, spaces.Discrete) != isinstance(theirs, spaces.Discrete)
    ]


def check_file(path: Path, env: gym.Env[Any, Any] | None = None) -> tuple[str, list[str]]:
    """Check a source file: OGBench's npz, D4RL's HDF5, or a CSV table.

    Args:
        path: the file; D4RL's families and OGBench's environments are told by the official name.
        env: environment whose observation and action widths it must have.

    Returns:
        What the file holds, and its defects, one sentence each.

    Raises:
        UserError: a kind of file that is not known.
    """
    readers = {".npz": _npz_facts, ".hdf5": _hdf5_facts, ".h5": _hdf5_facts, ".csv": _csv_facts}
    if path.suffix not in readers:
        raise UserError(
            f"{path} is none of {', '.join(readers)}; give such a file, or the id of a dataset."
        )
    try:
        facts = readers[path.suffix](path)
    except UserError as error:
        return "", [str(error)]
    found = list(facts.defects)
    if env is not None:
        found += _width_defects(_box(facts.observations), _box(facts.actions), env)
    text = f"{facts.episodes} episodes, {len(facts.observations)} rows"
    return text, found


@dataclass(frozen=True)
class _Facts:
    observations: Array
    actions: Array
    episodes: int
    defects: tuple[str, ...] = ()


def _npz_facts(path: Path) -> _Facts:
    from gcrl_gym.datasets.ogbench_reader import read_npz

    arrays = read_npz(path)
    return _Facts(arrays["observations"], arrays["actions"], int(arrays["terminals"].sum()))


def _hdf5_facts(path: Path) -> _Facts:
    from gcrl_gym.datasets.d4rl_catalog import entry_of_file
    from gcrl_gym.datasets.d4rl_io import episode_bounds
    from gcrl_gym.datasets.d4rl_reader import read_d4rl

    arrays = read_d4rl(path)
    bounds = episode_bounds(path, entry_of_file(path), arrays)
    count = len(bounds.stops) + (bounds.tail < len(arrays.rewards))  # an open tail is one too
    return _Facts(arrays.observations, arrays.actions, count, bounds.repaired)


def _csv_facts(path: Path) -> _Facts:
    from gcrl_gym.datasets.offline_dataset import OfflineDataset

    data = OfflineDataset.from_csv(path)
    return _Facts(data.observations, data.actions, data.num_episodes)


def _box(column: Array) -> spaces.Space[Any]:
    """Space with the shape of a column; of whole numbers, one each: Discrete."""
    if column.ndim == 1:
        return spaces.Discrete(int(column.max()) + 1)
    return spaces.Box(-np.inf, np.inf, column.shape[1:], np.float32)
