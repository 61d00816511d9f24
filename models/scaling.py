"""What the rows of the arrangements know of their streams: level, spread and sampling interval; and a network's inputs from them.

Simpler than the default's (`models.features`): no season, no window, no calibration. Elementwise float64 in numpy, exactly
rounded, so a row depends on nothing but itself. A missing value goes in as zero beside its mask.
B rows, C channels, F inputs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from config.settings import EngineSettings
from models.engine import Readings
from models.kernels import FEATURE_CLIP, FIRST_SPREAD, SCALE_HALF_LIFE, SPREAD_PER_DEVIATION
from models.layout import RECENT_GAPS
from models.recurrent import padded

#: Raised whenever inputs change their meaning: weights trained on others are refused.
INPUT_VERSION = 1
#: The spread is at least this share of the level's magnitude, and this.
LEAST_SHARE, LEAST_SPREAD = 1e-6, 1e-9

_RATE = 1 - 2 ** (-1 / SCALE_HALF_LIFE)


def fields(engine: EngineSettings) -> list[tuple[Any, ...]]:
    """The row's fields that are kept here; those of four bytes are `small_fields`."""
    channels = (len(engine.channels),)
    return [
        ("interval_ms", "<i8"),  # median of the last gaps; 0 while unknown
        ("newest", "<f8", channels),  # the last known values
        ("level", "<f8", channels),  # running mean
        ("deviation", "<f8", channels),  # running mean absolute deviation
    ]


def small_fields() -> list[tuple[Any, ...]]:
    """Of four bytes each."""
    return [("gaps_ms", "<u4", (RECENT_GAPS,))]  # newest last; 0 is none


def input_width(engine: EngineSettings) -> int:
    """F: a value and a mask for each channel, and the gap; padded."""
    return padded(2 * len(engine.channels) + 1)


class Scale(NamedTuple):
    """What a stream's readings are measured by, after the newest of them."""

    level: np.ndarray  # float64 (B, C)
    spread: np.ndarray  # float64 (B, C)
    gap: np.ndarray  # float64 (B,), before the newest reading, in intervals; 1 while unknown


def observe(rows: np.ndarray, readings: Readings) -> Scale:
    """Move level, spread and interval of each row by its reading, in place; `start` comes before, `stamp` after."""
    _measure_interval(rows, readings.time_ms)
    known = ~np.isnan(readings.values)
    rows["newest"] = np.where(known, readings.values, rows["newest"])
    rate = np.maximum(1 / (rows["count"] + 1), _RATE)[:, None] * (rows["count"] > 0)[:, None]  # (B, 1)
    away = np.where(known, readings.values - rows["level"], 0.0)
    rows["level"] += rate * away
    rows["deviation"] += np.where(known, rate * (np.abs(away) - rows["deviation"]), 0.0)
    gap_ms, interval_ms = rows["gaps_ms"][:, -1].astype(np.float64), rows["interval_ms"].astype(np.float64)
    gap = np.where(interval_ms > 0, gap_ms / np.maximum(interval_ms, 1.0), 1.0)
    return Scale(rows["level"].copy(), spread(rows), gap)


def spread(rows: np.ndarray) -> np.ndarray:
    """What one spread is of each row, in sensor units, float64 (B, C)."""
    floor = np.maximum(np.abs(rows["level"]) * LEAST_SHARE, LEAST_SPREAD)
    wide: np.ndarray = np.maximum(rows["deviation"] * SPREAD_PER_DEVIATION, floor)
    return wide


def _measure_interval(rows: np.ndarray, time_ms: np.ndarray) -> None:
    gap_ms = np.where(rows["count"] > 0, time_ms - rows["last_time_ms"], 0).clip(0, (1 << 32) - 1)
    gaps = np.concatenate([rows["gaps_ms"][:, 1:], gap_ms.astype(np.uint32)[:, None]], axis=1)
    rows["gaps_ms"] = gaps
    known = np.minimum(rows["count"], RECENT_GAPS)  # gaps, this one included
    middle = np.sort(gaps, axis=1)[np.arange(len(rows)), RECENT_GAPS - known + np.maximum(known - 1, 0) // 2 - (known == 0)]
    rows["interval_ms"] = np.where(known > 0, middle, 0)


def inputs(values: np.ndarray, level: np.ndarray, spread: np.ndarray, gap: np.ndarray, width: int) -> np.ndarray:
    """A network's inputs, float32 (..., F): values in spreads from the level, masks, the gap, zeros.

    Args:
        values: float64 (..., C), NaN is missing.
        level: float64 (..., C).
        spread: float64 (..., C).
        gap: float64 (...), in intervals.
        width: F.
    """
    channels = values.shape[-1]
    missing = np.isnan(values)
    made = np.zeros((*values.shape[:-1], width), np.float32)
    made[..., :channels] = np.where(missing, 0.0, (values - level) / spread).clip(-FEATURE_CLIP, FEATURE_CLIP)
    made[..., channels : 2 * channels] = missing
    made[..., 2 * channels] = gap / (1 + gap)  # one half at the regular pace
    return made


def start(rows: np.ndarray, readings: Readings, kept: tuple[str, ...] = ()) -> None:
    """Rows whose reading starts them afresh: all zero but for what is kept, and the scale at the reading."""
    fresh = readings.fresh
    if not fresh.any():
        return
    started = np.zeros(int(fresh.sum()), rows.dtype)
    for name in kept:
        started[name] = rows[name][fresh]
    started["newest"] = started["level"] = readings.values[fresh]
    started["deviation"] = np.abs(readings.values[fresh]) * FIRST_SPREAD
    rows[fresh] = started


def stamp(rows: np.ndarray, readings: Readings) -> None:
    """The header of each row, after its reading."""
    rows["count"] += 1
    rows["applied_offset"], rows["applied_index"] = readings.offset, readings.element
    rows["last_time_ms"] = readings.time_ms
