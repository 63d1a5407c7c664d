"""The timing harness: turns, medians, ratios."""

from __future__ import annotations

import pytest

from benchmarks.harness import print_table, run_interleaved


class Clock:
    """A clock that work advances by hand, so that nothing is timed."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def work(self, name, durations):
        durations = iter(durations)

        def call():
            self.calls.append(name)
            self.now += next(durations)

        return call

    def __call__(self):
        return self.now


def test_medians_ratios_and_turns(capsys):
    clock = Clock()
    # The first duration is the warm-up; the second candidate has one slow round.
    slow = clock.work("slow", [100, 8, 8, 8, 8, 8])
    fast = clock.work("fast", [100, 2, 2, 60, 2, 2])
    results = run_interleaved({"slow": slow, "fast": fast}, units=4, rounds=5, clock=clock)
    assert results["slow"].seconds == 2.0
    assert results["fast"].seconds == 0.5
    assert results["slow"].ratio == 1.0
    assert results["fast"].ratio == 4.0
    assert clock.calls == ["slow", "fast", *["slow", "fast", "fast", "slow"] * 2, "slow", "fast"]
    print_table(results, unit="step", skipped={"absent": "not found"})
    printed = capsys.readouterr().out
    assert "fast" in printed
    assert "4.00x" in printed
    assert "absent  skipped: not found" in printed


def test_an_error_in_a_candidate_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_interleaved({"broken": lambda: 1 / 0})
