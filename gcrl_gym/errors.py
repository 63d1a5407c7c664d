"""The one exception for mistakes a user can make, and the nearest-name hint its messages use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user passed: one sentence saying what, where and how to fix it."""


def nearest(name: str, options: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest option, or ``""`` when none is close."""
    match = difflib.get_close_matches(str(name), [str(option) for option in options], n=1)
    return f" Did you mean {match[0]!r}?" if match else ""
