"""Datasets by id: load what is local, make what is not, list what there is."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrl_gym.datasets.minari_reader import open_minari
from gcrl_gym.datasets.sources import Source, sources
from gcrl_gym.errors import UserError, nearest

if TYPE_CHECKING:
    import gymnasium as gym
    from minari import MinariDataset


@dataclass(frozen=True)
class DatasetRow:
    """One line of the list of datasets.

    Args:
        id: dataset id.
        source: where it comes from.
        size: megabytes of the local dataset or its source file, None when there is neither.
        local: whether the Minari dataset exists on this machine.
        available: whether `load_dataset` can give it now.
    """

    id: str
    source: str
    size: float | None
    local: bool
    available: bool


def load_dataset(id: str, data_dir: str | Path | None = None) -> MinariDataset:
    """Return the Minari dataset of an id, generating or converting it on first use.

    Args:
        id: ``gcrl/...`` (generated), ``ogbench/...`` (converted from OGBench's file), or the id of
            any local Minari dataset.
        data_dir: folder searched for source files, with its sub-folders ``ogbench`` and ``d4rl``;
            ``$GCRL_DATA_DIR`` when None.

    Raises:
        UserError: an unknown id (naming the nearest), or a source file that is not there (naming
            it and the folders searched).
    """
    local = _minari_root() / id
    if (local / "data" / "metadata.json").is_file():
        return open_minari(local)
    source = next((source for source in sources() if id in source.ids()), None)
    if source is None:
        known = [row.id for row in list_datasets(data_dir)]
        raise UserError(f"Unknown dataset {id!r}.{nearest(id, known)} `gcrl data list` shows all.")
    file = source.file(id)
    if file is None:
        return source.make(id, None)
    path = find_file(file, data_dir)
    if path is None:
        folders = ", ".join(str(folder) for folder in _search_folders(data_dir)) or "nowhere"
        raise UserError(
            f"Dataset {id!r} is made from {file}, which is not found (searched: {folders}); put it "
            "in a folder and name that folder with --data-dir or GCRL_DATA_DIR."
        )
    return source.make(id, path)


def make_env(dataset: MinariDataset, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make the environment a dataset is to be evaluated in (its own where it names no other).

    Raises:
        UserError: the dataset names no environment, or one that cannot be made here.
    """
    import gymnasium as gym

    keywords = {} if render_mode is None else {"render_mode": render_mode}
    try:
        env: gym.Env[Any, Any] = dataset.recover_environment(eval_env=True, **keywords)
    except (gym.error.Error, ImportError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"Cannot make the environment of dataset {dataset.id!r}: {error}. Install its package, "
            "or pass the environment yourself."
        ) from error
    return env


def list_datasets(data_dir: str | Path | None = None) -> list[DatasetRow]:
    """List the datasets that can be named, sorted by id, local Minari datasets included."""
    local = _local_datasets()
    rows = {id: DatasetRow(id, source, size, True, True) for id, (source, size) in local.items()}
    for source in sources():
        for id in source.ids():
            if id not in rows:
                rows[id] = _unmade_row(id, source, data_dir)
    return [rows[id] for id in sorted(rows)]


def find_file(name: str, data_dir: str | Path | None = None) -> Path | None:
    """Return the first source file of that name in the folders searched."""
    candidates = (folder / name for folder in _search_folders(data_dir))
    return next((path for path in candidates if path.is_file()), None)


def _unmade_row(id: str, source: Source, data_dir: str | Path | None) -> DatasetRow:
    file = source.file(id)
    path = find_file(file, data_dir) if file is not None else None
    size = None if path is None else round(path.stat().st_size / 1e6, 1)
    return DatasetRow(id, source.name, size, False, file is None or path is not None)


def _search_folders(data_dir: str | Path | None) -> list[Path]:
    root = data_dir or os.environ.get("GCRL_DATA_DIR")
    if not root:
        return []
    return [Path(root).expanduser() / name for name in ("", "ogbench", "d4rl")]


def _minari_root() -> Path:
    import minari

    root: Path = minari.storage.get_dataset_path()
    return root


def _local_datasets() -> dict[str, tuple[str, float | None]]:
    """Source and megabytes of each local Minari dataset by id; unreadable ones are left out."""
    root, found = _minari_root(), {}
    for path in root.glob("**/data/metadata.json"):
        folder = path.parent.parent.relative_to(root)
        if any(part.startswith(".") for part in folder.parts):
            continue
        try:
            metadata = json.loads(path.read_text())
            found[folder.as_posix()] = (metadata.get("source", "Minari"), metadata["dataset_size"])
        except (ValueError, KeyError, OSError):
            continue
    return found
