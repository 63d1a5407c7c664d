"""Motion of the cars: a bicycle model with tyres that slip, as a pure function of N cars at once.

Metres, seconds, radians; forces are per kilogram. The state of N cars is a float64 array (8, N),
one contiguous row per quantity (``State`` names them):

    x  y            position of the centre of mass
    cos  sin        heading as a unit vector
    vx  vy          velocity in the world's axes
    yaw_rate        counterclockwise
    steering        angle of the front wheels, positive to the left

A tyre that moves sideways at slip velocity w while it rolls at u is pushed back by

    F = -limit * s / sqrt(1 + s^2)        s = stiffness * load * w / (limit * sqrt(u^2 + SLOW^2))

which is linear for small slips and saturates at what friction leaves beside the longitudinal force
(friction circle): limit^2 = (grip * load)^2 - longitudinal^2. SLOW keeps it well behaved at rest.

Only + - * / and sqrt are used, which every processor rounds alike: trajectories do not depend on
the machine, on N, or on a car's place in the batch. Velocities are kept in the world's axes, where
nothing turns them but forces, and the tyres' forces are weak enough for the step (see
``test_energy_never_grows_without_gas``).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DT = 0.05
"""Seconds per environment step."""

SUBSTEPS = 2
GRAVITY = 9.81

AXLE = 1.3
"""Distance of each axle from the centre of mass."""

INERTIA = 1.5
"""Moment of inertia about the vertical axis per kilogram, in m^2."""

MAX_STEERING = 0.45
STEERING_RATE = 2.5
MAX_GAS = 5.0
"""Acceleration by the engine at full gas, where the tyres hold."""

MAX_BRAKE = 9.0
REAR_DRIVE = 0.65
FRONT_BRAKE = 0.6
DRAG = 0.008
"""Deceleration by the air is DRAG * v^2: full gas ends at 24.6 m/s."""

ROLLING_ROAD, ROLLING_GRASS = 0.15, 1.5
GRIP_ROAD, GRIP_GRASS = 1.1, 0.6
FRONT_STIFFNESS, REAR_STIFFNESS = 9.0, 11.0
SLOW = 3.0
_LOAD = GRAVITY / 2  # of each axle
_SPINNING = 0.95  # largest share of the grip that engine and brakes can take


class State(IntEnum):
    """Rows of the state array."""

    X = 0
    Y = 1
    COS = 2
    SIN = 3
    VX = 4
    VY = 5
    YAW_RATE = 6
    STEERING = 7


def advance(state: Array, actions: Array, road: Array) -> Array:
    """Drive N cars for one environment step.

    Args:
        state: (8, N).
        actions: (3, N) steer in [-1, 1] (-1 is full left), gas and brake in [0, 1].
        road: (2, N) share of road, 1, against grass, 0, under front and rear axle.

    Returns:
        (8, N), a new array.
    """
    h = DT / SUBSTEPS
    steer, gas, brake = actions
    grips = (GRIP_GRASS + (GRIP_ROAD - GRIP_GRASS) * road) * _LOAD
    rolling = (ROLLING_GRASS + (ROLLING_ROAD - ROLLING_GRASS) * road) / 2
    front_drive, rear_drive = gas * (MAX_GAS * (1 - REAR_DRIVE)), gas * (MAX_GAS * REAR_DRIVE)
    front_brake = brake * (MAX_BRAKE * FRONT_BRAKE) + rolling[0]
    rear_brake = brake * (MAX_BRAKE * (1 - FRONT_BRAKE)) + rolling[1]
    wanted = steer * -MAX_STEERING
    x, y, cos, sin, vx, vy, yaw_rate, steering = state
    for _ in range(SUBSTEPS):
        turn = np.minimum(np.maximum(wanted - steering, -STEERING_RATE * h), STEERING_RATE * h)
        steering = steering + turn
        wheel_sin = _sine(steering)
        wheel_cos = np.sqrt(1 - wheel_sin * wheel_sin)
        forward, left = vx * cos + vy * sin, vy * cos - vx * sin

        # Front axle, in the axes of its wheels: along and across.
        side = left + AXLE * yaw_rate
        rolls, slips = (
            forward * wheel_cos + side * wheel_sin,
            side * wheel_cos - forward * wheel_sin,
        )
        along, across = _tyre(rolls, slips, front_drive, front_brake, grips[0], FRONT_STIFFNESS, h)
        front_x, front_y = (
            along * wheel_cos - across * wheel_sin,
            along * wheel_sin + across * wheel_cos,
        )
        slips = left - AXLE * yaw_rate
        rear_x, rear_y = _tyre(forward, slips, rear_drive, rear_brake, grips[1], REAR_STIFFNESS, h)

        push, pull = front_x + rear_x, front_y + rear_y  # forwards, to the left
        drag = DRAG * np.sqrt(vx * vx + vy * vy)
        vx, vy = (
            vx + h * (push * cos - pull * sin - drag * vx),
            vy + h * (push * sin + pull * cos - drag * vy),
        )
        yaw_rate = yaw_rate + (h * AXLE / INERTIA) * (front_y - rear_y)
        x, y = x + h * vx, y + h * vy
        cos, sin = rotate(cos, sin, (0.5 * h) * yaw_rate)
    return np.stack([x, y, cos, sin, vx, vy, yaw_rate, steering])


def rotate(cos: Array, sin: Array, half: Array) -> tuple[Array, Array]:
    """Turn unit vectors by the angles ``2 * arctan(half)``: an exact rotation without a sine."""
    scale = 1 / (1 + half * half)
    c, s = (1 - half * half) * scale, 2 * half * scale
    cos, sin = cos * c - sin * s, sin * c + cos * s
    scale = 1 / np.sqrt(cos * cos + sin * sin)  # rounding must not add up over an episode
    return cos * scale, sin * scale


def _sine(angle: Array) -> Array:
    """Sine of the small angles of a steered wheel, to 1e-7."""
    square = angle * angle
    return angle * (1 - square * (1 / 6 - square * (1 / 120 - square / 5040)))


def _tyre(
    rolls: Array, slips: Array, drive: Array, brake: Array, grip: Array, stiffness: float, h: float
) -> tuple[Array, Array]:
    """Force along and across a wheel that rolls and slips at these velocities."""
    # Near rest, brakes fade so that a step of h stops the car instead of pushing it back.
    along = drive - brake * rolls / np.maximum(np.abs(rolls), (4 * h) * brake)
    most = _SPINNING * grip
    along = np.minimum(np.maximum(along, -most), most)
    limit = np.sqrt(grip * grip - along * along)
    slope = (stiffness * _LOAD) / np.sqrt(rolls * rolls + SLOW * SLOW)
    force = slope * slips
    return along, -force / np.sqrt(1 + (force / limit) ** 2)
