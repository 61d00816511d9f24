"""The default engine: scale, LSTM with a linear highway, adaptation, calibration. Rows and readings in, quantile forecasts out.

The network works on tiles (`models.tiles`). What surrounds it is elementwise and takes all rows at once.
"""

from __future__ import annotations

import numpy as np
import torch

from config.settings import EngineSettings
from models import features
from models.adaptation import DIRECTIONS
from models.engine import QuantileForecasts, Readings, version_number
from models.layout import row_dtype
from models.networks import NaiveNetwork, Network
from models.tiles import SMALL_TILE_ROWS, pad, through

#: The model version that serves while there are no weights.
NAIVE = "naive"


class Forecaster:
    """Advances rows of `row_dtype` with one network. Holds no rows."""

    rebuilt_fields = ("hidden", "cell", "version")

    def __init__(self, engine: EngineSettings, network: Network | NaiveNetwork, model_version: str) -> None:
        torch.set_num_threads(1)  # more threads split products differently, and bytes with them
        self.engine = engine
        self.row_dtype = row_dtype(engine)
        self.version = np.uint64(version_number(model_version))
        self._network = network.eval()
        self._shape = features.FeatureShape(engine, network.period_ms)
        self._basis, self._responses = np.uint64(network.basis), network.responses.detach().numpy()

    def step(self, rows: np.ndarray, readings: Readings) -> QuantileForecasts:
        """Advance each row by its reading, in place, and forecast from its new state.

        Args:
            rows: Structured (B,), different rows of `row_dtype`.
            readings: B readings, aligned with the rows, each later than its row's last.

        Returns:
            Forecasts in sensor units, new arrays.
        """
        rebuilt = self._rebuild_stale(rows, readings.fresh)
        with torch.inference_mode():
            seen = features.observe(self._shape, rows, readings)
            raw = self._advance(rows, seen)
        quantiles = features.forecast(self._shape, rows, raw, seen)
        warming = rows["count"] < features.WARMING_READINGS
        return QuantileForecasts(quantiles, rows["interval_ms"].copy(), seen.anomaly_score, warming, *seen[5:], rebuilt)

    def _advance(self, rows: np.ndarray, seen: features.Observation) -> np.ndarray:
        """Run the network, tile by tile: new hidden and cell into the rows; its raw quantiles with what the rows
        add of their own, float32 (B, T, K, Q)."""
        before = (seen.features, seen.windows, rows["hidden"], rows["cell"])
        model = self.engine.model
        raw = np.empty((*seen.newest.shape, model.horizon, len(model.levels)), np.float32)
        along = np.empty((*seen.newest.shape, DIRECTIONS), np.float32)
        through(self._network.step, before, (raw, along, rows["hidden"], rows["cell"]))
        rows["version"] = self.version
        features.adapt(self._shape, rows, self._basis, self._responses, along, seen.spread, raw)
        return raw

    def stale(self, rows: np.ndarray) -> np.ndarray:
        """Which rows have hidden and cell of another model version, bool (B,)."""
        stale: np.ndarray = (rows["version"] != self.version) & (rows["count"] > 0)
        return stale

    def rebuild(self, rows: np.ndarray) -> None:
        """Give rows this network's hidden and cell, run over their own window from zero, in place.

        A function of each row and the weights alone: it does not matter who does it, nor when, as long as the row stays as it is.
        """
        torch.set_num_threads(1)  # the number is each thread's own
        by_age = np.argsort(rows["count"], kind="stable")  # a tile of young rows takes as many steps as its oldest
        full = rows["count"][by_age] >= self.engine.model.context  # rounds otherwise: by row, never by tile
        for numbers, young in ((by_age[full], False), (by_age[~full], True)):
            for first in range(0, len(numbers), SMALL_TILE_ROWS):
                chosen = numbers[first : first + SMALL_TILE_ROWS]
                inputs, valid = features.window_features(self._shape, pad(rows[chosen], SMALL_TILE_ROWS))
                with torch.inference_mode():
                    state = self._network.warm(torch.from_numpy(inputs), torch.from_numpy(valid) if young else None)
                rows["hidden"][chosen], rows["cell"][chosen] = (part.numpy()[: len(chosen)] for part in state)
        rows["version"] = self.version

    def _rebuild_stale(self, rows: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """Rebuild what is stale and goes on; which rows, bool (B,)."""
        stale: np.ndarray = self.stale(rows) & ~fresh
        if stale.any():
            rebuilt = rows[stale]
            self.rebuild(rebuilt)
            rows[stale] = rebuilt
        return stale
