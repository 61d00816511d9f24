"""The default engine: scale, LSTM with a linear highway, calibration. Rows and readings in, quantile forecasts out.

The network works on tiles of exactly 256 rows, or 16 where at most 16 are left, padded with zeros: with these two shapes a
row's bytes depend neither on its neighbours nor on its place (architecture 3; `models.arithmetic` checks it at start). What
surrounds it is elementwise and takes all rows at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
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
        self._shape = features.FeatureShape(engine, network.period_ms)
        self._between = _Interpolation.of(self._shape)

    def step(self, rows: np.ndarray, readings: Readings) -> QuantileForecasts:
        """Advance each row by its reading, in place, and forecast from its new state.

        Args:
            rows: Structured (B,), different rows of `row_dtype`.
            readings: B readings, aligned with the rows, each later than its row's last.

        Returns:
            Forecasts in sensor units, new arrays.
        """
        with torch.inference_mode():
            rebuilt = self._rebuild(rows, readings.fresh)
            seen = features.observe(self._shape, rows, readings)
            scaled = self._advance(rows, seen)  # (Q, B, T, K)
        own = scaled[self._shape.median].copy()  # (B, T, K)
        scaled -= (1 - self._between(features.trust(rows)[..., None].astype(np.float32))) * own
        scaled += self._between(rows["calibration"])
        _sort(scaled)
        quantiles = np.moveaxis(seen.newest[..., None] + seen.spread[..., None] * scaled, 0, -1)  # float64 (B, T, K, Q)
        features.schedule(self._shape, rows, quantiles, seen.newest[..., None] + seen.spread[..., None] * own, seen.newest)
        warming = rows["count"] < features.WARMING_READINGS
        return QuantileForecasts(quantiles, rows["interval_ms"].copy(), seen.anomaly_score, warming, *seen[5:], rebuilt)

    def _advance(self, rows: np.ndarray, seen: features.Observation) -> np.ndarray:
        """Run the network, tile by tile: new hidden and cell into the rows; its raw quantiles by level, float32 (Q, B, T, K)."""
        before = (seen.features, seen.windows, rows["hidden"], rows["cell"])
        model = self.engine.model
        scaled = np.empty((len(model.levels), *seen.newest.shape, model.horizon), np.float32)
        for part, size in tiles(len(rows)):
            outputs = self._network.step(*(torch.from_numpy(_pad(column[part], size)) for column in before))
            real = part.stop - part.start
            quantiles, hidden, cell = (output.numpy()[:real] for output in outputs)
            scaled[:, part] = np.moveaxis(quantiles, -1, 0)
            rows["hidden"][part], rows["cell"][part] = hidden, cell
        rows["version"] = self.version
        return scaled

    def _rebuild(self, rows: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """Give rows of another model version this network's hidden and cell, run over their own window from zero.

        Returns:
            Which rows, bool (B,).
        """
        stale: np.ndarray = (rows["version"] != self.version) & (rows["count"] > 0) & ~fresh  # (B,)
        numbers = np.flatnonzero(stale)
        for part, size in tiles(len(numbers)):
            chosen = numbers[part]
            inputs, valid = features.window_features(self._shape, _pad(rows[chosen], size))  # (W, size, F), (W, size)
            hidden, cell = self._network.warm(torch.from_numpy(inputs), torch.from_numpy(valid))  # (size, L, H) each
            rows["hidden"][chosen] = hidden.numpy()[: len(chosen)]
            rows["cell"][chosen] = cell.numpy()[: len(chosen)]
        return stale


def tiles(count: int) -> Iterator[tuple[slice, int]]:
    """Cut `count` rows into tiles: (which rows, padded size)."""
    for first in range(0, count, TILE_ROWS):
        rest = min(TILE_ROWS, count - first)
        yield slice(first, first + rest), SMALL_TILE_ROWS if rest <= SMALL_TILE_ROWS else TILE_ROWS


def _pad(column: np.ndarray, size: int) -> np.ndarray:
    """A contiguous copy of (B, ...) padded with zeros to (size, ...)."""
    padded = np.zeros((size, *column.shape[1:]), column.dtype)
    padded[: len(column)] = column
    return padded


def _sort(planes: np.ndarray) -> None:
    """Sort along the first axis, in place, by compare and exchange: exact, and fast for the few levels there are."""
    for last in range(len(planes) - 1, 0, -1):
        for low, high in pairwise(planes[: last + 1]):
            swapped = np.minimum(low, high)
            np.maximum(low, high, out=high)
            low[...] = swapped


class _Interpolation(NamedTuple):
    """From the rungs of the ladder to all leads, linear in the lead."""

    below: np.ndarray  # int64 (K,), rung at or below each lead
    above: np.ndarray  # int64 (K,)
    weight: np.ndarray  # float32 (K,), of the rung above

    @classmethod
    def of(cls, shape: features.FeatureShape) -> _Interpolation:
        leads = np.arange(1, shape.engine.model.horizon + 1)
        above = np.searchsorted(shape.rungs, leads)
        below = np.where(shape.rungs[above] == leads, above, above - 1)
        step = np.maximum(shape.rungs[above] - shape.rungs[below], 1)
        return cls(below, above, ((leads - shape.rungs[below]) / step).astype(np.float32))

    def __call__(self, by_rung: np.ndarray) -> np.ndarray:
        """(B, T, R, Q) by rung to (Q, B, T, K) by lead, float32."""
        by_level = np.ascontiguousarray(np.moveaxis(by_rung, -1, 0))  # (Q, B, T, R)
        low, high = by_level.take(self.below, axis=-1), by_level.take(self.above, axis=-1)
        mixed: np.ndarray = low + self.weight * (high - low)
        return mixed
