"""Tracks: closed, smooth, apart from themselves, and grids that tell the truth about them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrl_gym.envs.tracks import (
    FIELD,
    HALF_WIDTH,
    MAX_POINTS,
    MIN_RADIUS,
    SPACING,
    get_track,
)

SEEDS = st.integers(0, 2**31 - 1)


def distances(places, track):
    """Distance of places (K, 2) from the centre line as a polygon, (K,), and nearest points."""
    starts = track.points
    sides = np.roll(starts, -1, axis=0) - starts
    offsets = places[:, None] - starts  # (K, M, 2)
    share = np.clip((offsets * sides).sum(-1) / (sides * sides).sum(-1), 0, 1)
    gaps = np.linalg.norm(offsets - share[..., None] * sides, axis=-1)
    return gaps.min(axis=1), np.linalg.norm(offsets, axis=-1).argmin(axis=1)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_shape(seed):
    track = get_track(seed)
    points, count = track.points, len(track.points)
    assert 250 < track.length < 500
    assert count <= MAX_POINTS
    sides = np.roll(points, -1, axis=0) - points
    assert np.linalg.norm(sides, axis=1) == pytest.approx(track.spacing, rel=0.02)
    assert track.spacing == pytest.approx(SPACING, rel=2e-3)
    assert np.linalg.norm(track.tangents, axis=1) == pytest.approx(1)
    assert ((track.tangents * sides).sum(axis=1) > 0.99 * track.spacing).all()
    assert np.abs(track.curvature).max() < 1.1 / MIN_RADIUS
    turning = track.curvature.sum() * track.spacing
    assert abs(turning) == pytest.approx(2 * np.pi, rel=0.01)  # once round: no figure of eight
    assert np.abs(track.curvature).sum() * track.spacing > 10
    assert np.abs(points).max() + HALF_WIDTH < FIELD - 8  # grass all around


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_keeps_away_from_itself(seed):
    track = get_track(seed)
    some = track.points[::2]
    gaps = np.linalg.norm(some[:, None] - some, axis=-1)
    apart = np.abs(np.arange(len(some))[:, None] - np.arange(len(some)))
    apart = np.minimum(apart, len(some) - apart) * 2 * track.spacing
    assert gaps[apart > 34].min() > 2 * HALF_WIDTH + 8
    # And no bend is so tight that the road's inner edges touch.
    assert (gaps[apart > 12] > 7).all()


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_curvature_is_that_of_the_headings(seed):
    track = get_track(seed)
    angles = np.unwrap(np.arctan2(track.tangents[:, 1], track.tangents[:, 0]))
    measured = (angles[20:] - angles[:-20]) / (20 * track.spacing)
    mean = np.convolve(track.curvature, np.ones(20) / 20, "valid")[: len(measured)]
    assert measured == pytest.approx(mean, abs=0.006)


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_grids_against_brute_force(seed):
    track = get_track(seed)
    rng = np.random.default_rng(seed)
    near = rng.integers(len(track.points), size=300)
    lateral = rng.uniform(-7.5, 7.5, 300)
    places = track.points[near] + lateral[:, None] * track.left[near]
    truth, nearest = distances(places, track)
    expected = HALF_WIDTH - truth
    got = track.edge_distance(places)
    clear = (truth > 0.5) & (expected > -3.5)  # the grid is cut off, and round on the middle line
    assert got[clear] == pytest.approx(expected[clear], abs=0.1)
    assert got[~clear] == pytest.approx(np.maximum(expected[~clear], -4), abs=0.4)
    wrong = np.abs(track.index_of(places) - nearest)
    assert np.minimum(wrong, len(track.points) - wrong).max() <= 4
    anywhere = rng.uniform(-FIELD, FIELD, (300, 2))
    truth, _ = distances(anywhere, track)
    assert ((track.edge_distance(anywhere) > 0) == (truth < HALF_WIDTH))[
        np.abs(truth - HALF_WIDTH) > 0.3
    ].all()


def test_a_function_of_the_seed():
    one, two = get_track.__wrapped__(7), get_track.__wrapped__(7)
    for name in ("points", "tangents", "curvature", "edge", "nearest"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
        assert not np.array_equal(getattr(one, name)[:300], getattr(get_track(8), name)[:300])
    assert get_track(7) is get_track(7)


def test_both_directions_and_many_shapes():
    tracks = [get_track(seed) for seed in range(30)]
    left = [track.curvature.sum() > 0 for track in tracks]
    assert 5 < sum(left) < 25
    assert np.std([track.length for track in tracks]) > 8


def test_starts_where_the_road_is_straight():
    for seed in range(10):
        track = get_track(seed)
        bends = np.abs(track.curvature)
        assert bends[: round(20 / SPACING)].mean() < 0.7 * bends.mean()


def test_shared_arrays_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        get_track(0).points[0] = 0
