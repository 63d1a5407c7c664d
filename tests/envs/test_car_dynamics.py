"""The motion of cars, against closed forms and conservation laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrl_gym.envs.car_dynamics import (
    AXLE,
    DRAG,
    DT,
    GRAVITY,
    GRIP_GRASS,
    GRIP_ROAD,
    INERTIA,
    MAX_BRAKE,
    MAX_GAS,
    MAX_STEERING,
    ROLLING_GRASS,
    ROLLING_ROAD,
    STEERING_RATE,
    State,
    advance,
    rotate,
)


def standing(count=1):
    state = np.zeros((8, count))
    state[State.COS] = 1.0
    return state


def drive(state, steps, steer=0.0, gas=0.0, brake=0.0, road=1.0):
    count = state.shape[1]
    actions = np.array([[steer], [gas], [brake]]) * np.ones((3, count))
    history = [state]
    for _ in range(steps):
        history.append(advance(history[-1], actions, np.full((2, count), road)))
    return np.stack(history)


def random_states(rng, count):
    state = standing(count)
    angle = rng.uniform(-np.pi, np.pi, count)
    state[State.X : State.Y + 1] = rng.uniform(-50, 50, (2, count))
    state[State.COS], state[State.SIN] = np.cos(angle), np.sin(angle)
    state[State.VX : State.VY + 1] = rng.normal(0, 10, (2, count))
    state[State.YAW_RATE] = rng.normal(0, 3, count)
    state[State.STEERING] = rng.uniform(-MAX_STEERING, MAX_STEERING, count)
    return state


def test_acceleration_is_a_hyperbolic_tangent():
    """v' = a - k v^2 has the solution sqrt(a / k) tanh(sqrt(a k) t)."""
    for gas, road, rolling in ((1.0, 1.0, ROLLING_ROAD), (0.6, 0.0, ROLLING_GRASS)):
        history = drive(standing(), 600, gas=gas, road=road)
        time = np.arange(len(history)) * DT
        force = gas * MAX_GAS - rolling
        expected = np.sqrt(force / DRAG) * np.tanh(np.sqrt(force * DRAG) * time)
        assert history[20:, State.VX, 0] == pytest.approx(expected[20:], abs=0.05)
        distance = np.log(np.cosh(np.sqrt(force * DRAG) * time)) / DRAG
        assert history[40:, State.X, 0] == pytest.approx(distance[40:], rel=0.02, abs=0.3)
        assert np.abs(history[:, State.Y]).max() == 0


def test_braking_is_a_tangent_and_ends_at_rest():
    """v' = -b - k v^2 has the solution sqrt(b / k) tan(c - sqrt(b k) t)."""
    state = standing()
    state[State.VX] = 20.0
    brake = 0.7
    force = brake * MAX_BRAKE + ROLLING_ROAD
    history = drive(state, 100, brake=brake)
    rate, scale = np.sqrt(force * DRAG), np.sqrt(force / DRAG)
    time = np.arange(len(history)) * DT
    expected = scale * np.tan(np.arctan(20 / scale) - rate * time)
    moving = expected > 1.0
    assert history[moving, State.VX, 0] == pytest.approx(expected[moving], abs=0.05)
    assert abs(history[-1, State.VX, 0]) < 1e-3
    assert history[:, State.VX].min() > -1e-9  # brakes do not drive backwards


def test_full_brakes_hold_what_friction_allows():
    state = standing()
    state[State.VX] = 20.0
    for road, grip in ((1.0, GRIP_ROAD), (0.0, GRIP_GRASS)):
        speed = drive(state, 1, brake=1.0, road=road)[-1, State.VX, 0]
        deceleration = (20.0 - speed) / DT - DRAG * 20.0**2
        assert deceleration <= grip * GRAVITY
        assert deceleration > 0.75 * min(grip * GRAVITY, MAX_BRAKE)


@pytest.mark.parametrize("steer", [-0.9, -0.3, 0.2, 0.6])
def test_slow_circles_are_those_of_rolling_wheels(steer):
    """Without slip the circle of the rear axle has radius wheelbase / tan(steering angle)."""
    history = drive(standing(), 400, steer=steer, gas=0.045)  # a walking pace
    last = history[-1, :, 0]
    speed = np.hypot(last[State.VX], last[State.VY])
    assert 0.5 < speed < 4
    radius = np.hypot(2 * AXLE / np.tan(steer * MAX_STEERING), AXLE)
    assert abs(last[State.YAW_RATE]) == pytest.approx(speed / radius, rel=0.05)
    assert np.sign(last[State.YAW_RATE]) == -np.sign(steer)  # -1 is left, counterclockwise


@pytest.mark.parametrize(("road", "grip"), [(1.0, GRIP_ROAD), (0.0, GRIP_GRASS)])
def test_no_bend_is_faster_than_friction_allows(road, grip):
    """v^2 / R, which is speed times the turning rate of the velocity, stays below mu g."""
    for steer in (0.1, 0.3, 1.0):
        state = standing()
        state[State.VX] = 15.0
        history = drive(state, 100, steer=steer, gas=0.3, road=road)
        velocity = history[:, State.VX, 0] + 1j * history[:, State.VY, 0]
        turning = np.angle(velocity[1:] / velocity[:-1]) / DT
        assert np.abs(np.abs(velocity[1:]) * turning).max() <= grip * GRAVITY * 1.01
    assert np.abs(np.abs(velocity[1:30]) * turning[:29]).max() > 0.75 * grip * GRAVITY


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_energy_never_grows_without_gas(seed):
    rng = np.random.default_rng(seed)
    state = random_states(rng, 50)

    def energy(s):
        moving = s[State.VX] ** 2 + s[State.VY] ** 2
        return 0.5 * (moving + INERTIA * s[State.YAW_RATE] ** 2)

    for _ in range(60):
        steer = rng.uniform(-1, 1, 50)
        brake = rng.random(50) * rng.integers(0, 2, 50)
        after = advance(state, np.stack([steer, 0 * steer, brake]), rng.random((2, 50)))
        assert (energy(after) <= energy(state) + 1e-12).all()
        state = after


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_left_and_right_are_mirror_images(seed):
    rng = np.random.default_rng(seed)
    state = random_states(rng, 20)
    flip = np.array([1, -1, 1, -1, 1, -1, -1, -1])[:, None]
    actions = rng.uniform([[-1], [0], [0]], 1, (3, 20))
    road = rng.random((2, 20))
    for _ in range(20):
        mirrored = advance(flip * state, actions * [[-1], [1], [1]], road)
        state = advance(state, actions, road)
        assert np.array_equal(mirrored, flip * state)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_no_direction_of_the_world_is_special(seed):
    """Turned by a right angle, everything happens turned by a right angle, but for rounding."""
    rng = np.random.default_rng(seed)
    state, turned = random_states(rng, 20), np.zeros((8, 20))
    for x, y in ((0, 1), (2, 3), (4, 5)):
        turned[x], turned[y] = -state[y], state[x]
    turned[6:] = state[6:]
    actions, road = rng.uniform([[-1], [0], [0]], 1, (3, 20)), rng.random((2, 20))
    for _ in range(5):
        state, turned = advance(state, actions, road), advance(turned, actions, road)
    for x, y in ((0, 1), (2, 3), (4, 5)):
        np.testing.assert_allclose(turned[x], -state[y], atol=1e-9)
        np.testing.assert_allclose(turned[y], state[x], atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(1, 70))
@settings(max_examples=20, deadline=None)
def test_a_car_does_not_depend_on_the_others(seed, count):
    rng = np.random.default_rng(seed)
    state, road = random_states(rng, count), rng.random((2, count))
    actions = rng.uniform([[-1], [0], [0]], 1, (3, count))
    together = advance(state, actions, road)
    for car in range(count):
        one = slice(car, car + 1)
        assert np.array_equal(
            advance(state[:, one], actions[:, one], road[:, one]), together[:, one]
        )


def test_steering_turns_at_its_rate_up_to_its_limit():
    history = drive(standing(), 20, steer=-1.0)[:, State.STEERING, 0]
    rise = np.diff(history)
    assert rise[0] == pytest.approx(STEERING_RATE * DT)
    assert history[-1] == pytest.approx(MAX_STEERING)
    assert history.max() <= MAX_STEERING + 1e-12


def test_full_gas_in_a_bend_costs_grip_at_the_rear():
    """Engine force and cornering force share the friction circle: the car turns in, or spins."""
    state = standing()
    state[State.VX] = 10.0
    gentle = drive(state, 30, steer=0.5, gas=0.2)
    hard = drive(state, 30, steer=0.5, gas=1.0)

    def slip(history):
        last = history[-1, :, 0]
        heading = np.arctan2(last[State.SIN], last[State.COS])
        return np.abs(np.arctan2(last[State.VY], last[State.VX]) - heading)

    assert slip(hard) > slip(gentle)


@given(st.floats(-3, 3), st.floats(-1, 1))
def test_rotate(angle, half):
    cos, sin = rotate(np.cos([angle]), np.sin([angle]), np.array([half]))
    turned = angle + 2 * np.arctan(half)
    assert [cos[0], sin[0]] == pytest.approx([np.cos(turned), np.sin(turned)], abs=1e-12)


def test_headings_stay_unit_vectors():
    history = drive(standing(), 2000, steer=0.4, gas=0.5)
    norm = np.hypot(history[:, State.COS], history[:, State.SIN])
    assert norm == pytest.approx(1, abs=1e-12)
