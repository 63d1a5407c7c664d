"""D4RL's reference returns and normalised score.

``score = 100 * (return - min) / (max - min)``: 0 is a random policy and 100 an expert, as in the
D4RL paper and in `gcrl_gym.evaluate`; ``d4rl.get_normalized_score`` leaves out the 100. The returns
are those of ``d4rl/infos.py`` and, for maze2d-eval and maze2d -v0, ``d4rl/pointmaze/__init__.py``,
keyed here by environment, since all kinds of data share them.
"""

from __future__ import annotations

import re
from typing import Any

from gcrl_gym.errors import UserError, nearest

REFERENCES: dict[str, tuple[float, float]] = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "antmaze": (0.0, 1.0),
    "maze2d-open-v0": (0.01, 20.66),
    "maze2d-umaze-v0": (0.94, 62.6),
    "maze2d-medium-v0": (5.77, 85.14),
    "maze2d-large-v0": (4.83, 191.99),
    "maze2d-umaze-v1": (23.85, 161.86),
    "maze2d-medium-v1": (13.13, 277.39),
    "maze2d-large-v1": (6.7, 273.99),
    "maze2d-eval-umaze-v1": (36.63, 141.4),
    "maze2d-eval-medium-v1": (13.07, 204.93),
    "maze2d-eval-large-v1": (16.4, 302.22),
    "maze2d-open-dense-v0": (11.17817, 27.166538620695782),
    "maze2d-umaze-dense-v0": (23.249793, 81.78995240126592),
    "maze2d-medium-dense-v0": (19.47762, 96.03474232952358),
    "maze2d-large-dense-v0": (27.38831, 215.09965671563742),
    "maze2d-umaze-dense-v1": (68.537689, 193.66285642381482),
    "maze2d-medium-dense-v1": (44.264742, 297.4552547777125),
    "maze2d-large-dense-v1": (30.569041, 303.4857382709002),
    "maze2d-eval-umaze-dense-v1": (56.95455, 178.21373133248397),
    "maze2d-eval-medium-dense-v1": (42.28578, 235.5658957482388),
    "maze2d-eval-large-dense-v1": (56.95455, 326.09647655082637),
    "kitchen": (0.0, 4.0),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "door": (-56.512833, 2880.5693087298737),
    "relocate": (-6.425911, 4233.877797728884),
    "minigrid-fourrooms": (0.01442, 2.89685),
}
"""Returns (min, max) by environment; with size, reward and version where these matter."""


def reference_scores(name: str) -> tuple[float, float]:
    """Return the (min, max) reference returns of an environment or dataset.

    Args:
        name: such as ``hopper``, ``hopper-medium-v2``, ``d4rl/maze2d-umaze-v1`` or
            ``d4rl/antmaze-umaze-goal-v2``.

    Raises:
        UserError: D4RL has no reference for it, naming the nearest.
    """
    stem = re.sub(r"-goal(?=-v\d+$)", "", name.removeprefix("d4rl/"))
    parts = stem.split("-")
    for count in range(len(parts), 0, -1):  # the longest name first
        key = "-".join(parts[:count])
        if key in REFERENCES:
            return REFERENCES[key]
    raise UserError(
        f"D4RL has no reference scores for {name!r}.{nearest(stem, REFERENCES)} Known are "
        f"{', '.join(REFERENCES)}."
    )


def normalized_score(name: str, score: Any) -> Any:
    """Return D4RL's normalised score, 100 for the maximal reference return.

    Args:
        name: see `reference_scores`.
        score: a return, or an array of returns.

    Raises:
        UserError: see `reference_scores`.
    """
    low, high = reference_scores(name)
    return 100.0 * (score - low) / (high - low)


def score_from_normalized(name: str, normalized: Any) -> Any:
    """Return the return that has a normalised score: the inverse of `normalized_score`.

    Args:
        name: see `reference_scores`.
        normalized: a normalised score (100 for the maximal reference return), or an array.

    Raises:
        UserError: see `reference_scores`.
    """
    low, high = reference_scores(name)
    return low + normalized * (high - low) / 100.0
