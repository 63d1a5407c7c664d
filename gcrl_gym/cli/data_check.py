"""``gcrl data check``: exit status 0 for sound data, 1 for a defect or nothing to check."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gcrl_gym.cli.parsing import DataDir
from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym
    from minari import MinariDataset

    from gcrl_gym.datasets.check import Findings


@dataclass
class Check:
    """Look for defects in a source file or a dataset; the exit status is 1 when there is one."""

    source: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE-OR-ID", help="file, dataset id, or Minari folder"),
    ]
    id: Annotated[
        str | None,
        tyro.conf.arg(metavar="ID", help="which dataset a file is; by default told by its name"),
    ] = None
    env: Annotated[
        str | None,
        tyro.conf.arg(metavar="ID", help="environment whose widths and bounds it must have"),
    ] = None
    repair: bool = False
    """write a repaired copy, beside the file or as NAME-repaired-vN"""
    overwrite: bool = False
    """replace an existing repaired copy"""
    data_dir: DataDir = None


def check(options: Check) -> None:
    """Print what was found; exit with 1 where that is a defect, or where there is no data."""
    try:
        _check(options)
    except (UserError, OSError) as error:
        failed = UserError(str(error))
        failed.exit_status = 1
        raise failed from error


def _check(options: Check) -> None:
    from gcrl_gym.datasets.check import Findings
    from gcrl_gym.datasets.minari_open import DamagedDataset

    env, source = _environment(options.env), None
    try:
        source = _open(options)
        findings = _look(source, options, env)
    except DamagedDataset as error:
        findings = Findings("", [str(error)])
    for text in findings.defects:
        print(f"defect: {_one_line(text)}")
    for text in findings.notes:
        print(f"note: {_one_line(text)}")
    if not findings.defects:
        print(f"{_one_line(options.source)}: sound, {findings.facts}")
        return
    if options.repair and source is not None:
        _repair(source, options)
    sys.exit(1)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _environment(env_id: str | None) -> gym.Env[Any, Any] | None:
    import gymnasium as gym

    from gcrl_gym.agents.inputs import resolve_env

    try:
        return resolve_env(env_id)  # type: ignore[return-value]
    except (gym.error.Error, ImportError) as error:
        raise UserError(f"Cannot make the environment {env_id!r}: {error}.") from error


def _open(options: Check) -> Path | MinariDataset:
    """Return the file that is meant, or the dataset.

    Raises:
        DamagedDataset: a dataset that cannot be read, or whose source file cannot.
        UserError: nothing there.
    """
    from gcrl_gym.datasets.minari_open import DamagedDataset, open_minari

    given, path = options.source, Path(options.source).expanduser()
    if not given.strip():
        raise UserError("Say what to check: a file, the id of a dataset, or its folder.")
    if path.is_file():
        return path
    if options.id is not None:
        raise UserError(f"{path} is no file; --id tells what a file is.")
    if path.is_dir():
        return open_minari(path)
    if path.exists():
        raise UserError(f"{path} is neither a file nor a folder; give one of them, or an id.")
    if path.suffix or given.startswith(("~", ".", "/")):
        raise UserError(f"{path} does not exist; give a file, the id of a dataset, or its folder.")
    import minari

    from gcrl_gym.datasets import load_dataset

    local = minari.storage.get_dataset_path() / given
    if local.is_dir():
        return open_minari(local)
    try:
        return load_dataset(given, options.data_dir)
    except UserError as error:
        if _has_source(given, options.data_dir):
            raise DamagedDataset(str(error)) from error
        raise


def _has_source(dataset_id: str, data_dir: str | None) -> bool:
    """Return whether the file that a dataset is made from is here."""
    from gcrl_gym.datasets.catalog import find_file
    from gcrl_gym.datasets.sources import sources

    names = [source.file(dataset_id) for source in sources() if dataset_id in source.ids()]
    return any(name is not None and find_file(name, data_dir) for name in names)


def _look(source: Path | MinariDataset, options: Check, env: gym.Env[Any, Any] | None) -> Findings:
    if isinstance(source, Path):
        from gcrl_gym.datasets.check_files import check_file

        return check_file(source, env, options.id)
    from gcrl_gym.datasets.check import inspect_minari

    return inspect_minari(source, env)


def _repair(source: Path | MinariDataset, options: Check) -> None:
    from gcrl_gym.datasets.repair import repair_minari
    from gcrl_gym.datasets.repair_files import repair_file

    if isinstance(source, Path):
        target, done = repair_file(source, options.id, overwrite=options.overwrite)
        name = str(target)
    else:
        dataset, done = repair_minari(source, overwrite=options.overwrite)
        name = str(dataset.id)
    for text in done:
        print(f"repaired: {_one_line(text)}")
    print(f"repaired copy: {name}")
