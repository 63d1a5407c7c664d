"""Frames of one car for people, drawn with pygame surfaces: no window, no display.

The camera follows the car, which heads up; a map of the whole track lies in the corner. A frame is
drawn at twice its size and scaled down, which smooths every edge.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcrl_gym.envs.car_batch import CarBatch
from gcrl_gym.envs.car_dynamics import MAX_STEERING, State
from gcrl_gym.envs.car_rendering import (
    ASPHALT,
    BODY,
    GLASS,
    GRASS,
    GRASS_DARK,
    MARK,
    OUTSIDE,
    RED,
    TYRE,
    WHITE,
    near_bends,
)
from gcrl_gym.envs.car_sensors import RAY_ANGLES
from gcrl_gym.envs.tracks import FIELD, HALF_WIDTH, Track
from gcrl_gym.envs.window import pygame_module

FRAME_SIZE = 480
SUPERSAMPLING = 2
SCALE = 9.0  # pixels of the frame per metre
CAR_AT = (240.0, 340.0)  # where the car is in the frame
HEADER = 28
MAP_SIZE, MAP_MARGIN = 124, 10

PAPER, TEXT = (250, 249, 246), (69, 79, 99)
SHADOW = (84, 88, 94)
TRAIL_OLD, TRAIL_NEW = (120, 140, 176), (122, 190, 255)
RAY, RAY_END = (146, 152, 164), (244, 232, 150)
GOAL, REACHED = (255, 204, 0), (72, 214, 142)
REACHED_TEXT = (42, 150, 98)
_KERB = 4  # points of the centre line per stripe of a kerb
_VIEW = 46.0  # metres around the middle of the frame that may be seen

Pairs = NDArray[np.float64]
Color = tuple[int, int, int]


def frame(
    track: Track,
    cars: CarBatch,
    car: int,
    trail: list[tuple[float, float]],
    success: bool,
    tolerance: float,
) -> NDArray[np.uint8]:
    """Draw one car of a batch.

    Args:
        track: the car's track.
        cars: the batch.
        car: which one.
        trail: positions since the start of the episode.
        success: whether the goal is reached, or the lap complete.
        tolerance: radius of the goal in metres.

    Returns:
        (480, 480, 3) uint8, an array of its own.
    """
    pygame = pygame_module()
    side = FRAME_SIZE * SUPERSAMPLING
    canvas = pygame.Surface((side, side), depth=32)
    picture = _Picture(pygame, canvas, cars.state[:, car])
    _draw_ground(picture)
    _draw_road(picture, track)
    _draw_trail(picture, trail)
    if cars.mode == "goal":
        _draw_goal(picture, cars.goals[car].astype(np.float64), tolerance, success)
    _draw_rays(picture, cars.bank.rays(cars.state)[car])
    _draw_car(picture)
    small = pygame.transform.smoothscale(canvas, (FRAME_SIZE, FRAME_SIZE))
    _draw_map(pygame, small, track, cars, car, trail)
    _draw_texts(pygame, small, cars, car, len(trail) - 1, success)
    return np.ascontiguousarray(pygame.surfarray.array3d(small).swapaxes(0, 1))


class _Picture:
    """A canvas and where the world lies on it."""

    def __init__(self, pygame: Any, canvas: Any, state: Pairs) -> None:
        self.pygame, self.canvas, self.state = pygame, canvas, state
        self.center = state[:2]
        cos, sin = state[State.COS], state[State.SIN]
        self._turn = np.array([[sin, -cos], [-cos, -sin]]) * (SCALE * SUPERSAMPLING)
        self._origin = np.array(CAR_AT) * SUPERSAMPLING

    def pixels(self, points: Any) -> Pairs:
        """Pixels of world positions (..., 2)."""
        offsets = np.asarray(points, np.float64) - self.center
        return np.asarray(offsets @ self._turn.T + self._origin)

    def polygon(self, color: Color, points: Any) -> None:
        """Fill a polygon of world positions (k, 2)."""
        self.pygame.draw.polygon(self.canvas, color, self.pixels(points).tolist())

    def line(self, color: Color, points: Any, width: float) -> None:
        """Draw a line through world positions, width in pixels of the frame, with round joints."""
        ends = self.pixels(points).tolist()
        thick = max(round(width * SUPERSAMPLING), 1)
        for start, end in pairwise(ends):
            self.pygame.draw.line(self.canvas, color, start, end, thick)
        if thick > 3:
            for end in ends:
                self.pygame.draw.circle(self.canvas, color, end, thick / 2)

    def disc(self, color: Color, point: Any, radius: float, width: float = 0.0) -> None:
        """Draw a disc, or a ring of that width; radius and width in pixels of the frame."""
        at = self.pixels(point).tolist()
        thick = round(width * SUPERSAMPLING)
        self.pygame.draw.circle(self.canvas, color, at, radius * SUPERSAMPLING, thick)


def _draw_ground(picture: _Picture) -> None:
    """Grass in squares, and what lies beyond the field."""
    picture.canvas.fill(OUTSIDE)
    corners = FIELD * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    picture.polygon(GRASS, corners)
    square, reach = 6.0, _VIEW + 6
    low = np.maximum(np.floor((picture.center - reach) / square), -FIELD / square)
    high = np.minimum(np.ceil((picture.center + reach) / square), FIELD / square)
    for i in range(math.floor(low[0]), math.ceil(high[0])):
        for j in range(math.floor(low[1]), math.ceil(high[1])):
            if (i + j) % 2:
                box = np.array([(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]) * square
                picture.polygon(GRASS_DARK, np.clip(box, -FIELD, FIELD))


def _draw_road(picture: _Picture, track: Track) -> None:
    """Asphalt, kerbs or white edges, the dashed middle, and the start line."""
    count = len(track.points)
    seen = np.abs(track.points - picture.center).max(axis=1) < _VIEW + 8
    stripes = [k for k in range(0, count, _KERB) if seen[k]]
    bends = near_bends(track)

    def quad(first: int, last: int, low: float, high: float) -> Pairs:
        """The strip of road between two points and two offsets to the left."""
        ring = np.arange(first, last + 1) % count
        inner = track.points[ring] + low * track.left[ring]
        outer = track.points[ring] + high * track.left[ring]
        return np.concatenate([inner, outer[::-1]])

    wide = HALF_WIDTH + 0.12
    for first in stripes:
        picture.polygon(SHADOW, quad(first, first + _KERB, -wide - 0.5, wide + 0.5))
    for first in stripes:
        picture.polygon(ASPHALT, quad(first, first + _KERB, -wide, wide))
    for first in stripes:
        last = min(first + _KERB, count)
        for side in (-1, 1):
            if bends[first]:
                color = RED if (first // _KERB) % 2 else WHITE
                inner, outer = side * (HALF_WIDTH - 0.45), side * (HALF_WIDTH + 0.45)
            else:
                color = WHITE
                inner, outer = side * (HALF_WIDTH - 0.45), side * (HALF_WIDTH - 0.25)
            picture.polygon(color, quad(first, last, inner, outer))
        if (first // _KERB) % 3 == 1:
            picture.polygon(MARK, quad(first, first + _KERB, -0.09, 0.09))
    for row, first in enumerate((count - 2, count)):
        for lane in range(-4, 4):
            color = WHITE if (row + lane) % 2 else (30, 30, 30)
            picture.polygon(color, quad(first, first + 2, lane, lane + 1))


def _draw_trail(picture: _Picture, trail: list[tuple[float, float]]) -> None:
    """The way so far, brighter towards the present; what is near of it."""
    points = np.array(trail)
    near = np.abs(points - picture.center).max(axis=1) < _VIEW
    for index in np.flatnonzero(near[1:]) + 1:
        share = max(1 - (len(trail) - index) / 120, 0)
        color = tuple(round(a + share * (b - a)) for a, b in zip(TRAIL_OLD, TRAIL_NEW))
        picture.line(color, points[index - 1 : index + 1], 2.5)  # type: ignore[arg-type]


def _draw_goal(picture: _Picture, goal: Pairs, tolerance: float, success: bool) -> None:
    """The goal: a translucent disc of the tolerance, its ring, and an arrow for the heading."""
    color = REACHED if success else GOAL
    radius = tolerance * SCALE
    size = math.ceil((radius + 4) * SUPERSAMPLING) * 2
    veil = picture.pygame.Surface((size, size), picture.pygame.SRCALPHA)
    middle = size / 2
    picture.pygame.draw.circle(veil, (*color, 90), (middle, middle), radius * SUPERSAMPLING)
    x, y = picture.pixels(goal[:2]).tolist()
    picture.canvas.blit(veil, (round(x - middle), round(y - middle)))
    picture.disc(color, goal[:2], radius, 2.5)
    ahead, left = goal[2:], np.array([-goal[3], goal[2]])

    def at(forward: float, side: float) -> Pairs:
        return np.asarray(goal[:2] + forward * ahead + side * left)

    reach = max(1.35 * tolerance, 1.5)
    picture.line(color, [at(-0.6 * tolerance, 0), at(reach - 0.8, 0)], 3.5)
    picture.polygon(color, [at(reach, 0), at(reach - 1.2, 0.75), at(reach - 1.2, -0.75)])


def _draw_rays(picture: _Picture, lengths: NDArray[np.float32]) -> None:
    """What the car senses of the road's edge."""
    x, y, cos, sin = picture.state[:4].tolist()
    for angle, length in zip(np.radians(RAY_ANGLES).tolist(), np.abs(lengths).tolist()):
        c, s = math.cos(angle), math.sin(angle)
        end = x + length * (cos * c - sin * s), y + length * (sin * c + cos * s)
        picture.line(RAY, [(x, y), end], 0.5)
        picture.disc(RAY_END, end, 2.2)


def _draw_car(picture: _Picture) -> None:
    """A formula car from above, with its front wheels as they are steered."""
    state = picture.state
    heading = math.atan2(state[State.SIN], state[State.COS])

    def box(color: Color, forward: float, side: float, half: Any, turn: float = 0.0) -> None:
        corners = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * half
        middle = _turned(np.array([forward, side]), heading)
        picture.polygon(color, state[:2] + middle + _turned(corners, heading + turn))

    def shape(color: Color, points: Any) -> None:
        picture.polygon(color, state[:2] + _turned(np.array(points), heading))

    box((70, 74, 82), -0.12, 0.0, (2.25, 1.0))
    for side in (-0.92, 0.92):
        box((90, 94, 102), -1.3, side / 2, (0.07, 0.5))
        box((90, 94, 102), 1.3, side / 2, (0.07, 0.5))
        box(TYRE, -1.3, side, (0.48, 0.24))
        box(TYRE, 1.3, side, (0.42, 0.2), state[State.STEERING])
    body = [(2.25, 0.18), (1.0, 0.42), (0.4, 0.72), (-1.0, 0.72), (-1.9, 0.4)]
    shape(BODY, body + [(x, -y) for x, y in reversed(body)])
    box((24, 52, 140), 2.05, 0.0, (0.16, 0.85))
    box((24, 52, 140), -2.05, 0.0, (0.2, 0.85))
    stripe = [(2.2, 0.09), (-1.9, 0.14), (-1.9, -0.14), (2.2, -0.09)]
    shape(WHITE, stripe)
    shape(
        GLASS, [(0.75, 0.22), (0.2, 0.42), (-0.6, 0.34), (-0.6, -0.34), (0.2, -0.42), (0.75, -0.22)]
    )
    helmet = state[:2] + _turned(np.array([-0.1, 0.0]), heading)
    picture.disc((240, 190, 60), helmet, 0.27 * SCALE)


def _turned(points: Pairs, angle: float) -> Pairs:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]))


@lru_cache(maxsize=16)
def _map_ground(track: Track) -> Any:
    """The track on a small card, at twice its size."""
    pygame = pygame_module()
    side = 2 * MAP_SIZE
    card = pygame.Surface((side, side), pygame.SRCALPHA)
    pygame.draw.rect(card, (*PAPER, 225), (0, 0, side, side), border_radius=16)
    ring = _on_map(track.points).tolist()
    for color, width in (((176, 180, 190), 13), (PAPER, 8)):
        for start, end in zip(ring, ring[1:] + ring[:1]):
            pygame.draw.line(card, color, start, end, width)
            pygame.draw.circle(card, color, end, width / 2 - 0.5)
    left = track.points[0] + np.outer([-5.0, 5.0], track.left[0])
    pygame.draw.line(card, TEXT, *_on_map(left).tolist(), 4)
    return card


def _on_map(points: Any) -> Pairs:
    """Pixels of the card, at twice its size, of world positions (..., 2)."""
    scale = 2 * MAP_SIZE / (2 * FIELD - 10)
    return np.asarray(MAP_SIZE + np.asarray(points) * (scale, -scale))


def _draw_map(
    pygame: Any, picture: Any, track: Track, cars: CarBatch, car: int, trail: list[Any]
) -> None:
    """The whole track in a corner, with trail, car and goal."""
    card = _map_ground(track).copy()
    if len(trail) > 1:
        pygame.draw.lines(card, (74, 124, 196), False, _on_map(trail).tolist(), 4)
    if cars.mode == "goal":
        goal = cars.goals[car].astype(np.float64)
        at, ahead = _on_map(goal[:2]), 18 * np.array([goal[2], -goal[3]])
        pygame.draw.line(card, (214, 84, 62), at.tolist(), (at + ahead).tolist(), 4)
        pygame.draw.circle(card, (214, 84, 62), at.tolist(), 8)
    x, y, cos, sin = cars.state[:4, car]
    arrow = _turned(np.array([(12.0, 0.0), (-9.0, 8.0), (-9.0, -8.0)]), -math.atan2(sin, cos))
    pygame.draw.polygon(card, (38, 84, 158), (_on_map((x, y)) + arrow).tolist())
    small = pygame.transform.smoothscale(card, (MAP_SIZE, MAP_SIZE))
    corner = FRAME_SIZE - MAP_SIZE - MAP_MARGIN  # at the bottom right, where no road is to come
    picture.blit(small, (corner, corner))


@lru_cache(maxsize=4)
def _font(size: int) -> Any:
    pygame = pygame_module()
    if not pygame.font.get_init():
        pygame.font.init()
    return pygame.font.Font(None, size)


def _draw_texts(
    pygame: Any, picture: Any, cars: CarBatch, car: int, steps: int, success: bool
) -> None:
    """Header with mode, step and success; speed, steering and tiles below."""
    picture.fill(PAPER, (0, 0, FRAME_SIZE, HEADER))
    color = REACHED_TEXT if success else TEXT
    progress = f"{100 * cars.lap_progress()[car]:.0f} % of the lap"
    name = _font(22).render(f"track {cars.bank.seeds[car]}, {progress}", True, TEXT)
    done = "" if not success else "reached, " if cars.mode == "goal" else "lap complete, "
    count = _font(22).render(f"{done}step {steps}", True, color)
    picture.blit(name, (12, 7))
    picture.blit(count, (FRAME_SIZE - 12 - count.get_width(), 7))

    card = pygame.Surface((132, 54), pygame.SRCALPHA)
    pygame.draw.rect(card, (*PAPER, 225), (0, 0, 132, 54), border_radius=8)
    speed = float(cars.speed()[car])
    number = _font(30).render(f"{3.6 * speed:.0f}", True, TEXT)
    card.blit(number, (50 - number.get_width(), 6))
    card.blit(_font(20).render("km/h", True, TEXT), (54, 12))
    pygame.draw.rect(card, (222, 220, 212), (12, 34, 108, 5), border_radius=2)
    width = round(108 * min(speed / 25, 1))
    pygame.draw.rect(card, (74, 124, 196), (12, 34, width, 5), border_radius=2)
    pygame.draw.rect(card, (222, 220, 212), (12, 43, 108, 5), border_radius=2)
    end = round(54 * float(cars.state[State.STEERING, car]) / MAX_STEERING)
    pygame.draw.rect(card, (224, 140, 50), (66 - max(end, 0), 43, max(abs(end), 2), 5))
    picture.blit(card, (MAP_MARGIN, FRAME_SIZE - 54 - MAP_MARGIN))
