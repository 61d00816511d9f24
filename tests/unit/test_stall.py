"""A partition with lag that brings no records is found, and only such a one."""

from __future__ import annotations

from daemon.stall import StallGuard


def test_lag_without_progress_is_suspect_after_the_patience() -> None:
    """Exactly at the patience it is still given time."""
    guard = StallGuard(60)
    assert guard.suspects({0: 5}, {0: 10}, 0) == []
    assert guard.suspects({0: 5}, {0: 10}, 60) == []
    assert guard.suspects({0: 5}, {0: 10}, 61) == [0]


def test_progress_or_nothing_to_read_starts_the_patience_anew() -> None:
    """A moved offset, or no lag, is no stall."""
    guard = StallGuard(60)
    guard.suspects({0: 5, 1: 5}, {0: 10, 1: 10}, 0)
    guard.suspects({0: 6, 1: 5}, {0: 9, 1: 0}, 50)
    assert guard.suspects({0: 6, 1: 5}, {0: 9, 1: 3}, 100) == []
    assert guard.suspects({0: 6, 1: 5}, {0: 9, 1: 3}, 111) == [0, 1]


def test_a_forgiven_partition_gets_its_patience_again() -> None:
    """Nothing committed to read is no stall of ours."""
    guard = StallGuard(60)
    guard.suspects({0: 5}, {0: 10}, 0)
    guard.forgive(0, 61)
    assert guard.suspects({0: 5}, {0: 10}, 100) == []
