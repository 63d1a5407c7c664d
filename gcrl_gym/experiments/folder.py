"""The folder of a run: one process at a time, one spec, and what it was made with."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym

from gcrl_gym.checkpoint import atomic_write
from gcrl_gym.errors import UserError
from gcrl_gym.experiments.spec import RunSpec

if TYPE_CHECKING:
    from gcrl_gym.datasets import OfflineDataset


class Spec(Protocol):
    """What decides a run's result, as data."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""


@contextlib.contextmanager
def claim_folder(folder: Path, spec: Spec) -> Iterator[None]:
    """Make the run folder and hold it for this process.

    Raises:
        UserError: it cannot be written, holds another run, or another process trains in it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w", encoding="utf-8")  # noqa: SIM115 - held till the end
    except OSError as error:
        raise UserError(
            f"Cannot write the run folder {folder} ({error.strerror}); choose another --runs-dir."
        ) from error
    with lock:
        if not _try_lock(lock.fileno()):
            raise UserError(f"Another process is training in {folder}; wait for it or stop it.")
        stored = read_json(folder / "spec.json")
        if stored is not None:
            _check_same_run(folder, spec, stored.get("spec", {}))
        try:
            yield
        finally:
            if not (folder / "spec.json").exists():  # stopped before anything began
                _take_back(folder / ".lock", made)


def _take_back(lock: Path, folders: list[Path]) -> None:
    lock.unlink()
    with contextlib.suppress(OSError):  # another run has begun in one of them
        for folder in folders:
            folder.rmdir()


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: no lock, the folder's owner has to take care
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process dies
    except OSError:
        return False
    return True


def _check_same_run(folder: Path, spec: Spec, stored: dict[str, Any]) -> None:
    new = spec.to_dict()
    differ = [key for key in new.keys() | stored.keys() if new.get(key) != stored.get(key)]
    if differ:
        key = sorted(differ)[0]
        raise UserError(
            f"{folder} holds a run with {key} = {stored.get(key)!r}, not {new.get(key)!r}: "
            "delete it, or give this run another --runs-dir or --variant."
        )


def describe(spec: RunSpec, dataset: OfflineDataset, env: gym.Env[Any, Any]) -> dict[str, Any]:
    """Return the content of ``spec.json``: the spec, resolved, and what it ran with."""
    resolved = spec.hyperparameters()
    return {
        "spec": spec.to_dict(),
        "hyperparameters": {name: _plain(value) for name, (value, _) in resolved.items()},
        "not_default": {name: why for name, (_, why) in resolved.items() if why != "default"},
        "environment": None if env.spec is None else env.spec.id,
        "dataset": {"steps": dataset.num_steps, "episodes": dataset.num_episodes},
        **circumstances(),
    }


def circumstances() -> dict[str, Any]:
    """Return what a run is made with: versions, the source's commit and the machine."""
    from gcrl_gym.agents.archive import versions

    return {
        "versions": versions(),
        "commit": commit(),
        "machine": {"system": platform.platform(), "cpus": os.cpu_count()},
    }


def run_of(model: Path) -> dict[str, Any] | None:
    """Return the spec of the run that an archive belongs to, None where it is in no run folder."""
    for folder in (model.parent, model.parent.parent):
        stored = read_json(folder / "spec.json")
        if stored is not None:
            return {**stored["spec"], "folder": str(folder)}
    return None


def commit() -> str | None:
    """Return the git commit of the package's source, ``-dirty`` with local changes, or ``None``."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():  # an installed package inside somebody else's repository
        return None
    try:
        git = [
            "git",
            "-C",
            str(here),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=40",
            "--exclude=*",
        ]
        output = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return output.strip() or None


def peak_memory_mb() -> float | None:
    """Return the largest resident memory of this process in MB; ``None`` where it is unknown."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if platform.system() == "Darwin" else 2**10), 1)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str, tuple, type(None))) else repr(value)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a file, ``None`` when it is not there."""
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it to start again.") from error
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
