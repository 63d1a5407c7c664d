"""What cars sense, against plain geometry on the edges of the road as polygons."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from gcrl_gym.envs.car_sensors import AHEAD, RAY_ANGLES, RAY_LENGTH, TrackBank
from gcrl_gym.envs.tracks import FIELD, HALF_WIDTH, SPACING, get_track


def cars_on(seeds, count, spread, seed=0):
    """States (8, N) beside the middle of the road, roughly along it, and their bank."""
    rng = np.random.default_rng(seed)
    bank = TrackBank(count, seeds[0])
    tracks = rng.choice(seeds, count)
    bank.place(np.arange(count), tracks)
    state = np.zeros((8, count))
    for car, track in enumerate(map(get_track, tracks.tolist())):
        at = rng.integers(len(track.points))
        angle = np.arctan2(*track.tangents[at][::-1]) + rng.normal(0, 0.4)
        state[:2, car] = track.points[at] + rng.uniform(*spread) * track.left[at]
        state[2:4, car] = np.cos(angle), np.sin(angle)
    return bank, state, tracks


def cast(track, place, direction):
    """Distance along a ray to the nearest crossing of an edge of the road."""
    nearest = RAY_LENGTH
    for side in (-HALF_WIDTH, HALF_WIDTH):
        starts = track.points + side * track.left
        sides = np.roll(starts, -1, axis=0) - starts
        offset = starts - place
        across = direction[0] * sides[:, 1] - direction[1] * sides[:, 0]
        along = (offset[:, 0] * sides[:, 1] - offset[:, 1] * sides[:, 0]) / across
        share = (offset[:, 0] * direction[1] - offset[:, 1] * direction[0]) / across
        hits = along[(share >= 0) & (share <= 1) & (along > 0)]
        nearest = min(nearest, *hits.tolist(), RAY_LENGTH)
    return nearest


@pytest.mark.parametrize(
    ("spread", "sign", "share"), [((-3.5, 3.5), 1, 0.99), ((4.5, 9.0), -1, 0.97)]
)
def test_rays(spread, sign, share):
    bank, state, tracks = cars_on(range(10), 150, spread)
    rays = bank.rays(state).T
    assert rays.dtype == np.float32
    truth = np.zeros(rays.shape)
    for car, seed in enumerate(tracks.tolist()):
        for ray, angle in enumerate(np.radians(RAY_ANGLES)):
            c, s = np.cos(angle), np.sin(angle)
            cos, sin = state[2:4, car]
            direction = np.array([cos * c - sin * s, sin * c + cos * s])
            truth[ray, car] = cast(get_track(seed), state[:2, car], direction)
    assert (np.sign(rays) == sign)[np.abs(truth) > 0.1].all()
    errors = np.abs(np.abs(rays) - truth)
    # A ray that grazes an inner edge may miss or find it; all others are exact to the grid.
    assert np.median(errors) < 0.05
    assert (errors < 0.5).mean() > share


def test_rays_end_at_their_length_and_beyond_the_field():
    bank = TrackBank(4, 0)
    state = np.zeros((8, 4))
    state[0], state[1] = [1, 1, -1, -1], [1, -1, 1, -1]
    state[:2] *= FIELD - 0.01
    state[2] = 1
    rays = bank.rays(state)
    assert np.isfinite(rays).all()
    assert (rays < 0).all()  # on the grass
    assert rays.min() == -RAY_LENGTH


def test_way_ahead():
    bank, state, tracks = cars_on(range(5), 40, (-3, 3))
    index = bank.nearest(state[0], state[1])
    way = bank.way_ahead(index, state)
    for car, seed in enumerate(tracks.tolist()):
        track = get_track(seed)
        at = (index[car] + np.rint(np.array(AHEAD) / SPACING).astype(int)) % len(track.points)
        offset = track.points[at] - state[:2, car]
        cos, sin = state[2:4, car]
        assert way[0, :, car] == pytest.approx(offset @ [cos, sin], abs=1e-4)
        assert way[1, :, car] == pytest.approx(offset @ [-sin, cos], abs=1e-4)


def test_poses_lie_beside_the_road():
    bank = TrackBank(2, 3)
    track = get_track(3)
    half = np.tan(np.array([0.1, -0.2]) / 2)
    x, y, cos, sin = bank.pose(np.arange(2), np.array([10.7, -5.0]), np.array([1.5, -2.0]), half)
    for car, (at, lateral, turn) in enumerate([(10, 1.5, 0.1), (-5, -2.0, -0.2)]):
        expected = track.points[at] + lateral * track.left[at]
        assert [x[car], y[car]] == pytest.approx(expected, abs=0.05)
        heading = np.arctan2(sin[car], cos[car]) - np.arctan2(*track.tangents[at][::-1])
        assert heading == pytest.approx(turn, abs=0.02)


def test_a_bank_forgets_tracks_without_cars():
    bank = TrackBank(3, 0)
    for seed in range(100):
        bank.place(np.array([seed % 3]), np.array([seed]))
        assert len(bank.loaded) <= 3 + 64
        for car, own in enumerate(bank.seeds.tolist()):
            assert bank.loaded[bank.slots[car]] == own
            assert bank.points[car] == len(get_track(own).points)
    place = get_track(99).points[[50, 50, 50]].T
    assert abs(bank.nearest(*place)[99 % 3] - 50) <= 1
    assert bank.edge_distance(*place)[99 % 3] > 3.5


def test_a_copied_bank_answers_alike():
    bank, state, _ = cars_on(range(4), 6, (-3, 3))
    assert np.array_equal(copy.deepcopy(bank).rays(state), bank.rays(state))


def test_a_car_does_not_depend_on_the_others():
    bank, state, tracks = cars_on(range(6), 37, (-6, 6))
    rays, index = bank.rays(state), bank.nearest(state[0], state[1])
    for car, seed in enumerate(tracks.tolist()):
        alone, own = TrackBank(1, seed), np.ascontiguousarray(state[:, car : car + 1])
        assert np.array_equal(alone.rays(own)[0], rays[car])
        assert np.array_equal(
            alone.way_ahead(alone.nearest(*own[:2]), own)[..., 0],
            bank.way_ahead(index, state)[..., car],
        )
