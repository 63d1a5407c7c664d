"""Steps per second of Nav2D against other point mazes, through ``gym.make``, in one run.

    python -m benchmarks.bench_envs

Peers that are not installed print ``skipped: not found``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import gymnasium as gym

import gcrl_gym  # noqa: F401  (registers the environments)
from benchmarks.harness import print_table, run_interleaved

STEPS = 5_000
PEERS = {"PointMaze_UMaze-v3": "gymnasium_robotics", "pointmaze-medium-v0": "ogbench"}
OURS = {
    "gcrl/Nav2D-v0": {},
    "gcrl/Nav2D-v0 noise 0.1": {"noise": 0.1},
    "gcrl/Nav2DDiscrete-v0": {},
}


def stepper(env: gym.Env) -> Callable[[], None]:
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


def main() -> None:
    """Time everything that is installed and print a table."""
    candidates: dict[str, Callable[[], None]] = {}
    skipped = {}
    for name, module in PEERS.items():
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                candidates[name] = stepper(gym.make(f"{module}:{name}"))
        except ImportError:
            skipped[name] = "not found"
    for name, keywords in OURS.items():
        candidates[name] = stepper(gym.make(name.split()[0], **keywords))
    print_table(run_interleaved(candidates, units=STEPS), unit="step", skipped=skipped)


if __name__ == "__main__":
    main()
