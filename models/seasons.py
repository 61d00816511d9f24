"""Finds the season of training readings: after how many readings a sensor's day, shift or week begins anew.

Works on first differences, which know no level and no drift, over all streams of the usual sampling interval together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

#: Lags that are considered, in readings.
SHORTEST, LONGEST = 4, 212
#: A peak is the largest correlation between these multiples of its lag.
NEAR, FAR = 0.8, 1.2
#: The season is the shortest peak that reaches this share of the highest: the others are its multiples.
SHARE = 0.9
#: Correlations below are noise, and so are those below so many standard errors.
LEAST = 0.1
SURE = 4.0
#: Differences are clipped to so many standard deviations: one freak must not make a season.
CLIP = 4.0


def find(series: Sequence[tuple[np.ndarray, np.ndarray]]) -> int:
    """The season in milliseconds, 0 where there is none.

    Args:
        series: Of each stream its times, int64 (n,), and one channel's values, float64 (n,), NaN is missing.
    """
    usual = Counter(_interval(time_ms) for time_ms, _ in series if len(time_ms) > 2 * SHORTEST)
    if not usual:
        return 0
    interval_ms = usual.most_common(1)[0][0]
    sums, weights = np.zeros(int(LONGEST * FAR) + 2), np.zeros(int(LONGEST * FAR) + 2)
    for time_ms, values in series:
        if len(time_ms) > 2 * SHORTEST and _interval(time_ms) == interval_ms:
            products, pairs = _correlate(_on_grid(time_ms, values, interval_ms), len(sums))
            sums += products
            weights += pairs
    correlation = sums / np.maximum(weights, 1)
    correlation[correlation * np.sqrt(weights) < SURE] = 0
    return _season(correlation) * interval_ms


def _interval(time_ms: np.ndarray) -> int:
    return int(np.median(np.diff(time_ms)))


def _on_grid(time_ms: np.ndarray, values: np.ndarray, interval_ms: int) -> np.ndarray:
    """First differences on a regular grid in standard deviations, clipped; NaN across gaps, (m,)."""
    place = (2 * (time_ms - time_ms[0]) + interval_ms) // (2 * interval_ms)
    grid = np.full(min(int(place[-1]) + 1, 8 * len(place)), np.nan)
    grid[place[place < len(grid)]] = values[place < len(grid)]
    steps = np.diff(grid)
    known = steps[~np.isnan(steps)]
    deviation = float(known.std()) if known.size else 0.0
    return steps.clip(-CLIP * deviation, CLIP * deviation) / deviation if deviation > 0 else np.full_like(steps, np.nan)


def _correlate(steps: np.ndarray, lags: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum of products over all known pairs, by lag, and their number."""
    known = ~np.isnan(steps)
    filled = np.where(known, steps, 0.0)
    products, pairs = np.zeros(lags), np.zeros(lags)
    for lag in range(1, min(lags, len(steps))):
        products[lag] = (filled[:-lag] * filled[lag:]).sum()
        pairs[lag] = (known[:-lag] & known[lag:]).sum()
    return products, pairs


def _season(correlation: np.ndarray) -> int:
    """The lag of the shortest high peak, 0 where there is none."""
    peaks = [
        lag
        for lag in range(SHORTEST, LONGEST + 1)
        if correlation[lag] >= max(LEAST, float(correlation[int(lag * NEAR) : int(lag * FAR) + 1].max()))
    ]
    highest = max((correlation[lag] for lag in peaks), default=0.0)
    return next((lag for lag in peaks if correlation[lag] >= SHARE * highest), 0)
