"""Read a Minari dataset into flat columns.

HDF5 episodes are read straight into reused buffers, which skips the copies and the unused columns
of Minari's own iteration; every other storage goes through that iteration. The first load leaves a
flat cache beside the data (see cache.py).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from gcrl_gym.datasets import cache
from gcrl_gym.datasets.columns import RELEASE_BYTES, Array, Columns, Layout
from gcrl_gym.datasets.env_specs import open_lenient
from gcrl_gym.datasets.from_memory import GOAL_KEYS, put
from gcrl_gym.errors import UserError, nearest
from gcrl_gym.progress import with_progress

if TYPE_CHECKING:
    import gymnasium as gym
    from minari import MinariDataset

_METADATA_BYTES = 2**20

Keys = dict[str, str]  # column name -> path inside an episode


def open_minari(source: MinariDataset | str | Path) -> MinariDataset:
    """Return a MinariDataset from one, its folder, or the id of a local one.

    Raises:
        UserError: nothing there, or metadata that cannot be read.
    """
    import minari

    if isinstance(source, minari.MinariDataset):
        return source
    folder = Path(source)
    if not folder.is_dir():
        folder = minari.storage.get_dataset_path(str(source))
    if (folder / "data").is_dir():
        folder = folder / "data"
    if not (folder / "metadata.json").is_file():
        raise UserError(
            f"No Minari dataset {str(source)!r}: {folder / 'metadata.json'} does not exist."
            f"{nearest(str(source), _local_ids())} Pass the id or folder of a local dataset, or "
            "make it with gcrl_gym.load_dataset(id)."
        )
    try:
        return open_lenient(folder)
    except (ValueError, KeyError, TypeError, AssertionError, OSError) as error:
        raise UserError(f"Cannot open the Minari dataset in {folder}: {error}") from error


def read_minari(source: MinariDataset | str | Path) -> tuple[Columns, MinariDataset]:
    """Read every episode of a Minari dataset, from its flat cache where that is valid.

    Returns:
        The columns, and the opened dataset for its spaces and metadata.

    Raises:
        UserError: see `OfflineDataset.from_minari`.
    """
    dataset = open_minari(source)
    layout, keys = _layout_of(dataset)
    folder = Path(dataset.storage.data_path)
    whole = dataset.total_episodes == dataset.storage.total_episodes
    cached = whole and folder.name == "data"  # elsewhere the cache could meet another dataset's
    if dataset.total_episodes == 0:
        raise UserError(f"{folder}: the dataset {dataset.id!r} holds no episodes.")
    columns = cache.load(folder, layout) if cached else None
    if columns is None:
        state_only = bool(dataset.storage.metadata.get("state_only"))
        steps, episodes = int(dataset.total_steps), int(dataset.total_episodes)
        with cache.draft(folder if cached else None, layout, steps, episodes) as draft:
            _fill(draft.columns, dataset, keys)
            draft.columns.require_finite(str(folder), state_only)
            columns = draft.keep()
    return columns, dataset


def _local_ids() -> list[str]:
    import minari

    return [
        str(path.parent.relative_to(minari.storage.get_dataset_path()))
        for path in minari.storage.get_dataset_path().rglob("data")
        if path.is_dir()
    ]


def _layout_of(dataset: MinariDataset) -> tuple[Layout, Keys]:
    """Work out the columns from the dataset's spaces."""
    space, name = dataset.observation_space, f"Minari dataset {dataset.id!r}"
    keys = {"rewards": "rewards", "terminated": "terminations", "actions": "actions"}
    goals: dict[str, int] = {}
    if isinstance(space, spaces.Dict):
        if set(space) != set(GOAL_KEYS):
            raise UserError(
                f"{name} has Dict observations with the keys {sorted(space)}; only the goal keys "
                f"{list(GOAL_KEYS)} are supported: flatten other Dict observations first."
            )
        for column, key in (("achieved_goals", GOAL_KEYS[1]), ("desired_goals", GOAL_KEYS[2])):
            shape, dtype = _leaf(space[key], f"{name} {key}")
            if dtype != "float32":
                raise UserError(f"{name} {key} has dtype {dtype}; goals must be floats.")
            goals[column] = int(np.prod(shape))
            keys[column] = f"observations/{key}"
        space = space["observation"]
        keys["observations"] = "observations/observation"
    else:
        keys["observations"] = "observations"
    observation_shape, observation_dtype = _leaf(space, f"{name} observation")
    action_shape, action_dtype = _leaf(dataset.action_space, f"{name} action")
    if action_dtype != "float32" and not isinstance(dataset.action_space, spaces.Discrete):
        raise UserError(
            f"{name} has the action space {dataset.action_space}; supported are float Box and "
            "Discrete actions."
        )
    layout = Layout(
        observation_shape=observation_shape,
        observation_dtype=observation_dtype,
        action_shape=(int(np.prod(action_shape)),) if action_dtype == "float32" else (),
        action_dtype=action_dtype,
        achieved_dim=goals.get("achieved_goals", 0),
        desired_dim=goals.get("desired_goals", 0),
    )
    return layout, keys


def _leaf(space: gym.Space[Any], name: str) -> tuple[tuple[int, ...], str]:
    """Shape and column dtype of an array space."""
    kinds = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    if not isinstance(space, kinds) or space.shape is None or space.dtype is None:
        raise UserError(f"{name} has the space {space}; only array spaces are supported.")
    return space.shape, str(space.dtype) if space.dtype.kind in "iu" else "float32"


def _fill(columns: Columns, dataset: MinariDataset, keys: Keys) -> None:
    """Read the episodes into zeroed columns."""
    folder, steps = Path(dataset.storage.data_path), dataset.total_steps
    views = {name: columns[name] for name in keys}
    lengths, start, released = [], 0, 0
    release_rows = max(1, RELEASE_BYTES // columns.layout.nbytes(1))
    read = _episodes(dataset, keys, views)
    for place, parts in with_progress(read, f"Reading {dataset.id}", total=len(columns.lengths)):
        length = len(parts["actions"])
        _require_lengths(place, parts, length)
        if start + length + 1 > len(columns.rows):
            raise UserError(
                f"{folder / 'metadata.json'} says total_steps is {steps}, but the episodes hold "
                "more; correct it or convert the dataset again."
            )
        for name, array in parts.items():
            put(views[name], slice(start, start + len(array)), array)
        lengths.append(length)
        start += length + 1
        if start - released > release_rows:
            released = start
            columns.release()
    if start != len(columns.rows):
        raise UserError(
            f"{folder / 'metadata.json'} says total_steps is {steps}, but the episodes hold "
            f"{sum(lengths)}; correct it or convert the dataset again."
        )
    columns.lengths[:] = lengths


def _require_lengths(place: str, parts: dict[str, Array], steps: int) -> None:
    """Check that states have one row more than actions and flags."""
    for name, array in parts.items():
        extra = int(name in ("observations", "achieved_goals", "desired_goals"))
        if len(array) != steps + extra or steps == 0:
            raise UserError(
                f"{place}: {name} has {len(array)} rows; expected {steps + extra} (episodes have "
                f"T >= 1 actions and T+1 observations). Convert the dataset again."
            )


def _episodes(
    dataset: MinariDataset, keys: Keys, views: dict[str, Array]
) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield ``(where it is, arrays by column name)`` for each episode."""
    path = Path(dataset.storage.data_path) / "main_data.hdf5"
    if path.is_file() and not _has_images(dataset):
        yield from _hdf5_episodes(path, dataset.episode_indices, keys, views)
        return
    folder = dataset.storage.data_path
    try:
        for episode in dataset.iterate_episodes():
            place = f"{folder} episode {episode.id}"
            yield place, {name: _follow(episode, key) for name, key in keys.items()}
    except (OSError, ValueError, KeyError, ImportError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"Cannot read the episodes in {folder}: {error}") from error


def _follow(episode: Any, key: str) -> Array:
    """Return ``episode.a["b"]`` for the key ``a/b``."""
    head, *rest = key.split("/")
    value = getattr(episode, head)
    for part in rest:
        value = value[part]
    return np.asarray(value)


def _has_images(dataset: MinariDataset) -> bool:
    """Whether Minari stores JPEG bytes instead of arrays for the observations."""
    from minari.dataset.minari_storage import is_image_space

    return bool(dataset.storage.jpeg_encoding) and is_image_space(dataset.observation_space)


def _hdf5_episodes(
    path: Path, indices: Array, keys: Keys, views: dict[str, Array]
) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield the episodes of a Minari HDF5 file; the arrays are buffers reused by the next one."""
    import h5py

    buffers: dict[str, Array] = {}
    try:
        with h5py.File(path, "r") as file:
            _limit_metadata_cache(file)
            for index in indices:
                place = f"{path} episode_{index}"
                parts = {}
                for name, key in keys.items():
                    leaf = h5py.h5d.open(file.id, f"episode_{index}/{key}".encode())
                    parts[name] = _read_leaf(leaf, name, views[name], buffers)
                yield place, parts
    except KeyError as error:
        raise UserError(f"{place} has no {key!r} ({error.args[0]}).") from error
    except (OSError, TypeError) as error:
        size = os.path.getsize(path)
        raise UserError(
            f"Cannot read {path} ({size} bytes): {error}. The file is damaged or incomplete; "
            "convert or copy it again."
        ) from error


def _limit_metadata_cache(file: Any) -> None:
    """Keep HDF5 from remembering every object of a pass: that took a quarter of the peak memory."""
    config = file.id.get_mdc_config()
    config.set_initial_size, config.initial_size = True, _METADATA_BYTES
    config.min_size = config.max_size = _METADATA_BYTES
    config.incr_mode = config.flash_incr_mode = 0  # never grow
    file.id.set_mdc_config(config)


def _read_leaf(leaf: Any, name: str, view: Array, buffers: dict[str, Array]) -> Array:
    """Read one HDF5 array, converting to the column's dtype on the way."""
    import h5py

    shape = leaf.shape
    if len(shape) == 0 or math.prod(shape[1:]) != math.prod(view.shape[1:]):
        raise TypeError(f"{name} has shape {shape}; expected rows of shape {view.shape[1:]}")
    buffer = buffers.get(name)
    if buffer is None or len(buffer) < shape[0] or buffer.shape[1:] != shape[1:]:
        # The flags are an HDF5 enumeration, which only reads as what it is.
        dtype = np.dtype(bool) if leaf.dtype == bool else view.dtype
        buffer = buffers[name] = np.empty((2 * shape[0], *shape[1:]), dtype)
    part: Array = buffer[: shape[0]]
    if part.size:
        leaf.read(h5py.h5s.ALL, h5py.h5s.ALL, part)
    return part
