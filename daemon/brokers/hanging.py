"""Ends transactions that the broker has forgotten (defect H10 of Kafka 4.3.1).

A coordinator that comes back while a partition has no leader yet takes the partition for deleted, skips its marker and calls the
transaction complete. The partition still holds it open: nothing behind it is visible to a read-committed reader, and **the next
commit of the same producer makes the aborted records visible**. A committed offset can hang in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import kafka.errors as kafka_errors
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import AbortTransactionSpec
from kafka.protocol.producer.transaction import WriteTxnMarkersRequest

from daemon.brokers.port import EndedTransaction, LastCommit
from daemon.errors import OperatorError

OFFSETS_TOPIC = "__consumer_offsets"
#: What a coordinator says of a transactional id whose last transaction has ended everywhere, as it believes.
ENDED = {"Empty": False, "CompleteAbort": False, "CompleteCommit": True, "Dead": False}  # state: committed
ENDING = ("PrepareCommit", "PrepareAbort", "PrepareEpochFence")
#: Between two looks at a transaction that is ending.
LOOK_AGAIN_S = 0.05


class _Open(NamedTuple):
    """A transaction that a partition holds open."""

    partition: TopicPartition
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    first_offset: int
    last_sequence: int  # nothing was appended while it stays as it is


def end_hanging(
    admin: KafkaAdminClient,
    topics: Iterable[str],
    group_id: str,
    transactional_id: str,
    last: LastCommit | None,
    timeout_s: float,
) -> list[EndedTransaction]:
    """Write the missing markers on these topics and on the group's offsets.

    A transaction hangs where a partition held it open before and after its coordinator said that it has ended: a live one is
    added at the coordinator before its first record. What no coordinator lists is left alone. And what is of a commit that was
    answered hangs, whatever else the producer began since.

    Args:
        topics: Absent ones are passed over.
        transactional_id: Its coordinator must have answered, and its transaction must not be ending, before anything is judged:
            whether it was committed is known only until the id is taken anew.
        last: The newest answered commit of the producer that had the id, where it is known.
        timeout_s: For that answer.

    Raises:
        OperatorError: A transaction hangs and we may not end it.
        KafkaError: The client's, untranslated.
    """
    _settled(admin, transactional_id, timeout_s)
    partitions = _partitions(admin, topics, group_id, last)
    held = _held_open(admin, partitions)
    if not held:
        return []
    producers = sorted({each.producer_id for each in held})
    listed = admin.list_transactions(producer_id_filters=producers)
    states = {each.producer_id: str(each.state.value) for found in listed.values() for each in found}
    still = set(_held_open(admin, {each.partition for each in held}))
    ended = []
    for each in held:
        committed = True if _of_commit(each, last) else ENDED.get(states.get(each.producer_id, ""))
        if committed is not None and each in still:
            _end(admin, each, committed)
            ended.append(EndedTransaction(each.partition.topic, each.partition.partition, each.first_offset, committed))
    return ended


def _of_commit(held: _Open, last: LastCommit | None) -> bool:
    """Whether all that a partition holds open was committed. The offsets' records have no sequence numbers."""
    if last is None or (held.producer_id, held.producer_epoch) != (last.producer_id, last.producer_epoch):
        return False
    if held.partition.topic == OFFSETS_TOPIC:
        return not last.offsets_since
    return held.last_sequence == last.sequences.get(tuple(held.partition))


def _settled(admin: KafkaAdminClient, transactional_id: str, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            state = admin.describe_transactions([transactional_id])[transactional_id].state.value
        except kafka_errors.TransactionalIdNotFoundError:
            return
        except kafka_errors.RetriableError as error:  # a new cluster has no coordinators, one that returns must load them
            state = type(error).__name__
        else:
            if state not in ENDING:
                return
        if time.monotonic() > deadline_s:
            raise kafka_errors.KafkaTimeoutError(f"the transaction of {transactional_id} cannot be judged: {state}")
        time.sleep(LOOK_AGAIN_S)


def _partitions(admin: KafkaAdminClient, topics: Iterable[str], group_id: str, last: LastCommit | None) -> set[TopicPartition]:
    """Where to look. A partition without leader is waited for, unless the producer before never wrote to it."""
    found: Mapping[str, Mapping[int, int]] = {  # leaders
        each["name"]: {one["partition_index"]: one["leader_id"] for one in each["partitions"]}
        for each in admin.describe_topics([*topics, OFFSETS_TOPIC])
        if not each["error_code"]
    }
    wanted = set()
    for name, leaders in found.items():
        for number in [java_hash(group_id) % len(leaders)] if name == OFFSETS_TOPIC else leaders:
            if leaders[number] >= 0:
                wanted.add(TopicPartition(name, number))
            elif last is None or name == OFFSETS_TOPIC or (name, number) in last.sequences:
                raise kafka_errors.LeaderNotAvailableError(f"{name}[{number}] has no leader")
    return wanted


def java_hash(text: str) -> int:
    """`Utils.abs(text.hashCode())` of Kafka: which partition of the offsets topic a group has."""
    value = 0
    units = text.encode("utf-16-be")
    for high, low in zip(units[::2], units[1::2], strict=True):
        value = (31 * value + (high << 8 | low)) & 0xFFFFFFFF
    signed = value - (1 << 32) if value >= 1 << 31 else value
    return 0 if signed == -(1 << 31) else abs(signed)


def _held_open(admin: KafkaAdminClient, partitions: Iterable[TopicPartition]) -> list[_Open]:
    return [
        _Open(
            partition,
            each.producer_id,
            each.producer_epoch,
            max(each.coordinator_epoch, 0),  # of the last marker; the leader refuses an older one
            each.current_transaction_start_offset,
            each.last_sequence,
        )
        for partition, state in admin.describe_producers(partitions).items()
        for each in state.active_producers
        if each.current_transaction_start_offset >= 0
    ]


def _end(admin: KafkaAdminClient, hanging: _Open, committed: bool) -> None:
    try:
        _write_marker(admin, hanging, committed)
    except kafka_errors.AuthorizationError as error:
        topic, partition = hanging.partition
        raise OperatorError(
            f"The broker has lost the transaction that {topic}[{partition}] holds open from offset {hanging.first_offset} on. "
            f"recurd may not write the {'commit' if committed else 'abort'} marker: grant ALTER on the cluster."
        ) from error


def _write_marker(admin: KafkaAdminClient, hanging: _Open, committed: bool) -> None:
    spec = AbortTransactionSpec(*hanging[:4])
    if not committed:
        admin.abort_transaction(spec)
        return

    async def commit() -> None:  # the client has no public call for this one
        leaders = await admin._async_get_leader_for_partitions([hanging.partition])
        request: WriteTxnMarkersRequest = admin._abort_transaction_request(spec)
        request.markers[0].transaction_result = True
        response: Any = await admin._manager.send(request, node_id=next(iter(leaders)))
        admin._abort_transaction_process_response(response, spec)

    admin._manager.run(commit)
