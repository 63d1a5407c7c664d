"""What ``gcrl eval`` and ``gcrl record`` share: a trained agent and where to run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym

Model = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="MODEL", help="saved agent (.zip), or a run folder for its final one"),
]
Env = Annotated[str | None, tyro.conf.arg(metavar="ID", help="environment; by default the run's")]
Dataset = Annotated[
    str | None, tyro.conf.arg(metavar="ID", help="use this dataset's environment instead")
]


def load_model(
    model: str, env: str | None, dataset: str | None, data_dir: str | None
) -> tuple[Any, gym.Env[Any, Any], tuple[float, float] | None]:
    """Return the agent, its environment and the reference returns of the dataset, if it has them.

    The environment is the one named, or else that of the run folder which the agent is in.

    Raises:
        UserError: no such file, a damaged one, or nothing that tells the environment.
    """
    from gcrl_gym.agents import load
    from gcrl_gym.experiments.folder import run_of
    from gcrl_gym.video import prepare_rendering

    prepare_rendering()
    path = Path(model)
    if path.is_dir():
        path = path / "final_model.zip"
    agent = load(path)
    if env is None and dataset is None:
        run = run_of(path)
        if run is None:
            raise UserError(f"{path} is not in a run folder: name the environment with --env.")
        env, dataset = run["env"], run["dataset"]
    if env is not None:
        from gcrl_gym.agents.inputs import resolve_env

        return agent, resolve_env(env), None  # type: ignore[return-value]
    from gcrl_gym.evaluation import stored_references
    from gcrl_gym.experiments.run import open_dataset

    opened, made = open_dataset(str(dataset), data_dir)
    return agent, made, stored_references(opened.storage.metadata, made)
