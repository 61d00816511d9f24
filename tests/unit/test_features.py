"""The guard and the season: what a row serves when the network is bad, and what it knows of the time of day."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from config.settings import EngineSettings, NetworkSettings
from models import features
from models.arithmetic import seeded_network
from models.engine import Readings
from models.forecaster import Forecaster
from models.kernels import trusted
from models.layout import row_dtype
from models.networks import Network

ENGINE = EngineSettings(model=NetworkSettings(hidden=8, horizon=8, context=16))
HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS


def serve(network: Network, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The row (1,) after one stream's readings, an hour apart; medians (n, K), served and naive errors at the rungs (n, R)."""
    forecaster = Forecaster(ENGINE, network, "v")
    rows = np.zeros(1, forecaster.row_dtype)
    medians, served, naive = [], [], []
    for i, value in enumerate(values):
        at = np.array([i])
        output = forecaster.step(rows, Readings(np.array([[value]]), START_MS + HOUR_MS * at, at, at, at == 0))
        medians.append(output.quantiles[0, 0, :, 1])
        served.append(output.model_error[0, 0])
        naive.append(output.naive_error[0, 0])
    return rows, np.array(medians), np.array(served), np.array(naive)


def walk(length: int, seed: int) -> np.ndarray:
    return 20 + np.random.Generator(np.random.PCG64(seed)).standard_normal(length).cumsum()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bad_weights_cost_little(seed: int) -> None:
    """A network that is wrong by spreads is soon served as the last value: no worse than it by more than 5 % over a month."""
    network = Network.of(ENGINE)
    with torch.no_grad():
        network.head_bias += 3.0
    rows, _, served, naive = serve(network, walk(720, seed))
    settled = slice(200, None)
    assert np.nanmean(served[settled]) <= 1.05 * np.nanmean(naive[settled])
    assert (rows["model_error"] > 1.5 * rows["naive_error"]).all()  # what it would have been without the guard


def test_a_good_network_is_served_whole() -> None:
    """While it beats the last value nothing of its forecast is taken away."""
    assert trusted(0.5, 0.6) == 1
    assert trusted(0.0, 0.0) == 1
    assert trusted(0.0, 0.6) == 1
    assert trusted(0.1, 0.0) == 0


def test_the_mixture_stays_within_the_bound() -> None:
    """With errors m and n the mixture's error is at most 1.2 % above n, whatever their ratio."""
    for ratio in np.linspace(1.0, 2.0, 4000):
        share = trusted(ratio, 1.0)
        assert share * ratio + (1 - share) <= 1.012


def test_the_profile_learns_the_day() -> None:
    """After some days the season ahead is the day's shape, at every phase, and nothing before a whole day was seen."""
    shape = features.FeatureShape(ENGINE, 24 * HOUR_MS)
    rows = np.zeros(1, row_dtype(ENGINE))
    hours = np.arange(24 * 12)
    values = 50 + 10 * np.sin(2 * np.pi * hours / 24)
    for i in hours:
        seen = observe_hour(shape, rows, i, values[i])
        if i <= 23:
            assert not ahead(seen).any()
    expected = (50 + 10 * np.sin(2 * np.pi * (hours[-1] + np.arange(1, 9)) / 24) - values[-1]) / seen.spread[0, 0]
    np.testing.assert_allclose(ahead(seen), expected, atol=0.2)


def test_weights_with_another_season_begin_a_profile_from_the_window() -> None:
    """A row of naive, or of weights with another season, knows the phases of its own window at once."""
    known = np.zeros(1, row_dtype(ENGINE))
    other = np.zeros(1, row_dtype(ENGINE))
    six_hours, none, values = features.FeatureShape(ENGINE, 6 * HOUR_MS), features.FeatureShape(ENGINE), 5.0 + np.arange(60) % 6
    for i, value in enumerate(values):
        all_along = ahead(observe_hour(six_hours, known, i, value))
        from_now_on = ahead(observe_hour(six_hours if i == 59 else none, other, i, value))
    assert np.abs(all_along).max() > 1
    np.testing.assert_allclose(from_now_on, all_along, atol=0.35)


def observe_hour(shape: features.FeatureShape, rows: np.ndarray, i: int, value: float) -> features.Observation:
    at = np.array([i])
    return features.observe(shape, rows, Readings(np.array([[value]]), START_MS + HOUR_MS * at, at, at, at == 0))


def ahead(seen: features.Observation) -> np.ndarray:
    """The season ahead as the highway sees it, (K,)."""
    context = ENGINE.model.context
    return seen.windows[0, 0, context : context + ENGINE.model.horizon]


def test_seeded_network_has_a_season() -> None:
    """So that the self-check runs through all of the row."""
    assert seeded_network(ENGINE).period_ms > 0
