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
        size: megabytes of the local dataset or its source file (as published, where it is not
            here), None when unknown.
        local: whether the Minari dataset exists on this machine.
        available: whether `load_dataset` can give it now, without a download.
        downloadable: whether its source file can be downloaded.
    """

    id: str
    source: str
    size: float | None
    local: bool
    available: bool
    downloadable: bool = False


def load_dataset(id: str, data_dir: str | Path | None = None) -> MinariDataset:
    """Return the Minari dataset of an id; generated, or downloaded and converted on first use.

    A source file that is not in the folders searched is downloaded, where it is published.

    Args:
        id: ``gcrl/...`` (generated), ``ogbench/...`` or ``d4rl/...`` (converted from the published
            file), or the id of any local Minari dataset.
        data_dir: folder searched for source files, with its sub-folders ``ogbench`` and ``d4rl``;
            ``$GCRL_DATA_DIR`` when None. ``~/.gcrl_gym/data`` is searched after it.

    Raises:
        UserError: an unknown id (naming the nearest), or a source file that is not there (naming
            it and the folders searched) and cannot be downloaded (saying why).
    """
    local = _minari_root() / id
    if (local / "data" / "metadata.json").is_file():
        return open_minari(local)
    source = _source_of(id, data_dir)
    if source.file(id) is None:
        return source.make(id, None, False)
    return source.make(id, fetch_file(id, data_dir), False)


def fetch_file(
    id: str,
    data_dir: str | Path | None = None,
    *,
    offline: bool | None = None,
    accept_other_bytes: bool = False,
) -> Path:
    """Return the source file of a dataset, downloading it where it is not in the folders searched.

    Args:
        id: dataset id.
        data_dir: folder searched, and downloaded to where it can be written, as `load_dataset`'s.
        offline: fail instead of downloading; by default where GCRL_OFFLINE is set.
        accept_other_bytes: warn, instead of failing, where the file is not the published one.

    Raises:
        UserError: an unknown id, a generated dataset, or a file that cannot be had.
    """
    source = _source_of(id, data_dir)
    file = source.file(id)
    if file is None:
        raise UserError(f"Dataset {id!r} is not made from a file; load_dataset generates it.")
    path = find_file(file, data_dir)
    if path is not None:
        return path
    remote = source.remote(id)
    if remote is None:
        folders = ", ".join(str(folder) for folder in _search_folders(data_dir))
        raise UserError(
            f"Dataset {id!r} is made from {file}, which is not found (searched: {folders}); put it "
            "in a folder and name that folder with --data-dir or GCRL_DATA_DIR."
        )
    from gcrl_gym.datasets.download import download

    return download(
        remote.urls,
        _download_folder(id, data_dir) / file,
        size=remote.size,
        sha256=remote.sha256,
        offline=offline,
        accept_other_bytes=accept_other_bytes,
    )


def make_env(dataset: MinariDataset | str, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make the environment a dataset is to be evaluated in (its own where it names no other).

    Args:
        dataset: a dataset or its id.
        render_mode: see Gymnasium.

    Raises:
        UserError: the dataset names no environment, or one that cannot be made here.
    """
    import gymnasium as gym

    if isinstance(dataset, str):
        dataset = load_dataset(dataset)
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
    return next((path for path in candidates if path.exists()), None)


def _unmade_row(id: str, source: Source, data_dir: str | Path | None) -> DatasetRow:
    file = source.file(id)
    path = find_file(file, data_dir) if file is not None else None
    remote = source.remote(id)
    size = None if remote is None else remote.size
    if path is not None:
        size = path.stat().st_size if path.is_file() else None  # the 100M sets are folders
    megabytes = None if size is None else round(size / 1e6, 1)
    available = file is None or path is not None
    return DatasetRow(id, source.name, megabytes, False, available, remote is not None)


def _source_of(id: str, data_dir: str | Path | None) -> Source:
    source = next((source for source in sources() if id in source.ids()), None)
    if source is None:
        known = [row.id for row in list_datasets(data_dir)]
        raise UserError(f"Unknown dataset {id!r}.{nearest(id, known)} `gcrl data list` shows all.")
    return source


def _data_roots(data_dir: str | Path | None) -> list[Path]:
    given = data_dir or os.environ.get("GCRL_DATA_DIR")
    roots = [Path(given).expanduser()] if given else []
    return [*roots, Path.home() / ".gcrl_gym" / "data"]


def _search_folders(data_dir: str | Path | None) -> list[Path]:
    return [root / name for root in _data_roots(data_dir) for name in ("", "ogbench", "d4rl")]


def _download_folder(id: str, data_dir: str | Path | None) -> Path:
    """Sub-folder of the first root that can be written: a shared one is often read-only."""
    *given, default = _data_roots(data_dir)
    root = next((root for root in given if _can_be_written(root)), default)
    namespace = id.partition("/")[0]
    return root / namespace if namespace in ("ogbench", "d4rl") else root


def _can_be_written(folder: Path) -> bool:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


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
