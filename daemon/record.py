"""`recurd record`: a topic, or a part of it, as a recording.

Reads committed records from the log's start, or from where asked, to the end that the topic had at the start of the command.
A recording of the input carries the group's epochs, so that its replay is an audit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from config.settings import Settings, SettingsError, parse_time_ms
from daemon import epochs, logs
from daemon.brokers import connect
from daemon.brokers.port import LogReader
from daemon.epochs import Epoch
from daemon.errors import OperatorError
from daemon.recording import Writer
from daemon.records import Record

log = logs.get("record")


class Bound(NamedTuple):
    """Where a recording begins or ends: an offset of every partition, or a time of the records' timestamps."""

    offset: int | None = None
    time_ms: int | None = None


class Span(NamedTuple):
    """Which records are wanted: from `first` on, up to but without `last`."""

    first: Bound = Bound()
    last: Bound = Bound()

    def wants(self, record: Record) -> bool:
        """Whether a record lies in the span."""
        return _reached(self.first, record, default=True) and not _reached(self.last, record, default=False)


EVERYTHING = Span()


def parse_bound(text: str) -> Bound:
    """A bound as an offset (`1200`) or a time (`2026-11-24T10:00:00Z`; UTC without a zone).

    Raises:
        SettingsError: Neither.
    """
    if text.isdecimal():
        return Bound(offset=int(text))
    try:
        return Bound(time_ms=parse_time_ms(text))
    except ValueError:
        raise SettingsError(f"{text!r} is neither an offset nor a time: write it such as 1200 or 2026-11-24T10:00:00Z.") from None


def run(
    settings: Settings,
    topic: str | None,
    out: Path,
    *,
    span: Span = EVERYTHING,
    partition: int | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> int:
    """Write a recording.

    Args:
        settings: How to reach Kafka, and which topics are ours.
        topic: The topic; None is the input.
        out: The file; compressed where the name ends in `.zst`.
        span: Which records of each partition. By time, the log is still read from its start.
        partition: This one alone; None is all.
        limit: Most records to write.
        say: Takes the summary.

    Returns:
        0.

    Raises:
        OperatorError: There is no such topic or partition, or the file cannot be written.
        BrokerError: The broker failed.
    """
    name = topic or settings.topics.readings
    reader = connect(settings).reader()
    try:
        wanted = wanted_partitions(reader, name, partition)
        ends = {number: reader.high_watermark(name, number) for number in wanted}
        starts = {number: _start(reader, name, number, span.first) for number in wanted}
        carried = _epochs(reader, settings, wanted) if name == settings.topics.readings else []
        count = write(out, carried, read_log(reader, name, starts, ends), span, limit)
    finally:
        reader.close()
    say(f"{count} records of {len(wanted)} partitions of {name} and {len(carried)} epochs in {out}")
    return 0


def write(out: Path, carried: Iterable[Epoch], records: Iterable[Record], span: Span, limit: int | None) -> int:
    """Write epochs and the records of the span to a file; return the number of records."""
    count = 0
    with Writer(out) as writer:
        for epoch in carried:
            writer.write_epoch(epoch)
        for record in records:
            if count == limit:
                break
            if span.wants(record):
                writer.write(record)
                count += 1
    return count


def read_log(
    reader: LogReader, topic: str, starts: Mapping[int, int], ends: Mapping[int, int], poll_timeout_ms: int = 500
) -> Iterator[Record]:
    """The committed records of some partitions, from each one's start up to its end.

    Ends compare positions: what was aborted or compacted away is passed.
    """
    left = {number for number in starts if starts[number] < ends[number]}
    reader.assign({(topic, number): starts[number] for number in left})
    while left:
        for (_, number), records in reader.poll(poll_timeout_ms).items():
            yield from (record for record in records if record.offset < ends[number])
        left = {number for number in left if reader.position(topic, number) < ends[number]}


def read_whole(reader: LogReader, topic: str) -> Iterator[Record]:
    """Every committed record of a topic up to its end of now; nothing where there is no such topic."""
    numbers = reader.partitions(topic)
    ends = {number: reader.high_watermark(topic, number) for number in numbers}
    yield from read_log(reader, topic, {number: reader.log_start(topic, number) for number in numbers}, ends)


def wanted_partitions(reader: LogReader, topic: str, partition: int | None) -> list[int]:
    """One partition, or all of a topic.

    Raises:
        OperatorError: There is no such topic or partition.
    """
    found = sorted(reader.partitions(topic))
    if not found:
        raise OperatorError(f"Topic {topic!r} does not exist: check the name, or topics.readings.")
    if partition is None:
        return found
    if partition not in found:
        raise OperatorError(f"Topic {topic!r} has no partition {partition}: it has {found[0]} to {found[-1]}.")
    return [partition]


def _reached(bound: Bound, record: Record, *, default: bool) -> bool:
    if bound.offset is not None:
        return record.offset >= bound.offset
    return record.timestamp_ms >= bound.time_ms if bound.time_ms is not None else default


def _start(reader: LogReader, topic: str, number: int, first: Bound) -> int:
    kept = reader.log_start(topic, number)
    if first.offset is not None and first.offset < kept:
        log.warning("records before the log's start are gone", topic=topic, partition=number, first=first.offset, log_start=kept)
    return max(kept, first.offset or 0)


def _epochs(reader: LogReader, settings: Settings, wanted: Sequence[int]) -> list[Epoch]:
    found = epochs.by_partition(read_whole(reader, settings.topic("epochs")))
    return [epoch for number in wanted for epoch in found.get(number, [])]
