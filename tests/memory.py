"""Topics in memory with the parts of the port that the worker uses: readers, and producers that fence one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daemon.brokers.port import Membership
from daemon.errors import Fenced
from daemon.records import Committed, Headers, Record


class Logs:
    """A broker: topics by name, of some partitions each."""

    def __init__(self, readings: str, models: str, partitions: int = 1) -> None:
        self.readings, self.models = readings, models
        self.topics: dict[tuple[str, int], list[Record]] = {(readings, n): [] for n in range(partitions)}
        self.topics[models, 0] = []
        self.holders: dict[str, Writer] = {}  # by transactional id

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes | None, timestamp_ms: int = 0) -> None:
        log = self.topics[topic, partition]
        log.append(Record(topic, partition, len(log), timestamp_ms, key, value))

    def note(self, key: bytes) -> bytes | None:
        """The newest value of a key of the models topic."""
        return next((record.value for record in reversed(self.topics[self.models, 0]) if record.key == key), None)

    def reader(self) -> Reader:
        return Reader(self)

    def producer(self, transactional_id: str) -> Writer:
        self.holders[transactional_id] = Writer(self, transactional_id)
        return self.holders[transactional_id]


class Reader:
    """Reads what is there; nothing is ever open."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._positions: dict[tuple[str, int], int] = {}

    def partitions(self, topic: str) -> list[int]:
        return sorted(number for name, number in self._logs.topics if name == topic)

    def high_watermark(self, topic: str, partition: int) -> int:
        return len(self._logs.topics[topic, partition])

    def log_start(self, _topic: str, _partition: int) -> int:
        return 0

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        log = self._logs.topics[topic, partition]
        return next((record.offset for record in log if record.timestamp_ms >= time_ms), len(log))

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        self._positions = dict(positions)

    def poll(self, _timeout_ms: int) -> dict[tuple[str, int], Sequence[Record]]:
        found = {place: self._logs.topics[place][at : at + 100] for place, at in self._positions.items()}
        found = {place: records for place, records in found.items() if records}
        self._positions.update({place: records[-1].offset + 1 for place, records in found.items()})
        return found

    def position(self, topic: str, partition: int) -> int:
        return self._positions[topic, partition]

    def close(self) -> None:
        pass


class Writer:
    """What it sends is there once it commits, unless another one has taken its id."""

    last_commit = None

    def __init__(self, logs: Logs, transactional_id: str) -> None:
        self._logs, self._id = logs, transactional_id
        self._sent: list[tuple[str, int, bytes | None, bytes | None]] = []

    def alive(self) -> bool:
        return True

    def begin(self) -> None:
        self._sent = []

    def send(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> None:
        self._sent.append((topic, partition, key, value))

    def commit(self, offsets: Mapping[int, Committed], membership: Membership | None) -> None:
        if self._logs.holders[self._id] is not self:
            raise Fenced("a newer holder has this transactional id")
        for each in self._sent:
            self._logs.append(*each)

    def close(self) -> None:
        pass
