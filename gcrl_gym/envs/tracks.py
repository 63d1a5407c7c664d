"""Procedural race tracks: closed smooth centre lines, and grids that say how far the edge is.

A track is a function of an integer seed. Control points in a ring are joined by a closed cubic
B-spline, scaled to the field, and smoothed where they bend too much, until a car can follow; the
first candidate that also winds enough and keeps its distance from itself is the track. Driving is
counterclockwise on half of the tracks, and starts on the straightest part.

The world is the square field [-76, 76] x [-76, 76] in metres, y up. Two grids of half a metre make
every question about the road one look-up, wherever a car is:

    edge      signed distance from the edge of the road: n stands for (n + 0.5) / 32 m, positive on
              the road; cut off at 127 (4 m), which is the middle of the road, and at -127 (grass)
    nearest   index of the nearest point of the centre line

Points of the plane are complex numbers x + iy inside this module.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FIELD = 76.0
"""Half the side of the square field, in metres."""

HALF_WIDTH = 4.0
"""Half the width of the road, in metres."""

CELL = 0.5
"""Side of a cell of the grids, in metres."""

CELLS = round(2 * FIELD / CELL)
EDGE_UNIT = 1.0 / 32
"""Metres per unit of the ``edge`` grid."""

SPACING = 0.5
"""Distance of neighbouring points of the centre line, in metres (to within a thousandth)."""

MIN_RADIUS = 10.0
"""Smallest radius of the centre line, in metres."""

MAX_POINTS = 1024

_STREAM = 20_240
_EXTENT = 62.0  # half the longer side of the centre line's bounding box
_CONTROLS, _CONTROL_RADII = 14, (0.2, 1.0)
_DRAFT = 192  # points of a candidate
_MIN_TURNING = 12.0  # radians of steering in a lap; a circle has 6.28
_MIN_GAP = 17.0  # metres between parts of the centre line that are more than 32 m of road apart
_SMOOTHINGS = 60

Points = NDArray[np.complex128]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Track:
    """A closed centre line with M points, point 0 on the start line, and its grids.

    Attributes:
        seed: what it was made from.
        points: (M, 2) x, y at equal distances along the track, in driving order.
        tangents: (M, 2) unit vectors of the driving direction.
        curvature: (M,) in 1/m, positive where the road bends to the left.
        spacing: arc length between neighbouring points, in metres.
        edge: (CELLS, CELLS) int8, ``edge[row, column]`` for the cell at (x, y) = (column, row) from
            the lower left corner; see the module.
        nearest: (CELLS, CELLS) int16.
    """

    seed: int
    points: Floats
    tangents: Floats
    curvature: Floats
    spacing: float
    edge: NDArray[np.int8]
    nearest: NDArray[np.int16]

    @property
    def length(self) -> float:
        """Length of a lap in metres."""
        return self.spacing * len(self.points)

    @cached_property
    def left(self) -> Floats:
        """(M, 2) unit vectors to the left of the driving direction."""
        return np.stack([-self.tangents[:, 1], self.tangents[:, 0]], axis=1)

    def edge_distance(self, xy: ArrayLike) -> Floats:
        """Signed distance of positions (..., 2) from the road's edge in metres, shape (...).

        Positive on the road; interpolated between cells; cut off at 4 m on both sides.
        """
        at = np.clip((np.asarray(xy, np.float64) + FIELD) / CELL - 0.5, 0, CELLS - 1.001)
        low = at.astype(np.int64)
        x, y = np.moveaxis(at - low, -1, 0)
        column, row = np.moveaxis(low, -1, 0)
        grid = self.edge
        lower = grid[row, column] * (1 - x) + grid[row, column + 1] * x
        upper = grid[row + 1, column] * (1 - x) + grid[row + 1, column + 1] * x
        return np.asarray((lower * (1 - y) + upper * y + 0.5) * EDGE_UNIT)

    def index_of(self, xy: ArrayLike) -> NDArray[np.int64]:
        """Index of the centre-line point nearest to positions (..., 2), shape (...)."""
        cells = np.clip((np.asarray(xy, np.float64) + FIELD) / CELL, 0, CELLS - 1).astype(np.int64)
        return np.asarray(self.nearest[cells[..., 1], cells[..., 0]], np.int64)


@lru_cache(maxsize=128)
def get_track(seed: int) -> Track:
    """Return the track of a seed; tracks used lately are kept and shared."""
    rng = np.random.default_rng([_STREAM, seed])
    while True:
        line, step = _smooth(_spline(_control_points(rng)))
        mirrored = rng.random() < 0.5
        if _is_good(line, step):
            break
    if mirrored:
        line = -line.conj()
    # A spline again: straight pieces of two metres would show as kinks.
    points, spacing = _resample(_spline(line), round(step * _DRAFT / SPACING))
    before, after = np.roll(points, 2), np.roll(points, -2)
    tangents = (after - before) / np.abs(after - before)
    bend = after - 2 * points + before
    curvature = (tangents.conj() * bend).imag / (2 * spacing) ** 2
    start = _straightest(curvature)
    points, tangents = np.roll(points, -start), np.roll(tangents, -start)
    curvature = np.roll(curvature, -start)
    edge, nearest = _grids(points, tangents, curvature, spacing)
    arrays = (_pairs(points), _pairs(tangents), curvature, edge, nearest)
    for array in arrays:
        array.setflags(write=False)  # shared by every environment of the process
    return Track(seed, *arrays[:3], spacing, *arrays[3:])


def _pairs(points: Points) -> Floats:
    return np.stack([points.real, points.imag], axis=1)


def _control_points(rng: np.random.Generator) -> Points:
    """Draw a ring of points, counterclockwise, at uneven angles and distances from the middle."""
    low, high = _CONTROL_RADII
    draws = rng.random((_CONTROLS, 2)).tolist()
    # cmath, not numpy: its last bits do not depend on what the processor has.
    return np.array(
        [
            cmath.rect(low + (high - low) * b, (k + 0.9 * (a - 0.5)) * 2 * math.pi / _CONTROLS)
            for k, (a, b) in enumerate(draws)
        ]
    )


def _spline(controls: Points, pieces: int = 16) -> Points:
    """Closed uniform cubic B-spline: smooth, and inside the ring of its control points."""
    t = np.arange(pieces) / pieces
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    line = sum(np.roll(controls, -k)[:, None] * w / 6 for k, w in enumerate(weights))
    return np.asarray(line).ravel()


def _resample(line: Points, count: int) -> tuple[Points, float]:
    """Return ``count`` points at equal distances along a closed line, and that distance."""
    closed = np.concatenate([line, line[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(closed)))])
    step = float(along[-1]) / count
    return np.interp(np.arange(count) * step, along, closed), step


def _bends(line: Points, step: float, after: NDArray[Any], before: NDArray[Any]) -> Floats:
    """Curvature of a closed line with points at equal distances."""
    first, second = line[after] - line[before], line[after] - 2 * line + line[before]
    return np.asarray((first.conj() * second).imag / (2 * step**3))


def _smooth(line: Points) -> tuple[Points, float]:
    """Fit a line into the field and round its bends, where they are too tight, until none is."""
    after, before = (np.arange(_DRAFT) + 1) % _DRAFT, (np.arange(_DRAFT) - 1) % _DRAFT
    line, step = _resample(_fit(line), _DRAFT)
    for attempt in range(_SMOOTHINGS):
        tightness = np.abs(_bends(line, step, after, before)) * MIN_RADIUS
        if tightness.max() < 1:
            break
        weight = np.minimum(tightness, 1.5) ** 4
        for _ in range(2):  # the neighbours have to give way too
            weight = weight + weight[after] + weight[before]
        weight = np.minimum(0.5, weight)
        for _ in range(3):
            line = line + weight * ((line[after] + line[before]) / 2 - line)
        line, step = _resample(_fit(line) if attempt % 4 == 3 else line, _DRAFT)
    return line, step


def _fit(line: Points) -> Points:
    """Move and scale a line so that the longer side of its bounding box is 2 * _EXTENT."""
    low, high = line.real.min(), line.real.max()
    bottom, top = line.imag.min(), line.imag.max()
    middle = complex(low + high, bottom + top) / 2
    return np.asarray((line - middle) * (2 * _EXTENT / max(high - low, top - bottom)))


def _is_good(line: Points, step: float) -> bool:
    """Whether a candidate can be driven, is not dull, and keeps away from itself."""
    after, before = (np.arange(_DRAFT) + 1) % _DRAFT, (np.arange(_DRAFT) - 1) % _DRAFT
    bends = np.abs(_bends(line, step, after, before))
    if bends.max() > 1.02 / MIN_RADIUS or bends.sum() * step < _MIN_TURNING:
        return False
    if np.abs([*line.real, *line.imag]).max() > _EXTENT + 1 or step * _DRAFT > SPACING * 1000:
        return False
    some = line[::3]
    apart = np.abs(np.arange(len(some))[:, None] - np.arange(len(some)))
    apart = np.minimum(apart, len(some) - apart) * 3 * step
    return bool(np.abs(some[:, None] - some)[apart > 32].min() > _MIN_GAP)


def _straightest(curvature: Floats) -> int:
    """Index of the point with the least bend from 8 m before it to 24 m after it."""
    total = np.concatenate([[0.0], np.cumsum(np.abs(np.tile(curvature, 2)))])
    window, before = round(32 / SPACING), round(8 / SPACING)
    sums = total[window : window + len(curvature)] - total[: len(curvature)]
    return (int(np.argmin(sums)) + before) % len(curvature)


def _grids(
    points: Points, tangents: Points, curvature: Floats, spacing: float
) -> tuple[NDArray[np.int8], NDArray[np.int16]]:
    """Compute ``edge`` and ``nearest``: every point against coarse cells, then refined."""
    block = 4  # cells per side of a coarse cell
    coarse = (np.arange(CELLS // block) + 0.5) * block * CELL - FIELD
    some = points[::2].astype(np.complex64)
    dx = (coarse[:, None].astype(np.float32) - some.real) ** 2
    dy = (coarse[:, None].astype(np.float32) - some.imag) ** 2
    index = 2 * np.stack([np.argmin(dx + row, axis=1) for row in dy])
    index = index.repeat(block, axis=0).repeat(block, axis=1).ravel()
    centers = ((np.arange(CELLS) + 0.5) * CELL - FIELD).astype(np.float32)
    cells = np.add.outer(1j * centers, centers).astype(np.complex64).ravel()
    points, tangents = points.astype(np.complex64), tangents.astype(np.complex64)
    curvature = curvature.astype(np.float32)
    for step in range(3):
        offset = (cells - points[index]) * tangents[index].conj()  # ahead + i * left
        if step == 2:
            break
        # Newton's step of the foot point: towards the inside of a bend, less road passes.
        ahead = offset.real / np.maximum(1 - curvature[index] * offset.imag, 0.4)
        index = (index + np.rint(ahead / spacing).astype(np.int64)) % len(points)
    distance = np.maximum(np.abs(offset.imag), np.abs(offset) - SPACING / 2)
    edge = np.clip(np.floor((HALF_WIDTH - distance) / EDGE_UNIT), -127, 127)
    shape = (CELLS, CELLS)
    return edge.astype(np.int8).reshape(shape), index.astype(np.int16).reshape(shape)
