"""Recording a topic: which records are taken, and where reading ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from config.settings import EngineSettings, SettingsError
from daemon.epochs import Epoch
from daemon.record import EVERYTHING, Bound, Span, follow_log, parse_bound, read_log, read_whole, take
from daemon.recording import Recording, Spool
from daemon.records import Record

EPOCH = Epoch(0, 0, "naive", EngineSettings(), 1, "f")
LOG = [Record("readings", partition, offset, 1000 * offset, None, b"x") for offset in range(6) for partition in (0, 1)]


class LogInMemory:
    """A committed log that hands out two records a poll. Positions pass offsets that hold no record."""

    def __init__(self, records: Sequence[Record], ends: Mapping[int, int]) -> None:
        self._records = records
        self._ends = ends
        self._positions: dict[tuple[str, int], int] = {}

    def partitions(self, topic: str) -> list[int]:
        return sorted(self._ends) if topic == "readings" else []

    def high_watermark(self, topic: str, partition: int) -> int:
        return self._ends[partition]

    def log_start(self, topic: str, partition: int) -> int:
        return 1

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        self._positions = dict(positions)

    def poll(self, timeout_ms: int) -> dict[tuple[str, int], Sequence[Record]]:
        found: dict[tuple[str, int], Sequence[Record]] = {}
        for (topic, partition), position in self._positions.items():
            ahead = [record for record in self._records if record.partition == partition and record.offset >= position][:2]
            self._positions[topic, partition] = ahead[-1].offset + 1 if ahead else self._ends[partition]
            if ahead:
                found[topic, partition] = ahead
        return found

    def position(self, topic: str, partition: int) -> int:
        return self._positions[topic, partition]

    def close(self) -> None:
        self._positions = {}


@pytest.mark.parametrize(
    ("last", "expected"),
    [(Bound(), [0, 1, 2, 3, 4, 5]), (Bound(offset=2), [0, 1]), (Bound(time_ms=4000), [0, 1, 2, 3]), (Bound(time_ms=0), [])],
)
def test_a_part_ends_at_its_first_record_that_is_too_late(tmp_path: Path, last: Bound, expected: list[int]) -> None:
    """By offset or timestamp; what follows with an earlier timestamp does not begin it again."""
    late = Record("readings", 0, 6, 0, None, b"x")
    recording = taken(tmp_path / "log.jsonl", span=Span(last=last), log=[*LOG, late])
    found = [record.offset for record in recording if record.partition == 0]
    assert found == expected + [6] * (len(expected) == 6)


def test_a_part_that_has_ended_everywhere_is_not_read_on(tmp_path: Path) -> None:
    """A recording that follows ends with its span."""

    def polls() -> Iterator[list[Record]]:
        yield LOG
        raise AssertionError("read on")

    with Spool(tmp_path / "log.jsonl", resume=False) as spool:
        take(spool, polls(), Span(last=Bound(offset=3)), None, 2)
    assert spool.records == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", Bound(offset=0)),
        ("1200", Bound(offset=1200)),
        ("1970-01-01T00:00:01Z", Bound(time_ms=1000)),
        ("1970-01-02", Bound(time_ms=86_400_000)),
    ],
)
def test_bound_is_an_offset_or_a_time(text: str, expected: Bound) -> None:
    """Digits are an offset, anything else is a time."""
    assert parse_bound(text) == expected


@pytest.mark.parametrize("text", ["", "-5", "soon", "1.5"])
def test_what_is_no_bound_is_a_usage_error(text: str) -> None:
    """A mistyped bound is one sentence with an example."""
    with pytest.raises(SettingsError, match="neither an offset nor a time: write it such as 1200"):
        parse_bound(text)


def test_read_log_ends_at_the_given_ends() -> None:
    """Each partition is read from its start to its end, not beyond, although a poll brings more."""
    found = list(read_log(LogInMemory(LOG, {0: 6, 1: 6}), "readings", {0: 0, 1: 3}, {0: 3, 1: 6}))
    assert [(record.partition, record.offset) for record in found if record.partition == 0] == [(0, 0), (0, 1), (0, 2)]
    assert [(record.partition, record.offset) for record in found if record.partition == 1] == [(1, 3), (1, 4), (1, 5)]


def test_read_log_passes_offsets_without_records() -> None:
    """Control records and aborted ones have offsets too: the end is a position, not a last record."""
    found = list(read_log(LogInMemory(LOG[:4], {0: 9}), "readings", {0: 0}, {0: 9}))
    assert [record.offset for record in found] == [0, 1]


def test_read_log_of_nothing_ends() -> None:
    """A partition that starts at its end gives nothing and is not waited for."""
    assert list(read_log(LogInMemory(LOG, {0: 6}), "readings", {0: 6}, {0: 6})) == []


def test_read_whole_starts_where_the_log_does() -> None:
    """A whole topic is read from each partition's log start; an absent one is empty."""
    reader = LogInMemory(LOG, {0: 6, 1: 6})
    assert sorted(record.offset for record in read_whole(reader, "readings")) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert list(read_whole(reader, "absent")) == []


def taken(
    path: Path, limit: int | None = None, span: Span = EVERYTHING, resume: bool = False, log: Sequence[Record] = LOG
) -> Recording:
    with Spool(path, resume) as spool:
        take(spool, [[one for one in log if one.offset >= spool.next_offsets.get(one.partition, 0)]], span, limit, 2)
    spool.finish([EPOCH])
    return Recording(path)


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.zst"])
def test_recording_has_epochs_first_and_stops_at_the_limit(tmp_path: Path, name: str) -> None:
    """The recording holds the epochs and at most `limit` records of the span, and no part file stays."""
    recording = taken(tmp_path / name, 3)
    assert recording.epochs == {0: [EPOCH]}
    assert list(recording) == LOG[:3]
    assert list(taken(tmp_path / name)) == LOG
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.zst"])
@pytest.mark.parametrize("cut", [0, 30])
def test_interrupted_recording_is_resumed(tmp_path: Path, name: str, cut: int) -> None:
    """What an interrupted command has read is not read again, but for a cut end; a finished recording grows."""
    with pytest.raises(KeyboardInterrupt), Spool(tmp_path / name, resume=False) as spool:  # noqa: PT012
        take(spool, [LOG[:6]], EVERYTHING, None, 2)
        raise KeyboardInterrupt
    part = tmp_path / f".part-{name}"
    assert not (tmp_path / name).exists()
    part.write_bytes(part.read_bytes()[: -cut or None])
    assert list(taken(tmp_path / name, 8, resume=True)) == LOG[:8]
    assert list(taken(tmp_path / name, resume=True)) == LOG
    assert list(taken(tmp_path / name, 2)) == LOG[:2]


def test_follow_goes_on_until_it_is_stopped() -> None:
    """At the end of the log it waits; empty lists let the writer flush and look."""
    stopping, seen = threading.Event(), []
    for poll in follow_log(LogInMemory(LOG, {0: 6, 1: 6}), "readings", {0: 2, 1: 5}, stopping):
        seen += poll
        if not poll:
            stopping.set()
    assert sorted((one.partition, one.offset) for one in seen) == [(0, 2), (0, 3), (0, 4), (0, 5), (1, 5)]
