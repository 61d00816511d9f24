"""Recordings: whatever bytes a log holds, they come back; wherever a file is cut, what stands before the cut does."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon import recording
from daemon.errors import RecordingError
from daemon.files import lines
from daemon.recording import Recording, Writer
from daemon.records import Record

CONTENT = st.binary(max_size=20) | st.text(max_size=20).map(str.encode)
OPTIONAL = st.none() | CONTENT
NAMES = st.text(max_size=10)
HEADERS = st.lists(st.tuples(NAMES, CONTENT), max_size=3).map(tuple)
TIMES_MS = st.integers(-1, 2**63 - 1)


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Records of two partitions, offsets rising in each, some left out."""
    positions = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 2**40)), max_size=12))
    last = {0: -1, 1: -1}
    records = []
    for partition, step in positions:
        last[partition] += step
        content = draw(st.tuples(TIMES_MS, OPTIONAL, OPTIONAL, HEADERS))
        records.append(Record("readings", partition, last[partition], *content))
    return records


def written(directory: str, name: str, records: list[Record]) -> Path:
    with Writer(Path(directory) / name) as writer:
        for record in records:
            writer.write(record)
    return Path(directory) / name


@settings(deadline=None)
@given(logs(), st.sampled_from(["log.jsonl", "log.jsonl.zst"]))
def test_recording_round_trip(records: list[Record], name: str) -> None:
    """Every record comes back as it was, whatever its key, value and headers hold."""
    with tempfile.TemporaryDirectory() as directory:
        assert list(Recording(written(directory, name, records))) == records


@settings(deadline=None)
@given(logs(), st.data())
def test_cut_recording_gives_its_whole_lines(records: list[Record], data: st.DataObject) -> None:
    """A file cut anywhere gives the records whose lines are whole, and then names the line that is not."""
    with tempfile.TemporaryDirectory() as directory:
        path = written(directory, "log.jsonl", records)
        whole = path.read_bytes()
        cut = whole[: data.draw(st.integers(0, len(whole)))]
        path.write_bytes(cut)
        whole_lines, rest = cut.count(b"\n"), cut[cut.rfind(b"\n") + 1 :]
        found = iter(Recording(path))
        assert [next(found) for _ in range(whole_lines)] == records[:whole_lines]
        if rest and not rest.endswith(b"}"):
            with pytest.raises(RecordingError) as caught:
                next(found)
            assert caught.value.line == whole_lines + 1


@st.composite
def strange_lines(draw: st.DrawFn) -> bytes:
    """Lines much as `Writer` writes them, with other spellings and damage among them."""
    numbers = st.sampled_from(["0", "1", "01", "-1", "1.0", "1e3", "9" * 18, "9" * 19, "4095", "4096", "null", "-0"])
    strings = st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=9).map(json.dumps),
        st.text(max_size=9).map(lambda text: json.dumps(text, ensure_ascii=False)),
        st.text('"\\/bfnrtu0 {}', max_size=6).map(lambda text: f'"{text}"'),
        st.sampled_from(["null", '{"base64":"/wA="}', "1", '"']),
    )
    lines, offset = [], 0
    for _ in range(draw(st.integers(0, 6))):
        offset += draw(st.sampled_from([1, 1, 1, 2, 10**12, 0]))
        members = [f'"partition":{draw(st.one_of(*[st.just("0")] * 8, numbers))}', f'"offset":{offset}']
        members += [f'"timestamp":{draw(st.one_of(st.integers(-2, 10**13).map(str), numbers))}'] * draw(st.integers(0, 1))
        members += [f'"key":{draw(strings)}'] * draw(st.integers(0, 1))
        members += [f'"value":{draw(strings)}'] * draw(st.integers(0, 1))
        members += draw(st.sampled_from([[], ['"topic":"t"'], ['"topic":"t"'], ['"topic":"u"'], ['"topic":"é"']]))
        members += ['"headers":[["a","b"]]'] * draw(st.sampled_from([0, 0, 0, 1]))
        if draw(st.integers(0, 5)) == 0:
            members = draw(st.permutations(members))
        lines.append(
            "{" + draw(st.sampled_from([",", ",", ",", ", "])).join(members) + "}" + draw(st.sampled_from(["", "", "\r", "\n"]))
        )
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    damage = draw(st.integers(-3 * len(text) - 1, len(text)))  # usually none
    return (
        text if damage < 0 else text[:damage] + draw(st.sampled_from([b"", b'"', b"\xff", b"\x01", b"\n"])) + text[damage + 1 :]
    )


def read(records: Iterator[Record]) -> tuple[list[Record], str]:
    """What can be read, and what is said of the line that cannot."""
    found = []
    try:
        for record in records:
            found.append(record)
    except RecordingError as error:
        return found, str(error)
    return found, ""


@settings(deadline=None, max_examples=400)
@given(strange_lines())
@example(b'{"partition":0,"offset":0,"topic":"a\\"b"}\n{"partition":0,"offset":1,"topic":"a"b"}\n')
@example(b'{"partition":0,"offset":0,"topic":"a\\\\b"}\n{"partition":0,"offset":1,"topic":"a\\b"}\n')
@example(b'{"partition":0,"offset":0,"topic":"a\\nb"}\n{"partition":0,"offset":1,"topic":"a\nb"}\n')
def test_many_lines_at_once_are_each_read_as_alone(text: bytes) -> None:
    """What compiled loops read of a recording is what the parser reads line by line, and the same line cannot be read."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log.jsonl"
        path.write_bytes(text)
        reader = recording._Reader(path)

        def line_by_line() -> Iterator[Record]:
            for number, line in lines(path):
                reader.number = number
                record = reader.record(line)
                if record is not None:
                    yield record

        assert read(line_by_line()) == read(iter(Recording(path)))


def test_ordinary_lines_take_no_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines as `Writer` writes them, of text without headers, are read by the compiled loop but for the first."""
    values = [None, b"", b'{"stream":"a\\n"}', b"\x08\x0c\n\r\t/"]
    records = [Record("readings", at % 3, at, at - 1, values[-1 - at % 4], values[at % 4]) for at in range(24)]
    path, reader, parsed = written(str(tmp_path), "log.jsonl", records), recording._Reader.record, []
    monkeypatch.setattr(recording._Reader, "record", lambda self, line: parsed.append(line) or reader(self, line))
    assert list(Recording(path)) == records
    assert len(parsed) == 1
