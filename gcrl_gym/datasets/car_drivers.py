"""Scripted drivers for many cars at once: pure pursuit of the road at a speed the bends allow.

A driver steers towards a point of the road some way ahead: the arc that leads there has curvature
2 y / d^2, for a point y to the left at distance d. Its speed is the most from which it can brake to
sqrt(share of the grip / curvature) before every bend. Skill is graded by that share, by noise that
lasts (an Ornstein-Uhlenbeck process), and by actions drawn at random and held for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gcrl_gym.envs.car_batch import CarBatch
from gcrl_gym.envs.car_dynamics import AXLE, GRAVITY, GRIP_ROAD, MAX_STEERING, State
from gcrl_gym.envs.tracks import MAX_POINTS, SPACING, get_track

Floats = NDArray[np.float64]

_BRAKING = 5.0  # m/s^2 that drivers plan with
_FASTEST = 24.0
_OFF_ROAD_SPEED = 7.0
_GRASS_GAS = 0.6  # more would spin the wheels
_LOOK, _LOOK_TIME = 3.5, 0.28  # metres, and seconds of driving, to the point aimed at
_MEMORY = 0.9  # of the noise, per step
_HELD = 0.08  # probability per step that a random action or a whim of a playing driver ends


@dataclass(frozen=True)
class Skill:
    """How well to drive.

    Args:
        grip: share of the road's grip that is used in bends.
        noise: standard deviation of the noise on the steering; that on the pedals is twice it.
        random_share: share of the time spent with random actions.
        wander: standard deviation, in metres, of the lateral line that is chosen anew now and then.
    """

    grip: float
    noise: float
    random_share: float
    wander: float = 0.0


SKILLS = {
    "expert": Skill(grip=0.65, noise=0.0, random_share=0.0),
    "medium": Skill(grip=0.45, noise=0.15, random_share=0.1),
    "random": Skill(grip=0.5, noise=0.0, random_share=1.0),
    "play": Skill(grip=0.45, noise=0.05, random_share=0.05, wander=1.2),
}


class Driver:
    """Drives all cars of a batch.

    Args:
        skill: how well.
        cars: the batch; looked at in every step, tracks and goals included.
        rng: of everything random.
    """

    def __init__(self, skill: Skill, cars: CarBatch, rng: np.random.Generator) -> None:
        self.skill, self.cars, self.rng = skill, cars, rng
        count = cars.count
        self._noise = np.zeros((2, count))
        self._random = np.zeros((3, count))
        self._is_random = np.zeros(count, bool)
        self._line = np.zeros(count)  # metres to the left of the middle
        self._haste = np.ones(count)
        self._redraw(np.ones(count, bool))

    def act(self) -> NDArray[np.float32]:
        """Return the actions (N, 3) for the present state."""
        skill, rng, count = self.skill, self.rng, self.cars.count
        self._redraw(rng.random(count) < _HELD)
        drawn = rng.standard_normal((2, count)) * np.sqrt(1 - _MEMORY**2)
        self._noise = _MEMORY * self._noise + drawn
        steer, speed_error = self._pursue()
        steer = steer + skill.noise * self._noise[0]
        pedal = speed_error * 0.6 + 2 * skill.noise * self._noise[1]
        pedal = np.where(self.cars.edge < 0, np.minimum(pedal, _GRASS_GAS), pedal)
        wise = np.stack([steer, pedal, -0.7 * pedal])
        actions = np.where(self._is_random, self._random, wise)
        low = np.array([[-1.0], [0.0], [0.0]])
        return np.ascontiguousarray(np.clip(actions, low, 1.0).T, np.float32)

    def _redraw(self, chosen: NDArray[np.bool_]) -> None:
        """Draw anew, for some cars, what lasts a while: random actions, lines, haste."""
        draws = self.rng.random((6, self.cars.count))
        steer, pedal = 2 * draws[0] - 1, 1.6 * draws[1] - 0.6  # more gas than brake
        random = np.stack([steer, pedal, -pedal])
        self._random = np.where(chosen, random, self._random)
        is_random = draws[2] < self.skill.random_share
        self._is_random = np.where(chosen, is_random, self._is_random)
        if self.skill.wander:
            chosen = chosen & (draws[3] < 0.2)
            spread = np.sqrt(3) * self.skill.wander
            self._line = np.where(chosen, (2 * draws[4] - 1) * spread, self._line)
            self._haste = np.where(chosen, 0.4 + 0.6 * draws[5], self._haste)

    def _pursue(self) -> tuple[Floats, Floats]:
        """Steering towards the road ahead, and the missing speed in m/s."""
        cars, state = self.cars, self.cars.state
        everyone = np.arange(cars.count)
        speed = cars.speed()
        look = (_LOOK + _LOOK_TIME * speed) / SPACING
        none = np.zeros(cars.count)
        x, y, _, _ = cars.bank.pose(everyone, cars.index + look, self._lines(), none)
        dx, dy = x - state[State.X], y - state[State.Y]
        cos, sin = state[State.COS], state[State.SIN]
        forward, left = dx * cos + dy * sin, dy * cos - dx * sin
        bend = 2 * left / (dx * dx + dy * dy)
        steer = -np.arctan(2 * AXLE * bend) / MAX_STEERING
        # The point lies behind: turn round, towards its side.
        steer = np.where(forward > 0, steer, -np.where(left >= 0, 1.0, -1.0))
        wanted = self._speeds() * self._haste
        lost = (cars.edge < 0) | (forward < 0)
        wanted = np.where(lost, np.minimum(wanted, _OFF_ROAD_SPEED), wanted)
        return steer, wanted - speed

    def _lines(self) -> Floats:
        """Lateral offsets to drive at: the goal's own, or the one chosen."""
        cars = self.cars
        if cars.mode == "lap" or self.skill.wander:
            return self._line
        x, y = cars.goals[:, :2].T.astype(np.float64)
        index = cars.bank.nearest(x, y)
        everyone, none = np.arange(cars.count), np.zeros(cars.count)
        middle_x, middle_y, cos, sin = cars.bank.pose(everyone, index, none, none)
        return np.asarray((y - middle_y) * cos - (x - middle_x) * sin)

    def _speeds(self) -> Floats:
        """Planned speeds a moment ahead of the cars."""
        ahead = self.cars.index + np.rint(0.1 * self.cars.speed() / SPACING).astype(np.int64)
        table = _speed_table(tuple(self.cars.bank.loaded), self.skill.grip)
        return np.asarray(table[self.cars.bank.slots, ahead % self.cars.bank.points])


@lru_cache(maxsize=8)
def _speed_table(seeds: tuple[int, ...], grip: float) -> Floats:
    """Planned speeds on tracks, (tracks, MAX_POINTS)."""
    table = np.zeros((len(seeds), MAX_POINTS))
    for row, seed in enumerate(seeds):
        plan = planned_speeds(seed, grip)
        table[row, : len(plan)] = plan
    return table


@lru_cache(maxsize=512)
def planned_speeds(seed: int, grip: float) -> Floats:
    """Speed at every point of a track from which the bends to come can be taken, (M,) in m/s.

    Args:
        seed: of the track.
        grip: share of the road's grip that is used.
    """
    track = get_track(seed)
    bends = np.maximum(np.abs(track.curvature), 1e-6)
    squares = np.minimum(grip * GRIP_ROAD * GRAVITY / bends, _FASTEST**2).tolist()
    count, gain = len(squares), 2 * _BRAKING * track.spacing
    for index in range(2 * count - 2, -1, -1):  # backwards, twice round
        following = squares[(index + 1) % count] + gain
        if following < squares[index % count]:
            squares[index % count] = following
    return np.asarray(np.sqrt(squares))
