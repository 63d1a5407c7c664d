"""Episode ends from flags and from jumps of the state."""

import numpy as np
import pytest

from gcrl_gym.datasets.episode_bounds import (
    align_flags,
    broken_rows,
    cut_at_limit,
    find_bounds,
    state_jumps,
)


def flags(count, *rows):
    array = np.zeros(count, bool)
    array[list(rows)] = True
    return array


def walk(rng, jumps=(), rows=200, scale=(1.0, 1.0)):
    """Positions of a body that moves smoothly and is put elsewhere after the rows ``jumps``."""
    speed = 0.1 + 0.02 * np.sin(np.arange(rows))[:, None]
    positions = np.cumsum(speed * np.array([[1.0, 0.5]]), axis=0)
    for row in jumps:
        positions[row + 1 :] += rng.uniform(2, 4, size=2)
    return np.hstack([positions * scale, rng.normal(size=(rows, 2)) * 50])


@pytest.mark.parametrize("scale", [(1, 1), (1e-3, 1), (1, 1e4)])
def test_jumps_are_found_in_the_position_columns_of_any_scale(rng, scale):
    jumps = state_jumps(walk(rng, (3, 50, 51 + 20), scale=scale), 2)
    np.testing.assert_array_equal(np.flatnonzero(jumps), [3, 50, 71])


def test_ordinary_motion_has_no_jumps(rng):
    assert not state_jumps(walk(rng), 2).any()
    speeding_up = np.cumsum(1.3 ** np.arange(60))[:, None]  # far from the median, but no jump
    assert not state_jumps(speeding_up, 1).any()
    at_rest = np.zeros((50, 2))
    assert not state_jumps(at_rest, 2).any()
    assert not state_jumps(at_rest[:2], 2).any()
    twice = np.repeat(walk(rng)[:, :2], 2, axis=0)[:200]  # duplicates, as in D4RL's maze2d
    assert not state_jumps(twice, 2).any()


def test_broken_rows_ignore_rounding():
    states = np.random.default_rng(0).normal(size=(100, 3))
    following = np.roll(states, -1, axis=0).astype(np.float32).astype(np.float64)
    assert not broken_rows(states, following).any()
    following[[10, 99]] += 1  # nothing follows the last row
    np.testing.assert_array_equal(np.flatnonzero(broken_rows(states, following)), [10])


@pytest.mark.parametrize(
    ("flagged", "jump", "aligned", "moved", "unflagged"),
    [
        ([5], [5], [5], [], []),
        ([4], [5], [5], [4], []),
        ([6], [5], [5], [6], []),
        ([3], [5], [3, 5], [], [5]),
        ([7], [5], [5, 7], [], [5]),
        ([], [5], [5], [], [5]),
        ([5], [], [5], [], []),
        ([5, 6], [5], [5, 6], [], []),
        ([5], [4, 6], [4, 6], [5], [6]),  # one flag is moved once
        ([9], [8], [8], [9], []),  # the last row
    ],
)
def test_flags_one_row_beside_a_jump_are_moved(flagged, jump, aligned, moved, unflagged):
    found, came_from, alone = align_flags(flags(10, *flagged), flags(10, *jump))
    found = found.copy()
    found[alone] = True
    assert np.flatnonzero(found).tolist() == aligned
    assert (came_from.tolist(), alone.tolist()) == (moved, unflagged)


def test_bounds_keep_terminated_apart_from_truncated():
    bounds = find_bounds(flags(10, 2), flags(10, 5), flags(10, 2, 5))
    assert bounds.starts.tolist() == [0, 3]
    assert bounds.stops.tolist() == [3, 6]
    assert bounds.terminated.tolist() == [True, False]
    assert bounds.tail == 6
    assert bounds.repaired == ()


@pytest.mark.parametrize("beside", [-1, 1])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_moved_flag_keeps_its_kind(beside, terminal):
    there, never = flags(10, 5 + beside), flags(10)
    bounds = find_bounds(*((there, never) if terminal else (never, there)), flags(10, 5))
    assert bounds.stops.tolist() == [6]
    assert bounds.terminated.tolist() == [terminal]
    assert bounds.repaired[0].startswith("1 end (first: row ")
    assert "moved" in bounds.repaired[0]


def test_both_flags_at_once_are_terminated():
    bounds = find_bounds(flags(6, 3), flags(6, 3, 5), flags(6))
    assert bounds.terminated.tolist() == [True, False]
    assert "1 row (first: row 3) with a terminal and a timeout" in bounds.repaired[0]


def test_a_jump_without_a_flag_is_a_truncation():
    bounds = find_bounds(flags(9), flags(9, 8), flags(9, 3))
    assert bounds.stops.tolist() == [4, 9]
    assert not bounds.terminated.any()
    assert bounds.tail == 9
    assert "added where the state jumps" in bounds.repaired[0]


def test_no_ends():
    bounds = find_bounds(flags(4), flags(4), flags(4))
    assert len(bounds.starts) == len(bounds.stops) == bounds.tail == 0


def test_time_limit_counts_from_the_last_end():
    assert cut_at_limit(flags(12, 4), 3).tolist() == [2, 7, 10]
    assert cut_at_limit(flags(6, 2, 5), 3).tolist() == []
    bounds = find_bounds(flags(12, 4), flags(12), flags(12), limit=5)
    assert bounds.stops.tolist() == [5, 10]
    assert bounds.terminated.tolist() == [True, False]
    assert "5 rows, the time limit" in bounds.repaired[0]


@pytest.fixture
def rng():
    return np.random.default_rng(0)
