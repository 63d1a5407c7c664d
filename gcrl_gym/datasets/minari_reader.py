"""Read a Minari dataset into flat columns.

HDF5 episodes are read straight into reused buffers, which skips the copies and the unused columns
of Minari's own iteration; every other storage goes through that iteration. The first load leaves a
flat cache beside the data (see cache.py).

How flags are read (see minari_checks.py): the group is the episode, so a last step without a flag
is truncated; with both flags it is terminated, which one warning of the first load says.
Truncations before the last step are refused, as are missing flags and flags other than 0 and 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from gcrl_gym.datasets import cache
from gcrl_gym.datasets.columns import RELEASE_BYTES, Array, Columns, Layout
from gcrl_gym.datasets.from_memory import GOAL_KEYS, put
from gcrl_gym.datasets.minari_checks import (
    Spaces,
    ends_with,
    episode_arrays,
    episode_defects,
    layout_defect,
    leaf_spaces,
    marks_success,
)
from gcrl_gym.datasets.minari_episodes import (
    Broken,
    data_file,
    each_episode,
    is_hdf5,
    place_of,
    why_unreadable,
)
from gcrl_gym.datasets.minari_open import check_data, check_metadata, open_minari
from gcrl_gym.errors import UserError
from gcrl_gym.progress import with_progress

if TYPE_CHECKING:
    import gymnasium as gym
    from minari import MinariDataset

__all__ = ["open_minari", "read_minari"]

_METADATA_BYTES = 2**20

Keys = dict[str, str]  # column name -> path inside an episode
Arrays = dict[str, Array]  # path inside an episode -> its array


def read_minari(source: MinariDataset | str | Path) -> tuple[Columns, MinariDataset]:
    """Read every episode of a Minari dataset, from its flat cache where that is valid.

    Returns:
        The columns, and the opened dataset for its spaces and metadata.

    Raises:
        UserError: see `OfflineDataset.from_minari`.
    """
    dataset = open_minari(source)
    layout, keys = layout_of(dataset)
    folder = Path(dataset.storage.data_path)
    whole = dataset.total_episodes == dataset.storage.total_episodes
    cached = whole and folder.name == "data"  # elsewhere the cache could meet another dataset's
    if dataset.total_episodes == 0:
        raise UserError(f"{folder}: the dataset {dataset.id!r} holds no episodes.")
    columns = cache.load(folder, layout) if cached else None
    if columns is None:
        check_data(folder, check_metadata(folder / "metadata.json"))
        state_only = bool(dataset.storage.metadata.get("state_only"))
        steps, episodes = _total_steps(dataset), int(dataset.total_episodes)
        with cache.draft(folder if cached else None, layout, steps, episodes) as draft:
            _fill(draft.columns, dataset, keys)
            draft.columns.require_finite(str(folder), state_only)
            columns = draft.keep()
    return columns, dataset


def _total_steps(dataset: MinariDataset) -> int:
    """Return the number of steps; Minari reads that of a part from the data of its episodes."""
    try:
        return int(dataset.total_steps)
    except (KeyError, ValueError, OSError) as error:
        raise UserError(
            f"{dataset.storage.data_path}: the number of steps of an episode cannot be read "
            f"({error}); load the whole dataset, or convert it again."
        ) from error


def layout_of(dataset: MinariDataset) -> tuple[Layout, Keys]:
    """Work out the columns from the dataset's spaces.

    Raises:
        UserError: spaces that agents cannot be trained on.
    """
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
    lengths: list[int] = []
    start = released = 0
    release_rows = max(1, RELEASE_BYTES // columns.layout.nbytes(1))
    expected = leaf_spaces(dataset.observation_space, dataset.action_space)
    both: list[int] = []
    read = _episodes(dataset, keys, views, expected)
    for place, arrays in with_progress(read, f"Reading {dataset.id}", total=len(columns.lengths)):
        _require_sound(place, arrays, expected)
        length = len(arrays["rewards"])
        if start + length + 1 > len(columns.rows):
            raise UserError(
                f"{folder / 'metadata.json'} says total_steps is {steps}, but the episodes hold "
                "more; correct it or convert the dataset again."
            )
        for name, key in keys.items():
            put(views[name], slice(start, start + len(arrays[key])), arrays[key])
        if all(ends_with(arrays)):
            both.append(len(lengths))
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
    if both and not marks_success(dataset.storage.metadata):
        warnings.warn(
            f"{folder}: {len(both)} episodes (first: {both[0]}) end terminated and truncated at "
            "once; they are taken as terminated.",
            stacklevel=2,
        )


def _require_sound(place: str, arrays: Arrays, expected: Spaces) -> None:
    """Refuse an episode with a defect; bad floats are found later, in all columns at once."""
    for text in episode_defects(arrays, expected, finite=False):
        raise _refusal(place, text)


def _refusal(place: str, text: str) -> UserError:
    return UserError(f"{place}: {text}; repair the dataset (gcrl data check) or convert it again.")


def _episodes(
    dataset: MinariDataset, keys: Keys, views: dict[str, Array], expected: Spaces
) -> Iterator[tuple[str, Arrays]]:
    """Yield ``(where it is, arrays by path)`` for each episode."""
    if is_hdf5(dataset) and not _has_images(dataset):
        columns = {key: views[name] for name, key in keys.items()}
        yield from _hdf5_episodes(dataset, columns, expected)
        return
    for index, episode in each_episode(dataset):
        place = place_of(dataset, index)
        if isinstance(episode, Broken):
            raise _refusal(place, episode.reason)
        yield place, episode_arrays(episode)


def _has_images(dataset: MinariDataset) -> bool:
    """Whether Minari stores JPEG bytes instead of arrays for the observations."""
    from minari.dataset.minari_storage import is_image_space

    return bool(dataset.storage.jpeg_encoding) and is_image_space(dataset.observation_space)


def _hdf5_episodes(
    dataset: MinariDataset, columns: dict[str, Array], expected: Spaces
) -> Iterator[tuple[str, Arrays]]:
    """Yield the episodes of a Minari HDF5 file; the arrays are buffers reused by the next one."""
    import h5py

    buffers: dict[str, Array] = {}
    types: dict[str, tuple[Any, np.dtype[Any]]] = {}
    path = data_file(dataset)
    with h5py.File(path, "r") as file:
        _limit_metadata_cache(file)
        for index in dataset.episode_indices:
            arrays: Arrays = {}
            place = f"{path} episode_{index}"
            try:
                for key, space in expected.items():
                    leaf = h5py.h5d.open(file.id, f"episode_{index}/{key}".encode())
                    shape, stored = leaf.shape or (), _stored_dtype(leaf, key, types)
                    defect = layout_defect(key, shape, stored, space)
                    if defect is not None:
                        raise _refusal(place, defect)
                    arrays[key] = _buffer(key, shape, stored, columns.get(key), buffers)
                    if arrays[key].size:
                        leaf.read(h5py.h5s.ALL, h5py.h5s.ALL, arrays[key])
            except (KeyError, OSError, TypeError, RuntimeError) as error:
                reason = why_unreadable(dataset, int(index), error)
                raise _refusal(place, reason) from error
            yield place, arrays


def _limit_metadata_cache(file: Any) -> None:
    """Keep HDF5 from remembering every object of a pass: that took a quarter of the peak memory."""
    config = file.id.get_mdc_config()
    config.set_initial_size, config.initial_size = True, _METADATA_BYTES
    config.min_size = config.max_size = _METADATA_BYTES
    config.incr_mode = config.flash_incr_mode = 0  # never grow
    file.id.set_mdc_config(config)


def _stored_dtype(
    leaf: Any, key: str, types: dict[str, tuple[Any, np.dtype[Any]]]
) -> np.dtype[Any]:
    """Return the dtype of an HDF5 array; translating it takes longer than reading a few rows."""
    kind = leaf.get_type()
    known = types.get(key)
    if known is None or not kind.equal(known[0]):
        known = types[key] = kind, leaf.dtype
    return known[1]


def _buffer(
    key: str,
    shape: tuple[int, ...],
    stored: np.dtype[Any],
    view: Array | None,
    buffers: dict[str, Array],
) -> Array:
    """Return an array to read into, of the column's dtype where HDF5 may convert on the way."""
    dtype = np.dtype(np.float32) if view is None else view.dtype
    if stored.kind == "b" or (dtype.kind in "iu" and stored != dtype):
        # The flags are an HDF5 enumeration, which only reads as what it is; numbers that have to
        # be whole are looked at before they are converted.
        dtype = stored.newbyteorder("=")
    buffer = buffers.get(key)
    fits = buffer is not None and buffer.shape[1:] == shape[1:] and buffer.dtype == dtype
    if buffer is None or not fits or len(buffer) < shape[0]:
        buffer = buffers[key] = np.empty((2 * shape[0], *shape[1:]), dtype)
    part: Array = buffer[: shape[0]]
    return part
