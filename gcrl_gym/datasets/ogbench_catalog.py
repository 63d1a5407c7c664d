"""OGBench's dataset names: their grammar, their files, their environments, and the whole list.

``[visual-]<env>-<type>[-100m][-singletask[-task1..5] | -oraclerep][-val]-v0``, after ``ogbench/``.
The names are OGBench's own; ``-val`` is ours and asks for the validation file. Variants
(``singletask``, ``oraclerep``) are made from the file of the plain dataset::

    pointmaze-medium-navigate-v0                    pointmaze-medium-navigate-v0.npz
    pointmaze-medium-navigate-val-v0                pointmaze-medium-navigate-v0-val.npz
    pointmaze-medium-navigate-singletask-task3-v0   pointmaze-medium-navigate-v0.npz
    cube-octuple-play-100m-val-v0                   cube-octuple-play-100m-v0/*-val.npz
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gcrl_gym.errors import UserError

POWDERWORLD_ACTIONS = 8
"""Number of discrete actions in each Powderworld."""

_MAZES = {  # robot: mazes
    "pointmaze": ("medium", "large", "giant", "teleport"),
    "antmaze": ("medium", "large", "giant", "teleport"),
    "humanoidmaze": ("medium", "large", "giant"),
    "antsoccer": ("arena", "medium"),
}
_MANIPULATION = (
    *(f"cube-{count}" for count in ("single", "double", "triple", "quadruple")),
    "scene",
    *(f"puzzle-{size}" for size in ("3x3", "4x4", "4x5", "4x6")),
)
_LARGE = (  # published as folders of files, 100 million transitions each
    "humanoidmaze-giant-navigate",
    *(f"cube-{count}-play" for count in ("double", "triple", "quadruple", "octuple")),
    "cube-quadruple-noisy",
    "scene-play",
    *(f"puzzle-{size}-play" for size in ("3x3", "4x4", "4x5", "4x6")),
)
_TASKS = ("singletask", *(f"singletask-task{task}" for task in range(1, 6)))
_PATTERN = re.compile(
    r"(?:ogbench/)?(?P<env>[a-z0-9]+(?:-[a-z0-9]+)*?)"
    r"-(?!(?:val|singletask|task\d|oraclerep|\d+[mb])-)(?P<kind>[a-z0-9]+)"
    r"(?:-(?P<size>\d+[mb]))?"
    r"(?:-(?P<variant>oraclerep|singletask(?:-task[1-5])?))?"
    r"(?P<val>-val)?-(?P<version>v\d+)"
)


@dataclass(frozen=True)
class DatasetName:
    """The parts of a dataset id.

    Args:
        env: environment without version, such as ``visual-antmaze-large``.
        kind: type of the data, such as ``navigate``.
        size: ``"100m"`` for the sharded sets, else ``""``.
        variant: ``""``, ``"oraclerep"``, ``"singletask"`` or ``"singletask-task1"`` to ``5``.
        val: whether the validation data are meant.
        version: ``"v0"``.
    """

    env: str
    kind: str
    size: str = ""
    variant: str = ""
    val: bool = False
    version: str = "v0"

    @property
    def env_id(self) -> str:
        """Id of OGBench's environment; the one of the single task for such data."""
        task = f"-{self.variant}" if self.is_singletask else ""
        return f"{self.env}{task}-{self.version}"

    @property
    def is_singletask(self) -> bool:
        """Whether rewards of one fixed task are wanted."""
        return self.variant.startswith("singletask")

    @property
    def is_oracle(self) -> bool:
        """Whether goals are oracle representations."""
        return self.variant == "oraclerep"

    @property
    def file_name(self) -> str:
        """Official name of the file, or of the folder of the sharded sets."""
        if self.size:
            return f"{self.env}-{self.kind}-{self.size}-{self.version}"
        return f"{self.env}-{self.kind}-{self.version}{'-val' if self.val else ''}.npz"

    @property
    def family(self) -> str:
        """First word of the environment, ``visual`` aside."""
        return self.env.removeprefix("visual-").split("-")[0]


def parse(dataset_id: str) -> DatasetName:
    """Take a dataset id apart.

    Raises:
        UserError: the name does not have the form <environment>-<type>-v0.
    """
    match = _PATTERN.fullmatch(dataset_id)
    if match is None:
        raise UserError(
            f"{dataset_id!r} does not tell its environment; name the file as OGBench does, "
            "<environment>-<type>-v0.npz."
        )
    parts = match.groupdict(default="")
    return DatasetName(
        parts["env"],
        parts["kind"],
        parts["size"],
        parts["variant"],
        bool(parts["val"]),
        parts["version"],
    )


@cache
def dataset_ids() -> tuple[str, ...]:
    """Ids of all that OGBench publishes: the 85 sets, the 100M sets, their variants, both splits.

    Powderworld has no variants.
    """
    names = []
    for base in (*plain_names(), *(f"{name}-100m" for name in _LARGE)):
        variants: tuple[str, ...] = ("", "oraclerep", *_TASKS)
        names += [f"{base}-{variant}".rstrip("-") for variant in variants]
    names += [f"powderworld-{level}-play" for level in ("easy", "medium", "hard")]
    return tuple(f"ogbench/{name}{split}-v0" for name in names for split in ("", "-val"))


def plain_names() -> list[str]:
    """``<env>-<type>`` of the state-based and visual sets (without Powderworld)."""
    mazes = [
        f"{robot}-{maze}-{kind}"
        for robot, layouts in _MAZES.items()
        for maze in layouts
        for kind in ("navigate", "stitch")
    ]
    mazes += [f"antmaze-{maze}-explore" for maze in ("medium", "large", "teleport")]
    manipulation = [f"{env}-{kind}" for env in _MANIPULATION for kind in ("play", "noisy")]
    visual = [name for name in mazes if name.startswith(("antmaze", "humanoidmaze"))]
    return mazes + manipulation + [f"visual-{name}" for name in visual + manipulation]


def file_name(dataset_id: str) -> str:
    """Official name of the file (of the folder, for the 100M sets) that an id is made from."""
    return parse(dataset_id).file_name


def dataset_id_of(path: Path) -> str:
    """Dataset id of an official file or folder name."""
    base = path.stem.removesuffix("-v0-val")
    return f"ogbench/{path.stem}" if base == path.stem else f"ogbench/{base}-val-v0"


def env_id_of(dataset_id: str) -> str:
    """OGBench's environment of a dataset: its name without the dataset type.

    Raises:
        UserError: the name does not have the form <environment>-<type>-v0.
    """
    return parse(dataset_id).env_id


def cubes_and_buttons(env: str) -> tuple[int, int]:
    """Number of cubes and of buttons on the table of a manipulation environment."""
    mode = env.removeprefix("visual-").partition("-")[2]
    if "cube" in env:
        counts = {"single": 1, "double": 2, "triple": 3, "quadruple": 4, "octuple": 8}
        return counts.get(mode, 0), 0
    if "puzzle" in env:
        rows, _, columns = mode.partition("x")
        return 0, int(rows) * int(columns) if rows.isdigit() and columns.isdigit() else 0
    return 1, 2


def expected_shapes(name: DatasetName) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Shapes of one observation and one action, or None for an environment OGBench lacks.

    A discrete action has the shape ``()``.
    """
    cubes, buttons = cubes_and_buttons(name.env)
    robot = 19  # what a manipulation environment tells about its arm
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "pointmaze": ((2,), (2,)),
        "antmaze": ((29,), (8,)),
        "humanoidmaze": ((69,), (21,)),
        "antsoccer": ((42,), (8,)),
        "cube": ((robot + 9 * cubes,), (5,)),
        "scene": ((40,), (5,)),
        "puzzle": ((robot + 4 * buttons,), (5,)),
        "powderworld": ((32, 32, 6), ()),
    }
    found = shapes.get(name.family)
    if (name.family == "cube" and not cubes) or (name.family == "puzzle" and not buttons):
        return None
    if found is None or not name.env.startswith("visual-"):
        return found
    return (64, 64, 3), found[1]
