"""``gcrl data``: what datasets there are, what is in one, and how to get more."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gcrl_gym.cli.data_check import Check, check
from gcrl_gym.cli.parsing import DataDir, parse, subcommand
from gcrl_gym.errors import UserError, nearest

if TYPE_CHECKING:
    import gymnasium as gym
    from minari import MinariDataset

    from gcrl_gym.datasets.catalog import DatasetRow
    from gcrl_gym.datasets.sources import Source

COMMANDS = {
    "list": "List the datasets that load by their id.",
    "show": "Describe a dataset.",
    "convert": "Convert a source file to Minari.",
    "collect": "Record episodes of a policy as a new dataset.",
    "check": "Look for defects in a file or dataset.",
    "download": "Download the source file of a dataset.",
}


@dataclass
class List:
    """List the datasets that load by their id here."""

    data_dir: DataDir = None
    all: bool = False
    """also those whose source file is not here"""


@dataclass
class Show:
    """Describe a dataset; it is generated or converted when it is not local yet."""

    id: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="ID", help="dataset id or Minari folder")
    ]
    data_dir: DataDir = None


@dataclass
class Convert:
    """Convert a source file, under its official name, to a Minari dataset."""

    source: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE", help="file, or id of the dataset")
    ]
    id: Annotated[
        str | None,
        tyro.conf.arg(metavar="ID", help="what to make of the file; by default told by its name"),
    ] = None
    data_dir: DataDir = None
    overwrite: bool = False
    """replace an existing dataset of that id"""


@dataclass
class Collect:
    """Record episodes of a policy in an environment as a new Minari dataset."""

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV", help="environment id")]
    id: Annotated[str, tyro.conf.arg(metavar="ID", help="of the new dataset, such as me/nav2d-v0")]
    policy: Annotated[
        str,
        tyro.conf.arg(help="random, a saved agent, or for Nav2D expert, noisy, play or stitch"),
    ] = "random"
    maze: Annotated[str | None, tyro.conf.arg(help="layout of Nav2D")] = None
    episodes: int = 100
    """number of episodes"""
    seed: int = 0
    """seed of everything random"""
    state_only: bool = False
    """leave out the actions ("video" data): they become NaN"""
    no_rewards: bool = False
    """with --state-only, leave out the rewards too: they become 0"""


@dataclass
class Download:
    """Download the source file of a dataset, without converting it, and print its path."""

    id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID", help="dataset id")]
    data_dir: DataDir = None
    accept_other_bytes: bool = False
    """warn, instead of failing, where size or checksum are not the published ones"""
    offline: bool = False
    """say what would be downloaded from where, and use no network"""


def run(arguments: list[str]) -> None:
    """Run the subcommand named first."""
    name, rest = subcommand(arguments, COMMANDS, "gcrl data")
    kind, action = {
        "list": (List, show_list),
        "show": (Show, show_one),
        "convert": (Convert, convert),
        "collect": (Collect, collect_episodes),
        "check": (Check, check),
        "download": (Download, download),
    }[name]
    action(parse(kind, rest, f"gcrl data {name}"))  # type: ignore[operator]


def show_list(options: List) -> None:
    """Print one line per dataset."""
    from gcrl_gym.datasets import list_datasets

    rows = list_datasets(options.data_dir)
    shown = [row for row in rows if row.available or options.all]
    width = max((len(row.id) for row in shown), default=0)
    for row in shown:
        size = "" if row.size is None else f"{row.size:,.1f} MB"
        print(f"{row.id:<{width}}  {row.source:<10} {size:>12}  {_state(row)}")
    hidden = len(rows) - len(shown)
    if hidden:
        loadable = sum(row.downloadable for row in rows)
        print(
            f"{hidden} more need their source file (--all shows them, --data-dir finds files); "
            f"{loadable} of them can be downloaded."
        )


def _state(row: DatasetRow) -> str:
    if row.local:
        return "local"
    if row.available:
        return "made on first use"
    return "can be downloaded" if row.downloadable else "needs its file"


def download(options: Download) -> None:
    """Download one file and print where it is."""
    from gcrl_gym.datasets.catalog import fetch_file

    path = fetch_file(
        options.id,
        options.data_dir,
        offline=options.offline or None,
        accept_other_bytes=options.accept_other_bytes,
    )
    print(path)


def show_one(options: Show) -> None:
    """Print sizes, spaces and where the data came from."""
    from gcrl_gym.datasets import OfflineDataset
    from gcrl_gym.experiments.run import open_stored

    dataset = OfflineDataset.from_minari(open_stored(options.id, options.data_dir))
    print(dataset.describe())
    hidden = {"observation_space", "action_space", "total_steps", "total_episodes"}
    for key, value in sorted(dataset.metadata.items()):
        if key not in hidden and value is not None:
            print(f"  {key}: {value}")


def convert(options: Convert) -> None:
    """Convert one file and print the id it loads by."""
    from gcrl_gym.datasets import load_dataset
    from gcrl_gym.datasets.sources import sources

    path = Path(options.source).expanduser()
    if not path.exists() or (path.is_dir() and options.id is None):
        if path.suffix or path.is_dir():
            what = "is a folder: say with --id what to make of its files" if path.is_dir() else ""
            raise UserError(f"{path} {what or 'does not exist; give a file, or a dataset id'}.")
        _announce(load_dataset(options.source, options.data_dir))
        return
    made: dict[str, tuple[Source, str]] = {}
    for source in sources():
        for id in source.ids():
            made.setdefault(source.file(id) or "", (source, id))  # plain ids come before variants
            if id == options.id and source.file(id) is not None:
                _announce(source.make(id, path, options.overwrite))
                return
    if options.id is not None:
        raise UserError(f"No dataset {options.id!r} is made from a file; see gcrl data list --all.")
    if path.name not in made:
        hint = nearest(path.name, made)
        raise UserError(
            f"{path.name} is not the official name of a known source file.{hint} Say what it is "
            "with --id."
        )
    source, dataset_id = made[path.name]
    _announce(source.make(dataset_id, path, options.overwrite))


def collect_episodes(options: Collect) -> None:
    """Record and write the dataset."""
    from gcrl_gym.datasets.nav2d_io import KINDS, write_nav2d

    if options.no_rewards and not options.state_only:
        raise UserError(
            "--no-rewards leaves rewards out of data without actions: add --state-only."
        )
    scripted = options.env.startswith("gcrl/Nav2D") and options.policy in KINDS
    if scripted and not options.state_only:
        dataset = write_nav2d(
            options.id,
            options.policy,
            options.maze or "four_rooms",
            discrete="Discrete" in options.env,
            episodes=options.episodes,
            seed=options.seed,
        )
    else:
        dataset = _roll_out(options, scripted)
    _announce(dataset)


def make_env(env_id: str, /, **keywords: Any) -> gym.Env[Any, Any]:
    """Make an environment by its id.

    Raises:
        UserError: an unknown id or keyword.
    """
    import gymnasium as gym

    try:
        return gym.make(env_id, **keywords)
    except (gym.error.Error, TypeError) as error:
        hint = nearest(env_id, gym.registry)
        raise UserError(f"Cannot make {env_id!r}: {error}.{hint}") from error


def _roll_out(options: Collect, scripted: bool) -> MinariDataset:
    from gcrl_gym.agents import load
    from gcrl_gym.datasets.collect import collect, write_episodes
    from gcrl_gym.datasets.minari_io import check_new_id
    from gcrl_gym.datasets.nav2d_io import nav2d_episodes
    from gcrl_gym.wrappers import StateOnly

    check_new_id(options.id)
    keywords: dict[str, Any] = {} if options.maze is None else {"maze": options.maze}
    env = make_env(options.env, **keywords)
    if options.state_only:
        env = StateOnly(env, rewards=not options.no_rewards)
    count, seed = options.episodes, options.seed
    if scripted:
        maze = options.maze or "four_rooms"
        episodes = nav2d_episodes(options.policy, maze, episodes=count, seed=seed)
    elif options.policy == "random":
        env.action_space.seed(seed)
        episodes = collect(env, lambda observation: env.action_space.sample(), count, seed)
    else:
        agent = load(options.policy)
        with agent.sampling_seed(seed):
            episodes = collect(env, agent, count, seed)
    return write_episodes(options.id, env, episodes, {"policy": options.policy, "seed": seed})


def _announce(dataset: MinariDataset) -> None:
    from gcrl_gym.datasets.report import ConversionReport

    print(
        f"{dataset.id}: {dataset.total_episodes} episodes, {dataset.total_steps} steps",
        file=sys.stdout,
    )
    report = dataset.storage.metadata.get("report")
    if report is not None:
        print(ConversionReport(**report))
