"""The default engine: scale, LSTM with a linear highway, calibration. Rows and readings in, quantile forecasts out.

Every call works on tiles of exactly 256 rows, or 16 where at most 16 are left, padded with zero rows: with these two shapes
a row's bytes depend neither on its neighbours nor on its place (architecture 3; `models.arithmetic` checks it at start).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from config.settings import EngineSettings
from models import features
from models.engine import QuantileForecasts, Readings, version_number
from models.layout import row_dtype
from models.networks import NaiveNetwork, Network

TILE_ROWS = 256
SMALL_TILE_ROWS = 16

#: The model version that serves while there are no weights.
NAIVE = "naive"


class Forecaster:
    """Advances rows of `row_dtype` with one network. Holds no rows."""

    def __init__(self, engine: EngineSettings, network: Network | NaiveNetwork, model_version: str) -> None:
        torch.set_num_threads(1)  # more threads split products differently, and bytes with them
        self.engine = engine
        self.row_dtype = row_dtype(engine)
        self.version = np.uint64(version_number(model_version))
        self._network = network.eval()
        self._shape = features.FeatureShape(engine)
        self._between = _Interpolation.of(self._shape)

    def step(self, rows: np.ndarray, readings: Readings) -> QuantileForecasts:
        """Advance each row by its reading, in place, and forecast from its new state.

        Args:
            rows: Structured (B,), different rows of `row_dtype`.
            readings: B readings, aligned with the rows, each later than its row's last.

        Returns:
            Forecasts in sensor units, new arrays.
        """
        parts = [self._tile(rows[part], _cut(readings, part), size) for part, size in tiles(len(rows))]
        return parts[0] if len(parts) == 1 else QuantileForecasts(*map(np.concatenate, zip(*parts, strict=True)))

    def _tile(self, rows: np.ndarray, readings: Readings, size: int) -> QuantileForecasts:
        """One tile: pad to `size` rows, step them all, give back the real ones."""
        real = len(rows)
        padded = _pad(rows, size)
        with torch.inference_mode():
            output = self._step(padded, Readings(*(_pad(column, size) for column in readings)))
        rows[:] = padded[:real]
        return QuantileForecasts(*(column[:real] for column in output))

    def _step(self, rows: np.ndarray, readings: Readings) -> QuantileForecasts:
        rebuilt = self._rebuild(rows, readings.fresh)
        seen = features.observe(self._shape, rows, readings)
        scaled, hidden, cell = self._network.step(  # (B, T, K, Q), (B, L, H), (B, L, H)
            torch.from_numpy(seen.features), torch.from_numpy(seen.windows), _tensor(rows["hidden"]), _tensor(rows["cell"])
        )
        rows["hidden"], rows["cell"], rows["version"] = hidden.numpy(), cell.numpy(), self.version
        calibrated = _sorted(scaled.numpy() + self._between(rows["calibration"]))  # float32 (B, T, K, Q)
        quantiles = seen.newest[:, :, None, None] + seen.spread[:, :, None, None] * calibrated  # float64
        features.schedule(self._shape, rows, quantiles, seen.newest)
        warming = rows["count"] < features.WARMING_READINGS
        return QuantileForecasts(quantiles, rows["interval_ms"].copy(), seen.anomaly_score, warming, *seen[5:], rebuilt)

    def _rebuild(self, rows: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """Give rows of another model version this network's hidden and cell, run over their own window from zero.

        Returns:
            Which rows, bool (B,).
        """
        stale: np.ndarray = (rows["version"] != self.version) & (rows["count"] > 0) & ~fresh  # (B,)
        if not stale.any():
            return stale
        inputs, valid = features.window_features(self._shape, rows)  # (W, B, F), (W, B)
        hidden, cell = self._network.warm(torch.from_numpy(inputs), torch.from_numpy(valid))  # (B, L, H) each
        for name, value in (("hidden", hidden), ("cell", cell)):
            rows[name] = np.where(stale[:, None, None], value.numpy(), rows[name])
        return stale


def tiles(count: int) -> Iterator[tuple[slice, int]]:
    """Cut `count` rows into tiles: (which rows, padded size)."""
    for first in range(0, count, TILE_ROWS):
        rest = min(TILE_ROWS, count - first)
        yield slice(first, first + rest), SMALL_TILE_ROWS if rest <= SMALL_TILE_ROWS else TILE_ROWS


def _cut(readings: Readings, part: slice) -> Readings:
    return Readings(*(column[part] for column in readings))


def _pad(column: np.ndarray, size: int) -> np.ndarray:
    """A contiguous copy of (B, ...) padded with zeros to (size, ...)."""
    padded = np.zeros((size, *column.shape[1:]), column.dtype)
    padded[: len(column)] = column
    return padded


def _tensor(column: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(column))


def _sorted(quantiles: np.ndarray) -> np.ndarray:
    """Sort along the last axis, in place, by compare and exchange: exact, and fast for the few levels there are."""
    levels = quantiles.shape[-1]
    for last in range(levels - 1, 0, -1):
        for i in range(last):
            low, high = quantiles[..., i], quantiles[..., i + 1]
            swapped = np.minimum(low, high)
            np.maximum(low, high, out=high)
            quantiles[..., i] = swapped
    return quantiles


class _Interpolation(NamedTuple):
    """From the rungs of the ladder to all leads, linear in the lead."""

    below: np.ndarray  # int64 (K,), rung at or below each lead
    above: np.ndarray  # int64 (K,)
    weight: np.ndarray  # float32 (K, 1), of the rung above

    @classmethod
    def of(cls, shape: features.FeatureShape) -> _Interpolation:
        leads = np.arange(1, shape.engine.model.horizon + 1)
        above = np.searchsorted(shape.rungs, leads)
        below = np.where(shape.rungs[above] == leads, above, above - 1)
        step = np.maximum(shape.rungs[above] - shape.rungs[below], 1)
        weight = ((leads - shape.rungs[below]) / step).astype(np.float32)
        return cls(below, above, weight[:, None])

    def __call__(self, by_rung: np.ndarray) -> np.ndarray:
        """(B, T, R, Q) by rung to (B, T, K, Q) by lead, float32."""
        low, high = by_rung[:, :, self.below], by_rung[:, :, self.above]
        mixed: np.ndarray = low + self.weight * (high - low)
        return mixed
