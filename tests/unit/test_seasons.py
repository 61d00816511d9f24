"""The season is found from readings, whatever its length, and not where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from models import seasons

MINUTE_MS = 60_000


def waves(season: int, length: int, interval_ms: int, seed: int, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """A daily shape with a second harmonic, a slow drift and noise."""
    numbers = np.random.Generator(np.random.PCG64(seed))
    angle = 2 * np.pi * np.arange(length) / season
    drift = noise * numbers.standard_normal(length).cumsum()
    values = np.sin(angle) + 0.5 * np.sin(2 * angle + 1) + drift + noise * numbers.standard_normal(length)
    return 1_700_000_000_000 + interval_ms * np.arange(length), values


@pytest.mark.parametrize(("season", "interval_min"), [(7, 1440), (24, 60), (36, 10), (48, 30), (96, 15), (168, 60)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_season_of_any_length_is_found(season: int, interval_min: int, seed: int) -> None:
    """Nothing is tuned to a day of hours."""
    interval_ms = interval_min * MINUTE_MS
    streams = [waves(season, 20 * season, interval_ms, seed + 10 * i, noise=1 / season) for i in range(3)]
    found = seasons.find(streams)
    assert found == pytest.approx(season * interval_ms, rel=0.02)


def test_missing_and_irregular_readings_do_not_hide_it() -> None:
    """Four in a hundred are missing, as many records are gone, clocks are off by a tenth of an interval."""
    numbers = np.random.Generator(np.random.PCG64(5))
    time_ms, values = waves(24, 2000, 60 * MINUTE_MS, 4)
    values[numbers.random(2000) < 0.04] = np.nan
    kept = numbers.random(2000) > 0.04
    jitter = numbers.integers(-6 * MINUTE_MS, 6 * MINUTE_MS, 2000)
    found = seasons.find([((time_ms + jitter)[kept], values[kept])])
    assert found == pytest.approx(24 * 60 * MINUTE_MS, rel=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_walks_have_none(seed: int) -> None:
    """No season is made up."""
    numbers = np.random.Generator(np.random.PCG64(seed))
    times = 60_000 * np.arange(3000)
    assert seasons.find([(times, numbers.standard_normal(3000))]) == 0
    assert seasons.find([(times, numbers.standard_normal(3000).cumsum())]) == 0


def test_a_shorter_season_beats_its_multiples() -> None:
    """A day is a day, also where it is seven times as often looked at as a week."""
    time_ms, values = waves(24, 24 * 60, 60 * MINUTE_MS, 9, noise=0.1)
    weekend = np.where(np.arange(len(values)) // 24 % 7 >= 5, 0.6, 1.0)
    assert seasons.find([(time_ms, values * weekend)]) == 24 * 60 * MINUTE_MS


def test_little_or_constant_data_is_no_error() -> None:
    """There is simply no season."""
    assert seasons.find([]) == 0
    assert seasons.find([(np.arange(5) * 1000, np.ones(5))]) == 0
    assert seasons.find([(np.arange(500) * 1000, np.ones(500))]) == 0
    assert seasons.find([(np.arange(500) * 1000, np.full(500, np.nan))]) == 0
