"""Films: readable files with the right frames, without a display, leaving nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import pytest

import gcrl_gym
from gcrl_gym import video
from gcrl_gym.errors import UserError
from gcrl_gym.rollout import make_jobs
from gcrl_gym.video import annotate, record_video


class ToGoal:
    """Walks straight to the goal."""

    def predict(self, obs, state=None, episode_start=None, deterministic=False):
        way = obs["desired_goal"] - obs["observation"]
        return np.clip(way / 0.5, -1, 1), None


class Random:
    """Draws from the process-wide generator, which filming seeds and puts back."""

    def predict(self, obs, state=None, episode_start=None, deterministic=False):
        return np.random.uniform(-1, 1, (len(obs["observation"]), 2)), None


def frames_of(path):
    with imageio.get_reader(path) as reader:
        return [np.asarray(frame)[..., :3] for frame in reader]


@pytest.fixture
def open_maze():
    return gym.make("gcrl/Nav2D-v0", maze="open")


def test_mp4_shows_every_step_and_holds_the_last(open_maze, tmp_path):
    path = record_video(ToGoal(), open_maze, tmp_path / "new" / "film.mp4", episodes=2, fps=20)
    assert path == tmp_path / "new" / "film.mp4"
    steps = []
    for job in make_jobs((1, 2, 3, 4, 5), 1, seed=0)[:2]:
        obs, info = open_maze.reset(
            seed=int(job.seed.generate_state(1)[0]), options={"task_id": job.task}
        )
        count = 0
        while not info["is_success"]:
            action = ToGoal().predict({key: value[None] for key, value in obs.items()})[0][0]
            obs, _, _, _, info = open_maze.step(action)
            count += 1
        steps.append(count)
    frames = frames_of(path)
    assert len(frames) == sum(steps) + 2 * 14  # 0.7 s at 20 fps
    height, width, _ = frames[0].shape
    assert height % 2 == width % 2 == 0
    assert height > width  # the bar is above the square picture
    # The walk moves, the hold does not.
    assert np.abs(frames[0].astype(int) - frames[steps[0] // 2]).max() > 100
    assert np.abs(frames[-1].astype(int) - frames[-10]).mean() < 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["film.mp4"]


def test_the_bar_shows_success_in_green_and_time_out_in_red():
    frame = np.full((200, 201, 3), 128, np.uint8)
    plain = annotate(frame, "task 1", 3, 10, None)
    assert plain.shape[0] % 2 == plain.shape[1] % 2 == 0
    assert plain.shape[1] >= 400  # enlarged
    right = slice(int(0.75 * plain.shape[1]), None)
    bar = slice(0, 25)
    green = annotate(frame, "task 1", 3, 10, "SUCCESS")[bar, right].astype(int)
    red = annotate(frame, "task 1", 3, 10, "TIME OUT")[bar, right].astype(int)
    assert (green[..., 1] - green[..., 0]).max() > 80
    assert (red[..., 0] - red[..., 1]).max() > 80
    assert (plain[bar, right].std(axis=-1) < 10).all()
    assert (annotate(frame, "task 2", 3, 10, None) != plain).any()
    assert (annotate(frame, "task 1", 4, 10, None) != plain).any()


def test_same_seed_films_the_same_and_leaves_generators_alone(open_maze, tmp_path):
    env = gym.make("gcrl/Nav2D-v0", maze="open", noise=0.2, max_episode_steps=15)
    before = repr(np.random.get_state())
    films = [
        frames_of(record_video(Random(), env, tmp_path / f"{n}.mp4", episodes=1, seed=seed))
        for n, seed in enumerate((0, 0, 1))
    ]
    assert repr(np.random.get_state()) == before
    assert (films[0][15] == films[1][15]).all()
    assert (films[0][15] != films[2][15]).any()


def test_gif_and_the_fallback_to_it(open_maze, tmp_path, monkeypatch):
    path = record_video(ToGoal(), open_maze, tmp_path / "a.gif", episodes=1)
    assert len(frames_of(path)) > 10
    monkeypatch.setattr(video, "has_ffmpeg", lambda: False)
    with pytest.warns(UserWarning, match="ffmpeg"):
        path = record_video(ToGoal(), open_maze, tmp_path / "b.mp4", episodes=1)
    assert path == tmp_path / "b.gif"
    assert len(frames_of(path)) > 10


def test_long_episodes_are_thinned_out(tmp_path):
    class Still:
        def predict(self, obs, state=None, episode_start=None, deterministic=False):
            return np.zeros((1, 2)), None

    env = gym.make("gcrl/Nav2D-v0", max_episode_steps=130)
    path = record_video(Still(), env, tmp_path / "film.mp4", episodes=1, fps=5)
    # At most 60 frames (12 s at 5 fps): every third of 130, then the last one for 0.7 s.
    assert len(frames_of(path)) == 44 + 4


def test_errors_leave_no_file(open_maze, tmp_path):
    class Broken(ToGoal):
        def predict(self, *args, **kwargs):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        record_video(Broken(), open_maze, tmp_path / "film.mp4")
    with pytest.raises(UserError, match=r"\.mp4 or \.gif"):
        record_video(ToGoal(), open_maze, tmp_path / "film.avi")
    blind = open_maze.unwrapped
    blind.metadata = {"render_modes": []}
    with pytest.raises(UserError, match="rgb_array"):
        record_video(ToGoal(), blind, tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []


def test_mujoco_environments_film_without_a_display(tmp_path):
    pytest.importorskip("ogbench")
    video.prepare_rendering()
    if "MUJOCO_GL" not in os.environ:
        pytest.skip("no OpenGL library here")
    script = (
        "import sys, numpy as np, gymnasium as gym\n"
        "from gcrl_gym.video import prepare_rendering, record_video\n"
        "prepare_rendering()\n"
        "from gcrl_gym.wrappers.goal_dict import make_goal_dict_env\n"
        "class East:\n"
        "    def predict(self, obs, *args, **kwargs):\n"
        "        return np.ones((1, 2)), None\n"
        "for name in ('medium', 'large'):\n"
        "    env = gym.wrappers.TimeLimit(make_goal_dict_env(f'pointmaze-{name}-v0'), 15)\n"
        "    record_video(East(), env, f'{sys.argv[1]}/{name}.mp4', episodes=1)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    root = str(Path(gcrl_gym.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        check=True,
        env=environment | {"PYTHONPATH": root},
        timeout=120,
    )
    for name in ("medium", "large"):
        frames = frames_of(tmp_path / f"{name}.mp4")
        assert len(frames) == 15 + 7
        assert frames[0].std() > 20  # not black
        assert np.abs(frames[0].astype(int) - frames[-1]).max() > 100
