"""Records as columns: what compiled loops read many at once, and a sequence of `Record`s to everybody else.

A recording is read in chunks, and the pipeline makes one of what a broker gave. No rule about records stands here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from daemon.ordinary import COLUMNS, KEY, KEY_END, NUMBER, OFFSET, PARTITION, TIMESTAMP, VALUE, VALUE_END
from daemon.records import Record

#: Records that are made at once for who goes through all of them.
_TOGETHER = 1024


class Chunk(Sequence[Record]):
    """N records in log order within each partition. A slice is a chunk; a record is made when it is asked for.

    Args:
        topic: Of the records that are not among the others.
        data: uint8, their keys and values.
        columns: int64 (N, COLUMNS), see `daemon.ordinary`; the last column is a record's number among the others, if it is one.
        others: Records that are objects already, by number. Of those the columns hold position, time and value, not the key.
        is_text: Whether the data is UTF-8.
    """

    def __init__(self, topic: str, data: np.ndarray, columns: np.ndarray, others: Mapping[int, Record], is_text: bool) -> None:
        self.topic, self.data, self.columns, self.others, self.is_text = topic, data, columns, others, is_text

    @classmethod
    def of(cls, records: Sequence[Record]) -> Chunk:
        """The same records as a chunk."""
        if isinstance(records, Chunk):
            return records
        columns = np.empty((len(records), COLUMNS), np.int64)
        values = [record.value or b"" for record in records]
        columns[:, PARTITION] = [record.partition for record in records]
        columns[:, OFFSET] = [record.offset for record in records]
        columns[:, TIMESTAMP] = [record.timestamp_ms for record in records]
        columns[:, VALUE_END] = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
        columns[:1, VALUE], columns[1:, VALUE] = 0, columns[:-1, VALUE_END]
        columns[:, KEY] = columns[:, KEY_END] = -1
        columns[:, NUMBER] = np.arange(len(records))
        data = b"".join(values)
        return cls("", np.frombuffer(data, np.uint8), columns, dict(enumerate(records)), is_utf8(data))

    def __len__(self) -> int:
        return len(self.columns)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Chunk: ...
    def __getitem__(self, at: int | slice) -> Record | Chunk:
        if isinstance(at, slice):
            return self.take(at)
        return self.records([at])[0]

    def __iter__(self) -> Iterator[Record]:
        for first in range(0, len(self), _TOGETHER):
            yield from self.records(slice(first, first + _TOGETHER))

    def records(self, places: Sequence[int] | np.ndarray | slice) -> list[Record]:
        """The records at some places."""
        found = []
        for partition, offset, timestamp_ms, key, key_end, value, value_end, number in self.columns[places].tolist():
            record = self.others.get(number)
            if record is None:
                key_bytes = None if key < 0 else self.data[key:key_end].tobytes()
                value_bytes = None if value < 0 else self.data[value:value_end].tobytes()
                record = Record(self.topic, partition, offset, timestamp_ms, key_bytes, value_bytes)
            found.append(record)
        return found

    def take(self, chosen: slice | np.ndarray) -> Chunk:
        """Some of the records."""
        return Chunk(self.topic, self.data, self.columns[chosen], self.others, self.is_text)

    def by_partition(self) -> Iterator[tuple[int, Chunk]]:
        """Each partition's records; the one that comes first is first."""
        partitions = self.columns[:, PARTITION]
        numbers, first = np.unique(partitions, return_index=True)
        for partition in numbers[np.argsort(first)].tolist():
            yield partition, self if len(numbers) == 1 else self.take(partitions == partition)

    def with_key(self, key: bytes) -> list[int]:
        """The places of the records that have this key."""
        lengths = self.columns[:, KEY_END] - self.columns[:, KEY]
        maybe = (lengths == len(key)) & (self.columns[:, KEY] >= 0)
        if self.others:
            maybe |= np.isin(self.columns[:, NUMBER], list(self.others))
        return [place for place in np.flatnonzero(maybe).tolist() if self[place].key == key]


def by_partition(records: Sequence[Record]) -> Iterable[tuple[int, Sequence[Record]]]:
    """Records of several partitions, each partition's in order; the one that comes first is first."""
    if isinstance(records, Chunk):
        return records.by_partition()
    parts: dict[int, list[Record]] = {}
    for record in records:
        parts.setdefault(record.partition, []).append(record)
    return parts.items()


def is_utf8(data: bytes) -> bool:
    """Whether bytes are text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
