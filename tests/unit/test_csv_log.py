"""CSV as an input log: which columns become which readings, and what a bad cell does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import zstandard

from config.settings import InputSettings, SettingsError
from daemon.codec import Decoder
from daemon.csv_log import is_csv, read_csv
from daemon.errors import BadRecord, RecordingError
from daemon.records import Reading, Record

DEFAULT = InputSettings()
SECOND_MS = 1_700_000_000_000


def records(path: Path, text: str, settings: InputSettings = DEFAULT) -> list[Record]:
    path = path / "plant.csv"
    path.write_text(text)
    return list(read_csv(path, settings))


def readings(path: Path, text: str, settings: InputSettings = DEFAULT) -> list[Reading]:
    decoder = Decoder(settings)
    return [reading for record in records(path, text, settings) for reading in decoder.decode(record)]


@pytest.mark.parametrize(
    ("name", "expected"), [("a.csv", True), ("a.CSV.zst", True), ("a.tsv", True), ("a.jsonl", False), ("csv", False)]
)
def test_csv_is_known_by_its_name(name: str, expected: bool) -> None:
    """The ending says whether a file is CSV."""
    assert is_csv(Path(name)) is expected


def test_long_file_names_the_stream_in_each_row(tmp_path: Path) -> None:
    """With a stream column each row is one reading."""
    text = "time,stream,value\n1700000000,a,1.5\n1700000001,b,2\n"
    assert readings(tmp_path, text) == [Reading("a", SECOND_MS, (1.5,)), Reading("b", SECOND_MS + 1000, (2.0,))]


def test_wide_file_has_a_stream_a_numeric_column(tmp_path: Path) -> None:
    """Without a stream column every numeric column but the time is a stream; columns of text are none."""
    text = "date,OT,note,HUFL\n2016-07-01 00:00:00,1,dry,-2\n"
    assert readings(tmp_path, text) == [Reading("OT", 1_467_331_200_000, (1.0,)), Reading("HUFL", 1_467_331_200_000, (-2.0,))]


def test_columns_that_are_passed_over_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A long file whose stream column has another name looks like a wide one: all its streams would be one, without a word."""
    with caplog.at_level("WARNING"):
        records(tmp_path, "time,pump,value\n1700000000,a,1\n1700000000,b,2\n")
    (said,) = caplog.records
    assert "no stream column is named (input.stream), so each column of numbers is a stream" in said.getMessage()
    caplog.clear()
    records(tmp_path, "time,a,b\n1700000000,1,2\n")
    assert not caplog.records


def test_records_have_rising_offsets_key_and_time(tmp_path: Path) -> None:
    """Every reading is a record of its own: partition 0, offsets without a gap, the id as key, its time as timestamp."""
    found = records(tmp_path, "ts,a,b\n1700000000,1,2\n1700000001,3,4\n")
    assert [(record.partition, record.offset, record.key, record.timestamp_ms) for record in found] == [
        (0, 0, b"a", SECOND_MS), (0, 1, b"b", SECOND_MS), (0, 2, b"a", SECOND_MS + 1000), (0, 3, b"b", SECOND_MS + 1000),
    ]  # fmt: skip


def test_default_value_is_the_default_json(tmp_path: Path) -> None:
    """With default settings a value is the JSON that the input topic takes by default."""
    assert records(tmp_path, "time,a\n1700000000,1\n")[0].value == b'{"stream":"a","time":1700000000000,"value":1.0}'


def test_values_follow_the_mapping(tmp_path: Path) -> None:
    """With users' own field names the value has those fields, so that the same settings decode it."""
    settings = InputSettings(stream="device.id", time="at", values={"temp": "v.t{0}", "rh": "v.rh"})
    text = "AT,device.id,rh,v.t{0}\n1700000000,a,40,21\n"
    assert records(tmp_path, text, settings)[0].value == b'{"device":{"id":"a"},"at":1700000000000,"v":{"t{0}":21.0,"rh":40.0}}'
    assert readings(tmp_path, text, settings) == [Reading("a", SECOND_MS, (21.0, 40.0))]


def test_channels_without_a_stream_column_are_one_stream(tmp_path: Path) -> None:
    """A file of all channels and no stream column is one stream, named after the file."""
    settings = InputSettings(values={"temp": "v.temp", "rh": "v.rh"})
    assert readings(tmp_path, "time,temp,rh\n1700000000,21,40\n", settings) == [Reading("plant", SECOND_MS, (21.0, 40.0))]


@pytest.mark.parametrize(
    ("cell", "expected_ms"),
    [
        ("1700000000", SECOND_MS),
        ("1700000000.25", SECOND_MS + 250),
        ("1700000000000", SECOND_MS),
        ("0", 0),
        ("2023-11-14T22:13:20Z", SECOND_MS),
        ("2023-11-14 23:13:20+01:00", SECOND_MS),
        (" 2023-11-14 22:13:20.000 ", SECOND_MS),
        ("1970-01-02", 86_400_000),
        ("1969-12-31", -86_400_000),
        ("0001-01-01", -62_135_596_800_000),
        ("-5", -5000),
    ],
)
def test_time_cell(tmp_path: Path, cell: str, expected_ms: int) -> None:
    """Times are epoch seconds, milliseconds from 1e11, or ISO, UTC without a zone; early ones keep their meaning in JSON."""
    text = f"time,a\n{cell},1\n"
    assert records(tmp_path, text)[0].timestamp_ms == expected_ms
    assert readings(tmp_path, text)[0].time_ms == expected_ms


@pytest.mark.parametrize("cell", ["", "yesterday", "1e300", "nan", "9999999999999999", "10000-01-01"])
def test_bad_time_is_left_to_the_codec(tmp_path: Path, cell: str) -> None:
    """A cell that is no time does not end the file: its record becomes a dead letter with reason time."""
    (record,) = records(tmp_path, f"time,a\n{cell},1\n")
    assert record.timestamp_ms == -1
    with pytest.raises(BadRecord) as caught:
        Decoder(DEFAULT).decode(record)
    assert caught.value.reason == "time"


@pytest.mark.parametrize("cell", ["", " ", "NaN", "nan", "NA", "null", "None", "n/a"])
def test_missing_cell_is_null(tmp_path: Path, cell: str) -> None:
    """Empty cells and the usual words for nothing are missing values."""
    (reading,) = readings(tmp_path, f"time,a\n1700000000,{cell}\n")
    assert math.isnan(reading.values[0])


@pytest.mark.parametrize("cell", ["x", "inf", "-Infinity", "1_000", "1e999", "true", "0x10"])
def test_bad_cell_spoils_only_itself(tmp_path: Path, cell: str) -> None:
    """A cell that is no finite number is a dead letter by itself; its row's other cells are readings."""
    before, bad, after = records(tmp_path, f"time,a,b,c\n1700000000,1,2,3\n1700000001,4,{cell},6\n")[3:]
    assert [Decoder(DEFAULT).decode(record)[0].values for record in (before, after)] == [(4.0,), (6.0,)]
    with pytest.raises(BadRecord, match="Expected"):
        Decoder(DEFAULT).decode(bad)


def test_column_that_starts_late_is_a_stream(tmp_path: Path) -> None:
    """A column is judged by its first cell that is not missing."""
    text = "time,a,b,c\n1700000000,,,1\n1700000001,2,x,1\n"
    assert [record.key for record in records(tmp_path, text)] == [b"a", b"c", b"a", b"c"]


@pytest.mark.parametrize(
    "text",
    ["time;a\n1700000000;1\n", "time\ta\n1700000000\t1\n", "\ufefftime,a\r\n1700000000,1\r\n", '"time","a"\n"1700000000","1"'],
)
def test_dialects(tmp_path: Path, text: str) -> None:
    """Semicolons, tabs, quotes, a byte-order mark and carriage returns are read."""
    assert readings(tmp_path, text) == [Reading("a", SECOND_MS, (1.0,))]


def test_compressed_csv(tmp_path: Path) -> None:
    """A name that ends in .zst is decompressed."""
    path = tmp_path / "plant.csv.zst"
    path.write_bytes(zstandard.compress(b"time,a\n1700000000,1\n"))
    assert [record.key for record in read_csv(path, DEFAULT)] == [b"a"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no column 'time', date, time, timestamp, ts, datetime: name the time with input.time; its columns are none"),
        ("when,a\n", "name the time with input.time"),
        ("when,pump;7\n", "name the time with input.time; its columns are 'when', 'pump;7'"),
        (
            "time,stream,reading\n",
            "no column 'value': name the columns of the values with input.value or input.values; its columns are",
        ),
        ("time,note\n1,x\n", "no stream column and no numeric one"),
        ("time,a,a\n1,1,1\n", "two numeric columns have the same name"),
    ],
)
def test_unusable_header_is_named(tmp_path: Path, text: str, what: str) -> None:
    """A header without the needed columns is an error that names the setting to mend it."""
    with pytest.raises(RecordingError, match=r"plant\.csv, line 1: ") as caught:
        records(tmp_path, text)
    assert what in str(caught.value)


@pytest.mark.parametrize(
    "row",
    [b"1700000002,1", b"1700000002,1,2,3", b"1700000002,\xff,1", b"1" * 200_000 + b",1,1"],
    ids=["short", "long", "utf-8", "huge"],
)
def test_corrupt_row_is_named(tmp_path: Path, row: bytes) -> None:
    """A row that cannot be read is named by its line after those before it were given."""
    path = tmp_path / "plant.csv"
    path.write_bytes(b"time,a,b\n1700000000,1,1\n\n1700000001,1,1\n" + row + b"\n")
    found = read_csv(path, DEFAULT)
    assert [next(found).offset for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(RecordingError, match="line 5: ") as caught:
        next(found)
    assert caught.value.line == 5


def test_colliding_paths_are_a_settings_error(tmp_path: Path) -> None:
    """Two fields at one place are refused as the daemon refuses them."""
    with pytest.raises(SettingsError, match="collides"):
        records(tmp_path, "time,a\n1,1\n", InputSettings(time="a", value="a.b"))
