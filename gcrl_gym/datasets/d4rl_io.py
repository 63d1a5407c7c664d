"""D4RL's HDF5 files to Minari datasets; neither D4RL nor a simulator is needed.

What ends an episode, besides jumps of the state (see episode_bounds.py):

============  ================================  ===========================================
family        an episode ends at                terminations
============  ================================  ===========================================
locomotion    terminals and timeouts            terminals: the body fell
maze2d        nothing: timeouts mark a new      none
              goal, the body goes on; one
              episode per uninterrupted run
antmaze       timeouts                          terminals: success, while the episode goes on
kitchen       terminals                         terminals
adroit        timeouts (and terminals)          terminals: never set in the published files
============  ================================  ===========================================

The last state of an episode follows the rule of `OfflineDataset.from_arrays`: with
``next_observations`` it is known; without, the last row of a truncated episode becomes its last
state and loses its action, and the state of a terminated one is repeated, which no bootstrap reads.
Rewards and infos stay as stored; conventions such as r - 1 are in rewards.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from gymnasium import spaces

from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.d4rl_cards import CARDS
from gcrl_gym.datasets.d4rl_catalog import Entry, dataset_ids, entry_of, entry_of_file
from gcrl_gym.datasets.d4rl_envs import evaluation_spec
from gcrl_gym.datasets.d4rl_reader import D4RLArrays, read_d4rl
from gcrl_gym.datasets.episode_bounds import Bounds, broken_rows, find_bounds, state_jumps
from gcrl_gym.datasets.finite import first_bad_row, require_finite
from gcrl_gym.datasets.minari_io import versions, write_minari
from gcrl_gym.datasets.report import ReportBuilder
from gcrl_gym.datasets.scores import reference_scores
from gcrl_gym.datasets.sources import Source
from gcrl_gym.errors import UserError
from gcrl_gym.progress import with_progress

if TYPE_CHECKING:
    import gymnasium as gym
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

OpenTail = Literal["keep", "drop"]

_MOST_BROKEN = 0.1  # share of rows that may be followed by another state than they say


def convert_d4rl(
    path: str | Path,
    dataset_id: str | None = None,
    *,
    goals: bool = False,
    open_tail: OpenTail = "keep",
    overwrite: bool = False,
) -> MinariDataset:
    """Convert a D4RL file to a Minari dataset.

    ``infos/*`` become infos; where the last state of an episode has none, the row before is
    repeated. The conversion report is kept in the metadata as ``report``.

    Args:
        path: the file.
        dataset_id: id to write, which also tells the family; from the file's name when None.
        goals: antmaze and maze2d: Dict observations with ``achieved_goal`` (x, y) and
            ``desired_goal`` (``infos/goal``), as for ids with ``-goal``.
        open_tail: what becomes of the rows after the last end: an episode that is truncated where
            the file ends (two rows at least), or nothing. maze2d has no ends and keeps them.
        overwrite: replace an existing dataset.

    Raises:
        UserError: a missing, damaged or foreign file, naming key and row, a file without episode
            ends, or an existing id.
    """
    path = Path(path)
    if open_tail not in get_args(OpenTail):
        raise UserError(f"open_tail is {open_tail!r}; choose 'keep' or 'drop'.")
    entry = _entry(path, dataset_id, goals)
    arrays = read_d4rl(path)
    check_fits(path, entry, arrays)
    bounds = episode_bounds(path, entry, arrays)
    report = ReportBuilder(path.name, _checksum(path))
    published = entry.remote.sha256
    report.official = None if published is None else report.source_sha256 == published
    report.repaired += bounds.repaired
    report.repaired += _bad_infos(arrays)
    plan = _plan(entry, arrays, bounds, open_tail, report)
    if not len(plan.starts):
        raise UserError(f"{path}: no episode has two rows; download the file again.")
    low, high = reference_scores(entry.name)
    spec, sentence = evaluation_spec(entry, arrays.observations)
    observation_space, action_space = _spaces(entry, arrays)
    return write_minari(
        entry.dataset_id,
        _episodes(entry, arrays, plan),
        observation_space=observation_space,
        action_space=action_space,
        env_spec=spec,
        metadata={
            "source": "d4rl",
            "source_file": path.name,
            "source_sha256": report.source_sha256,
            "official": report.official,
            "family": entry.family.name,
            "horizon": entry.horizon,
            "evaluation": sentence,
            "ref_min_score": low,
            "ref_max_score": high,
            "versions": versions("h5py", "gymnasium-robotics", "mujoco"),
        },
        overwrite=overwrite,
        report=report,
    )


def episode_bounds(path: Path, entry: Entry, arrays: D4RLArrays) -> Bounds:
    """Find the episodes of a file by the rules of its family.

    Args:
        path: the file, for messages.
        entry: which dataset it is.
        arrays: what it holds.

    Raises:
        UserError: next observations that belong to other rows, or no ends at all.
    """
    family, never = entry.family, np.zeros(len(arrays.rewards), bool)
    terminals = arrays.terminals if "terminals" in family.ends else never
    timeouts = arrays.timeouts if "timeouts" in family.ends else None
    if arrays.next_observations is None:
        jumps = state_jumps(arrays.observations, family.positions)
    else:
        jumps = broken_rows(arrays.observations, arrays.next_observations)
        flagged = terminals if timeouts is None else terminals | timeouts
        _check_next(path, arrays, family.positions, np.flatnonzero(jumps & ~flagged))
    limit = family.limit if arrays.timeouts is None else None
    bounds = find_bounds(terminals, never if timeouts is None else timeouts, jumps, limit=limit)
    if family.ends and not len(bounds.stops):
        raise UserError(
            f"{path}: {' and '.join(family.ends)} are 0 (or missing) in all {len(never)} rows and "
            "the state never jumps, so no episode ends; set timeouts to 1 on the last row of each "
            "episode."
        )
    return bounds


def _entry(path: Path, dataset_id: str | None, goals: bool) -> Entry:
    """Which dataset is asked for."""
    if dataset_id is None:
        return entry_of_file(path, goals=goals)
    entry = entry_of(dataset_id)
    if goals and not entry.goals:
        name, _, version = dataset_id.rpartition("-")
        return entry_of(f"{name}-goal-{version}")
    return entry


def check_fits(path: Path, entry: Entry, arrays: D4RLArrays) -> None:
    """Check the widths against the family, and the goals where they are needed."""
    for key, width in zip(("observations", "actions"), entry.family.widths):
        found = getattr(arrays, key).shape[1]
        if found != width:
            raise UserError(
                f"{path}: {key} is {found} wide, but {entry.env} has {width}; the file belongs to "
                "another dataset."
            )
    if not entry.goals:
        return
    goal = arrays.infos.get("goal")
    if goal is None or goal.shape[1:] != (2,) or goal.dtype.kind != "f":
        found = "missing" if goal is None else f"{goal.dtype} of shape {goal.shape}"
        raise UserError(
            f"{path}: infos/goal is {found}; expected floats of shape (N, 2), which "
            f"{entry.dataset_id!r} is made from: convert without goals."
        )
    require_finite(path, "infos/goal", goal)


def _bad_infos(arrays: D4RLArrays) -> list[str]:
    """Say which infos hold bad values; they are carried along, and no agent trains on them."""
    rows = {key: first_bad_row(array) for key, array in arrays.infos.items()}
    return [
        f"infos/{key} holds NaN or infinity (first: row {row}): kept as stored"
        for key, row in rows.items()
        if row is not None
    ]


def _check_next(path: Path, arrays: D4RLArrays, positions: int, rows: Array) -> None:
    """Refuse next observations that are wrong; a few that are not may be ends without a flag.

    Where an episode really ends, the next observation is near the row and the following row, a
    new start, is far; where the next observation is wrong, it is the other way round.

    Args:
        path: the file, for messages.
        arrays: what it holds.
        positions: how many leading columns are positions.
        rows: rows without a flag whose next observation is not that of the next row.
    """
    if not len(rows):
        return
    following = arrays.next_observations
    assert following is not None
    states = arrays.observations[:, :positions].astype(np.float64)
    scale = np.median(np.abs(np.diff(states, axis=0)), axis=0)
    scale[scale == 0] = np.inf  # columns that rest half of the time tell nothing
    told = np.linalg.norm((following[rows, :positions] - states[rows]) / scale, axis=1)
    really = np.linalg.norm((states[rows + 1] - states[rows]) / scale, axis=1)
    wrong = rows[told > really]
    if len(rows) > _MOST_BROKEN * len(states):
        wrong = rows
    if len(wrong):
        raise UserError(
            f"{path}: next_observations in row {wrong[0]} is not the observation of row "
            f"{wrong[0] + 1} ({len(wrong)} such rows), although no episode ends there; "
            "the array belongs to another file, is shifted or damaged: remove or repair it."
        )


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Plan:
    """Rows of the episodes to write: first row, row after the last, whether it is terminated."""

    starts: Array
    stops: Array
    terminated: Array


def _plan(
    entry: Entry, arrays: D4RLArrays, bounds: Bounds, open_tail: OpenTail, report: ReportBuilder
) -> _Plan:
    """Decide which rows become episodes, and say what is left out."""
    rows, known = len(arrays.rewards), arrays.next_observations is not None
    starts, stops, terminated = bounds.starts, bounds.stops, bounds.terminated
    left = rows - bounds.tail
    if left:
        text = f"the file ends in the middle of an episode: its {left} rows (from {bounds.tail})"
        if left >= 2 and (open_tail == "keep" or not entry.family.ends):
            starts, stops = np.append(starts, bounds.tail), np.append(stops, rows)
            terminated = np.append(terminated, False)
            if entry.family.ends:
                report.repaired.append(f"{text} are kept as a truncated one")
        else:
            report.dropped.append(text)
    short = (stops - starts < 2) & ~terminated & (not known)
    if short.any():
        report.dropped.append(
            f"{int(short.sum())} episodes of a single row (first: {starts[short][0]}), whose next "
            "state is unknown"
        )
    plan = _Plan(starts[~short], stops[~short], terminated[~short])
    if not known:
        _report_last_rows(entry, arrays, plan, report)
    if arrays.unread:
        report.dropped.append(f"keys that are no rows: {', '.join(arrays.unread)}")
    return plan


def _report_last_rows(entry: Entry, arrays: D4RLArrays, plan: _Plan, report: ReportBuilder) -> None:
    """Say what happens to the last rows where the states that follow them are not stored."""
    ended, cut = int(plan.terminated.sum()), plan.stops[~plan.terminated] - 1
    if len(cut):
        text = f"the action and reward in the last row of {len(cut)} truncated episodes: that row "
        text += "becomes the last state"
        marks = int(arrays.terminals[cut].sum())
        if entry.family.success_marks and marks:
            text += f" ({marks} of them carried a success mark)"
        report.dropped.append(text)
    if ended:
        report.dropped.append(
            f"nothing of {ended} terminated episodes, but their last state is not stored: the one "
            "before stands in for it"
        )


def _spaces(entry: Entry, arrays: D4RLArrays) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Spaces of the stored observations and actions."""
    dtype, width = arrays.observations.dtype.type, arrays.observations.shape[1:]
    box: gym.Space[Any] = spaces.Box(-np.inf, np.inf, width, dtype)
    if entry.goals:
        goal = spaces.Box(-np.inf, np.inf, (2,), dtype)
        box = spaces.Dict({"observation": box, "achieved_goal": goal, "desired_goal": goal})
    return box, spaces.Box(-1.0, 1.0, arrays.actions.shape[1:], arrays.actions.dtype.type)


def _episodes(entry: Entry, arrays: D4RLArrays, plan: _Plan) -> Iterator[EpisodeBuffer]:
    """Yield the episodes, with a progress bar when that takes long."""
    from minari.data_collector import EpisodeBuffer

    following = arrays.next_observations
    places = list(zip(plan.starts, plan.stops, plan.terminated))
    for start, stop, terminated in with_progress(places, f"Converting {arrays.name}"):
        extra = terminated or following is not None  # states have a row more than the file
        steps = slice(start, stop if extra else stop - 1)
        # Rows of the states; the last one is repeated where the file has none for it.
        states = np.arange(start, stop + extra).clip(max=stop - 1)
        observations: Any = arrays.observations[states]
        if following is not None:
            observations[-1] = following[stop - 1]
        if entry.goals:
            observations = {
                "observation": observations,
                "achieved_goal": observations[:, :2].copy(),
                "desired_goal": arrays.infos["goal"][states].astype(observations.dtype),
            }
        terminations = np.zeros(steps.stop - start, bool)
        if entry.family.success_marks:
            terminations[:] = arrays.terminals[steps]
        truncations = np.zeros_like(terminations)
        (terminations if terminated else truncations)[-1] = True
        yield EpisodeBuffer(
            observations=observations,
            actions=arrays.actions[steps].copy(),
            rewards=arrays.rewards[steps].copy(),
            terminations=terminations,
            truncations=truncations,
            infos={key: array[states] for key, array in arrays.infos.items()} or None,
        )


def _make(dataset_id: str, path: Path | None, overwrite: bool) -> MinariDataset:
    return convert_d4rl(path or "", dataset_id, overwrite=overwrite)


SOURCE = Source(
    "d4rl",
    ids=dataset_ids,
    file=lambda dataset_id: entry_of(dataset_id).file,
    make=_make,
    remote=lambda dataset_id: entry_of(dataset_id).remote,
    cards=CARDS,
)
