"""Progress bars for what may take more than two seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def with_progress(
    items: Iterable[T], what: str, unit: str = " episodes", total: int | None = None
) -> Iterator[T]:
    """Yield the items, with a bar on a terminal once that has taken two seconds.

    Args:
        items: what to go through.
        what: text left of the bar.
        unit: what an item is.
        total: number of items where they have no length.
    """
    from tqdm import tqdm

    yield from tqdm(items, desc=what, unit=unit, total=total, delay=2, disable=None)
