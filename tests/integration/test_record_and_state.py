"""`recurd record` and `recurd state` against a real broker: committed records only, to the end that a topic had at the start."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from config.settings import Settings
from daemon import playback, record, state
from daemon.blocks import MARK_KEY, Mark, block_key, encode_block, encode_mark
from daemon.brokers import connect
from daemon.brokers.dev import DevBroker
from daemon.brokers.port import Producer, TopicSpec
from daemon.control import RESET_KEY
from daemon.epochs import Epoch
from daemon.errors import OperatorError, RecordingError
from daemon.record import Bound, Span
from daemon.recording import Recording, Writer
from daemon.records import Record
from models.engine import version_number
from models.layout import ENGINE_VERSION, row_dtype
from tests.harness import Command, wait_until

pytestmark = pytest.mark.broker


@pytest.fixture
def settings(broker: DevBroker, unique: Callable[[str], str]) -> Settings:
    """A group with topics of its own: two input partitions, committed and aborted readings, an epoch and a checkpoint."""
    group = unique("group")
    made = Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": broker.bootstrap, "group_id": group},
            "topics": {"readings": unique("readings")},
            "model": {"hidden": 8, "context": 16, "horizon": 2},
        }
    )
    admin = connect(made).admin()
    admin.create(
        [TopicSpec(made.topic(name), 2, {}) for name in ("readings", "state")] + [TopicSpec(made.topic("epochs"), 1, {})]
    )
    admin.close()
    producer = connect(made).producer(f"{group}-test")
    try:
        _fill(made, producer)
    finally:
        producer.close()
    return made


def _fill(settings: Settings, producer: Producer) -> None:
    engine = settings.engine()
    rows = np.zeros(2, row_dtype(engine))
    rows["count"], rows["applied_offset"], rows["version"] = 3, 2, version_number("naive")
    rows["level"] = np.nan
    epoch = Epoch(1, 0, "naive", engine, ENGINE_VERSION, "f")
    for commits in (True, False, True):
        producer.begin()
        for partition in (0, 1):
            for _ in range(3):
                value = b'{"committed":%s}' % str(commits).lower().encode()
                producer.send(settings.topic("readings"), partition, b"\xff", value, (("h", b"\x80"),))
        if commits:
            producer.send(settings.topic("epochs"), 0, epoch.key(), epoch.to_bytes())
            producer.send(settings.topic("state"), 1, block_key(0), encode_block(0, 0, ["pump-1", "pump-2"], rows))
            producer.send(settings.topic("state"), 1, MARK_KEY, encode_mark(Mark(4, 3, 0, 0, 2)))
            producer.commit({}, None)
        else:
            producer.abort()


def test_recording_holds_committed_records_and_epochs(settings: Settings, tmp_path: Path) -> None:
    """A recording has every committed record of every partition, none that was aborted, and the group's epochs."""
    said: list[str] = []
    assert record.run(settings, None, tmp_path / "log.jsonl.zst", say=said.append) == 0
    recording = Recording(tmp_path / "log.jsonl.zst")
    records = list(recording)
    assert [sum(one.partition == partition for one in records) for partition in (0, 1)] == [6, 6]
    assert {(one.key, one.value, one.headers) for one in records} == {(b"\xff", b'{"committed":true}', (("h", b"\x80"),))}
    assert [epoch.key() for epoch in recording.epochs[1]] == [b"1:0"]
    assert said[0].startswith("12 records of 2 partitions")


def test_part_of_another_topic(settings: Settings, tmp_path: Path) -> None:
    """Partition, span and limit cut the recording; a topic that is not the input carries no epochs."""
    span = Span(first=Bound(offset=1), last=Bound(offset=6))
    assert record.run(settings, settings.topic("state"), tmp_path / "log.jsonl", span=span, partition=1, limit=2) == 0
    recording = Recording(tmp_path / "log.jsonl")
    assert [(one.partition, one.offset, one.key) for one in recording] == [(1, 1, MARK_KEY), (1, 3, block_key(0))]
    assert recording.epochs == {}


def test_absent_topic_and_partition_are_refused(settings: Settings, tmp_path: Path) -> None:
    """What is not there is named, and no file appears."""
    with pytest.raises(OperatorError, match="Topic 'absent' does not exist"):
        record.run(settings, "absent", tmp_path / "log.jsonl")
    with pytest.raises(OperatorError, match="has no partition 7: it has 0 to 1"):
        record.run(settings, None, tmp_path / "log.jsonl", partition=7)
    assert list(tmp_path.iterdir()) == []


def test_state_lists_and_shows_streams(settings: Settings) -> None:
    """The streams of the newest checkpoint are listed, and a row is shown as JSON with null for NaN."""
    said: list[str] = []
    assert state.list_streams(settings, said.append) == 0
    assert [line.split() for line in said[1:3]] == [
        ["1", stream, "2", "1970-01-01T00:00:00.000Z", "3", "naive"] for stream in ("pump-1", "pump-2")
    ]
    assert said[3] == "partition 1: checkpoint 4 at offset 3, 2 streams"
    said.clear()
    assert state.show(settings, "pump-2", None, said.append) == 0
    shown = json.loads(said[0])
    assert (shown["stream"], shown["partition"], shown["count"], shown["level"]) == ("pump-2", 1, 3, [None])


def test_unknown_stream_is_refused(settings: Settings) -> None:
    """A stream that no checkpoint holds is an error that says where to look."""
    with pytest.raises(OperatorError, match="No checkpoint holds stream 'pump-9' in any partition: `recurd state list`"):
        state.show(settings, "pump-9", None, lambda line: None)
    with pytest.raises(OperatorError, match="in partition 0"):
        state.show(settings, "pump-1", 0, lambda line: None)


def test_state_is_exported(settings: Settings, tmp_path: Path) -> None:
    """Every row of every partition is a line, as `show` says it."""
    said: list[str] = []
    assert state.export(settings, tmp_path / "rows.jsonl", said.append) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    state.show(settings, "pump-2", None, said.append)
    assert [row["stream"] for row in rows] == ["pump-1", "pump-2"]
    assert (rows[1], said[0]) == (json.loads(said[1]), f"2 streams of 1 partitions in {tmp_path / 'rows.jsonl'}")


def test_reset_is_a_record_of_the_input(settings: Settings, tmp_path: Path) -> None:
    """One control record a partition, or in one; an id that no stream can have, and an absent partition, are refused."""
    state.reset(settings, "pump-2", None, lambda line: None)
    state.reset(settings, "pump-1", 1, lambda line: None)
    record.run(settings, None, tmp_path / "log.jsonl")
    controls = [(one.partition, one.value) for one in Recording(tmp_path / "log.jsonl") if one.key == RESET_KEY]
    assert sorted(controls) == [(0, b"pump-2"), (1, b"pump-1"), (1, b"pump-2")]
    with pytest.raises(OperatorError, match="begins with the reserved"):
        state.reset(settings, "__recurd.x", None, lambda line: None)
    with pytest.raises(OperatorError, match="has no partition 7"):
        state.reset(settings, "pump-1", 7, lambda line: None)


def test_recording_that_follows_ends_at_a_signal(settings: Settings, tmp_path: Path) -> None:
    """It goes on at the end of the topic; SIGTERM makes a whole recording of what was read, which a next command resumes."""
    out = tmp_path / "log.jsonl.zst"
    given = {"kafka.bootstrap_servers": settings.kafka.bootstrap_servers, "kafka.group_id": settings.kafka.group_id}
    command = Command({**given, "topics.readings": settings.topics.readings})
    running = subprocess.Popen(
        [*command.line("record", "--out", out, "--follow"), "--set", "log.format=json"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert running.stderr is not None
        for line in running.stderr:
            if json.loads(line)["event"] == "recording":
                break
        state.reset(settings, "pump-1", 0, lambda line: None)
        wait_until(lambda: running.poll() is None and b"pump-1" in readable(tmp_path / f".part-{out.name}"), "the newest record")
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
    finally:
        running.kill()
        running.communicate()
    assert len(list(Recording(out))) == 13
    state.reset(settings, "pump-2", 1, lambda line: None)
    assert command("record", "--out", out, "--resume").startswith("14 records of 2 partitions")
    assert [one.value for one in Recording(out) if one.key == RESET_KEY] == [b"pump-1", b"pump-2"]
    assert list(Recording(out).epochs) == [1]


def readable(part: Path) -> bytes:
    """What a crash would leave of a part file."""
    found = []
    with contextlib.suppress(RecordingError, OperatorError):
        found.extend(one.value or b"" for one in Recording(part))
    return b"".join(found)


def test_topics_are_named_by_what_they_are_to_us(settings: Settings, tmp_path: Path) -> None:
    """`--topic state` is the group's changelog, as no topic is called so."""
    said: list[str] = []
    record.run(settings, "state", tmp_path / "log.jsonl", say=said.append)
    assert f"of {settings.topic('state')} and 0 epochs" in said[0]


def test_recording_is_played_into_a_topic(settings: Settings, tmp_path: Path) -> None:
    """Every record arrives in its partition and order with its key, value and headers; its timestamp is now."""
    out, again = tmp_path / "log.jsonl", tmp_path / "again.jsonl"
    before = [
        Record("x", partition, offset, 1000 * offset, b"k", b"%d" % offset, (("h", b"1"),))
        for offset in range(5)
        for partition in (0, 1)
    ]
    with Writer(out) as writer:
        for one in before:
            writer.write(one)
    admin = connect(settings).admin()
    admin.create([TopicSpec(f"{settings.topics.readings}-copy", 2, {})])
    admin.close()
    said: list[str] = []
    started_s = time.monotonic()
    assert playback.run(settings, out, speed=4, topic=f"{settings.topics.readings}-copy", say=said.append) == 0
    assert time.monotonic() - started_s >= 1.0
    assert said[0].startswith(f"10 records of {out} sent to {settings.topics.readings}-copy in ")
    record.run(settings, f"{settings.topics.readings}-copy", again)
    bare = [[one[1:3] + one[4:] for one in log if one.partition == p] for log in (before, list(Recording(again))) for p in (0, 1)]
    assert bare[:2] == bare[2:]
    assert min(one.timestamp_ms for one in Recording(again)) > 1_700_000_000_000
    with pytest.raises(OperatorError, match="Topic 'absent' does not exist"):
        playback.run(settings, out, speed=4, topic="absent")
