"""Anomaly scores of many streams for a report: the highest ones, the highest by time, and the alarms they raise.

What is kept grows with the number of streams, not with the readings. This room knows scores, neither forecasts nor pages.
"""

from __future__ import annotations

import heapq
from collections import deque

from models.alarms import Alarm

#: Scores and alarms that are kept one by one.
KEPT = 12
#: Parts of the time line, at the most; each is as long as the readings' times ask for.
MOST_BUCKETS = 360
_FIRST_BUCKET_MS = 60_000


class Anomalies:
    """Takes the score of every reading that has a forecast, in log order within a stream."""

    def __init__(self) -> None:
        self.highest: list[tuple[float, str, int]] = []  # score, stream, epoch ms; a heap
        self.bucket_ms = _FIRST_BUCKET_MS
        self.buckets: dict[int, float] = {}  # the highest score by bucket: epoch ms // bucket_ms
        self.alarms = 0  # by the rule of `models.alarms`
        self.newest_alarms = deque[tuple[int, str, float]](maxlen=KEPT)  # epoch ms, stream, score
        self._alarm_of: dict[tuple[int, str], Alarm] = {}

    def take(self, partition: int, stream: str, time_ms: int, score: float | None, warming: bool) -> None:
        """Note a reading's score.

        Args:
            partition: The stream's.
            stream: Its id.
            time_ms: The reading's time.
            score: None where the forecast has none.
            warming: The stream's scale has not settled: its scores say little yet.
        """
        if score is not None and not warming:
            self._note(stream, time_ms, score)
        if self._alarm_of.setdefault((partition, stream), Alarm()).raised(score, warming):
            self.alarms += 1
            self.newest_alarms.append((time_ms, stream, score or 0.0))

    def forget(self, partition: int, stream: str) -> None:
        """Let a stream's alarm begin anew, after a reset."""
        self._alarm_of.pop((partition, stream), None)

    def _note(self, stream: str, time_ms: int, score: float) -> None:
        if len(self.highest) < KEPT:
            heapq.heappush(self.highest, (score, stream, time_ms))
        elif score > self.highest[0][0]:
            heapq.heapreplace(self.highest, (score, stream, time_ms))
        bucket = time_ms // self.bucket_ms
        if score > self.buckets.get(bucket, -1.0):
            self.buckets[bucket] = score
            if len(self.buckets) > MOST_BUCKETS:
                self._coarser()

    def _coarser(self) -> None:
        """Buckets twice as long."""
        self.bucket_ms *= 2
        merged: dict[int, float] = {}
        for bucket, score in self.buckets.items():
            merged[bucket // 2] = max(score, merged.get(bucket // 2, -1.0))
        self.buckets = merged
