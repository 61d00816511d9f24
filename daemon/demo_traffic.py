"""The demo's two ends of Kafka: sends readings as sensors would, and sees forecasts as any read-committed consumer does.

Knows the port and the record formats; what is sent when is decided by the wiring.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

import msgspec

from config.settings import Settings
from daemon import topics
from daemon.brokers.port import Broker, TopicSpec
from daemon.demo_scores import HOUR_MS, Interval
from daemon.demo_screen import Facts
from daemon.demo_weather import QUANTITIES, Sensor, to_json
from daemon.errors import StateError
from daemon.records import Reading, Record

#: Streams of one partition run together, wave by wave: three in one are cheaper than one in each of three.
PARTITIONS = 1
#: Forecasts per second are counted over this long.
_RATE_S = 3.0


class _Forecast(msgspec.Struct):
    """What is used of a forecast."""

    interval_ms: int | None
    targets: dict[str, dict[str, list[float]]]


class Traffic:
    """Sends and sees, and keeps the books of the facts."""

    def __init__(self, settings: Settings, broker: Broker, facts: Facts, scored_from_ms: int) -> None:
        """Make the input topic and, where they are missing, the daemon's."""
        admin = broker.admin()
        try:
            admin.create([TopicSpec(settings.topics.readings, PARTITIONS, {"retention.ms": "-1"})])
            topics.ensure(settings, admin)
        finally:
            admin.close()
        self._input = settings.topics.readings
        self._output = [(settings.topic("forecasts"), partition) for partition in range(PARTITIONS)]
        self._levels = [str(level) for level in settings.model.levels]
        self._facts = facts
        self._scored_from_ms = scored_from_ms
        self._decode = msgspec.json.Decoder(_Forecast).decode
        self._counted: deque[tuple[float, int]] = deque()  # when, forecasts until then
        self._producer = broker.producer(None)
        self._reader = broker.reader()
        self._reader.assign(dict.fromkeys(self._output, 0))

    def close(self) -> None:
        """Close both clients."""
        self._producer.close()
        self._reader.close()

    def send(self, readings: Iterable[Reading]) -> None:
        """Send readings and wait until the broker has them."""
        for reading in readings:
            value = to_json(reading)
            self._facts.ledger.sent(0, reading, time.monotonic())
            self._producer.send(self._input, 0, reading.stream.encode(), value)
        self._producer.flush()

    def see(self, timeout_ms: int) -> None:
        """Take what has become visible, waiting for it at most so long."""
        found = self._reader.poll(timeout_ms)
        seen_s = time.monotonic()
        for records in found.values():
            for record in records:
                self._take(record, seen_s)
        self._count(seen_s)

    def see_all(self) -> None:
        """Take everything up to the end of the log, once the daemon has stopped."""
        for topic, partition in self._output:
            end = self._reader.high_watermark(topic, partition)
            while self._reader.position(topic, partition) < end:
                self.see(200)

    def _take(self, record: Record, seen_s: float) -> None:
        partition, offset, _ = map(int, dict(record.headers)["source"].split(b","))
        reading = self._facts.ledger.seen(partition, offset, seen_s)
        if reading is None or record.value is None:
            return
        forecast = self._decode(record.value)
        if forecast.interval_ms not in (None, 0, HOUR_MS):
            raise StateError(f"{reading.stream} is hourly, but its forecast says {forecast.interval_ms} ms.")
        scored = reading.time_ms >= self._scored_from_ms
        for channel, quantity in enumerate(QUANTITIES):
            quantiles = forecast.targets[quantity]
            low, median, high = (quantiles[level] for level in (self._levels[0], "0.5", self._levels[-1]))
            intervals = [Interval(*each) for each in zip(low, median, high, strict=True)]
            score = self._facts.scores[Sensor(reading.stream, channel)]
            score.add(reading.time_ms, reading.values[channel], intervals, scored)

    def _count(self, now_s: float) -> None:
        self._counted.append((now_s, self._facts.ledger.forecasts))
        while now_s - self._counted[0][0] > _RATE_S:
            self._counted.popleft()
        (first_s, first), (last_s, last) = self._counted[0], self._counted[-1]
        self._facts.rate_per_s = (last - first) / (last_s - first_s) if last_s > first_s else 0.0
