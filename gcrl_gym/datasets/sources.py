"""What a dataset source is. Every module ``*_io.py`` of this folder with a ``SOURCE`` is one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minari import MinariDataset


@dataclass(frozen=True)
class Remote:
    """Where a source file can be downloaded.

    Args:
        urls: addresses of the same file, tried in this order.
        size: bytes, where published.
        sha256: checksum in hexadecimal, where published.
    """

    urls: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Card:
    """What a user should know of a family of datasets; `make docs` prints them.

    Args:
        ids: pattern of the ids it is about.
        observation: what an observation holds, in order, with indices.
        goal: which part of the state a goal is, or how goals are given.
        success: when an evaluation episode counts as a success.
        horizon: steps of an evaluation episode.
        licence: of the data.
        note: what else to look out for.
    """

    ids: str
    observation: str
    goal: str
    success: str
    horizon: str
    licence: str
    note: str = ""


def _nowhere(dataset_id: str) -> Remote | None:
    return None


@dataclass(frozen=True)
class Source:
    """A way to make the Minari datasets of some ids.

    Args:
        name: shown in the list of datasets.
        ids: returns every id that can be asked for.
        file: returns the name of the source file of an id, or None when it is generated.
        make: makes the Minari dataset of an id, from the source file if there is one; the last
            argument says whether an existing dataset is replaced.
        remote: returns where the source file of an id can be downloaded, or None.
        cards: what users should know of its datasets.
    """

    name: str
    ids: Callable[[], Sequence[str]]
    file: Callable[[str], str | None]
    make: Callable[[str, Path | None, bool], MinariDataset]
    remote: Callable[[str], Remote | None] = _nowhere
    cards: tuple[Card, ...] = ()


@cache
def sources() -> tuple[Source, ...]:
    """Return the sources found in this folder."""
    package = __name__.rpartition(".")[0]
    folder = str(Path(__file__).parent)
    names = [module.name for module in pkgutil.iter_modules([folder])]
    modules = [importlib.import_module(f"{package}.{n}") for n in names if n.endswith("_io")]
    return tuple(module.SOURCE for module in modules if hasattr(module, "SOURCE"))
