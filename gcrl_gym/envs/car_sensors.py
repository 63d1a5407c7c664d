"""What N cars on many tracks sense: the road under them, rays to its edge, the way ahead.

``TrackBank`` keeps the grids of all tracks in use in one flat array each, so that a question of N
cars is one look-up. Nothing here depends on N or on the other cars.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcrl_gym.envs.car_dynamics import rotate
from gcrl_gym.envs.tracks import CELL, CELLS, EDGE_UNIT, FIELD, MAX_POINTS, SPACING, get_track

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]

RAY_ANGLES = (90, 60, 38, 22, 9, 0, -9, -22, -38, -60, -90)
"""Directions of the rays in degrees from the heading, left is positive."""

RAY_LENGTH = 30.0
"""Longest distance that a ray reports, in metres."""

AHEAD = (3, 6, 9, 12, 16, 20, 25, 30, 36, 42)
"""Arc lengths of the way ahead at which centre-line points are given, in metres."""

_BORDER = round(RAY_LENGTH / CELL) + 2  # cells of grass around the field, so that rays end in it
_SIDE = CELLS + 2 * _BORDER
_PATH = MAX_POINTS + round(AHEAD[-1] / SPACING) + 1
_ROUGH, _FINE = 5, 2  # steps of a ray with the nearest cell, and with four interpolated
_LEAST_SLOPE, _LONGEST_STEP = np.float32(0.1), np.float32(8.0)
_SPARE = 64


class TrackBank:
    """Tracks of N cars, one slot for each track in use.

    Args:
        count: number of cars, all on track ``first`` at the beginning.
        first: seed.

    Attributes:
        seeds: (N,) each car's track.
        slots: (N,) each car's slot.
        loaded: seed of the track in each slot.
        points: (N,) number of centre-line points of each car's track.
    """

    def __init__(self, count: int, first: int) -> None:
        self.seeds = np.full(count, first, np.int64)
        self._fill([first])
        self._point(np.arange(count))

    def place(self, cars: Ints, seeds: Ints) -> None:
        """Put cars on tracks; tracks that no car is on any more are forgotten when they are many.

        Args:
            cars: (K,) which cars.
            seeds: (K,) tracks.
        """
        self.seeds[cars] = seeds
        new = [seed for seed in dict.fromkeys(seeds.tolist()) if seed not in self._slot_of]
        if new and len(self.loaded) + len(new) > len(self.seeds) + _SPARE:
            self._forget()
            cars = np.arange(len(self.seeds))
        if new:
            self._append(new)
        self._point(cars)

    def __getstate__(self) -> dict[str, Any]:
        """Keep which tracks there are; their grids are made again."""
        return {"seeds": self.seeds}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.seeds = state["seeds"]
        self._fill(list(dict.fromkeys(self.seeds.tolist())))
        self._point(np.arange(len(self.seeds)))

    def _fill(self, seeds: list[int]) -> None:
        self.loaded: list[int] = []
        self._slot_of: dict[int, int] = {}
        self._edge = np.zeros((0, _SIDE * _SIDE), np.int8)
        self._nearest = np.zeros((0, CELLS * CELLS), np.int16)
        self._path = np.zeros((2, 0, _PATH), np.float32)
        self._counts = np.zeros(0, np.int64)
        self._append(seeds)

    def _append(self, seeds: list[int]) -> None:
        tracks = [get_track(seed) for seed in seeds]
        edge = np.full((len(seeds), _SIDE, _SIDE), -127, np.int8)
        path = np.zeros((2, len(seeds), _PATH), np.float32)
        for slot, track in enumerate(tracks):
            edge[slot, _BORDER:-_BORDER, _BORDER:-_BORDER] = track.edge
            round_again = np.arange(_PATH) % len(track.points)
            path[:, slot] = track.points[round_again].T
        for seed in seeds:
            self._slot_of[seed] = len(self.loaded)
            self.loaded.append(seed)
        self._edge = np.concatenate([self._edge, edge.reshape(len(seeds), -1)])
        nearest = [track.nearest.reshape(1, -1) for track in tracks]
        self._nearest = np.concatenate([self._nearest, *nearest])
        self._path = np.concatenate([self._path, path], axis=1)
        counts = [len(track.points) for track in tracks]
        self._counts = np.concatenate([self._counts, np.array(counts, np.int64)])

    def _forget(self) -> None:
        """Drop the tracks that no car is on."""
        used = set(self.seeds.tolist())
        keep = [slot for slot, seed in enumerate(self.loaded) if seed in used]
        self._edge, self._nearest = self._edge[keep], self._nearest[keep]
        self._path, self._counts = self._path[:, keep], self._counts[keep]
        self.loaded = [self.loaded[slot] for slot in keep]
        self._slot_of = {seed: slot for slot, seed in enumerate(self.loaded)}

    def _point(self, cars: Ints) -> None:
        """Write where the arrays of these cars' tracks begin."""
        if len(cars) == len(self.seeds):
            self.slots = np.zeros(len(cars), np.int64)
        self.slots[cars] = [self._slot_of[seed] for seed in self.seeds[cars].tolist()]
        self.points = self._counts[self.slots]
        self._edge_at = (self.slots * _SIDE**2).astype(np.int32)
        self._nearest_at = self.slots * CELLS**2
        self._path_at = self.slots * _PATH

    # Look-ups; arguments are float64 with one car per column ----------------------------------

    def edge_distance(self, x: Floats, y: Floats) -> Floats:
        """Signed distance from the road's edge of positions (..., N) in metres, to 0.35 m."""
        scale, shift = 1 / CELL, FIELD / CELL + _BORDER
        column, row = (x * scale + shift).astype(np.int32), (y * scale + shift).astype(np.int32)
        cells = self._edge.take(row * _SIDE + column + self._edge_at)
        return np.asarray((cells + 0.5) * EDGE_UNIT)

    def nearest(self, x: Floats, y: Floats, cars: Ints | None = None) -> Ints:
        """Index of the nearest centre-line point to places in the field, one per car, shape (N,).

        Args:
            x: (N,), or (K,) where ``cars`` names K of them.
            y: the same.
            cars: (K,) whose tracks; all when None.
        """
        column, row = ((x + FIELD) / CELL).astype(np.int32), ((y + FIELD) / CELL).astype(np.int32)
        at = self._nearest_at if cars is None else self._nearest_at[cars]
        return self._nearest.take(row * CELLS + column + at).astype(np.int64)

    def pose(self, cars: Ints, place: Floats | Ints, lateral: Floats, half: Floats) -> Floats:
        """Poses beside the centre line.

        Args:
            cars: (K,) whose tracks.
            place: (K,) points along the track, rounded down, round and round.
            lateral: (K,) metres to the left.
            half: (K,) tangent of half the angle to the road, counterclockwise.

        Returns:
            (4, K) x, y, cos, sin.
        """
        index = np.floor(place).astype(np.int64) % self.points[cars] + self._path_at[cars]
        x, y = self._path.reshape(2, -1)[:, index].astype(np.float64)
        dx, dy = self._path.reshape(2, -1)[:, index + 1].astype(np.float64) - [x, y]
        scale = 1 / np.sqrt(dx * dx + dy * dy)
        cos, sin = dx * scale, dy * scale
        x, y = x - lateral * sin, y + lateral * cos
        return np.stack([x, y, *rotate(cos, sin, half)])

    def way_ahead(self, index: Ints, state: Floats) -> Floats32:
        """Centre-line points ahead in the cars' frames.

        Args:
            index: (N,) nearest centre-line points.
            state: (8, N) of the dynamics.

        Returns:
            (2, len(AHEAD), N) metres forwards and to the left.
        """
        at = _AHEAD_POINTS + (index + self._path_at)
        x, y, cos, sin = state[:4].astype(np.float32)
        dx, dy = self._path[0].take(at) - x, self._path[1].take(at) - y
        return np.stack([dx * cos + dy * sin, dy * cos - dx * sin])

    def rays(self, state: Floats) -> Floats32:
        """Distances to the road's edge.

        A ray is traced through the grid of distances: where the edge is d away, it may go on by d,
        and by more when the distance falls slower than the ray advances (over-relaxed sphere
        tracing). The longest step is shorter than the grass between two parts of a road is wide.

        Args:
            state: (8, N) of the dynamics.

        Returns:
            (N, len(RAY_ANGLES)) metres in [0, RAY_LENGTH]; negative from a car on the grass.
        """
        # All rays of a car lie together: what they look up is in the same part of the memory.
        rays = len(RAY_ANGLES)
        u, v = (state[:2] * (1 / CELL) + (FIELD / CELL + _BORDER)).astype(np.float32)
        cos, sin = (state[2:4] * (1 / CELL)).astype(np.float32)[:, :, None]
        du, dv = (_COS * cos - _SIN * sin).ravel(), (_SIN * cos + _COS * sin).ravel()
        here = self._cell(u, v, self._edge_at)
        sign = np.where(here > 0, np.float32(EDGE_UNIT), np.float32(-EDGE_UNIT))
        unit, u, v = sign.repeat(rays), u.repeat(rays), v.repeat(rays)
        base = self._edge_at.repeat(rays)
        far = np.full_like(du, RAY_LENGTH)
        before = here.repeat(rays)
        before *= unit
        way = before.copy()
        step = before
        for turn in range(_ROUGH + _FINE):
            look = self._cell if turn < _ROUGH else self._between
            gap = look(u + way * du, v + way * dv, base)
            gap *= unit
            slope = before - gap
            slope /= step + _TINY
            np.minimum(np.maximum(slope, _LEAST_SLOPE, out=slope), _ONE, out=slope)
            step = np.minimum(gap / slope, _LONGEST_STEP)
            way += step
            np.minimum(np.maximum(way, _ZERO, out=way), far, out=way)
            before = gap
        way *= np.sign(unit)
        return way.reshape(-1, rays)

    def _cell(self, u: Floats32, v: Floats32, base: NDArray[np.int32]) -> Floats32:
        """Distance from the edge in units of the grid, at cell coordinates; of the nearest cell."""
        at = v.astype(np.int32)
        at *= _SIDE
        at += u.astype(np.int32)
        at += base
        distance = self._edge.take(at).astype(np.float32)
        distance += _HALF
        return distance

    def _between(self, u: Floats32, v: Floats32, base: NDArray[np.int32]) -> Floats32:
        """The same, interpolated between the four cells around."""
        u, v = u - _HALF, v - _HALF
        column, row = u.astype(np.int32), v.astype(np.int32)
        u -= column
        v -= row
        row *= _SIDE
        row += column
        row += base
        corners = []
        for offset in (0, 1, _SIDE, _SIDE + 1):
            corners.append(self._edge.take(row + offset).astype(np.float32))
        low, low_right, high, high_right = corners
        low_right -= low
        low += low_right * u
        high_right -= high
        high += high_right * u
        high -= low
        low += high * v
        low += _HALF
        return low


_AHEAD_POINTS = np.rint(np.array(AHEAD) / SPACING).astype(np.int64)[:, None]
_COS = np.cos(np.radians(RAY_ANGLES)).astype(np.float32)
_SIN = np.sin(np.radians(RAY_ANGLES)).astype(np.float32)
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_TINY = np.float32(1e-30)
