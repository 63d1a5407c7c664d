"""OGBench's npz files to Minari datasets.

Only single-task rewards need OGBench itself (for the goals); all else needs no simulator. What the
variants of a dataset hold:

======================  ==========================================  ============================
id                      observations                                rewards, terminations
======================  ==========================================  ============================
plain                   states or images; goals are observations    zeros, none
``-oraclerep``          Dict: the achieved goal is the oracle's,    zeros, none
                        the desired one that of the last state
``-singletask[-taskN]`` states or images, no goals                  of the task, see below
======================  ==========================================  ============================

Episodes are truncated where the file ends them. In single-task data a step from a state that
fulfils the task (OGBench's mask 0) is stored as terminated, which means "no bootstrap" to every
agent; it does not end the episode, because the data go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from gcrl_gym.datasets import ogbench_tasks
from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.minari_io import versions, write_minari
from gcrl_gym.datasets.ogbench_cards import CARDS
from gcrl_gym.datasets.ogbench_catalog import (
    POWDERWORLD_ACTIONS,
    DatasetName,
    dataset_id_of,
    dataset_ids,
    env_id_of,
    expected_shapes,
    file_name,
    parse,
)
from gcrl_gym.datasets.ogbench_reader import INFO_KEYS, OGBenchFile, read_file, read_npz
from gcrl_gym.datasets.ogbench_remote import remote
from gcrl_gym.datasets.report import ReportBuilder
from gcrl_gym.datasets.sources import Source
from gcrl_gym.errors import UserError
from gcrl_gym.progress import with_progress

if TYPE_CHECKING:
    import gymnasium as gym
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

__all__ = [
    "INFO_KEYS",
    "SOURCE",
    "convert_ogbench",
    "dataset_id_of",
    "dataset_ids",
    "env_id_of",
    "file_name",
    "read_npz",
    "shards",
]


def convert_ogbench(
    path: str | Path, dataset_id: str | None = None, *, overwrite: bool = False
) -> MinariDataset:
    """Convert an npz file, or a folder of such files, to a Minari dataset.

    ``qpos``, ``qvel`` and ``button_states`` become infos. The files of a folder are read one
    after the other, so that memory for the largest of them is enough. The conversion report is
    kept in the metadata as ``report``.

    Args:
        path: the file, under its official name, or a folder of files, such as the 100M sets.
        dataset_id: id to write, which also tells the variant; from the path's name when None.
        overwrite: replace an existing dataset.

    Raises:
        UserError: a missing, damaged or foreign file, naming key and row, or an existing id.
    """
    path = Path(path)
    dataset_id = dataset_id or dataset_id_of(path)
    name = parse(dataset_id)
    files = shards(path, name.val)
    goal = ogbench_tasks.task_goal(name) if name.is_singletask else None
    first = [read_file(files[0])]
    observation_space, action_space = _spaces(name, first[0])
    checksum = _checksum(files)
    report = ReportBuilder(path.name, checksum)
    metadata: dict[str, Any] = {
        "source": "ogbench",
        "source_file": path.name,
        "source_sha256": checksum,
        "versions": versions("ogbench"),
    }
    if goal is not None:
        metadata["task_id"] = goal.task_id
    else:
        metadata["goal"] = "oracle" if name.is_oracle else "observation"
    return write_minari(
        dataset_id,
        _stream(name, goal, files, first, report),
        observation_space=observation_space,
        action_space=action_space,
        env_spec=_env_spec(name),
        metadata=metadata,
        overwrite=overwrite,
        report=report,
    )


def shards(path: Path, val: bool = False) -> list[Path]:
    """Return the files of a dataset in the order of their names: the file itself, or a folder's.

    OGBench's 100M sets are folders of ``<env>-<type>-v0-000.npz`` (training) and
    ``<env>-<type>-v0-000-val.npz`` (validation).

    Args:
        path: a file or a folder.
        val: validation data instead of training data.

    Raises:
        UserError: a folder without such files.
    """
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.glob("*.npz") if file.stem.endswith("-val") == val)
    if not found:
        kind = "*-val.npz" if val else "*.npz (other than *-val.npz)"
        raise UserError(f"The folder {path} holds no {kind}; download the dataset into it.")
    return found


def _checksum(files: Sequence[Path]) -> str:
    """SHA-256 of the file; of several: of the listing that sha256sum prints for them."""
    lines = []
    for path in files:
        with open(path, "rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    if len(lines) == 1:
        return lines[0].split()[0]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_fits(name: DatasetName, file: OGBenchFile) -> None:
    """Check the arrays against the environment that the name tells."""
    expected = expected_shapes(name)
    if expected is None:
        return
    for key, shape in zip(("observations", "actions"), expected):
        found = file.arrays[key]
        image = np.dtype(np.uint8) if len(shape) == 3 else np.dtype(np.float32)
        dtype = image if shape else np.dtype(np.int64)
        if found.shape[1:] != shape or found.dtype != dtype:
            raise UserError(
                f"{file.name}: {key} is {found.dtype} with rows of shape {found.shape[1:]}, but "
                f"{name.env} has {dtype} of shape {shape}; the file belongs to another dataset."
            )
    actions = file.arrays["actions"]
    if not expected[1] and not 0 <= actions.min() <= actions.max() < POWDERWORLD_ACTIONS:
        row = int(np.argmax((actions < 0) | (actions >= POWDERWORLD_ACTIONS)))
        raise UserError(
            f"{file.name}: actions holds {actions[row]} in row {row}; {name.env} has the actions 0 "
            f"to {POWDERWORLD_ACTIONS - 1}."
        )


def _spaces(name: DatasetName, file: OGBenchFile) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Spaces of the stored observations and actions."""
    observations, actions = file.arrays["observations"], file.arrays["actions"]
    box: gym.Space[Any] = spaces.Box(-np.inf, np.inf, observations.shape[1:], np.float32)
    if observations.dtype == np.uint8:
        box = spaces.Box(0, 255, observations.shape[1:], np.uint8)
    if name.is_oracle:
        goals = spaces.Box(-np.inf, np.inf, (ogbench_tasks.oracle_dim(name),), np.float32)
        box = spaces.Dict({"observation": box, "achieved_goal": goals, "desired_goal": goals})
    if actions.dtype == np.int64:
        return box, spaces.Discrete(max(POWDERWORLD_ACTIONS, int(actions.max()) + 1))
    return box, spaces.Box(-1.0, 1.0, actions.shape[1:], np.float32)


def _env_spec(name: DatasetName) -> EnvSpec:
    entry, keywords = "gcrl_gym.wrappers.goal_dict:make_goal_dict_env", {}
    if name.is_singletask:
        entry = "gcrl_gym.datasets.ogbench_envs:make_singletask_env"
    elif name.is_oracle:
        entry = "gcrl_gym.datasets.ogbench_envs:make_oracle_env"
        keywords = {"goal_dim": ogbench_tasks.oracle_dim(name)}
    return EnvSpec(id=name.env_id, entry_point=entry, kwargs={"env_id": name.env_id, **keywords})


def _stream(
    name: DatasetName,
    goal: ogbench_tasks.TaskGoal | None,
    paths: Sequence[Path],
    first: list[OGBenchFile],
    report: ReportBuilder,
) -> Iterator[EpisodeBuffer]:
    """Yield the episodes of all files, holding one file at a time.

    Args:
        name: the dataset.
        goal: the task, for single-task data.
        paths: the files.
        first: the first file, already read; it is taken from the list so that it can be freed.
        report: gets the sentences about what was left out.
    """
    shapes = _shapes(first[0])
    ends, regular, unknown = 0, False, set[str]()
    for path in paths:
        file = first.pop() if first else read_file(path)
        if _shapes(file) != shapes:
            raise UserError(
                f"{path} holds {_shapes(file)}, but {paths[0].name} holds {shapes}; the files of a "
                "folder must belong to one dataset."
            )
        check_fits(name, file)
        ends += int(file.arrays["terminals"].sum())
        regular |= file.regular
        unknown |= set(file.unknown)
        yield from _episodes(name, goal, file)
        del file  # before the next one is read
    if regular:
        report.dropped.append(
            "infos have no row for the last state of an episode: the regular layout stores none"
        )
    else:
        report.dropped.append(
            f"the action in the last row of each episode ({ends} rows): no state follows it"
        )
    if unknown:
        report.dropped.append(f"unknown keys of the file: {', '.join(sorted(unknown))}")


def _shapes(file: OGBenchFile) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and row shape of each array by key, sorted so that equal ones read alike."""
    arrays = sorted(file.arrays.items())
    return {key: (str(array.dtype), array.shape[1:]) for key, array in arrays}


def _episodes(
    name: DatasetName, goal: ogbench_tasks.TaskGoal | None, file: OGBenchFile
) -> Iterator[EpisodeBuffer]:
    """Yield the episodes of a file, with a progress bar when that takes long."""
    from minari.data_collector import EpisodeBuffer

    arrays = file.arrays
    ends = np.flatnonzero(arrays["terminals"])
    starts = np.concatenate(([0], ends[:-1] + 1))
    oracle = _oracle_goals(name, file) if name.is_oracle else None
    rewards, masks = np.zeros(len(arrays["actions"]), np.float32), None
    if goal is not None:
        rewards, masks = ogbench_tasks.rewards_and_masks(name, goal, arrays, file.name)
    for start, end in with_progress(list(zip(starts, ends)), f"Converting {file.name}"):
        steps, states = slice(start, end), slice(start, end + 1)
        truncations = np.zeros(end - start, bool)
        truncations[-1] = True
        # Copies, because whoever keeps an episode must not keep the whole file in memory.
        observations: Any = arrays["observations"][states].copy()
        if oracle is not None:
            observations = {
                "observation": observations,
                "achieved_goal": oracle[states].copy(),
                "desired_goal": np.repeat(oracle[end : end + 1], end + 1 - start, axis=0),
            }
        infos = {key: arrays[key][steps if file.regular else states].copy() for key in file.infos}
        yield EpisodeBuffer(
            observations=observations,
            actions=arrays["actions"][steps].copy(),
            rewards=rewards[steps].copy(),
            terminations=np.zeros(end - start, bool) if masks is None else masks[steps] == 0,
            truncations=truncations,
            infos=infos or None,
        )


def _oracle_goals(name: DatasetName, file: OGBenchFile) -> Array:
    if file.regular:
        raise UserError(
            f"{file.name} has the regular layout, which lacks qpos for the last state of each "
            "episode, so its oracle goal is unknown; use the published file."
        )
    return ogbench_tasks.oracle_goals(name, file.arrays, file.name)


def _make(dataset_id: str, path: Path | None, overwrite: bool) -> MinariDataset:
    return convert_ogbench(path or "", dataset_id, overwrite=overwrite)


SOURCE = Source(
    "ogbench",
    ids=dataset_ids,
    file=file_name,
    make=_make,
    remote=remote,
    cards=CARDS,
)
