"""Steps per second of our environments against others, in one run, on one core.

    pip install -c constraints.txt -e '.[dev,bench]'
    pip install -c constraints.txt --no-deps minigrid  # its pygame-ce would replace our pygame
    OMP_NUM_THREADS=1 python -m benchmarks.bench_envs

Three tables: single environments through ``gym.make``, native vector environments, and pictures as
observations. Environments that are not installed print ``skipped``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import gymnasium as gym

import gcrl_gym  # noqa: F401  (registers the environments)
from benchmarks.harness import print_table, run_interleaved

STEPS = 1_000
COPIES, FILMED = 1024, 32

SINGLE = {
    "CarRacing-v3 (pixels)": ("gymnasium", "CarRacing-v3", {}),
    "PointMaze_UMaze-v3": ("gymnasium_robotics", "PointMaze_UMaze-v3", {}),
    "OGBench pointmaze-medium": ("ogbench", "pointmaze-medium-v0", {}),
    "MiniGrid-FourRooms-v0": ("minigrid", "MiniGrid-FourRooms-v0", {}),
    "Nav2D": ("gcrl_gym", "gcrl/Nav2D-v0", {}),
    "Nav2D, noise 0.1": ("gcrl_gym", "gcrl/Nav2D-v0", {"noise": 0.1}),
    "Nav2DDiscrete": ("gcrl_gym", "gcrl/Nav2DDiscrete-v0", {}),
    "CarRacing (state)": ("gcrl_gym", "gcrl/CarRacing-v0", {}),
    "CarRacing (pixels)": ("gcrl_gym", "gcrl/CarRacingPixels-v0", {"mode": "lap"}),
}
VECTOR = {
    "Nav2D": ("gcrl/Nav2D-v0", COPIES, {}),
    "Nav2D, noise 0.1": ("gcrl/Nav2D-v0", COPIES, {"noise": 0.1}),
    "Nav2D, procedural mazes": ("gcrl/Nav2D-v0", COPIES, {"maze": "procedural"}),
    "Nav2DDiscrete": ("gcrl/Nav2DDiscrete-v0", COPIES, {}),
    "CarRacing, goals": ("gcrl/CarRacing-v0", COPIES, {}),
    "CarRacing, laps": ("gcrl/CarRacing-v0", COPIES, {"mode": "lap"}),
}
PICTURES = {
    "Nav2D": ("gcrl/Nav2D-v0", FILMED, {"image_observation": True}),
    "CarRacingPixels, goals": ("gcrl/CarRacingPixels-v0", FILMED, {}),
    "CarRacingPixels, laps": ("gcrl/CarRacingPixels-v0", FILMED, {"mode": "lap"}),
}


def single(env: gym.Env) -> Callable[[], None]:
    """Play random actions, drawn beforehand, with resets where episodes end."""
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(STEPS)]
    env.reset(seed=0)

    def play() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return play


def vector(env_id: str, copies: int, steps: int, keywords: dict[str, object]) -> Callable[[], None]:
    """Play random actions in all copies, which begin anew by themselves."""
    env = gym.make_vec(env_id, num_envs=copies, **keywords)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(50)]
    env.reset(seed=0)

    def play() -> None:
        for step in range(steps):
            env.step(actions[step % 50])

    return play


def main() -> None:
    """Time everything that is installed and print the tables."""
    candidates, skipped = {}, {}
    for name, (module, env_id, keywords) in SINGLE.items():
        quiet = io.StringIO()
        try:
            with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
                candidates[name] = single(gym.make(f"{module}:{env_id}", **keywords))
        except (ImportError, gym.error.DependencyNotInstalled) as error:
            skipped[name] = str(error)
    print(f"Single environments, {STEPS} steps a round")
    print_table(run_interleaved(candidates, units=STEPS, rounds=5), unit="step", skipped=skipped)
    for title, table, steps in (
        (f"Native vector environments, {COPIES} copies", VECTOR, 100),
        (f"Pictures as observations, {FILMED} copies", PICTURES, 100),
    ):
        print(f"\n{title} (steps of single copies per second)")
        calls = {name: vector(e, n, steps, k) for name, (e, n, k) in table.items()}
        copies = next(iter(table.values()))[1]
        print_table(run_interleaved(calls, units=steps * copies, rounds=5), unit="step")
    peer = next(iter(SINGLE))
    if peer in candidates:
        compare_pictures(peer, candidates[peer])


def compare_pictures(name: str, theirs: Callable[[], None]) -> None:
    """Print how many times as fast as Gymnasium's car racing ours draws, taken in turn."""
    steps = 60
    ours = vector("gcrl/CarRacingPixels-v0", FILMED, steps, {"mode": "lap"})
    results = run_interleaved({name: theirs, "ours": ours}, rounds=5)
    ratio = results[name].seconds / STEPS / (results["ours"].seconds / (steps * FILMED))
    print(f"\nCarRacingPixels, {FILMED} copies: {ratio:.1f} times the steps/s of {name}")


if __name__ == "__main__":
    main()
