"""``gcrl play ENV``: drive an environment by keyboard, and keep the episodes as a dataset."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gcrl_gym.cli.parsing import parse
from gcrl_gym.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym
    import numpy as np
    from minari.data_collector import EpisodeBuffer
    from numpy.typing import NDArray

    from gcrl_gym.datasets.collect import Recorder

UP, DOWN, LEFT, RIGHT = "up", "down", "left", "right"
_NAMES = {
    "up": UP, "w": UP, "down": DOWN, "s": DOWN,
    "left": LEFT, "a": LEFT, "right": RIGHT, "d": RIGHT,
}  # fmt: skip
_HOLD_SECONDS = 1.0  # for which the outcome of an episode is shown

Held = set[str]
"""The directions that are pressed; both keys of a direction are one."""


@dataclass
class Play:
    """Drive by keyboard: arrow keys or WASD; R begins anew, Esc, Q or closing the window ends."""

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV", help="environment id")]
    dataset: Annotated[
        str | None, tyro.conf.arg(metavar="ID", help="record a new dataset, such as me/drives-v0")
    ] = None
    episodes: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="end after so many; by default at Esc")
    ] = None
    fps: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="steps per second; by default the env's")
    ] = None
    keywords: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            name="set", metavar="KEY=VALUE", help="keywords of the environment, such as mode=lap"
        ),
    ] = ()
    seed: int = 0
    """seed of the first reset"""


def run(arguments: list[str]) -> None:
    """Play, then write what was recorded."""
    options = parse(Play, arguments, "gcrl play")
    for name in ("episodes", "fps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}; give at least 1.")
    if options.dataset is not None:
        from gcrl_gym.datasets.minari_io import check_new_id

        check_new_id(options.dataset)
    _require_display()
    from gcrl_gym.cli.data import make_env
    from gcrl_gym.video import prepare_rendering

    prepare_rendering()
    env = make_env(options.env, **{**_keywords(options.keywords), "render_mode": "rgb_array"})
    keys = controls(env)
    fps = options.fps or keys.fps or int(env.metadata.get("render_fps") or 20)
    game = Game(env, keys, Window(fps), record=options.dataset is not None)
    print(f"{keys.help}; R begins anew, Esc or Q ends. The first key starts.", flush=True)
    try:
        game.play(options.episodes, options.seed)
    finally:  # also after Ctrl-C: what was driven is not lost
        game.window.close()
        _keep(options, env, game.recorded)
        env.close()


def _require_display() -> None:
    """Without a display, SDL would draw into memory that nobody sees."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in names):
        raise _no_display("neither DISPLAY nor WAYLAND_DISPLAY is set")


def _no_display(why: object) -> UserError:
    return UserError(
        f"gcrl play opens a window and needs a display ({why}); run it on a desktop, over ssh -X, "
        "or under a virtual display such as xvfb-run."
    )


def _keep(options: Play, env: gym.Env[Any, Any], episodes: list[EpisodeBuffer]) -> None:
    """Write the dataset that was asked for, all at once."""
    if options.dataset is None:
        return
    if not episodes:
        print(f"No step was taken: {options.dataset} is not written.", file=sys.stderr)
        return
    from gcrl_gym.datasets.collect import write_episodes

    metadata = {"policy": "human", "seed": options.seed}
    dataset = write_episodes(options.dataset, env, episodes, metadata)
    print(f"{dataset.id}: {dataset.total_episodes} episodes, {dataset.total_steps} steps")


def _keywords(texts: tuple[str, ...]) -> dict[str, Any]:
    """Read ``key=value`` texts; values are read as YAML, so that 3, 0.5 and true are no texts."""
    import yaml

    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key.isidentifier() or not equals:
            raise UserError(f"--set takes KEY=VALUE, such as maze=large; got {text!r}.")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set {text!r}: the value cannot be read ({error}).") from error
    return found


@dataclass(frozen=True)
class Controls:
    """What the keys of an environment do.

    Attributes:
        action: the action for the directions that are held.
        help: one line.
        real_time: whether time goes on while no key is held.
        fps: steps per second; None for the environment's.
    """

    action: Callable[[Held], Any]
    help: str
    real_time: bool = True
    fps: int | None = None


def controls(env: gym.Env[Any, Any]) -> Controls:
    """Return the keys of an environment: car racing, Nav2D, or anything that moves in a plane.

    Raises:
        UserError: other actions.
    """
    import numpy as np
    from gymnasium import spaces

    space = env.action_space
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    discrete = isinstance(space, spaces.Discrete) and space.n == 5
    if "CarRacing" in name and (discrete or space.shape == (3,)):
        text = "Left and right steer, up is gas, down brakes (arrow keys or WASD)"
        # Of several keys the discrete car obeys one: the brake first, and a turn before gas.
        order = {DOWN: 4, RIGHT: 1, LEFT: 2, UP: 3}
        return Controls(lambda held: _first(held, order, 0) if discrete else _drive(held), text)
    if "Nav2D" in name and discrete:
        moves = {UP: 0, DOWN: 1, LEFT: 2, RIGHT: 3}
        text = "Arrow keys or WASD move"
        return Controls(lambda held: _first(held, moves, 4), text, real_time=False, fps=8)
    if isinstance(space, spaces.Box) and space.shape == (2,) and np.isfinite(space.low).all():
        text = "Arrow keys or WASD move, two at once diagonally"
        real_time = "Nav2D" not in name  # nothing moves in Nav2D while the agent rests
        return Controls(lambda held: _deflect(held, space.low, space.high), text, real_time)
    raise UserError(
        f"gcrl play has no keys for {name}, whose actions are {space}; it plays Nav2D, car racing "
        "and other environments with two continuous actions, x and y."
    )


def _first(held: Held, actions: dict[str, int], default: int) -> Any:
    import numpy as np

    return np.int64(next((actions[key] for key in actions if key in held), default))


def _axis(held: Held, low: str, high: str) -> float:
    return float(high in held) - float(low in held)


def _drive(held: Held) -> NDArray[np.float32]:
    import numpy as np

    return np.array([_axis(held, LEFT, RIGHT), UP in held, DOWN in held], np.float32)


def _deflect(held: Held, low: Any, high: Any) -> Any:
    import numpy as np

    place = np.array([_axis(held, LEFT, RIGHT), _axis(held, DOWN, UP)])
    return np.where(place > 0, high, np.where(place < 0, low, (low + high) / 2)).astype(low.dtype)


class Window:
    """A window that shows frames and says which keys are held.

    Args:
        fps: frames per second.

    Attributes:
        held: directions held since the last frame, however briefly.
        restart: R was pressed.
        closed: Esc or Q was pressed, or the window closed.
    """

    def __init__(self, fps: int) -> None:
        self.fps = fps
        self.held: Held = set()
        self.restart = self.closed = False
        self._down: set[int] = set()  # keys that are down, of which two may be one direction

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Show a frame ``(height, width, 3)`` until it is time for the next, and read the keys.

        Raises:
            UserError: there is no display.
        """
        from gcrl_gym.envs.window import show

        try:
            show(self, frame, self.fps)
        except UserError as error:
            raise _no_display(error.__cause__) from error
        self._read_keys()

    def _read_keys(self) -> None:
        from gcrl_gym.envs.window import pygame_module

        pygame = pygame_module()
        pressed = set(self._down)
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                self.closed = True
            elif event.type == pygame.KEYDOWN:
                pressed.add(event.key)
                self._down.add(event.key)
                self.restart |= event.key == pygame.K_r
                self.closed |= event.key in (pygame.K_ESCAPE, pygame.K_q)
            elif event.type == pygame.KEYUP:
                self._down.discard(event.key)
        names = {pygame.key.name(key) for key in pressed}
        self.held = {_NAMES[name] for name in names if name in _NAMES}

    def close(self) -> None:
        """Close the window."""
        from gcrl_gym.envs.window import close

        close(self)


class Game:
    """Episodes driven by keyboard.

    Args:
        env: with ``render_mode="rgb_array"``.
        keys: what its keys do.
        window: where it is shown.
        record: whether episodes are kept.

    Attributes:
        recorded: the episodes, of which the unfinished ones are truncated.
    """

    def __init__(
        self, env: gym.Env[Any, Any], keys: Controls, window: Window, record: bool
    ) -> None:
        self.env, self.keys, self.window, self.record = env, keys, window, record
        self.recorded: list[EpisodeBuffer] = []
        self._limit = env.spec.max_episode_steps if env.spec else None

    def play(self, episodes: int | None, seed: int) -> None:
        """Play until the window is closed.

        Args:
            episodes: end after so many; None for no end.
            seed: of the first reset.
        """
        from gcrl_gym.datasets.collect import Recorder

        played, next_seed = 0, [seed]
        while not self.window.closed and (episodes is None or played < episodes):
            first = next_seed.pop() if next_seed else None
            recorder = Recorder(self.env.reset(seed=first)[0], first)
            try:
                text = self._episode(recorder)
            finally:
                if len(recorder) and self.record:
                    self.recorded.append(recorder.finish())
            if len(recorder):
                played += 1
                print(f"episode {played}: {text}", flush=True)

    def _episode(self, recorder: Recorder) -> str:
        """Play one episode and return how it went."""
        window, info, total = self.window, dict[str, Any](), 0.0
        terminated = truncated = window.restart = False
        while not (terminated or truncated or window.restart or window.closed):
            window.show(self._frame(len(recorder), None, waiting=not len(recorder)))
            resting = not window.held and not (self.keys.real_time and len(recorder))
            if resting or window.restart or window.closed:
                continue
            action = self.keys.action(window.held)
            observation, reward, terminated, truncated, info = self.env.step(action)
            recorder.add(action, observation, float(reward), terminated, truncated)
            total += float(reward)
        outcome = _outcome(info, terminated, truncated)
        if terminated or truncated:
            frame = self._frame(len(recorder), outcome)
            for _ in range(max(1, round(_HOLD_SECONDS * window.fps))):
                if not (window.closed or window.restart):
                    window.show(frame)
        return f"{outcome.lower()} after {len(recorder)} steps, return {total:.2f}"

    def _frame(self, step: int, outcome: str | None, waiting: bool = False) -> NDArray[np.uint8]:
        from gcrl_gym.video import annotate

        picture: Any = self.env.render()
        frame = annotate(picture, "", step, self._limit, outcome)
        return _with_help(frame, self.keys.help) if waiting else frame


def _outcome(info: dict[str, Any], terminated: bool, truncated: bool) -> str:
    if info.get("success", info.get("is_success")):
        return "SUCCESS"
    return "END" if terminated else "TIME OUT" if truncated else "STOPPED"


def _with_help(frame: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Write the keys over a frame."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(frame)
    draw, font = ImageDraw.Draw(picture, "RGBA"), ImageFont.load_default(picture.width // 32)
    lines = [*textwrap.wrap(text, 44), "R begins anew, Esc or Q ends", "press a direction to start"]
    message, center = "\n".join(lines), (picture.width // 2, picture.height // 2)
    left, top, right, bottom = draw.multiline_textbbox(
        center, message, font, anchor="mm", align="center"
    )
    draw.rectangle((left - 12, top - 10, right + 12, bottom + 10), (24, 26, 32, 215))
    draw.multiline_text(center, message, (235, 235, 235), font, anchor="mm", align="center")
    return np.asarray(picture)
