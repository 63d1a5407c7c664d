"""The episodes of a Minari dataset one by one, where some of them may be damaged.

Minari's own iteration stops at the first one it cannot read. Here such an episode is yielded as
`Broken`, with a sentence that says why, and the others follow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrl_gym.datasets.minari_checks import leaf_spaces
from gcrl_gym.datasets.signatures import HEAD_BYTES, looks_like

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.dataset.episode_data import EpisodeData

_SIGNATURES = {"arrow": b"ARROW1", "parquet": b"PAR1"}


@dataclass(frozen=True)
class Broken:
    """An episode that cannot be read.

    Args:
        reason: why, to follow the name of the episode and a colon.
    """

    reason: str


def each_episode(
    dataset: MinariDataset, indices: Sequence[int] | None = None
) -> Iterator[tuple[int, EpisodeData | Broken]]:
    """Yield ``(index, episode)``.

    Args:
        dataset: the dataset.
        indices: which episodes, by default those of the dataset.
    """
    left = [int(index) for index in (dataset.episode_indices if indices is None else indices)]
    one_file = is_hdf5(dataset)
    while left:
        # Files of one episode are read one by one: Minari pairs batches, of which a file without
        # rows has none, with episodes.
        part = left if one_file else left[:1]
        done = 0
        try:
            for episode in dataset.iterate_episodes(part):
                if not one_file:
                    _require_length(dataset, part[0], episode)
                yield part[done], episode
                done += 1
            if done < len(part):
                yield part[done], Broken(why_unreadable(dataset, part[done], "it holds no rows"))
                done += 1
        except Exception as error:  # of any kind: Minari asserts, h5py and pyarrow have their own
            yield part[done], Broken(why_unreadable(dataset, part[done], error))
            done += 1
        left = left[done:]


def is_hdf5(dataset: MinariDataset) -> bool:
    """Return whether all episodes are in one HDF5 file."""
    return bool(dataset.storage.FORMAT == "hdf5")


def data_file(dataset: MinariDataset) -> Path:
    """Return the HDF5 file of a dataset."""
    return Path(dataset.storage.data_path) / "main_data.hdf5"


def place_of(dataset: MinariDataset, index: int) -> str:
    """Return where an episode is, for messages."""
    if is_hdf5(dataset):
        return f"{data_file(dataset)} episode_{index}"
    return f"{dataset.storage.data_path} episode {index}"


def stored_indices(dataset: MinariDataset) -> list[int]:
    """Return the episodes that the files hold, whatever the metadata say."""
    if is_hdf5(dataset):
        import h5py

        with h5py.File(data_file(dataset), "r") as file:
            names = [name.removeprefix("episode_") for name in file if name.startswith("episode_")]
    else:
        names = [path.name for path in Path(dataset.storage.data_path).iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def why_unreadable(dataset: MinariDataset, index: int, error: Exception | str) -> str:
    """Say why reading an episode failed with ``error``, by looking at what is there."""
    try:
        found = _hdf5_reason if is_hdf5(dataset) else _file_reason
        reason = found(dataset, index)
    except Exception:  # what cannot be read cannot always be looked at either
        reason = None
    if reason is not None:
        return reason
    if isinstance(error, str):
        return error
    text = " ".join(str(error).split())
    return text if isinstance(error, _Wrong) else f"it cannot be read ({text or type(error)})"


class _Wrong(Exception):
    """A defect that is found while reading; its text is the reason."""


def _hdf5_reason(dataset: MinariDataset, index: int) -> str | None:
    import h5py

    with h5py.File(data_file(dataset), "r") as file:
        group = file.get(f"episode_{index}")
        if group is None:
            return "it does not exist, although metadata.json counts it"
        if not isinstance(group, h5py.Group):
            return "it is an array; expected a group"
        for key in leaf_spaces(dataset.observation_space, dataset.action_space):
            item = _follow(group, key)
            if item is None:
                return f"it has no {key!r}"
            if isinstance(item, h5py.Group):
                return f"{key} is a group; expected an array"
            if not item.shape:
                return f"{key} is a single value; expected a row per step"
        if not isinstance(group.get("infos", file), h5py.Group):
            return "infos is an array; expected a group"
    return None


def _follow(group: Any, key: str) -> Any:
    """Return what is at a path, None where there is nothing."""
    for name in key.split("/"):
        if not hasattr(group, "keys"):
            return None
        group = group.get(name)
    return group


def _file_reason(dataset: MinariDataset, index: int) -> str | None:
    import pyarrow.dataset  # type: ignore[import-untyped]

    kind = dataset.storage.FORMAT
    folder = Path(dataset.storage.data_path) / str(index)
    if not folder.is_dir():
        return f"its folder data/{index} does not exist"
    files = sorted(folder.glob(f"*.{kind}"))
    if not files:
        return f"its folder data/{index} holds no .{kind} file"
    for path in files:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
        if not head.startswith(_SIGNATURES[kind]):
            return f"data/{index}/{path.name} is {looks_like(head)}, not a file of format {kind}"
        try:
            names = pyarrow.dataset.dataset(path, format=kind).schema.names
        except (pyarrow.ArrowException, OSError):
            return f"data/{index}/{path.name} is damaged or incomplete"
        for key in ("observations", "actions", "rewards", "terminations", "truncations"):
            if key not in names:
                return f"it has no {key!r}"
    if pyarrow.dataset.dataset(files, format=kind).count_rows() == 0:
        return "it holds no rows"
    return None


def _require_length(dataset: MinariDataset, index: int, episode: EpisodeData) -> None:
    """Compare with the length that the file beside an episode tells; it may be missing."""
    path = Path(dataset.storage.data_path) / str(index) / "metadata.json"
    try:
        steps = json.loads(path.read_text())["total_steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if steps != len(episode.rewards):
        raise _Wrong(
            f"it has {len(episode.rewards)} steps, but data/{index}/{path.name} says {steps}"
        )
