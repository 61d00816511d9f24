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
from models.layout import row_dtype
from models.networks import Network

ENGINE = EngineSettings(model=NetworkSettings(hidden=8, horizon=8, context=16))
HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS


def serve(network: Network, values: np.ndarray, engine: EngineSettings = ENGINE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Medians (n, K) of one stream's readings, an hour apart; served and naive errors at the rungs (n, R)."""
    forecaster = Forecaster(engine, network, "v")
    rows = np.zeros(1, forecaster.row_dtype)
    medians, served, naive = [], [], []
    for i, value in enumerate(values):
        at = np.array([i])
        output = forecaster.step(rows, Readings(np.array([[value]]), START_MS + HOUR_MS * at, at, at, at == 0))
        medians.append(output.quantiles[0, 0, :, 1])
        served.append(output.model_error[0, 0])
        naive.append(output.naive_error[0, 0])
    return np.array(medians), np.array(served), np.array(naive)


def walk(length: int, seed: int) -> np.ndarray:
    return 20 + np.random.Generator(np.random.PCG64(seed)).standard_normal(length).cumsum()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bad_weights_cost_little(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is wrong by spreads is soon served as the last value: no worse than it by more than 5 % over a month."""
    network = Network.of(ENGINE)
    with torch.no_grad():
        network.head_bias += 3.0
    _, served, naive = serve(network, walk(720, seed))
    settled = slice(200, None)
    assert np.nanmean(served[settled]) <= 1.05 * np.nanmean(naive[settled])
    monkeypatch.setattr(features, "trust", lambda rows: np.ones(rows["model_error"].shape))
    _, served, naive = serve(network, walk(720, seed))
    assert np.nanmean(served[settled]) > 1.5 * np.nanmean(naive[settled])  # it is the guard that helped


def test_a_good_network_is_served_whole() -> None:
    """While it beats the last value nothing of its forecast is taken away."""
    rows = np.zeros(2, row_dtype(ENGINE))
    rows["model_error"], rows["naive_error"] = 0.5, 0.6
    assert (features.trust(rows) == 1).all()
    rows["model_error"] = 0.0
    rows["naive_error"] = 0.0
    assert (features.trust(rows) == 1).all()
    rows["naive_error"][0], rows["model_error"][0] = 0.0, 0.1
    assert (features.trust(rows)[0] == 0).all()


def test_the_mixture_stays_within_the_bound() -> None:
    """With errors m and n the mixture's error is at most 1.2 % above n, whatever their ratio."""
    rows = np.zeros(4000, row_dtype(ENGINE))
    ratio = np.linspace(1.0, 2.0, 4000).astype(np.float32)
    rows["naive_error"], rows["model_error"] = 1.0, ratio[:, None, None]
    share = features.trust(rows)[:, 0, 0]
    assert (share * ratio + (1 - share)).max() <= 1.012


def test_the_profile_learns_the_day() -> None:
    """After some days the season ahead is the day's shape, at every phase, and nothing before a whole day was seen."""
    shape = features.FeatureShape(ENGINE, 24 * HOUR_MS)
    rows = np.zeros(1, row_dtype(ENGINE))
    hours = np.arange(24 * 12)
    values = 50 + 10 * np.sin(2 * np.pi * hours / 24)
    for i in hours:
        at = np.array([i])
        features.observe(shape, rows, Readings(values[i : i + 1, None], START_MS + HOUR_MS * at, at, at, at == 0))
        if i == 22:
            assert not features._season_ahead(shape, rows, START_MS + HOUR_MS * at).any()
    ahead = features._season_ahead(shape, rows, START_MS + HOUR_MS * hours[-1:])[0, 0]
    expected = (50 + 10 * np.sin(2 * np.pi * (hours[-1] + np.arange(1, 9)) / 24) - values[-1]) / features.spread_of(rows)[0, 0]
    np.testing.assert_allclose(ahead, expected, atol=0.2)


def test_weights_with_another_season_begin_a_profile_from_the_window() -> None:
    """A row of naive, or of weights with another season, knows the phases of its own window at once."""
    known = np.zeros(1, row_dtype(ENGINE))
    other = np.zeros(1, row_dtype(ENGINE))
    six_hours, values = features.FeatureShape(ENGINE, 6 * HOUR_MS), 5 + np.arange(60) % 6
    for i, value in enumerate(values.astype(float)):
        at = np.array([i])
        reading = Readings(np.array([[value]]), START_MS + HOUR_MS * at, at, at, at == 0)
        features.observe(six_hours, known, reading)
        features.observe(six_hours if i == 59 else features.FeatureShape(ENGINE), other, reading)
    now = START_MS + HOUR_MS * np.array([59])
    ahead = [features._season_ahead(six_hours, rows, now)[0, 0] for rows in (known, other)]
    assert np.abs(ahead[0]).max() > 1
    np.testing.assert_allclose(ahead[1], ahead[0], atol=0.35)


def test_seeded_network_has_a_season() -> None:
    """So that the self-check runs through all of the row."""
    assert seeded_network(ENGINE).period_ms > 0
