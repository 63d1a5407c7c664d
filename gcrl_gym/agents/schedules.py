"""Learning rates: numbers, texts such as "cos_3e-4", and how each optimiser follows its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule

from gcrl_gym.errors import UserError


class CosineSchedule:
    """Falls from ``start`` to 0 along half a cosine, as torch's CosineAnnealingLR does.

    Args:
        start: learning rate at the beginning.
    """

    def __init__(self, start: float) -> None:
        self.start = start

    def __call__(self, progress_remaining: float) -> float:
        """Return the learning rate when this share of the training, 1 to 0, is left."""
        return self.start * 0.5 * (1.0 + math.cos(math.pi * (1.0 - progress_remaining)))


def resolve_learning_rate(
    value: float | str | Schedule, name: str = "learning_rate"
) -> float | Schedule:
    """Return a learning rate or schedule of the remaining progress.

    Args:
        value: a number; ``"lin_1e-3"`` (as in RL Zoo) falls linearly to 0, ``"cos_1e-3"`` along a
            cosine; or a function.
        name: of the keyword, for messages.

    Raises:
        UserError: any other text, or a rate that is not a positive number.
    """
    if callable(value):
        return value
    text = str(value)
    try:
        rate = float(text.removeprefix("lin_").removeprefix("cos_"))
    except ValueError:
        rate = -1.0
    if not 0 < rate < float("inf"):
        raise UserError(
            f"{name} is {value!r}; give a number > 0, or text such as 'lin_3e-4' or 'cos_3e-4'."
        )
    if text.startswith("lin_"):
        return LinearSchedule(rate, 0.0, 1.0)
    return CosineSchedule(rate) if text.startswith("cos_") else rate


def set_rates(
    optimizers: dict[str, torch.optim.Adam], own: dict[str, Any], common: Any, remaining: float
) -> None:
    """Set the learning rate of every optimiser that follows a schedule.

    Args:
        optimizers: by name.
        own: rates or schedules of those that have their own, by name.
        common: rate or schedule of the others.
        remaining: share of the training that is left.
    """
    for name, optimizer in optimizers.items():
        schedule = own.get(name, common)
        if callable(schedule):
            for group in optimizer.param_groups:
                group["lr"] = schedule(remaining)


def online_rates(
    optimizers: dict[str, torch.optim.Adam],
    own: dict[str, Any],
    common: Any,
    given: Any = None,
    remaining: float = 1.0,
) -> None:
    """Set the learning rate of every optimiser for online training.

    Args:
        optimizers: by name.
        own: rates or schedules of those that have their own, by name.
        common: rate or schedule of the others.
        given: rate or schedule of all of them; None for what each began with.
        remaining: share of the training that is left, for ``given``.
    """
    for name, optimizer in optimizers.items():
        rate = own.get(name, common) if given is None else given
        share = 1.0 if given is None else remaining
        for group in optimizer.param_groups:
            group["lr"] = rate(share) if callable(rate) else rate
