"""Repaired copies of damaged source files, ``<name>.repaired.<suffix>`` beside them.

What is mended: arrays of different lengths are cut to the shortest known one, episodes with bad
values and episodes too short to have a step are left out, and ends are put where the converters
find them. The copy is read again, and checked, before it gets its name. A file whose episodes
cannot be told apart, or that holds something else than it should, is not repaired.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gcrl_gym.checkpoint import atomic_write
from gcrl_gym.datasets.check_files import d4rl_entry, reader_of
from gcrl_gym.datasets.d4rl_catalog import Entry
from gcrl_gym.datasets.d4rl_reader import D4RLArrays
from gcrl_gym.datasets.episode_bounds import broken_rows
from gcrl_gym.datasets.minari_checks import STATE_INFOS
from gcrl_gym.datasets.ogbench_reader import INFO_KEYS
from gcrl_gym.datasets.repair_table import (
    NEEDED,
    Mask,
    Table,
    kept_rows,
    make_table,
    mark_bad,
    read_flags,
    read_hdf5,
    read_npz,
    write_hdf5,
    write_npz,
)
from gcrl_gym.datasets.signatures import require
from gcrl_gym.errors import UserError

_MOST_BROKEN = 0.1  # share of rows with a wrong next observation: more, and nothing is certain


def repaired_name(path: Path) -> Path:
    """Return the name of the repaired copy of a file, beside it."""
    return path.with_name(f"{path.stem}.repaired{path.suffix}")


def repair_file(
    path: Path, dataset_id: str | None = None, *, overwrite: bool = False
) -> tuple[Path, list[str]]:
    """Write a repaired copy of a source file beside it, ``<name>.repaired.<suffix>``.

    Args:
        path: the file.
        dataset_id: which dataset it is; by default told by its name.
        overwrite: replace an existing copy.

    Returns:
        The copy and one sentence per repair.

    Raises:
        UserError: a file that cannot be read at all, lacks a needed key, has nothing sound or
            nothing to mend, or an existing copy.
    """
    kind = {".h5": ".hdf5"}.get(path.suffix.lower(), path.suffix.lower())
    target, verify = repaired_name(path), reader_of(path, dataset_id)
    if kind not in NEEDED:
        raise UserError(f"{path} cannot be repaired, only .npz and .hdf5 files can; correct it.")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists; delete it, or pass --overwrite to replace it.")
    require(path, kind)
    arrays = read_npz(path) if kind == ".npz" else read_hdf5(path)
    table = make_table(path, kind, arrays)
    if kind == ".npz":
        _mend_npz(table)
    else:
        entry = d4rl_entry(path, dataset_id)
        if entry is None:
            raise table.refuse("its name tells no dataset; say which it is with --id")
        _mend_hdf5(table, entry)
    if not table.done:
        raise UserError(f"There is nothing in {path} that can be repaired.")
    with atomic_write(target) as temporary:
        if kind == ".npz":
            write_npz(table, temporary)
        else:
            write_hdf5(table, temporary)
        try:
            remaining = verify(temporary).defects
        except UserError as error:
            remaining = [_without(temporary, error)]
        if remaining:
            raise table.refuse(f"even in the copy, {remaining[0].rstrip('.')}")
    return target, table.done


def _mend_npz(table: Table) -> None:
    """Leave out bad episodes of an OGBench file, in any of its layouts."""
    rows, terminals = table.rows, read_flags(table, "terminals")
    ends = ~read_flags(table, "valids") if "valids" in rows else terminals.copy()
    if "valids" in rows:
        wrong = terminals != (ends | np.append(ends[1:], terminals[-1]))
        if wrong[:-1].any():
            raise table.refuse(
                f"terminals and valids disagree in row {int(np.argmax(wrong))}; download it again"
            )
    if not ends.any():
        raise table.refuse("terminals ends no episode, so they cannot be told apart")
    regular = "next_observations" in rows
    if not ends[-1]:
        ends[-1] = True
        table.done.append(f"row {len(ends) - 1}, the last, marked as the end of its episode")
    mark_bad(table, ("observations", "actions", "next_observations", *INFO_KEYS))
    if regular and rows["next_observations"].shape == rows["observations"].shape:
        differs = rows["next_observations"][:-1] != rows["observations"][1:]
        wrong = np.append(differs.reshape(len(ends) - 1, -1).any(axis=1), False)
        wrong &= ~ends & ~table.bad & ~np.append(table.bad[1:], False)
        if wrong.any():
            table.bad |= wrong
            table.done.append(
                "episodes in which next_observations is not the next row left out, first row "
                f"{int(np.argmax(wrong))}"
            )
    keep = kept_rows(table, ends, np.full(len(ends), not regular))
    dtype = rows["terminals"].dtype
    if rows["terminals"].ndim > 1:
        table.done.append(f"terminals reshaped from {rows['terminals'].shape} to one axis")
    if "valids" in rows and not regular:
        rows["valids"] = (~ends).astype(rows["valids"].dtype)
        ends = ends | np.append(ends[1:], False)
    rows["terminals"] = ends.astype(dtype)
    table.rows = {key: array[keep] for key, array in rows.items()}


def _mend_hdf5(table: Table, entry: Entry) -> None:
    """Leave out bad episodes of a D4RL file and put its ends where the converter finds them."""
    rows, family = table.rows, entry.family
    for key in ("observations", "actions", "next_observations"):
        if key in rows and rows[key].ndim != 2:
            raise table.refuse(f"{key} has shape {rows[key].shape}; expected (rows, width)")
    following = rows.get("next_observations", rows["observations"])
    if following.shape != rows["observations"].shape:
        del rows["next_observations"]
        table.left_out.add("next_observations")
        table.done.append(f"next_observations left out: it has shape {following.shape}")
    infos = tuple(key for key in rows if key.removeprefix("infos/") in STATE_INFOS)
    flags: dict[str, Mask] = {
        key: read_flags(table, key) for key in ("terminals", "timeouts") if key in rows
    }
    mark_bad(table, ("observations", "actions", "rewards", "next_observations", *infos))
    if not family.ends:
        flags = _longest_stretch(table, flags)
        rows = table.rows
    ends, terminated = _converted_ends(table, entry, flags)
    alone = ~(ends & terminated) if "next_observations" not in rows else np.zeros(len(ends), bool)
    keep = kept_rows(table, _closed(ends), alone)
    for key, mended in _new_flags(entry, flags, ends, terminated).items():
        stored = rows.get(key)
        dtype = rows["terminals"].dtype if stored is None else stored.dtype
        changed = mended != flags.get(key, np.zeros(len(mended), bool))
        if stored is None and mended.any():
            table.done.append(f"timeouts, which the file lacks, set in {_count(mended)}")
        elif changed.any():
            table.done.append(
                f"{key} changed in {_count(changed)}, first row {int(np.argmax(changed))}"
            )
        shape = (len(mended),) if stored is None else stored.shape
        rows[key] = mended.astype(dtype).reshape(shape)
    table.rows = {key: array[keep] for key, array in rows.items()}


def _count(rows: Mask) -> str:
    number = int(rows.sum())
    return f"{number} row{'s' if number != 1 else ''}"


def _closed(ends: Mask) -> Mask:
    closed = ends.copy()
    closed[-1] = True
    return closed


def _longest_stretch(table: Table, flags: dict[str, Mask]) -> dict[str, Mask]:
    """Keep the longest run of good rows of a file whose episodes have no ends (maze2d).

    Without its bad rows it would be two runs, between which nothing marks the gap.
    """
    if not table.bad.any():
        return flags
    edges = np.flatnonzero(np.concatenate(([True], table.bad, [True])))
    place = int(np.argmax(np.diff(edges)))
    kept = slice(int(edges[place]), int(edges[place + 1]) - 1)
    if kept.stop - kept.start < 2:
        raise table.refuse("no two rows in a row are sound")
    table.done = [text.replace("episodes with", "rows with") for text in table.done]
    table.done.append(f"only rows {kept.start} to {kept.stop - 1} kept, the longest sound stretch")
    table.rows = {key: array[kept] for key, array in table.rows.items()}
    table.bad = table.bad[kept]
    return {key: array[kept] for key, array in flags.items()}


def _converted_ends(table: Table, entry: Entry, flags: Mapping[str, Mask]) -> tuple[Mask, Mask]:
    """Return the rows that the converter takes for ends, and whether they are terminated."""
    from gcrl_gym.datasets.d4rl_io import episode_bounds

    rows, count = table.rows, len(table.bad)
    if table.bad.all():
        raise table.refuse("no episode is sound")
    try:
        bounds = episode_bounds(table.path, entry, _filled(table, flags))
    except UserError as error:
        if "next_observations" not in rows:
            raise table.refuse(_without(table.path, error)) from error
        _mark_broken(table, flags)
        try:
            bounds = episode_bounds(table.path, entry, _filled(table, flags))
        except UserError as again:
            raise table.refuse(_without(table.path, again)) from again
    table.done += bounds.repaired
    ends, terminated = np.zeros(count, bool), np.zeros(count, bool)
    ends[bounds.stops - 1] = True
    terminated[bounds.stops - 1] = bounds.terminated
    if entry.family.ends and not ends[-1]:
        ends[-1] = True
        table.done.append(f"row {count - 1}, the last, marked as the end of its episode")
    return ends, terminated


def _filled(table: Table, flags: Mapping[str, Mask]) -> D4RLArrays:
    """Return the arrays with bad rows like the good row before them, so that they are no jumps."""
    rows, bad = table.rows, table.bad
    first = int(np.argmin(bad))
    source = np.maximum.accumulate(np.where(bad, first, np.arange(len(bad))))
    observations = rows["observations"][source]
    following = rows.get("next_observations")
    if following is not None:
        following = following.copy()
        near = np.flatnonzero(bad | np.append(bad[1:], False))
        following[near] = observations[np.minimum(near + 1, len(bad) - 1)]
    return D4RLArrays(
        table.path.name, observations, rows["actions"], np.ravel(rows["rewards"]),
        flags["terminals"], flags.get("timeouts"), following, {}, (),
    )  # fmt: skip


def _mark_broken(table: Table, flags: Mapping[str, Mask]) -> None:
    """Mark the rows whose next observation is that of another row; which is wrong, nobody knows."""
    arrays = _filled(table, flags)
    assert arrays.next_observations is not None
    broken = broken_rows(arrays.observations, arrays.next_observations)
    for flag in flags.values():
        broken &= ~flag
    if broken.mean() > _MOST_BROKEN:
        raise table.refuse(
            f"next_observations is not the next row in {int(broken.sum())} rows where no episode "
            "ends, and neither array can be trusted; download it again"
        )
    table.bad |= broken
    if broken.any():
        table.done.append(
            "episodes in which next_observations is not the next row left out, first row "
            f"{int(np.argmax(broken))}"
        )


def _without(path: Path, error: UserError) -> str:
    """Return what an error says of a file, which itself goes without saying."""
    text = str(error).replace(f"{path}: ", "").replace(f"{path.name}: ", "")
    return text.replace(str(path), "it").rstrip(".")


def _new_flags(
    entry: Entry, flags: Mapping[str, Mask], ends: Mask, terminated: Mask
) -> dict[str, Mask]:
    """Return the flags that tell these ends; those of other meaning stay as they are."""
    if not entry.family.ends:  # maze2d: timeouts are changes of the goal
        return dict(flags)
    if "terminals" not in entry.family.ends:  # antmaze: terminals mark success
        return {"terminals": flags["terminals"], "timeouts": ends}
    return {"terminals": ends & terminated, "timeouts": ends & ~terminated}
