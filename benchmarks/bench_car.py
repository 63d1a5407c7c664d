"""Steps per second of car racing, one and many at a time, against Gymnasium's CarRacing-v3.

    python -m benchmarks.bench_car

The peer needs ``pip install "gymnasium[box2d]"``; without it, its row says ``skipped: not found``.
Ours and the peer's cars drive with the same kind of random actions.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np

import gcrl_gym  # noqa: F401  (registers the environments)
from benchmarks.harness import print_table, run_interleaved
from gcrl_gym.envs.tracks import get_track

SINGLE_STEPS = 320
STATE_COPIES, PIXEL_COPIES = 1024, 32
BARS = {"state": 500_000.0, "pixels": 20.0}


def random_actions(count: int, copies: int | None) -> np.ndarray:
    """Steer, gas and brake drawn anew at every step, mostly gas."""
    shape = (count, 3) if copies is None else (count, copies, 3)
    return np.random.default_rng(0).uniform([-1, 0, 0], [1, 1, 0.2], shape).astype(np.float32)


def single(env: gym.Env) -> Callable[[], None]:
    """Drive one environment, with resets where episodes end."""
    actions = random_actions(SINGLE_STEPS, None)
    env.reset(seed=0)

    def play() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return play


def many(env_id: str, copies: int, steps: int, **keywords: object) -> Callable[[], None]:
    """Drive a native vector environment for about ``SINGLE_STEPS`` steps of the table's unit."""
    envs = gym.make_vec(
        env_id, num_envs=copies, vectorization_mode="vector_entry_point", **keywords
    )
    actions = random_actions(steps, copies)
    envs.reset(seed=0)

    def play() -> None:
        for chosen in actions:
            envs.step(chosen)

    return play


def state() -> None:
    """State observations: one environment, and 1024 copies on one track and on a hundred."""
    print(f"\nState observations, {STATE_COPIES} copies", flush=True)
    steps = 100
    units = steps * STATE_COPIES
    candidates = {
        "goal, one track": many("gcrl/CarRacing-v0", STATE_COPIES, steps),
        "goal, 100 tracks": many("gcrl/CarRacing-v0", STATE_COPIES, steps, num_tracks=100),
        "lap, 100 tracks": many("gcrl/CarRacing-v0", STATE_COPIES, steps, mode="lap"),
    }
    results = run_interleaved(candidates, units=units)
    print_table(results, unit="step")
    for name, timing in results.items():
        rate = 1 / timing.seconds
        verdict = "held" if rate >= BARS["state"] else "MISSED"
        print(f"    {name}: {rate:,.0f} steps/s  (bar {BARS['state']:,.0f}: {verdict})")


def pixels() -> None:
    """Pictures: per step of one car, against Gymnasium's CarRacing-v3."""
    print(f"\nPictures of 96 x 96, one environment and {PIXEL_COPIES} copies", flush=True)
    skipped = {}
    ours = f"ours, {PIXEL_COPIES} copies"
    results = {}
    try:
        peer = {"CarRacing-v3": single(gym.make("CarRacing-v3"))}
    except gym.error.DependencyNotInstalled:
        peer, skipped = {}, {"CarRacing-v3": "not found"}
    # All candidates drive SINGLE_STEPS steps per call, so that one table holds them.
    play = many("gcrl/CarRacingPixels-v0", PIXEL_COPIES, SINGLE_STEPS // PIXEL_COPIES, mode="lap")
    candidates = peer | {
        "ours, one": single(gym.make("gcrl/CarRacingPixels-v0", mode="lap")),
        ours: play,
    }
    units = SINGLE_STEPS // PIXEL_COPIES * PIXEL_COPIES
    results = run_interleaved(candidates, units=units)
    print_table(results, unit="step", skipped=skipped)
    if peer:
        ratio = results[ours].ratio
        verdict = "held" if ratio >= BARS["pixels"] else "MISSED"
        print(f"    {ours} vs CarRacing-v3: {ratio:.1f}x  (bar {BARS['pixels']:g}: {verdict})")


def single_states() -> None:
    """One environment with state observations."""
    print("\nOne environment, state observations", flush=True)
    candidates = {
        name: single(gym.make("gcrl/CarRacing-v0", **keywords))
        for name, keywords in {"goal": {}, "lap": {"mode": "lap"}}.items()
    }
    print_table(run_interleaved(candidates, units=SINGLE_STEPS), unit="step")


def tracks() -> None:
    """Milliseconds to make a track."""
    times = []
    for seed in range(10_000, 10_100):
        start = time.process_time()
        get_track(seed)
        times.append(1000 * (time.process_time() - start))
    low, high = np.mean(times), np.max(times)
    print(f"\nMaking a track: {low:.1f} ms on average, {high:.1f} ms at most", flush=True)


def main() -> None:
    """Run all tables."""
    state()
    single_states()
    pixels()
    tracks()


if __name__ == "__main__":
    main()
