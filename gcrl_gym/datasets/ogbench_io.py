"""OGBench's state-based npz files to Minari datasets; needs neither OGBench nor a simulator.

``<env>-<type>-v0.npz`` holds training data, ``<env>-<type>-v0-val.npz`` validation data; their ids
are ``ogbench/<env>-<type>-v0`` and ``ogbench/<env>-<type>-val-v0``. A row with ``terminals`` set is
the last state of an episode; its action leads nowhere and is dropped.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from gcrl_gym.datasets.columns import Array
from gcrl_gym.datasets.minari_io import versions, write_minari
from gcrl_gym.datasets.sources import Source
from gcrl_gym.errors import UserError
from gcrl_gym.progress import with_progress

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

INFO_KEYS = ("qpos", "qvel", "button_states")

_FAMILIES = {  # environment: (mazes or modes, dataset types)
    "pointmaze": (("medium", "large", "giant", "teleport"), ("navigate", "stitch")),
    "antmaze": (("medium", "large", "giant", "teleport"), ("navigate", "stitch")),
    "humanoidmaze": (("medium", "large", "giant"), ("navigate", "stitch")),
    "antsoccer": (("arena", "medium"), ("navigate", "stitch")),
    "cube": (("single", "double", "triple", "quadruple"), ("play", "noisy")),
    "puzzle": (("3x3", "4x4", "4x5", "4x6"), ("play", "noisy")),
}


def dataset_ids() -> list[str]:
    """Ids of OGBench's state-based datasets, training data and validation data."""
    names = [
        f"{family}-{mode}-{kind}"
        for family, (modes, kinds) in _FAMILIES.items()
        for mode in modes
        for kind in kinds
    ]
    names += [f"antmaze-{maze}-explore" for maze in ("medium", "large", "teleport")]
    names += ["scene-play", "scene-noisy"]
    return [f"ogbench/{name}{split}-v0" for name in names for split in ("", "-val")]


def file_name(dataset_id: str) -> str:
    """Official file name of a dataset id."""
    name = dataset_id.removeprefix("ogbench/")
    base = name.removesuffix("-val-v0")
    return f"{name}.npz" if base == name else f"{base}-v0-val.npz"


def dataset_id_of(path: Path) -> str:
    """Dataset id of an official file name."""
    base = path.stem.removesuffix("-v0-val")
    return f"ogbench/{path.stem}" if base == path.stem else f"ogbench/{base}-val-v0"


def env_id_of(dataset_id: str) -> str:
    """OGBench's environment of a dataset: its name without the dataset type.

    Raises:
        UserError: the name does not have the form <env>-<type>-v0.
    """
    words = dataset_id.removeprefix("ogbench/").replace("-val-v", "-v").split("-")
    if len(words) < 3 or not words[-1].startswith("v"):
        raise UserError(
            f"{dataset_id!r} does not tell its environment; name the file as OGBench does, "
            "<environment>-<type>-v0.npz."
        )
    return "-".join([*words[:-2], words[-1]])


def convert_ogbench(
    path: str | Path, dataset_id: str | None = None, *, overwrite: bool = False
) -> MinariDataset:
    """Convert one npz file of state-based OGBench data to a Minari dataset.

    Rewards are zero (the files have none: samplers compute them), episodes are truncated, never
    terminated. ``qpos``, ``qvel`` and ``button_states`` become infos.

    Args:
        path: the file, under its official name.
        dataset_id: id to write; from the file's name when None.
        overwrite: replace an existing dataset.

    Raises:
        UserError: a missing, damaged or foreign file, naming key and row, or an existing id.
    """
    path = Path(path)
    dataset_id = dataset_id or dataset_id_of(path)
    env_id = env_id_of(dataset_id)
    arrays = read_npz(path)
    observations, actions = arrays["observations"], arrays["actions"]
    spec = EnvSpec(
        id=env_id,
        entry_point="gcrl_gym.wrappers.goal_dict:make_goal_dict_env",
        kwargs={"env_id": env_id},
    )
    with open(path, "rb") as file:
        source_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return write_minari(
        dataset_id,
        _episodes(arrays, path.name),
        observation_space=spaces.Box(-np.inf, np.inf, observations.shape[1:], np.float32),
        action_space=spaces.Box(-1.0, 1.0, actions.shape[1:], np.float32),
        env_spec=spec,
        metadata={
            "source": "ogbench",
            "source_file": path.name,
            "source_sha256": source_sha256,
            "goal": "observation",
            "versions": versions("ogbench"),
        },
        overwrite=overwrite,
    )


def read_npz(path: Path) -> dict[str, Array]:
    """Read and check the arrays of an OGBench file.

    Returns:
        ``observations`` and ``actions`` (float32), ``terminals`` (bool), and the info keys of the
        file as stored, all with one row per state.

    Raises:
        UserError: see `convert_ogbench`.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; put OGBench's npz file there.")
    arrays = {}
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise UserError(
                    f"{path} is not an npz file (it has no zip signature); download it again."
                )
        with np.load(path, allow_pickle=False) as archive:
            missing = {"observations", "actions", "terminals"} - set(archive)
            if missing:
                raise UserError(f"{path} has no {sorted(missing)}; it holds {sorted(archive)}.")
            for key in ("observations", "actions", "terminals", *INFO_KEYS):
                if key in archive:
                    arrays[key] = archive[key]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged or incomplete ({error}); download it again.") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: {key} cannot be read ({error}).") from error
    _check_shapes(path, arrays)
    arrays["terminals"] = arrays["terminals"] > 0
    for key in ("observations", "actions"):
        arrays[key] = arrays[key].astype(np.float32, copy=False)
    _check_values(path, arrays)
    return arrays


def _check_shapes(path: Path, arrays: dict[str, Array]) -> None:
    """Check dtypes, widths and lengths."""
    rows = len(arrays["observations"])
    if rows == 0:
        raise UserError(f"{path}: observations has no rows.")
    for key, array in arrays.items():
        dims = 1 if key == "terminals" else 2
        if array.ndim != dims or len(array) != rows:
            expected = f"({rows},)" if dims == 1 else f"({rows}, width)"
            raise UserError(f"{path}: {key} has shape {array.shape}; expected {expected}.")
    for key in ("observations", "actions"):
        if arrays[key].dtype.kind != "f":
            raise UserError(
                f"{path}: {key} has dtype {arrays[key].dtype}; only state-based OGBench data "
                "(float observations and actions) can be converted."
            )


def _check_values(path: Path, arrays: dict[str, Array]) -> None:
    """Check that numbers are finite and that episodes end where they should."""
    for key, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argmin(np.isfinite(array).all(axis=1)))
            raise UserError(f"{path}: {key} holds NaN or infinity in row {row}.")
    ends = np.flatnonzero(arrays["terminals"])
    rows = len(arrays["terminals"])
    if len(ends) == 0 or ends[-1] != rows - 1:
        raise UserError(
            f"{path}: the last row ({rows - 1}) is not terminal, so its episode has no end; the "
            "file is cut short."
        )
    short = np.flatnonzero(np.diff(ends, prepend=-1) < 2)
    if len(short):
        raise UserError(
            f"{path}: episode {short[0]} (row {ends[short[0]]}) has a single row; expected a row "
            "per state, with terminals set on the last state of each episode only."
        )


def _episodes(arrays: dict[str, Array], name: str) -> Iterator[EpisodeBuffer]:
    """Yield the episodes, with a progress bar when that takes long."""
    from minari.data_collector import EpisodeBuffer

    ends = np.flatnonzero(arrays["terminals"])
    starts = np.concatenate(([0], ends[:-1] + 1))
    infos = [key for key in INFO_KEYS if key in arrays]
    for start, end in with_progress(list(zip(starts, ends)), f"Converting {name}"):
        steps = end - start
        truncations = np.zeros(steps, bool)
        truncations[-1] = True
        yield EpisodeBuffer(
            observations=arrays["observations"][start : end + 1],
            actions=arrays["actions"][start:end],
            rewards=np.zeros(steps, np.float32),
            terminations=np.zeros(steps, bool),
            truncations=truncations,
            infos={key: arrays[key][start : end + 1] for key in infos} or None,
        )


SOURCE = Source(
    "ogbench",
    ids=dataset_ids,
    file=file_name,
    make=lambda dataset_id, path: convert_ogbench(Path(path or ""), dataset_id),
)
