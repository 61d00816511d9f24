"""What every adapter of the port must do, shown on a real broker; most of it closes a defect of the client (operations.md 2.2).

Tests named `test_defect_...` show a defect itself, not our remedy: one that fails after an upgrade tells that it is mended.
"""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import kafka.errors as kafka_errors
import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import MemberToRemove
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.producer.transaction_manager import ProducerIdAndEpoch, TransactionManager, TransactionState
from kafka.structs import OffsetAndMetadata

from daemon.brokers import hanging, kafka_python
from daemon.brokers.dev import DevBroker
from daemon.brokers.kafka_python import (
    ClientOptions,
    KafkaPythonBroker,
    KafkaPythonConsumer,
    KafkaPythonProducer,
    KafkaPythonReader,
)
from daemon.brokers.port import LastCommit, Membership, Polled, TopicSpec
from daemon.errors import BrokerError, Doubt, FatalBrokerError, Fenced, Pending, Unreachable
from daemon.records import Committed, Record

Unique = Callable[[str], str]


class Clients:
    """Clients of one test on one broker, closed at its end."""

    def __init__(self, bootstrap: str, unique: Unique, **options: Any) -> None:
        self._unique = unique
        self._stack = ExitStack()
        topic = unique("readings")
        wanted = {"group_id": unique("group"), "session_timeout_ms": 6000, "heartbeat_interval_ms": 200, **options}
        self.options = ClientOptions(bootstrap, topic=topic, **wanted)
        self.topic = topic

    def broker(self, **options: Any) -> KafkaPythonBroker:
        return KafkaPythonBroker(replace(self.options, **options))

    def create(self, topic: str | None = None, partitions: int = 1, **settings: str) -> str:
        spec = TopicSpec(topic or self.topic, partitions, {key.replace("_", "."): value for key, value in settings.items()})
        admin = self.broker().admin()
        admin.create([spec])
        admin.close()
        return spec.name

    def consumer(self, **options: Any) -> KafkaPythonConsumer:
        return self._closing(self.broker(**options).consumer())

    def producer(self, transactional_id: str | None = None, **options: Any) -> KafkaPythonProducer:
        return self._closing(self.broker(**options).producer(transactional_id))

    def transactional(self, **options: Any) -> KafkaPythonProducer:
        return self.producer(self._unique("transaction"), **options)

    def reader(self, **options: Any) -> KafkaPythonReader:
        return self._closing(self.broker(**options).reader())

    def fill(self, count: int, topic: str | None = None, partition: int = 0) -> None:
        producer = self.broker().producer(None)
        for number in range(count):
            producer.send(topic or self.topic, partition, None, b"%d" % number)
        producer.flush()
        producer.close()

    def close(self) -> None:
        self._stack.close()

    def _closing(self, client: Any) -> Any:
        self._stack.callback(client.close)
        return client


@pytest.fixture
def clients(broker: DevBroker, unique: Unique) -> Iterator[Clients]:
    made = Clients(broker.bootstrap, unique)
    yield made
    made.close()


def until(wanted: Callable[[Polled], Any], *consumers: KafkaPythonConsumer, timeout_s: float = 20.0) -> Polled:
    """Poll all consumers in turn until the first one's result is as wanted."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        polled = consumers[0].poll(100)
        if wanted(polled):
            return polled
        for other in consumers[1:]:
            other.poll(100)
    raise AssertionError("not in time")


def assigned(polled: Polled) -> bool:
    return any(kind == "assigned" for kind, _ in polled.changes)


def joined(consumer: KafkaPythonConsumer, *others: KafkaPythonConsumer) -> Membership:
    """Poll until the consumer is a stable member with partitions that are sought to their start."""
    until(assigned, consumer, *others)
    membership = until(lambda polled: polled.membership, consumer, *others).membership
    assert membership is not None
    for partition in consumer.assignment():
        consumer.seek(partition, 0)
    return membership


def offsets_of(records: Sequence[Record]) -> list[int]:
    return [record.offset for record in records]


def committed(consumer: KafkaPythonConsumer, timeout_s: float = 20.0) -> Committed | None:
    """The committed offset of partition 0, asked again while it is pending."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return consumer.committed(0)
        except Pending:
            assert time.monotonic() < deadline_s


def visible(clients: Clients, topic: str) -> list[bytes | None]:
    """What a read-committed reader sees up to the high watermark of partition 0."""
    reader = clients.reader()
    end = reader.high_watermark(topic, 0)
    reader.assign({(topic, 0): 0})
    seen: list[bytes | None] = []
    deadline_s = time.monotonic() + 20
    while reader.position(topic, 0) < end:
        assert time.monotonic() < deadline_s, "the reader does not come to the end"
        for records in reader.poll(500).values():
            seen.extend(record.value for record in records)
    return seen


@contextmanager
def within(most_s: float) -> Iterator[None]:
    """Fail where the block takes longer."""
    start_s = time.monotonic()
    yield
    taken_s = time.monotonic() - start_s
    assert taken_s < most_s, f"took {taken_s:.1f} s, more than {most_s} s"


# -- reading --------------------------------------------------------------------------------------------------------------


def test_record_round_trip(clients: Clients) -> None:
    """Key, value, headers, timestamp and position arrive as sent; a tombstone stays one."""
    clients.create(partitions=2)
    producer = clients.producer()
    before_ms = int(time.time() * 1000)
    producer.send(clients.topic, 1, b"key", b"value", (("source", b"0,1,2"), ("empty", b"")))
    producer.send(clients.topic, 1, b"gone", None)
    producer.flush()
    consumer = clients.consumer()
    joined(consumer)
    first, second = until(lambda polled: polled.records.get(1), consumer).records[1]
    assert first == Record(clients.topic, 1, 0, first.timestamp_ms, b"key", b"value", (("source", b"0,1,2"), ("empty", b"")))
    assert before_ms <= first.timestamp_ms <= time.time() * 1000
    assert (second.offset, second.key, second.value, second.headers) == (1, b"gone", None, ())


def test_assigned_partition_is_held_until_it_is_sought(clients: Clients) -> None:
    """Whether or not an offset is committed, no record comes from a position that the loop has not chosen."""
    clients.create(partitions=2)
    for partition in (0, 1):
        clients.fill(3, partition=partition)
    first = clients.consumer()
    membership = joined(first)
    producer = clients.transactional()
    producer.begin()
    producer.commit({0: Committed(1, "")}, membership)
    first.close()
    consumer = clients.consumer()
    until(assigned, consumer)
    assert not any(consumer.poll(100).records for _ in range(5))
    consumer.seek(0, 2)
    assert offsets_of(until(lambda polled: polled.records, consumer).records[0]) == [2]
    consumer.pause([0, 1])
    consumer.seek(1, 0)
    assert not any(consumer.poll(100).records for _ in range(3))
    consumer.resume([1])
    assert offsets_of(until(lambda polled: polled.records, consumer).records[1]) == [0, 1, 2]


def test_out_of_range_is_told_and_stops_only_its_partition(clients: Clients, broker: DevBroker) -> None:
    """A position below the log's start or beyond its end is in `out_of_range`; the other partition goes on; nothing is reset."""
    clients.create(partitions=2)
    for partition in (0, 1):
        clients.fill(5, partition=partition)
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
        admin.delete_records({TopicPartition(clients.topic, 0): 3})
    consumer = clients.consumer()
    joined(consumer)
    got: dict[int, list[int]] = {0: [], 1: []}
    lost: list[int] = []

    def collect(polled: Polled) -> bool:
        for partition, records in polled.records.items():
            got[partition] += offsets_of(records)
        lost.extend(polled.out_of_range)
        return bool(lost) and len(got[1]) == 5

    consumer.seek(1, 0)
    until(collect, consumer)
    assert lost == [0]
    assert got == {0: [], 1: [0, 1, 2, 3, 4]}
    assert consumer.log_range(0) == (3, 5)
    consumer.seek(0, 3)
    assert offsets_of(until(lambda polled: polled.records, consumer).records[0]) == [3, 4]
    consumer.seek(0, 100)
    assert until(lambda polled: polled.out_of_range, consumer).out_of_range == [0]


def test_truncated_log_is_out_of_range(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that an unclean election cut below the position is told like any unusable position."""
    clients.create()
    consumer = clients.consumer()
    joined(consumer)

    def truncated(_timeout_ms: int) -> None:
        raise kafka_errors.LogTruncationError({TopicPartition(clients.topic, 0): None})

    with monkeypatch.context() as patch:
        patch.setattr(consumer._consumer, "poll", truncated)
        assert consumer.poll(0).out_of_range == [0]


def test_offsets_and_ends(clients: Clients) -> None:
    """The log's range, the offset at a time (the end where none is late enough), position and high watermark."""
    clients.create()
    clients.fill(4)
    consumer = clients.consumer()
    joined(consumer)
    records = until(lambda polled: polled.records, consumer).records[0]
    assert consumer.log_range(0) == (0, 4)
    assert consumer.offset_at(0, records[0].timestamp_ms) == 0
    assert consumer.offset_at(0, records[-1].timestamp_ms + 1) == 4
    assert consumer.position(0) == 4
    assert consumer.high_watermark(0) == 4
    assert consumer.high_watermark(7) is None
    assert committed(consumer) is None


def test_wake_ends_a_poll(clients: Clients) -> None:
    """`wake` from another thread ends a long poll within a moment; woken before, the next poll does not wait."""
    clients.create()
    consumer = clients.consumer()
    joined(consumer)
    threading.Timer(0.2, consumer.wake).start()
    start_s = time.monotonic()
    consumer.poll(20_000)
    consumer.wake()
    consumer.poll(20_000)
    assert time.monotonic() - start_s < 2


# -- membership -----------------------------------------------------------------------------------------------------------


def test_membership_is_none_while_the_group_rebalances(clients: Clients) -> None:
    """A member that waits for the others has no membership and no records."""
    clients.create(partitions=2)
    clients.fill(1)
    first, second = clients.consumer(), clients.consumer()
    joined(first)
    assert second.poll(500) == Polled({}, None, [], [])
    joined(second, first)
    assert first.assignment() | second.assignment() == {0, 1}


def test_records_of_an_unstable_group_come_again(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the snapshot after a poll is not a stable membership, the polled records are given back."""
    clients.create()
    clients.fill(3)
    consumer = clients.consumer()
    joined(consumer)
    consumer.seek(0, 0)
    with monkeypatch.context() as patch:
        patch.setattr(consumer, "_membership", lambda: None)
        assert [consumer.poll(300) for _ in range(3)] == [Polled({}, None, [], [])] * 3
    assert offsets_of(until(lambda polled: polled.records, consumer).records[0]) == [0, 1, 2]


def test_membership_of_the_poll_commits_after_an_unrelated_member_joined(clients: Clients) -> None:
    """No callback tells of a member that takes nothing, so the assignment's snapshot is refused and the poll's is not."""
    clients.create()
    consumer = clients.consumer()
    before = joined(consumer)
    idle = clients.consumer()
    until(lambda polled: polled.membership, idle, consumer)
    polled = until(lambda polled: polled.membership and polled.membership.generation > before.generation, consumer, idle)
    assert not polled.changes
    producer = clients.transactional()
    producer.begin()
    producer.commit({0: Committed(1, "")}, polled.membership)
    producer.begin()
    with pytest.raises(Doubt, match="CommitFailedError"):
        producer.commit({0: Committed(2, "")}, before)
    assert committed(consumer) == Committed(1, "")


def zombie(clients: Clients, bootstrap: str) -> tuple[KafkaPythonConsumer, Membership, KafkaPythonConsumer]:
    """A member that was evicted while it worked and knows so only in the background; its last membership; its successor."""
    old = clients.consumer()
    membership = joined(old)
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        admin.remove_group_members(clients.options.group_id, [MemberToRemove(member_id=membership.member)])
    new = clients.consumer()
    joined(new)
    deadline_s = time.monotonic() + 10
    while old._consumer.group_metadata().member_id:
        assert time.monotonic() < deadline_s, "the heartbeat did not learn of the eviction"
        time.sleep(0.05)
    return old, membership, new


def test_zombie_is_fenced_by_the_membership_of_its_poll(clients: Clients, broker: DevBroker) -> None:
    """What a member polled before it was evicted cannot be committed after: neither offsets nor records."""
    clients.create()
    output = clients.create(clients.topic + "-out")
    _, membership, new = zombie(clients, broker.bootstrap)
    producer = clients.transactional()
    producer.begin()
    producer.send(output, 0, None, b"of the zombie")
    with pytest.raises(Doubt, match="CommitFailedError"):
        producer.commit({0: Committed(5, "zombie")}, membership)
    producer.close()
    assert committed(new) is None
    replacement = clients.producer(producer._producer.config["transactional_id"])  # aborts at once
    replacement.begin()
    replacement.send(output, 0, None, b"of the owner")
    replacement.commit({}, None)
    assert visible(clients, output) == [b"of the owner"]


def test_defect_h3_the_documented_way_lets_a_zombie_commit(clients: Clients, broker: DevBroker) -> None:
    """`group_metadata()` asked at commit time is empty after an eviction, and the broker lets an empty one pass."""
    clients.create()
    old, _, new = zombie(clients, broker.bootstrap)
    producer = clients.transactional()
    producer.begin()
    late = old._consumer.group_metadata()
    producer.commit({0: Committed(5, "zombie")}, Membership(late.generation_id, late.member_id, late))
    assert committed(new) == Committed(5, "zombie")


def test_h8_join_that_outlasts_a_poll_is_not_forgotten(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader rejoins because the topic grew, and its poll ends between its assignment and the group's answer.

    The client starts such a join by comparing what it knows of the topic, and has nothing left to compare at the next poll:
    it would leave the answer unread, send no heartbeats and be without partitions for ever.
    """
    assign = CooperativeStickyAssignor.assign

    def slow(*given: Any) -> Any:
        time.sleep(0.3)  # longer than a slice of a poll
        return assign(*given)

    monkeypatch.setattr(kafka_python, "METADATA_MAX_AGE_MS", 200)
    clients.create(partitions=1)
    consumer = clients.consumer()
    joined(consumer)
    monkeypatch.setattr(CooperativeStickyAssignor, "assign", slow)
    admin = clients.broker().admin()
    admin.grow(clients.topic, 2)
    admin.close()
    until(assigned, consumer)
    assert consumer.assignment() == {0, 1}
    assert until(lambda polled: polled.membership, consumer)


def test_h9_members_that_work_between_polls_come_to_an_assignment(clients: Clients) -> None:
    """A join that ends while its member works counts: the group settles in a few generations, not one for every poll."""
    clients.create(partitions=4)
    both = [clients.consumer(), clients.consumer()]
    joined(both[0])
    deadline_s = time.monotonic() + 30
    while True:
        polled = []
        for consumer in both:
            polled.append(consumer.poll(0))
            time.sleep(0.3)
        generations = {each.membership.generation for each in polled if each.membership}
        if all(each.membership for each in polled) and [len(each.assignment()) for each in both] == [2, 2]:
            break
        assert time.monotonic() < deadline_s, "the group does not settle"
    assert len(generations) == 1
    assert max(generations) <= 6


def test_static_member_comes_back_without_a_rebalance(clients: Clients) -> None:
    """A process with an instance id restarts: it gets its partitions back and the other member notices nothing."""
    clients.create(partitions=4)
    first, second = clients.consumer(instance_id="a"), clients.consumer(instance_id="b")
    joined(first)
    joined(second, first)
    until(lambda polled: polled.membership and len(first.assignment()) == 2, first, second)
    owned = first.assignment()
    first.close()
    again = clients.consumer(instance_id="a")
    until(assigned, again)
    assert again.assignment() == owned
    assert not [polled.changes for polled in (second.poll(100) for _ in range(8)) if polled.changes]


def test_second_holder_of_an_instance_id_fences_the_first(clients: Clients) -> None:
    """Two processes with one instance id: the older one's commit is refused as fenced."""
    clients.create()
    first = clients.consumer(instance_id="a")
    membership = joined(first)
    joined(clients.consumer(instance_id="a"))
    producer = clients.transactional()
    producer.begin()
    with pytest.raises(Fenced, match="FencedInstanceIdError"):
        producer.commit({0: Committed(1, "")}, membership)


# -- transactions ---------------------------------------------------------------------------------------------------------


def test_committed_offset_carries_its_metadata(clients: Clients) -> None:
    """The mark named in a commit is read back with the offset."""
    clients.create()
    consumer = clients.consumer()
    membership = joined(consumer)
    producer = clients.transactional()
    producer.begin()
    producer.commit({0: Committed(3, "recurd1 7 2")}, membership)
    assert committed(consumer) == Committed(3, "recurd1 7 2")


def test_committed_offsets_are_told_without_joining(clients: Clients) -> None:
    """An admin tells the group's committed offsets; partitions without one are absent, and so are other topics."""
    clients.create(partitions=2)
    consumer = clients.consumer()
    membership = joined(consumer)
    producer = clients.transactional()
    producer.begin()
    producer.commit({0: Committed(7, "")}, membership)
    assert committed(consumer) == Committed(7, "")  # its marker is written: until then the transaction is open for an admin
    admin = clients.broker().admin()
    try:
        assert admin.committed(clients.topic) == {0: 7}
        assert admin.committed("another") == {}
    finally:
        admin.close()


def test_offsets_without_a_membership_are_refused(clients: Clients) -> None:
    """The broker would take them of anybody."""
    clients.create()
    producer = clients.transactional()
    producer.begin()
    with pytest.raises(ValueError, match="membership"):
        producer.commit({0: Committed(3, "")}, None)


def test_committed_offset_is_stable(clients: Clients) -> None:
    """While a transaction holds a newer offset there is no answer but "ask again", and that soon."""
    clients.create()
    consumer = clients.consumer()
    membership = joined(consumer)
    assert committed(consumer) is None
    producer = clients.transactional()
    producer.begin()
    pending = {TopicPartition(clients.topic, 0): OffsetAndMetadata(9, "", -1)}
    producer._producer.send_offsets_to_transaction(pending, membership.token)
    with within(2.0), pytest.raises(Pending, match="committed offset"):
        consumer.committed(0)
    producer.abort()
    assert committed(consumer) is None


def test_high_watermark_counts_an_open_transaction(clients: Clients) -> None:
    """A restore waits for what a dead owner left open: the reader's end counts it, the last stable offset does not."""
    clients.create()
    consumer = clients.consumer()
    joined(consumer)
    producer = clients.transactional()
    producer.begin()
    producer.send(clients.topic, 0, None, b"x")
    producer.flush()
    reader = clients.reader()
    reader.assign({(clients.topic, 0): 0})
    assert reader.high_watermark(clients.topic, 0) == 1
    assert consumer.log_range(0) == (0, 0)
    assert reader.poll(300) == {}
    assert reader.position(clients.topic, 0) == 0
    producer.commit({}, None)
    assert visible(clients, clients.topic) == [b"x"]


def test_aborted_transaction_is_invisible_and_passed(clients: Clients) -> None:
    """Aborted records and control records are not given, but the position passes them, without waiting for the time-out."""
    clients.create()
    producer = clients.transactional()
    producer.begin()
    producer.send(clients.topic, 0, None, b"aborted")
    producer.flush()
    producer.abort()
    reader = clients.reader()
    end = reader.high_watermark(clients.topic, 0)
    reader.assign({(clients.topic, 0): 0})
    start_s = time.monotonic()
    while reader.position(clients.topic, 0) < end:
        assert reader.poll(20_000) == {}
    assert end == 2
    assert time.monotonic() - start_s < 5
    producer.begin()
    producer.send(clients.topic, 0, None, b"committed")
    producer.commit({}, None)
    assert visible(clients, clients.topic) == [b"committed"]


def test_newer_holder_of_a_transactional_id_fences_the_older(clients: Clients) -> None:
    """Taking over an id aborts what its holder left open, and the holder is told at its commit."""
    clients.create()
    old = clients.transactional()
    old.begin()
    old.send(clients.topic, 0, None, b"old")
    old.flush()
    new = clients.producer(old._producer.config["transactional_id"])
    new.begin()
    new.send(clients.topic, 0, None, b"new")
    new.commit({}, None)
    with pytest.raises(Fenced):
        old.commit({}, None)
    assert visible(clients, clients.topic) == [b"new"]


@pytest.mark.parametrize("transacted", [True, False])
def test_h7_oversized_record_kills_its_producer_only(clients: Clients, transacted: bool) -> None:
    """A record that the broker refuses leaves nothing of its transaction, and the replacement works."""
    clients.create()
    small = clients.create(clients.topic + "-dead", max_message_bytes="1000")
    producer = clients.transactional() if transacted else clients.producer()
    identity = producer._producer.config["transactional_id"]
    if transacted:
        producer.begin()
    producer.send(clients.topic, 0, None, b"beside")
    producer.send(small, 0, None, b"x" * 2000, (("error", b"y" * 100),))
    with pytest.raises(FatalBrokerError, match="MessageSizeTooLarge"):
        producer.commit({}, None) if transacted else producer.flush()
    with pytest.raises(Doubt, match="replace it"):
        producer.begin()
    producer.close()
    producer = clients.producer(identity)
    if transacted:
        producer.begin()
    producer.send(small, 0, None, b"x")
    producer.commit({}, None) if transacted else producer.flush()
    assert visible(clients, small) == [b"x"]
    assert visible(clients, clients.topic) == ([] if transacted else [b"beside"])


def test_record_beyond_the_request_size_is_refused(clients: Clients) -> None:
    """What the client itself refuses is an error of ours too."""
    clients.create()
    producer = clients.producer(max_request_size=1000)
    with pytest.raises(FatalBrokerError, match="MessageSizeTooLarge"):
        producer.send(clients.topic, 0, None, b"x" * 2000)


def test_defect_h1_and_h2_on_the_class() -> None:
    """An expired batch leaves its transaction committable; an epoch bump while committing reports an aborted one as committed."""

    class Batch:
        topic_partition = TopicPartition("t", 0)

    manager = TransactionManager(transactional_id="x", transaction_timeout_ms=1000, api_version=(4, 2))
    manager._current_state = TransactionState.IN_TRANSACTION
    manager.producer_id_and_epoch = ProducerIdAndEpoch(1, 0)
    assert manager.classify_batch_error(kafka_errors.KafkaTimeoutError("expired"), Batch()) == "RETRIABLE"
    manager._transaction_started = True
    commit = manager.begin_commit()
    manager.bump_producer_id_and_epoch()
    bump = manager.next_request_handler(False)

    class Answer:
        error_code, producer_id, producer_epoch = 0, 1, 1

    bump.handle_response(Answer)
    with pytest.raises(kafka_errors.KafkaError, match="Invalid transition"):
        manager.next_request_handler(False)
    assert commit.succeeded


# -- broken brokers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    with DevBroker(tmp_path_factory.mktemp("mortal")) as running:
        yield running


def left_open(clients: Clients) -> tuple[KafkaPythonConsumer, Membership, KafkaPythonProducer]:
    """A joined member and a producer whose open transaction has one acknowledged record."""
    clients.create()
    consumer = clients.consumer()
    membership = joined(consumer)
    producer = clients.transactional()
    producer.begin()
    producer.send(clients.topic, 0, None, b"lost")
    producer.flush()
    return consumer, membership, producer


def taken_over(clients: Clients, identity: str) -> KafkaPythonProducer:
    """A producer that takes a transactional id as the daemon does: what the broker has lost is ended before and after."""
    admin = clients.broker(call_timeout_s=12.0).admin()
    admin.end_hanging([clients.topic], identity)
    producer = clients.producer(identity, call_timeout_s=12.0)
    admin.end_hanging([clients.topic], identity)
    admin.close()
    return producer


def test_h10_markers_that_a_returning_broker_skipped_are_written(mortal: DevBroker, unique: Unique) -> None:
    """A transaction that times out while the broker is down hangs or becomes visible with the next commit, offsets too."""
    clients = Clients(
        mortal.bootstrap,
        unique,
        transaction_timeout_ms=2000,
        delivery_timeout_ms=1500,
        request_timeout_ms=1000,
        call_timeout_s=2.0,
    )
    consumer, membership, producer = left_open(clients)
    identity = producer._producer.config["transactional_id"]
    pending = {TopicPartition(clients.topic, 0): OffsetAndMetadata(9, "", -1)}
    producer._producer.send_offsets_to_transaction(pending, membership.token)
    mortal.kill()
    producer.close()
    consumer.close()
    time.sleep(2.0)
    mortal.start()
    replacement = taken_over(clients, identity)
    assert committed(clients.consumer()) is None
    assert visible(clients, clients.topic) == []
    replacement.begin()
    replacement.send(clients.topic, 0, None, b"kept")
    replacement.commit({}, None)
    assert visible(clients, clients.topic) == [b"kept"]
    assert committed(clients.consumer()) is None
    clients.close()


def test_h10_a_live_transaction_is_left_alone(clients: Clients) -> None:
    """Neither an open transaction nor a finished one is touched; the marker for a commit is one."""
    clients.create()
    live, done = clients.transactional(), clients.transactional()
    done.begin()
    done.send(clients.topic, 0, None, b"done")
    done.commit({}, None)
    live.begin()
    live.send(clients.topic, 0, None, b"live")
    live.flush()
    admin = clients.broker().admin()
    assert admin.end_hanging([clients.topic, "absent"], live._producer.config["transactional_id"]) == []
    live.commit({}, None)
    assert visible(clients, clients.topic) == [b"done", b"live"]
    live.begin()
    live.send(clients.topic, 0, None, b"marked")
    live.flush()
    (held,) = hanging._held_open(admin._admin, [TopicPartition(clients.topic, 0)])
    hanging._write_marker(admin._admin, held, committed=True)
    assert visible(clients, clients.topic) == [b"done", b"live", b"marked"]
    admin.close()


def test_h10_a_producer_writes_no_more_once_it_lost_a_broker(mortal: DevBroker, unique: Unique) -> None:
    """Between two transactions it says so, in one it fails, and a broker that is back gets nothing of it."""
    clients = Clients(mortal.bootstrap, unique)
    clients.create()
    idle, busy = clients.transactional(), clients.transactional()
    for producer in (idle, busy):
        producer.begin()
        producer.send(clients.topic, 0, None, b"kept")
        producer.commit({}, None)
        assert producer.alive()
    busy.begin()
    busy.send(clients.topic, 0, None, b"lost")
    mortal.restart()
    assert not idle.alive()
    with within(1.0), pytest.raises(Doubt, match="connection to broker 1 was lost"):
        idle.begin()
    with within(1.0), pytest.raises(Doubt, match="connection to broker 1 was lost"):
        busy.commit({}, None)
    assert patiently(lambda: visible(clients, clients.topic)) == [b"kept", b"kept"]
    clients.close()


def test_h10_what_was_answered_is_committed_whatever_began_since(clients: Clients) -> None:
    """A partition whose newest record is of the answered commit gets its marker; one with a newer record is left alone."""
    _consumer, membership, producer = left_open(clients)
    pending = {TopicPartition(clients.topic, 0): OffsetAndMetadata(9, "", -1)}
    producer._producer.send_offsets_to_transaction(pending, membership.token)
    identity = producer._producer.config["transactional_id"]
    number = producer._producer._transaction_manager.producer_id_and_epoch.producer_id
    answered = LastCommit(number, 0, {(clients.topic, 0): 0}, offsets_since=False)
    admin = clients.broker().admin()
    begun_since = answered._replace(sequences={(clients.topic, 0): -1}, offsets_since=True)
    for other in (None, answered._replace(producer_id=number + 1), answered._replace(producer_epoch=1), begun_since):
        assert admin.end_hanging([clients.topic], identity, other) == []
    ended = admin.end_hanging([clients.topic], identity, answered)
    assert {(each.topic, each.committed) for each in ended} == {(clients.topic, True), ("__consumer_offsets", True)}
    clients.producer(identity)  # aborts what it takes for open
    assert visible(clients, clients.topic) == [b"lost"]
    assert committed(clients.consumer()) == Committed(9, "")
    admin.close()


@pytest.mark.parametrize(
    ("text", "hashed"), [("", 0), ("recurd", 934903081), ("polygenelubricants", 0), ("gr\u00fc\U0001f600", 100533908)]
)
def test_h10_group_is_found_on_the_offsets_topic(text: str, hashed: int) -> None:
    """What Java's hashCode says of a group, as Kafka makes it positive."""
    assert hanging.java_hash(text) == hashed


def test_h4_commit_without_a_broker_is_doubt_in_time(mortal: DevBroker, unique: Unique) -> None:
    """Every call ends within its time-out when the broker is gone, close at once; the replacement finds all of it or nothing."""
    clients = Clients(mortal.bootstrap, unique, call_timeout_s=3.0)
    consumer, membership, producer = left_open(clients)
    identity = producer._producer.config["transactional_id"]
    mortal.kill()
    with within(3.5), pytest.raises(Doubt, match=r"no answer in|connection to broker 1 was lost"):
        producer.commit({0: Committed(1, "")}, membership)
    with within(1.5):
        producer.close()
    with within(1.5), pytest.raises(Doubt, match="replace it"):
        producer.abort()
    with within(4.5), pytest.raises((Pending, Unreachable), match="committed offset"):
        consumer.committed(0)
    with within(1.0):
        consumer.poll(200)
    with within(1.5):
        consumer.close()
    threads = threading.active_count()
    with within(6.0), pytest.raises(Unreachable, match="connecting to 127"):
        clients.producer(identity)
    deadline_s = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert threading.active_count() <= threads
    mortal.start()
    replacement = taken_over(clients, identity)
    replacement.begin()
    replacement.send(clients.topic, 0, None, b"kept")
    replacement.commit({}, None)
    outcome = visible(clients, clients.topic), committed(clients.consumer())
    assert outcome in (([b"kept"], None), ([b"lost", b"kept"], Committed(1, "")))
    clients.close()


def test_h1_record_that_failed_is_not_committed_around(tmp_path: Path, unique: Unique) -> None:
    """One of two brokers dies after its neighbour acknowledged: the half that was written is not committed."""
    with DevBroker(tmp_path, nodes=2) as pair:
        clients = Clients(pair.bootstrap, unique, request_timeout_ms=2000, delivery_timeout_ms=3000)
        alive, doomed = unique("alive"), unique("doomed")
        with KafkaAdminClient(bootstrap_servers=pair.bootstrap) as admin:
            places = {alive: {"assignments": {0: [1]}}, doomed: {"assignments": {0: [2]}}}
            admin.create_topics(places, wait_for_metadata=True)
        producer = clients.transactional()
        producer.begin()
        for topic in (alive, doomed):
            producer.send(topic, 0, None, b"warm")
        producer.commit({}, None)
        producer.begin()
        producer.send(alive, 0, None, b"half")
        producer.flush()
        pair.kill(node=2)
        producer.send(doomed, 0, None, b"other half")
        with within(10.0), pytest.raises(Doubt, match=r"records were not written|connection to broker 2 was lost"):
            producer.commit({}, None)
        producer.close()
        patiently(lambda: clients.producer(producer._producer.config["transactional_id"]))  # aborts what was open
        assert patiently(lambda: visible(clients, alive)) == [b"warm"]
        clients.close()


def patiently(make: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Try until the cluster has come to terms with a dead node."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return make()
        except BrokerError:
            if time.monotonic() > deadline_s:
                raise


# -- topics ---------------------------------------------------------------------------------------------------------------


def test_topics_are_created_described_and_grown(clients: Clients) -> None:
    """An absent topic is absent, an existing one is no error, settings are read back, partitions can be added."""
    admin = clients.broker().admin()
    spec = TopicSpec(clients.topic, 2, {"cleanup.policy": "compact", "segment.bytes": "33554432"})
    assert admin.describe([clients.topic]) == {}
    admin.create([spec])
    admin.create([spec])
    state = admin.describe([clients.topic, "absent"])
    assert list(state) == [clients.topic]
    assert state[clients.topic].partitions == 2
    assert spec.settings.items() <= state[clients.topic].settings.items()
    admin.grow(clients.topic, 3)
    assert admin.describe([clients.topic])[clients.topic].partitions == 3
    with pytest.raises(FatalBrokerError, match=r"cleanup\.policy"):
        admin.create([TopicSpec(clients.topic + "-bad", 1, {"cleanup.policy": "never"})])
    admin.close()
    reader = clients.reader()
    assert reader.partitions(clients.topic) == [0, 1, 2]
    assert reader.partitions("absent") == []


def test_refused_connections_leave_no_sockets(clients: Clients) -> None:
    """Dialling a broker that is away costs no descriptors, even while the garbage collector rests."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        away = KafkaPythonBroker(replace(clients.options, bootstrap_servers=f"127.0.0.1:{bound.getsockname()[1]}"))
        gc.collect()
        gc.disable()
        try:
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(3):
                with pytest.raises(Unreachable):
                    away.producer(None)
            assert len(os.listdir("/proc/self/fd")) <= before + 2
        finally:
            gc.enable()


def test_sending_to_an_absent_topic_ends(clients: Clients) -> None:
    """A topic or partition that is not there is an error in time, not a wait without end."""
    producer = clients.producer(call_timeout_s=1.0)
    producer.send("absent", 0, None, b"x")
    with within(5.0), pytest.raises(BrokerError):
        producer.flush()
