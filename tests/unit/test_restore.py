"""Restoring beside another owner, on logs in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from config.settings import Settings
from daemon import blocks
from daemon.blocks import MARK_KEY, Mark
from daemon.epochs import Epoch
from daemon.errors import Pending, StateError
from daemon.records import Committed, Record
from daemon.restore import Restorer
from models.chain import Chain
from models.layout import ENGINE_VERSION

SETTINGS = Settings.model_validate({"model": {"kind": "chain"}})
STATE, EPOCHS = SETTINGS.topic("state"), SETTINGS.topic("epochs")
EPOCH = Epoch(0, 0, "chain", SETTINGS.engine(), ENGINE_VERSION, "chain")


class Logs:
    """Topics of one partition, a reader of them and the committed offset: the parts of the port that a restore uses."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Record]] = {STATE: [], EPOCHS: []}
        self.newest: Committed | None = None
        self.pending = False
        self._positions: dict[tuple[str, int], int] = {}

    def append(self, topic: str, key: bytes, value: bytes) -> None:
        self.topics[topic].append(Record(topic, 0, len(self.topics[topic]), 0, key, value))

    def checkpoint(self, sequence: int, offset: int) -> None:
        """What one transaction of an owner leaves."""
        mark = Mark(sequence, offset, 0, 0, 0)
        self.append(STATE, MARK_KEY, blocks.encode_mark(mark))
        self.newest = Committed(offset, blocks.mark_metadata(mark))

    # Broker, LogReader and Consumer

    def reader(self) -> Logs:
        return self

    def high_watermark(self, topic: str, _partition: int) -> int:
        return len(self.topics[topic])

    def log_start(self, _topic: str, _partition: int) -> int:
        return 0

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        self._positions = dict(positions)

    def poll(self, _timeout_ms: int) -> dict[tuple[str, int], Sequence[Record]]:
        found = {place: self.topics[place[0]][position:] for place, position in self._positions.items()}
        self._positions = {place: len(self.topics[place[0]]) for place in self._positions}
        return {place: records for place, records in found.items() if records}

    def position(self, topic: str, partition: int) -> int:
        return self._positions[topic, partition]

    def close(self) -> None:
        """Nothing to close."""

    def committed(self, _partition: int) -> Committed | None:
        if self.pending:
            raise Pending("a commit is open")
        return self.newest

    def log_range(self, _partition: int) -> tuple[int, int]:
        return 0, 100


@pytest.fixture
def logs() -> Logs:
    """A partition whose first checkpoint stands at offset 10."""
    made = Logs()
    made.append(EPOCHS, EPOCH.key(), EPOCH.to_bytes())
    made.checkpoint(1, 10)
    return made


def restorer(logs: Any) -> Restorer:
    return Restorer(SETTINGS, logs, lambda epoch: Chain(epoch.to_bytes()), lambda _n, _o: EPOCH, lambda _name: nullcontext())


def test_a_quiet_partition_is_restored_at_once(logs: Any) -> None:
    """Mark and commit agree: it goes on at the mark."""
    ours = restorer(logs)
    assert ours.add([0], logs) == {0}
    (partition,) = ours.advance(logs, 1)
    assert (partition.mark.sequence, partition.pipeline.next_offset, partition.emit_from) == (1, 10, 10)
    assert ours.restoring == frozenset()


def test_another_owner_that_commits_meanwhile_is_no_damage(logs: Any) -> None:
    """A process that was replaced without being told finds a newer mark than its commit names: it reads again."""
    ours = restorer(logs)
    ours.add([0], logs)
    logs.checkpoint(2, 20)
    assert ours.advance(logs, 1) == []
    assert ours.restoring == {0}
    (partition,) = ours.advance(logs, 1)
    assert (partition.mark.sequence, partition.committed) == (2, logs.newest)


def test_an_open_commit_is_waited_for(logs: Any) -> None:
    """Whether the changelog that was read is the newest cannot be known while a commit is open."""
    ours = restorer(logs)
    ours.add([0], logs)
    logs.pending = True
    assert ours.advance(logs, 1) == []
    logs.pending = False
    assert len(ours.advance(logs, 1)) == 1


def test_a_mark_that_no_commit_names_is_refused(logs: Any) -> None:
    """Where nobody else commits, a contradiction is damage, and the operator is told."""
    logs.append(STATE, MARK_KEY, blocks.encode_mark(Mark(7, 70, 0, 0, 0)))
    ours = restorer(logs)
    ours.add([0], logs)
    with pytest.raises(StateError, match="names checkpoint 1 at offset 10, the changelog holds checkpoint 7 at offset 70"):
        ours.advance(logs, 1)
