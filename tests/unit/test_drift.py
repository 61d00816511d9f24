"""A rise of many streams' errors is found; chance, one stream and a fall are not."""

from __future__ import annotations

import numpy as np
import pytest

from models.drift import BUCKETS, Adwin, Drift


def errors(seed: int, count: int) -> np.ndarray:
    """Absolute errors of a good forecaster."""
    return np.abs(np.random.Generator(np.random.PCG64(seed)).standard_normal(count))


def test_chance_hardly_ever_alarms() -> None:
    """At most one alarm in ten stable streams of 10,000 errors, and the window holds them all."""
    detectors = [Adwin() for _ in range(10)]
    alarms = sum(detector.add(error) for seed, detector in enumerate(detectors) for error in errors(seed, 10_000).tolist())
    assert alarms <= 1
    assert sum(detector.width == 10_000 for detector in detectors) >= 9


@pytest.mark.parametrize("seed", range(5))
def test_a_rise_is_found_soon(seed: int) -> None:
    """Errors half as large again after 1,000: found within 400, and the window's mean comes to be the new one."""
    detector = Adwin()
    assert sum(detector.add(error) for error in errors(seed, 1000).tolist()) == 0
    risen = [detector.add(1.5 * error) for error in errors(seed + 100, 1000).tolist()]
    assert risen.index(True) < 400
    assert detector.mean == pytest.approx(1.5 * np.sqrt(2 / np.pi), rel=0.1)


def test_a_fall_is_no_alarm() -> None:
    """The window lets go of larger errors, but nothing is wrong."""
    detector = Adwin()
    assert sum(detector.add(float(error)) for error in [*errors(1, 1000), *(0.3 * errors(2, 1000))]) == 0
    assert detector.width < 1500


def test_the_window_is_what_it_says() -> None:
    """Mean and scatter are those of the newest `width` values, however they were merged and dropped."""
    values = np.concatenate([errors(3, 500), 3 + errors(4, 500)])
    detector = Adwin()
    for value in values.tolist():
        detector.add(value)
    newest = values[len(values) - detector.width :]
    assert 400 <= detector.width < 600
    assert detector.mean == pytest.approx(newest.mean())
    assert detector._scatter == pytest.approx(((newest - newest.mean()) ** 2).sum())
    assert max(map(len, detector._rows)) <= BUCKETS


def run(drift: Drift, streams: int, count: int, risen: int, seed: int) -> None:
    """Errors of some streams in turn, of which the first ones are three times as large as usual."""
    names = [f"s{i}" for i in range(streams)]
    scale = np.where(np.arange(streams) < risen, 3.0, 1.0)
    for row in errors(seed, streams * count).reshape(count, streams):
        drift.add(names, (row * scale).tolist())


def test_one_stream_alone_never_alarms() -> None:
    """Whatever the share: of twenty streams one is not a tenth, and of three it is still one alone."""
    for streams, share in ((20, 0.1), (3, 0.1), (1, 0.1)):
        drift = Drift(500)
        run(drift, streams, 500, 0, 1)
        run(drift, streams, 300, 1, 2)
        assert drift.alarmed == 1
        assert not drift.alarms(share)


def test_a_tenth_of_the_streams_alarms_until_acted_on_or_forgotten() -> None:
    """Two of twenty; `forget` ends it, and so do errors that are as they have come to be."""
    drift = Drift(200)
    run(drift, 20, 500, 0, 1)
    assert not drift.alarms(0.1)
    run(drift, 20, 100, 2, 2)
    assert drift.alarms(0.1)
    run(drift, 20, 600, 2, 3)
    assert drift.alarmed == 0
    run(drift, 20, 300, 20, 4)
    assert drift.alarms(0.1)
    drift.forget()
    assert not drift.alarms(0.1)


def test_what_was_not_scored_says_nothing() -> None:
    """NaN is no error; a freak counts as eight spreads at most."""
    drift = Drift(10)
    drift.add(["a", "b"], [float("nan"), 1e300])
    assert drift._detectors["b"].mean == 8.0
    assert "a" not in drift._detectors
