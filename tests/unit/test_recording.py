"""Recordings: what is written is read back, and what cannot be read is named by its line."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from config.settings import EngineSettings
from daemon.epochs import Epoch
from daemon.errors import RecordingError
from daemon.recording import Recording, Writer
from daemon.records import Record

NAMES = ("log.jsonl", "log.jsonl.zst")
EPOCHS = [
    Epoch(0, 0, "naive", EngineSettings(), 1, "f"),
    Epoch(0, 9, "v1", EngineSettings(), 1, "f"),
    Epoch(3, 5, "v1", EngineSettings(), 1, "f"),
]
RECORDS = [
    Record(
        "readings", 0, 7, 1_700_000_000_000, b"pump-7", '{"value":"é"}'.encode(), (("source", b"0,1,2"), ("raw", b"\xff\x00"))
    ),
    Record("readings", 3, 5, -1, None, None),
    Record("readings", 0, 9, 0, b"\xff", b"", ()),
    Record("readings", 0, 10, 0, b"", b"\xc3", (("", b""),)),
]


def write(path: Path) -> Path:
    with Writer(path) as writer:
        for epoch in EPOCHS:
            writer.write_epoch(epoch)
        for record in RECORDS:
            writer.write(record)
    return path


def line_after(records: Iterator[Record], expected: list[Record]) -> RecordingError:
    """What is raised after exactly these records."""
    assert list(islice(records, len(expected))) == expected
    with pytest.raises(RecordingError) as caught:
        next(records)
    return caught.value


@pytest.mark.parametrize("name", NAMES)
def test_recording_gives_records_and_epochs_back(tmp_path: Path, name: str) -> None:
    """Records come back whole and in order, bytes that are no text too, with the epochs of each partition."""
    recording = Recording(write(tmp_path / name))
    assert list(recording) == RECORDS
    assert recording.epochs == {0: EPOCHS[:2], 3: EPOCHS[2:]}


def test_iterating_starts_over(tmp_path: Path) -> None:
    """A recording can be read twice."""
    recording = Recording(write(tmp_path / "log.jsonl"))
    assert list(recording) == list(recording)


def test_lines_are_plain_json(tmp_path: Path) -> None:
    """A stranger reads a recording with any JSON parser: text as text, other bytes as base64."""
    lines = [json.loads(line) for line in write(tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["epoch"]["model_version"] == "naive"
    assert lines[3] == {
        "partition": 0, "offset": 7, "timestamp": 1_700_000_000_000, "key": "pump-7", "value": '{"value":"é"}',
        "topic": "readings", "headers": [["source", "0,1,2"], ["raw", {"base64": "/wA="}]],
    }  # fmt: skip


def test_a_strangers_lines_are_read(tmp_path: Path) -> None:
    """Only partition and offset are required; blank lines and a missing last newline do not matter."""
    path = tmp_path / "log.jsonl"
    path.write_text('\n{"partition": 0, "offset": 1, "value": "x"}\r\n\n{"offset": 2, "partition": 0, "timestamp": 5}')
    assert list(Recording(path)) == [Record("log.jsonl", 0, 1, -1, None, b"x"), Record("log.jsonl", 0, 2, 5, None, None)]


def test_an_empty_recording_has_nothing(tmp_path: Path) -> None:
    """No lines are no records and no error."""
    (tmp_path / "log.jsonl").touch()
    assert list(Recording(tmp_path / "log.jsonl")) == []


@pytest.mark.parametrize("name", NAMES)
def test_failed_writing_leaves_nothing(tmp_path: Path, name: str) -> None:
    """A recording appears whole or not at all; an older one of its name stays as it was."""
    (tmp_path / name).write_text("older")
    with pytest.raises(ValueError, match="epochs come"), Writer(tmp_path / name) as writer:  # noqa: PT012 - the first line must work
        writer.write(RECORDS[0])
        writer.write_epoch(EPOCHS[0])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]


def test_epoch_after_a_record_is_refused(tmp_path: Path) -> None:
    """Epochs stand at the top: the writer holds to it, the reader names the line."""
    path = tmp_path / "log.jsonl"
    with Writer(path) as writer:
        writer.write(RECORDS[0])
        with pytest.raises(ValueError, match="epochs come before records"):
            writer.write_epoch(EPOCHS[0])
    path.write_bytes(path.read_bytes() + b'{"epoch":{}}\n')
    assert line_after(iter(Recording(path)), RECORDS[:1]).line == 2


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"partition": 0, "offset": 5', "(Input data was truncated): was the file cut?"),
        ("no json", "no record can be read"),
        ('{"stream": "pump-7", "value": 21.4}', "unknown field `stream`): a line is a Kafka record with partition, offset, key"),
        ('{"offset": 50}', "missing required field `partition`"),
        ('{"partition": 0, "offset": "50"}', "no record can be read"),
        ('{"partition": 0, "offset": 50, "volume": 1}', "unknown field `volume`"),
        ('{"partition": 0, "offset": 50, "value": 1}', "no record can be read"),
        ('{"partition": 0, "offset": 50, "value": {"base64": "*"}}', "no record can be read"),
        ('{"partition": 0, "offset": 50, "value": "\\ud800"}', "no record can be read"),
        ('{"partition": 0, "offset": -1}', "cannot be negative"),
        ('{"partition": 0, "offset": 9223372036854775808}', "no record can be read"),
        ('{"partition": 0, "offset": 10}', "offset 10 of partition 0 follows 10"),
        ('{"partition": 0, "offset": 9}', "offset 9 of partition 0 follows 10"),
    ],
)
def test_corrupt_line_is_named(tmp_path: Path, line: str, what: str) -> None:
    """A bad line is named by its number after all lines before it were read."""
    path = write(tmp_path / "log.jsonl")
    path.write_text(path.read_text() + line + "\n")
    error = line_after(iter(Recording(path)), RECORDS)
    assert error.line == len(EPOCHS) + len(RECORDS) + 1
    assert what in str(error)


@pytest.mark.parametrize("epoch", ["{}", '{"partition": 0', EPOCHS[0].to_bytes().decode().replace("64", "63")])
def test_corrupt_epoch_is_named(tmp_path: Path, epoch: str) -> None:
    """A bad epoch is named by its line before any record is read under it."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"epoch":' + EPOCHS[0].to_bytes().decode() + '}\n{"epoch":' + epoch + "}\n")
    with pytest.raises(RecordingError, match="line 2: ") as caught:
        Recording(path)
    assert caught.value.line == 2


def test_epochs_rise(tmp_path: Path) -> None:
    """Epochs of a partition out of order are refused."""
    path = tmp_path / "log.jsonl"
    with Writer(path) as writer:
        writer.write_epoch(EPOCHS[1])
        writer.write_epoch(EPOCHS[0])
    with pytest.raises(RecordingError, match="line 2: the epochs of partition 0 do not rise"):
        Recording(path)


def test_zstd_without_its_ending_is_named(tmp_path: Path) -> None:
    """The name says whether a file is compressed; where it is wrong, the message says so."""
    path = write(tmp_path / "log.jsonl.zst").rename(tmp_path / "log.jsonl")
    with pytest.raises(RecordingError, match=r"line 1: .*: it is zstd, so its name must end in \.zst"):
        list(Recording(path))


def test_damage_inside_compressed_data_is_named_and_what_stands_before_it_is_given(tmp_path: Path) -> None:
    """One flipped byte in the middle of a long recording: a record is never given out with other bytes than were written."""
    path = tmp_path / "log.jsonl.zst"
    numbers = random.Random(3)
    many = [Record("readings", 0, offset, 0, b"k", numbers.randbytes(30)) for offset in range(30_000)]
    with Writer(path) as writer:
        for record in many:
            writer.write(record)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    given: list[Record] = []
    with pytest.raises(RecordingError, match="the compressed data is damaged") as caught:
        given.extend(Recording(path))
    assert caught.value.line == len(given) + 1
    assert 5_000 < len(given) < 30_000
    assert given == many[: len(given)]
