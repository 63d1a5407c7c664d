"""Cards of D4RL's datasets."""

from __future__ import annotations

from gcrl_gym.datasets.sources import Card

_LICENCE = "CC BY 4.0"
_NONE = "none"
_RETURN = "no success test; normalised return"

CARDS = (
    Card(
        "d4rl/hopper-*, d4rl/halfcheetah-*, d4rl/walker2d-*, d4rl/ant-*",
        "positions without x (ant: without x, y), then velocities: 11, 17, 17, 111 numbers",
        _NONE,
        _RETURN,
        "1000",
        _LICENCE,
        "recorded in the -v2 simulators, evaluated in Gymnasium's -v5 environments: scores are "
        "close to published ones, not equal by construction",
    ),
    Card(
        "d4rl/maze2d-*",
        "0-1 position x, y; 2-3 velocity",
        "x, y; `-goal` ids carry infos/goal as desired_goal",
        "x, y within 0.5 of the goal",
        "300 (umaze), 600 (medium), 800 (large)",
        _LICENCE,
        "one uninterrupted walk; timeouts mark changes of the goal, not resets; rewards[t] "
        "belongs to observations[t]",
    ),
    Card(
        "d4rl/antmaze-*",
        "0-1 x, y; 2-14 pose; 15-28 velocities",
        "x, y; `-goal` ids carry infos/goal as desired_goal",
        "x, y within 0.5 of the goal",
        "700 (umaze), 1000",
        _LICENCE,
        "terminals mark success and do not end an episode; -v0 has timeouts out of step with the "
        "real ends, which conversion repairs; rewards are 0 and 1 (`minus_one` makes them r - 1)",
    ),
    Card(
        "d4rl/kitchen-*",
        "0-8 robot, 9-29 objects, 30-59 goal",
        _NONE,
        "number of sub-tasks finished, 0 to 4",
        "280",
        _LICENCE,
        "evaluated in Gymnasium-Robotics' FrankaKitchen-v1 with these 60 numbers; it rewards a "
        "finished sub-task once, the data at every step while it is",
    ),
    Card(
        "d4rl/door-*, d4rl/pen-*, d4rl/hammer-*, d4rl/relocate-*",
        "hand joints, then object: 39, 45, 46, 39 numbers",
        _NONE,
        _RETURN,
        "200 (pen 100)",
        _LICENCE,
        "human demonstrations are up to 300 steps long",
    ),
)
