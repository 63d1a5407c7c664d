"""Read transitions from a CSV file with a header, one row per step."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from gymnasium import spaces as gym_spaces

from gcrl_gym.datasets.array_checks import LARGEST_ACTION, Spaces
from gcrl_gym.datasets.columns import Array, Columns
from gcrl_gym.datasets.csv_table import LinePlaces, Table, read_cells, read_table
from gcrl_gym.datasets.from_memory import columns_from_arrays
from gcrl_gym.errors import UserError, nearest

Names = Mapping[str, str | Sequence[str]]
Chosen = dict[str, list[str]]

ARRAYS = ("observations", "actions", "next_observations", "achieved_goals", "desired_goals")
"""Parts of any width: by default the columns ``observation_0``, ``observation_1``, .."""

SCALARS = ("rewards", "terminated", "truncated", "episode")
"""Parts of one column: by default ``reward``, ``terminated``, ``truncated``, ``episode``."""

_STEMS = {part.removesuffix("s"): part for part in (*ARRAYS, *SCALARS)}
"""What the default names begin with, and the part they name."""

_ALIASES = {
    "obs": "observation",
    "state": "observation",
    "next_obs": "next_observation",
    "next_state": "next_observation",
    "act": "action",
    "rew": "reward",
    "done": "terminated",
    "terminal": "terminated",
    "termination": "terminated",
    "timeout": "truncated",
    "truncation": "truncated",
    "episode_id": "episode",
    "trajectory": "episode",
    "trajectory_id": "episode",
}
"""Names that other libraries use, and ours for them."""

_CLOSE = 0.85  # likeness from which a name is a misspelling: "next_observation" is no "observation"
_MOST_NAMED = 10


def columns_from_csv(
    path: str | Path, columns: Names | None = None, spaces: Spaces = (None, None)
) -> Columns:
    """Build columns from a CSV file; see `OfflineDataset.from_csv` for the rules.

    Args:
        path: the file; its first line names the columns.
        columns: part -> column or columns of the file, for names other than the default ones.
        spaces: of one observation and one action, where the user gave them.

    Raises:
        UserError: no such file, a column that is missing or misspelt, a cell that is not a number,
            and all of `OfflineDataset.from_arrays`; naming the file and the line.
    """
    table = read_table(Path(path))
    chosen = _chosen(table, columns or {})
    names = list(dict.fromkeys(name for part in chosen.values() for name in part))
    flags = [chosen[part][0] for part in ("terminated", "truncated") if part in chosen]
    values = read_cells(table, names, flags)
    parts = {part: values[:, [names.index(name) for name in own]] for part, own in chosen.items()}
    for part in parts.keys() & set(SCALARS):
        parts[part] = parts[part][:, 0]
    places = LinePlaces(table)
    if _is_discrete(chosen["actions"], spaces):
        parts["actions"] = _as_indices(parts["actions"], chosen["actions"][0], places)
    _end_episodes(parts, table)
    try:
        return columns_from_arrays(
            parts["observations"],
            parts["actions"],
            {name: parts.get(name) for name in ("rewards", "terminated", "truncated")},
            next_observations=parts.get("next_observations"),
            goals={name: parts.get(name) for name in ("achieved_goals", "desired_goals")},
            spaces=spaces,
            places=places,
        )
    except UserError as error:
        if str(error).startswith(str(path)):
            raise
        raise UserError(f"{path}: {error}") from error


def _chosen(table: Table, given: Names) -> Chosen:
    """Columns of the file that make up each part."""
    _require_known(table, given)
    chosen = {}
    for part in (*ARRAYS, *SCALARS):
        names = given.get(part, _default_names(part, table))
        chosen[part] = [names] if isinstance(names, str) else list(names)
        if part in SCALARS and len(chosen[part]) > 1:
            raise UserError(f"columns gives {part!r} {chosen[part]}; it is one column only.")
    used = {name for names in chosen.values() for name in names}
    unused = [name for name in table.header if name and name not in used]
    _refuse_misspelt(table, unused, chosen)
    for part in ("observations", "actions"):
        if not chosen[part]:
            split = " (are its cells separated by commas?)" if len(table.header) == 1 else ""
            raise UserError(
                f"{table.path} has no columns {part[:-1]}_0, {part[:-1]}_1, ..; it has "
                f"{', '.join(table.header[:_MOST_NAMED])}{split}: rename them or pass "
                f"columns={{{part!r}: [names]}}."
            )
    _name_unused(table, unused)
    return {part: names for part, names in chosen.items() if names}


def _require_known(table: Table, given: Names) -> None:
    """Raise for parts that there are not, and columns that the file has not."""
    for part, names in given.items():
        if part not in (*ARRAYS, *SCALARS):
            raise UserError(
                f"columns has no part {part!r}; parts are {', '.join((*ARRAYS, *SCALARS))}."
                f"{nearest(part, (*ARRAYS, *SCALARS))}"
            )
        for name in [names] if isinstance(names, str) else names:
            if name not in table.header:
                raise UserError(
                    f"{table.path} has no column {name!r}.{nearest(name, table.header)}"
                )


def _default_names(part: str, table: Table) -> list[str]:
    stem = part.removesuffix("s")
    if part in SCALARS:
        return [stem] if stem in table.header else []
    found = [name for name in table.header if re.fullmatch(rf"{stem}_\d+", name)]
    found.sort(key=_number_of)
    for number, name in enumerate(found):
        if _number_of(name) != number:
            raise UserError(
                f"{table.path} has the column {name!r} but no '{stem}_{number}'; number the "
                f"columns from 0 without gaps, or pass columns={{{part!r}: [names]}}."
            )
    return found or ([stem] if stem in table.header else [])


def _number_of(name: str) -> int:
    return int(name.rpartition("_")[2])


def _meant(name: str) -> tuple[str, str] | None:
    """Return the part and the default name that a column's name is an odd spelling of."""
    plain = re.sub(r"[\s\-.\[]+", "_", name.strip().lower()).rstrip("]")
    bare = plain.rstrip("0123456789")
    number, stem = plain[len(bare) :], bare.rstrip("_")
    close = difflib.get_close_matches(stem, [*_STEMS, *_ALIASES], n=1, cutoff=_CLOSE)
    if not close:
        return None
    stem = _ALIASES.get(close[0], close[0])
    part = _STEMS[stem]
    return part, f"{stem}_{number}" if number and part in ARRAYS else stem


def _refuse_misspelt(table: Table, unused: list[str], chosen: Chosen) -> None:
    """Raise for a column that seems to be a part which would be missing without it."""
    for name in unused:
        meant = _meant(name)
        if meant is not None and not chosen[meant[0]]:
            part, usual = meant
            raise UserError(
                f"{table.path} has the unknown column {name!r}, perhaps {usual!r}; rename it or "
                f"pass columns={{{part!r}: {name!r}}}."
            )


def _name_unused(table: Table, unused: list[str]) -> None:
    """Warn, in one sentence, of the columns that are not read."""
    if not unused:
        return
    known = [f"{stem}_0" if part in ARRAYS else stem for stem, part in _STEMS.items()]
    named = []
    for name in unused[:_MOST_NAMED]:
        meant = _meant(name)
        close = difflib.get_close_matches(name.lower(), known, n=1)
        usual = meant[1] if meant is not None else close[0] if close else None
        named.append(f"{name!r} (nearest: {usual!r})" if usual else repr(name))
    rest = f" and {len(unused) - _MOST_NAMED} more" if len(unused) > _MOST_NAMED else ""
    warnings.warn(
        f"{table.path} has columns that are not read: {', '.join(named)}{rest}; name them in "
        "columns={..} if they should be.",
        stacklevel=5,  # the caller of OfflineDataset.from_csv
    )


def _is_discrete(names: list[str], spaces: Spaces) -> bool:
    """Whether the actions are discrete: as the space says, else by the name ``action`` alone."""
    if spaces[1] is not None:
        return isinstance(spaces[1], gym_spaces.Discrete) and len(names) == 1
    return names == ["action"]


def _as_indices(values: Array, column: str, places: LinePlaces) -> Array:
    """Return ``(N, 1)`` whole numbers as ``(N,)`` int64; their range is checked later."""
    actions = values[:, 0]
    wrong = np.flatnonzero((actions != np.rint(actions)) | (np.abs(actions) > LARGEST_ACTION))
    if len(wrong):
        raise UserError(
            f"{places.at(column, wrong[0])} is {actions[wrong[0]]:g}; discrete actions are whole "
            f"numbers from 0 to {LARGEST_ACTION} (name the column 'action_0' for continuous ones)."
        )
    return actions.astype(np.int64)


def _end_episodes(parts: dict[str, Array], table: Table) -> None:
    """Turn the episode numbers, where there are any, into the flag of truncation."""
    episode = parts.pop("episode", None)
    if episode is None:
        return
    ends = np.append(episode[1:] != episode[:-1], True)
    last = np.flatnonzero(ends)
    first_time = np.unique(episode[last], return_index=True)[1]
    if len(first_time) != len(last):
        again = int(np.setdiff1d(np.arange(len(last)), first_time)[0])
        row = int(last[again - 1]) + 1
        raise UserError(
            f"{table.line(row)}: episode {episode[row]:g} comes back after another one; sort the "
            "rows by episode and step."
        )
    ends &= parts.get("terminated", np.zeros(len(ends))) != 1
    flags = parts.get("truncated", np.zeros(len(ends)))
    parts["truncated"] = np.where(ends & (flags == 0), 1, flags)
