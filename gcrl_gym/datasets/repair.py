"""Repaired copies of damaged Minari datasets; repair_files.py has those of source files.

What is broken is left out or mended, and said; the original stays as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gcrl_gym.datasets.check import MOST_DEFECTS, check_minari
from gcrl_gym.datasets.minari_checks import (
    count_steps,
    ends_with,
    episode_arrays,
    episode_defects,
    info_defects,
    leaf_spaces,
    marks_success,
)
from gcrl_gym.datasets.minari_episodes import Broken, each_episode, stored_indices
from gcrl_gym.datasets.minari_open import check_data, check_metadata
from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer


@dataclass
class _Plan:
    """What becomes of the episodes.

    Args:
        kept: episodes of the copy, with the infos that are left out of each.
        left_out: a sentence for each of the others.
        steps: number of steps of the readable episodes.
        unended: episodes whose last step has no flag.
        both: episodes whose last step has both flags.
    """

    kept: dict[int, set[str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    steps: int = 0
    unended: list[int] = field(default_factory=list)
    both: list[int] = field(default_factory=list)


def repair_minari(
    dataset: MinariDataset, *, overwrite: bool = False
) -> tuple[MinariDataset, list[str]]:
    """Write the sound episodes of a Minari dataset as ``<name>-repaired-vN``.

    Infos with bad values or a wrong length are left out of their episode, which is kept; the last
    step of an episode gets exactly one flag.

    Args:
        dataset: the dataset.
        overwrite: replace an existing repaired copy.

    Returns:
        The new dataset and one sentence per thing that was done.

    Raises:
        UserError: nothing to mend, no sound episode, an existing copy, or one with defects left.
    """
    from gcrl_gym.datasets.minari_io import write_minari

    folder = Path(dataset.storage.data_path)
    known = check_metadata(folder / "metadata.json")
    check_data(folder, known)
    whole = dataset.total_episodes == known["total_episodes"]
    indices = stored_indices(dataset) if whole else [int(i) for i in dataset.episode_indices]
    plan = _plan(dataset, indices)
    done = _sentences(plan, known if whole else None, len(indices))
    if not plan.kept:
        raise UserError(f"No episode of {dataset.id!r} is sound; nothing to repair it from.")
    if not done:
        raise UserError(f"There is nothing in {dataset.id!r} that can be repaired.")
    written = write_minari(
        repaired_id(str(dataset.id)),
        _buffers(dataset, plan.kept),
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        env_spec=dataset.env_spec,
        metadata=_metadata(known) | {"repaired_from": str(dataset.id), "repairs": done},
        overwrite=overwrite,
    )
    remaining = check_minari(written)
    if remaining:
        shutil.rmtree(Path(written.storage.data_path).parent)
        raise UserError(f"{dataset.id!r} cannot be repaired: even in the copy, {remaining[0]}.")
    return written, done


def repaired_id(dataset_id: str) -> str:
    """Return the id of the repaired copy of a dataset."""
    name, _, version = dataset_id.rpartition("-v")
    return f"{name}-repaired-v{version}" if name else f"{dataset_id}-repaired-v0"


def _metadata(known: dict[str, Any]) -> dict[str, Any]:
    """Return what the copy takes over, the evaluation environment among it."""
    written_anew = {"total_steps", "total_episodes", "dataset_id", "dataset_size", "data_format"}
    written_anew |= {"observation_space", "action_space", "env_spec"}
    written_anew |= {"jpeg_encoding", "minari_version"}
    return {key: value for key, value in known.items() if key not in written_anew}


def _plan(dataset: MinariDataset, indices: list[int]) -> _Plan:
    plan = _Plan()
    expected = leaf_spaces(dataset.observation_space, dataset.action_space)
    state_only = bool(dataset.storage.metadata.get("state_only"))
    for index, episode in each_episode(dataset, indices):
        if isinstance(episode, Broken):
            plan.left_out.append(f"episode {index} left out: {episode.reason}")
            continue
        arrays = episode_arrays(episode)
        steps = count_steps(arrays)
        plan.steps += steps
        broken = next(episode_defects(arrays, expected, state_only), None)
        if broken is not None:
            plan.left_out.append(f"episode {index} left out: {broken}")
            continue
        infos = {key for key, _, defect in info_defects(episode.infos, steps) if defect}
        plan.kept[index] = infos
        flags = ends_with(arrays)
        if not any(flags):
            plan.unended.append(index)
        if all(flags) and not marks_success(dataset.storage.metadata):
            plan.both.append(index)
    return plan


def _sentences(plan: _Plan, known: dict[str, Any] | None, stored: int) -> list[str]:
    """Say what is done; ``known`` is what the metadata of a whole dataset say."""
    done = plan.left_out[:MOST_DEFECTS]
    if len(plan.left_out) > MOST_DEFECTS:
        done.append(f"{len(plan.left_out) - MOST_DEFECTS} more episodes left out")
    infos: dict[str, list[int]] = {}
    for index, keys in plan.kept.items():
        for key in sorted(keys):
            infos.setdefault(key, []).append(index)
    done += [f"{key} left out {_where(episodes)}" for key, episodes in infos.items()]
    if plan.unended:
        done.append(f"the last step marked as truncated {_where(plan.unended)}")
    if plan.both:
        done.append(f"the truncation of a terminated last step removed {_where(plan.both)}")
    if known is not None and known["total_episodes"] != stored:
        done.append(f"total_episodes was {known['total_episodes']}, but {stored} were found")
    if known is not None and known["total_steps"] != plan.steps and not plan.left_out:
        done.append(f"total_steps was {known['total_steps']}, but {plan.steps} were found")
    return done


def _where(episodes: list[int]) -> str:
    plural = "s" if len(episodes) > 1 else ""
    return f"in {len(episodes)} episode{plural} (first: {episodes[0]})"


def _buffers(dataset: MinariDataset, kept: dict[int, set[str]]) -> Iterator[EpisodeBuffer]:
    """Yield the episodes of the copy."""
    from minari.data_collector import EpisodeBuffer

    marks = marks_success(dataset.storage.metadata)
    for index, episode in each_episode(dataset, list(kept)):
        if isinstance(episode, Broken):
            raise UserError(f"episode {index} has changed while it was read: {episode.reason}.")
        terminations = np.ravel(episode.terminations) != 0
        truncations = np.ravel(episode.truncations) != 0
        truncations[-1] = (not terminations[-1]) or (truncations[-1] and marks)
        yield EpisodeBuffer(
            observations=episode.observations,
            actions=episode.actions,
            rewards=episode.rewards,
            terminations=terminations,
            truncations=truncations,
            infos=_without("infos", episode.infos or {}, kept[index]) or None,
        )


def _without(key: str, value: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    """Return nested infos without the arrays at some paths."""
    found = {}
    for name, part in value.items():
        path = f"{key}/{name}"
        if path not in left_out:
            found[name] = _without(path, part, left_out) if isinstance(part, dict) else part
    return found
