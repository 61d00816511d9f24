"""A stream that training never saw: of another level, size and noise, or even another season. What it is forecast, by age."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from config.settings import EngineSettings, NetworkSettings
from models import artifacts, training
from models.engine import Readings
from models.features import WARMING_READINGS
from models.forecaster import Forecaster
from models.training import Recipe
from models.training_data import Series

ENGINE = EngineSettings(model=NetworkSettings(hidden=8, horizon=8, context=32))
RECIPE = Recipe(steps=80, rows=8, length=60, burn_in=20, judge_every=20, warm_up=10)
SEASON, STREAMS, SEASONS = 12, 32, 8
MINUTE_MS = 60_000
START_MS = 1_700_000_000_000 // MINUTE_MS * MINUTE_MS


class Served(NamedTuple):
    """By origin."""

    quantiles: np.ndarray  # (n, B, K, Q)
    warming: np.ndarray  # (n, B)
    model: np.ndarray  # (n,), mean absolute error over leads and streams, in the streams' own sizes
    naive: np.ndarray  # (n,), the last value's


def day(length: int, season: float, noise: float, numbers: np.random.Generator) -> np.ndarray:
    """Two harmonics of a season with noise, of size one around zero."""
    angle = 2 * np.pi * (np.arange(length) / season + numbers.random())
    wave: np.ndarray = np.sin(angle) + 0.4 * np.sin(2 * angle + 1) + noise * numbers.standard_normal(length)
    return wave


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    """Weights of six streams of one season, level 50, size 5 and little noise."""
    numbers = np.random.Generator(np.random.PCG64(1))
    times = START_MS + MINUTE_MS * np.arange(600)
    known = [Series(f"s{i}", times, (50 + 5 * day(600, SEASON, 0.1, numbers))[:, None]) for i in range(6)]
    network, _ = training.fit(known, ENGINE, seed=1, recipe=RECIPE)
    assert network.period_ms == SEASON * MINUTE_MS
    version = artifacts.version_of(artifacts.dump(network, artifacts.Manifest.of(ENGINE)))
    return Forecaster(ENGINE, network, version)


def served(forecaster: Forecaster, season: float, noise: float) -> Served:
    """Many new streams of levels and sizes from thousandths to thousands, from their first readings on."""
    numbers, length, horizon = np.random.Generator(np.random.PCG64(7)), SEASON * SEASONS, ENGINE.model.horizon
    size = 10.0 ** numbers.uniform(-3, 3, STREAMS)
    level = size * numbers.uniform(-30, 30, STREAMS)
    values = level + size * np.stack([day(length + horizon, season, noise, numbers) for _ in range(STREAMS)], axis=1)
    rows, quantiles, warming = np.zeros(STREAMS, forecaster.row_dtype), [], []
    for i, now in enumerate(values):
        at = np.full(STREAMS, i)
        output = forecaster.step(rows, Readings(now[:, None], START_MS + MINUTE_MS * at, at, at, at == 0))
        quantiles.append(output.quantiles[:, 0])
        warming.append(output.warming)
    coming = np.lib.stride_tricks.sliding_window_view(values[1:], horizon, axis=0)[:length]  # (n, B, K)
    model = np.abs(np.array(quantiles)[:length, :, :, 1] - coming) / size[:, None]
    naive = np.abs(values[:length, :, None] - coming) / size[:, None]
    return Served(np.array(quantiles), np.array(warming), model.mean(axis=(1, 2)), naive.mean(axis=(1, 2)))


@pytest.mark.parametrize(
    ("season", "noise", "at_first", "after_two"),
    [(SEASON, 0.1, 0.6, 0.2), (SEASON, 0.5, 0.8, 0.55), (17.3, 0.2, 1.1, 0.95), (7.7, 0.2, 1.1, 0.95)],
)
def test_better_than_the_last_value_after_two_seasons(
    forecaster: Forecaster, season: float, noise: float, at_first: float, after_two: float
) -> None:
    """Far better where the season is that of the weights, better where it is another one; before, no more than a tenth worse."""
    made = served(forecaster, season, noise)
    first, later = slice(1, 2 * SEASON), slice(2 * SEASON, None)
    assert made.model[first].mean() < at_first * made.naive[first].mean()
    assert made.model[later].mean() < after_two * made.naive[later].mean()


def test_it_says_that_it_warms_up_and_forecasts_nevertheless(forecaster: Forecaster) -> None:
    """`warming` for the first readings; every forecast is whole from the first one on, with quantiles in order."""
    made = served(forecaster, SEASON, 0.2)
    assert made.warming[: WARMING_READINGS - 1].all()
    assert not made.warming[WARMING_READINGS:].any()
    assert np.isfinite(made.quantiles).all()
    assert (np.diff(made.quantiles, axis=-1) >= 0).all()
