"""Rows of one partition's followed streams under one version, and the same rows forked for a second one. B rows."""

from __future__ import annotations

import numpy as np

from models.engine import QuantileForecasts, Readings
from models.forecaster import Forecaster

_FIRST_ROWS = 64


class Lane:
    """Rows by slot, advanced by one engine."""

    def __init__(self, forecaster: Forecaster) -> None:
        self.forecaster = forecaster  # may be replaced: rows of another version are rebuilt as they step
        self._rows = np.zeros(_FIRST_ROWS, forecaster.row_dtype)

    def step(self, slots: np.ndarray, readings: Readings) -> QuantileForecasts:
        """Advance the rows of B different slots, int64 (B,), each by its reading."""
        needed = int(slots.max(initial=-1)) + 1
        if needed > len(self._rows):
            grown = np.zeros(max(needed, 2 * len(self._rows)), self._rows.dtype)
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        rows = self._rows[slots]
        output = self.forecaster.step(rows, readings)
        self._rows[slots] = rows
        return output

    def fork(self, forecaster: Forecaster) -> Lane:
        """The same rows under another version, as after a swap; from now on both are scored by forecasts made since alone."""
        self._rows["due_ms"] = 0
        twin = Lane(forecaster)
        twin._rows = self._rows.copy()
        return twin
