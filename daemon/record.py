"""`recurd record`: a topic, or a part of it, as a recording.

Reads committed records from the log's start, or from where asked, to the end that the topic had at the start of the command, or
on and on. What was read stays in a part file until it is a recording, so that an interrupted command can be resumed. A recording
of the input carries the group's epochs, so that its replay is an audit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from config.settings import Settings, SettingsError, TopicSettings, parse_time_ms
from daemon import epochs, logs, signals
from daemon.brokers import connect
from daemon.brokers.port import LogReader
from daemon.epochs import Epoch
from daemon.errors import OperatorError
from daemon.recording import Spool
from daemon.records import Record

log = logs.get("record")


class Bound(NamedTuple):
    """Where a recording begins or ends: an offset of every partition, or a time of the records' timestamps."""

    offset: int | None = None
    time_ms: int | None = None

    def is_reached(self, record: Record) -> bool:
        """Whether a record is at the bound or behind it; never, where there is none."""
        if self.offset is not None:
            return record.offset >= self.offset
        return self.time_ms is not None and record.timestamp_ms >= self.time_ms


class Span(NamedTuple):
    """Which records of a partition are wanted: from the first that reaches `first` on, before the first that reaches `last`."""

    first: Bound = Bound()
    last: Bound = Bound()

    def is_over(self, record: Record) -> bool:
        """Whether a record is the end of its partition's part, with all that follow."""
        return self.last.is_reached(record)


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
    follow: bool = False,
    resume: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> int:
    """Write a recording.

    Args:
        settings: How to reach Kafka, and which topics are ours.
        topic: The topic, or what it is to us (`forecasts`, `models`, ...); None is the input.
        out: The file; compressed where the name ends in `.zst`.
        span: Which records of each partition.
        partition: This one alone; None is all.
        limit: Most records in the recording.
        follow: Go on at the end of the topic, until SIGINT or SIGTERM, the limit or the end of the span.
        resume: Go on behind the records of an earlier, perhaps interrupted, recording of that name.
        say: Takes the summary.

    Returns:
        0.

    Raises:
        OperatorError: There is no such topic or partition, or the file cannot be written.
        BrokerError: The broker failed.
    """
    stopping = threading.Event()
    with closing(connect(settings).reader()) as reader:
        name = _named(reader, settings, topic)
        wanted = wanted_partitions(reader, name, partition)
        ends = {number: _end(reader, name, number, span.last) for number in wanted}
        if follow:
            signals.catch(stopping)
        with Spool(out, resume) as spool:
            starts = {number: _start(reader, name, number, span.first) for number in wanted}
            starts = {number: max(start, spool.next_offsets.get(number, 0)) for number, start in starts.items()}
            log.info("recording", topic=name, resumed=spool.records, offsets=sum(max(ends[n] - starts[n], 0) for n in wanted))
            polls = follow_log(reader, name, starts, stopping) if follow else poll_log(reader, name, starts, ends)
            try:
                take(spool, polls, span, limit, len(wanted))
            except BaseException:
                log.warning("interrupted: the same command with --resume goes on", records=spool.records, part=str(spool.part))
                raise
        carried = _epochs(reader, settings, wanted) if name == settings.topics.readings else []
    spool.finish(carried)
    say(f"{spool.records} records of {len(wanted)} partitions of {name} and {len(carried)} epochs in {out}")
    return 0


def take(spool: Spool, polls: Iterable[Sequence[Record]], span: Span, limit: int | None, partitions: int) -> None:
    """Write the records before the span's end until the limit is reached, or all partitions have reached the end."""
    progress = logs.Progress()
    over: set[int] = set()
    for poll in polls:
        for record in poll:
            if spool.records == limit or len(over) == partitions:
                return
            if span.is_over(record):
                over.add(record.partition)
            if record.partition not in over:
                spool.write(record)
        if spool.records == limit or len(over) == partitions:
            return
        if progress.is_due():
            spool.flush()
            log.info("recording", records=spool.records, newest=poll[-1].timestamp_ms if poll else None)


def read_log(
    reader: LogReader, topic: str, starts: Mapping[int, int], ends: Mapping[int, int], poll_timeout_ms: int = 500
) -> Iterator[Record]:
    """The committed records of some partitions, from each one's start up to its end.

    Ends compare positions: what was aborted or compacted away is passed.
    """
    for poll in poll_log(reader, topic, starts, ends, poll_timeout_ms):
        yield from poll


def poll_log(
    reader: LogReader, topic: str, starts: Mapping[int, int], ends: Mapping[int, int], poll_timeout_ms: int = 500
) -> Iterator[list[Record]]:
    """`read_log`, what one poll brings of a partition at a time."""
    left = {number for number in starts if starts[number] < ends[number]}
    reader.assign({(topic, number): starts[number] for number in left})
    while left:
        for (_, number), records in reader.poll(poll_timeout_ms).items():
            yield [record for record in records if record.offset < ends[number]]
        left = {number for number in left if reader.position(topic, number) < ends[number]}


def follow_log(
    reader: LogReader, topic: str, starts: Mapping[int, int], stopping: threading.Event, poll_timeout_ms: int = 500
) -> Iterator[list[Record]]:
    """The committed records of some partitions from each one's start on, until `stopping`; an empty list while none comes."""
    reader.assign({(topic, number): start for number, start in starts.items()})
    while not stopping.is_set():
        found = reader.poll(poll_timeout_ms)
        yield from map(list, found.values())
        if not found:
            yield []


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


def _named(reader: LogReader, settings: Settings, topic: str | None) -> str:
    """A topic by its own name, or by what it is to us where there is none of that name."""
    role = (topic or "").replace("-", "_")
    if topic is None or (role in TopicSettings.model_fields and not reader.partitions(topic)):
        return settings.topic(role or "readings")
    return topic


def _start(reader: LogReader, topic: str, number: int, first: Bound) -> int:
    kept = reader.log_start(topic, number)
    if first.time_ms is not None:
        return reader.offset_at(topic, number, first.time_ms)  # no earlier record is that late
    if first.offset is not None and first.offset < kept:
        log.warning("records before the log's start are gone", topic=topic, partition=number, first=first.offset, log_start=kept)
    return max(kept, first.offset or 0)


def _end(reader: LogReader, topic: str, number: int, last: Bound) -> int:
    """Where a partition's part ends, as far as it is there."""
    end = reader.high_watermark(topic, number)
    if last.time_ms is not None:
        return min(end, reader.offset_at(topic, number, last.time_ms))
    return min(end, last.offset) if last.offset is not None else end


def _epochs(reader: LogReader, settings: Settings, wanted: Sequence[int]) -> list[Epoch]:
    found = epochs.by_partition(read_whole(reader, settings.topic("epochs")))
    return [epoch for number in wanted for epoch in found.get(number, [])]
