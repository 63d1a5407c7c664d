"""The one exception for mistakes a user can make, and the nearest-name hint its messages use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user passed: one sentence saying what, where and how to fix it.

    Attributes:
        exit_status: of a command that ends with it.
    """

    exit_status = 2


def nearest(name: str, options: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest option, or ``""`` when none is close."""
    match = difflib.get_close_matches(str(name), [str(option) for option in options], n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def listed(names: Iterable[str], most: int = 20) -> str:
    """Return names in order, the first ones where there are many: ``'a', 'b' and 7 more``."""
    found = sorted(names)
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(map(repr, found[:most])) + rest if found else "nothing"
