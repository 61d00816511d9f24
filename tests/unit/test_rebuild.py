"""A rebuilt row against one that has seen the whole history with the same weights: trained ones, as a swap brings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from config.settings import EngineSettings, NetworkSettings
from models import features
from models.engine import Readings
from models.forecaster import Forecaster
from models.layout import row_dtype
from models.networks import Network
from models.training import Recipe, fit
from models.training_data import Series

ENGINE = EngineSettings(model=NetworkSettings(hidden=16, horizon=6, context=128))
HOUR_MS, LENGTH, STREAMS = 3_600_000, 900, 6


def daily(stream: int, missing: float = 0.0) -> Series:
    """A daily pattern at its own level, with noise that lasts, a step in the level, and holes."""
    numbers = np.random.Generator(np.random.PCG64(stream))
    at, noise = np.arange(LENGTH), np.zeros(LENGTH)
    for i in range(1, LENGTH):
        noise[i] = 0.9 * noise[i - 1] + 0.2 * numbers.standard_normal()
    values = 10.0 + 10.0 * stream + np.sin(2 * np.pi * at / 24 + stream) + noise + (at > 800) * stream
    values[1:][numbers.random(LENGTH - 1) < missing] = np.nan
    return Series(f"s{stream}", 1_700_000_000_000 + HOUR_MS * at, values[:, None])


@pytest.fixture(scope="module")
def network() -> Network:
    """Trained for some seconds."""
    return fit([daily(s) for s in range(STREAMS)], ENGINE, seed=1, recipe=Recipe(steps=200, rows=16, length=96))[0]


def readings(streams: list[Series], place: int) -> Readings:
    count = len(streams)
    values = np.stack([each.values[place] for each in streams])
    times_ms = np.array([each.time_ms[place] for each in streams])
    return Readings(values, times_ms, np.full(count, place), np.zeros(count, np.int64), np.full(count, place == 0))


def stepped(forecaster: Forecaster, streams: list[Series], length: int) -> np.ndarray:
    rows = np.zeros(len(streams), forecaster.row_dtype)
    for place in range(length):
        forecaster.step(rows, readings(streams, place))
    return rows


def apart(rows: np.ndarray, others: np.ndarray, name: str) -> np.ndarray:
    """How far states lie apart, relative to their size, by row."""
    difference = np.linalg.norm((rows[name] - others[name])[:, 0], axis=1)
    return np.asarray(difference / np.linalg.norm(others[name][:, 0], axis=1))


@pytest.mark.parametrize("missing", [0.0, 0.04])
@pytest.mark.parametrize("length", [60, 128, 129, 300, 850])
def test_a_window_of_128_gives_the_state_of_the_whole_history(network: Network, length: int, missing: float) -> None:
    """Hidden and cell within 1 %, forecasts within 1 % of the spread; a window of 24 readings would not do."""
    forecaster, streams = Forecaster(ENGINE, network, "v"), [daily(s, missing) for s in range(STREAMS)]
    whole = stepped(forecaster, streams, length)
    rebuilt, short = whole.copy(), whole.copy()
    forecaster.rebuild(rebuilt)
    inputs, _ = features.window_features(forecaster._shape, np.tile(whole, 3)[:16])
    with torch.inference_mode():
        state = network.warm(torch.from_numpy(inputs[-24:].copy()), None)
    short["hidden"], short["cell"] = (part.numpy()[:STREAMS] for part in state)
    for name in ("hidden", "cell"):
        assert apart(rebuilt, whole, name).max() < 0.01
        assert apart(short, whole, name).max() > 0.01
    served, again = (forecaster.step(rows, readings(streams, length)).quantiles for rows in (whole, rebuilt))
    spreads = whole["spread"][:, 0] * 1.25
    assert (np.abs(again - served).max(axis=(1, 2, 3)) / spreads).max() < 0.01


@pytest.mark.parametrize("missing", [0.0, 0.04])
@pytest.mark.parametrize("length", [2, 60, 128, 129, 300, 850])
def test_inputs_of_the_window_are_those_of_then(network: Network, length: int, missing: float) -> None:
    """Scale and profile are taken back to where the window begins; the step of the oldest reading alone is not known any more."""
    forecaster, streams = Forecaster(ENGINE, network, "v"), [daily(s, missing) for s in range(STREAMS)]
    rows, seen = np.zeros(STREAMS, forecaster.row_dtype), []
    for place in range(length):
        before = rows.copy()
        seen.append(features.observe(forecaster._shape, before, readings(streams, place)).features)
        forecaster.step(rows, readings(streams, place))
    inputs, valid = features.window_features(forecaster._shape, rows)
    known = min(length, 128)
    assert valid.sum(axis=0).tolist() == [known] * STREAMS
    difference = np.abs(inputs[-known:] - np.stack(seen[-known:]))
    if length > 128:
        difference[0, :, 1] = 0
    assert difference.max() < 2e-3


def of_the_window(period_ms: int, times_ms: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inputs at each reading of one stream's window, (128, F): as they were, and as they are remade."""
    shape, rows, seen = features.FeatureShape(ENGINE, period_ms), np.zeros(1, row_dtype(ENGINE)), []
    for place, time_ms in enumerate(times_ms):
        at = np.array([place])
        reading = Readings(values[at][:, None], np.array([time_ms]), at, at, at == 0)
        seen.append(features.observe(shape, rows, reading).features[0])
    return np.stack(seen[-128:]), features.window_features(shape, rows)[0][:, 0]


@pytest.mark.parametrize("length", range(129, 220, 10))
def test_inputs_of_the_window_are_numbers(length: int) -> None:
    """Readings a hair less than a phase apart, with bursts between: a phase's past weighs next to nothing, five times over."""
    at = np.arange(length)
    gaps_ms = np.where(at % 9 < 4, 1, HOUR_MS // 2 - 1)
    for largest in (1.0, 1e12, 1e15):
        values = largest * np.random.Generator(np.random.PCG64(length)).uniform(-1, 1, length)
        assert np.isfinite(of_the_window(24 * HOUR_MS, gaps_ms.cumsum(), values)[1]).all()


@pytest.mark.parametrize(("idle", "value"), [(0.0, 1e3), (0.0, 1e6), (0.1, 1e4), (20.0, 21.0)])
def test_a_stream_that_was_idle_was_idle(idle: float, value: float) -> None:
    """Its spread was nothing, so what rounding leaves of a jump in the window would look like many spreads."""
    at = np.arange(400)
    noise = np.random.Generator(np.random.PCG64(7)).standard_normal(len(at))
    then, remade = of_the_window(24 * HOUR_MS, at * HOUR_MS, np.where(at < 350, idle, value + noise))
    jump = 128 - 50
    assert np.abs(then[:jump, :6]).max() < 0.1
    assert np.abs(remade[:jump, :2]).max() < 0.1
    assert np.abs(remade[:jump, 2:6]).max() < 1
    assert np.abs(remade[jump:, :2] - then[jump:, :2]).max() < 1e-3
