"""Playing a recording into a topic: in its own rhythm, partitions merged by time; and which records a replay takes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from config.settings import Settings, SettingsError
from daemon import replay, selection
from daemon.errors import OperatorError, RecordingError
from daemon.playback import merged, paced
from daemon.recording import Writer
from daemon.records import Record
from daemon.selection import Selected
from tests import examples
from tests.unit.test_control import reset


def at(*seconds: float, partition: int = 0) -> list[Record]:
    return [Record("in", partition, i, int(1000 * s), b"k", b"v") for i, s in enumerate(seconds)]


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def played(records: list[Record], speed: float) -> list[tuple[float, list[int]]]:
    clock = Clock()
    return [(round(clock.now_s - 100, 6), [one.offset for one in group]) for group in paced(records, speed, clock, clock.sleep)]


def test_gaps_are_kept() -> None:
    """What is due together goes together; a later record waits as long as it did, divided by the speed."""
    records = at(50, 50.001, 51, 54, 54)
    assert played(records, 1) == [(0, [0, 1]), (1, [2]), (4, [3, 4])]
    assert played(records, 10) == [(0, [0, 1]), (0.1, [2]), (0.4, [3, 4])]
    assert played(records, 1e6) == [(0, [0, 1, 2, 3, 4])]


def test_records_out_of_order_or_without_a_time_do_not_wait() -> None:
    """They follow the one before at once."""
    assert played([*at(50, 51, 49), Record("in", 0, 9, -1, None, b"v")], 1) == [(0, [0]), (1, [1, 2, 9])]


def test_what_stands_before_damage_is_sent() -> None:
    """The group before an unreadable line comes before its error."""

    def broken() -> object:
        yield from at(1, 1)
        raise RecordingError(Path("x"), 3, "cut")

    groups = paced(broken(), 1, Clock())  # type: ignore[arg-type]
    assert len(next(groups)) == 2
    with pytest.raises(RecordingError):
        next(groups)


def write(path: Path, records: list[Record]) -> Path:
    with Writer(path) as writer:
        for record in records:
            writer.write(record)
    return path


def test_partitions_are_merged_by_time(tmp_path: Path) -> None:
    """A recording may hold one partition after the other; a topic with too few partitions is refused."""
    data = write(tmp_path / "log.jsonl", [*at(1, 3, 5), *at(2, 2, 4, partition=1)])
    order = [(one.partition, one.timestamp_ms // 1000) for one in merged(Settings(), data, 2)]
    assert order == [(0, 1), (1, 2), (1, 2), (0, 3), (1, 4), (0, 5)]
    with pytest.raises(OperatorError, match="has records of partition 1, the topic has 1 partitions"):
        list(merged(Settings(), data, 1))


def test_a_cut_recording_gives_all_that_can_be_read(tmp_path: Path) -> None:
    """However far apart the partitions are in time, each is sent up to the cut, which is named last."""
    data = write(tmp_path / "log.jsonl", [*at(1, 2, partition=1), *at(7, 8, 9), *at(3, partition=2)])
    data.write_bytes(data.read_bytes()[:-5])
    found = merged(Settings(), data, 3)
    assert [one.timestamp_ms for one in islice(found, 5)] == [1000, 2000, 7000, 8000, 9000]
    with pytest.raises(RecordingError, match="line 6: "):
        next(found)


def test_streams_of_a_csv_file_are_spread(tmp_path: Path) -> None:
    """A stream stays in its partition."""
    (tmp_path / "a.csv").write_text("time,a,b,c,d\n1700000000,1,2,3,4\n1700000060,1,2,3,4\n")
    found = {(one.key, one.partition) for one in merged(Settings(), tmp_path / "a.csv", 3)}
    assert len(found) == 4
    assert len({partition for _, partition in found}) > 1


LOG = [
    examples.record(0, ("pump-1", 1000, 1.0)),
    examples.record(1, ("fan-1", 2000, 1.0), ("pump-2", 2000, 1.0)),
    examples.record(2, ("fan-1", 3000, 1.0)),
    reset(3, b"pump-1")._replace(timestamp_ms=4000),
    reset(4, b"fan-1")._replace(timestamp_ms=4000),
    Record("in", 0, 5, 5000, None, b"{"),
    examples.record(6, ("pump-1", 9000, 1.0)),
    examples.record(7, ("pump-1", 8000, 1.0)),
]


@pytest.mark.parametrize(
    ("until_ms", "streams", "offsets"),
    [
        (None, [], [0, 1, 2, 3, 4, 5, 6, 7]),
        (9000, [], [0, 1, 2, 3, 4, 5]),
        (None, ["pump-*"], [0, 1, 3, 6, 7]),
        (3000, ["pump-1", "fan-1"], [0, 1]),
    ],
)
def test_selection(tmp_path: Path, until_ms: int | None, streams: list[str], offsets: list[int]) -> None:
    """A partition ends at the first record that is too late, whatever follows; records without a wanted stream are left out."""
    data = write(tmp_path / "log.jsonl", LOG)
    assert [one.offset for one in Selected(Settings(), data, True, until_ms, streams).records()] == offsets


def test_replay_of_some_streams_gives_the_same_bytes(tmp_path: Path) -> None:
    """The forecasts of the wanted streams are those of a whole replay, and no others are written."""
    times = [examples.T0_MS + i * examples.MINUTE_MS for i in range(30)]
    readings = [[(f"{name}-{i % 2}", time_ms, float(i % 7)) for name in ("pump", "fan")] for i, time_ms in enumerate(times)]
    records = [examples.record(i, *both) for i, both in enumerate(readings)]
    data = write(tmp_path / "log.jsonl", records)
    settings = Settings.model_validate({"model": {"hidden": 8, "context": 16, "horizon": 2}})
    replay.run(settings, data, [], tmp_path / "all")
    replay.run(settings, data, [], tmp_path / "some", streams=["pump-*"], until="2023-11-14T22:33:20Z")
    whole = [line for line in (tmp_path / "all").read_bytes().splitlines() if b'"pump-' in line]
    assert (tmp_path / "some").read_bytes().splitlines() == whole[:20]


def test_until_is_a_time() -> None:
    """Anything else is a usage error with an example."""
    with pytest.raises(SettingsError, match="--until 'soon' is no time"):
        selection.until_ms("soon")
