"""Pictures of N cars for agents: turned crops of painted tracks, all copies at once.

The road is painted once per track, from the grids of ``tracks``, at 0.25 m per texel and with
edges as soft as a pixel is wide; colours are numbers of a palette, so that a track takes 0.4 MB. A
picture is a crop of it, turned so that the car heads up:

         0                      95
      0  +-----------------------+
         |       the road        |   a pixel is 0.4 m wide
         |          ^            |
     62  |        [car]          |
     83  |                       |
     84  +-----------------------+
         |=====    speed         |   bars of three rows each, on black: speed from the left,
         |       ===  steering   |   steering angle and yaw rate from the middle
     95  |          == yaw rate  |
         +-----------------------+
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcrl_gym.envs.car_batch import CarBatch
from gcrl_gym.envs.car_dynamics import MAX_STEERING, State
from gcrl_gym.envs.car_sensors import TrackBank
from gcrl_gym.envs.tracks import EDGE_UNIT, FIELD, Track, get_track

SIZE, ROWS = 96, 84
PIXEL, TEXEL = 0.4, 0.25
CAR_ROW, CAR_COLUMN = 62.0, 47.5
_SIDE = round(2 * FIELD / TEXEL)

GRASS, GRASS_DARK, OUTSIDE = (111, 168, 84), (102, 158, 78), (70, 104, 62)
ASPHALT, MARK, WHITE, RED = (96, 99, 107), (168, 170, 174), (236, 236, 232), (206, 54, 50)
BODY, GLASS, TYRE = (40, 84, 204), (24, 32, 52), (20, 20, 22)
BLACK = (30, 30, 30)
GOAL, GOAL_ARROW = (255, 204, 0), (120, 20, 110)
BARS = ((240, 240, 240), (255, 160, 40), (70, 200, 240))  # speed, steering, yaw rate

KERB_BEND = 0.03
"""Bends of at least this curvature have kerbs, in 1/m."""

_FIXED = 16  # bits behind the point of texture coordinates
_BLOCK = 8  # copies drawn at a time, so that what is in between stays in the cache
_YAW_RANGE, _SPEED_RANGE = 2.0, 25.0
_STEERINGS = 15  # different pictures of the front wheels

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class TexturePool:
    """Painted tracks of a bank, one row per slot."""

    def __init__(self) -> None:
        self._seeds: list[int] = []
        self.texels = np.zeros((0, _SIDE * _SIDE), np.uint8)

    def follow(self, bank: TrackBank) -> None:
        """Hold exactly the tracks that the bank holds, in its order."""
        if self._seeds == bank.loaded:
            return
        rows = {seed: row for row, seed in enumerate(self._seeds)}
        texels = np.empty((len(bank.loaded), _SIDE * _SIDE), np.uint8)
        for slot, seed in enumerate(bank.loaded):
            texels[slot] = self.texels[rows[seed]] if seed in rows else texture(seed).ravel()
        self.texels, self._seeds = texels, list(bank.loaded)


def draw_pixels(cars: CarBatch, tolerance: float) -> Bytes:
    """Draw what each car sees: (N, 96, 96, 3).

    Args:
        cars: the batch; painted tracks are kept in its ``pictures``.
        tolerance: radius of the goal in metres.
    """
    pool = cars.pictures
    if pool is None:
        pool = cars.pictures = TexturePool()
    pool.follow(cars.bank)
    pictures = np.empty((cars.count, SIZE, SIZE, 3), np.uint8)
    for first in range(0, cars.count, _BLOCK):
        some = slice(first, first + _BLOCK)
        _crop(cars.state[:4, some], cars.bank.slots[some], pool.texels, pictures[some, :ROWS])
    if cars.mode == "goal":
        _draw_goals(cars, tolerance, pictures)
    _draw_cars(cars.state[State.STEERING], pictures)
    _draw_bars(cars, pictures[:, ROWS:])
    return pictures


def _crop(state: NDArray[np.float64], slots: Any, texels: Bytes, out: Bytes) -> None:
    """Fill ``out`` (n, ROWS, SIZE, 3) with turned crops."""
    unit = (1 << _FIXED) / TEXEL
    x, y, cos, sin = state[:, :, None]
    up, right = (CAR_ROW - np.arange(ROWS)) * PIXEL, (np.arange(SIZE) - CAR_COLUMN) * PIXEL
    columns = np.rint((x + FIELD + cos * up) * unit).astype(np.int32)[:, :, None]
    rows = np.rint((y + FIELD + sin * up) * unit).astype(np.int32)[:, :, None]
    columns = columns + np.rint(sin * right * unit).astype(np.int32)[:, None]
    rows = rows - np.rint(cos * right * unit).astype(np.int32)[:, None]
    for at in (columns, rows):  # beyond the field: its border goes on
        np.right_shift(at, _FIXED, out=at)
        np.minimum(np.maximum(at, _ZERO, out=at), _LAST, out=at)
    rows *= _SIDE
    rows += columns
    at = rows.astype(np.int64)
    at += slots[:, None, None] * (_SIDE * _SIDE)
    colours = _palette().take(texels.reshape(-1).take(at))
    out[:] = colours.view(np.uint8).reshape(*at.shape, 4)[..., :3]


# The painted track ----------------------------------------------------------------------------


@lru_cache(maxsize=64)
def texture(seed: int) -> Bytes:
    """Paint a track: (side, side) palette numbers, row 0 at the bottom."""
    colours = paint(get_track(seed))
    coarse = (colours >> 3).astype(np.int64)
    at = (coarse[..., 0] << 10) | (coarse[..., 1] << 5) | coarse[..., 2]
    return _nearest_colours().take(at)


def paint(track: Track) -> Bytes:
    """Paint a track in colours, (side, side, 3); row 0 at the bottom."""
    texels = ((np.arange(_SIDE) + 0.5) * TEXEL - FIELD).astype(np.float32)
    squares = np.floor(texels / 6) + np.floor(texels / 6)[:, None]
    picture = np.where(squares[..., None] % 2 > 0, _rgb(GRASS_DARK), _rgb(GRASS))
    rng = np.random.default_rng(track.seed)  # tufts, the same at every call
    tufts = 6 * rng.random((_SIDE // 2, _SIDE // 2), np.float32) - 3
    picture += tufts.repeat(2, axis=0).repeat(2, axis=1)[..., None]

    edge = _enlarge(track.edge.astype(np.float32) + 0.5) * np.float32(EDGE_UNIT)
    near = np.flatnonzero(edge > -1.0)  # the rest is grass
    nearest = track.nearest.repeat(2, axis=0).repeat(2, axis=1).take(near)
    places = np.stack([texels[near % _SIDE], texels[near // _SIDE]], axis=1)
    flat = picture.reshape(-1, 3)
    flat[near] = _paint_road(track, flat[near], edge.take(near), nearest, places)
    picture[[0, -1]] = OUTSIDE
    picture[:, [0, -1]] = OUTSIDE
    return np.asarray(np.rint(np.clip(picture, 0, 255)), np.uint8)


def _paint_road(
    track: Track, ground: Floats, edge: Floats, nearest: NDArray[np.int16], places: Floats
) -> Floats:
    """Paint asphalt, dashes, kerbs and the start line over the ground.

    Args:
        track: whose road.
        ground: (K, 3) colours of K texels.
        edge: (K,) their signed distances from the edge.
        nearest: (K,) their nearest centre-line points.
        places: (K, 2) where they are.
    """
    offsets = places - track.points[nearest].astype(np.float32)
    along = (offsets * track.tangents[nearest]).sum(axis=1) + nearest * track.spacing
    lateral = (offsets * track.left[nearest]).sum(axis=1)

    def cover(share: Any, colour: Floats) -> None:
        ground[:] += np.clip(share, 0, 1)[:, None] * (colour - ground)

    soft = PIXEL
    cover(0.5 + edge / soft, _rgb(ASPHALT))
    dashes = (along % 6 < 3) & (track.length - along > 3)
    cover(dashes * (0.5 + (0.18 - np.abs(lateral)) / soft), _rgb(MARK))
    kerbs = near_bends(track)[nearest]
    middle, half = np.where(kerbs, 0.05, 0.35), np.where(kerbs, 0.5, 0.2)
    stripe = np.floor(along / (track.length / round(track.length / 2)))
    red = kerbs & (stripe % 2 == 0)
    band = 0.5 + (half - np.abs(edge - middle)) / soft
    cover(band, np.where(red[:, None], _rgb(RED), _rgb(WHITE)))
    from_line = np.where(along < track.length / 2, along, along - track.length)
    squares = np.floor(lateral) + np.floor(from_line)
    line = (np.abs(from_line) < 1.0) & (edge > 0)
    cover(line, np.where(squares[:, None] % 2 > 0, _rgb(WHITE), _rgb(BLACK)))
    return ground


def _rgb(colour: tuple[int, int, int]) -> Floats:
    return np.array(colour, np.float32)


def near_bends(track: Track) -> NDArray[np.bool_]:
    """Which centre-line points have kerbs: bends, and 3 m around them."""
    bends = np.abs(track.curvature) > KERB_BEND
    return np.asarray(np.any([np.roll(bends, k) for k in range(-6, 7)], axis=0))


def _enlarge(grid: Floats) -> Floats:
    """Twice as many cells per side, interpolated."""
    for _ in range(2):
        grid = np.pad(grid, ((1, 1), (0, 0)), mode="edge")
        middle = 0.75 * grid[1:-1]
        pairs = np.stack([middle + 0.25 * grid[:-2], middle + 0.25 * grid[2:]], axis=1)
        grid = pairs.reshape(-1, grid.shape[1]).T
    return grid


@cache
def _palette() -> NDArray[np.uint32]:
    """256 colours as packed red, green, blue, 255."""
    mixed = [WHITE, RED, MARK, ASPHALT, GRASS, GRASS_DARK]
    shares = np.linspace(0, 1, 10)[:, None]
    colours = [np.array([OUTSIDE, BLACK], float)]
    for index, one in enumerate(mixed):
        colours += [(1 - shares) * one + shares * other for other in mixed[index + 1 :]]
    colours += [np.add(GRASS, GRASS_DARK) / 2 + k for k in np.arange(-8, 9)[:, None, None]]
    found = np.unique(np.rint(np.concatenate(colours)).astype(np.uint8), axis=0)
    palette = np.full((256, 4), 255, np.uint8)
    palette[: len(found), :3] = found[:256]
    return palette.view(np.uint32).ravel()


@cache
def _nearest_colours() -> Bytes:
    """Palette number of every colour of five bits per channel, (32768,)."""
    palette = _palette().view(np.uint8).reshape(-1, 4)[:, :3].astype(np.float32)
    levels = np.arange(32, dtype=np.float32) * 8 + 4
    red = (levels[:, None] - palette[:, 0]) ** 2
    green = (levels[:, None] - palette[:, 1]) ** 2
    blue = (levels[:, None] - palette[:, 2]) ** 2
    planes = [np.argmin((r + green)[:, None] + blue, axis=-1) for r in red]
    return np.stack(planes).astype(np.uint8).ravel()


# What moves -----------------------------------------------------------------------------------


@cache
def _sprites() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Car pictures (steerings, 15, 9, 3), times their opacity (.., 1) of 255."""
    fine = 8
    rows, columns = 15, 9
    up = (7 - (np.arange(rows * fine) + 0.5) / fine + 0.5) * PIXEL
    right = ((np.arange(columns * fine) + 0.5) / fine - columns / 2) * PIXEL
    up, right = up[:, None], right[None]
    layers = []
    for angle in np.linspace(-MAX_STEERING, MAX_STEERING, _STEERINGS):
        colour = np.zeros((rows * fine, columns * fine, 3))
        opacity = np.zeros((rows * fine, columns * fine, 1))
        parts = [
            (TYRE, f, s, 0.55, 0.28, a)
            for f, a in ((1.35, angle), (-1.35, 0.0))
            for s in (-0.95, 0.95)
        ]
        parts += [(BODY, 0.0, 0.0, 2.2, 0.78, 0.0), (GLASS, -0.15, 0.0, 0.75, 0.5, 0.0)]
        parts += [(WHITE, 1.3, 0.0, 0.5, 0.2, 0.0)]
        for paint_of, forward, side, half_length, half_width, turn in parts:
            f, s = up - forward, right - side
            ahead, across = f * np.cos(turn) - s * np.sin(turn), f * np.sin(turn) + s * np.cos(turn)
            inside = (np.abs(ahead) < half_length) & (np.abs(across) < half_width)
            colour[inside], opacity[inside] = paint_of, 1.0
        shape = (rows, fine, columns, fine, -1)
        layers.append([a.reshape(shape).mean(axis=(1, 3)) for a in (colour, opacity)])
    pictures, opacities = (np.stack(part) for part in zip(*layers))
    return np.rint(pictures * 255).astype(np.uint16), np.rint(opacities * 255).astype(np.uint16)


def _draw_cars(steering: NDArray[np.float64], pictures: Bytes) -> None:
    """Lay the car, with its wheels turned, over the middle of each picture."""
    colours, opacities = _sprites()
    # The sprite at angle -MAX_STEERING (to the right) is the first.
    which = np.rint((steering / MAX_STEERING + 1) * ((_STEERINGS - 1) / 2)).astype(np.int64)
    top, left = int(CAR_ROW) - 7, int(CAR_COLUMN + 0.5) - 4
    patch = pictures[:, top : top + 15, left : left + 9]
    behind = patch * (255 - opacities[which])  # of at most 255 * 255
    patch[:] = (colours[which] + behind) // 255


def _draw_goals(cars: CarBatch, tolerance: float, pictures: Bytes) -> None:
    """Draw the goals that are in view: a disc of the tolerance's size with an arrow."""
    x, y, cos, sin = cars.state[:4]
    goal_x, goal_y, goal_cos, goal_sin = cars.goals.T.astype(np.float64)
    dx, dy = goal_x - x, goal_y - y
    row = CAR_ROW - (dx * cos + dy * sin) / PIXEL
    column = CAR_COLUMN + (dx * sin - dy * cos) / PIXEL
    radius = max(tolerance / PIXEL, 2.0)
    reach = int(1.6 * radius) + 2
    shown = (row > -reach) & (row < ROWS + reach) & (column > -reach) & (column < SIZE + reach)
    copies = np.flatnonzero(shown)
    if not len(copies):
        return
    offsets = np.arange(-reach, reach + 1)
    rows = np.rint(row[copies]).astype(np.int64)[:, None, None] + offsets[:, None]
    columns = np.rint(column[copies]).astype(np.int64)[:, None, None] + offsets
    inside = (rows >= 0) & (rows < ROWS) & (columns >= 0) & (columns < SIZE)
    up, right = row[copies, None, None] - rows, columns - column[copies, None, None]
    # Heading of the goal in the car's frame, then places in the goal's frame.
    c = (goal_cos * cos + goal_sin * sin)[copies, None, None]
    s = (goal_sin * cos - goal_cos * sin)[copies, None, None]
    ahead, across = up * c - right * s, np.abs(up * s + right * c)
    distance = np.sqrt(up * up + right * right)
    ring = np.clip(1.5 - np.abs(distance - radius), 0, 1)
    disc = 0.35 * np.clip(radius - distance + 0.5, 0, 1)
    length = 1.5 * radius
    head = np.clip((length - ahead) * 0.6 - across + 0.5, 0, 1) * (ahead > length - 0.7 * radius)
    shaft = np.clip(1.3 - across, 0, 1) * ((ahead > -0.7 * radius) & (ahead <= length - 1))
    copy, i, j = np.nonzero(inside)
    at = copies[copy], rows[copy, i, 0], columns[copy, 0, j]
    colour = pictures[at].astype(np.float64)
    for share, over in ((np.maximum(ring, disc), GOAL), (np.maximum(head, shaft), GOAL_ARROW)):
        colour += share[copy, i, j, None] * (np.array(over) - colour)
    pictures[at] = np.rint(colour).astype(np.uint8)


def _draw_bars(cars: CarBatch, strip: Bytes) -> None:
    """Fill the strip (N, 12, SIZE, 3) below the pictures."""
    state = cars.state
    columns = np.arange(SIZE)
    ends = np.stack(
        [
            cars.speed() * (SIZE / _SPEED_RANGE),
            SIZE / 2 * (1 - state[State.STEERING] / MAX_STEERING),  # to the right: a right turn
            SIZE / 2 * (1 - state[State.YAW_RATE] / _YAW_RANGE),
        ],
        axis=1,
    )  # (N, 3)
    begins = np.array([0.0, SIZE / 2, SIZE / 2])
    low, high = np.minimum(ends, begins)[..., None], np.maximum(ends, begins)[..., None]
    lit = np.minimum(high, columns + 1) - np.maximum(low, columns)
    lit = np.minimum(np.maximum(lit, 0.0), 1.0)[..., None]  # share of each pixel, (N, 3, SIZE, 1)
    bars = np.rint(lit * np.array(BARS, float)[:, None]).astype(np.uint8)
    strip[:] = 0
    for bar in range(3):
        strip[:, 4 * bar + 1 : 4 * bar + 4] = bars[:, bar, None]
    strip[:, 4:, SIZE // 2] |= 60


_ZERO, _LAST = np.int32(0), np.int32(_SIDE - 1)
