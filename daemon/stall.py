"""Finds partitions that have records to read and bring none: a recurring defect class of Kafka clients.

Pure bookkeeping over positions and times it is given; what to do about a stall is the loop's affair.
"""

from __future__ import annotations

from collections.abc import Mapping


class StallGuard:
    """Remembers when each partition last moved or had nothing to read."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._moved: dict[int, tuple[int, float]] = {}  # partition -> next offset, monotonic time

    def suspects(self, next_offsets: Mapping[int, int], lags: Mapping[int, int], now_s: float) -> list[int]:
        """Partitions that have lagged for `patience_s` without moving. Lags count the log's end, which may be uncommitted."""
        moved = {}
        for number, offset in next_offsets.items():
            before = self._moved.get(number)
            still = before is not None and before[0] == offset and lags.get(number, 0) > 0
            moved[number] = before if before is not None and still else (offset, now_s)
        self._moved = moved
        return [number for number, (_, since_s) in moved.items() if now_s - since_s > self.patience_s]

    def forgive(self, number: int, now_s: float) -> None:
        """Give the partition its patience anew: it has nothing committed to read, or a new consumer reads it."""
        self._moved[number] = (self._moved[number][0], now_s)
