"""``gcrl finetune MODEL``: go on training a saved agent in an environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from gcrl_gym.cli.models import Model
from gcrl_gym.cli.parsing import DataDir, parse
from gcrl_gym.errors import UserError


@dataclass
class Finetune:
    """Fine-tune a trained agent online; the same command again resumes or finds it finished."""

    model: Model
    steps: Annotated[float, tyro.conf.arg(metavar="N", help="environment steps, such as 1e5")]
    env: Annotated[
        str | None,
        tyro.conf.arg(metavar="ID", help="train and evaluate here; by default the run's"),
    ] = None
    dataset: Annotated[
        str | None, tyro.conf.arg(metavar="ID", help="offline data to mix with; default the run's")
    ] = None
    mix: Annotated[
        str, tyro.conf.arg(metavar="MIX", help="symmetric, online, or the share of offline data")
    ] = "symmetric"
    seed: int = 0
    """seed of what is random online and of the evaluations"""
    learning_starts: Annotated[
        int | None, tyro.conf.arg(help="steps before the first update; default 1000")
    ] = None
    updates_per_step: Annotated[
        int | None, tyro.conf.arg(help="gradient updates per step; default 1")
    ] = None
    buffer_size: Annotated[
        int | None, tyro.conf.arg(help="most transitions kept; default a million")
    ] = None
    exploration_noise: Annotated[
        float | None, tyro.conf.arg(help="of actions in [-1, 1]; default the agent's")
    ] = None
    actor: Annotated[int | None, tyro.conf.arg(help="who of a chain acts; default the last")] = None
    learning_rate: Annotated[
        str | None,
        tyro.conf.arg(metavar="RATE", help="such as 1e-4 or lin_1e-4; default as offline"),
    ] = None
    data_dir: DataDir = None
    runs_dir: Annotated[
        str, tyro.conf.arg(metavar="DIR", help="for models that are in no run folder")
    ] = "runs"
    variant: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME", help="folder name, by default what differs from the defaults"
        ),
    ] = None
    eval_freq: Annotated[
        int | None, tyro.conf.arg(help="steps between evaluations; default a tenth of the steps")
    ] = None
    eval_episodes: int = 20
    """episodes per task and actor in every evaluation"""
    checkpoint_freq: Annotated[
        int | None, tyro.conf.arg(help="steps between checkpoints; default at most 10000")
    ] = None
    video_episodes: int = 5
    """episodes filmed at the end"""
    dry_run: bool = False
    """print the resolved run and stop"""
    quiet: bool = False
    """no progress bar, no table"""


_SPEC = (
    "model", "steps", "seed", "env", "dataset", "eval_freq", "eval_episodes", "checkpoint_freq",
    "video_episodes", "variant",
)  # fmt: skip


def run(arguments: list[str]) -> None:
    """Parse, fine-tune and print the results beside those before."""
    options = parse(Finetune, arguments, "gcrl finetune")
    from gcrl_gym.cli.train import report
    from gcrl_gym.experiments import finetune as runs
    from gcrl_gym.experiments.run import last_checkpoint

    given = {name: getattr(options, name) for name in runs.OPTIONS}
    fields: dict[str, Any] = {name: getattr(options, name) for name in _SPEC}
    spec = runs.FinetuneSpec(
        **fields,
        mix=_mix(options.mix),
        options={name: value for name, value in given.items() if value is not None},
    ).resolved()
    folder = spec.folder(options.runs_dir)
    if options.dry_run or not options.quiet:
        print(f"run folder: {folder}")
    if options.dry_run:
        for key, value in spec.to_dict().items():
            print(f"{key}: {value}")
        return
    try:
        done = runs.finetune(spec, options.runs_dir, options.data_dir, not options.quiet)
    except KeyboardInterrupt as stop:
        saved = last_checkpoint(folder)
        where = str(stop) or (f"Stopped; last checkpoint {saved}." if saved else "Stopped.")
        raise KeyboardInterrupt(f"{where} The same command goes on from there.") from None
    if options.quiet:
        return
    if done.already_finished:
        print("This run is already finished; delete its folder to train it again.")
    print("before:", _numbers(done.results["before"]))
    print("after: ", _numbers(done.results["last"]))
    report(done)


def _mix(text: str) -> str | float:
    if text in ("symmetric", "online"):
        return text
    try:
        return float(text)
    except ValueError:
        raise UserError(
            f"--mix is {text!r}; give symmetric, online, or a share of offline data from 0 to 1."
        ) from None


def _numbers(block: dict[str, Any]) -> str:
    success = block["success_rate"]
    text = "" if success is None else f"success {100 * success:.1f} %, "
    return f"{text}return {block['mean_return']:.2f}"
