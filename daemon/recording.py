"""Recordings: the raw log as a file.

A recording is JSON Lines, one line a Kafka record, after one line for every epoch. This room knows what a line says; files and
their compression are those of `daemon.files`. It knows no broker and does not look into a record's value.
"""

from __future__ import annotations

import base64
import binascii
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from daemon.chunks import Chunk, is_utf8
from daemon.epochs import Epoch, from_bytes
from daemon.errors import RecordingError, StateError
from daemon.files import CHUNK_BYTES, lines, packed, replaced, texts, written, written_at_once
from daemon.ordinary import COLUMNS, NUMBER, VALUE, VALUE_END, read_lines
from daemon.records import Record

#: Partitions below this number are read fast.
_PARTITIONS = 4096
#: Where no line is ordinary, so many are read one by one before the next is looked at.
_MOST_ALONE = 1024


class _Base64(msgspec.Struct, forbid_unknown_fields=True):
    base64: str


_Text = str | _Base64 | None
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Line(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A Kafka record."""

    partition: _Int64
    offset: _Int64
    timestamp: _Int64 = -1
    key: _Text = None
    value: _Text = None
    topic: str = ""
    headers: list[tuple[str, str | _Base64]] = []


class _EpochLine(msgspec.Struct, forbid_unknown_fields=True):
    """Distinguished from `_Line` by its only field."""

    epoch: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_epoch = msgspec.json.Decoder(_EpochLine).decode
_EPOCH_START = b'{"epoch":'
_ZSTD_START = b"\x28\xb5\x2f\xfd"
_ZSTD = "it is zstd, so its name must end in .zst"
_SHAPE = "a line is a Kafka record with partition, offset, key and value, as `recurd record` writes it"
_PARTITION_START = b'{"partition":'


class Writer:
    """Writes a recording: epochs, then records. A context manager; the file appears under its name when the block ends well.

    Raises:
        OperatorError: The file cannot be made, on entering the block.
    """

    def __init__(self, path: Path) -> None:
        self._file = written(path)

    def __enter__(self) -> Writer:
        self._out = self._file.__enter__()
        self._records = 0
        return self

    def __exit__(self, *failure: Any) -> None:
        self._file.__exit__(*failure)

    def write_epoch(self, epoch: Epoch) -> None:
        """Add an epoch, before the first record; behind one it is a ValueError."""
        if self._records:
            raise ValueError("epochs come before records in a recording")
        self._out.write(_line_of_epoch(epoch))

    def write(self, record: Record) -> None:
        """Add a record. Within a partition offsets must rise."""
        self._out.write(_line_of(record))
        self._records += 1


class Spool:
    """Records on their way into a recording: a part file beside it that outlives a crash, and becomes the recording at the end.

    A context manager. Where the block ends by an error, what was written stays in the part file, for a next one that resumes.

    Args:
        out: The recording; compressed where the name ends in `.zst`.
        resume: Begin with the readable records of the part file, or else of the recording, that are there.

    Raises:
        OperatorError: The files cannot be written or opened.
    """

    def __init__(self, out: Path, resume: bool) -> None:
        self.next_offsets: dict[int, int] = {}  # behind the last record, by partition
        self.records = 0
        self._out, self.part = out, out.with_name(f".part-{out.name}")
        self._before = next((path for path in (self.part, out) if path.exists()), None) if resume else None

    def __enter__(self) -> Spool:
        fresh = self._out.with_name(f".new-{self._out.name}")
        self._context = written_at_once(fresh, self._out)
        self._file = self._context.__enter__()
        if self._before is not None:
            with suppress(RecordingError):  # a cut end: what is missing is read again
                for record in Recording(self._before):
                    self.write(record)
        os.replace(fresh, self.part)
        return self

    def __exit__(self, *failure: Any) -> None:
        self._context.__exit__(*failure)

    def write(self, record: Record) -> None:
        """Add a record. Within a partition offsets must rise."""
        self._file.write(_line_of(record))
        self.records += 1
        self.next_offsets[record.partition] = record.offset + 1

    def flush(self) -> None:
        """Let a crash lose nothing of what was written so far."""
        self._file.flush()

    def finish(self, epochs: Iterable[Epoch]) -> None:
        """Make the recording of the part file, after the block: the epochs, then the records."""
        head = b"".join(map(_line_of_epoch, epochs))
        with replaced(self._out) as raw, self.part.open("rb") as part:
            raw.write(packed(head, self._out))
            shutil.copyfileobj(part, raw, CHUNK_BYTES)
        self.part.unlink()


def _line_of_epoch(epoch: Epoch) -> bytes:
    return _EPOCH_START + epoch.to_bytes() + b"}\n"


def _line_of(record: Record) -> bytes:
    headers = [(name, _text(value)) for name, value in record.headers]
    line = _Line(
        record.partition,
        record.offset,
        record.timestamp_ms,
        _text_or_none(record.key),
        _text_or_none(record.value),
        record.topic,
        headers,
    )
    return _encode(line) + b"\n"


class Recording:
    """A recording to read. `epochs` are read at once; iterating gives the records, from the start each time.

    Raises:
        OperatorError: The file cannot be opened.
        RecordingError: A line cannot be read; while iterating, after the records before it were given.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epochs: dict[int, list[Epoch]] = {}
        for number, line in lines(path):
            if not line.startswith(_EPOCH_START):
                break
            self._add_epoch(number, line)

    def __iter__(self) -> Iterator[Record]:
        for chunk in self.chunks():
            yield from chunk

    def chunks(self) -> Iterator[Chunk]:
        """The records, some thousand at a time."""
        reader = _Reader(self.path)
        for text in texts(self.path):
            chunk = reader.read(text)
            if len(chunk):
                yield chunk
            if reader.failure is not None:
                raise reader.failure

    def partitions(self) -> list[int]:
        """The partitions of which it holds records, as far as it can be read; reads it once through."""
        found: set[int] = set()
        with suppress(RecordingError):  # it is raised again when the records are read
            found.update(record.partition for record in self)
        return sorted(found)

    def partition(self, number: int) -> Iterator[Record]:
        """The records of one partition.

        Lines of others as `Writer` writes them are passed over unread, but for the file's last one: where it is cut there, no
        partition ends well.
        """
        reader, wanted = _Reader(self.path), (_EPOCH_START, _PARTITION_START + b"%d," % number)
        others = b""
        for reader.number, line in lines(self.path):
            if line.startswith(_PARTITION_START) and not line.startswith(wanted):
                others = line
                continue
            others = b""
            record = reader.record(line)
            if record is not None and record.partition == number:
                yield record
        reader.record(others)

    def _add_epoch(self, number: int, line: bytes) -> None:
        try:
            epoch = from_bytes(bytes(_decode_epoch(line).epoch))
        except msgspec.MsgspecError as error:
            raise RecordingError(self.path, number, f"the epoch cannot be read ({error})") from None
        except StateError as error:
            raise RecordingError(self.path, number, str(error)) from None
        known = self.epochs.setdefault(epoch.partition, [])
        if known and epoch.first_offset <= known[-1].first_offset:
            raise RecordingError(self.path, number, f"the epochs of partition {epoch.partition} do not rise by first offset")
        known.append(epoch)


class Readable:
    """Records up to a line that cannot be read; `failure` is then its error."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = records
        self.failure: RecordingError | None = None

    def __iter__(self) -> Iterator[Record]:
        try:
            yield from self._records
        except RecordingError as error:
            self.failure = error


class _Reader:
    """Reads lines in order: those of the ordinary shape many at once, the others one by one."""

    def __init__(self, path: Path) -> None:
        self.number = 0  # of the line that was read last, from 1
        self.failure: RecordingError | None = None  # of the line behind the last chunk
        self._path = path
        self._topic = ""  # of the first record: the lines that name it are read many at once
        self._topic_json: np.ndarray | None = None  # uint8, without its quotes; None before the first record
        self._newest = np.full(_PARTITIONS, -1, np.int64)  # offset, by partition
        self._newest_beyond: dict[int, int] = {}

    def read(self, text: bytes) -> Chunk:
        """The records of whole lines, up to one that cannot be read."""
        characters, data = np.frombuffer(text, np.uint8), np.empty(len(text), np.uint8)
        columns = np.empty((text.count(b"\n"), COLUMNS), np.int64)
        others: dict[int, Record] = {}
        at = row = used = 0
        alone = 1  # lines to read one by one
        is_text = is_utf8(text)
        while at < len(text) and self.failure is None:
            if self._topic_json is not None and is_text:
                place = (characters, at, self._topic_json, self._newest)
                at, count, row, used = read_lines(*place, columns, row, data, used)
                self.number += count
                alone = 1 if count else min(2 * alone, _MOST_ALONE)
            records, at = self._one_by_one(text, at, alone)
            others.update(enumerate(records, row))
            part = Chunk.of(records)
            part.columns[:, [VALUE, VALUE_END]] += used
            part.columns[:, NUMBER] += row
            columns[row : row + len(part)] = part.columns
            data[used : used + len(part.data)] = part.data
            row, used = row + len(part), used + len(part.data)
        is_text &= not others or is_utf8(data[:used].tobytes())  # what was base64 is in it too
        data.flags.writeable = False  # as what is made of bytes is: another type to the compiled loops
        return Chunk(self._topic, data[:used], columns[:row], others, is_text)

    def _one_by_one(self, text: bytes, at: int, count: int) -> tuple[list[Record], int]:
        """The records of some lines, and where the next one begins; one that cannot be read ends them."""
        records: list[Record] = []
        while count and at < len(text):
            end = text.index(b"\n", at)
            self.number += 1
            try:
                record = self.record(text[at:end])
            except RecordingError as error:
                self.failure = error
                break
            if record is not None:
                records.append(record)
            at, count = end + 1, count - 1
        return records, at

    def record(self, line: bytes) -> Record | None:
        """The record of the line that has the reader's number; None where there is none in it.

        Raises:
            RecordingError: It cannot be read, or stands where it must not.
        """
        if not line or line.isspace():
            return None
        if line.startswith(_EPOCH_START):
            if self._topic_json is not None:
                raise RecordingError(self._path, self.number, "an epoch after the first record: move it up")
            return None
        try:
            read = _decode_line(line)
            key, value = _raw_or_none(read.key), _raw_or_none(read.value)
            headers = tuple((name, _raw(text)) for name, text in read.headers)
        except (msgspec.MsgspecError, UnicodeError, binascii.Error) as error:
            hint = _ZSTD if line.startswith(_ZSTD_START) else "was the file cut?" if "truncated" in str(error) else _SHAPE
            raise RecordingError(self._path, self.number, f"no record can be read from it ({error}): {hint}") from None
        if read.partition < 0 or read.offset < 0:
            raise RecordingError(self._path, self.number, "partition and offset cannot be negative")
        self._rise(read.partition, read.offset)
        topic = read.topic or self._path.name
        if self._topic_json is None:
            self._topic, self._topic_json = topic, np.array(list(_encode(read.topic)[1:-1]), np.uint8)
        return Record(topic, read.partition, read.offset, read.timestamp, key, value, headers)

    def _rise(self, partition: int, offset: int) -> None:
        """Hold the offset to be above the partition's newest, and take it down."""
        known = self._newest if partition < _PARTITIONS else self._newest_beyond
        newest = int(known[partition]) if partition < _PARTITIONS else self._newest_beyond.get(partition, -1)
        if offset <= newest:
            what = f"offset {offset} of partition {partition} follows {newest}: offsets must rise"
            raise RecordingError(self._path, self.number, what)
        known[partition] = offset


def _text_or_none(data: bytes | None) -> _Text:
    return None if data is None else _text(data)


def _text(data: bytes) -> str | _Base64:
    """Text where the bytes are UTF-8, else base64."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _Base64(base64.b64encode(data).decode())


def _raw_or_none(text: _Text) -> bytes | None:
    return None if text is None else _raw(text)


def _raw(text: str | _Base64) -> bytes:
    return text.encode() if isinstance(text, str) else base64.b64decode(text.base64, validate=True)
