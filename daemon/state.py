"""`recurd state list | show | export | reset`: what the last checkpoints hold, read from the changelog as a restore reads it.

Looking changes nothing; what was applied since a partition's last checkpoint is not in the changelog and not shown. A reset
writes a control record to the input topic, so that it has its place in the log, where restores, replays and audits find it too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config.settings import Settings
from daemon import blocks, control, epochs
from daemon.blocks import MARK_KEY, Mark
from daemon.brokers import connect
from daemon.codec import format_time
from daemon.epochs import Epoch
from daemon.errors import BadRecord, OperatorError, StateError
from daemon.files import written
from daemon.record import read_whole, wanted_partitions
from daemon.records import Record
from models import kinds
from models.engine import version_number
from models.slots import FORGOTTEN_MS


class Checkpoint(NamedTuple):
    """A partition's rows as its mark names them."""

    partition: int
    mark: Mark
    ids: list[str]
    rows: np.ndarray  # structured (N,), aligned with ids, by slot
    versions: dict[int, str]  # model versions of the partition's epochs, by their number in a row


class _Values:
    """The newest values of a partition's changelog, a checkpoint at a time.

    The mark is the last record of its transaction. A checkpoint that is being written while we read is taken whole or not at all.
    """

    def __init__(self) -> None:
        self.mark: bytes | None = None
        self.blocks: dict[bytes, bytes | None] = {}
        self._unmarked: dict[bytes, bytes | None] = {}

    def take(self, record: Record) -> None:
        """Take the next record in order."""
        if record.key == MARK_KEY:
            self.mark = record.value
            self.blocks |= self._unmarked
            self._unmarked = {}
        elif record.key is not None:
            self._unmarked[record.key] = record.value


def list_streams(settings: Settings, say: Callable[[str], None]) -> int:
    """Say a line for every stream: partition, id, applied offset, last time, count and model version; then the checkpoints."""
    checkpoints = _read(settings)
    say(f"{'partition':>9}  {'stream':<32} {'applied':>12} {'last time':<24} {'count':>10}  model version")
    for checkpoint in checkpoints:
        for line in _lines(checkpoint):
            say(line)
    for checkpoint in checkpoints:
        mark = checkpoint.mark
        say(f"partition {checkpoint.partition}: checkpoint {mark.sequence} at offset {mark.offset}, {mark.streams} streams")
    return 0


def show(settings: Settings, stream: str, partition: int | None, say: Callable[[str], None]) -> int:
    """Say a stream's row as JSON, one object for each partition that holds it; NaN and infinities are null.

    Raises:
        OperatorError: No checkpoint holds the stream.
    """
    found = 0
    for checkpoint in _read(settings):
        if partition in (None, checkpoint.partition) and stream in checkpoint.ids:
            say(json.dumps(row_document(checkpoint, checkpoint.ids.index(stream)), ensure_ascii=False))
            found += 1
    if not found:
        where = "any partition" if partition is None else f"partition {partition}"
        raise OperatorError(f"No checkpoint holds stream {stream!r} in {where}: `recurd state list` shows those that are held.")
    return 0


def export(settings: Settings, out: Path, say: Callable[[str], None]) -> int:
    """Write every row as JSON Lines, as `show` says it, by partition and slot; compressed where the name ends in `.zst`."""
    checkpoints = _read(settings)
    with written(out) as file:
        for checkpoint in checkpoints:
            for slot in range(len(checkpoint.ids)):
                file.write(json.dumps(row_document(checkpoint, slot), ensure_ascii=False).encode() + b"\n")
    say(f"{sum(len(one.ids) for one in checkpoints)} streams of {len(checkpoints)} partitions in {out}")
    return 0


def reset(settings: Settings, stream: str, partition: int | None, say: Callable[[str], None]) -> int:
    """Let a stream start afresh with its next reading: a control record in every partition of the input, or in one.

    A partition that does not know the stream passes over it.

    Raises:
        OperatorError: No stream can have that id, or there is no such topic or partition.
        BrokerError: The broker failed; the record may be in some partitions. Resetting again does no harm.
    """
    value = stream.encode()
    topic = settings.topics.readings
    try:
        control.stream_of(Record(topic, 0, 0, -1, control.RESET_KEY, value))
    except BadRecord as bad:
        raise OperatorError(f"{bad}: `recurd state list` shows the streams that are held.") from None
    broker = connect(settings)
    with closing(broker.reader()) as reader:
        numbers = wanted_partitions(reader, topic, partition)
    with closing(broker.producer(None)) as producer:
        for number in numbers:
            producer.send(topic, number, control.RESET_KEY, value)
        producer.flush()
    where = f"{topic}[{numbers[0]}]" if partition is not None else f"all {len(numbers)} partitions of {topic}"
    say(f"reset of stream {stream} sent to {where}: its next reading there starts it afresh")
    return 0


def checkpoints_of(changelog: Iterable[Record], epoch_log: Iterable[Record]) -> list[Checkpoint]:
    """The newest checkpoint of every partition that has one.

    Args:
        changelog: All records of topic `state`, in order within a partition.
        epoch_log: All records of topic `epochs`; read after the changelog, so that they cover its newest marks.

    Raises:
        StateError: Mark, blocks and epochs contradict each other.
    """
    partitions: dict[int, _Values] = {}
    for record in changelog:
        partitions.setdefault(record.partition, _Values()).take(record)
    known = epochs.by_partition(epoch_log)
    marked = [number for number in sorted(partitions) if partitions[number].mark is not None]
    return [_checkpoint(number, partitions[number], known.get(number, [])) for number in marked]


def row_document(checkpoint: Checkpoint, slot: int) -> dict[str, Any]:
    """A stream's row as JSON types: the id, the partition, the model version, and each field as the layout names it.

    `values`, which is not in the layout, is the window in sensor units.
    """
    row = checkpoint.rows[slot]
    fields = {name: _plain(row[name]) for name in checkpoint.rows.dtype.names or () if name not in ("version", "unused")}
    if row["last_time_ms"] == FORGOTTEN_MS:
        fields["last_time_ms"] = None
    if "window" in fields and "anchor" in fields:
        fields["values"] = _values(row)
    version = checkpoint.versions.get(int(row["version"]))
    return {"stream": checkpoint.ids[slot], "partition": checkpoint.partition, "model_version": version, **fields}


def _values(row: np.void) -> list[list[float | None]]:
    """The newest readings of each channel that a row remembers, oldest first; None where one was missing."""
    known = min(int(row["count"]), row["window"].shape[1])
    missing = np.unpackbits(row["missing"], axis=1, bitorder="little")[:, :known][:, ::-1]  # stored newest first
    values = row["anchor"][:, None] + row["window"][:, row["window"].shape[1] - known :]  # (C, known)
    return [
        [None if gone else float(f"{value:.7g}") for value, gone in zip(*channel, strict=True)]  # float32 has no more digits
        for channel in zip(values, missing, strict=True)
    ]


def _read(settings: Settings) -> list[Checkpoint]:
    reader = connect(settings).reader()
    try:
        return checkpoints_of(read_whole(reader, settings.topic("state")), read_whole(reader, settings.topic("epochs")))
    finally:
        reader.close()


def _checkpoint(number: int, values: _Values, known: Sequence[Epoch]) -> Checkpoint:
    mark = blocks.decode_mark(values.mark or b"")
    made_by = next((epoch for epoch in known if epoch.first_offset == mark.epoch_first_offset), None)
    if made_by is None:
        raise StateError(
            f"The mark of partition {number} names an epoch from offset {mark.epoch_first_offset} on that the epoch log does not "
            "hold: restore topic `epochs` from a copy, or take a new kafka.group_id and start cold."
        )
    living = (value for value in values.blocks.values() if value is not None)
    ids, rows = blocks.living_rows(living, mark, kinds.row_dtype(made_by.engine), kinds.layouts_before(made_by.engine))
    return Checkpoint(number, mark, ids, rows, {version_number(epoch.model_version): epoch.model_version for epoch in known})


def _lines(checkpoint: Checkpoint) -> Iterator[str]:
    for slot in sorted(range(len(checkpoint.ids)), key=checkpoint.ids.__getitem__):
        row = checkpoint.rows[slot]
        version = checkpoint.versions.get(int(row["version"]), "-")
        last = "(reset)" if row["last_time_ms"] == FORGOTTEN_MS else format_time(int(row["last_time_ms"]))
        yield (
            f"{checkpoint.partition:>9}  {checkpoint.ids[slot]:<32} {row['applied_offset']:>12} "
            f"{last:<24} {row['count']:>10}  {version}"
        )


def _plain(value: Any) -> Any:
    """A numpy value as JSON types; what is not finite is None."""
    array = np.asarray(value)
    if array.dtype.kind != "f":
        return array.tolist()
    finite = array.astype(object)
    finite[~np.isfinite(array)] = None
    return finite.tolist()
