"""The demo's screen and summary: they fit, and they hide nothing."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from daemon import demo_summary
from daemon.demo_scores import HOUR_MS, Interval, Ledger, SensorScore
from daemon.demo_screen import Facts, Screen, table
from daemon.demo_weather import SENSORS, Sensor
from daemon.records import Reading


def facts_of(error: float) -> Facts:
    """Forty hours; the model misses by `error` where naive misses by 1."""
    ledger = Ledger(1)
    scores = {sensor: SensorScore((1, 3, 6)) for sensor in SENSORS}
    for hour in range(40):
        ledger.sent(0, Reading("JFK", hour * HOUR_MS, (1000.0 + hour,)), 0.0)
        ledger.seen(0, hour, 1.0)
        ahead = [1000.0 + hour + lead + error * lead for lead in range(1, 25)]
        for score in scores.values():
            intervals = [Interval(median - 2, median, median + 2) for median in ahead]
            score.add(hour * HOUR_MS, 1000.0 + hour, intervals, scored=True)
    return Facts(ledger, scores, 6, "80%", weights="version abc", killed_at="2013-09-29 12:00")


def summary(facts: Facts) -> str:
    console = Console(file=io.StringIO(), width=200)
    demo_summary.show(facts, 90.0, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_model_that_beats_naive() -> None:
    """It says where, and that every reading has its forecast."""
    text = summary(facts_of(0.5))
    assert "version abc beats naive at +3, +6 h in the mean" in text
    assert "-50%" in text
    assert "40 forecasts: every reading has exactly one" in text


def test_a_model_that_does_not_beat_naive() -> None:
    """It is said plainly, with the leads."""
    text = summary(facts_of(1.5))
    assert "version abc does NOT beat naive at +3 h, +6 h" in text
    assert "beats naive" not in text


def test_a_sensor_for_which_naive_is_better_is_named() -> None:
    """A good mean hides no sensor."""
    facts = facts_of(0.5)
    facts.scores[Sensor("JFK", 5)].tallies[6].model *= 10
    assert "at +6 h naive is better for JFK visib" in summary(facts)


def test_a_lost_reading_and_a_second_forecast_are_named() -> None:
    """The promise is broken, and the summary says by how much."""
    facts = facts_of(0.5)
    facts.ledger.sent(0, Reading("JFK", 10**12, (1.0,)), 0.0)
    facts.ledger.seen(0, 0, 2.0)
    text = summary(facts)
    assert "BROKEN: 1 readings without a forecast, 1 forecasts too many" in text
    assert "exactly one" not in text.replace("exactly once", "")


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_table_fits(width: int) -> None:
    """No cell is cut; what has no room is left out as a whole column."""
    console = Console(file=io.StringIO(), width=width)
    console.print(table(facts_of(0.5), width))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert all(str(sensor) in text for sensor in SENSORS)
    assert ("│" in text) == (width >= 104)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_the_screen_fits(width: int, height: int) -> None:
    """Nothing runs off the bottom of a terminal; sensors without room are counted."""
    console = Console(file=io.StringIO(), width=width, height=height)
    screen = Screen(console, facts_of(0.5))
    for name in ("weather", "weights", "broker", "daemon", "history", "live"):
        screen.done(screen.begin(name, "x" * 60), "y" * 60)
    lines = console.render_lines(screen.render(), pad=False)
    text = "\n".join("".join(segment.text for segment in line) for line in lines)
    assert len(lines) <= height
    assert "error against naive" in text
    assert ("more" in text) == (height < 34)
