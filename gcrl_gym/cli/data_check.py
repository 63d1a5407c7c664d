"""``gcrl data check``: exit status 0 for sound data, 1 for a defect."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gcrl_gym.cli.parsing import DataDir
from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    from minari import MinariDataset


@dataclass
class Check:
    """Look for defects in a source file or a dataset; the exit status is 1 when there is one."""

    source: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE-OR-ID", help="file, dataset id, or Minari folder"),
    ]
    env: Annotated[
        str | None, tyro.conf.arg(metavar="ID", help="environment whose widths it must have")
    ] = None
    repair: bool = False
    """write a repaired copy, beside the file or as NAME-repaired-vN"""
    data_dir: DataDir = None


def check(options: Check) -> None:
    """Print what was found; exit with 1 where that is a defect."""
    from gcrl_gym.agents.inputs import resolve_env
    from gcrl_gym.datasets.check import check_file, check_minari
    from gcrl_gym.experiments.run import open_stored

    try:
        env = resolve_env(options.env)
        path, dataset = Path(options.source), None
        if path.is_file():
            facts, defects = check_file(path, env)  # type: ignore[arg-type]
        else:
            dataset = open_stored(options.source, options.data_dir)
            facts = f"{dataset.total_episodes} episodes, {dataset.total_steps} steps"
            defects = check_minari(dataset, env)  # type: ignore[arg-type]
        for text in defects:
            print(f"defect: {text}")
        if defects and options.repair:
            _repair(path if dataset is None else dataset)
    except UserError as error:
        print(f"gcrl: {error}", file=sys.stderr)
        sys.exit(1)
    if defects:
        sys.exit(1)
    print(f"{options.source}: sound, {facts}")


def _repair(source: Path | MinariDataset) -> None:
    from gcrl_gym.datasets.repair import repair_file, repair_minari

    if isinstance(source, Path):
        target, done = repair_file(source)
        name = str(target)
    else:
        dataset, done = repair_minari(source)
        name = str(dataset.id)
    for text in done:
        print(f"repaired: {text}")
    print(f"repaired copy: {name}")
