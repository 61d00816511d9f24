"""`recurd replay --speed N`: a recording or CSV file into a topic, in its own rhythm, N times as fast.

Gaps and partitions are those of the recording; the times inside the values stay as they are, while the records' timestamps are
now, since retention goes by them. A CSV file has no partitions: its streams are spread over those of the topic.
"""

from __future__ import annotations

import heapq
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from config.settings import Settings
from daemon import logs
from daemon.brokers import connect
from daemon.csv_log import is_csv, read_csv
from daemon.errors import EXIT_FAILED, OperatorError, RecordingError
from daemon.recording import Readable, Recording
from daemon.records import Record

#: Records due within this time go out together.
TICK_S = 0.01
_GROUP = 5000

log = logs.get("playback")


def run(
    settings: Settings,
    data: Path,
    *,
    speed: float,
    topic: str | None = None,
    select: Callable[[Iterable[Record]], Iterable[Record]] = lambda records: records,
    say: Callable[[str], None] = lambda _line: None,
) -> int:
    """Send a file's records to a topic.

    Args:
        settings: How to reach Kafka; the field mapping of CSV files.
        data: A recording or CSV file.
        speed: How many times as fast as it was recorded.
        topic: Where to; None is the input topic.
        select: Which records.
        say: Takes the summary.

    Returns:
        0, or 1 where a part of the data could not be read; what stands before it is sent.

    Raises:
        OperatorError: There is no such topic, or it lacks a partition of the recording.
        BrokerError: The broker failed; a part may have been sent.
    """
    name = topic or settings.topics.readings
    broker = connect(settings)
    with closing(broker.reader()) as reader:
        partitions = len(reader.partitions(name))
    if not partitions:
        raise OperatorError(f"Topic {name!r} does not exist: check the name, or topics.readings.")
    started_s, progress, sent, failure = time.monotonic(), logs.Progress(), 0, None
    with closing(broker.producer(None)) as producer:
        try:
            for group in paced(select(merged(settings, data, partitions)), speed):
                for record in group:
                    producer.send(name, record.partition, record.key, record.value, record.headers)
                producer.flush()
                sent += len(group)
                if progress.is_due():
                    log.info("sending", records=sent, newest=group[-1].timestamp_ms)
        except RecordingError as error:
            failure = error
    say(f"{sent} records of {data} sent to {name} in {time.monotonic() - started_s:.1f} s")
    if failure is not None:
        say(f"{failure} What stands before that line was sent.")
    return EXIT_FAILED if failure is not None else 0


def merged(settings: Settings, data: Path, partitions: int) -> Iterator[Record]:
    """All records by rising timestamp, each partition's in its own order; those of CSV files with a partition for each stream.

    Raises:
        OperatorError: The topic, of so many partitions, lacks one of the recording.
        RecordingError: A line cannot be read; after all records of other partitions, and those of its own before it, were given.
    """
    if is_csv(data):
        for record in read_csv(data, settings.input):
            yield record._replace(partition=zlib.crc32(record.key or b"") % partitions)
        return
    recording = Recording(data)
    numbers = recording.partitions()
    if numbers and numbers[-1] >= partitions:
        raise OperatorError(
            f"{data} has records of partition {numbers[-1]}, the topic has {partitions} partitions: it needs {numbers[-1] + 1}."
        )
    parts = [Readable(recording.partition(number)) for number in numbers]
    yield from heapq.merge(*parts, key=lambda record: record.timestamp_ms)
    failures = [part.failure for part in parts if part.failure is not None]
    if failures:
        raise min(failures, key=lambda failure: failure.line)


def paced(
    records: Iterable[Record],
    speed: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[Record]]:
    """Records in groups, each group when it is due; those without a timestamp follow the one before at once.

    Where a line cannot be read, what stands before it is given before its error.
    """
    group: list[Record] = []
    begun: tuple[int, float] | None = None  # the first timestamp, and when it went out
    try:
        for record in records:
            if record.timestamp_ms >= 0:
                begun = begun or (record.timestamp_ms, clock())
                due_s = begun[1] + (record.timestamp_ms - begun[0]) / 1000 / speed
                if due_s - clock() > TICK_S:
                    if group:
                        yield group
                        group = []
                    sleep(max(0.0, due_s - clock()))
            group.append(record)
            if len(group) == _GROUP:
                yield group
                group = []
    except RecordingError:
        if group:
            yield group
        raise
    if group:
        yield group
