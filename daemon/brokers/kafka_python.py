"""The port on kafka-python; beside `hanging` the only module that imports it.

What is odd here stands against a reproduced defect of kafka-python 3.0.12: tests/integration/test_client_contract.py has each.
Nothing here decides: records, memberships and errors go up, offsets and bytes go down.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import kafka.errors as kafka_errors
from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaConnectionError, KafkaError
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket
from kafka.producer.producer_batch import ProducerBatch
from kafka.producer.transaction_manager import TransactionState
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch
from kafka.structs import MemberState, OffsetAndMetadata

from daemon.brokers.hanging import end_hanging
from daemon.brokers.port import EndedTransaction, LastCommit, Membership, Polled, TopicSpec, TopicState
from daemon.brokers.record_format import Batch, append_records, decode_records
from daemon.errors import BrokerError, Doubt, FatalBrokerError, Fenced, Pending, Unreachable
from daemon.records import Committed, Headers, Message, Record

#: How long a partition that the client does not know is looked for.
NEW_PARTITION_S = 2.0
#: `wake` and a rebalance are noticed after this long.
POLL_SLICE_MS = 100
#: A poll waits this long for a join, whatever it was told: the client takes the answer to one only while it waits.
JOIN_WAIT_MS = 50
#: A poll waits this much longer for what has come since: the client's own answer was fetched when the poll before it ended.
FRESH_MS = 20
#: How long a committed offset may take that an open transaction holds back.
PENDING_MS = 300
#: How long `close` waits before it leaves the rest to a thread that ends with the process.
CLOSE_WAIT_S = 1.0
#: Bytes of one batch: below Kafka's default for `max.message.bytes`, which every topic takes (`daemon.topics`). The client has
#: one batch of a partition on its way at a time, so that a checkpoint of 10 MB takes half as long as with 256 KiB.
BATCH_BYTES = 900 << 10
#: Of a producer's socket: a batch goes out in few steps (a checkpoint of 10 MB in three quarters of the time).
SEND_BUFFER_BYTES = 4 << 20
#: Lengths, deltas and counts of a record in a batch, at most; a header's lengths, at most.
RECORD_BYTES, HEADER_BYTES = 25, 10
#: A flush overtakes it; without it the sender thread wakes for single records (43 us against 50 us a record).
LINGER_MS = 20
#: Bytes of a partition in one answer to a reader, which reads whole changelogs; the client's default is 1 MiB.
READER_FETCH_BYTES = 8 << 20
#: A producer closes connections that nobody used for this long, before anybody in between does: only a broken one ends it.
IDLE_MS = 60_000
#: A stopped broker is dialled again at least this often.
RECONNECT_BACKOFF_MAX_MS = 1000
#: New partitions of the input are noticed within this time.
METADATA_MAX_AGE_MS = 30_000


@dataclass(frozen=True)
class ClientOptions:
    """How to reach Kafka. Time-outs nest: request < delivery < transaction; kafka-python refuses others."""

    bootstrap_servers: str
    group_id: str = "recurd"
    instance_id: str | None = None  # static membership
    topic: str = "readings"  # the input
    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 3000
    max_poll_records: int = 5000
    max_poll_interval_ms: int = 300_000
    transaction_timeout_ms: int = 10_000
    delivery_timeout_ms: int = 6000
    request_timeout_ms: int = 4000
    retry_backoff_ms: int = 20  # 100, the client's default, adds 90 ms to every small transaction
    call_timeout_s: float = 12.0  # bound on every call that waits for a broker
    max_request_size: int = 64 << 20
    replication_factor: int = -1  # of created topics; -1: as the broker is set
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)  # security_protocol, sasl_*, ssl_*


class KafkaPythonBroker:
    """Makes the clients."""

    def __init__(self, kafka: ClientOptions) -> None:
        self._options = kafka

    def consumer(self) -> KafkaPythonConsumer:
        return KafkaPythonConsumer(self._options)

    def producer(self, transactional_id: str | None) -> KafkaPythonProducer:
        """A producer; a replacement must take the id of the one it replaces, which fences whatever that one still tries."""
        return KafkaPythonProducer(self._options, transactional_id)

    def reader(self) -> KafkaPythonReader:
        return KafkaPythonReader(self._options)

    def admin(self) -> KafkaPythonAdmin:
        return KafkaPythonAdmin(self._options)


# -- errors ---------------------------------------------------------------------------------------------------------------

_FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.FencedInstanceIdError,
)
_FATAL = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.SecurityDisabledError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.UnrecognizedBrokerVersion,
    kafka_errors.UnsupportedForMessageFormatError,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.InconsistentGroupProtocolError,
    kafka_errors.InvalidGroupIdError,
    kafka_errors.InvalidSessionTimeoutError,
    kafka_errors.InvalidTransactionTimeoutError,
    kafka_errors.GroupMaxSizeReachedError,
    kafka_errors.MessageSizeTooLargeError,  # the same bytes would be refused again, for ever
    kafka_errors.RecordListTooLargeError,
    kafka_errors.UnsupportedCodecError,
)


def _translated(error: BaseException, doing: str, otherwise: type[BrokerError] | None = None) -> BrokerError:
    """One of our errors for one of the client's.

    Args:
        error: What the client raised. It may carry the true cause as an argument or only in its text.
        doing: For the message.
        otherwise: The class where nothing more is known; without it `Unreachable` where the client calls the error retriable.
    """
    message = f"{doing}: {type(error).__name__}: {_text(error)}"
    causes = [error, error.__cause__, *error.args]
    if any(isinstance(cause, _FATAL) for cause in causes):
        return FatalBrokerError(message)
    if any(isinstance(cause, _FENCED) for cause in causes) or any(each.__name__ in message for each in _FENCED):
        return Fenced(message)
    if otherwise is None:
        otherwise = Unreachable if isinstance(error, (kafka_errors.RetriableError, OSError)) else BrokerError
    return otherwise(message)


def _text(error: BaseException) -> str:
    return " ".join(str(argument) for argument in error.args) or "no details"


@contextlib.contextmanager
def _translating(doing: str, otherwise: type[BrokerError] | None = None) -> Iterator[None]:
    """Raise the client's errors as ours. RuntimeError is what a client says whose I/O thread has ended."""
    try:
        yield
    except (KafkaError, OSError, RuntimeError) as error:
        raise _translated(error, doing, otherwise) from error


def _connect(
    make: Callable[..., Any], options: ClientOptions, lost: Callable[[int | str], None] | None = None, **settings: Any
) -> Any:
    """Make a client; one whose bootstrap fails would leave its I/O thread dialling for ever.

    Args:
        lost: Called in the I/O thread with the name of a broker when a connection breaks, before another one is made.
    """
    made: list[KafkaNetClient] = []

    def net_client(**configs: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**configs))
        if lost is not None:
            _watch(made[-1]._manager, lost)
        return made[-1]

    try:
        with _translating(f"connecting to {options.bootstrap_servers}", Unreachable):
            return make(
                bootstrap_servers=options.bootstrap_servers.split(","),
                bootstrap_timeout_ms=options.request_timeout_ms,
                request_timeout_ms=options.request_timeout_ms,
                retry_backoff_ms=options.retry_backoff_ms,
                reconnect_backoff_max_ms=RECONNECT_BACKOFF_MAX_MS,
                metadata_max_age_ms=METADATA_MAX_AGE_MS,
                kafka_client=net_client,
                **settings,
                **options.extra,
            )
    except BrokerError:
        for client in made:
            client.close()
        raise


def _watch(manager: Any, lost: Callable[[int | str], None]) -> None:
    """Tell of connections that break once they were made; those that are closed because nobody used them do not."""
    get = manager.get_connection
    watched: dict[Any, Any] = {}

    def broke(connection: Any) -> None:
        if connection.init_future.succeeded():
            lost(connection.node_id)

    def get_connection(node_id: Any, **options: Any) -> Any:
        connection = get(node_id, **options)
        if watched.get(node_id) is not connection and not manager.cluster.is_bootstrap(node_id):
            watched[node_id] = connection
            connection.close_future.add_errback(lambda _: broke(connection))
        return connection

    manager.get_connection = get_connection


_sock_connect = KafkaNetSocket.sock_connect


async def _connect_or_close(self: KafkaNetSocket, net: Any, sock: socket.socket, address: Any, **options: Any) -> socket.socket:
    """The client leaves a refused socket to the garbage collector: while no broker answers, a process would run out of them."""
    try:
        connected: socket.socket = await _sock_connect(self, net, sock, address, **options)
    except BaseException:
        sock.close()
        raise
    return connected


KafkaNetSocket.sock_connect = _connect_or_close


def _in_background(action: Callable[[], Any], wait_s: float) -> None:
    """Run an action that may block for long or fail, in a thread that ends with the process."""

    def run() -> None:
        with contextlib.suppress(Exception):
            action()

    thread = threading.Thread(target=run, name="recurd-close", daemon=True)
    thread.start()
    thread.join(wait_s)


# -- consumer -------------------------------------------------------------------------------------------------------------


class _RecordBatch(DefaultRecordBatch):  # type: ignore[misc]  # the client ships no types
    """Gives our records, at a fifth of the client's time.

    Header names that are no UTF-8, which other clients may write, come with `?` in them. The client itself gives up a partition
    at such a record, and so would stop at one bad record for ever.
    """

    __slots__ = ()

    def records(self, where: TopicPartition) -> Iterator[Record]:
        self._maybe_uncompress()
        broker_ms = self.max_timestamp if self.timestamp_type == self.LOG_APPEND_TIME else None
        batch = Batch(where.topic, where.partition, self.base_offset, self.first_timestamp, broker_ms)
        try:
            yield from decode_records(bytes(self._buffer[self._pos :]), self._num_records, batch)
        except ValueError as error:
            raise kafka_errors.CorruptRecordError(f"records from offset {self.base_offset} on cannot be read: {error}") from error


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the client ships no types
    """The records of one answer to a fetch, as ours; what is aborted, corrupt or control goes as in the client's own."""

    def _unpack_records(self, tp: TopicPartition, records: Any, *_deserializers: Any) -> Iterator[Record]:
        while (batch := records.next_batch()) is not None:
            if self.check_crcs and not batch.validate_crc():
                raise kafka_errors.CorruptRecordError(f"the checksum of {tp}'s batch at offset {batch.base_offset} is wrong")
            if batch.magic < 2:
                for old in batch:
                    if self.check_crcs and not old.validate_crc():
                        raise kafka_errors.CorruptRecordError(f"the checksum of {tp}'s record at offset {old.offset} is wrong")
                    self.next_fetch_offset = old.offset + 1
                    yield Record(
                        tp.topic, tp.partition, old.offset, -1 if old.timestamp is None else old.timestamp, old.key, old.value
                    )
                continue
            self.leader_epoch = batch.leader_epoch
            if self._counts(batch):
                for record in batch.records(tp):
                    self.next_fetch_offset = record.offset + 1
                    yield record
            self.next_fetch_offset = batch.next_offset  # also where compaction took the batch's last records
        self.drain()

    def _counts(self, batch: Any) -> bool:
        """Whether a batch holds records, and of no transaction that was aborted."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return False
        return not batch.is_control_batch


memory_records.DefaultRecordBatch = _RecordBatch  # where the client makes batches


class _Consumer(KafkaConsumer):  # type: ignore[misc]  # the client ships no types
    """Gives our records."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._fetcher.PartitionRecords = _PartitionRecords


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # the client ships no types
    """Runs on the client's I/O thread, so it only queues."""

    def __init__(self, changes: deque[tuple[str, tuple[int, ...]]]) -> None:
        self._changes = changes

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._queue("assigned", assigned)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._queue("revoked", revoked)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self._queue("lost", lost)

    def _queue(self, kind: str, partitions: Iterable[TopicPartition]) -> None:
        numbers = tuple(sorted(each.partition for each in partitions))
        if numbers:
            self._changes.append((kind, numbers))


class _Joins:
    """Keeps the answer to a join that ends between two polls.

    The client throws such an answer away and joins again, which makes the whole group rebalance again: two members that work
    between polls never come to an end (H9). Its coordinator asks this object instead.
    """

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator
        self._join = coordinator._do_join_and_sync_async
        self._generation: Any = None
        self._answer = b""
        coordinator._do_join_and_sync_async = self.join

    async def join(self) -> bytes:
        """The assignment: the one kept where the member still waits for it, or of a new join."""
        waiting = self._coordinator.state == MemberState.REBALANCING
        if not waiting or self._generation is not self._coordinator._generation:
            self._generation = None
            self._answer = await self._join()
            self._generation = self._coordinator._generation
        return self._answer


class KafkaPythonConsumer:
    """The group member that reads the input topic.

    **A partition is held, that is gives no records, from its assignment or from an out-of-range position until `seek`.** So no
    record comes from a position that the loop has not chosen, and one partition's missing offset does not stop the others.
    """

    def __init__(self, options: ClientOptions) -> None:
        self._topic = options.topic
        self._timeout_ms = int(options.call_timeout_s * 1000)
        self._changes: deque[tuple[str, tuple[int, ...]]] = deque()
        self._max_poll_records = options.max_poll_records
        self._held: set[int] = set()
        self._paused: set[int] = set()
        self._joining = True
        self._woken = threading.Event()
        self._consumer = _connect(
            _Consumer,
            options,
            group_id=options.group_id,
            group_instance_id=options.instance_id,
            session_timeout_ms=options.session_timeout_ms,
            heartbeat_interval_ms=options.heartbeat_interval_ms,
            max_poll_records=options.max_poll_records,
            max_poll_interval_ms=options.max_poll_interval_ms,
            partition_assignment_strategy=(CooperativeStickyAssignor(),),
            **_READ_COMMITTED,
        )
        _Joins(self._consumer._coordinator)
        self._consumer.subscribe([self._topic], listener=_Listener(self._changes))

    def poll(self, timeout_ms: int) -> Polled:
        """Wait for records, a rebalance or `wake`, whichever is first; while the group rebalances at least `JOIN_WAIT_MS`.

        Raises:
            Unreachable, Fenced, FatalBrokerError, BrokerError: The consumer must be closed and replaced.
        """
        deadline_s = time.monotonic() + timeout_ms / 1000
        while True:
            left_ms = max(0, int((deadline_s - time.monotonic()) * 1000))
            slice_ms = min(left_ms, POLL_SLICE_MS)
            raw, out_of_range = self._poll_once(max(slice_ms, JOIN_WAIT_MS) if self._joining else slice_ms)
            membership = self._membership()
            if raw or self._changes or out_of_range or self._woken.is_set() or not left_ms:
                break
        if raw and not out_of_range and sum(map(len, raw.values())) < self._max_poll_records:
            fresh, out_of_range = self._poll_once(FRESH_MS)
            for each, records in fresh.items():
                raw.setdefault(each, []).extend(records)
            membership = self._membership()
        self._woken.clear()
        changes = self._take_changes()
        return Polled(self._usable(raw, membership), membership, changes, out_of_range)

    def _poll_once(self, timeout_ms: int) -> tuple[dict[TopicPartition, list[Any]], list[int]]:
        """The client's poll; partitions without a usable position are held and, where they had one, returned."""
        try:
            with _translating(f"polling {self._topic}"):
                return self._consumer.poll(timeout_ms), []
        except BrokerError as error:
            cause = error.__cause__
            if isinstance(cause, kafka_errors.UnsupportedCodecError):
                raise FatalBrokerError(
                    f"Records of {self._topic} are compressed with a codec that is not installed here ({_text(cause)}): install "
                    "lz4 or python-snappy beside recurd, or let the producers use gzip or zstd."
                ) from cause
            if isinstance(cause, kafka_errors.NoOffsetForPartitionError):
                for each in cause.args[0]:
                    self._consumer.seek(each, 0)  # any position: without one the client raises at every poll
                self._hold(each.partition for each in cause.args[0])
                return {}, []
            if isinstance(cause, kafka_errors.OffsetOutOfRangeError):
                lost = cause.args[0]
            elif isinstance(cause, kafka_errors.LogTruncationError):
                lost = cause.divergent_offsets
            else:
                raise
            out_of_range = sorted(each.partition for each in lost)
            self._hold(out_of_range)
            return {}, out_of_range

    def _membership(self) -> Membership | None:
        group = self._consumer.group_metadata()
        self._joining = group.state != MemberState.STABLE
        if group.state == MemberState.REBALANCING:
            self._consumer._coordinator.request_rejoin()  # or a join that outlasts its poll is forgotten (H8); no public name
        if group.state != MemberState.STABLE or group.generation_id < 0 or not group.member_id:
            return None
        return Membership(group.generation_id, group.member_id, group)

    def _take_changes(self) -> list[tuple[str, tuple[int, ...]]]:
        changes = []
        while self._changes:
            kind, numbers = change = self._changes.popleft()
            changes.append(change)
            self._held.difference_update(numbers)
            self._paused.difference_update(numbers)
            if kind == "assigned":
                self._hold(numbers)
        return changes

    def _hold(self, partitions: Iterable[int]) -> None:
        held = self.assignment().intersection(partitions)
        self._held |= held
        self._consumer.pause(*map(self._of, held))

    def _usable(self, raw: Mapping[TopicPartition, list[Any]], membership: Membership | None) -> dict[int, list[Record]]:
        """The records that may be processed; of an unstable group none, and they come again."""
        allowed = self.assignment() - self._held
        if membership is not None:
            return {each.partition: records for each, records in raw.items() if each.partition in allowed}
        for each, records in raw.items():
            if each.partition in allowed:
                self._consumer.seek(each, records[0].offset)
        return {}

    def assignment(self) -> frozenset[int]:
        return frozenset(each.partition for each in self._consumer.assignment())

    def seek(self, partition: int, offset: int) -> None:
        """Read on from here; releases a held partition."""
        self._consumer.seek(self._of(partition), offset)
        self._held.discard(partition)
        if partition not in self._paused:
            self._consumer.resume(self._of(partition))

    def position(self, partition: int) -> int | None:
        try:
            with _translating(f"position of {self._topic}[{partition}]"):
                position: int | None = self._consumer.position(self._of(partition), timeout_ms=0)
                return position
        except BrokerError as error:
            if isinstance(error.__cause__, kafka_errors.NoOffsetForPartitionError):
                return None
            raise

    def pause(self, partitions: Sequence[int]) -> None:
        ours = self.assignment().intersection(partitions)
        self._paused |= ours
        self._consumer.pause(*map(self._of, ours))

    def resume(self, partitions: Sequence[int]) -> None:
        """Undo `pause`; a held partition stays held."""
        self._paused.difference_update(partitions)
        self._consumer.resume(*map(self._of, self.assignment().intersection(partitions) - self._held))

    def committed(self, partition: int) -> Committed | None:
        """The stable committed offset.

        Raises:
            Pending: A transaction that holds a newer one is still open, or the broker is slow; other partitions need not wait.
        """
        doing = f"committed offset of {self._topic}[{partition}]"
        try:
            with _translating(doing):
                found = self._consumer.committed(self._of(partition), metadata=True, timeout_ms=PENDING_MS)
        except BrokerError as error:
            if isinstance(error.__cause__, kafka_errors.KafkaTimeoutError):
                raise Pending(str(error)) from error
            raise
        return None if found is None else Committed(found.offset, found.metadata)

    def log_range(self, partition: int) -> tuple[int, int]:
        each = self._of(partition)
        with _translating(f"log range of {self._topic}[{partition}]"):
            first = self._consumer.beginning_offsets([each], timeout_ms=self._timeout_ms)[each]
            return first, self._consumer.end_offsets([each], timeout_ms=self._timeout_ms)[each]

    def offset_at(self, partition: int, time_ms: int) -> int:
        each = self._of(partition)
        with _translating(f"offset of {self._topic}[{partition}] at {time_ms} ms"):
            found = self._consumer.offsets_for_times({each: time_ms}, timeout_ms=self._timeout_ms)[each]
            if found is None or found.offset < 0:
                end: int = self._consumer.end_offsets([each], timeout_ms=self._timeout_ms)[each]
                return end
            return int(found.offset)

    def high_watermark(self, partition: int) -> int | None:
        each = self._of(partition)
        return self._consumer.highwater(each) if partition in self.assignment() else None

    def wake(self) -> None:
        """Make the running poll, or the next, return within 100 ms; from any thread or signal handler."""
        self._woken.set()

    def close(self) -> None:
        """Leave the group (a static member stays). Returns within a second, also where no broker answers."""
        _in_background(lambda: self._consumer.close(autocommit=False, timeout_ms=CLOSE_WAIT_S * 1000), CLOSE_WAIT_S)

    def _of(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)


#: Settings of everything that reads.
_READ_COMMITTED: Mapping[str, Any] = {
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "allow_auto_create_topics": False,
    "metrics_enabled": False,
}


# -- producer -------------------------------------------------------------------------------------------------------------


class _Worker:
    """Runs calls that the client may never return from, one at a time, in a thread that can be left behind."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], queue.SimpleQueue[BaseException | None]] | None]
        self._calls = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="recurd-transactions", daemon=True).start()

    def run(self, call: Callable[[], None], timeout_s: float) -> None:
        """Run a call and raise what it raises.

        Raises:
            TimeoutError: It did not return; nothing more may be given to this worker.
        """
        answer: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._calls.put((call, answer))
        try:
            error = answer.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            raise TimeoutError(f"no answer in {timeout_s:.1f} s") from None
        if error is not None:
            raise error

    def stop(self) -> None:
        self._calls.put(None)

    def _serve(self) -> None:
        while (job := self._calls.get()) is not None:
            call, answer = job
            try:
                call()
            except BaseException as error:  # noqa: BLE001  # raised again by `run`
                answer.put(error)
            else:
                answer.put(None)


class KafkaPythonProducer:
    """A producer, transactional where it has a transactional id; dead after any error that it raised."""

    def __init__(self, options: ClientOptions, transactional_id: str | None) -> None:
        self._topic = options.topic
        self._timeout_s = options.call_timeout_s
        self._expiry_s = (options.delivery_timeout_ms + options.request_timeout_ms) / 1000
        self._dead = ""
        self._closed = False
        self._max_request_bytes = options.max_request_size
        self._open: dict[tuple[str, int], _OpenBatch] = {}
        self._futures: list[Any] = []
        self._producer: Any = None
        self._broken = ""  # which connection was lost
        self.last_commit: LastCommit | None = None
        self._producer = _connect(
            _Producer,
            options,
            lost=self._lost if transactional_id is not None else None,
            connections_max_idle_ms=IDLE_MS,
            transactional_id=transactional_id,
            transaction_timeout_ms=options.transaction_timeout_ms,
            delivery_timeout_ms=options.delivery_timeout_ms,
            max_block_ms=int(options.call_timeout_s * 1000),
            max_request_size=options.max_request_size,
            batch_size=BATCH_BYTES,
            send_buffer_bytes=SEND_BUFFER_BYTES,
            linger_ms=LINGER_MS,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        self._producer._sender._can_split = lambda *_: False  # its parts would have futures that nobody checks
        self._worker = _Worker()
        if transactional_id is not None:
            self._init_transactions(transactional_id)

    def _init_transactions(self, transactional_id: str) -> None:
        """Abort what an earlier holder of the id left open and fence it."""
        try:
            with _translating(f"taking transactional id {transactional_id}", Unreachable):
                self._worker.run(self._producer.init_transactions, self._timeout_s)
        except BrokerError:
            self.close()
            raise

    def _lost(self, node_id: int | str) -> None:
        """Write no more: a broker that returns may hold a transaction of ours open, which the next one would join (H10).

        A commit that is under way may still be answered.
        """
        transaction = self._producer._transaction_manager if self._producer is not None else None
        if transaction is None or not transaction.has_producer_id():
            return
        with transaction._lock:
            self._broken = f"the connection to broker {str(node_id).removeprefix('coordinator-')} was lost"
            if transaction._current_state in (TransactionState.READY, TransactionState.IN_TRANSACTION):
                transaction.transition_to_fatal_error(KafkaConnectionError(self._broken))

    def alive(self) -> bool:
        """Whether another transaction may begin."""
        return not self._dead and not self._broken

    def begin(self) -> None:
        self._check_alive()
        with self._deadly("beginning a transaction"):
            self._check_connected()
            self._producer.begin_transaction()

    def send(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> None:
        """Buffer one record. The partition is given, which saves the partitioner."""
        try:
            size = RECORD_BYTES + len(key or b"") + len(value or b"")
            for name, text in headers:
                size += HEADER_BYTES + len(name) + len(text)
            if size > self._max_request_bytes:
                raise kafka_errors.MessageSizeTooLargeError(f"{size} bytes, at most {self._max_request_bytes}")
            batch = self._open.get((topic, partition))
            if batch is not None and batch.bytes + size > BATCH_BYTES:
                self._hand_over(topic, partition, batch.messages)
                batch = None
            if batch is None:
                self._check_alive()
                batch = self._open[topic, partition] = _OpenBatch()
            batch.messages.append(Message(key, value, headers))
            batch.bytes += size
        except Exception as error:
            raise self._died(error, f"sending to {topic}[{partition}]") from error

    def flush(self) -> None:
        """Wait until every record sent is acknowledged; a failed future may not touch the client's transaction (H1)."""
        self._check_alive()
        with self._deadly("flushing"):
            for (topic, partition), batch in self._open.items():
                self._hand_over(topic, partition, batch.messages)
            self._open.clear()
            self._producer.flush(timeout=self._timeout_s)
        for future in self._futures:
            error = _failure(future)
            if error is not None:
                topic, partition = future.topic_partition
                raise self._died(error, f"records were not written to {topic}[{partition}]") from error
        self._futures.clear()

    def _hand_over(self, topic: str, partition: int, messages: Sequence[Message]) -> None:
        """Give the client a whole batch: one future, one lock and one look at the transaction for hundreds of records."""
        where = TopicPartition(topic, partition)
        self._wait_for(where)
        batch = _batch(where, messages)
        transaction = self._producer._transaction_manager
        if transaction is not None and transaction.is_transactional():
            if self.last_commit is not None:
                self.last_commit.sequences.setdefault((topic, partition), -1)
            transaction.maybe_add_partition_to_transaction(where)
        accumulator = self._producer._accumulator
        with accumulator._tp_lock(where):
            accumulator._batches[where].append(batch)
            accumulator._incomplete.add(batch)
        self._futures.append(batch.produce_future)
        self._producer._sender.wakeup()

    def _wait_for(self, where: TopicPartition) -> None:
        """Return when the client knows a partition: one that was added a moment ago may not be in its metadata yet."""
        deadline_s = time.monotonic() + NEW_PARTITION_S
        while where.partition not in self._producer.partitions_for(where.topic):  # waits for a topic, not for a partition
            if time.monotonic() > deadline_s:
                raise kafka_errors.UnknownTopicOrPartitionError(f"{where.topic}[{where.partition}]")
            self._producer._metadata.request_update()
            self._producer._sender.wakeup()
            time.sleep(0.01)

    def commit(self, offsets: Mapping[int, Committed], membership: Membership | None) -> None:
        """Flush, check, send the offsets, commit. `membership` is the poll's that brought the records; never asked for here (H3).

        Raises:
            Doubt: Not committed, or nobody knows. `Fenced` where a newer holder is the reason.
        """
        deadline_s = time.monotonic() + self._timeout_s
        if offsets and membership is None:
            raise ValueError("offsets need the membership of the poll that brought the records")
        self.flush()
        given = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(each.offset, each.metadata, -1)
            for partition, each in offsets.items()
        }

        def complete() -> None:
            self._check_connected()
            if membership is not None and given:
                if self.last_commit is not None:
                    self.last_commit = self.last_commit._replace(offsets_since=True)
                self._producer.send_offsets_to_transaction(given, membership.token)
            if not self._dead:  # given up meanwhile
                self._producer.commit_transaction()

        with self._deadly("committing"):
            self._worker.run(complete, deadline_s - time.monotonic())
        transaction = self._producer._transaction_manager
        identity = transaction.producer_id_and_epoch
        newest = {tuple(where): following - 1 for where, following in transaction._sequence_numbers.items()}
        self.last_commit = LastCommit(identity.producer_id, identity.epoch, newest, offsets_since=False)

    def abort(self) -> None:
        self._check_alive()
        with self._deadly("aborting"):
            self._worker.run(self._producer.abort_transaction, self._timeout_s)
        self._futures.clear()
        self._open.clear()

    def close(self) -> None:
        """End within a second, whatever hangs (H4). What is left ends by itself once its records have expired."""
        if self._closed:
            return
        self._closed, self._dead = True, self._dead or "closed"
        self._worker.stop()
        _in_background(self._end, CLOSE_WAIT_S)

    def _end(self) -> None:
        """Close the client; while records are unanswered it refuses to, and goes on sending."""
        while True:
            with contextlib.suppress(kafka_errors.KafkaTimeoutError):
                self._producer.close(timeout=self._expiry_s)
                return

    def _check_alive(self) -> None:
        if self._dead:
            raise Doubt(f"this producer is of no use any more ({self._dead}): replace it")

    def _check_connected(self) -> None:
        if self._broken:
            raise KafkaConnectionError(self._broken)

    @contextlib.contextmanager
    def _deadly(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (KafkaError, OSError, RuntimeError) as error:
            raise self._died(error, doing) from error

    def _died(self, error: BaseException, doing: str) -> BrokerError:
        told = _translated(error, doing, Doubt)
        self._dead = self._dead or str(told)
        return told


@dataclass
class _OpenBatch:
    """Records that go to one partition together."""

    messages: list[Message] = field(default_factory=list)
    bytes: int = 0


def _batch(where: TopicPartition, messages: Sequence[Message]) -> ProducerBatch:
    """The client's own batch around records that are encoded here, full and ready to be sent."""
    records = memory_records.MemoryRecordsBuilder(2, 0, 1)
    builder = records._builder
    append_records(builder._buffer, messages)
    builder._first_timestamp = builder._max_timestamp = int(time.time() * 1000)
    builder._num_records = records._next_offset = len(messages)
    builder._last_offset = len(messages) - 1
    return ProducerBatch(where, records)


def _failure(future: Any) -> BaseException | None:
    """Why a batch was not written, or None where it was."""
    if not future.is_done:
        return TimeoutError("unanswered after a flush")
    if future.exception is not None:
        error: BaseException = future.exception
        return error
    _, _, error_of_record = future.value
    return None if error_of_record is None else error_of_record(0)


class _Producer(KafkaProducer):  # type: ignore[misc]  # the client ships no types
    """Its name is asked for with every record, for log lines that are off."""

    def __str__(self) -> str:
        return "recurd"


# -- reader and admin -----------------------------------------------------------------------------------------------------


class KafkaPythonReader:
    """Reads topics outside any group, read committed. Ends are asked of an admin client, which reads uncommitted."""

    def __init__(self, options: ClientOptions) -> None:
        self._timeout_ms = int(options.call_timeout_s * 1000)
        self._consumer = _connect(
            _Consumer,
            options,
            group_id=None,
            max_poll_records=options.max_poll_records,
            max_partition_fetch_bytes=READER_FETCH_BYTES,
            **_READ_COMMITTED,
        )
        try:
            self._admin = _connect(KafkaAdminClient, options)
        except BrokerError:
            self._consumer.close()
            raise

    def partitions(self, topic: str) -> list[int]:
        """The topic's partitions, in order; none where it does not exist."""
        with _translating(f"partitions of {topic}"):
            (found,) = self._admin.describe_topics([topic])
        return sorted(each["partition_index"] for each in found["partitions"])

    def high_watermark(self, topic: str, partition: int) -> int:
        return self._offset(topic, partition, OffsetSpec.LATEST)

    def log_start(self, topic: str, partition: int) -> int:
        return self._offset(topic, partition, OffsetSpec.EARLIEST)

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        found = self._offset(topic, partition, time_ms)
        return found if found >= 0 else self.high_watermark(topic, partition)

    def _offset(self, topic: str, partition: int, spec: OffsetSpec | int) -> int:
        each = TopicPartition(topic, partition)
        with _translating(f"offsets of {topic}[{partition}]"):
            found = self._admin.list_partition_offsets({each: spec}, timeout_ms=self._timeout_ms)
        return int(found[each].offset)

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Read these from these offsets; replaces what was read before."""
        self._consumer.assign([TopicPartition(*each) for each in positions])
        for each, offset in positions.items():
            self._consumer.seek(TopicPartition(*each), offset)

    def poll(self, timeout_ms: int) -> dict[tuple[str, int], Sequence[Record]]:
        """Wait for records; returns early, with none, where only control records were passed."""
        deadline_s = time.monotonic() + timeout_ms / 1000
        before = self._positions()
        with _translating("reading"):
            while True:
                left_ms = max(0, int((deadline_s - time.monotonic()) * 1000))
                raw = self._consumer.poll(min(left_ms, POLL_SLICE_MS // 5))
                if raw or not left_ms or self._positions() != before:
                    return {tuple(each): records for each, records in raw.items()}

    def _positions(self) -> list[int | None]:
        return [self._consumer.position(each, timeout_ms=0) for each in self._consumer.assignment()]

    def position(self, topic: str, partition: int) -> int:
        with _translating(f"position of {topic}[{partition}]"):
            return int(self._consumer.position(TopicPartition(topic, partition), timeout_ms=0))

    def close(self) -> None:
        _in_background(lambda: self._consumer.close(autocommit=False), CLOSE_WAIT_S)
        _in_background(self._admin.close, CLOSE_WAIT_S)


class KafkaPythonAdmin:
    """Administration of topics at start, and of transactions that the broker has lost."""

    def __init__(self, options: ClientOptions) -> None:
        self._group_id = options.group_id
        self._timeout_ms = int(options.call_timeout_s * 1000)
        self._replication_factor = options.replication_factor
        self._admin = _connect(KafkaAdminClient, options)

    def describe(self, names: Sequence[str]) -> dict[str, TopicState]:
        with _translating(f"describing topics {', '.join(names)}"):
            found = {each["name"]: each for each in self._admin.describe_topics(list(names)) if not _absent(each)}
            if not found:
                return {}
            wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in found]
            settings = self._admin.describe_configs(wanted, config_filter="all")["topic"]
        return {
            name: TopicState(len(each["partitions"]), {key: str(one["value"]) for key, one in settings[name].items()})
            for name, each in found.items()
        }

    def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create topics and wait until each partition has a leader.

        Raises:
            FatalBrokerError: The broker refuses one; the message has its reason.
        """
        wanted = {
            spec.name: {
                "num_partitions": spec.partitions,
                "replication_factor": self._replication_factor,
                "configs": dict(spec.settings),
            }
            for spec in specs
        }
        if not wanted:
            return
        with _translating(f"creating topics {', '.join(wanted)}"):
            answer = self._admin.create_topics(wanted, timeout_ms=self._timeout_ms, raise_errors=False)
            for topic in answer["topics"]:
                _check_created(topic)
            self._admin.wait_for_topics(list(wanted), timeout_ms=self._timeout_ms)

    def grow(self, name: str, partitions: int) -> None:
        with _translating(f"growing topic {name} to {partitions} partitions"):
            self._admin.create_partitions({name: partitions}, timeout_ms=self._timeout_ms)
            self._admin.wait_for_topics([name], timeout_ms=self._timeout_ms)

    def committed(self, topic: str) -> dict[int, int]:
        """The group's committed offsets of a topic; open transactions do not count, partitions without one are absent."""
        with _translating(f"committed offsets of group {self._group_id}"):
            found = self._admin.list_group_offsets(self._group_id)[self._group_id]
        return {each.partition: one.offset for each, one in found.items() if each.topic == topic and one.offset >= 0}

    def end_hanging(self, topics: Sequence[str], transactional_id: str, last: LastCommit | None = None) -> list[EndedTransaction]:
        """See `daemon.brokers.hanging`.

        Raises:
            FatalBrokerError: Not allowed, or the broker is older than Kafka 2.8.
        """
        with _translating("looking for transactions that hang", Unreachable):
            return end_hanging(self._admin, topics, self._group_id, transactional_id, last, self._timeout_ms / 1000)

    def close(self) -> None:
        _in_background(self._admin.close, CLOSE_WAIT_S)


def _absent(described: Mapping[str, Any]) -> bool:
    """Whether a topic does not exist; any other error is raised."""
    error = kafka_errors.for_code(described["error_code"])
    if error is kafka_errors.UnknownTopicOrPartitionError:
        return True
    if error is not kafka_errors.NoError:
        raise error(described["name"])
    return False


def _check_created(topic: Mapping[str, Any]) -> None:
    error = kafka_errors.for_code(topic["error_code"])
    if error in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
        return
    if issubclass(error, kafka_errors.RetriableError):
        raise error(topic["error_message"])
    raise FatalBrokerError(f"topic {topic['name']} could not be created: {topic['error_message'] or error.__name__}")
