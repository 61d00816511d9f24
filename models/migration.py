"""Rows of earlier layouts as rows of today's, so that an upgrade keeps every stream's state.

A layout is described by what it differs in from today's. One that is not here is refused at a restore, with the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from config.settings import EngineSettings
from models.layout import padded, row_dtype

#: Fields that rows did not have before engine version 5: how surprising a stream's readings are, and the adaptation.
_SINCE_5 = ("tails", "surprise", "basis", "own_map", "origins")
#: Fields that rows did not have before engine version 2: the season, and the network's own median beside the guarded one.
_SINCE_2 = ("season_start_ms", "period_ms", "pending_model", "profile")


class Older(NamedTuple):
    """An earlier layout."""

    dtype: np.dtype[Any]
    migrated: Callable[[np.ndarray], np.ndarray]  # rows (B,) of that layout as new ones of today's


def older_layouts(engine: EngineSettings) -> list[Older]:
    """Those of the default forecaster under these settings: of engine version 4, of 2 and 3, and of 1."""
    before_4 = _without(_SINCE_5, engine, byte_masks=True), _without(_SINCE_5 + _SINCE_2, engine, byte_masks=True)
    return [Older(dtype, partial(_migrated, engine)) for dtype in (_without(_SINCE_5, engine), *before_4)]


def _migrated(engine: EngineSettings, rows: np.ndarray) -> np.ndarray:
    """What rows did not have begins as in a new row."""
    new = np.zeros(len(rows), row_dtype(engine))
    known = rows.dtype.names or ()
    for name in known:
        if name not in ("missing", "unused"):
            new[name] = rows[name]
    by_age = rows["missing"]
    if by_age.shape != new["missing"].shape:  # a byte a reading, oldest first
        by_age = np.packbits(by_age[..., ::-1], axis=-1, bitorder="little")
    new["missing"] = by_age
    if "pending_model" not in known:
        new["pending_model"] = rows["pending"][..., engine.model.levels.index(0.5)]
    return new


def _without(absent: Sequence[str], engine: EngineSettings, byte_masks: bool = False) -> np.dtype[Any]:
    """Today's layout but for these fields; before engine version 4 a missing reading was a byte, oldest first."""
    today = row_dtype(engine)
    fields: list[tuple[Any, ...]] = []
    for name in today.names or ():
        if name == "missing" and byte_masks:
            fields.append((name, "u1", (len(engine.channels), engine.model.context)))
        elif name not in (*absent, "unused"):
            fields.append((name, today[name].base.str, *([today[name].shape] if today[name].shape else [])))
    return padded(fields)
