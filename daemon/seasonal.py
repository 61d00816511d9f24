"""The value of a season before as a forecast: scored on the very pairs on which the engine scores its own, in the same unit.

Remembers of every slot the readings of a season and of the horizon, in a ring. It only looks: no forecast depends on it. In a
compiled loop, since a replay that only scores does so for every reading.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from config.settings import EngineSettings
from models.compiled import compiled
from models.engine import QuantileForecasts, Readings
from models.kernels import LEAST_SHARE, LEAST_UNIT, SPREAD_PER_DEVIATION
from models.layout import ladder

#: Most memory for a partition's rings, bytes; streams beyond have no value of a season before.
MOST_BYTES = 64 << 20
_FIRST_READINGS = 32


class Unit(NamedTuple):
    """What a row's errors are measured by: as it was before the reading, like the engine's."""

    interval_ms: np.ndarray  # int64 (B,)
    spread: np.ndarray  # float64 (B, C)

    @classmethod
    def of(cls, rows: np.ndarray) -> Unit | None:
        """A copy out of rows (B,); None where the engine scores nothing as it goes."""
        if "naive_error" not in (rows.dtype.names or ()):
            return None
        floor = np.maximum(np.abs(rows["level"]) * LEAST_SHARE, LEAST_UNIT)
        return cls(rows["interval_ms"].copy(), np.maximum(rows["spread"] * SPREAD_PER_DEVIATION, floor))


class SeasonalScores:
    """Sums over the pairs for which a value of a season before was known, by target and rung (T, R)."""

    def __init__(self, targets: int, rungs: int) -> None:
        self.pairs = np.zeros((targets, rungs), np.int64)
        self.errors = np.zeros((targets, rungs))  # sum of |reading - value of a season before| / spread


class Seasonal:
    """The past of one partition's slots.

    Args:
        season_ms: How long a season is.
        scores: Where sums go, by names of targets and leads as those of the pipeline.
    """

    def __init__(self, season_ms: int, scores: dict[tuple[tuple[str, ...], tuple[int, ...]], SeasonalScores]) -> None:
        self._season_ms, self._scores = season_ms, scores
        self._channels = np.zeros(0, np.int64)  # of the targets
        self.forget()

    def forget(self) -> None:
        """Slots mean other streams from now on."""
        self._newest = np.full(0, -1, np.int64)  # readings that a slot has had, less one
        self._times_ms = np.zeros((0, _FIRST_READINGS), np.int64)  # by slot, ring
        self._values = np.zeros((0, _FIRST_READINGS, len(self._channels)))

    def add(self, slots: np.ndarray, readings: Readings, unit: Unit, output: QuantileForecasts, engine: EngineSettings) -> None:
        """Score what the engine has scored of B readings, and remember them."""
        channels, rungs = np.array([engine.channels.index(name) for name in engine.targets]), ladder(engine.model.horizon)
        if not np.array_equal(channels, self._channels):
            self._channels = channels
            self.forget()
        scores = self._scores.setdefault((engine.targets, rungs), SeasonalScores(len(channels), len(rungs)))
        self._reserve(int(slots.max(initial=-1)) + 1, self._times_ms.shape[1])
        values, spread = readings.values[:, channels], unit.spread[:, channels]  # (B, T)
        told = (slots, readings.time_ms, values, readings.fresh, unit.interval_ms, spread, output.naive_error)
        past = (self._newest, self._times_ms, self._values)
        needed = look_back(*told, self._season_ms, np.array(rungs), *past, scores.pairs, scores.errors)
        if needed > self._times_ms.shape[1]:
            self._reserve(len(self._newest), 1 << math.ceil(math.log2(needed)))

    def _reserve(self, slots: int, readings: int) -> None:
        """Have room for so many, as far as memory allows; nothing known is lost but what has no room."""
        had, had_readings = self._times_ms.shape
        most = MOST_BYTES // (readings * 8 * (1 + len(self._channels)))
        size = min(had if slots <= had else 2 * slots, most)
        if size <= had and readings <= had_readings:
            return
        kept = min(size, had)
        order = np.maximum(self._newest[:kept, None] - np.arange(had_readings)[::-1], 0)
        newest, times_ms = np.full(size, -1, np.int64), np.zeros((size, readings), np.int64)
        values = np.zeros((size, readings, len(self._channels)))
        rows = np.arange(kept)[:, None]
        from_, to = order % had_readings, order % readings
        newest[:kept] = self._newest[:kept]
        times_ms[rows, to], values[rows, to] = self._times_ms[rows, from_], self._values[rows, from_]
        self._newest, self._times_ms, self._values = newest, times_ms, values


@compiled
def look_back(
    slots: np.ndarray,
    time_ms: np.ndarray,
    values: np.ndarray,
    fresh: np.ndarray,
    interval_ms: np.ndarray,
    spread: np.ndarray,
    scored: np.ndarray,
    season_ms: int,
    rungs: np.ndarray,
    newest: np.ndarray,
    times_ms: np.ndarray,
    past: np.ndarray,
    pairs: np.ndarray,
    errors: np.ndarray,
) -> int:
    """Score B readings of B different slots against what was read whole seasons before, and put them into the rings.

    Args:
        slots, time_ms, fresh, interval_ms: (B,); `fresh` begins a ring anew.
        values, spread: float64 (B, T).
        scored: float64 (B, T, R), NaN where the engine scored nothing.
        season_ms: The newest season that was over at the origin counts.
        rungs: int64 (R,), leads.
        newest, times_ms, past: The rings: (N,), (N, M), (N, M, T); changed. Slots beyond N are passed over.
        pairs, errors: (T, R), added to.

    Returns:
        Readings that a ring must hold for all rungs of these slots.
    """
    needed, room = 0, times_ms.shape[1]
    for i in range(len(slots)):
        at = slots[i]
        if at >= len(newest):
            continue
        if fresh[i]:
            newest[at] = -1
        half_ms = interval_ms[i] // 2
        for r in range(len(rungs)):
            asked = False
            for t in range(values.shape[1]):
                asked = asked or scored[i, t, r] == scored[i, t, r]
            if not asked:
                continue
            back_ms = -(-rungs[r] * interval_ms[i] // season_ms) * season_ms
            wanted_ms = time_ms[i] - back_ms
            low, high = max(newest[at] - room + 1, 0), newest[at] + 1
            while low < high:  # the first that is not before
                middle = (low + high) // 2
                if times_ms[at, middle % room] < wanted_ms - half_ms:
                    low = middle + 1
                else:
                    high = middle
            if low > newest[at] or times_ms[at, low % room] > wanted_ms + half_ms:
                continue
            for t in range(values.shape[1]):
                error = abs(values[i, t] - past[at, low % room, t]) / spread[i, t]
                if scored[i, t, r] == scored[i, t, r] and error == error:
                    pairs[t, r] += 1
                    errors[t, r] += error
        if interval_ms[i] > 0:
            furthest_ms = -(-rungs[-1] * interval_ms[i] // season_ms) * season_ms
            needed = max(needed, furthest_ms // interval_ms[i] + 2)
        newest[at] += 1
        times_ms[at, newest[at] % room] = time_ms[i]
        for t in range(values.shape[1]):
            past[at, newest[at] % room, t] = values[i, t]
    return needed
