"""Steps 2 to 6 of a commit (ARCHITECTURE 6): everything a turn's records caused, and due checkpoints, in one transaction.

Owns the producers. After any error they are dead: `replace` closes them, and the next use makes new ones, which fences the old.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing

from config.settings import Settings
from daemon import blocks, logs
from daemon.blocks import MARK_KEY, Mark
from daemon.brokers.port import Admin, Broker, LastCommit, Membership, Producer
from daemon.errors import BrokerError, Doubt, FatalBrokerError
from daemon.letters import encode_letter
from daemon.metrics import Metrics
from daemon.pipeline import Outcome
from daemon.records import Committed
from daemon.restore import Partition
from daemon.topics import Topics

log = logs.get("commit")


class Committer:
    """Sends and commits for one process."""

    def __init__(self, settings: Settings, broker: Broker, metrics: Metrics) -> None:
        self._settings = settings
        self._broker = broker
        self._metrics = metrics
        self._exactly_once = settings.kafka.delivery == "exactly_once"
        instance = settings.kafka.instance_id or uuid.uuid4().hex
        self._transactional_id = f"{settings.kafka.group_id}-{instance}"
        self._producer: Producer | None = None  # transactional
        self._sender: Producer | None = None  # at least once: forecasts and dead letters
        self._last_commit: LastCommit | None = None  # of the producer before
        self._began_s: float | None = None  # when the open transaction began, monotonic
        self._marks: dict[int, Mark] = {}  # of the checkpoints in the open transaction, by partition

    def connect(self) -> None:
        """Make what is missing; fences whatever an earlier producer of ours still tries, and aborts what it left open."""
        if self._producer is not None and not self._producer.alive():
            log.info("producer replaced: it lost a broker between two transactions")
            self._close(self._producer)
            self._producer = None
        if self._producer is None:
            with closing(self._broker.admin()) as admin:
                self._end_hanging(admin)
                producer = self._broker.producer(self._transactional_id)
                try:
                    self._end_hanging(admin)  # taking the id ended a transaction; its markers may be missing too
                except BrokerError:
                    producer.close()
                    raise
            self._producer, self._last_commit = producer, None
        if self._sender is None and not self._exactly_once:
            self._sender = self._broker.producer(None)

    def end_hanging(self) -> None:
        """End transactions on our topics that the broker has lost (H10), whoever began them.

        Raises:
            OperatorError: There is one, and we may not end it. Where we cannot even look, that is only said.
        """
        try:
            with closing(self._broker.admin()) as admin:
                self._end_hanging(admin)
        except BrokerError as error:
            log.warning("hanging transactions cannot be looked for", reason=str(error))

    def _end_hanging(self, admin: Admin) -> None:
        topics = [self._settings.topic(name) for name in ("forecasts", "state", "epochs", "dead_letters")]
        try:
            for ended in admin.end_hanging(topics, self._transactional_id, self._last_commit):
                self._metrics.hanging_transactions.inc()
                log.warning("transaction ended that the broker had lost", **ended._asdict())
        except FatalBrokerError as error:
            log.warning("hanging transactions cannot be looked for", reason=str(error))

    def replace(self) -> None:
        """Close the producers; `connect` makes new ones."""
        for producer in (self._producer, self._sender):
            if producer is not None:
                self._close(producer)
        self._producer = self._sender = None
        self._began_s = None
        self._marks = {}

    def _close(self, producer: Producer) -> None:
        self._last_commit = producer.last_commit or self._last_commit
        producer.close()

    def checkpoint(self, partitions: Sequence[Partition]) -> None:
        """Hand over partitions' changed blocks, epochs that start and marks, as of what they have processed so far.

        Before a turn's records, so that the broker takes in the blocks while those are processed.

        Raises:
            Doubt: As `commit`.
        """
        try:
            for partition in partitions:
                with self._metrics.stage("send"):
                    self._marks[partition.number] = self._checkpoint(self._begun(), partition)
        except BrokerError as error:
            raise _as_doubt(error) from error

    def send(self, number: int, outcome: Outcome, topics: Topics) -> None:
        """Hand over what records of a partition caused while the next ones are processed; `commit` makes it visible.

        Raises:
            Doubt: As `commit`.
        """
        try:
            producer = self._begun() if self._exactly_once else self._sender
            assert producer is not None, "connect comes before send"
            with self._metrics.stage("send"):
                self._send(producer, number, outcome, topics)
        except BrokerError as error:
            raise _as_doubt(error) from error

    def commit(self, partitions: Mapping[int, Partition], processed: Iterable[int], membership: Membership) -> None:
        """Make visible what was handed over, checkpoints and all.

        Args:
            partitions: All that are held, by number.
            processed: Those whose records of this turn were processed; their offsets are committed with what they caused.
            membership: Of the poll that brought the records.

        Raises:
            Doubt: Not committed, or nobody knows; `FatalBrokerError` where retrying cannot help.
        """
        try:
            if self._sender is not None:  # at least once: acknowledged before the turn goes on
                with self._metrics.stage("send"):
                    self._sender.flush()
                processed = ()
            touched = [partitions[number] for number in sorted({*processed, *self._marks})]
            if touched:
                self._transact(touched, membership)
        except BrokerError as error:
            raise _as_doubt(error) from error

    def open_s(self) -> float:
        """For how long a transaction has been open, 0 where none is."""
        return 0.0 if self._began_s is None else time.monotonic() - self._began_s

    def _begun(self) -> Producer:
        """The transactional producer, in a transaction."""
        assert self._producer is not None, "connect comes before send and commit"
        if self._began_s is None:
            self._began_s = time.monotonic()
            self._producer.begin()
            log.debug("sending")
        return self._producer

    def _transact(self, touched: Sequence[Partition], membership: Membership) -> None:
        producer = self._begun()
        offsets = {partition.number: self._offset(partition) for partition in touched}
        log.debug("committing")
        with self._metrics.stage("commit"):
            producer.commit(offsets, membership)
        assert self._began_s is not None
        self._metrics.transaction_open_seconds.observe(time.monotonic() - self._began_s)
        self._began_s = None
        for partition in touched:
            self._committed(partition, offsets[partition.number], self._marks.pop(partition.number, None))
        self._metrics.committed(offsets)
        log.debug("committed", offsets=offsets, generation=membership.generation)

    def _offset(self, partition: Partition) -> Committed:
        """Behind what was processed; at least once, where the mark is: what came since may not have been written."""
        mark = self._marks.get(partition.number, partition.mark)
        return Committed(partition.pipeline.next_offset if self._exactly_once else mark.offset, blocks.mark_metadata(mark))

    def _send(self, producer: Producer, number: int, outcome: Outcome, topics: Topics) -> None:
        topic, dead_topic = self._settings.topic("forecasts"), self._settings.topic("dead_letters")
        for key, value, headers in outcome.forecasts:
            producer.send(topic, number, key, value, headers)
        for letter in outcome.dead_letters:
            message = encode_letter(letter, topics.dead_letter_bytes)
            producer.send(dead_topic, 0, message.key, message.value, message.headers)

    def _checkpoint(self, producer: Producer, partition: Partition) -> Mark:
        """Send a partition's changed blocks, the epoch that starts with it, and last its mark.

        They count as saved from here on: where the transaction fails, the partition is dropped and restored.
        """
        pipeline, number, topic = partition.pipeline, partition.number, self._settings.topic("state")
        started_s = time.monotonic()
        dirty = pipeline.table.dirty_blocks()
        sent_bytes = 0
        for key in partition.stale_blocks:
            producer.send(topic, number, key, None)
        for block in dirty:
            value = blocks.encode_block(block, pipeline.born, *pipeline.table.block(block))
            sent_bytes += len(value)
            producer.send(topic, number, blocks.block_key(block), value)
        if partition.started:
            self._start_epoch(producer, partition)
        mark = Mark(
            partition.mark.sequence + 1, pipeline.next_offset, pipeline.epoch.first_offset, pipeline.born, len(pipeline.table)
        )
        producer.send(topic, number, MARK_KEY, blocks.encode_mark(mark))
        pipeline.table.clean()
        partition.readings_since = 0
        partition.checkpoint_due_s = time.monotonic() + self._settings.state.checkpoint_interval_s
        self._metrics.checkpoint(number, len(dirty), sent_bytes, time.monotonic() - started_s)
        log.debug("checkpoint sent", partition=number, sequence=mark.sequence, offset=mark.offset, blocks=len(dirty))
        return mark

    def _start_epoch(self, producer: Producer, partition: Partition) -> None:
        assert partition.started is not None
        topic = self._settings.topic("epochs")
        for key in partition.stale_epochs:
            producer.send(topic, 0, key, None)
        producer.send(topic, 0, partition.started.key(), partition.started.to_bytes())

    def _committed(self, partition: Partition, committed: Committed, mark: Mark | None) -> None:
        partition.committed = committed
        if mark is None:
            return
        if partition.started:
            self._metrics.epochs_started.inc()
            self._metrics.arithmetic_changes.inc(partition.new_arithmetic)
            version, first_offset = partition.started.model_version, partition.started.first_offset
            log.info("epoch started", partition=partition.number, first_offset=first_offset, model_version=version)
        partition.mark = mark
        partition.started, partition.stale_epochs, partition.stale_blocks = None, (), ()


def _as_doubt(error: BrokerError) -> BrokerError:
    """Whatever went wrong while something was on its way leaves its fate unknown, but for what retrying cannot help."""
    return error if isinstance(error, (Doubt, FatalBrokerError)) else Doubt(str(error))
