"""``gcrl quickstart``: data, training, evaluation and a film in one command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from gcrl_gym.cli.parsing import parse

FILES = ("rollout.mp4", "learning_curve.png", "evaluations.csv", "results.json", "final_model.zip")


@dataclass
class Quickstart:
    """Train, evaluate and film POGO on the four-rooms maze: a few minutes on two cores."""

    folder: Annotated[str, tyro.conf.arg(metavar="DIR", help="where everything goes")] = (
        "runs/quickstart"
    )
    steps: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="gradient updates; default those of the preset")
    ] = None
    seed: int = 0
    """seed of everything random"""
    quiet: bool = False
    """no progress bar"""


def run(arguments: list[str]) -> None:
    """Run the quickstart and print its table and paths."""
    from pathlib import Path

    from rich.console import Console

    options = parse(Quickstart, arguments, "gcrl quickstart")
    # Imported after parsing: torch is not needed to answer --help.
    from gcrl_gym.agents.presets import load_preset
    from gcrl_gym.experiments import quickstart
    from gcrl_gym.experiments.run import results_table

    steps = options.steps or quickstart.STEPS
    preset = ", ".join(f"{k}={v}" for k, v in load_preset("pogo", quickstart.PRESET).items())
    print(f"POGO on {quickstart.DATASET}, {steps} updates, preset {quickstart.PRESET!r}: {preset}")
    result = quickstart.quickstart(options.folder, steps, options.seed, not options.quiet)
    if result.already_finished:
        print(f"{options.folder} holds the finished run; delete it to train again.")
    Console().print(results_table(result.results))
    for name in FILES:
        path = Path(options.folder) / name
        print(path if path.is_file() else f"{path} is missing: see the warning above")
