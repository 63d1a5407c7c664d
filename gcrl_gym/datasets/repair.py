"""Repaired copies of damaged data: what is broken is left out or mended, the original stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gcrl_gym.checkpoint import atomic_write
from gcrl_gym.datasets.columns import Array
from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    from minari import MinariDataset

Mask = npt.NDArray[np.bool_]


def repaired_name(path: Path) -> Path:
    """Return the name of the repaired copy of a file, beside it."""
    return path.with_name(f"{path.stem}.repaired{path.suffix}")


def repair_minari(dataset: MinariDataset) -> tuple[MinariDataset, list[str]]:
    """Write the sound episodes of a Minari dataset as ``<name>-repaired-vN``.

    Returns:
        The new dataset and one sentence per thing that was done.

    Raises:
        UserError: no episode is sound, or the repaired dataset exists.
    """
    from gcrl_gym.datasets.check import episode_defects
    from gcrl_gym.datasets.minari_io import write_minari

    metadata = dict(dataset.storage.metadata)
    state_only = bool(metadata.get("state_only"))
    sound, dropped = [], []
    for episode in dataset.iterate_episodes():
        broken = next(episode_defects(episode, state_only), None)
        if broken is None:
            sound.append(_as_buffer(episode))
        else:
            dropped.append(f"episode {episode.id} left out: {broken}")
    if not sound:
        raise UserError(f"No episode of {dataset.id!r} is sound; nothing to repair it from.")
    name, _, version = str(dataset.id).rpartition("-v")
    # The rest, the evaluation environment among it, is kept as it is.
    own = {"total_steps", "total_episodes", "dataset_id", "dataset_size", "data_format"}
    own |= {"observation_space", "action_space", "env_spec"}
    written = write_minari(
        f"{name}-repaired-v{version}",
        sound,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        env_spec=dataset.env_spec,
        metadata={k: v for k, v in metadata.items() if k not in own}
        | {"repaired_from": str(dataset.id), "repairs": dropped},
    )
    return written, dropped


def _as_buffer(episode: Any) -> Any:
    from minari.data_collector import EpisodeBuffer

    return EpisodeBuffer(
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=episode.terminations,
        truncations=episode.truncations,
        infos=episode.infos or None,
    )


def repair_rows(
    arrays: Mapping[str, Array], find_ends: Callable[[Mapping[str, Array]], Mask]
) -> tuple[dict[str, Array], Mask, list[str]]:
    """Mend flat row arrays: equal lengths, finite rows, whole episodes of two rows or more.

    Args:
        arrays: arrays with one row per state, of which some may be cut short.
        find_ends: returns for each row of equally long arrays whether an episode ends there.

    Returns:
        The mended arrays, the rows of them that end an episode, and one sentence per repair.

    Raises:
        UserError: nothing is left.
    """
    done = []
    rows = min(len(array) for array in arrays.values())
    longer = sorted(name for name, array in arrays.items() if len(array) != rows)
    if longer:
        done.append(f"{', '.join(longer)} cut to {rows} rows, the length of the shortest key")
    kept = {name: array[:rows] for name, array in arrays.items()}
    ends = find_ends(kept).copy()
    if not ends[-1]:
        ends[-1] = True
        done.append(f"row {rows - 1}, the last, marked as the end of its episode")
    episode: npt.NDArray[np.int64] = np.cumsum(ends) - ends
    sound = np.ones(int(episode[-1]) + 1, bool)
    for name, array in kept.items():
        if array.dtype.kind == "f":
            bad = ~np.isfinite(array).reshape(rows, -1).all(axis=1)
            if bad.any():
                sound[np.unique(episode[bad])] = False
                row = int(np.argmax(bad))
                done.append(f"episodes with NaN or infinity in {name} left out, first row {row}")
    short = np.bincount(episode) < 2
    if short.any():
        sound &= ~short
        done.append(f"{int(short.sum())} episodes of a single row left out")
    keep = sound[episode]
    if not keep.any():
        raise UserError("No episode is sound; nothing to repair the file from.")
    return {name: array[keep] for name, array in kept.items()}, ends[keep], done


def repair_file(path: Path) -> tuple[Path, list[str]]:
    """Write a repaired copy of a source file beside it, ``<name>.repaired.<suffix>``.

    Returns:
        The copy and one sentence per repair.

    Raises:
        UserError: a file that cannot be read at all, lacks a needed key, or has nothing sound.
    """
    repairs = {".npz": repair_npz, ".hdf5": repair_hdf5, ".h5": repair_hdf5}
    if path.suffix not in repairs:
        raise UserError(f"{path} cannot be repaired; only {', '.join(repairs)} files can.")
    return repairs[path.suffix](path)


def repair_npz(path: Path) -> tuple[Path, list[str]]:
    """Repair an OGBench file; see `repair_file`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive}
    except Exception as error:
        raise UserError(f"{path} cannot be repaired: {error}; download it again.") from error
    _require(path, arrays, ("observations", "actions", "terminals"))
    fixed, ends, done = repair_rows(arrays, lambda rows: rows["terminals"] > 0)
    fixed["terminals"] = ends.astype(arrays["terminals"].dtype)
    target = repaired_name(path)
    with atomic_write(target) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **fixed)  # type: ignore[arg-type]
    return target, done


def repair_hdf5(path: Path) -> tuple[Path, list[str]]:
    """Repair a D4RL file; see `repair_file`. Ends are also put where the state jumps."""
    import h5py

    from gcrl_gym.datasets.d4rl_catalog import entry_of_file
    from gcrl_gym.datasets.episode_bounds import find_bounds

    family = entry_of_file(path).family
    try:
        with h5py.File(path, "r") as file:
            arrays = _row_arrays(file)
    except Exception as error:
        raise UserError(f"{path} cannot be repaired: {error}; download it again.") from error
    _require(path, arrays, ("observations", "actions", "rewards", "terminals"))
    notes: list[str] = []

    def find_ends(rows: Mapping[str, Array]) -> Mask:
        never = np.zeros(len(rows["rewards"]), bool)
        flags = {key: rows[key].reshape(-1) > 0 for key in family.ends if key in rows}
        bounds = find_bounds(
            flags.get("terminals", never),
            flags.get("timeouts", never),
            _jumps(rows["observations"], family.positions),
        )
        notes.extend(bounds.repaired)
        never[bounds.stops - 1] = True
        return never

    fixed, ends, done = repair_rows(arrays, find_ends)
    terminals = fixed["terminals"].reshape(-1) > 0 if "terminals" in family.ends else ~ends
    timeouts = arrays.get("timeouts", fixed["terminals"])
    fixed["timeouts"] = (ends & ~terminals).astype(timeouts.dtype)
    target = repaired_name(path)
    with atomic_write(target) as temporary, h5py.File(temporary, "w") as file:
        for name, array in fixed.items():
            file.create_dataset(name, data=array, compression="gzip")
    return target, [*notes, *done]


def _jumps(observations: Array, positions: int) -> Mask:
    """Find jumps between finite rows; a bad value is no reset."""
    from gcrl_gym.datasets.episode_bounds import state_jumps

    finite = np.asarray(np.isfinite(observations).all(axis=1))
    follows = np.append(finite[1:], False)
    jumps: Mask = state_jumps(np.nan_to_num(observations), positions) & finite & follows
    return jumps


def _row_arrays(file: Any) -> dict[str, Array]:
    """Arrays of an HDF5 file with a row per step, by path; weights of policies are none."""
    found: dict[str, Array] = {}

    def visit(name: str, item: Any) -> None:
        if hasattr(item, "shape") and item.ndim > 0 and not name.startswith("metadata/"):
            found[name] = item[()]

    file.visititems(visit)
    return found


def _require(path: Path, arrays: Mapping[str, Array], keys: tuple[str, ...]) -> None:
    missing = sorted(set(keys) - set(arrays))
    if missing:
        raise UserError(f"{path} cannot be repaired: it has no {missing}; download it again.")
