"""A trial ends by what the two versions' forecasts of the same readings came to, and never before it may."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from daemon.trials import Standing, Trial, readings_needed, scores
from models.engine import QuantileForecasts

NEEDED, GAIN, INTERVAL = 400, 0.02, 0.8


def output(errors: Any, naive: float = 1.0, covered: float = 0.8) -> QuantileForecasts:
    """Outputs of readings of one target and one lead with these errors; NaN was not due."""
    column = np.asarray(errors, np.float64)[:, None, None]
    unscored = np.isnan(column)
    nothing = np.zeros(len(column))
    of = [np.where(unscored, np.nan, value) for value in (naive, covered)]
    return QuantileForecasts(column, nothing, nothing, nothing, column, *of, nothing)


def standing(
    against: float, tried: float, readings: int, naive: float = 1.0, covered: tuple[float, float] = (0.8, 0.8)
) -> Standing:
    """So many readings with about these errors, in parts of ten; the noise is common to both."""
    noise = 1 + 0.2 * np.random.Generator(np.random.PCG64(1)).standard_normal((readings // 10, 10))
    found = Standing()
    for part in noise:
        found.add(output(against * part, naive, covered[0]), output(tried * part, naive, covered[1]))
    return found


def verdict(found: Standing, kind: str = "probation") -> bool | None:
    ended = found.verdict(kind, NEEDED, GAIN, INTERVAL)
    return None if ended is None else ended.passed


def test_readings_are_counted_where_something_was_scored() -> None:
    """A reading without a due forecast is none, of either version."""
    found = Standing()
    found.add(output([0.5, np.nan, 0.7]), output([0.4, np.nan, 0.5]))
    assert found.readings == 2
    assert scores(found) == {"against": pytest.approx(0.6), "tried": pytest.approx(0.45), "naive": pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("tried", "readings", "passed"),
    [
        (0.5, 399, None),  # alike, not over
        (0.5, 400, True),
        (0.505, 400, True),  # one per cent worse is less than min_gain
        (0.52, 400, False),  # the version before would pass the gate against it
        (0.55, 390, None),  # worse, but not clearly
        (0.63, 110, False),  # a quarter worse, a quarter of the readings
        (0.63, 90, None),  # too few to say
    ],
)
def test_probation(tried: float, readings: int, passed: bool | None) -> None:
    """Against 0.5: clearly worse ends it early, at the end it is kept unless the version before is surely better."""
    assert verdict(standing(0.5, tried, readings // 10 * 10)) is passed


def test_a_large_min_gain_lets_nothing_bad_pass() -> None:
    """What is clearly worse fails at the end too, however much a candidate must gain to be promoted."""
    ended = standing(0.5, 0.63, 400).verdict("probation", NEEDED, 0.9, INTERVAL)
    assert ended is not None
    assert not ended.passed


def test_a_loss_by_chance_is_no_loss() -> None:
    """Worse on average through one part of forty alone: kept."""
    found = standing(0.5, 0.5, 390)
    found.add(output(np.full(10, 0.5)), output(np.full(10, 4.0)))
    assert scores(found)["tried"] > 1.1 * scores(found)["against"]
    assert verdict(found) is True


@pytest.mark.parametrize(
    ("tried", "covered", "passed", "why"),
    [
        (0.45, (0.8, 0.8), True, "better"),
        (0.45, (0.8, 0.7), False, "interval covers 70.0%"),
        (0.45, (0.7, 0.68), True, "better"),
        (0.45, (0.8, 0.93), True, "better"),
        (0.495, (0.8, 0.8), False, "min_gain"),
        (0.55, (0.8, 0.8), False, "min_gain"),
    ],
)
def test_shadow(tried: float, covered: tuple[float, float], passed: bool, why: str) -> None:
    """A candidate must be better by min_gain and surely so, and its interval must hold about as often."""
    found = standing(0.5, tried, 400, covered=covered).verdict("shadow", NEEDED, GAIN, INTERVAL)
    assert found is not None
    assert found.passed is passed
    assert why in found.reason
    assert verdict(standing(0.5, tried, 390, covered=covered), "shadow") is None


def test_a_version_without_numbers_fails_at_once() -> None:
    """A forecast that cannot be scored where the other's can ends the trial at the next look."""
    found = Standing()
    found.add(output([0.5, 0.5]), output([0.5, np.nan]))
    assert verdict(found) is False
    assert verdict(found, "shadow") is False


def test_streams_that_stand_still_are_no_reason_to_roll_back() -> None:
    """No error of either version at all: the probation is passed."""
    assert verdict(standing(0.0, 0.0, 400, naive=0.0)) is True


def test_nothing_scored_is_no_end() -> None:
    """Without readings there is no verdict, however long it takes."""
    assert verdict(Standing()) is None
    assert verdict(Standing(), "shadow") is None


def test_a_trial_takes_two_horizons_of_every_stream() -> None:
    """Or more, where more is asked for: at first only the next readings come due."""
    assert readings_needed(500, 24, 7) == 500
    assert readings_needed(500, 24, 100) == 4800


def test_a_trial_is_read_back() -> None:
    """Another release's note, or none, is no trial."""
    trial = Trial(kind="shadow", version="b", against="a", since={0: 5, 11: 7})
    assert Trial.from_bytes(trial.to_bytes()) == trial
    assert Trial.from_bytes(None) is None
    assert Trial.from_bytes(b'{"kind":"duel"}') is None
