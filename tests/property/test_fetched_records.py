"""Our reading of a fetched log against the client's own: transactions, control batches, compaction, takes and seeks anywhere."""

from __future__ import annotations

import random
import struct
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python loads its schemas by importlib's old read_text
    from kafka import TopicPartition
    from kafka.consumer.fetcher import Fetcher, IsolationLevel
    from kafka.record.default_records import DefaultRecordBatchBuilder
    from kafka.record.memory_records import MemoryRecords
    from kafka.record.util import calc_crc32c

    from daemon.brokers import kafka_python

WHERE = TopicPartition("t", 0)
FIRST_MS = 1_700_000_000_000
GZIP, CONTROL, LOG_APPEND_TIME = 1, 0x20, 0x08


class World:
    """A partition's log as a broker would send it: bytes, aborted transactions, where it begins and ends."""

    def __init__(self, seed: int) -> None:
        self.numbers = random.Random(seed)
        self.first = self.end = self.numbers.randrange(100)
        self.log, self.aborted = b"", list[SimpleNamespace]()
        open_since = dict[int, int]()
        for _ in range(self.numbers.randrange(1, 9)):
            if open_since and self.numbers.random() < 0.25:
                self._marker(open_since)
            else:
                self._batch(open_since)
        self._damage()

    def _marker(self, open_since: dict[int, int]) -> None:
        producer = self.numbers.choice(list(open_since))
        since, commits = open_since.pop(producer), self.numbers.randrange(2)
        if not commits:
            self.aborted.append(SimpleNamespace(producer_id=producer, first_offset=since))
        builder = self._builder(0, transactional=True, producer=producer)
        builder.append(0, FIRST_MS, struct.pack(">hh", 0, commits), struct.pack(">hi", 0, 0), [])
        self._add(builder, 1, CONTROL)

    def _batch(self, open_since: dict[int, int]) -> None:
        """Records with gaps between them, as compaction leaves, or none at all."""
        choose = self.numbers.choice
        count = self.numbers.randrange(7)
        span = count + self.numbers.randrange(4) + (count == 0)
        producer = choose([-1, 5, 6])
        transactional = producer >= 0 and self.numbers.random() < 0.7
        if transactional:
            open_since.setdefault(producer, self.end)
        builder = self._builder(choose([0, 0, GZIP]), transactional, producer)
        for delta in sorted(self.numbers.sample(range(span), count)):
            headers = [("h", choose([b"", b"x"]))] * self.numbers.randrange(3)
            stamp_ms = FIRST_MS + self.numbers.randrange(10**6)
            builder.append(delta, stamp_ms, choose([None, b"", b"k"]), choose([None, b"", b"v" * 40]), headers)
        self._add(builder, span, choose([0, 0, LOG_APPEND_TIME]))

    def _builder(self, codec: int, transactional: bool, producer: int) -> DefaultRecordBatchBuilder:
        known = 0 if producer >= 0 else -1
        return DefaultRecordBatchBuilder(2, codec, transactional, producer, known, known, 1 << 30)

    def _add(self, builder: DefaultRecordBatchBuilder, span: int, attributes: int) -> None:
        data = bytearray(builder.build())
        struct.pack_into(">q", data, 0, self.end)
        struct.pack_into(">i", data, 23, span - 1)
        data[22] |= attributes
        struct.pack_into(">I", data, 17, calc_crc32c(memoryview(data)[21:]))
        self.log += data
        self.end += span

    def _damage(self) -> None:
        if self.numbers.random() < 0.2:
            self.log = self.log[: -self.numbers.randrange(1, 30)]
        if self.numbers.random() < 0.2 and len(self.log) > 80:
            self.log = self.log[:-3] + bytes([self.log[-3] ^ 1]) + self.log[-2:]


def read(make: Any, world: World, offset: int, takes: list[int]) -> tuple[list[tuple[Any, ...]], list[str], list[int]]:
    """Records, the error if there is one, and how far each take came."""
    reading = make(
        offset, WHERE, MemoryRecords(world.log), isolation_level=IsolationLevel.READ_COMMITTED, aborted_transactions=world.aborted
    )
    records, positions = list[tuple[Any, ...]](), list[int]()
    for count in takes:
        if not reading:
            break
        try:
            taken = reading.take(count)
        except Exception as error:  # noqa: BLE001  # whichever it is, it must be the client's
            return records, [type(error).__name__], positions
        for each in taken:
            stamp_ms = each.timestamp_ms if hasattr(each, "timestamp_ms") else each.timestamp
            records.append((each.offset, stamp_ms, each.key, each.value, tuple(each.headers)))
        positions.append(reading.next_fetch_offset)
    return records, [], positions


@pytest.mark.parametrize("first_seed", range(0, 2000, 200))
def test_the_same_records_as_the_clients_own(first_seed: int) -> None:
    """Every record, in order, up to the same damage; no take goes back, or beyond what was given."""
    given = 0
    for seed in range(first_seed, first_seed + 200):
        world = World(seed)
        offset = world.numbers.randrange(world.first, world.end + 1)
        takes = [world.numbers.randrange(1, 6) for _ in range(60)]
        records, error, positions = read(kafka_python._PartitionRecords, world, offset, takes)
        assert (records, error) == read(Fetcher.PartitionRecords, world, offset, takes)[:2], seed
        assert positions == sorted(positions)
        given += len(records)
    assert given > 500
