"""``gcrl data check`` of a Minari dataset; check_files.py has that of source files.

A defect is what loading refuses, what training would go wrong with, or where the data contradict
themselves. A note is what is unusual but has one reading, which it tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from gcrl_gym.datasets.env_fit import out_of_bounds, space_defects
from gcrl_gym.datasets.minari_checks import (
    count_steps,
    episode_arrays,
    episode_defects,
    episode_notes,
    info_defects,
    leaf_spaces,
    marks_success,
)
from gcrl_gym.datasets.minari_episodes import Broken, each_episode, is_hdf5, stored_indices
from gcrl_gym.datasets.minari_open import DamagedDataset, check_data, check_metadata
from gcrl_gym.datasets.minari_reader import layout_of
from gcrl_gym.errors import UserError
from gcrl_gym.progress import with_progress

if TYPE_CHECKING:
    from minari import MinariDataset

MOST_DEFECTS = 20
"""A check stops after this many; one cause often has many symptoms."""


@dataclass(frozen=True)
class Findings:
    """What a check found.

    Args:
        facts: how much there is, for people.
        defects: one sentence each; none means that the data are sound.
        notes: one sentence for each thing that is unusual and how it is read.
    """

    facts: str
    defects: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_minari(dataset: MinariDataset, env: gym.Env[Any, Any] | None = None) -> list[str]:
    """Return the defects of a Minari dataset, one sentence each; none means it is sound.

    Args:
        dataset: the dataset.
        env: environment whose widths and action bounds it must have.
    """
    return inspect_minari(dataset, env).defects


def inspect_minari(dataset: MinariDataset, env: gym.Env[Any, Any] | None = None) -> Findings:
    """Return what is wrong with a Minari dataset, and what is unusual in it.

    Args:
        dataset: the dataset.
        env: environment whose widths and action bounds it must have.
    """
    folder = Path(dataset.storage.data_path)
    try:
        check_data(folder, check_metadata(folder / "metadata.json"))
    except DamagedDataset as error:
        return Findings("", [str(error)])
    unusual: dict[str, list[int]] = {}
    defects = list(_limited(_defects(dataset, env, unusual)))
    if env is not None:
        defects += space_defects(dataset.observation_space, dataset.action_space, env)
    notes = [
        f"{text} in {len(episodes)} episode{'s' if len(episodes) > 1 else ''} "
        f"(first: {episodes[0]})"
        for text, episodes in unusual.items()
    ]
    try:
        layout_of(dataset)
    except UserError as error:
        notes.append(f"no agent can be trained on it: {error}")
    facts = f"{dataset.total_episodes} episodes, {dataset.storage.total_steps} steps"
    return Findings(facts, defects, notes)


def _limited(defects: Iterator[str]) -> Iterator[str]:
    for number, text in enumerate(defects):
        if number == MOST_DEFECTS:
            yield f"more than {MOST_DEFECTS} defects; the rest is not listed"
            return
        yield text


def _defects(
    dataset: MinariDataset, env: gym.Env[Any, Any] | None, unusual: dict[str, list[int]]
) -> Iterator[str]:
    """Yield the defects of all episodes and of the counts, and note what is unusual."""
    count, steps, unread = int(dataset.total_episodes), 0, 0
    expected = leaf_spaces(dataset.observation_space, dataset.action_space)
    metadata = dataset.storage.metadata
    state_only, marks = bool(metadata.get("state_only")), marks_success(metadata)
    episodes = with_progress(each_episode(dataset), f"Checking {dataset.id}", total=count)
    for index, episode in episodes:
        place = f"episode {index}"
        if isinstance(episode, Broken):
            unread += 1
            yield f"{place}: {episode.reason}"
            continue
        arrays = episode_arrays(episode)
        steps += count_steps(arrays)
        found = list(episode_defects(arrays, expected, state_only))
        if not found and env is not None:
            beyond = out_of_bounds(arrays["actions"], env.action_space)
            found += [] if beyond is None else [f"{beyond[1]}, at step {beyond[0]}"]
        notes = [] if found else list(episode_notes(arrays, marks))
        for _, text, is_defect in info_defects(episode.infos, count_steps(arrays)):
            (found if is_defect else notes).append(text)
        for text in notes:
            unusual.setdefault(text, []).append(index)
        yield from (f"{place}: {text}" for text in found)
    if count == 0:
        yield "the dataset holds no episodes"
    yield from _count_defects(dataset, steps, unread, unusual)


def _count_defects(
    dataset: MinariDataset, steps: int, unread: int, unusual: dict[str, list[int]]
) -> Iterator[str]:
    """Compare the counts in the metadata with what is there; a part of a dataset has none."""
    counted = int(dataset.storage.total_episodes)
    if dataset.total_episodes != counted:
        return
    total = int(dataset.storage.total_steps)
    beyond = [index for index in stored_indices(dataset) if index >= counted]
    if beyond and total != steps:
        where = "main_data.hdf5" if is_hdf5(dataset) else "its folder"
        yield f"metadata says total_episodes is {counted}, {where} holds {counted + len(beyond)}"
    elif beyond:
        unusual["data that metadata.json does not count are not read"] = beyond
    if total != steps and not unread:
        yield f"metadata says total_steps is {total}, the episodes hold {steps}"
