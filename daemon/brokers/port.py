"""The port: what the loop needs of a Kafka client, and nothing else. One module a client implements it.

Rules every adapter keeps (reproduced defects of kafka-python stand behind most; tests/integration/test_client_contract.py):
- `Consumer.poll` snapshots the group membership right after the client's poll returns; where it is not stable the polled
  records are discarded and their positions set back, so that they come again.
- Rebalance callbacks only queue what they were told; `poll` hands it over.
- `Producer.commit` flushes with a time-out, checks **every** future, sends the offsets with the membership given, commits.
- Every call has a time-out; one that does not return in time raises `Doubt` and the producer must be closed and replaced.
- Everything is read committed, no auto-commit, no offset reset by the client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from daemon.records import Committed, Headers, Record


class Membership(NamedTuple):
    """An opaque snapshot of the consumer's place in its group, for fencing; `generation` is for log lines."""

    generation: int
    member: str
    token: Any


@dataclass(frozen=True)
class Polled:
    """What one poll brought.

    `records` are by input partition, each list in offset order. `changes` are the rebalance callbacks since the last poll, in
    order, already in the client's assignment. `membership` is None when the group is not stable; then `records` is empty and
    nothing may be committed. `out_of_range` are partitions whose position is below the log start or beyond its end.
    """

    records: Mapping[int, Sequence[Record]] = field(default_factory=dict)
    membership: Membership | None = None
    changes: Sequence[tuple[str, tuple[int, ...]]] = ()  # ("assigned" | "revoked" | "lost", partitions), in order
    out_of_range: Sequence[int] = ()


class Consumer(Protocol):
    """The group member that reads the input topic."""

    def poll(self, timeout_ms: int) -> Polled: ...
    def assignment(self) -> frozenset[int]: ...
    def seek(self, partition: int, offset: int) -> None: ...
    def position(self, partition: int) -> int | None: ...
    def pause(self, partitions: Sequence[int]) -> None: ...
    def resume(self, partitions: Sequence[int]) -> None: ...
    def committed(self, partition: int) -> Committed | None: ...  # stable; raises Pending while a newer one is open
    def log_range(self, partition: int) -> tuple[int, int]: ...  # first offset kept, last stable offset
    def offset_at(self, partition: int, time_ms: int) -> int: ...  # first offset with timestamp >= time; the end if none
    def high_watermark(self, partition: int) -> int | None: ...  # from the last fetch; no request
    def wake(self) -> None: ...
    def close(self) -> None: ...


class LastCommit(NamedTuple):
    """What a producer knows of its newest answered commit.

    Where a partition's newest record is one of these, whatever it still holds open was committed.
    """

    producer_id: int
    producer_epoch: int
    sequences: dict[tuple[str, int], int]  # of the last record, by (topic, partition); -1 where the first one came after it
    offsets_since: bool  # whether a later transaction sent offsets


class Producer(Protocol):
    """A producer, transactional where it was made with a transactional id.

    Untransacted: `send` then `flush`. Transacted: `begin`, `send`..., then `commit`; or `abort`.
    After any raised error the producer is dead, a transacted one also when it loses a broker, before it could write to one that
    came back (H10): `close` it and make another.
    """

    last_commit: LastCommit | None  # of those that were answered

    def alive(self) -> bool: ...
    def begin(self) -> None: ...
    def send(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> None: ...
    def flush(self) -> None: ...  # every sent record acknowledged, or raises Doubt
    def commit(self, offsets: Mapping[int, Committed], membership: Membership | None) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class LogReader(Protocol):
    """Reads topics from a position to an end, read committed, outside any group (changelog, epochs, models, `record`)."""

    def partitions(self, topic: str) -> list[int]: ...
    def high_watermark(self, topic: str, partition: int) -> int: ...  # read uncommitted: open transactions count
    def log_start(self, topic: str, partition: int) -> int: ...
    def offset_at(self, topic: str, partition: int, time_ms: int) -> int: ...  # first with timestamp >= time; the end if none
    def assign(self, positions: Mapping[tuple[str, int], int]) -> None: ...
    def poll(self, timeout_ms: int) -> dict[tuple[str, int], Sequence[Record]]: ...
    def position(self, topic: str, partition: int) -> int: ...  # next offset; passes control records and compacted gaps
    def close(self) -> None: ...


class TopicSpec(NamedTuple):
    """A topic that recurd needs. `settings` are checked on an existing topic and set on a new one."""

    name: str
    partitions: int
    settings: Mapping[str, str]


class TopicState(NamedTuple):
    """A topic as it is."""

    partitions: int
    settings: Mapping[str, str]


class EndedTransaction(NamedTuple):
    """A transaction that a partition still held open although the broker took it for ended."""

    topic: str
    partition: int
    first_offset: int
    committed: bool  # or aborted


class Admin(Protocol):
    """Administration of topics at start, and of transactions that the broker has lost."""

    def describe(self, names: Sequence[str]) -> dict[str, TopicState]: ...  # absent names are absent
    def create(self, specs: Sequence[TopicSpec]) -> None: ...  # an existing one is fine
    def grow(self, name: str, partitions: int) -> None: ...
    def committed(self, topic: str) -> dict[int, int]: ...  # the group's committed offsets, by partition; no member is asked
    def end_hanging(
        self, topics: Sequence[str], transactional_id: str, last: LastCommit | None = None
    ) -> Sequence[EndedTransaction]: ...
    def close(self) -> None: ...


class Broker(Protocol):
    """A client library with its settings: makes the above. Constructors retry nothing; they raise `Unreachable`."""

    def consumer(self) -> Consumer: ...
    def producer(self, transactional_id: str | None) -> Producer: ...
    def reader(self) -> LogReader: ...
    def admin(self) -> Admin: ...
