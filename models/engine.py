"""What an engine is: rows and readings in, rows advanced and an output. The pipeline knows engines only by this interface.

An engine is pure: equal rows and readings give equal bytes, whatever the batch. It owns no rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

#: The fields every row begins with, in any engine's `row_dtype`.
HEADER: list[tuple[str, str]] = [
    ("applied_offset", "<i8"),  # offset of the record of the last applied reading
    ("applied_index", "<i8"),  # its position in that record
    ("count", "<i8"),  # readings applied since the row started; 0 is no stream
    ("last_time_ms", "<i8"),  # time of the last applied reading
    ("version", "<u8"),  # `version_number` of the model version that made hidden and cell
]


def version_number(model_version: str) -> int:
    """The 64 bits by which a row names its model version."""
    return int.from_bytes(hashlib.sha256(model_version.encode()).digest()[:8], "little")


class Readings(NamedTuple):
    """B readings of B different rows, aligned with them. The engine only reads these arrays."""

    values: np.ndarray  # float64 (B, C), NaN is missing
    time_ms: np.ndarray  # int64 (B,)
    offset: np.ndarray  # int64 (B,)
    element: np.ndarray  # int64 (B,), position in its record
    fresh: np.ndarray  # bool (B,): start the row as if the stream had never been seen


class Engine(Protocol):
    """Advances rows by one reading each.

    What `step` returns is a tuple of columns. One that is called `emits` (bool) says for which rows there is an output.
    """

    row_dtype: np.dtype[Any]  # structured, begins with HEADER

    def step(self, rows: np.ndarray, readings: Readings) -> Any:
        """Advance each row by its reading, in place, and return the output that `daemon.outputs.encode` turns into bytes."""
        ...


@runtime_checkable
class Rebuilds(Protocol):
    """An engine whose rows hold what its weights made of them, and can be made anew by other weights."""

    row_dtype: np.dtype[Any]
    rebuilt_fields: tuple[str, ...]  # what `rebuild` changes

    def stale(self, rows: np.ndarray) -> np.ndarray:
        """Which rows hold what another model version made, bool (B,)."""
        ...

    def rebuild(self, rows: np.ndarray) -> None:
        """Make it anew, in place, from the rest of each row alone: `step` does the same with a stale row."""
        ...


@runtime_checkable
class Named(Protocol):
    """An engine whose rows know whose they are."""

    def named(self, rows: np.ndarray, streams: Sequence[str]) -> np.ndarray:
        """Rows that are about to start, with what `step` needs of their streams' ids written into them."""
        ...


class QuantileForecasts(NamedTuple):
    """What the forecaster puts out for B rows, in sensor units; new arrays, the caller owns them."""

    quantiles: np.ndarray  # float64 (B, T, K, Q), non-decreasing along Q
    interval_ms: np.ndarray  # int64 (B,), the running median of the gaps; 0 while unknown
    anomaly_score: np.ndarray  # float64 (B,), -log10 of a tail probability (`kernels._anomaly`); NaN where it was not forecast
    warming: np.ndarray  # bool (B,), the scale has not settled
    model_error: np.ndarray  # float64 (B, T, L), |reading - median| / spread by ladder lead; NaN where none was due
    naive_error: np.ndarray  # float64 (B, T, L), |reading - last value| / spread of the same pairs
    covered: np.ndarray  # float64 (B, T, L), 1 inside the outermost interval, 0 outside; NaN where none was due
    rebuilt: np.ndarray  # bool (B,), hidden and cell were of another model version


class ChainDigests(NamedTuple):
    """What the chain engine puts out for B rows."""

    digests: np.ndarray  # uint8 (B, 32)


class Answers(NamedTuple):
    """What many_to_one puts out for B rows, one answer a window: quantiles, or probabilities of O labels; new arrays."""

    answers: np.ndarray  # float64 (B, T, Q), rising along Q; (B, 1, Q) for a label's number; (B, 1, O) probabilities for a class
    first_ms: np.ndarray  # int64 (B,), time of the window's first reading
    last_ms: np.ndarray  # int64 (B,), of its last
    readings: np.ndarray  # int64 (B,), how many it has
    emits: np.ndarray  # bool (B,), the window is at its end


class Scenarios(NamedTuple):
    """What one_to_many puts out for B rows, in sensor units; new arrays."""

    paths: np.ndarray  # float64 (B, T, S, K)
    interval_ms: np.ndarray  # int64 (B,), 0 while unknown


class Smoothed(NamedTuple):
    """What the smoother puts out for B rows, in sensor units; new arrays."""

    quantiles: np.ndarray  # float64 (B, T, Q), rising along Q
    readings: np.ndarray  # float64 (B, T), what was read there; NaN is missing
    time_ms: np.ndarray  # int64 (B,), of the reading that this is about
    emits: np.ndarray  # bool (B,), there is such a reading
