"""Pictures of Nav2D, drawn with pygame surfaces: no window, no display, no video driver.

A frame is drawn at ``SUPERSAMPLING`` times its size and scaled down, which smooths every edge. What
does not change in an episode's maze, floor and walls, is drawn once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcrl_gym.envs.mazes import WORLD_SIZE, Maze
from gcrl_gym.envs.window import pygame_module

FRAME_SIZE = 400
SUPERSAMPLING = 3

# Layout of a frame in pixels: a header line, then the world inside a thin border.
WORLD_PIXELS = 360
LEFT, TOP, BORDER = 20, 28, 5

PAPER = (250, 249, 246)
FLOOR = (240, 238, 232)
GRID = (230, 227, 219)
SHADOW = (214, 210, 200)
WALL = (69, 79, 99)
TEXT = (69, 79, 99)
TRAIL_OLD, TRAIL_NEW = (188, 206, 232), (74, 124, 196)
AGENT, AGENT_EDGE = (38, 84, 158), (255, 255, 255)
GOAL, GOAL_AREA = (214, 84, 62), (247, 214, 203)
REACHED, REACHED_AREA = (42, 150, 98), (200, 234, 213)

Point = tuple[float, float]
Color = tuple[int, int, int]


@lru_cache(maxsize=32)
def get_renderer(maze: Maze, goal_tolerance: float) -> Nav2DRenderer:
    """Return the renderer of these settings, shared by all environments that have them.

    Kept here rather than in the environment, which so stays free of surfaces that do not pickle.
    """
    return Nav2DRenderer(maze, goal_tolerance)


class Nav2DRenderer:
    """Draws frames; keeps nothing of an episode.

    Args:
        maze: the layout.
        goal_tolerance: radius of the ring around the goal, in world units.
    """

    def __init__(self, maze: Maze, goal_tolerance: float) -> None:
        self._pygame = pygame_module()
        self._pygame.font.init()
        self._font = self._pygame.font.Font(None, 22)
        self._maze = maze
        self._tolerance = goal_tolerance
        self._background = self._draw_background()

    def frame(self, trail: Sequence[Point], goal: Point, success: bool) -> NDArray[np.uint8]:
        """Draw one frame.

        Args:
            trail: positions (x, y) of this episode, the present one last.
            goal: goal position (x, y).
            success: whether the goal is reached now; colours the goal and the header.

        Returns:
            (400, 400, 3) uint8.
        """
        canvas = self._background.copy()
        self._draw_goal(canvas, goal, success)
        self._draw_trail(canvas, trail)
        self._disc(canvas, trail[-1], 8.5, AGENT_EDGE)
        self._disc(canvas, trail[-1], 6.5, AGENT)
        picture = self._pygame.transform.smoothscale(canvas, (FRAME_SIZE, FRAME_SIZE))
        self._draw_header(picture, len(trail) - 1, success)
        pixels = self._pygame.surfarray.array3d(picture)  # (width, height, 3)
        return np.ascontiguousarray(pixels.swapaxes(0, 1))

    def _draw_background(self) -> Any:
        """Floor, grid lines, walls with a soft shadow, and the border."""
        scale = SUPERSAMPLING
        canvas = self._pygame.Surface((FRAME_SIZE * scale, FRAME_SIZE * scale), depth=32)
        canvas.fill(PAPER)
        frame = (LEFT - BORDER, TOP - BORDER, WORLD_PIXELS + 2 * BORDER, WORLD_PIXELS + 2 * BORDER)
        self._pygame.draw.rect(canvas, WALL, [v * scale for v in frame], border_radius=4 * scale)
        world = self._pygame.Rect(*(v * scale for v in (LEFT, TOP, WORLD_PIXELS, WORLD_PIXELS)))
        self._pygame.draw.rect(canvas, FLOOR, world)
        canvas.set_clip(world)
        for line in range(1, len(self._maze.walls)):
            at = line * self._maze.cell_size
            for ends in (((at, 0.0), (at, WORLD_SIZE)), ((0.0, at), (WORLD_SIZE, at))):
                self._pygame.draw.line(canvas, GRID, *map(_pixel, ends), width=scale)
        for color, shift in ((SHADOW, 3 * scale), (WALL, 0)):
            for cell in np.argwhere(self._maze.walls):
                low = (cell[::-1] * self._maze.cell_size).tolist()
                high = ((cell[::-1] + 1) * self._maze.cell_size).tolist()
                # Whole pixels, so that no hairline shows between neighbouring cells.
                left, bottom, right, top = map(round, (*_pixel(low), *_pixel(high)))
                rect = (left + shift, top + shift, right - left, bottom - top)
                self._pygame.draw.rect(canvas, color, rect)
        canvas.set_clip(None)
        return canvas

    def _draw_goal(self, canvas: Any, goal: Point, success: bool) -> None:
        """The goal: a filled area of the tolerance, its ring, and the point itself."""
        color, area = (REACHED, REACHED_AREA) if success else (GOAL, GOAL_AREA)
        radius = self._tolerance * WORLD_PIXELS / WORLD_SIZE
        self._disc(canvas, goal, radius, color)
        self._disc(canvas, goal, radius - 2, area)
        self._disc(canvas, goal, 5, color)

    def _draw_trail(self, canvas: Any, trail: Sequence[Point]) -> None:
        """The path so far, darker towards the present, from a hollow mark at the start."""
        self._disc(canvas, trail[0], 5, TRAIL_NEW)
        self._disc(canvas, trail[0], 3, PAPER)
        width = round(2.5 * SUPERSAMPLING)
        for index in range(1, len(trail)):
            share = index / len(trail)
            color = tuple(round(a + share * (b - a)) for a, b in zip(TRAIL_OLD, TRAIL_NEW))
            ends = _pixel(trail[index - 1]), _pixel(trail[index])
            self._pygame.draw.line(canvas, color, *ends, width=width)
            self._pygame.draw.circle(canvas, color, ends[1], width / 2)

    def _disc(self, canvas: Any, center: Point, radius: float, color: Color) -> None:
        """A filled circle; radius in pixels of the frame."""
        self._pygame.draw.circle(canvas, color, _pixel(center), radius * SUPERSAMPLING)

    def _draw_header(self, picture: Any, steps: int, success: bool) -> None:
        """The layout's name on the left, the step count on the right, green on success."""
        color = REACHED if success else TEXT
        name = self._font.render(self._maze.name, True, TEXT)
        count = self._font.render(f"{'reached, ' if success else ''}step {steps}", True, color)
        picture.blit(name, (LEFT - BORDER, 5))
        picture.blit(count, (FRAME_SIZE - LEFT + BORDER - count.get_width(), 5))


def _pixel(point: Sequence[float]) -> Point:
    """World position to a pixel of the large canvas (y points down there)."""
    scale = WORLD_PIXELS * SUPERSAMPLING / WORLD_SIZE
    x = LEFT * SUPERSAMPLING + point[0] * scale
    y = TOP * SUPERSAMPLING + (WORLD_SIZE - point[1]) * scale
    return x, y
