"""One alarm for what belongs together, and quiet until it has been over for a while."""

from __future__ import annotations

import math

from models.alarms import Alarm


def alarms(scores: list[float | None], quiet: int = 3) -> list[int]:
    """The readings that raise an alarm at a score of 2."""
    alarm = Alarm(2.0, quiet)
    return [place for place, score in enumerate(scores) if alarm.raised(score)]


def test_one_alarm_while_the_score_stays_high_or_comes_back() -> None:
    assert alarms([0, 2, 5, 1, 1, 2, 1, 1, 9]) == [1]


def test_again_after_enough_quiet_readings() -> None:
    """Exactly so many low ones in a row, not one fewer."""
    assert alarms([3, 1, 1, 1, 3]) == [0, 4]
    assert alarms([3, 1, 1, 3, 1, 1, 1, 3]) == [0, 7]


def test_no_score_is_a_low_one() -> None:
    assert alarms([None, 3, None, math.nan, 0, 3]) == [1, 5]


def test_a_stream_that_warms_up_raises_none() -> None:
    """Nor does it keep an alarm from being raised afterwards."""
    alarm = Alarm(2.0, 3)
    assert not alarm.raised(9.0, warming=True)
    assert alarm.raised(2.0)
