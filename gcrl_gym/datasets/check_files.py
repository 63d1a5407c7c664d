"""``gcrl data check`` of source files: OGBench's npz, D4RL's HDF5, CSV tables."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gcrl_gym.datasets.check import Findings
from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.env_fit import out_of_bounds, space_defects
from gcrl_gym.datasets.finite import first_bad_row
from gcrl_gym.datasets.minari_checks import STATE_INFOS
from gcrl_gym.errors import UserError, listed, nearest

if TYPE_CHECKING:
    from gcrl_gym.datasets.d4rl_catalog import Entry
    from gcrl_gym.datasets.d4rl_reader import D4RLArrays
    from gcrl_gym.datasets.ogbench_catalog import DatasetName

SUFFIXES = (".npz", ".hdf5", ".h5", ".csv")


@dataclass
class Facts:
    """What is in a file.

    Args:
        observations: ``(N, ...)``.
        actions: ``(N, ...)``, without the rows that hold only a state.
        text: how much there is, for people.
        place: returns where a row of the actions is, for people.
        defects: one sentence each.
        notes: one sentence each.
    """

    observations: Array
    actions: Array
    text: str
    place: Callable[[int], str] = "in row {}".format
    defects: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_file(
    path: Path, env: gym.Env[Any, Any] | None = None, dataset_id: str | None = None
) -> Findings:
    """Check a source file: OGBench's npz, D4RL's HDF5, or a CSV table.

    Args:
        path: the file.
        env: environment whose widths and action bounds it must have.
        dataset_id: which dataset it is, for D4RL's families and OGBench's environments; by default
            told by the official name.

    Raises:
        UserError: a kind of file, or an id, that is not known.
    """
    read = reader_of(path, dataset_id)
    try:
        facts = read(path)
    except UserError as error:
        return Findings("", [str(error)])
    defects = list(facts.defects)
    if env is not None:
        defects += _env_defects(facts, env)
    return Findings(facts.text, defects, facts.notes)


def reader_of(path: Path, dataset_id: str | None = None) -> Callable[[Path], Facts]:
    """Return a function that reads and checks such a file, whatever its name then.

    Raises:
        UserError: a kind of file, or an id, that is not known.
    """
    kind = path.suffix.lower()
    if kind == ".npz":
        name = ogbench_name(path, dataset_id)
        return lambda file: _npz_facts(file, name)
    if kind in (".hdf5", ".h5"):
        entry = d4rl_entry(path, dataset_id)
        return lambda file: _hdf5_facts(file, entry)
    if kind == ".csv" and dataset_id is None:
        return _csv_facts
    if kind == ".csv":
        raise UserError(f"{path} is a table, which --id says nothing about; leave --id out.")
    raise UserError(
        f"{path} is none of {', '.join(SUFFIXES)}; give such a file, or the id of a dataset."
    )


def official_name(path: Path) -> Path:
    """Return the path under the name of the file that a repaired copy was made from."""
    stem = path.stem
    while stem.endswith(".repaired"):
        stem = stem.removesuffix(".repaired")
    return path.with_name(f"{stem}{path.suffix.lower()}")


def d4rl_entry(path: Path, dataset_id: str | None = None) -> Entry | None:
    """Return the D4RL dataset of an id or official name, None where the name tells none.

    Raises:
        UserError: an unknown id.
    """
    from gcrl_gym.datasets.d4rl_catalog import entry_of, entry_of_file

    if dataset_id is not None:
        return entry_of(dataset_id)
    try:
        return entry_of_file(official_name(path))
    except UserError:
        return None


def ogbench_name(path: Path, dataset_id: str | None = None) -> DatasetName | None:
    """Return the OGBench dataset of an id or official name, None where the name tells none.

    Raises:
        UserError: an unknown id.
    """
    from gcrl_gym.datasets import ogbench_catalog

    if dataset_id is not None:
        known = ogbench_catalog.dataset_ids()
        if dataset_id not in known:
            hint = nearest(dataset_id, known)
            raise UserError(f"Unknown OGBench dataset {dataset_id!r}.{hint}")
        return ogbench_catalog.parse(dataset_id)
    try:
        name = ogbench_catalog.parse(ogbench_catalog.dataset_id_of(official_name(path)))
        return None if ogbench_catalog.expected_shapes(name) is None else name
    except UserError:
        return None


def _unknown(path: Path, example: str) -> str:
    return (
        f"the name {path.name!r} tells no dataset, so widths and ends are not compared with one: "
        f"say which it is with --id, for example {example}"
    )


def _npz_facts(path: Path, name: DatasetName | None) -> Facts:
    from gcrl_gym.datasets import ogbench_io
    from gcrl_gym.datasets.ogbench_reader import read_file

    file = read_file(path)
    observations, actions = file.arrays["observations"], file.arrays["actions"]
    text = f"{int(file.arrays['terminals'].sum())} episodes, {len(observations)} rows"
    facts = Facts(observations, actions, text)
    if name is None:
        facts.notes.append(_unknown(path, "ogbench/antmaze-large-navigate-v0"))
    else:
        ogbench_io.check_fits(name, file)
    if file.unknown:
        facts.notes.append(f"not read: {listed(file.unknown)}")
    return facts


def _hdf5_facts(path: Path, entry: Entry | None) -> Facts:
    from gcrl_gym.datasets import d4rl_io
    from gcrl_gym.datasets.d4rl_reader import read_d4rl

    arrays = read_d4rl(path)
    rows = len(arrays.rewards)
    facts = Facts(arrays.observations, arrays.actions, f"{rows} rows")
    _look_at_infos(arrays, facts)
    if entry is None:
        facts.notes.append(_unknown(path, "d4rl/hopper-medium-v2"))
        return facts
    d4rl_io.check_fits(path, entry, arrays)
    bounds = d4rl_io.episode_bounds(path, entry, arrays)
    count = len(bounds.stops) + (bounds.tail < rows)  # an open tail is one too
    facts.text = f"{count} episodes, {rows} rows"
    repaired = list(bounds.repaired)
    if {"terminals", "timeouts"} <= set(entry.family.ends) and arrays.timeouts is not None:
        both = bool((arrays.terminals & arrays.timeouts).any())
        facts.notes += repaired[:both]  # that sentence is the first
        repaired = repaired[both:]
    facts.defects += repaired
    single = (bounds.stops - bounds.starts < 2) & ~bounds.terminated
    if arrays.next_observations is None and single.any():
        facts.defects.append(
            f"{int(single.sum())} episode(s) of a single row (first: row "
            f"{bounds.starts[single][0]}), whose next state is unknown; converting leaves them out"
        )
    return facts


def _look_at_infos(arrays: D4RLArrays, facts: Facts) -> None:
    """Note what is not read, and bad values, which are defects in states and goals."""
    for key, array in arrays.infos.items():
        row = first_bad_row(array)
        if row is not None:
            found = facts.defects if key in STATE_INFOS else facts.notes
            found.append(f"infos/{key} holds NaN or infinity (in float32) in row {row}")
    unread = [key for key in arrays.unread if key != "metadata"]
    if unread:
        facts.notes.append(f"no rows of numbers, so not read: {listed(unread)}")


def _csv_facts(path: Path) -> Facts:
    from gcrl_gym.datasets.offline_dataset import OfflineDataset

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = OfflineDataset.from_csv(path)
    steps = data.step_rows

    def place(row: int) -> str:
        episode, step = data.columns.place(int(steps[row]))
        return f"in episode {episode} at step {step}"

    text = f"{data.num_episodes} episodes, {len(steps)} steps"
    notes = [str(warning.message) for warning in caught]
    return Facts(data.observations, data.actions[steps], text, place, notes=notes)


def _env_defects(facts: Facts, env: gym.Env[Any, Any]) -> list[str]:
    spaces_ = _space(facts.observations), _space(facts.actions)
    found = space_defects(*spaces_, env, counts=False)
    beyond = out_of_bounds(facts.actions, env.action_space)
    if beyond is not None:
        found.append(f"{beyond[1]}, {facts.place(beyond[0])}")
    return found


def _space(column: Array) -> gym.Space[Any]:
    """Space with the shape of a column; of whole numbers, one each: Discrete."""
    if column.ndim == 1:
        return spaces.Discrete(max(1, int(column.max()) + 1))
    return spaces.Box(-np.inf, np.inf, column.shape[1:], np.float32)
