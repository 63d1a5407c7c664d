"""Cards of OGBench's datasets (observation layouts as in its simulator code, release 1.2)."""

from __future__ import annotations

from gcrl_gym.datasets.sources import Card

_LICENCE = "MIT"
_WHOLE = "a whole observation; success looks at x, y only"

CARDS = (
    Card(
        "ogbench/pointmaze-*",
        "0-1 position x, y",
        "a whole observation",
        "x, y within 1.0 of the goal's",
        "1000",
        _LICENCE,
        "teleport mazes move the point at random between portals: jumps there are no defects",
    ),
    Card(
        "ogbench/antmaze-*",
        "0-1 x, y; 2-14 torso height, orientation, joints; 15-28 velocities",
        _WHOLE,
        "x, y within 0.5 of the goal's",
        "1000",
        _LICENCE,
    ),
    Card(
        "ogbench/humanoidmaze-*",
        "0-1 x, y; 2-68 joint angles, head height, limbs, torso direction, velocities",
        _WHOLE,
        "x, y within 0.5 of the goal's",
        "2000 (giant 4000)",
        _LICENCE,
    ),
    Card(
        "ogbench/antsoccer-*",
        "0-14 ant's x, y and pose; 15-21 ball's position and orientation; 22-41 their velocities",
        "a whole observation; success looks at the ball's x, y only",
        "ball within 0.5 of the goal's",
        "1000",
        _LICENCE,
    ),
    Card(
        "ogbench/cube-*",
        "0-18 arm and gripper; then 9 per cube: position, orientation, yaw as cosine and sine",
        "a whole observation; success looks at the cubes' positions",
        "every cube within 0.04 m of its place",
        "200 (single), 500 (double), 1000 (triple, quadruple)",
        _LICENCE,
    ),
    Card(
        "ogbench/scene-*",
        "0-18 arm and gripper; 19-27 cube; 28-35 two buttons; 36-37 drawer; 38-39 window",
        "a whole observation; success looks at cube, buttons, drawer and window",
        "cube, drawer and window within 0.04 m, both buttons as in the goal",
        "750",
        _LICENCE,
    ),
    Card(
        "ogbench/puzzle-*",
        "0-18 arm and gripper; then 4 per button: state (one of two), position, velocity",
        "a whole observation; success looks at the button states",
        "every button as in the goal",
        "500 (3x3, 4x4), 1000 (4x5, 4x6)",
        _LICENCE,
    ),
)
