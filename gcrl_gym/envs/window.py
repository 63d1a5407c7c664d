"""Windows for ``render_mode="human"``: one per environment, drawn with pygame."""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gcrl_gym.errors import UserError

# Kept here rather than in the environment, which so stays free of surfaces that do not pickle.
_CLOCKS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def pygame_module() -> Any:
    """Import pygame where it is used, without its greeting."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    return pygame


def show(env: Any, frame: NDArray[np.uint8], fps: int) -> None:
    """Show a frame in the window and wait until it is time for the next.

    Args:
        env: whose window it is; pygame has one window, which the last environment to draw takes.
        frame: (height, width, 3) uint8.
        fps: frames per second.

    Raises:
        UserError: there is no display.
    """
    pygame = pygame_module()
    size = (frame.shape[1], frame.shape[0])
    if env not in _CLOCKS:
        try:
            pygame.display.init()
            pygame.display.set_mode(size)
        except pygame.error as error:
            raise UserError(
                f"render_mode='human' needs a display ({error}); use render_mode='rgb_array', or "
                "run under a virtual display such as xvfb-run."
            ) from error
        pygame.display.set_caption(env.spec.id if getattr(env, "spec", None) else "gcrl_gym")
        _CLOCKS[env] = pygame.time.Clock()
    surface = pygame.surfarray.make_surface(np.ascontiguousarray(frame.swapaxes(0, 1)))
    pygame.display.get_surface().blit(surface, (0, 0))
    pygame.event.pump()
    pygame.display.flip()
    _CLOCKS[env].tick(fps)


def close(env: Any) -> None:
    """Close the environment's window."""
    if _CLOCKS.pop(env, None) is not None and not _CLOCKS:
        pygame_module().display.quit()
