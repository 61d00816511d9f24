"""A seeded mixture of readings with everything in it that the policy has a rule for. No Kafka, no clock.

Streams of a partition: some that report all the time and visitors that come rarely, together more than the cap. Times are a
logical clock in the past, so that two runs with one seed differ in nothing but when records are sent.
"""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

from tests.bad_input import CASES, bad_records
from tests.checker import RESET_KEY

T0_MS = 1_700_000_000_000
INTERVAL_MS = 60_000
MAX_GAP_S = 600
#: Small, so that bad records of the largest size stay cheap.
MAX_BYTES = 16_384
MAX_ELEMENTS = 50

#: What a record is, and how often of a thousand.
MIX = {
    "single": 640,
    "array": 120,
    "burst": 5,  # one stream many times in one record: deep waves
    "visitor": 90,
    "duplicate": 35,
    "late": 35,
    "null": 35,
    "gap": 8,
    "reset": 6,  # a control record, sometimes of a stream that has no row, rarely of none
    "future": 4,
    "bad": 28,
}


class Sent(NamedTuple):
    """A record for the input topic."""

    partition: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


def partition_of(stream: str, partitions: int) -> int:
    """A fixed hash: which partition a stream's records go to."""
    return zlib.crc32(stream.encode()) % partitions


@dataclass
class Load:
    """An endless sequence of records.

    Args:
        seed: Equal seeds give equal sequences.
        partitions: Of the input topic.
        streams: Streams that report all the time, over all partitions.
        visitors: Streams that come rarely.
    """

    seed: int
    partitions: int
    streams: int = 72
    visitors: int = 120
    kinds: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._clock_ms: dict[str, int] = {}
        names = [f"pump-{number}" for number in range(self.streams)]
        self._names = {p: [name for name in names if partition_of(name, self.partitions) == p] for p in range(self.partitions)}
        # Every case once, then every case again with other draws.
        made = [bad_records(self.seed + turn, len(CASES), MAX_BYTES, MAX_ELEMENTS, T0_MS) for turn in range(8)]
        self._bad = itertools.cycle([Sent(0, each.key, each.value, T0_MS) for bad in made for each in bad])

    def __iter__(self) -> Iterator[Sent]:
        kinds, weights = list(MIX), list(MIX.values())
        while True:
            kind = self._rng.choices(kinds, weights)[0]
            self.kinds[kind] += 1
            yield self._record(kind)

    def _record(self, kind: str) -> Sent:
        rng = self._rng
        if kind == "bad":
            return next(self._bad)._replace(partition=rng.randrange(self.partitions))
        stream = self._stream(kind)
        partition = partition_of(stream, self.partitions)
        if kind == "reset":
            value = self._rng.choice([stream.encode()] * 9 + [b""])
            return Sent(partition, RESET_KEY, value, self._clock_ms.get(stream, T0_MS))
        if kind == "array":
            streams = rng.choices(self._names[partition], k=rng.randint(2, 12))
            return self._send(partition, [self._element(name, "single") for name in streams])
        if kind == "burst":
            return self._send(partition, [self._element(stream, "single") for _ in range(rng.randint(15, 30))])
        return self._send(partition, [self._element(stream, kind)])

    def _stream(self, kind: str) -> str:
        if kind == "visitor" or self._rng.random() < 0.05:
            return f"visitor-{self._rng.randrange(self.visitors)}"
        return self._rng.choice(self._names[self._rng.randrange(self.partitions)])

    def _element(self, stream: str, kind: str) -> tuple[str, int, float | None, bool]:
        """Stream, time, value, and whether the time is from the future."""
        rng = self._rng
        last = self._clock_ms.get(stream, T0_MS + rng.randrange(INTERVAL_MS))
        step = {"duplicate": 0, "late": -rng.randint(1, 5 * INTERVAL_MS)}.get(kind, INTERVAL_MS + rng.randint(-900, 900))
        if kind == "gap":
            step = MAX_GAP_S * 1000 + rng.randint(-1, INTERVAL_MS)
        if kind == "future":
            return stream, last + 3 * 3_600_000, 1.0, True
        self._clock_ms[stream] = max(last, last + step)
        value = None if kind == "null" else round(20 + 5 * rng.gauss(0, 1), rng.randint(0, 15))
        return stream, last + step, value, False

    def _send(self, partition: int, elements: list[tuple[str, int, float | None, bool]]) -> Sent:
        """A record of one reading or of an array of them, its times written in one of many ways."""
        rng = self._rng
        timestamp_ms = max(time_ms - 3 * 3_600_000 * from_future for _, time_ms, _, from_future in elements)
        single = len(elements) == 1 and rng.random() < 0.9
        documents = []
        for stream, time_ms, value, from_future in elements:
            document: dict[str, object] = {"stream": stream, "time": _written(rng, time_ms), "value": value, "unit": "bar"}
            if single and rng.random() < 0.1:
                del document["stream"]
            if single and not from_future and rng.random() < 0.1:
                del document["time"]
            documents.append(document)
        text = json.dumps(documents[0] if single else documents, separators=rng.choice([(",", ":"), (", ", ": ")]))
        return Sent(partition, elements[0][0].encode(), text.encode(), timestamp_ms)


def _written(rng: random.Random, time_ms: int) -> object:
    """A time as a device might write it."""
    form = rng.randrange(5)
    if form == 0:
        return time_ms / 1000
    if form == 1:
        zone = timezone(timedelta(hours=rng.choice([-8, 2, 5.5])))
        return datetime.fromtimestamp(time_ms / 1000, zone).isoformat(timespec="milliseconds")
    if form == 2:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return time_ms
