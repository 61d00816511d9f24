"""Recordings: whatever bytes a log holds, they come back; wherever a file is cut, what stands before the cut does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.recording import Recording, RecordingError, Writer
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


@given(logs(), st.sampled_from(["log.jsonl", "log.jsonl.zst"]))
def test_recording_round_trip(records: list[Record], name: str) -> None:
    """Every record comes back as it was, whatever its key, value and headers hold."""
    with tempfile.TemporaryDirectory() as directory:
        assert list(Recording(written(directory, name, records))) == records


@given(logs(), st.data())
def test_cut_recording_gives_its_whole_lines(records: list[Record], data: st.DataObject) -> None:
    """A file cut anywhere gives the records whose lines are whole, and then names the line that is not."""
    with tempfile.TemporaryDirectory() as directory:
        path = written(directory, "log.jsonl", records)
        whole = path.read_bytes()
        cut = whole[: data.draw(st.integers(0, len(whole)))]
        path.write_bytes(cut)
        lines, rest = cut.count(b"\n"), cut[cut.rfind(b"\n") + 1 :]
        found = iter(Recording(path))
        assert [next(found) for _ in range(lines)] == records[:lines]
        if rest and not rest.endswith(b"}"):
            with pytest.raises(RecordingError) as caught:
                next(found)
            assert caught.value.line == lines + 1
