"""What the demo knows of its readings and their forecasts: each exactly once, how soon, and how good.

Judged from outside, from what was sent and what a read-committed consumer saw; nothing of the daemon's own bookkeeping is used.
Times in seconds are monotonic. Knows no Kafka and no screen.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from daemon.records import Reading

#: Hours ahead that are scored.
LEADS = (1, 3, 6, 12, 24)
HOUR_MS = 3_600_000
#: The daemon has recovered when nothing that was sent longer ago than this waits for its forecast.
RECOVERED_S = 0.5
#: Latencies that the running display looks back at.
_RECENT = 2000


class Sent(NamedTuple):
    """A reading on its way."""

    reading: Reading
    sent_s: float
    due: bool  # must bring a forecast; else a drop by policy


class Ledger:
    """Every reading sent and the forecasts seen for it, by partition and offset; and how long they took."""

    def __init__(self, partitions: int) -> None:
        self._sent: list[list[Sent]] = [[] for _ in range(partitions)]
        self._seen: list[list[int]] = [[] for _ in range(partitions)]
        self._next = [0] * partitions  # before it, every due reading has been seen
        self._last_ms: dict[str, int] = {}  # newest time of each stream that has started
        self.readings = self.due = self.forecasts = self.strangers = 0
        self.recent: deque[float] = deque(maxlen=_RECENT)
        self.steady: list[float] = []  # latencies while live, the outage aside
        self.live_s = math.inf  # readings sent from then on count for latency
        self.killed_s = math.inf
        self.recovered_s = math.inf
        self.waited = 0  # readings that had to wait for the recovery

    def sent(self, partition: int, reading: Reading, sent_s: float) -> None:
        """A reading was handed to the producer; its offset is the number of those before it."""
        due = self._admitted(reading)
        self._sent[partition].append(Sent(reading, sent_s, due))
        self._seen[partition].append(0)
        self.readings += 1
        self.due += due

    def _admitted(self, reading: Reading) -> bool:
        """The policy, for a file without gaps of days: a stream starts with all of its values, and its time rises."""
        last_ms = self._last_ms.get(reading.stream)
        if any(map(math.isnan, reading.values)) if last_ms is None else reading.time_ms <= last_ms:
            return False
        self._last_ms[reading.stream] = reading.time_ms
        return True

    def seen(self, partition: int, offset: int, seen_s: float) -> Reading | None:
        """A forecast became visible: the reading it belongs to; None where there is none, or it is not the first."""
        self.forecasts += 1
        if not (0 <= partition < len(self._sent) and 0 <= offset < len(self._sent[partition])):
            self.strangers += 1
            return None
        self._seen[partition][offset] += 1
        if self._seen[partition][offset] > 1:
            return None
        reading, sent_s, _ = self._sent[partition][offset]
        if sent_s >= self.live_s:
            self.recent.append(seen_s - sent_s)
            if seen_s > self.killed_s and sent_s < self.recovered_s:
                self.waited += 1
            else:
                self.steady.append(seen_s - sent_s)
        return reading

    @property
    def recovering(self) -> bool:
        """Whether the daemon was killed and has not recovered yet."""
        return math.isfinite(self.killed_s) and not math.isfinite(self.recovered_s)

    def waiting(self, now_s: float) -> tuple[int, float]:
        """Due readings without a forecast, and the age of the oldest in seconds."""
        count, oldest_s = 0, now_s
        for number, (sent, seen) in enumerate(zip(self._sent, self._seen, strict=True)):
            at = self._next[number]
            while at < len(sent) and (seen[at] or not sent[at].due):
                at += 1
            self._next[number] = at
            count += sum(one.due and not times for one, times in zip(sent[at:], seen[at:], strict=True))
            if at < len(sent):
                oldest_s = min(oldest_s, sent[at].sent_s)
        return count, now_s - oldest_s

    def lost(self) -> int:
        """Due readings without a forecast."""
        return sum(one.due and not times for one, times in self._each())

    def repeated(self) -> int:
        """Forecasts too many: second ones, and those that belong to no due reading."""
        return self.strangers + sum(max(times - one.due, 0) for one, times in self._each())

    def _each(self) -> Iterable[tuple[Sent, int]]:
        for sent, seen in zip(self._sent, self._seen, strict=True):
            yield from zip(sent, seen, strict=True)


class Interval(NamedTuple):
    """A forecast for one lead."""

    low: float
    median: float
    high: float


@dataclass
class Tally:
    """Sums over forecasts of one lead that came due."""

    pairs: int = 0
    model: float = 0.0  # of |reading - median|
    naive: float = 0.0  # of |reading - last value|
    inside: int = 0  # readings inside the interval

    @property
    def ratio(self) -> float:
        """Mean error of the model as a share of that of the last value; NaN while nothing is known."""
        return self.model / self.naive if self.naive else math.nan

    @property
    def coverage(self) -> float:
        """Share of readings inside the interval; NaN while nothing is known."""
        return self.inside / self.pairs if self.pairs else math.nan


class _Pending(NamedTuple):
    last_value: float
    intervals: Sequence[Interval]


@dataclass
class SensorScore:
    """One channel of a stream: its newest value and forecast, and how its forecasts did."""

    leads: Sequence[int]
    value: float = math.nan  # the newest that was measured
    intervals: Sequence[Interval] = ()  # the newest forecast, lead 1 first
    history: deque[float] = field(default_factory=lambda: deque(maxlen=24))
    tallies: dict[int, Tally] = field(default_factory=dict)
    _pending: dict[int, _Pending] = field(default_factory=dict)  # by the time of the reading they follow

    def __post_init__(self) -> None:
        self.tallies = {lead: Tally() for lead in self.leads}

    def add(self, time_ms: int, value: float, intervals: Sequence[Interval], scored: bool) -> None:
        """Score the forecasts that this value answers, then remember its own, to be `scored` or only shown."""
        if not math.isnan(value):
            self._score(time_ms, value)
            self.value = value
        self.history.append(self.value)
        self.intervals = intervals
        if scored:
            self._pending[time_ms] = _Pending(self.value, intervals)
        self._pending.pop(time_ms - self.leads[-1] * HOUR_MS, None)

    def _score(self, time_ms: int, value: float) -> None:
        for lead, tally in self.tallies.items():
            pending = self._pending.get(time_ms - lead * HOUR_MS)
            if pending is None:
                continue
            forecast = pending.intervals[lead - 1]
            tally.pairs += 1
            tally.model += abs(value - forecast.median)
            tally.naive += abs(value - pending.last_value)
            tally.inside += forecast.low <= value <= forecast.high


def mean_ratio(scores: Iterable[SensorScore], lead: int) -> float:
    """Mean over sensors of the error as a share of naive's: each counts alike, whatever its unit."""
    known = [ratio for ratio in (score.tallies[lead].ratio for score in scores) if not math.isnan(ratio)]
    return math.fsum(known) / len(known) if known else math.nan


def mean_coverage(scores: Iterable[SensorScore], lead: int) -> float:
    """Share of all readings inside their interval."""
    tallies = [score.tallies[lead] for score in scores]
    pairs = sum(tally.pairs for tally in tallies)
    return sum(tally.inside for tally in tallies) / pairs if pairs else math.nan


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of them does not exceed; NaN where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan
