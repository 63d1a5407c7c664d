"""Pictures of Nav2D as observations: walls and the agent, many copies at once.

The walls of a maze are drawn once; the agent is a disc whose edge is smooth, so that a picture
tells its position more finely than a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gcrl_gym.envs.mazes import WORLD_SIZE, Maze

if TYPE_CHECKING:
    from gcrl_gym.envs.layouts import LayoutSet

SIZE = 64
IMAGE_SHAPE = (SIZE, SIZE, 3)
_FINE = 8  # sub-pixels per pixel and axis, when walls are drawn
_SCALE = SIZE / WORLD_SIZE
_RADIUS = 2.0  # of the agent, in pixels
_FLOOR, _WALL, _AGENT = (240, 238, 232), (69, 79, 99), (214, 84, 62)
_REACH = 3  # pixels around the agent's own that the disc can touch


def paint(
    layouts: LayoutSet, numbers: Sequence[int] | NDArray[np.int64], positions: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """Draw agents in their mazes.

    Args:
        layouts: the mazes.
        numbers: (N,) which maze each agent is in.
        positions: (N, 2) x, y in world units.

    Returns:
        (N, 64, 64, 3) uint8; the first row is the top, y = 10.
    """
    if layouts.count == 1:
        pictures: NDArray[np.uint8] = np.repeat(_walls(layouts[0])[None], len(positions), axis=0)
    else:
        pictures = np.stack([_walls(layouts[int(number)]) for number in numbers])
    x = positions[:, 0].astype(np.float64) * _SCALE
    y = SIZE - positions[:, 1].astype(np.float64) * _SCALE
    near = np.arange(-_REACH, _REACH + 1)
    columns = np.floor(x).astype(np.int64)[:, None] + near  # (N, 7)
    rows = np.floor(y).astype(np.int64)[:, None] + near
    across, down = columns + 0.5 - x[:, None], rows + 0.5 - y[:, None]
    away = np.sqrt(across[:, None, :] ** 2 + down[:, :, None] ** 2)  # (N, 7, 7)
    cover = np.clip(_RADIUS + 0.5 - away, 0.0, 1.0)
    inside = (rows >= 0)[:, :, None] & (rows < SIZE)[:, :, None]
    inside = inside & (columns >= 0)[:, None, :] & (columns < SIZE)[:, None, :]
    copy = np.arange(len(positions))[:, None, None]
    where = (copy, rows.clip(0, SIZE - 1)[:, :, None], columns.clip(0, SIZE - 1)[:, None, :])
    # Pixels outside the picture are moved to its edge: they must not paint there.
    copies, i, j = (np.broadcast_to(index, cover.shape)[inside] for index in where)
    share = cover[inside][:, None]
    below = pictures[copies, i, j]
    pictures[copies, i, j] = np.rint(below + share * (np.array(_AGENT) - below)).astype(np.uint8)
    return pictures


@lru_cache(maxsize=4096)
def _walls(maze: Maze) -> NDArray[np.uint8]:
    """Draw walls and floor, (64, 64, 3), smooth where a cell's edge crosses a pixel."""
    fine = (np.arange(SIZE * _FINE) + 0.5) / (_SCALE * _FINE)
    cells = (fine / maze.cell_size).astype(np.int64)
    walls = maze.walls[np.ix_(cells[::-1], cells)].astype(np.float64)
    share = walls.reshape(SIZE, _FINE, SIZE, _FINE).mean(axis=(1, 3))[..., None]
    picture = share * np.array(_WALL) + (1.0 - share) * np.array(_FLOOR)
    rounded: NDArray[np.uint8] = np.rint(picture).astype(np.uint8)
    return rounded
