"""The anomaly score: a tail probability that holds on each stream, whatever its errors are like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from config.settings import EngineSettings, NetworkSettings
from models.engine import Readings
from models.forecaster import NAIVE, Forecaster
from models.kernels import NARROWEST_DECADE, TAIL_IN, TAIL_OUT
from models.networks import NaiveNetwork

ENGINE = EngineSettings(model=NetworkSettings(hidden=8, horizon=8, context=16))
MINUTE_MS = 60_000
START_MS = 1_700_000_000_000
STREAMS = 32


def scores(engine: EngineSettings, values: np.ndarray) -> np.ndarray:
    """Anomaly scores (n, B) of readings (n, B, C), a minute apart, under the last value as forecast."""
    forecaster = Forecaster(engine, NaiveNetwork(engine), NAIVE)
    rows = np.zeros(values.shape[1], forecaster.row_dtype)
    found = []
    for i, now in enumerate(values):
        at = np.full(len(now), i)
        found.append(forecaster.step(rows, Readings(now, START_MS + MINUTE_MS * at, at, at, at == 0)).anomaly_score)
    return np.array(found)


def drawn(noise: Callable[[np.random.Generator, tuple[int, int]], np.ndarray], length: int, seed: int = 1) -> np.ndarray:
    """Readings (length, STREAMS, 1) around levels of any size."""
    numbers = np.random.Generator(np.random.PCG64(seed))
    level = 10.0 ** numbers.uniform(-2, 4, STREAMS)
    return (level * (1 + 0.1 * noise(numbers, (length, STREAMS))))[..., None]


NOISES: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda numbers, size: numbers.standard_normal(size),
    "heavy": lambda numbers, size: numbers.standard_t(2, size),
    "one-sided": lambda numbers, size: numbers.exponential(1, size),
    "mostly idle": lambda numbers, size: numbers.standard_normal(size) * (numbers.random(size) < 0.05),
    "walk": lambda numbers, size: 0.1 * numbers.standard_normal(size).cumsum(axis=0),
}


@pytest.mark.parametrize("noise", NOISES)
def test_tail_probabilities_hold(noise: str) -> None:
    """Once some thousand readings were seen, a score above 1, 2 and 3 is as rare as it says, whatever the errors are like; where
    tails are thin 3 may be half as frequent."""
    settled = scores(ENGINE, drawn(NOISES[noise], 5000))[2500:]
    for score, least, most in ((1, 0.9, 1.1), (2, 0.8, 1.2), (3, 0.4, 1.5)):
        assert least < (settled > score).mean() * 10**score < most, score


def test_what_is_beyond_all_that_was_seen_stands_out() -> None:
    """A jump of twenty spreads of a quiet stream scores above all that it has seen in thousands of readings."""
    values = drawn(NOISES["normal"], 3001)
    values[-1] *= 3
    found = scores(ENGINE, values)
    assert (found[-1] > 2.5).all()
    assert np.median(found[-1]) > 4
    assert (found[-1] > np.nanmax(found[1000:-1], axis=0)).mean() > 0.6


def test_a_slow_change_shows_at_longer_leads() -> None:
    """A drift whose every step is no larger than the noise between two readings is seen within ten, since longer leads miss."""
    values = drawn(NOISES["normal"], 3010)
    level = np.abs(np.median(values[:3000, :, 0], axis=0))
    values[3000:, :, 0] += 0.15 * level * np.arange(1, 11)[:, None]  # 1.5 standard deviations each
    found = scores(ENGINE, values)
    assert (found[3000:].max(axis=0) > 2).mean() > 0.9
    assert (found[2990:3000].max(axis=0) > 2).mean() < 0.2


def test_the_worst_of_several_targets_is_that_much_less_unlikely() -> None:
    """With three targets no more readings score above 1 and 2 than with one."""
    fields = ENGINE.input.model_copy(update={"values": {"a": "a", "b": "b", "c": "c"}})
    model = ENGINE.model.model_copy(update={"targets": ("a", "b", "c")})
    engine = ENGINE.model_copy(update={"input": fields, "model": model})
    settled = scores(engine, np.concatenate([drawn(NOISES["heavy"], 4000, seed) for seed in range(3)], axis=2))[2000:]
    for score in (1, 2):
        assert 0.7 < (settled > score).mean() * 10**score < 1.1, score


def test_factors_of_a_tail_balance() -> None:
    """One step out is undone by 9, 99 and 999 steps in: that is what makes a tail the quantile of so few readings."""
    for k, (out, back) in enumerate(zip(TAIL_OUT, TAIL_IN, strict=True)):
        assert out == pytest.approx(back ** (10 ** (k + 1) - 1), rel=1e-4)
    assert NARROWEST_DECADE > 1
