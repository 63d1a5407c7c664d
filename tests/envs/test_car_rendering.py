"""Pictures of cars: for agents, where things are to the pixel; for people, that they show."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import gcrl_gym  # noqa: F401
from gcrl_gym.envs import car_frames, car_rendering
from gcrl_gym.envs.car_rendering import (
    CAR_COLUMN,
    CAR_ROW,
    PIXEL,
    ROWS,
    TexturePool,
    paint,
    texture,
)
from gcrl_gym.envs.car_sensors import TrackBank
from gcrl_gym.envs.tracks import FIELD, get_track

PIXELS, STATE = "gcrl/CarRacingPixels-v0", "gcrl/CarRacing-v0"


def at(track, index, lateral=0.0):
    point = track.points[index] + lateral * track.left[index]
    return np.array([*point, *track.tangents[index]])


def picture(pose, mode="lap", goal=None, steering=0.0, speed=0.0, yaw_rate=0.0, tolerance=2.0):
    """What the car sees at a pose of track 0."""
    env = gym.make(PIXELS, mode=mode, num_tracks=1, goal_tolerance=tolerance).unwrapped
    env.reset(options={"goal": goal} if mode == "goal" else None)
    state = env.cars.state
    state[:4, 0] = pose
    state[4:6, 0] = speed * np.asarray(pose)[2:]
    state[6:, 0] = yaw_rate, steering
    env.cars._locate()
    observation = env._outcome()[0]
    return (observation["observation"] if mode == "goal" else observation).astype(int)


def pixel(forward, left):
    """Row and column of a place in the car's frame."""
    return round(CAR_ROW - forward / PIXEL), round(CAR_COLUMN - left / PIXEL)


def is_near(colour, expected, tolerance=24):
    return np.abs(np.asarray(colour) - expected).max() <= tolerance


def kind(colour):
    """Name of the nearest of the main colours."""
    main = {
        "grass": car_rendering.GRASS,
        "asphalt": car_rendering.ASPHALT,
        "goal": car_rendering.GOAL,
        "arrow": car_rendering.GOAL_ARROW,
        "outside": car_rendering.OUTSIDE,
    }
    return min(main, key=lambda name: np.abs(colour - np.array(main[name])).sum())


def test_road_and_grass_are_where_they_are():
    """Pixel for pixel against the track's own grid."""
    track = get_track(0)
    for index, lateral in ((0, 0.0), (130, 2.0), (300, -3.0), (500, 6.0)):
        pose = at(track, index, lateral)
        seen = picture(pose)
        rows, columns = np.mgrid[0:ROWS, 0:96]
        forward, left = (CAR_ROW - rows) * PIXEL, (CAR_COLUMN - columns) * PIXEL
        cos, sin = pose[2:]
        places = np.stack(
            [pose[0] + forward * cos - left * sin, pose[1] + forward * sin + left * cos], -1
        )
        edge = track.edge_distance(np.clip(places, -FIELD, FIELD))
        inside = np.abs(places).max(axis=-1) < FIELD - 0.5
        away = np.maximum(np.abs(forward) / 3, np.abs(left) / 2) > 1  # from the car itself
        grass = inside & away & (edge < -1.2)
        greenness = seen[:ROWS, :, 1] - seen[:ROWS, :, 2]
        assert (greenness[grass] > 40).all()
        road = inside & away & (edge > 1.0)
        assert (greenness[road] < 40).all()
        grey = (np.abs(seen[:ROWS] - car_rendering.ASPHALT).max(axis=-1) < 16)[road]
        assert grey.mean() > 0.9  # the rest: dashes, start line


def test_the_picture_turns_with_the_car():
    track = get_track(0)
    pose = at(track, 40, 1.0)
    seen = picture(pose)
    # The edges of the road: 3 m to the left, 5 m to the right.
    assert kind(seen[pixel(0, 2.0)]) == "asphalt"
    assert kind(seen[pixel(0, 4.6)]) == "grass"
    assert kind(seen[pixel(0, -3.8)]) == "asphalt"
    assert kind(seen[pixel(0, -6.4)]) == "grass"
    turned = picture([*pose[:2], -pose[3], pose[2]])  # to the left: now the road lies across
    assert kind(turned[pixel(1.8, 5.0)]) == "asphalt"
    assert kind(turned[pixel(5.0, 5.0)]) == "grass"
    assert kind(turned[pixel(-3.8, -5.0)]) == "asphalt"
    assert kind(turned[pixel(-6.6, -5.0)]) == "grass"


def test_beyond_the_field():
    seen = picture([FIELD - 1, 0, 1, 0])
    assert kind(seen[pixel(10, 0)]) == "outside"
    assert kind(seen[pixel(-4, 0)]) == "grass"


def test_the_car_and_its_wheels():
    pose = at(get_track(0), 0)
    straight, left, right = (picture(pose, steering=angle) for angle in (0.0, 0.45, -0.45))
    assert is_near(straight[int(CAR_ROW) + 3, 47], car_rendering.BODY, 40)
    patch = slice(int(CAR_ROW) - 7, int(CAR_ROW) + 8), slice(44, 53)
    assert not np.array_equal(straight[patch], left[patch])
    assert not np.array_equal(left[patch], right[patch])
    outside = left.copy()
    outside[patch] = straight[patch]
    assert np.array_equal(outside[:ROWS], straight[:ROWS])


def test_bars():
    pose = at(get_track(0), 0)
    rest = picture(pose)[ROWS:]
    assert (rest[1:4] == 0).all()
    fast = picture(pose, speed=12.5)[ROWS:]
    assert (fast[1:4, :48] == car_rendering.BARS[0]).all()
    assert (fast[1:4, 49:] == 0).all()
    left = picture(pose, steering=0.225, yaw_rate=-1.0)[ROWS:]
    assert (left[5:8, 24:48] == car_rendering.BARS[1]).all()
    assert (left[5:8, :23] == 0).all()
    assert (left[5:8, 50:] == 0).all()
    assert (left[9:12, 49:71] == car_rendering.BARS[2]).all()
    assert (left[9:12, :47] == 0).all()
    half = picture(pose, speed=25 * 10.5 / 96)[ROWS:]
    assert half[2, 10] == pytest.approx(120, abs=1)  # half a pixel is half as bright


def test_the_goal_shows_when_in_view():
    track = get_track(0)
    pose = at(track, 0)
    for index, lateral in ((24, 0.0), (40, 1.0)):
        goal = at(track, index, lateral)
        seen = picture(pose, "goal", goal)
        plain = picture(pose)
        offset = goal[:2] - pose[:2]
        forward, left = offset @ pose[2:], offset @ [-pose[3], pose[2]]
        row, column = pixel(forward, left)
        assert kind(seen[row, column]) == "arrow"
        ring = [kind(seen[row, column + side]) for side in (-5, 5)]
        assert ring == ["goal", "goal"]
        changed = np.argwhere((seen != plain).any(axis=-1))
        gaps = np.linalg.norm(changed - [row, column], axis=1) * PIXEL
        assert gaps.max() < 2.0 * 1.6 + 1
    behind = at(track, -60)
    assert np.array_equal(picture(pose, "goal", behind), picture(pose))


def test_the_arrow_shows_the_heading():
    track = get_track(0)
    pose, goal = at(track, 0), at(track, 24)
    cos, sin = goal[2:]
    seen = {
        name: picture(pose, "goal", [*goal[:2], *heading], tolerance=4.0)
        for name, heading in (("along", (cos, sin)), ("left", (-sin, cos)), ("back", (-cos, -sin)))
    }
    assert not np.array_equal(seen["along"], seen["back"])
    offset = goal[:2] - pose[:2]
    forward, left = offset @ pose[2:], offset @ [-pose[3], pose[2]]
    assert kind(seen["left"][pixel(forward, left + 5)]) == "arrow"
    assert kind(seen["left"][pixel(forward, left - 5)]) != "arrow"


def test_goals_at_the_edge_of_the_picture():
    track = get_track(0)
    pose = at(track, 0)
    for forward in np.arange(-12.0, 30.0, 1.3):
        for left in (-20.0, -18.0, 0.0, 18.5, 21.0):
            x, y = pose[:2] + forward * pose[2:] + left * np.array([-pose[3], pose[2]])
            seen = picture(pose, "goal", [x, y, 1, 0]) if np.hypot(forward, left) > 3 else None
            assert seen is None or (seen[ROWS:] == picture(pose)[ROWS:]).all()


# Painted tracks -----------------------------------------------------------------------------------


def test_the_palette_holds_the_paint():
    palette = car_rendering._palette().view(np.uint8).reshape(-1, 4)[:, :3].astype(int)
    for seed in (0, 5):
        painted = paint(get_track(seed)).astype(int)
        errors = np.abs(palette[texture(seed)] - painted).max(axis=-1)
        assert np.quantile(errors, 0.99) <= 12
        assert errors.max() < 70


def test_a_pool_follows_its_bank():
    bank, pool = TrackBank(2, 0), TexturePool()
    pool.follow(bank)
    assert np.array_equal(pool.texels[0], texture(0).ravel())
    for seed in (1, 2):
        bank.place(np.array([seed - 1]), np.array([seed]))
        pool.follow(bank)
    assert len(pool.texels) == len(bank.loaded)
    for slot, seed in enumerate(bank.loaded):
        assert np.array_equal(pool.texels[slot], texture(seed).ravel())
    assert pool.texels.nbytes < 0.4e6 * len(bank.loaded)


# Frames for people --------------------------------------------------------------------------------


def test_frames():
    env = gym.make(STATE, render_mode="rgb_array")
    track = get_track(0)
    options = {"start": at(track, 0), "goal": at(track, 30)}
    env.reset(options=options)
    first = env.render()
    kept = first.copy()
    assert first.shape == (480, 480, 3)
    assert first.dtype == np.uint8
    assert first.flags["C_CONTIGUOUS"]
    x, y = car_frames.CAR_AT
    assert is_near(first[int(y) + 3, int(x) + 5], car_rendering.BODY, 40)
    assert is_near(first[int(y) - 60, int(x) + 18], car_rendering.ASPHALT, 16)
    terminated = False
    for _ in range(120):
        _, _, terminated, _, _ = env.step(np.array([0, 0.6, 0], np.float32))
        if terminated:
            break
    assert terminated
    last = env.render()
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, last)
    header = last[: car_frames.HEADER].astype(int)
    assert (header[..., 1] - header[..., 0] > 60).any()  # green: reached
    trail = last[int(y) + 30 : int(y) + 60, int(x) - 6 : int(x) + 6].astype(int)
    assert (trail[..., 2] - trail[..., 0] > 60).any()  # blue
    again = env.reset(options=options)
    assert again[1]["is_success"] is False
    assert np.array_equal(env.render(), first)  # nothing is left of the last episode


@pytest.mark.parametrize("env_id", [STATE, PIXELS])
@pytest.mark.parametrize("mode", ["goal", "lap"])
def test_frames_of_every_kind(env_id, mode):
    env = gym.make(env_id, mode=mode, render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    env.step(env.action_space.sample())
    assert frame.std() > 20
    assert not np.array_equal(frame, env.render())
    twin = copy.deepcopy(env)
    assert np.array_equal(twin.render(), env.render())


def run(code, **variables):
    hidden = ("DISPLAY", "WAYLAND_DISPLAY")
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | variables
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_frames_need_no_video_driver_and_print_nothing():
    code = (
        "import gymnasium as gym, gcrl_gym\n"
        "env = gym.make('gcrl/CarRacing-v0', render_mode='rgb_array')\n"
        "env.reset(seed=0)\n"
        "assert env.render().std() > 0\n"
        "import pygame\n"
        "assert not pygame.display.get_init()\n"
    )
    done = run(code, SDL_VIDEODRIVER="no-such-driver")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_human_mode_opens_a_window_and_closes_it():
    code = (
        "import gymnasium as gym, gcrl_gym, pickle\n"
        "env = gym.make('gcrl/CarRacing-v0', render_mode='human')\n"
        "env.reset(seed=0)\n"
        "import pygame\n"
        "assert pygame.display.get_surface().get_size() == (480, 480)\n"
        "env.step(env.action_space.sample())\n"
        "assert env.render() is None\n"
        "pickle.dumps(env)\n"
        "env.close()\n"
        "assert not pygame.display.get_init()\n"
    )
    done = run(code, SDL_VIDEODRIVER="dummy")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
