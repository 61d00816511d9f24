"""A window that nothing can be learned from leaves the incumbent in force, with the reason; nothing raises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from config.settings import load
from daemon.retrain import Attempt, attempt
from models.training_data import Series
from tests import examples

SETTINGS = load(None, {}, ["model.hidden=8", "model.horizon=4", "model.context=16", "retrain.steps=20"])
VERSION, ARTIFACT = examples.seeded_weights(SETTINGS.engine())
COUNT = 300


def tried(values: Callable[[np.ndarray], np.ndarray], count: int = COUNT, streams: int = 3, version: str = VERSION) -> Attempt:
    """An attempt on streams of minutes with these values."""
    minutes = np.arange(count)
    times = examples.T0_MS + minutes * examples.MINUTE_MS
    series = [Series(f"s{i}", times, np.asarray(values(minutes + i), np.float64)[:, None]) for i in range(streams)]
    return attempt(SETTINGS, series, version, {VERSION: ARTIFACT})


@pytest.mark.parametrize("version", [VERSION, "naive"])
@pytest.mark.parametrize("level", [0.0, 21.5, -1e12])
def test_constants_promote_nothing(level: float, version: str) -> None:
    """The last value is never wrong, so nothing is better than it."""
    found = tried(lambda minutes: np.full(len(minutes), level), version=version)
    assert (found.outcome, found.artifact) == ("kept", None)
    assert "last value" in found.reason


def test_missing_values_alone_are_too_few_readings() -> None:
    """NaN is null in a reading: a stream without any value never starts."""
    found = tried(lambda minutes: np.full(len(minutes), np.nan))
    assert (found.outcome, found.artifact) == ("too_few", None)


def test_values_and_then_none_promote_nothing() -> None:
    """A tail that is missing altogether cannot judge."""
    found = tried(lambda minutes: np.where(minutes < COUNT / 2, np.sin(minutes / 3.0), np.nan))
    assert found.outcome in ("too_few", "kept")
    assert found.artifact is None


def test_ten_readings_are_too_few() -> None:
    """And so is none."""
    for count in (10, 0):
        found = tried(np.sin, count=count, streams=1)
        assert (found.outcome, found.artifact) == ("too_few", None)
        assert "not enough" in found.reason
    assert attempt(SETTINGS, [], VERSION, {VERSION: ARTIFACT}).outcome == "too_few"


def test_extremes_raise_nothing() -> None:
    """Readings of both ends of what is accepted (1e15), in turn."""
    found = tried(lambda minutes: np.where(minutes % 2 == 0, 1e15, -1e15))
    assert found.outcome in ("kept", "promoted")


def test_equal_windows_come_to_equal_artifacts() -> None:
    """The outcome is a function of window, settings and incumbent, to the byte."""
    one, other = (tried(lambda minutes: np.sin(minutes / 4.0), version="naive") for _ in range(2))
    assert one.outcome == "promoted"
    assert one.artifact == other.artifact
