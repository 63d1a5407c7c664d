"""D4RL's datasets: ids, file names, addresses, published checksums, and what each family holds.

File names, folders and dimensions are those of ``d4rl/infos.py`` and of the D4RL paper
(https://arxiv.org/abs/2004.07219); sizes and checksums those of TensorFlow Datasets
(``tensorflow_datasets/d4rl/*/checksums.tsv``), which has none for maze2d, kitchen and relocate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gcrl_gym.datasets.sources import Remote
from gcrl_gym.errors import UserError, nearest

_SERVER = "http://rail.eecs.berkeley.edu/datasets/offline_rl"
_ARCHIVE = "https://web.archive.org/web/2id_"  # the newest snapshot, byte for byte


@dataclass(frozen=True)
class Family:
    """What the files of one environment hold.

    Args:
        name: ``locomotion``, ``maze2d``, ``antmaze``, ``kitchen`` or ``adroit``.
        widths: of observations and of actions.
        positions: how many leading columns of an observation are positions, in which a reset shows
            as a jump (velocities jump at every collision).
        ends: flags that end an episode. Without any (maze2d) the file is one run, whose
            ``timeouts`` mark changes of the goal.
        success_marks: ``terminals`` mark success and do not end an episode.
        limit: steps after which an episode was stopped, where that is one number.
    """

    name: str
    widths: tuple[int, int]
    positions: int
    ends: tuple[str, ...] = ("terminals", "timeouts")
    success_marks: bool = False
    limit: int | None = None


_MAZE2D = Family("maze2d", (4, 2), 2, ends=())
_ANTMAZE = Family("antmaze", (29, 8), 2, ends=("timeouts",), success_marks=True)
FAMILIES = {
    "hopper": Family("locomotion", (11, 3), 5, limit=1000),
    "halfcheetah": Family("locomotion", (17, 6), 8, limit=1000),
    "walker2d": Family("locomotion", (17, 6), 8, limit=1000),
    "ant": Family("locomotion", (111, 8), 13, limit=1000),
    "maze2d": _MAZE2D,
    "antmaze": _ANTMAZE,
    "kitchen": Family("kitchen", (60, 9), 9),
    "pen": Family("adroit", (45, 24), 24),
    "hammer": Family("adroit", (46, 26), 26),
    "door": Family("adroit", (39, 28), 27),
    "relocate": Family("adroit", (39, 30), 30),
}

_LOCOMOTION = ("hopper", "halfcheetah", "walker2d", "ant")
_KINDS = ("random", "medium", "expert", "medium-replay", "medium-expert")
_MAZE_SIZES = {"umaze": 300, "medium": 600, "large": 800}
_ANTMAZE_FILES = {
    "umaze": ("u-maze", False, False),
    "umaze-diverse": ("u-maze", True, True),
    "medium-play": ("big-maze", True, False),
    "medium-diverse": ("big-maze", True, True),
    "large-play": ("hardest-maze", True, False),
    "large-diverse": ("hardest-maze", True, True),
}
_ADROIT_V0 = {
    "human": "v0_demos_clipped",
    "cloned": "demos-v0-bc-combined",
    "expert": "v0_expert_clipped",
}
_KITCHEN_FILES = {
    "complete": "mini_kitchen_microwave_kettle_light_slider-v0",
    "partial": "kitchen_microwave_kettle_light_slider-v0",
    "mixed": "kitchen_microwave_kettle_bottomburner_light-v0",
}


@dataclass(frozen=True)
class Entry:
    """One dataset.

    Args:
        name: D4RL's own name, for example ``antmaze-umaze-v2``.
        env: key of `FAMILIES`.
        file: name of the published file.
        folder: folder of the file on D4RL's server.
        horizon: steps of an evaluation episode.
        goals: whether the observations are Dicts with goals (ids with ``-goal``).
    """

    name: str
    env: str
    file: str
    folder: str
    horizon: int
    goals: bool = False

    @property
    def family(self) -> Family:
        """What the file holds."""
        return FAMILIES[self.env]

    @property
    def dataset_id(self) -> str:
        """Id of the Minari dataset."""
        stem, _, version = self.name.rpartition("-")
        return f"d4rl/{stem}-goal-{version}" if self.goals else f"d4rl/{self.name}"

    @property
    def remote(self) -> Remote:
        """Where the file can be downloaded."""
        url = f"{_SERVER}/{self.folder}/{self.file}"
        size, sha256 = CHECKSUMS.get(self.file, (None, None))
        return Remote((url, f"{_ARCHIVE}/{url}"), size, sha256)


def dataset_ids() -> list[str]:
    """Ids of every dataset that can be converted."""
    return list(_entries())


def entry_of(dataset_id: str) -> Entry:
    """Return the entry of an id.

    Raises:
        UserError: no such id, naming the nearest.
    """
    entries = _entries()
    if dataset_id not in entries:
        raise UserError(f"Unknown D4RL dataset {dataset_id!r}.{nearest(dataset_id, entries)}")
    return entries[dataset_id]


def entry_of_file(path: Path, *, goals: bool = False) -> Entry:
    """Return the entry that a file's name tells.

    Raises:
        UserError: no published file has that name, or its data has no goals.
    """
    found = [entry for entry in _entries().values() if entry.file == path.name]
    if not found:
        names = {entry.file for entry in _entries().values()}
        raise UserError(
            f"{path}: no file of D4RL is named {path.name!r};{nearest(path.name, names)} name the "
            "file as D4RL does, or pass the dataset id, for example 'd4rl/hopper-medium-v2'."
        )
    entry = next((entry for entry in found if entry.goals == goals), None)
    if entry is None:
        raise UserError(
            f"{path}: {found[0].name} has no goals; goals=True is for antmaze and maze2d files."
        )
    return entry


@cache
def _entries() -> dict[str, Entry]:
    entries = [*_locomotion(), *_maze2d(), *_antmaze(), *_kitchen(), *_adroit()]
    return {entry.dataset_id: entry for entry in entries}


def _locomotion() -> list[Entry]:
    found = []
    for env in _LOCOMOTION:
        for kind in _KINDS:
            old = f"{env}_{'mixed' if kind == 'medium-replay' else kind.replace('-', '_')}.hdf5"
            if (env, kind) == ("walker2d", "medium-replay"):
                old = "walker_mixed.hdf5"
            found.append(Entry(f"{env}-{kind}-v0", env, old, "gym_mujoco", 1000))
        for version in ("v1", "v2"):
            for kind in (*_KINDS, "full-replay"):
                file = f"{env}_{kind.replace('-', '_')}-{version}.hdf5"
                folder = f"gym_mujoco_{version}"
                found.append(Entry(f"{env}-{kind}-{version}", env, file, folder, 1000))
    return found


def _maze2d() -> list[Entry]:
    found = []
    for size, horizon in _MAZE_SIZES.items():
        for name, reward in ((size, "sparse"), (f"{size}-dense", "dense")):
            file = f"maze2d-{size}-{reward}-v1.hdf5"
            found += [
                Entry(f"maze2d-{name}-v1", "maze2d", file, "maze2d", horizon, goals)
                for goals in (False, True)
            ]
    return found


def _antmaze() -> list[Entry]:
    found = []
    for kind, (maze, multistart, multigoal) in _ANTMAZE_FILES.items():
        stem = f"Ant_maze_{maze}_noisy_multistart_{multistart}_multigoal_{multigoal}_sparse"
        horizon = 700 if kind.startswith("umaze") else 1000
        places = (("v0", "ant_maze_new", ""), ("v2", "ant_maze_v2", "_fixed"))
        for version, folder, suffix in places:
            found += [
                Entry(
                    f"antmaze-{kind}-{version}",
                    "antmaze",
                    f"{stem}{suffix}.hdf5",
                    folder,
                    horizon,
                    goals,
                )
                for goals in (False, True)
            ]
    return found


def _kitchen() -> list[Entry]:
    return [
        Entry(f"kitchen-{kind}-v0", "kitchen", f"{stem}.hdf5", "kitchen", 280)
        for kind, stem in _KITCHEN_FILES.items()
    ]


def _adroit() -> list[Entry]:
    found = []
    for env in ("pen", "hammer", "door", "relocate"):
        horizon = 100 if env == "pen" else 200
        for kind, stem in _ADROIT_V0.items():
            old = f"{env}-{stem}.hdf5"
            found.append(Entry(f"{env}-{kind}-v0", env, old, "hand_dapg", horizon))
            new = f"{env}-{kind}-v1.hdf5"
            found.append(Entry(f"{env}-{kind}-v1", env, new, "hand_dapg_v1", horizon))
    return found


def _read_checksums() -> dict[str, tuple[int, str]]:
    text = (Path(__file__).parent / "d4rl_checksums.txt").read_text(encoding="utf-8")
    rows = (line.split() for line in text.splitlines())
    return {file: (int(size), sha256) for sha256, size, file in rows}


CHECKSUMS = _read_checksums()
"""Published (bytes, SHA-256) by file name."""
