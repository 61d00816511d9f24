"""Whether the live error of many streams rose at about the same time: one stream's trouble is no reason to train.

A detector a stream: ADWIN (Bifet and Gavalda 2007), a window of the newest errors that lets go of its older part as soon as the
two parts' means differ by more than chance allows. It keeps O(log n) numbers. No clock: time is counted in a stream's own errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

#: Chance of a false alarm at a cut, as the paper's delta. Measured: none on twenty stable streams of 10,000 errors.
DELTA = 0.002
#: Buckets of one size; cuts are looked for after so many errors; the least of a part.
BUCKETS, CLOCK, LEAST = 5, 32, 5
#: Larger errors count as this many spreads: the bound is for bounded values.
MOST_ERROR = 8.0
#: A stream's alarm counts for so many of its errors: changes of one cause are found within about as many of one another.
MEMORY = 256
#: One stream alone never alarms a partition.
LEAST_STREAMS = 2


class Adwin:
    """Mean of the newest values, over a window as long as they are alike."""

    def __init__(self) -> None:
        self._rows: list[list[tuple[float, float]]] = [[]]  # row i: sum and scatter of buckets of 2^i values, oldest first
        self._count, self._sum, self._scatter = 0, 0.0, 0.0  # scatter: sum of squares around the mean
        self._seen = 0

    @property
    def width(self) -> int:
        """Values in the window."""
        return self._count

    @property
    def mean(self) -> float:
        """Their mean; 0 where there is none."""
        return self._sum / self._count if self._count else 0.0

    def add(self, value: float) -> bool:
        """Take a value in; True where older ones were let go of because the newer ones are larger."""
        self._seen += 1
        self._rows[0].append((value, 0.0))
        if self._count:
            self._scatter += (value - self.mean) ** 2 * self._count / (self._count + 1)
        self._count, self._sum = self._count + 1, self._sum + value
        self._merge()
        rose = False
        while self._seen % CLOCK == 0 and self._count > 2 * LEAST:
            rise = self._rise()
            if not rise:
                break
            rose |= rise > 0
            self._drop_oldest()
        return rose

    def _merge(self) -> None:
        """Two of the oldest buckets of a row that has too many become one of the next."""
        for i, row in enumerate(self._rows):
            if len(row) <= BUCKETS:
                return
            (sum_a, scatter_a), (sum_b, scatter_b) = row[:2]
            del row[:2]
            if i + 1 == len(self._rows):
                self._rows.append([])
            size = 1 << i
            apart = (sum_a - sum_b) / size
            self._rows[i + 1].append((sum_a + sum_b, scatter_a + scatter_b + apart * apart * size / 2))

    def _rise(self) -> float:
        """How far the newer part's mean lies above the older's, where the window falls in two that differ; else 0."""
        chance = math.log(2 * math.log(self._count) / DELTA)
        variance = self._scatter / self._count
        older, older_sum = 0, 0.0
        for i in reversed(range(len(self._rows))):
            for total, _ in self._rows[i]:
                older, older_sum = older + (1 << i), older_sum + total
                newer = self._count - older
                if newer < LEAST:
                    return 0.0
                if older >= LEAST:
                    rise = (self._sum - older_sum) / newer - older_sum / older
                    few = 1 / (older - LEAST + 1) + 1 / (newer - LEAST + 1)
                    if abs(rise) > math.sqrt(2 * few * variance * chance) + 2 / 3 * few * chance:
                        return rise
        return 0.0

    def _drop_oldest(self) -> None:
        size = 1 << (len(self._rows) - 1)
        total, scatter = self._rows[-1].pop(0)
        if not self._rows[-1]:
            self._rows.pop()
        left = self._count - size
        apart = total / size - (self._sum - total) / left
        self._scatter = max(self._scatter - scatter - apart * apart * size * left / self._count, 0.0)
        self._count, self._sum = left, self._sum - total


class Drift:
    """The detectors of one partition's streams.

    Args:
        memory: A stream's alarm counts for so many of its errors.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._memory = memory
        self._detectors: dict[str, Adwin] = {}
        self._alarms: dict[str, int] = {}  # stream -> errors until its alarm is forgotten

    def add(self, streams: Iterable[str], errors: Iterable[float]) -> None:
        """Errors in spreads as they come due, each of a stream; NaN is none."""
        for stream, error in zip(streams, errors, strict=True):
            if math.isnan(error):
                continue
            if self._detectors.setdefault(stream, Adwin()).add(min(error, MOST_ERROR)):
                self._alarms[stream] = self._memory
            elif stream in self._alarms:
                self._alarms[stream] -= 1
                if not self._alarms[stream]:
                    del self._alarms[stream]

    @property
    def alarmed(self) -> int:
        """Streams whose error rose lately."""
        return len(self._alarms)

    def alarms(self, share: float) -> bool:
        """Whether at least this share of the streams, and more than one, alarm."""
        return self.alarmed >= max(share * len(self._detectors), LEAST_STREAMS)

    def forget(self) -> None:
        """The alarms so far have been acted on."""
        self._alarms.clear()
