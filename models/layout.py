"""A stream's whole state as one row of a numpy structured dtype, and the table that shows it.

The row is what the changelog stores, so its layout is part of the format: a change raises `ENGINE_VERSION`. Fields are ordered
by element size, so that none is unaligned. Times, offsets and counters never pass through float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from config.settings import EngineSettings
from models.adaptation import DIRECTIONS, ORIGINS, RESPONSES
from models.engine import HEADER

#: Raised whenever forecasts or rows may change by a byte for equal input and weights.
ENGINE_VERSION = 6

#: Gaps whose median is the sampling interval.
RECENT_GAPS = 9

#: Shares of a stream's readings that are further out than what the row knows: a tenth, a hundredth, a thousandth.
TAILS = 3

#: Phases of the season that a row knows the usual value of.
PHASES = 48


def ladder(horizon: int) -> tuple[int, ...]:
    """The leads at which forecasts are scored and calibrated: 1, 2, 4, 8, 16 and the horizon."""
    return (*(lead for lead in (1, 2, 4, 8, 16) if lead < horizon), horizon)


def row_dtype(engine: EngineSettings) -> np.dtype[Any]:
    """The row of the forecaster under these settings: C channels, T targets, L layers, R rungs of the ladder, Q levels."""
    model = engine.model
    channels, targets = len(engine.channels), len(engine.targets)
    rungs, levels = len(ladder(model.horizon)), len(model.levels)
    state = (model.layers, model.hidden)
    fields: list[tuple[Any, ...]] = [
        *HEADER,
        ("interval_ms", "<i8"),  # running median of the gaps; 0 while unknown
        ("anchor", "<f8", (channels,)),  # what the window's differences are from
        ("level", "<f8", (channels,)),  # running mean
        ("spread", "<f8", (channels,)),  # running mean absolute deviation
        ("season_start_ms", "<i8"),  # since when the profile learns
        ("period_ms", "<i8"),  # the season of the profile; 0 is none
        ("basis", "<u8"),  # of the weights, in which the own map is; 0 is none
        ("due_ms", "<i8", (rungs,)),  # when the pending forecast of each rung is due; 0 is none
        ("hidden", "<f4", state),
        ("cell", "<f4", state),
        ("window", "<f4", (channels, model.context)),  # last readings less anchor, newest last
        ("pending", "<f4", (targets, rungs, levels)),  # quantiles less anchor
        ("pending_model", "<f4", (targets, rungs)),  # the network's own median, less anchor, whatever the guard made of it
        ("pending_naive", "<f4", (targets, rungs)),  # the last value of the pending forecast's origin, less anchor
        ("model_error", "<f4", (targets, rungs)),  # running |reading - the network's own median| / spread
        ("naive_error", "<f4", (targets, rungs)),  # running |reading - last value| / spread
        ("calibration", "<f4", (targets, rungs, levels)),  # added to the network's quantiles, in spreads
        ("profile", "<f4", (targets, PHASES)),  # usual difference to the level by phase of the season
        ("tails", "<f4", (targets, TAILS)),  # surprises that so few readings are beyond; 0 is not yet known
        ("own_map", "<f4", (targets, DIRECTIONS + 1, RESPONSES)),  # from the window's places along the directions, and one
        # what waits for its leads: places along the directions, the network's median as responses, spread; 0 is none
        ("origins", "<f4", (targets, ORIGINS, DIRECTIONS + RESPONSES + 1)),
        ("gaps_ms", "<u4", (RECENT_GAPS,)),  # newest last; 0 is none
        ("gap_units", "<u2", (model.context,)),  # gap before each reading of the window, in 1/64 intervals
        ("surprise", "<u2", (targets, rungs)),  # newest of each rung, in 1/4096 from 1; 0 is none
        ("missing", "u1", (channels, -(-model.context // 8))),  # a bit a reading by its age: 1 where it was missing
    ]
    return padded(fields)


def padded(fields: list[tuple[Any, ...]]) -> np.dtype[Any]:
    """The fields as a dtype whose size is a multiple of 8, so that consecutive rows stay aligned."""
    rest = -np.dtype(fields).itemsize % 8
    return np.dtype([*fields, ("unused", "u1", (rest,))] if rest else fields)


def describe(dtype: np.dtype[Any]) -> str:
    """The layout as a Markdown table: field, type, shape, bytes, and the sum."""
    lines = ["| field | type | shape | bytes |", "|---|---|---|---|"]
    for name in dtype.names or ():
        field = dtype[name]
        shape = " x ".join(map(str, field.shape)) or "-"
        lines.append(f"| {name} | {field.base.name} | {shape} | {field.itemsize} |")
    return "\n".join([*lines, f"| **row** | | | **{dtype.itemsize}** |"])
