"""Draw docs/images: a frame of every environment and a film of every scripted policy.

python docs/pictures.py          # half a minute; `make pictures`
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import gcrl_gym  # noqa: F401  (registers the environments)
from gcrl_gym.datasets.car_drivers import SKILLS, Driver
from gcrl_gym.datasets.nav2d_io import KINDS, nav2d_episodes
from gcrl_gym.envs.mazes import LAYOUTS, get_maze
from gcrl_gym.envs.rendering import get_renderer

IMAGES = Path(__file__).parent / "images"
FILM_SIZE, FRAME_SIZE = 240, 300

Picture = NDArray[np.uint8]


def frames() -> dict[str, Picture]:
    """A frame of every environment and variant, some steps into an episode."""
    wanted = {
        "nav2d": ("gcrl/Nav2D-v0", {}, {"task_id": 1}),
        "nav2d-discrete": ("gcrl/Nav2DDiscrete-v0", {}, {"task_id": 3}),
        "nav2d-procedural": ("gcrl/Nav2D-v0", {"maze": "procedural"}, {"layout": 3}),
        "nav2d-obstacles": ("gcrl/Nav2D-v0", {"maze": "open", "obstacles": 20}, {"layout": 1}),
        "car-racing": ("gcrl/CarRacing-v0", {}, {"task_id": 2}),
        "car-racing-lap": ("gcrl/CarRacing-v0", {"mode": "lap"}, {"track": 6}),
    }
    for maze in LAYOUTS:
        wanted[f"nav2d-{maze.replace('_', '-')}"] = (
            "gcrl/Nav2D-v0",
            {"maze": maze},
            {"task_id": 1},
        )
    found = {}
    for name, (env_id, keywords, options) in wanted.items():
        env = gym.make(env_id, render_mode="rgb_array", **keywords)
        env.reset(seed=2, options=options)
        env.action_space.seed(1)
        for _ in range(30):
            action = env.action_space.sample()
            env.step(np.array([0.0, 0.5, 0.0], np.float32) if "Car" in env_id else action)
        found[name] = env.render()
        env.close()
    for name, keywords in (("goal", {}), ("lap", {"mode": "lap"})):
        env = gym.make("gcrl/CarRacingPixels-v0", **keywords)
        observation, _ = env.reset(seed=1)
        for _ in range(25):
            observation = env.step(np.array([0.0, 0.5, 0.0], np.float32))[0]
        picture = observation if name == "lap" else observation["observation"]
        found[f"car-racing-pixels-{name}"] = np.kron(picture, np.ones((3, 3, 1), np.uint8))
    walls = gym.make("gcrl/Nav2D-v0", maze="medium", image_observation=True)
    picture = walls.reset(seed=0, options={"task_id": 2})[0]["observation"]
    found["nav2d-image"] = np.kron(picture, np.ones((4, 4, 1), np.uint8))
    return found


def walks(kind: str, discrete: bool) -> Iterator[Picture]:
    """Frames of scripted walkers in the default maze."""
    maze = get_maze("four_rooms")
    renderer = get_renderer(maze, 0.75 if discrete else 0.5)
    for episode in nav2d_episodes(kind, discrete=discrete, episodes=3, seed=4):
        states = episode.observations["observation"].astype(float)
        goal = tuple(episode.observations["desired_goal"][0].tolist())
        last = min(len(states), 90)
        for step in range(last):
            trail = [tuple(state) for state in states[: step + 1].tolist()]
            done = step == len(states) - 1 and bool(episode.terminations[-1])
            yield renderer.frame(trail, goal, success=done)
        for _ in range(5):
            yield renderer.frame(trail, goal, success=done)


def drives(kind: str) -> Iterator[Picture]:
    """Frames of a scripted driver on its way to the goal of task 3."""
    env = gym.make("gcrl/CarRacing-v0", render_mode="rgb_array")
    env.reset(seed=0, options={"task_id": 2})
    driver = Driver(SKILLS[kind], env.unwrapped.cars, np.random.default_rng(0))
    for step in range(240):
        *_, terminated, truncated, _ = env.step(driver.act()[0])
        if step % 3 == 0 or terminated:
            yield env.render()
        if terminated or truncated:
            break
    env.close()


def write_film(path: Path, pictures: Iterator[Picture], fps: int) -> None:
    """Write a small animated WebP, which browsers and GitHub play; a tenth of a GIF's size."""
    size = (FILM_SIZE, FILM_SIZE)
    small = [Image.fromarray(p).resize(size, Image.Resampling.LANCZOS) for p in pictures]
    first, *rest = small
    first.save(
        path, save_all=True, append_images=rest, duration=1000 // fps, loop=0, quality=45, method=6
    )


def main() -> None:
    """Write every picture."""
    IMAGES.mkdir(exist_ok=True)
    for name, picture in frames().items():
        shown = Image.fromarray(picture)
        shown.thumbnail((FRAME_SIZE, FRAME_SIZE), Image.Resampling.LANCZOS)
        shown.save(IMAGES / f"env-{name}.png", optimize=True)
    for kind in KINDS:
        write_film(IMAGES / f"film-nav2d-{kind}.webp", walks(kind, discrete=False), fps=12)
        write_film(IMAGES / f"film-nav2d-discrete-{kind}.webp", walks(kind, discrete=True), fps=6)
    for kind in SKILLS:
        write_film(IMAGES / f"film-car-racing-{kind}.webp", drives(kind), fps=10)


if __name__ == "__main__":
    main()
