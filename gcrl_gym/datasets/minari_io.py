"""Write Minari datasets so that either the whole dataset appears or nothing does."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrl_gym.checkpoint import atomic_write, orphans, process_name
from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym
    from gymnasium.envs.registration import EnvSpec
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

    from gcrl_gym.datasets.report import ReportBuilder


def write_minari(
    dataset_id: str,
    episodes: Iterable[EpisodeBuffer],
    *,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    metadata: Mapping[str, Any],
    env_spec: EnvSpec | None = None,
    eval_env_spec: EnvSpec | None = None,
    overwrite: bool = False,
    report: ReportBuilder | None = None,
) -> MinariDataset:
    """Write episodes as a local Minari dataset (HDF5, images lossless).

    The dataset is written to a hidden folder of Minari's root, flushed to disk and renamed to its
    place, so a crash or an error leaves nothing behind.

    Args:
        dataset_id: ``[namespace/]name-vN``.
        episodes: buffers of whole arrays: T+1 observations and infos, T of everything else.
        observation_space: space of the stored observations.
        action_space: space of the stored actions.
        metadata: JSON values kept with the dataset: source, checksum, versions, parameters,
            ``ref_min_score`` and ``ref_max_score``; ``goal="observation"`` where goals are
            observations. Versions of gcrl_gym and Minari are added.
        env_spec: environment of the data.
        eval_env_spec: environment to evaluate in, when another one.
        overwrite: replace an existing dataset of that id.
        report: watches the episodes; its report is kept as ``report`` in the metadata.

    Returns:
        The dataset, opened at its place.

    Raises:
        UserError: a malformed id, an id that exists, a folder that cannot be written, no episodes.
    """
    import minari
    from minari.dataset.minari_dataset import parse_dataset_id

    check_new_id(dataset_id, overwrite=overwrite)
    root = minari.storage.get_dataset_path()
    target, namespace = root / dataset_id, parse_dataset_id(dataset_id)[0]
    specs = {"env_spec": env_spec, "eval_env_spec": eval_env_spec}
    if report is not None:
        episodes = report.watch(episodes)
    with _new_folder(root) as folder:
        _fill(folder / "data", episodes, observation_space, action_space, specs)
        if report is not None:
            metadata = {**metadata, "report": report.finish().to_dict()}
        _describe(folder / "data", dataset_id, specs, metadata)
        _flush(folder)
        _announce_namespace(root, namespace)
        _put_in_place(folder, target)
    return minari.MinariDataset(target / "data")


def check_new_id(dataset_id: str, *, overwrite: bool = False) -> None:
    """Check that a dataset of an id can be written, before hours of recording.

    Args:
        dataset_id: ``[namespace/]name-vN``.
        overwrite: one that exists is to be replaced.

    Raises:
        UserError: a malformed id, one that exists, or a folder that cannot be written.
    """
    import minari
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError):
        raise UserError(
            f"{dataset_id!r} is not a dataset id; expected [namespace/]name-v0."
        ) from None
    try:
        target = minari.storage.get_dataset_path() / dataset_id  # Minari makes its folder
    except OSError as error:
        raise _unwritable(os.environ.get("MINARI_DATASETS_PATH", "~/.minari"), error) from error
    if target.exists() and not overwrite:
        raise UserError(
            f"The Minari dataset {dataset_id!r} exists in {target}; delete it or choose another id."
        )


def _fill(
    data: Path,
    episodes: Iterable[EpisodeBuffer],
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    specs: Mapping[str, EnvSpec | None],
) -> None:
    """Write the episodes with Minari's own storage."""
    from minari.dataset.minari_storage import MinariStorage

    data.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari asks for author and email in warnings
        storage = MinariStorage.new(
            data,
            observation_space=observation_space,
            action_space=action_space,
            env_spec=specs["env_spec"],
            data_format="hdf5",
            jpeg_encoding=False,
        )
        storage.update_episodes(episodes)
    if storage.total_episodes == 0:
        raise UserError("There are no episodes to write; a dataset needs at least one.")


def _describe(
    data: Path,
    dataset_id: str,
    specs: Mapping[str, EnvSpec | None],
    metadata: Mapping[str, Any],
) -> None:
    """Complete the metadata file that Minari's storage began."""
    import minari

    path = data / "metadata.json"
    known = json.loads(path.read_text())
    known |= {"dataset_id": dataset_id, "minari_version": minari.__version__}
    if specs["eval_env_spec"] is not None:
        known["eval_env_spec"] = specs["eval_env_spec"].to_json()
    known |= metadata
    known["versions"] = {**versions(), **metadata.get("versions", {})}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(known))


def versions(*packages: str) -> dict[str, str]:
    """Versions of gcrl_gym, Minari, Gymnasium and, where installed, the named packages."""
    import gcrl_gym

    found = {"gcrl-gym": gcrl_gym.__version__}
    for name in ("minari", "gymnasium", *packages):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@contextlib.contextmanager
def _new_folder(root: Path) -> Iterator[Path]:
    """Yield a hidden folder (which Minari does not list) that is gone afterwards."""
    folder = root / f".gcrl-{process_name()}.part"
    try:
        _tidy_up(root)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(root, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unwritable(root: str | Path, error: OSError) -> UserError:
    return UserError(
        f"Cannot write to {root}: {error}; set MINARI_DATASETS_PATH to a writable folder."
    )


def _tidy_up(root: Path) -> None:
    """Remove what killed processes left, and put back what one of them was about to replace."""
    for left in orphans(root, ".gcrl-", ".part"):
        shutil.rmtree(left, ignore_errors=True)
    for left in orphans(root, ".gcrl-", ".replaced"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            known = json.loads((left / "data" / "metadata.json").read_text())
            target = root / known["dataset_id"]
            if not target.exists():
                os.rename(left, target)
        shutil.rmtree(left, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def _announce_namespace(root: Path, namespace: str | None) -> None:
    """Write Minari's marker file in each folder of the namespace that lacks it."""
    parts = Path(namespace or "").parts
    for depth in range(1, len(parts) + 1):
        marker = root.joinpath(*parts[:depth], "namespace_metadata.json")
        if not marker.exists():
            with atomic_write(marker) as path:
                path.write_text("{}")


def _put_in_place(folder: Path, target: Path) -> None:
    """Rename the folder to ``target``, replacing what is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    replaced = folder.with_suffix(".replaced")
    if target.exists():
        os.rename(target, replaced)
    try:
        os.rename(folder, target)
    except OSError:
        # Another process that makes the same dataset may have been faster; theirs is as good.
        if not (target / "data" / "metadata.json").is_file():
            raise
    shutil.rmtree(replaced, ignore_errors=True)
