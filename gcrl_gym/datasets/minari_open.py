"""Open a Minari dataset, whoever made it; what is wrong with its files is one clear sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrl_gym.datasets.env_specs import open_lenient
from gcrl_gym.datasets.signatures import HEAD_BYTES, looks_like, require
from gcrl_gym.errors import UserError, nearest

if TYPE_CHECKING:
    from minari import MinariDataset

_JSON = "JSON text"  # what signatures.looks_like says of it
_COPY = "copy the dataset again"


class DamagedDataset(UserError):
    """A dataset that is there but cannot be read."""


def open_minari(source: MinariDataset | str | Path) -> MinariDataset:
    """Return a MinariDataset from one, its folder, or the id of a local one.

    Raises:
        DamagedDataset: one whose files are damaged, naming file and key.
        UserError: nothing there, or a format whose package is not installed.
    """
    import minari

    if isinstance(source, minari.MinariDataset):
        check_metadata(Path(source.storage.data_path) / "metadata.json")
        return source
    folder = _data_folder(source)
    known = check_metadata(folder / "metadata.json")
    if not (folder / "main_data.hdf5").is_file():
        check_data(folder, known)  # else when it is read: with a cache it need not be
    try:
        return open_lenient(folder)
    except ImportError as error:
        raise UserError(
            f"{folder} needs a package that is not installed ({error}); install minari[all]."
        ) from error
    except Exception as error:  # Minari raises whatever its parsers do
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedDataset(f"Cannot open the Minari dataset in {folder}: {reason}") from error


def _data_folder(source: str | Path) -> Path:
    """Return the folder that holds the metadata.

    Raises:
        DamagedDataset: a dataset that has lost them.
        UserError: no such folder, or one that holds no dataset.
    """
    import minari

    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = minari.storage.get_dataset_path() / str(source)
    if not folder.is_dir():
        raise UserError(
            f"No Minari dataset {str(source)!r}: {folder} does not exist."
            f"{nearest(str(source), _local_ids())} Pass the id or folder of a local dataset, or "
            "make it with gcrl_gym.load_dataset(id)."
        )
    if (folder / "data").is_dir():
        folder = folder / "data"
    if (folder / "metadata.json").is_file():
        return folder
    if any(folder.glob("main_data.hdf5")) or any(folder.glob("[0-9]*/*")):
        raise DamagedDataset(f"{folder} has lost its metadata.json; {_COPY}.")
    raise UserError(
        f"{folder} holds no metadata.json, so it is no Minari dataset; give the folder of one, "
        "which holds data/metadata.json."
    )


def _local_ids() -> list[str]:
    import minari

    root = minari.storage.get_dataset_path()
    return [str(path.parent.relative_to(root)) for path in root.rglob("data") if path.is_dir()]


def check_metadata(path: Path) -> dict[str, Any]:
    """Return what a metadata file says, after checking what reading the dataset depends on.

    Raises:
        DamagedDataset: naming file and key.
    """
    known = _read_json(path)
    for key in ("dataset_id", "minari_version", "data_format"):
        _require_kind(path, known, key, str, "text")
    for key in ("total_episodes", "total_steps"):
        _require_kind(path, known, key, int, "a whole number")
        if known[key] < 0 or isinstance(known[key], bool):
            raise DamagedDataset(f"{path}: {key} is {known[key]!r}, which counts nothing; {_COPY}.")
    from minari.dataset._storages import get_storage_keys

    if known["data_format"] not in get_storage_keys():
        raise DamagedDataset(
            f"{path}: data_format is {known['data_format']!r}, but Minari reads "
            f"{', '.join(get_storage_keys())}; {_COPY}."
        )
    for key in ("observation_space", "action_space"):
        _check_space(path, known, key)
    return known


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedDataset(f"{path} cannot be read ({error}); {_COPY}.") from error
    try:
        known = json.loads(content)
    except (ValueError, RecursionError) as error:
        kind = looks_like(content[:HEAD_BYTES])
        kind = "incomplete or damaged" if kind == _JSON else f"{kind}, not the JSON of a dataset"
        fix = f"run git lfs pull, or {_COPY}" if "LFS" in kind else _COPY
        raise DamagedDataset(f"{path} is {kind}; {fix}.") from error
    if not isinstance(known, dict):
        raise DamagedDataset(
            f"{path} holds {json.dumps(known)[:20]} instead of names and values; {_COPY}."
        )
    return known


def _require_kind(path: Path, known: dict[str, Any], key: str, kind: type, name: str) -> None:
    if key not in known:
        raise DamagedDataset(f"{path} has no {key!r}; {_COPY}.")
    if not isinstance(known[key], kind):
        raise DamagedDataset(f"{path}: {key} is {known[key]!r}; expected {name}: {_COPY}.")


def _check_space(path: Path, known: dict[str, Any], key: str) -> None:
    """Check that a space can be read; where there is none, that an environment tells it."""
    from minari.serialization import deserialize_space

    if known.get(key) is None:
        if known.get("env_spec") is None:
            raise DamagedDataset(
                f"{path} has no {key!r}, nor an env_spec that tells the environment; {_COPY}."
            )
        return
    try:
        deserialize_space(known[key])
    except Exception as error:  # of any kind: whatever the text leads to
        text = str(known[key])
        text = text if len(text) <= 40 else f"{text[:40]}.."
        raise DamagedDataset(f"{path}: {key} is {text!r}, which is no space; {_COPY}.") from error


def check_data(folder: Path, known: dict[str, Any]) -> None:
    """Check that the HDF5 file of a dataset opens; files of one episode are looked at with it.

    Args:
        folder: the data folder.
        known: what `check_metadata` returned.

    Raises:
        DamagedDataset: the file is missing, damaged or something else.
        UserError: another process writes it.
    """
    if known["data_format"] != "hdf5":
        return
    import h5py

    path = folder / "main_data.hdf5"
    try:
        require(path, ".hdf5")
        h5py.File(path, "r").close()
    except UserError as error:
        raise DamagedDataset(str(error)) from error
    except BlockingIOError as error:
        raise UserError(f"{path} is being written by another process; wait for it.") from error
    except OSError as error:
        size = path.stat().st_size
        raise DamagedDataset(
            f"{path} ({size} bytes) is damaged or incomplete; convert or copy it again."
        ) from error
