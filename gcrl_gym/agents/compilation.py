"""Compiling an agent's update, where the machine has a compiler for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

F = TypeVar("F", bound=Callable[..., object])


def compiled(update: F) -> F:
    """Return ``torch.compile(update)``, or ``update`` itself with one warning.

    The update is compiled, never a module: names of parameters, and so archives, stay the same.

    Args:
        update: function of a batch.
    """
    try:
        # A tiny function fails the same way and has no state that a half-done update could spoil.
        torch.compile(lambda x: x * 2 + 1)(torch.zeros(8))
    except Exception as error:  # the backends raise their own, undocumented kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        warnings.warn(
            f"compile=True: no working compiler ({reason}); the update runs eagerly.", stacklevel=3
        )
        return update
    return torch.compile(update)  # type: ignore[return-value]
