"""The loop's order within a turn: what a poll brought is never taken for what a partition needs next."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from config.settings import load
from daemon.blocks import Mark
from daemon.brokers.port import Membership, Polled
from daemon.errors import Doubt
from daemon.http import Health
from daemon.loop import Loop
from daemon.metrics import Metrics
from daemon.ownership import Ownership
from daemon.pipeline import Outcome
from daemon.records import Record
from daemon.restore import Partition
from daemon.topics import Topics

MEMBER = Membership(1, "member", None)


class Pipeline:
    """Remembers the offsets it was given."""

    ahead = None

    def __init__(self, at: int) -> None:
        self.next_offset = at
        self.epochs = [SimpleNamespace(model_version="naive", first_offset=-1)]
        self.seen: list[int] = []
        self.table: Any = type("Table", (), {"nbytes": 0, "__len__": lambda _: 0})()

    def process(self, records: Sequence[Record], encodes: bool = True) -> Outcome:
        self.seen += [record.offset for record in records]
        self.next_offset = records[-1].offset + 1
        return Outcome()


class Consumer:
    """A log without end: each poll brings the next five records of partition 0."""

    def __init__(self) -> None:
        self.at = 0
        self.paused = False

    def poll(self, timeout_ms: int) -> Polled:
        if self.paused:
            return Polled({}, MEMBER)
        records = [Record("readings", 0, offset, 0, None, b"x") for offset in range(self.at, self.at + 5)]
        self.at += 5
        return Polled({0: records}, MEMBER)

    def pause(self, partitions: Sequence[int]) -> None:
        self.paused = True

    def resume(self, partitions: Sequence[int]) -> None:
        self.paused = False

    def seek(self, partition: int, offset: int) -> None:
        self.at = offset

    def high_watermark(self, partition: int) -> None:
        return None


class Restorer:
    """Restores at once, to offset 0."""

    def __init__(self) -> None:
        self.desired = SimpleNamespace(version="naive")
        self.restoring: frozenset[int] = frozenset()
        self.made: list[Partition] = []

    def add(self, partitions: Sequence[int], consumer: object) -> frozenset[int]:
        self.restoring = frozenset(partitions)
        return self.restoring

    def drop(self, partitions: Sequence[int]) -> None:
        self.restoring -= frozenset(partitions)

    def advance(self, consumer: object, timeout_ms: int) -> list[Partition]:
        done, self.restoring = [partition_at(0) for _ in self.restoring], frozenset()
        self.made += done
        return done


class Committer:
    """Its first commits are in doubt."""

    def __init__(self, doubts: int = 1) -> None:
        self.commits = -doubts
        self.checkpoints: list[tuple[int, int]] = []  # partition, offset

    def connect(self) -> None:
        pass

    def replace(self) -> None:
        pass

    def send(self, *_: object) -> None:
        pass

    def open_s(self) -> float:
        return 0.0

    def checkpoint(self, partitions: Sequence[Partition]) -> None:
        self.checkpoints += [(partition.number, partition.pipeline.next_offset) for partition in partitions]

    def commit(self, partitions: Mapping[int, Partition], *_: object) -> None:
        self.commits += 1
        if self.commits <= 0:
            raise Doubt("this commit is in doubt")


def partition_at(offset: int) -> Partition:
    pipeline: Any = Pipeline(offset)
    return Partition(0, pipeline, offset, Mark(1, offset, 0, 0, 0), None)


def make_loop(restorer: Restorer, committer: Any, partition: Partition) -> Loop:
    settings = load(None, {}, ["kafka.poll_interval_ms=0"])
    metrics, consumer = Metrics(), Consumer()
    given: Any = restorer
    own = Ownership(settings, given, lambda: Topics(1, 10**6), metrics)
    own.held[0] = partition
    broker: Any = SimpleNamespace(consumer=lambda: consumer)
    return Loop(settings, broker, own, committer, metrics, Health(30), threading.Event())


def test_an_epoch_starts_where_catch_up_ends_even_within_a_poll() -> None:
    """Its record and checkpoint go into the transaction of its first forecasts, at the very offset where these begin."""
    partition, committer = partition_at(0), Committer(doubts=0)
    started: Any = SimpleNamespace(first_offset=3)
    partition.emit_from, partition.started = 3, started
    make_loop(Restorer(), committer, partition)._turn()
    pipeline: Any = partition.pipeline
    assert pipeline.seen == [0, 1, 2, 3, 4]
    assert committer.checkpoints == [(0, 3)]


def test_a_partition_restored_after_a_doubt_reads_from_where_it_stands() -> None:
    """Records polled after the doubtful ones, before the restore, are read again and not taken for the next ones."""
    restorer = Restorer()
    loop = make_loop(restorer, Committer(), partition_at(0))
    with pytest.raises(Doubt) as doubt:
        loop._turn()
    loop._recover(doubt.value)
    for _ in range(4):
        loop._turn()
    seen: Any = restorer.made[-1].pipeline
    assert seen.seen[:6] == [0, 1, 2, 3, 4, 5]
    assert seen.seen == list(range(len(seen.seen)))


def test_a_swap_takes_until_its_last_partition_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is watched for a second, then they begin one a second; the metric has the time until the last one is through."""
    restorer: Any = Restorer()
    restorer.desired = Desired()
    metrics = Metrics()
    own = Ownership(load(None, {}, []), restorer, lambda: Topics(2, 10**6), metrics)
    own.held = {number: replace(partition_at(0), number=number) for number in (0, 1)}
    now_s = [100.0]
    monkeypatch.setattr("daemon.ownership.time.monotonic", lambda: now_s[0])
    begun = []
    for now_s[0] in (100.0, 100.5, 101.0, 101.5, 102.0, 102.5, 103.0):
        own.swap()
        begun.append(sum(partition.started is not None for partition in own.held.values()))
    assert begun == [0, 0, 1, 1, 2, 2, 2]
    assert metrics.registry.get_sample_value("recurd_swap_seconds_count") == 1
    assert metrics.registry.get_sample_value("recurd_swap_seconds_sum") == 3.0


def test_streams_go_over_in_the_time_that_rebuilding_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 rows at 2 ms each in a tenth of the time are 2 s: twice what the partition reads in one; then the next one begins."""
    restorer: Any = Restorer()
    restorer.desired = Desired(rebuild_s=0.002)
    own = Ownership(load(None, {}, ["state.rebuild_share=0.1"]), restorer, lambda: Topics(2, 10**6), Metrics())
    own.held = {number: replace(partition_at(0), number=number) for number in (0, 1)}
    now_s, begun = [100.0], []
    monkeypatch.setattr("daemon.ownership.time.monotonic", lambda: now_s[0])
    for partition in own.held.values():
        partition.pipeline.table = [None] * 100  # type: ignore[assignment]
    for now_s[0] in (100.0, 101.0, 103.9, 104.0):
        own.swap()
        begun.append([partition.started.handover_offsets for partition in own.held.values() if partition.started])  # type: ignore[attr-defined]
        for partition in own.held.values():
            partition.pipeline.next_offset += 500
    assert begun == [[], [1000], [1000], [1000, 750]]


class Desired:
    """Asks for another version than the pipelines have."""

    version = "new"

    def __init__(self, rebuild_s: float = 0.0) -> None:
        self.rebuild_s = rebuild_s

    def __call__(self, partition: int, offset: int, handover_offsets: int = 0) -> Any:
        return SimpleNamespace(first_offset=offset, model_version=self.version, handover_offsets=handover_offsets)


@pytest.mark.parametrize(("position", "lag"), [(7, 3), (9, 1), (10, 0), (None, 3), (5, 3)])
def test_markers_behind_the_last_record_are_no_lag(position: int | None, lag: int) -> None:
    """A producer's transaction ends with a marker that no poll brings: where the client has passed it, nothing waits."""
    loop = make_loop(Restorer(), Committer(0), partition_at(7))
    consumer: Any = SimpleNamespace(position=lambda _number: position)
    assert loop._lag(consumer, 0, 10) == lag
