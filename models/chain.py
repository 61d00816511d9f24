"""The chain engine: a row's state is a hash over everything that ever reached it.

It forecasts nothing. One lost, doubled, reordered or misplaced state update changes every later digest of the stream, which a
checker can recompute from the log alone. Serves `model.kind = "chain"`, for audits and fault tests.

    state' = SHA-256(state, offset, index, time, values, epoch); a fresh row starts from 32 zero bytes
"""

from __future__ import annotations

import hashlib

import numpy as np

from models.engine import HEADER, ChainDigests, Readings
from models.layout import padded

DIGEST_BYTES = 32


def link(state: bytes, offset: int, index: int, time_ms: int, values: np.ndarray, epoch: bytes) -> bytes:
    """The next state. Integers are 8 bytes little endian, values little-endian float64 with NaN in its usual form."""
    numbers = b"".join(number.to_bytes(8, "little", signed=True) for number in (offset, index, time_ms))
    floats = np.where(np.isnan(values), np.nan, values).astype("<f8").tobytes()
    return hashlib.sha256(state + numbers + floats + epoch).digest()


class Chain:
    """Advances rows by hashing. `epoch` is the identity of the epoch: its bytes in the epoch log."""

    row_dtype = padded([*HEADER, ("digest", "u1", (DIGEST_BYTES,))])

    def __init__(self, epoch: bytes) -> None:
        self._epoch = hashlib.sha256(epoch).digest()

    def step(self, rows: np.ndarray, readings: Readings) -> ChainDigests:
        """Advance each row by its reading, in place."""
        rows[readings.fresh] = np.zeros((), self.row_dtype)
        for i in range(len(rows)):
            state = rows["digest"][i].tobytes()
            position = int(readings.offset[i]), int(readings.element[i]), int(readings.time_ms[i])
            state = link(state, *position, readings.values[i], self._epoch)
            rows["digest"][i] = np.frombuffer(state, np.uint8)
        rows["count"] += 1
        rows["applied_offset"], rows["applied_index"] = readings.offset, readings.element
        rows["last_time_ms"] = readings.time_ms
        return ChainDigests(rows["digest"].copy())
