"""``gcrl train AGENT``: one run; the agent's flags are read from its signature."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gcrl_gym.cli.parsing import DataDir, parse
from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    from gcrl_gym.experiments.hyperparameters import Hyperparameter
    from gcrl_gym.experiments.spec import RunSpec


@dataclass
class Train:
    """Train an agent on a dataset; the same command again resumes or finds it finished."""

    dataset: Annotated[str, tyro.conf.arg(metavar="ID", help="dataset id or Minari folder")]
    steps: Annotated[float, tyro.conf.arg(metavar="N", help="gradient updates, such as 1e5")]
    seed: int = 0
    """seed of everything random"""
    env: Annotated[
        str | None, tyro.conf.arg(metavar="ID", help="evaluate here; by default the dataset's env")
    ] = None
    preset: Annotated[
        str,
        tyro.conf.arg(metavar="NAME", help="named hyperparameters, or auto; flags override them"),
    ] = "default"
    data_dir: DataDir = None
    runs_dir: Annotated[str, tyro.conf.arg(metavar="DIR", help="folder of all runs")] = "runs"
    variant: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME", help="folder name, by default what differs from the defaults"
        ),
    ] = None
    eval_freq: Annotated[
        int | None, tyro.conf.arg(help="updates between evaluations; default a tenth of the steps")
    ] = None
    eval_episodes: int = 20
    """episodes per task and actor in every evaluation"""
    checkpoint_freq: Annotated[
        int | None, tyro.conf.arg(help="updates between checkpoints; default at most 10000")
    ] = None
    video_episodes: int = 5
    """episodes filmed at the end"""
    dry_run: bool = False
    """print the resolved run and stop"""
    quiet: bool = False
    """no progress bar, no table"""


def run(arguments: list[str]) -> None:
    """Parse the flags of the agent named first and train it."""
    from gcrl_gym.agents import agent_names

    if not arguments or arguments[0].startswith("-"):
        if arguments and arguments[0] in ("-h", "--help"):
            names = ", ".join(agent_names())
            print(f"usage: gcrl train AGENT --dataset ID --steps N ...\n\nagents: {names}\n")
            print("gcrl train AGENT --help shows the agent's own flags. For all agents:\n")
            parse(Train, ["--help"], "gcrl train AGENT")
        raise UserError(
            f"Name the agent first: gcrl train AGENT, one of {', '.join(agent_names())}."
        )
    spec, options = parse_run(arguments[0], arguments[1:])
    if options.dry_run:
        _show(spec, options.runs_dir)
        return
    _train(spec, options)


def parse_run(agent: str, arguments: list[str]) -> tuple[RunSpec, Train]:
    """Return the run that the flags describe, and all flags.

    Raises:
        UserError: unknown agent, preset or flag, or a value of the wrong type.
    """
    from gcrl_gym.agents import get_agent
    from gcrl_gym.experiments.hyperparameters import hyperparameters
    from gcrl_gym.experiments.spec import RunSpec

    kind = get_agent(agent)
    preset = _value_of("--preset", arguments) or "default"
    probe = RunSpec(agent, _value_of("--dataset", arguments) or "none", 1, preset=preset)
    probe.validate()
    defaults = {name: value for name, (value, _) in probe.hyperparameters().items()}
    known = {
        name: item for name, item in hyperparameters(kind).items() if item.plain_type is not None
    }
    own = [_flag(item, defaults[name]) for name, item in known.items()]
    flags: Any = dataclasses.make_dataclass(f"Train{kind.__name__}", own, bases=(Train,))
    flags.__doc__ = f"{(inspect.getdoc(kind) or agent).splitlines()[0]}\n\n{Train.__doc__}"
    options = parse(flags, arguments, f"gcrl train {agent}")
    values = vars(options)
    given = {name: values[name] for name in known if values[name] != defaults[name]}
    fields = {
        field.name: values[field.name]
        for field in dataclasses.fields(RunSpec)
        if field.name in Train.__dataclass_fields__
    }
    spec = RunSpec(agent=agent, agent_kwargs=given, **fields)
    spec.validate()
    return spec, options


def _flag(item: Hyperparameter, default: Any) -> tuple[str, Any, Any]:
    annotated = Annotated[item.plain_type, tyro.conf.arg(help=item.help)]  # type: ignore[name-defined]
    return item.name, annotated, dataclasses.field(default=default)


def _value_of(flag: str, arguments: list[str]) -> str | None:
    """Return what a flag is given: the preset decides the defaults that --help shows."""
    for position, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1]
    return None


def _show(spec: RunSpec, runs_dir: str) -> None:
    print(f"folder: {spec.folder(runs_dir)}")
    for key, value in spec.to_dict().items():
        if key != "agent_kwargs":
            print(f"{key}: {value}")
    for name, (value, source) in spec.hyperparameters().items():
        print(f"  {name} = {value!r}  ({source})")


def _train(spec: RunSpec, options: Train) -> None:
    from gcrl_gym.experiments import run as runs

    folder = spec.folder(options.runs_dir)
    if not options.quiet:
        print(f"run folder: {folder}")
    try:
        done = runs.train(spec, options.runs_dir, options.data_dir, not options.quiet)
    except KeyboardInterrupt as stop:
        saved = runs.last_checkpoint(folder)
        where = str(stop) or (f"Stopped; last checkpoint {saved}." if saved else "Stopped.")
        raise KeyboardInterrupt(f"{where} The same command goes on from there.") from None
    if options.quiet:
        return
    if done.already_finished:
        print("This run is already finished; delete its folder to train it again.")
    report(done)


def report(done: Any) -> None:
    """Print the results of a run and where its files are."""
    from rich.console import Console

    from gcrl_gym.experiments.run import results_table

    console = Console(file=sys.stdout)
    console.print(results_table(done.results))
    for name in ("results.json", "evaluations.csv", "learning_curve.png", "final_model.zip"):
        print(done.folder / name)
    video = next(iter(sorted((done.folder / "videos").glob("*"))), None)
    if video:
        print(video)
