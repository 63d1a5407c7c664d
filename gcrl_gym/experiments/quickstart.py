"""The first run of a new user: POGO on the four-rooms maze, from nothing to a film."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from gcrl_gym.experiments.run import RunResult, train
from gcrl_gym.experiments.spec import RunSpec

PRESET = "quickstart"
DATASET = "gcrl/nav2d/expert-v0"
STEPS = 15_000


def quickstart(
    folder: str | os.PathLike[str] = "runs/quickstart",
    steps: int = STEPS,
    seed: int = 0,
    progress_bar: bool = True,
) -> RunResult:
    """Generate data, train POGO, evaluate every actor on all tasks and film the last one.

    Args:
        folder: where everything goes; a finished run in it is left as it is.
        steps: gradient updates.
        seed: of everything random.
        progress_bar: show progress.

    Returns:
        The finished run; ``rollout.mp4`` lies beside its other files.

    Raises:
        UserError: the folder cannot be written or holds another run.
    """
    spec = RunSpec("pogo", DATASET, steps, seed=seed, preset=PRESET, eval_freq=max(1, steps // 4))
    result = train(spec, folder=folder, progress_bar=progress_bar)
    film = Path(folder) / "videos" / "rollout.mp4"
    if film.is_file():
        shutil.copy2(film, Path(folder) / "rollout.mp4")
    return result
