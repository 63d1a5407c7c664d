"""Film an agent: an mp4 (or GIF) with task, step count and outcome written on every frame."""

from __future__ import annotations

import contextlib
import ctypes.util
import math
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.random import SeedSequence

from gcrl_gym.checkpoint import atomic_write
from gcrl_gym.errors import UserError
from gcrl_gym.evaluation import check_observations
from gcrl_gym.pools import EnvPool, Job, rebuild, single_env, stack
from gcrl_gym.rollout import (
    EpisodeLog,
    Predictor,
    actor_keywords,
    isolated_rng,
    make_jobs,
    task_ids,
)

MIN_WIDTH = 400  # smaller frames are enlarged, so that the text stays legible
MAX_EPISODE_SECONDS = 12.0  # of longer episodes only every second, third, .. frame is kept
HOLD_SECONDS = 0.7  # the last frame of an episode stays this long
BAR_COLOR, TEXT_COLOR = (24, 26, 32), (235, 235, 235)
GOOD_COLOR, BAD_COLOR = (80, 220, 120), (255, 140, 90)

Write = Callable[[np.ndarray], None]


def record_video(
    agent: Predictor,
    env: gym.Env[Any, Any],
    path: str | os.PathLike[str],
    episodes: int = 5,
    *,
    actor: int = -1,
    deterministic: bool = True,
    seed: int = 0,
    fps: int | None = None,
) -> Path:
    """Film ``episodes`` episodes, one evaluation task after the other.

    The environment draws the scene and its goal; a bar above it says the task, the step, and
    SUCCESS or TIME OUT at the end. No display is needed. Neither ``env`` nor any random generator
    outside is changed, and the same seed films the same episodes.

    Args:
        agent: what acts.
        env: environment; copied with ``render_mode="rgb_array"``.
        path: ``.mp4`` or ``.gif``. Without ffmpeg an mp4 becomes a GIF, with a warning.
        episodes: number of episodes.
        actor: which actor of a chain, the last by default.
        deterministic: deterministic or sampled actions.
        seed: seed of resets, environment noise and sampled actions.
        fps: frames per second; by default the environment's ``render_fps``, else 30. Of episodes
            longer than 12 seconds only every n-th frame is kept.

    Returns:
        The file written.

    Raises:
        UserError: unknown file type, an environment that cannot render, or no OpenGL library.
    """
    file = _playable(Path(path))
    original = single_env(env)
    check_observations(agent, original)
    tasks = task_ids(original)
    jobs = make_jobs(tasks, -(-episodes // len(tasks)), seed)
    per_task = len(jobs) // len(tasks)
    jobs = [jobs[task * per_task + n] for n in range(per_task) for task in range(len(tasks))]
    jobs = jobs[:episodes]
    film = _RenderingPool(original)
    film.grow(1)
    fps = fps or int(film.env.metadata.get("render_fps") or 30)
    sampling: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if hasattr(agent, "sampling_seed"):
        sampling = agent.sampling_seed(seed)
    try:
        with _writer(file, fps) as write, isolated_rng(SeedSequence(seed)), sampling:
            for job in jobs:
                _film_episode(agent, film, job, actor, deterministic, fps, write)
    finally:
        film.close()
    return file


def prepare_rendering() -> None:
    """Choose MuJoCo's off-screen OpenGL where there is no display and nothing is chosen yet.

    MuJoCo reads the variable when it is imported, so programs that film call this first.
    """
    if platform.system() != "Linux" or os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY"):
        return
    for backend, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if ctypes.util.find_library(library):
            os.environ["MUJOCO_GL"] = backend
            return


class _RenderingPool(EnvPool):
    """A pool of one copy that renders."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        prepare_rendering()
        super().__init__(env, size=1)
        if "rgb_array" not in env.metadata.get("render_modes", []):
            raise UserError(f"{env} cannot be filmed: it has no render mode 'rgb_array'.")
        if env.spec is None and env.render_mode == "rgb_array":
            self._copies, self._generators = [env], [np.random.MT19937()]
        else:
            self._copies, self._generators = [rebuild(env, "rgb_array")], [np.random.MT19937()]

    def frame(self) -> np.ndarray:
        """Return the current picture, uint8 [height, width, 3]."""
        try:
            with self._own_numpy(0):
                picture = np.asarray(self._copies[0].render())
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("mujoco", "OpenGL", "glfw"):
                raise
            raise UserError(
                f"MuJoCo cannot render without a display here ({error}): set MUJOCO_GL=egl "
                "(Debian package libegl1) or MUJOCO_GL=osmesa (libosmesa6) before Python starts."
            ) from error
        return picture


def _film_episode(
    agent: Predictor,
    film: _RenderingPool,
    job: Job,
    actor: int,
    deterministic: bool,
    fps: int,
    write: Write,
) -> None:
    """Run one episode; thin it out to ``MAX_EPISODE_SECONDS`` and hold its last frame."""
    obs, info = film.reset(0, job)
    log = EpisodeLog(job.task)
    limit = film.env.spec.max_episode_steps if film.env.spec else None
    every = max(1, math.ceil((limit or 0) / (fps * MAX_EPISODE_SECONDS)))
    keywords = actor_keywords(agent, actor)
    state, start, ended = None, np.array([True]), False
    count = getattr(agent, "num_actors", 1)
    name = f"actor {actor % count}   " if count > 1 else ""
    title = f"{name}task {job.task}" if job.task != "default" else name.strip()
    while not ended:
        if log.length % every == 0:
            write(annotate(film.frame(), title, log.length, limit, None))
        actions, state = agent.predict(stack([obs]), state, start, deterministic, **keywords)
        start = np.array([False])
        obs, reward, ended, info = film.step(0, actions[0])
        log.add(reward, info)
    episode = log.finish(obs, info)
    outcome = {True: "SUCCESS", False: "TIME OUT", None: "END"}[episode.success]
    if outcome == "TIME OUT" and limit and log.length < limit:
        outcome = "FAILED"  # it ended early, but not at the goal
    last = annotate(film.frame(), title, log.length, limit, outcome)
    for _ in range(max(1, round(HOLD_SECONDS * fps))):
        write(last)


def annotate(
    frame: np.ndarray, title: str, step: int, limit: int | None, outcome: str | None
) -> np.ndarray:
    """Put a bar with the task, the step and the outcome above a frame.

    Args:
        frame: uint8 [height, width, 3]; enlarged to at least 400 pixels width.
        title: written on the left.
        step: steps done.
        limit: step limit of an episode, if it has one.
        outcome: written on the right, in green for SUCCESS; ``None`` while the episode runs.

    Returns:
        uint8 [height', width', 3] with even sides, as video encoders need.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(np.ascontiguousarray(frame[..., :3], dtype=np.uint8))
    if picture.width < MIN_WIDTH:
        scale = -(-MIN_WIDTH // picture.width)
        picture = picture.resize((picture.width * scale, picture.height * scale))
    size = max(13, picture.width // 28)
    bar = 2 * size
    width, height = picture.width + picture.width % 2, picture.height + bar
    canvas = Image.new("RGB", (width, height + height % 2), BAR_COLOR)
    canvas.paste(picture, (0, bar))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size)
    steps = f"step {step}" + (f" / {limit}" if limit else "")
    draw.text((size // 2, bar // 2), title, TEXT_COLOR, font, anchor="lm")
    draw.text((width // 2, bar // 2), steps, TEXT_COLOR, font, anchor="mm")
    if outcome:
        color = {"SUCCESS": GOOD_COLOR, "END": TEXT_COLOR}.get(outcome, BAD_COLOR)
        draw.text((width - size // 2, bar // 2), outcome, color, font, anchor="rm")
    return np.asarray(canvas)


def _playable(path: Path) -> Path:
    """Return the path that can be written: ``path``, or a GIF where there is no ffmpeg."""
    if path.suffix not in (".mp4", ".gif"):
        raise UserError(f"Cannot write a video to {path}: the name must end in .mp4 or .gif.")
    if path.suffix == ".mp4" and not has_ffmpeg():
        warnings.warn("ffmpeg not found (pip install imageio-ffmpeg): writing a GIF.", stacklevel=3)
        return path.with_suffix(".gif")
    return path


def has_ffmpeg() -> bool:
    """Return whether the ffmpeg program that imageio uses is there."""
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]

        return bool(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return False


@contextlib.contextmanager
def _writer(path: Path, fps: int) -> Iterator[Write]:
    """Yield a function that appends a frame to the video that appears at ``path`` at the end."""
    import imageio.v2 as imageio

    options: dict[str, Any] = {"duration": 1000 / fps, "loop": 0}
    if path.suffix == ".mp4":
        output = ["-crf", "20", "-movflags", "+faststart"]
        options = {"fps": fps, "codec": "libx264", "quality": None, "output_params": output}
        options |= {"macro_block_size": 2, "ffmpeg_log_level": "error"}
    with atomic_write(path) as temporary:
        # The encoders choose the format by the suffix, which a temporary name does not have.
        unfinished = temporary.with_name(temporary.name + path.suffix)
        try:
            writer: Any = imageio.get_writer(unfinished, mode="I", **options)
            try:
                yield writer.append_data
            finally:
                writer.close()  # as a context manager it leaves ffmpeg running after an error
            os.replace(unfinished, temporary)
        finally:
            unfinished.unlink(missing_ok=True)
