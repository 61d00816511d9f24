"""The plain values that travel along the data path. Imports nothing of ours.

A `Record` is bytes with a Kafka position; a `Reading` is one decoded measurement; `Message` is what goes out. All times are
epoch milliseconds in UTC (int), all values float64 in sensor units, NaN where a value is missing.
"""

from __future__ import annotations

from typing import NamedTuple

Headers = tuple[tuple[str, bytes], ...]


class Record(NamedTuple):
    """Bytes with a position, as the broker or a recording gave them."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int  # the record's Kafka timestamp; -1 where it has none
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Reading(NamedTuple):
    """One measurement of one stream."""

    stream: str
    time_ms: int
    values: tuple[float, ...]  # one a channel, in the order of the settings; NaN is missing


class Message(NamedTuple):
    """Bytes to be sent to one partition of a topic that the sender knows."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class DeadLetter(NamedTuple):
    """A record that could not be used, with who, where and why."""

    record: Record
    element: int  # position of the offending element in the record; 0 for a record that is one object
    reason: str  # a word of daemon.errors.REASONS: the metric label and the header `recurd.error`
    message: str


class Committed(NamedTuple):
    """A committed offset with its metadata string."""

    offset: int
    metadata: str
