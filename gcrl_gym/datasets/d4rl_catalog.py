"""D4RL's datasets: ids, file names, addresses, published checksums, and what each family holds.

File names, folders and dimensions are those of ``d4rl/infos.py`` and of the D4RL paper
(https://arxiv.org/abs/2004.07219); sizes and checksums those of TensorFlow Datasets
(``tensorflow_datasets/d4rl/*/checksums.tsv``), which has none for maze2d and kitchen.
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


# Bytes and SHA-256 by file name, as published.
CHECKSUMS: dict[str, tuple[int, str]] = {
    "Ant_maze_big-maze_noisy_multistart_True_multigoal_False_sparse.hdf5": (
        231110993,
        "527385c14b87892e8c222c43246546d6cd461fa2a5476d0b3b105ae422b7637c",
    ),
    "Ant_maze_big-maze_noisy_multistart_True_multigoal_True_sparse.hdf5": (
        231095454,
        "b77764cac90c23e09905539c49ceb3949b49c5b39eb9d51788cc64b9dd0a2c0d",
    ),
    "Ant_maze_hardest-maze_noisy_multistart_True_multigoal_False_sparse.hdf5": (
        230880846,
        "e37afef5b80b968b30cad2682f9a93ee1b400e3b58c7a7f45e7d425d03a2b03d",
    ),
    "Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse.hdf5": (
        231183929,
        "dda7acbdde1a94a14aa7b06a7e5d8141e60a03ccdc4578bff34b0444425bf11d",
    ),
    "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse.hdf5": (
        232533093,
        "188838316eab5882fa0e1dc8398b5e79772f64f27f0b78d6aebe838402a720c6",
    ),
    "Ant_maze_u-maze_noisy_multistart_True_multigoal_True_sparse.hdf5": (
        230854793,
        "4aff7f77b97a8dd62e513cac8f57da7cdb458cfac7ac0cec3081b7765f2da59d",
    ),
    "Ant_maze_big-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5": (
        231095166,
        "ad9dcbac05d1f8744a7a216083f513662f43f64f28a4a5eb225e9811902dfae7",
    ),
    "Ant_maze_hardest-maze_noisy_multistart_True_multigoal_False_sparse_fixed.hdf5": (
        230880653,
        "6d353df2457829925d7f9d4b0215587469908bd57478ea76f16417cfa944f471",
    ),
    "Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5": (
        231183710,
        "84f775eb7956ea9cc766704710dc520a8ab357adc7522ade47f556f0e335e284",
    ),
    "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5": (
        232532949,
        "5ef15257771c50ef4d23c7de001750e96c8bb5d9b6a5e4a821dcfb3065fbd130",
    ),
    "Ant_maze_u-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5": (
        230854272,
        "c771dd63963cd7d9f55f24a6d809064f6b82250a6aeac4c9d13f9a1d06e8c932",
    ),
    "hopper_expert-v2.hdf5": (
        152427435,
        "01aa219a5f8eea5e639eccdc636ec2bf40e317159a95cf4bf6e985f16909941b",
    ),
    "hopper_full_replay-v2.hdf5": (
        187998921,
        "56baf95963c51c1e964049a974566c50ba80f289390565523e60c0ba83e0982e",
    ),
    "hopper_medium-v2.hdf5": (
        152756557,
        "5bdf1bc4a713c82941de44633df669b36c89850b652a25985166796d25cf71a0",
    ),
    "hopper_medium_expert-v2.hdf5": (
        304537315,
        "9d51ad87f8c905be3880d84c6140bcdb7fbf39a19e046a237f238ba34fec9e26",
    ),
    "hopper_medium_replay-v2.hdf5": (
        75854457,
        "e121c5f7c9857a307baa9edc6a2c3b48e85fedb9ac316ecddd0f48ca7ef4e39b",
    ),
    "hopper_random-v2.hdf5": (
        152525345,
        "63103ef7059db4c0819bd054f4e83ff339030b50bcdb46bdbe50385f234b5054",
    ),
    "halfcheetah_expert-v2.hdf5": (
        237464597,
        "d9fe53bb994eb1e20a99b4fa3412cd76a1bb7966a7ff55e0fcbdd6081bd2965f",
    ),
    "halfcheetah_medium-v2.hdf5": (
        237727262,
        "41324e8487a9556d8cfa4538827f8937f4d63dae3030825ebc9f3a726ed08ca0",
    ),
    "halfcheetah_medium_expert-v2.hdf5": (
        474567252,
        "015db75dae5bbe8e94029b71fa0bafc2073365df0c94744e71031189f3f79c06",
    ),
    "halfcheetah_medium_replay-v2.hdf5": (
        59448533,
        "48d494a4770c11f48260736dec090b78bdca8375647ed4d24bfa5b6610c7f683",
    ),
    "halfcheetah_random-v2.hdf5": (
        237338037,
        "25407aef85b5d16c0f36b4149341edb4acc6a9e88c1db529b2de19e7464874ba",
    ),
    "walker2d_expert-v2.hdf5": (
        230567195,
        "2985dc3d436a8baa10e8f43f946fe1d7c6337a4e4fbc65def70618093b18c59a",
    ),
    "walker2d_medium-v2.hdf5": (
        232254996,
        "cf00f43add04c17fdfc2958dd581dea0851b2e5bedbe6fda073758a8f841aeda",
    ),
    "walker2d_medium_expert-v2.hdf5": (
        462197079,
        "6b8d7f868c45bbaedf460be797fb7271b46dee6ebe45fe7a64319f2005b59a04",
    ),
    "walker2d_medium_replay-v2.hdf5": (
        86323963,
        "e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db",
    ),
    "walker2d_random-v2.hdf5": (
        216109364,
        "4e863bb6090cf4a461548bd470564b32f1ae5b32ef3085f816b2ede7f092e7fa",
    ),
    "door-v0_demos_clipped.hdf5": (
        3118318,
        "9df6345e28fcec8f44c0af4d6dacc6ef996958b39b568f53df85cf41dd03412b",
    ),
    "door-human-v1.hdf5": (
        3121206,
        "f9691288c3ddf2b4e7b31bdae0d8444b80ba035515495f8a902d60c43ee09370",
    ),
    "door-cloned-v1.hdf5": (
        294356136,
        "1f6a60ecc4d2a2e5c02f41dd3412be61bb265a33dcf120ceee9e9682d4fe4d48",
    ),
    "door-expert-v1.hdf5": (
        536056678,
        "66df4cd4e0a1e0b72ea72653ce088e29ecbfa99bac3cd2b52e64092e9a0aaab4",
    ),
    "pen-human-v1.hdf5": (
        2040573,
        "209e345b2150b633f30a11612612c60f49e941f127ce6c4dc0cd790501c46f9f",
    ),
    "pen-cloned-v1.hdf5": (
        155074191,
        "6d1a982cee1950501bedebbddedbcbb377e6284d379986c83abac8a6c0be0c22",
    ),
    "pen-expert-v1.hdf5": (
        262040663,
        "3791b8ca6a802061770af2977c051ac3ae261488210ce73788760a5b8308f374",
    ),
}
