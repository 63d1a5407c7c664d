"""``gcrl record MODEL``: a film of a trained agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from gcrl_gym.cli.models import Dataset, Env, Model, load_model
from gcrl_gym.cli.parsing import DataDir, parse


@dataclass
class Record:
    """Film a trained agent, one evaluation task after the other."""

    model: Model
    out: Annotated[str, tyro.conf.arg(metavar="FILE", help=".mp4 or .gif")] = "rollout.mp4"
    env: Env = None
    dataset: Dataset = None
    data_dir: DataDir = None
    episodes: int = 5
    """number of episodes"""
    actor: int = -1
    """actor of a chain; -1 is the last"""
    sampled: bool = False
    """sample actions"""
    seed: int = 0
    """seed of resets, noise and sampled actions"""


def run(arguments: list[str]) -> None:
    """Film and print the file name."""
    options = parse(Record, arguments, "gcrl record")
    from gcrl_gym.video import record_video

    agent, env, _ = load_model(options.model, options.env, options.dataset, options.data_dir)
    print(
        record_video(
            agent,
            env,
            options.out,
            options.episodes,
            actor=options.actor,
            deterministic=not options.sampled,
            seed=options.seed,
        )
    )
