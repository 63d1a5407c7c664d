"""Read and check OGBench's npz files, in the layout they are published in or the one it loads.

::

    published ("compact")                   regular (what OGBench's loader returns, saved)
    observations       s0 s1 s2 | s0 s1     observations       s0 s1 | s0
    actions            a0 a1 -  | a0 -      actions            a0 a1 | a0
    terminals           0  0  1 |  0  1     next_observations  s1 s2 | s1
                                            terminals           0  1 |  1

Either way the arrays returned here are those on the left. A file with ``valids`` (the loader's
"compact" arrays, whose terminals mark the last two rows of an episode) is read as the left one.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.finite import as_flags, require_finite
from gcrl_gym.datasets.signatures import require
from gcrl_gym.errors import UserError, listed

INFO_KEYS = ("qpos", "qvel", "button_states")

_NEEDED = ("observations", "actions", "terminals")
_LAYOUT_KEYS = ("next_observations", "valids")
_PIECE = 2**16  # rows compared at a time, so that checks take little memory


@dataclass(frozen=True)
class OGBenchFile:
    """What a file holds, one row per state.

    Args:
        name: name of the file.
        arrays: ``observations`` (float32 ``(N, D)`` or uint8 ``(N, H, W, C)``), ``actions``
            (float32 ``(N, A)`` or int64 ``(N,)``), ``terminals`` (bool ``(N,)``, set on the last
            state of an episode), and the `INFO_KEYS` of the file as stored, ``(N, width)``.
        regular: the file has the regular layout: the last state of an episode has no infos, and
            those given here repeat the row before.
        unknown: keys of the file that were not read.
    """

    name: str
    arrays: dict[str, Array]
    regular: bool
    unknown: tuple[str, ...]

    @property
    def infos(self) -> list[str]:
        """Names of the infos."""
        return [key for key in INFO_KEYS if key in self.arrays]


def read_npz(path: Path) -> dict[str, Array]:
    """Read and check the arrays of an OGBench file; see `OGBenchFile.arrays`.

    Raises:
        UserError: see `read_file`.
    """
    return read_file(path).arrays


def read_file(path: Path) -> OGBenchFile:
    """Read and check an OGBench file.

    Raises:
        UserError: a missing, damaged or foreign file, missing keys, lengths, widths or dtypes that
            do not fit, NaN or infinity, episodes without an end or with a single row, next
            observations that are not the next row; naming key and row.
    """
    require(path, ".npz")
    arrays, unknown = _load(path)
    _check_shapes(path, arrays)
    arrays["terminals"] = as_flags(path, "terminals", arrays["terminals"])
    with np.errstate(over="ignore"):  # what does not fit float32 is refused as infinity
        for key in ("observations", "actions", "next_observations"):
            if key in arrays and arrays[key].dtype.kind == "f":
                arrays[key] = arrays[key].astype(np.float32, copy=False)
    if arrays["actions"].dtype.kind in "iu":
        arrays["actions"] = arrays["actions"].astype(np.int64, copy=False)
    for key, array in arrays.items():
        require_finite(path, key, array)
    _check_last_row(path, arrays["terminals"])
    regular = "next_observations" in arrays
    if regular:
        arrays = _from_regular(path, arrays)
    elif "valids" in arrays:
        _take_valids(path, arrays)
    _check_episodes(path, arrays["terminals"])
    return OGBenchFile(path.name, arrays, regular, unknown)


def _load(path: Path) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Decompress the known keys; also return the names of the others."""
    arrays: dict[str, Array] = {}
    known, key = (*_NEEDED, *_LAYOUT_KEYS, *INFO_KEYS), ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = set(_NEEDED) - set(archive)
            if missing:
                raise UserError(f"{path} has no {sorted(missing)}; it holds {listed(archive)}.")
            for key in known:
                if key in archive:
                    arrays[key] = archive[key]
                    if not isinstance(arrays[key], np.ndarray):  # a member that is no npy file
                        raise ValueError("it is not an array")
            unknown = tuple(sorted(set(archive) - set(known)))
    except MemoryError as error:
        raise UserError(f"{path}: {key} does not fit into memory ({error}).") from error
    except RuntimeError as error:  # also NotImplementedError: unknown compression, encryption
        raise UserError(f"{path} cannot be unpacked ({error}); use numpy.savez.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged or incomplete ({error}); download it again.") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: {key} cannot be read ({error}); it must be a plain array of numbers."
        ) from error
    return arrays, unknown


def _check_shapes(path: Path, arrays: dict[str, Array]) -> None:
    """Check dtypes, numbers of dimensions and lengths."""
    observations, actions = arrays["observations"], arrays["actions"]
    if observations.dtype.kind != "f" and observations.dtype != np.uint8:
        raise UserError(
            f"{path}: observations has dtype {observations.dtype}; expected floats (states) or "
            "uint8 (images)."
        )
    if actions.dtype.kind not in "fiu":
        raise UserError(f"{path}: actions has dtype {actions.dtype}; expected floats or integers.")
    rows = len(observations) if observations.ndim else 0
    if rows == 0:
        raise UserError(f"{path}: observations has no rows.")
    state = (rows, "width") if observations.dtype.kind == "f" else (rows, "height", "width", "3")
    expected: dict[str, tuple[object, ...]] = {
        "observations": state,
        "next_observations": state,
        "actions": (rows, "width") if actions.dtype.kind == "f" else (rows,),
        "terminals": (rows,),
        "valids": (rows,),
    }
    for key, array in arrays.items():
        shape = expected.get(key, (rows, "width"))
        if array.ndim != len(shape) or len(array) != rows:
            text = str(shape).replace("'", "")
            raise UserError(f"{path}: {key} has shape {array.shape}; expected {text}.")
        if array.dtype.kind not in "fiub":
            raise UserError(f"{path}: {key} has dtype {array.dtype}; expected numbers.")
    following = arrays.get("next_observations", observations)
    if following.shape != observations.shape or following.dtype != observations.dtype:
        raise UserError(
            f"{path}: next_observations is {following.dtype} {following.shape}; expected that of "
            f"observations, {observations.dtype} {observations.shape}."
        )


def _check_last_row(path: Path, terminals: Array) -> None:
    last = len(terminals) - 1
    if not terminals.any():
        raise UserError(
            f"{path}: terminals is 0 in all {last + 1} rows, so no episode ends; set it to 1 on "
            "the last row of each episode."
        )
    if not terminals[last]:
        raise UserError(
            f"{path}: the last row ({last}) is not terminal, so its episode has no end; the file "
            "is cut short: download it again."
        )


def _check_episodes(path: Path, terminals: Array) -> None:
    """Check that every episode has two states at least."""
    ends = np.flatnonzero(terminals)
    short = np.flatnonzero(np.diff(ends, prepend=-1) < 2)
    if len(short):
        raise UserError(
            f"{path}: episode {short[0]} (row {ends[short[0]]}) has a single row; expected a row "
            "per state, with terminals set on the last state of each episode only."
        )


def _take_valids(path: Path, arrays: dict[str, Array]) -> None:
    """Replace the terminals of the last two rows of an episode by those of the last row."""
    ends = ~as_flags(path, "valids", arrays.pop("valids"))
    before_or_at = ends | np.append(ends[1:], True)
    wrong = np.flatnonzero(arrays["terminals"] != before_or_at)
    if len(wrong):
        raise UserError(
            f"{path}: terminals and valids disagree in row {wrong[0]}; expected valids 0 on the "
            "last row and terminals 1 on the last two rows of each episode."
        )
    arrays["terminals"] = ends


def _from_regular(path: Path, arrays: dict[str, Array]) -> dict[str, Array]:
    """Give each episode the row of its last state, which only ``next_observations`` holds."""
    following, ends = arrays.pop("next_observations"), np.flatnonzero(arrays["terminals"])
    observations = arrays["observations"]
    arrays.pop("valids", None)
    for start in range(0, len(observations) - 1, _PIECE):
        stop = min(start + _PIECE, len(observations) - 1)
        differ = following[start:stop] != observations[start + 1 : stop + 1]
        wrong = differ.reshape(stop - start, -1).any(axis=1) & ~arrays["terminals"][start:stop]
        if wrong.any():
            row = start + int(np.argmax(wrong))
            raise UserError(
                f"{path}: next_observations in row {row} is not the observation of row {row + 1}, "
                "although no episode ends there; set terminals where the episodes end."
            )
    # Row t of episode e moves to t + e, which leaves one free row after each episode.
    last = ends + np.arange(len(ends)) + 1
    wider: dict[str, Array] = {}
    while arrays:  # one at a time, so that only one array is in memory twice
        key, array = arrays.popitem()
        wider[key] = np.insert(array, ends + 1, array[ends], axis=0)
    wider["observations"][last] = following[ends]
    wider["actions"][last] = 0
    wider["terminals"][:] = False
    wider["terminals"][last] = True
    return wider
