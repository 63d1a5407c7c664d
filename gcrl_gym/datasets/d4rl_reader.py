"""Read and check D4RL's HDF5 files with h5py: flat arrays of one row per transition.

::

    observations       (N, D) floats      infos/<name>   (N, ...) kept where a row per transition
    actions            (N, A) floats      infos          kitchen: the number of the demonstration
    rewards            (N,) or (N, 1)     metadata/*     not rows: never read
    terminals          (N,) or (N, 1)     bool, or floats: a flag is set where it is > 0
    timeouts           (N,) or (N, 1)     optional
    next_observations  (N, D) floats      optional
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.episode_bounds import Flags
from gcrl_gym.datasets.finite import as_flags, require_finite
from gcrl_gym.datasets.signatures import require
from gcrl_gym.errors import UserError, listed

_NEEDED = ("observations", "actions", "rewards", "terminals")
_OPTIONAL = ("timeouts", "next_observations")
_MATRICES = ("observations", "actions", "next_observations")


@dataclass(frozen=True)
class D4RLArrays:
    """What a file holds, with the dtypes it is stored in.

    Args:
        name: name of the file.
        observations: ``(N, D)`` floats.
        actions: ``(N, A)`` floats.
        rewards: ``(N,)`` floats.
        terminals: ``(N,)`` booleans.
        timeouts: ``(N,)`` booleans, None where the file has none.
        next_observations: ``(N, D)`` floats, None where the file has none.
        infos: arrays of ``N`` rows by name, such as ``goal``, ``qpos``, ``qvel``.
        unread: keys of the file that were not read.
    """

    name: str
    observations: Array
    actions: Array
    rewards: Array
    terminals: Flags
    timeouts: Flags | None
    next_observations: Array | None
    infos: dict[str, Array]
    unread: tuple[str, ...]


def read_d4rl(path: Path) -> D4RLArrays:
    """Read and check a D4RL file of any family.

    Raises:
        UserError: a missing, damaged or foreign file, missing keys, lengths, shapes or dtypes that
            do not fit, NaN or infinity, fewer than two rows; naming key and row.
    """
    require(path, ".hdf5")
    arrays, infos, unread = _load(path)
    rows = len(arrays["observations"]) if arrays["observations"].ndim else 0
    if rows < 2:
        raise UserError(
            f"{path}: observations has {rows} row{'s' if rows != 1 else ''}; an episode needs two "
            "at least: download the file again."
        )
    for key, array in arrays.items():
        arrays[key] = _shaped(path, key, array, rows)
        require_finite(path, key, arrays[key])
    for key, array in infos.items():
        if array.ndim == 0 or len(array) != rows:
            raise UserError(
                f"{path}: infos/{key} has shape {array.shape}; expected {rows} rows, as many as "
                "observations."
            )
    following = arrays.get("next_observations")
    if following is not None and following.shape != arrays["observations"].shape:
        raise UserError(
            f"{path}: next_observations has shape {following.shape}; expected that of "
            f"observations, {arrays['observations'].shape}."
        )
    if arrays["rewards"].dtype.kind != "f":
        arrays["rewards"] = arrays["rewards"].astype(np.float32)
    return D4RLArrays(
        path.name,
        arrays["observations"],
        arrays["actions"],
        arrays["rewards"],
        as_flags(path, "terminals", arrays["terminals"]),
        as_flags(path, "timeouts", arrays["timeouts"]) if "timeouts" in arrays else None,
        following,
        infos,
        unread,
    )


def _load(path: Path) -> tuple[dict[str, Array], dict[str, Array], tuple[str, ...]]:
    """Read the known keys and the infos; also return the names of what was left."""
    import h5py

    key = ""
    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in _NEEDED if key not in file]
            if missing:
                raise UserError(f"{path} has no {missing}; it holds {listed(file)}.")
            arrays = {}
            for key in (*_NEEDED, *_OPTIONAL):
                if key in file:
                    arrays[key] = _read(path, key, file[key])
            infos, unread = {}, []
            key = "infos"
            for key, item in _info_items(file):
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub":
                    infos[key.removeprefix("infos/")] = item[()]
                else:
                    unread.append(key)
            unread += [key for key in file if key not in (*arrays, "infos")]
    except MemoryError as error:
        raise UserError(f"{path}: {key} does not fit into memory ({error}).") from error
    except (OSError, RuntimeError, KeyError) as error:
        where = f" at {key!r}" if key else ""
        raise UserError(
            f"{path} is damaged or incomplete{where} ({error}); download it again."
        ) from error
    return arrays, infos, tuple(sorted(unread))


def _info_items(file: Any) -> list[tuple[str, Any]]:
    """Return the arrays of ``infos`` by key; kitchen's is one array, named ``demo`` here."""
    import h5py

    infos = file.get("infos")
    if infos is None:
        return []
    if isinstance(infos, h5py.Dataset):
        return [("infos/demo", infos)]
    return [(f"infos/{key}", infos[key]) for key in infos]


def _read(path: Path, key: str, item: Any) -> Array:
    """Read an array of numbers."""
    import h5py

    if not isinstance(item, h5py.Dataset):
        raise UserError(f"{path}: {key} is a group; expected an array.")
    if item.dtype.kind not in ("f" if key in _MATRICES else "fiub"):
        expected = "floats" if key in _MATRICES else "numbers"
        raise UserError(f"{path}: {key} has dtype {item.dtype}; expected {expected}.")
    return np.asarray(item[()])


def _shaped(path: Path, key: str, array: Array, rows: int) -> Array:
    """Check the shape, flattening ``(N, 1)`` where a number per row is expected."""
    if key in _MATRICES:
        fits, expected = array.ndim == 2 and array.shape[1] > 0, f"({rows}, width)"
    else:
        fits, expected = array.ndim == 1 or array.shape[1:] == (1,), f"({rows},)"
    if not fits or len(array) != rows:
        raise UserError(f"{path}: {key} has shape {array.shape}; expected {expected}.")
    return array if key in _MATRICES else array.reshape(rows)
