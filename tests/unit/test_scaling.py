"""The scale of the arrangements' rows: against sums written out, with gaps and missing values."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from config.settings import EngineSettings
from models import scaling
from models.engine import HEADER, Readings
from models.kernels import SPREAD_PER_DEVIATION
from models.layout import padded
from tests import examples

T0 = 1_700_000_000_000


def rows(engine: EngineSettings, count: int) -> np.ndarray:
    return np.zeros(count, padded([*HEADER, *scaling.fields(engine), *scaling.small_fields()]))


def run(values: list[float], gaps_ms: list[int]) -> tuple[np.ndarray, list[scaling.Scale], list[int]]:
    """One stream; the row, what was said at each reading, and the interval then."""
    engine = examples.settings(kind="many_to_many")
    table, scales, intervals, time_ms = rows(engine, 1), [], [], T0
    for place, (value, gap_ms) in enumerate(zip(values, gaps_ms, strict=True)):
        time_ms += gap_ms
        one = np.zeros(1, np.int64)
        readings = Readings(np.array([[value]]), np.array([time_ms]), one + place, one, np.array([place == 0]))
        scaling.start(table, readings)
        scales.append(scaling.observe(table, readings))
        scaling.stamp(table, readings)
        intervals.append(int(table["interval_ms"][0]))
    return table, scales, intervals


def test_level_and_spread_are_running_means() -> None:
    """At first each reading weighs 1/n; a missing one moves nothing and leaves the newest value."""
    values = [10.0, 14.0, np.nan, 6.0]
    table, scales, _ = run(values, [0, 1000, 1000, 1000])
    level, deviation = 10.0, 0.2
    for count, value in ((2, 14.0), (4, 6.0)):
        away = value - level
        level, deviation = level + away / count, deviation + (abs(away) - deviation) / count
    assert float(table["level"][0, 0]) == pytest.approx(level)
    assert scales[-1].spread[0, 0] == pytest.approx(deviation * SPREAD_PER_DEVIATION)
    assert scales[2].level.tolist() == scales[1].level.tolist()
    assert run(values[:3], [0, 1, 1])[0]["newest"][0, 0] == 14.0


def test_the_interval_is_the_median_of_the_last_gaps() -> None:
    """Of at most nine; the lower one of two in the middle; unknown before the second reading."""
    gaps_ms = [0, 60, 61, 59, 1000, 60, 62, 60, 60, 58, 57, 57, 57, 57]
    _, scales, intervals = run([1.0] * len(gaps_ms), gaps_ms)
    expected = [0] + [statistics.median_low(gaps_ms[1 : n + 1][-9:]) for n in range(1, len(gaps_ms))]
    assert intervals == expected
    assert scales[0].gap.tolist() == [1.0]
    assert scales[4].gap[0] == pytest.approx(1000 / expected[4])


def test_inputs_by_hand() -> None:
    """Values in spreads from the level, a mask, the gap; what is missing is zero beside its mask, freaks are clipped."""
    values = np.array([[12.0, np.nan], [1e9, 4.0]])
    made = scaling.inputs(values, np.full((2, 2), 10.0), np.full((2, 2), 4.0), np.array([1.0, 3.0]), 8)
    assert made.tolist() == [[0.5, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0, 0.0], [8.0, -1.5, 0.0, 0.0, 0.75, 0.0, 0.0, 0.0]]


def test_a_constant_stream_has_a_spread() -> None:
    """Nothing is divided by zero, also where all is zero."""
    for value in (0.0, 5.0):
        scale = run([value] * 5, [0, 1, 1, 1, 1])[1][-1]
        assert scale.spread[0, 0] > 0
