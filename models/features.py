"""What a row learns from a reading before the network sees it, and what becomes of its answer: serving and training alike.

`observe` scores and clears due forecasts, moves scale and interval, shifts the window, and gives the network's inputs;
`forecast` turns the network's raw quantiles into served ones and keeps those that will be scored; `window_features` gives the
inputs of the row's own window. The arithmetic is `models.kernels`, compiled; here are its shapes.

B rows, C channels, T targets, W window, R rungs, Q levels, K leads, F features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from config.settings import EngineSettings, NetworkSettings
from models import adaptation, kernels
from models.adaptation import Adapting
from models.engine import Readings
from models.kernels import Columns
from models.layout import ladder

#: Raised whenever features or windows change their meaning: weights trained on others are refused.
FEATURE_VERSION = 2
#: Readings until a new stream's scale counts as settled.
WARMING_READINGS = 32

#: The columns that a reading moves as a whole.
_LONG = ("window", "gap_units", "missing")

#: Leads at which the network sees the season ahead, as shares of the horizon.
SEASON_LEADS = (0.0, 0.25, 0.5, 1.0)


def feature_count(engine: EngineSettings) -> int:
    """Width F of the network's input: features padded with zeros to a multiple of 16 (architecture 3)."""
    return -(-(signed_features(engine) + len(engine.channels) + 5) // 16) * 16


def signed_features(engine: EngineSettings) -> int:
    """So many features come first and change sign with the stream's values; the others do not."""
    return 2 * len(engine.channels) + len(SEASON_LEADS) * len(engine.targets)


def calendar_features(engine: EngineSettings) -> slice:
    """Which features are the time of day and of week."""
    first = signed_features(engine) + len(engine.channels) + 1
    return slice(first, first + 4)


def window_width(model: NetworkSettings) -> int:
    """Width D of what the highway sees of a target: its window, the season ahead, its place; padded to a multiple of 8."""
    return model.context + -(-(model.horizon + 1) // 8) * 8


@dataclass(frozen=True)
class FeatureShape:
    """Shapes and constants, worked out once from the settings and the season of the weights (0: none)."""

    engine: EngineSettings
    period_ms: int = 0
    features: int = field(init=False)  # F
    constants: kernels.Constants = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", feature_count(self.engine))
        object.__setattr__(self, "constants", _constants(self.engine, self.period_ms))

    @property
    def targets(self) -> np.ndarray:
        """The channels that are forecast, int64 (T,)."""
        return self.constants.targets


def _constants(engine: EngineSettings, period_ms: int) -> kernels.Constants:
    model = engine.model
    rungs, leads = np.array(ladder(model.horizon), np.int64), np.arange(1, model.horizon + 1)
    above = np.searchsorted(rungs, leads)
    below = np.where(rungs[above] == leads, above, above - 1)
    step = np.maximum(rungs[above] - rungs[below], 1)
    lowest, highest = model.levels[0], model.levels[-1]
    return kernels.Constants(
        targets=np.array([engine.channels.index(name) for name in engine.targets], np.int64),
        rungs=rungs,
        levels=np.array(model.levels, np.float32),
        leads=leads.astype(np.int64),
        season_leads=np.array([max(1, round(model.horizon * share)) for share in SEASON_LEADS], np.int64),
        below=below,
        above=above,
        weight=((leads - rungs[below]) / step).astype(np.float32),
        median=model.levels.index(0.5),
        period_ms=period_ms,
        per_width_above=-math.log10(2 * min(1 - highest, 0.25)),
        per_width_below=-math.log10(2 * min(lowest, 0.25)),
        of_targets=math.log10(len(engine.targets)),
    )


class Observation(NamedTuple):
    """What a reading brought: the network's inputs, and how the pending forecasts did."""

    features: np.ndarray  # float32 (B, F)
    windows: np.ndarray  # float32 (B, T, D): W differences to the newest reading, newest (0) last, then K of the season, place
    newest: np.ndarray  # float64 (B, T), the reading, or the model's own median where it is missing
    spread: np.ndarray  # float64 (B, T)
    anomaly_score: np.ndarray  # float64 (B,)
    model_error: np.ndarray  # float64 (B, T, R), NaN where no forecast was due
    naive_error: np.ndarray  # float64 (B, T, R)
    covered: np.ndarray  # float64 (B, T, R)


def observe(shape: FeatureShape, rows: np.ndarray, readings: Readings) -> Observation:
    """Advance all of a row but hidden and cell by its reading, in place.

    Args:
        shape: The settings' constants.
        rows: Structured (B,), rows of `models.layout.row_dtype`; changed in place.
        readings: B readings, in time after their rows' last.

    Returns:
        The network's inputs and the scores of the forecasts that were due.
    """
    _start(rows, readings)
    count, targets, rungs = len(rows), len(shape.targets), len(shape.constants.rungs)
    seen = Observation(
        np.zeros((count, shape.features), np.float32),
        np.zeros((count, targets, window_width(shape.engine.model)), np.float32),
        np.empty((count, targets)),
        np.empty((count, targets)),
        np.empty(count),
        *(np.empty((count, targets, rungs)) for _ in range(3)),
    )
    into = kernels.Observed(*seen)
    with _columns(rows, _LONG) as columns:
        kernels.observe(shape.constants, columns, readings.values, readings.time_ms, readings.offset, readings.element, into)
    return seen


def adapt(
    shape: FeatureShape,
    rows: np.ndarray,
    basis: np.uint64,
    responses: np.ndarray,
    along: np.ndarray,
    spread: np.ndarray,
    raw: np.ndarray,
) -> None:
    """Let each row learn how its stream differs from what all share, and add its own move to the network's quantiles.

    Args:
        shape: The settings' constants.
        rows: Structured (B,), after `observe`; changed in place.
        basis: Number of the weights' basis; 0 is none, and nothing is added.
        responses: float32 (T, RESPONSES, K), of the weights.
        along: float32 (B, T, DIRECTIONS), the windows' places along the weights' directions.
        spread: float64 (B, T).
        raw: float32 (B, T, K, Q), the network's; changed in place.
    """
    with _lent(rows) as lent:
        adaptation.adapt(basis, shape.targets, responses, Adapting.of(lent), along, spread, shape.constants.median, raw)


@contextmanager
def _columns(rows: np.ndarray, packed: Sequence[str] = ()) -> Iterator[Columns]:
    """Columns of the rows, to be changed. What is `packed` is contiguous, by a copy: loops over it are vectorized."""
    with _lent(rows) as lent:
        copies = {name: np.ascontiguousarray(lent[name]) for name in packed}
        yield Columns.of(lent)._replace(**copies)
        for name, copy in copies.items():
            lent[name] = copy


@contextmanager
def _lent(rows: np.ndarray) -> Iterator[np.ndarray]:
    """At least two rows: one row's columns would be contiguous, another type that is compiled for anew. It is lent a neighbour,
    whom the kernels need not look at."""
    lent = np.repeat(rows, 2) if len(rows) == 1 else rows
    yield lent
    if lent is not rows:
        rows[:] = lent[:1]


def _start(rows: np.ndarray, readings: Readings) -> None:
    """Rows whose reading starts them afresh: all zero, but for scale and anchor at the reading."""
    fresh = readings.fresh
    if not fresh.any():
        return
    first = readings.values[fresh]
    started = np.zeros(len(first), rows.dtype)
    started["anchor"] = started["level"] = first
    started["spread"] = np.abs(first) * kernels.FIRST_SPREAD
    rows[fresh] = started


def forecast(shape: FeatureShape, rows: np.ndarray, raw: np.ndarray, seen: Observation) -> np.ndarray:
    """Served quantiles from the network's: guarded, calibrated, sorted, in sensor units; kept in the rows until they are due.

    Args:
        shape: The settings' constants.
        rows: Structured (B,), after `observe`; changed in place.
        raw: float32 (B, T, K, Q), offsets from the newest reading in spreads.
        seen: What `observe` returned.

    Returns:
        float64 (B, T, K, Q), non-decreasing along Q.
    """
    quantiles = np.empty(raw.shape)
    with _columns(rows) as columns:
        kernels.forecast(shape.constants, columns, raw, seen.newest, seen.spread, quantiles)
    return quantiles


def window_features(shape: FeatureShape, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inputs at each reading of each row's own window, oldest first, at the scale and with the profile of then.

    Returns:
        features: float32 (W, B, F). Times are counted back from the last reading by the stored gaps.
        valid: bool (W, B), False for the part of a young row's window that holds no reading.
    """
    length = shape.engine.model.context
    features, valid = np.zeros((length, len(rows), shape.features), np.float32), np.empty((length, len(rows)), bool)
    with _columns(rows.copy()) as columns:  # which it uses up
        kernels.window_features(shape.constants, columns, features, valid)
    return features, valid
