"""The demo's judgement: exactly once, latency, and errors against the last value."""

from __future__ import annotations

import math

import pytest

from daemon.demo_scores import HOUR_MS, Interval, Ledger, SensorScore, mean_coverage, mean_ratio, percentile
from daemon.records import Reading

NAN = math.nan


def reading(hour: int, value: float = 1.0, stream: str = "s") -> Reading:
    return Reading(stream, hour * HOUR_MS, (value,))


def ledger_of(*readings: Reading) -> Ledger:
    ledger = Ledger(2)
    for at, each in enumerate(readings):
        ledger.sent(1, each, sent_s=float(at))
    return ledger


def test_each_once() -> None:
    """A ledger is clean when every due reading was seen exactly once."""
    ledger = ledger_of(reading(1), reading(2))
    assert ledger.lost() == 2
    assert ledger.seen(1, 0, 5.0) == reading(1)
    assert ledger.seen(1, 1, 5.0) == reading(2)
    assert (ledger.lost(), ledger.repeated(), ledger.forecasts) == (0, 0, 2)


def test_a_second_forecast_is_one_too_many() -> None:
    """It is counted and not scored again."""
    ledger = ledger_of(reading(1))
    ledger.seen(1, 0, 5.0)
    assert ledger.seen(1, 0, 6.0) is None
    assert (ledger.lost(), ledger.repeated()) == (0, 1)


@pytest.mark.parametrize(("partition", "offset"), [(1, 1), (0, 0), (2, 0), (1, -1)])
def test_a_forecast_of_nothing_is_one_too_many(partition: int, offset: int) -> None:
    """A position that was never sent has no forecast."""
    ledger = ledger_of(reading(1))
    ledger.seen(1, 0, 5.0)
    assert ledger.seen(partition, offset, 5.0) is None
    assert ledger.repeated() == 1


def test_policy_drops_need_no_forecast_and_may_have_none() -> None:
    """A stream starts with all values and its time rises; what the policy drops is not lost, and a forecast of it is wrong."""
    ledger = ledger_of(reading(1, NAN), reading(2), reading(3, NAN), reading(3), reading(2))
    assert (ledger.readings, ledger.due) == (5, 2)
    ledger.seen(1, 1, 9.0)
    ledger.seen(1, 2, 9.0)
    assert (ledger.lost(), ledger.repeated()) == (0, 0)
    ledger.seen(1, 0, 9.0)
    assert ledger.repeated() == 1


def test_waiting_counts_and_ages() -> None:
    """The oldest due reading without a forecast tells how far behind the daemon is, whatever came out of order."""
    ledger = ledger_of(reading(1), reading(2), reading(3))
    assert ledger.waiting(10.0) == (3, 10.0)
    ledger.seen(1, 1, 10.0)
    assert ledger.waiting(10.0) == (2, 10.0)
    ledger.seen(1, 0, 10.0)
    assert ledger.waiting(10.0) == (1, 8.0)
    ledger.seen(1, 2, 10.0)
    assert ledger.waiting(10.0) == (0, 0.0)


def test_latency_leaves_history_and_outage_aside() -> None:
    """What was sent before the live part counts nowhere, what waited for a recovery is counted apart."""
    ledger = ledger_of(*(reading(hour) for hour in range(5)))  # sent at 0, 1, 2, 3, 4 s
    ledger.live_s = 1.0
    ledger.seen(1, 0, 1.5)
    ledger.seen(1, 1, 1.5)
    ledger.killed_s = 2.5
    assert ledger.recovering
    ledger.seen(1, 2, 3.5)
    ledger.seen(1, 3, 3.75)
    ledger.recovered_s = 3.75
    assert not ledger.recovering
    ledger.seen(1, 4, 4.25)
    assert ledger.steady == [0.5, 0.25]
    assert ledger.waited == 2


def intervals(*medians: float) -> list[Interval]:
    return [Interval(median - 1, median, median + 1) for median in medians]


def test_forecasts_are_scored_by_the_reading_they_meant() -> None:
    """Lead k is answered by the reading k hours later, and naive by the value at the time of the forecast."""
    score = SensorScore((1, 2))
    score.add(1 * HOUR_MS, 10.0, intervals(12.0, 14.0), scored=True)
    score.add(2 * HOUR_MS, 11.5, intervals(0.0, 0.0), scored=False)
    score.add(3 * HOUR_MS, 16.0, intervals(0.0, 0.0), scored=False)
    one, two = score.tallies[1], score.tallies[2]
    assert (one.pairs, one.model, one.naive, one.coverage) == (1, 0.5, 1.5, 1.0)
    assert (two.pairs, two.model, two.naive, two.coverage) == (1, 2.0, 6.0, 0.0)
    assert mean_ratio([score], 1) == pytest.approx(1 / 3)
    assert mean_coverage([score], 2) == 0.0


def test_a_gap_or_a_missing_value_scores_nothing() -> None:
    """What was not measured cannot be missed, and the last value stays the last one measured."""
    score = SensorScore((1, 2))
    score.add(1 * HOUR_MS, 10.0, intervals(0.0, 0.0), scored=True)
    score.add(2 * HOUR_MS, NAN, intervals(20.0, 0.0), scored=True)
    score.add(3 * HOUR_MS, 19.0, intervals(0.0, 0.0), scored=True)
    assert score.tallies[1].pairs == 1
    assert (score.tallies[1].model, score.tallies[1].naive) == (1.0, 9.0)
    score.add(9 * HOUR_MS, 19.0, intervals(0.0, 0.0), scored=True)
    assert sum(tally.pairs for tally in score.tallies.values()) == 2


def test_sensors_count_alike() -> None:
    """The mean over sensors is of ratios: one in large units does not outweigh the others; unknown ones are left out."""
    small, large, unknown = SensorScore((1,)), SensorScore((1,)), SensorScore((1,))
    for score, unit in ((small, 1.0), (large, 1000.0)):
        score.add(1 * HOUR_MS, 0.0, intervals(unit if score is small else 0.0), scored=True)
        score.add(2 * HOUR_MS, unit, intervals(0.0), scored=False)
    assert (small.tallies[1].ratio, large.tallies[1].ratio) == (0.0, 1.0)
    assert mean_ratio([small, large, unknown], 1) == 0.5


def test_nothing_known_is_not_a_number() -> None:
    """Means and percentiles of nothing say so."""
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(mean_ratio([SensorScore((1,))], 1))
    assert math.isnan(mean_coverage([SensorScore((1,))], 1))


def test_percentile() -> None:
    """The value below which that share lies."""
    values = [float(each) for each in range(100, 0, -1)]
    assert percentile(values, 0.5) == 51.0
    assert percentile(values, 0.99) == 100.0
    assert percentile([3.0], 0.99) == 3.0
