"""``gcrl eval MODEL``: success, return and steps to goal on all tasks."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from gcrl_gym.cli.models import Dataset, Env, Model, load_model
from gcrl_gym.cli.parsing import DataDir, parse


@dataclass
class Eval:
    """Evaluate a trained agent: every task, every actor, deterministic and sampled actions."""

    model: Model
    env: Env = None
    dataset: Dataset = None
    data_dir: DataDir = None
    episodes: int = 20
    """episodes per task, actor and mode"""
    tasks: Annotated[
        tuple[int, ...], tyro.conf.arg(metavar="N ..", help="task ids; all by default")
    ] = ()
    seed: int = 0
    """seed of resets, noise and sampled actions"""
    json: bool = False
    """print JSON instead of a table"""


def run(arguments: list[str]) -> None:
    """Evaluate and print."""
    options = parse(Eval, arguments, "gcrl eval")
    from gcrl_gym.evaluation import evaluate

    agent, env, references = load_model(
        options.model, options.env, options.dataset, options.data_dir
    )
    tasks = list(options.tasks) or "all"
    result = evaluate(agent, env, tasks, options.episodes, options.seed, references=references)
    if options.json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    from rich.console import Console

    Console(file=sys.stdout).print(result.table())
