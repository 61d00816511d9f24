"""The loop: poll, run the partitions' pipelines, commit. Single-threaded; other threads only hand values over.

A turn ends with at most one transaction and none is open across a poll. On any doubt the producers are replaced and the touched
partitions are dropped and restored from what is committed: state in memory is never patched.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from config.settings import Settings
from daemon import blocks, codec, logs
from daemon.blocks import MARK_KEY, Mark
from daemon.brokers.port import Broker, Consumer, Membership, Polled, Producer
from daemon.epochs import Epoch
from daemon.errors import BrokerError, Doubt, FatalBrokerError, Fenced, Stalled
from daemon.http import Health
from daemon.metrics import Metrics
from daemon.pipeline import Outcome
from daemon.records import Committed, Record
from daemon.restore import Partition, Restorer
from daemon.stall import StallGuard
from daemon.topics import Topics
from models.engine import Engine

#: How long an idle turn waits for records.
IDLE_POLL_MS = 200
#: How long a turn reads changelogs while other partitions serve.
RESTORE_SLICE_MS = 20
#: Two fencings within this time: another process has our identity for good.
FENCED_TWICE_S = 60.0
#: A partition with records to read that brings none for this long is stalled.
STALL_S = 60.0
#: Pause after a failure to reach the broker, doubled up to the second.
BACKOFF_S = (0.5, 10.0)

log = logs.get("loop")


def _as_doubt(error: BrokerError) -> BrokerError:
    """Whatever went wrong while a transaction was open leaves its fate unknown, but for what retrying cannot help."""
    return error if isinstance(error, (Doubt, FatalBrokerError)) else Doubt(str(error))


class Loop:
    """One process's life between connecting and leaving the group."""

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        engine_for: Callable[[Epoch], Engine],
        desired: Callable[[int, int], Epoch],
        grow: Callable[[], Topics],
        metrics: Metrics,
        health: Health,
        stopping: threading.Event,
    ) -> None:
        """`grow` looks at the input topic again and makes the others as large."""
        self._grow = grow
        self._topics = grow()
        self._settings = settings
        self._broker = broker
        self._metrics = metrics
        self._health = health
        self._stopping = stopping
        self._restorer = Restorer(settings, broker, engine_for, desired, metrics.stage)
        self._partitions: dict[int, Partition] = {}
        self._parked: dict[int, Partition] = {}  # revoked; good for the very next assignment
        self._to_restore: set[int] = set()
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None  # transactional
        self._sender: Producer | None = None  # at least once: forecasts and dead letters
        self._fenced_s = float("-inf")
        self._backoff_s = BACKOFF_S[0]
        self._stalls = StallGuard(STALL_S)
        self._remade_for_stall = False
        self._pace_s = 0.0  # monotonic; no earlier poll under low load
        self._exactly_once = settings.kafka.delivery == "exactly_once"
        instance = settings.kafka.instance_id or uuid.uuid4().hex
        self._transactional_id = f"{settings.kafka.group_id}-{instance}"

    def run(self) -> None:
        """Serve until `stopping` is set, then checkpoint, commit and leave.

        Raises:
            OperatorError: Only the operator can mend it (exit 78).
            Fenced: Another process has our identity (exit 75).
            Stalled: The client brings no records although there are some (exit 75).
        """
        try:
            while not self._stopping.is_set():
                self._health.beat()
                try:
                    self._turn()
                    self._backoff_s = BACKOFF_S[0]
                except (FatalBrokerError, Stalled):
                    raise
                except Doubt as doubt:
                    self._recover(doubt)
                except BrokerError as error:
                    self._wait_for_broker(error)
            self._drain()
        finally:
            self._close()

    # -- one turn ---------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        consumer, producer = self._connected()
        self._pause_under_low_load()
        busy = bool(self._restorer.restoring)
        try:
            with self._metrics.stage("poll"):
                polled = consumer.poll(0 if busy else IDLE_POLL_MS)
        except BrokerError:
            self._leave_group()
            raise
        self._follow(polled, consumer)
        self._restore(consumer)
        outcomes = self._process(polled.records)
        if polled.membership is not None:
            self._commit(producer, outcomes, polled.membership)
            for number, outcome in outcomes.items():
                self._metrics.visible(polled.records[number], outcome.times_ms)
        self._publish_gauges(polled, consumer)

    def _process(self, records: Mapping[int, Sequence[Record]]) -> dict[int, Outcome]:
        """Run polled records through their partitions; what lies before `emit_from` was sent by an earlier owner."""
        outcomes = {}
        self._metrics.polled(records)
        for number, polled in records.items():
            partition = self._partitions.get(number)
            if partition is None:
                continue
            fresh = [record for record in polled if record.offset >= partition.pipeline.next_offset]
            caught = [record for record in fresh if record.offset < partition.emit_from]
            if caught:
                self._metrics.catch_up_readings.inc(partition.pipeline.process(caught).stepped)
                partition.readings_since += len(caught)
            live = fresh[len(caught) :]
            if live:
                outcomes[number] = partition.pipeline.process(live)
                partition.readings_since += len(live)
                self._metrics.outcome(outcomes[number])
        return outcomes

    # -- assignment -------------------------------------------------------------------------------------------------------

    def _follow(self, polled: Polled, consumer: Consumer) -> None:
        """Take what the group gave and took: a revoked partition's state is kept for the very next assignment only."""
        for kind, numbers in polled.changes:
            self._metrics.rebalances.labels(kind).inc()
            log.info("partitions " + kind, partitions=",".join(map(str, sorted(numbers))))
            if kind == "assigned":
                self._to_restore.update(numbers)
                self._health.set("joined", True, "")
            else:
                self._release(numbers, keep=kind == "revoked")
        if polled.membership is None:
            return
        self._health.set("joined", True, "")
        self._health.set("kafka", True, "")
        if any(kind == "assigned" for kind, _ in polled.changes):
            self._reclaim(consumer)
        for number in polled.out_of_range:
            if number in self._partitions:  # not while it restores: its position is set when it is whole
                self._drop([number])

    def _release(self, numbers: Sequence[int], keep: bool) -> None:
        self._to_restore.difference_update(numbers)
        self._restorer.drop(numbers)
        for number in numbers:
            partition = self._partitions.pop(number, None)
            if partition and keep:
                self._parked[number] = partition

    def _reclaim(self, consumer: Consumer) -> None:
        """Go on with parked partitions that came back untouched; forget the others."""
        parked, self._parked = self._parked, {}
        for number in self._to_restore & parked.keys():
            partition = parked[number]
            if partition.serving and partition.committed and consumer.committed(number) == partition.committed:
                if partition.pipeline.next_offset != partition.committed.offset:
                    continue  # at least once: rows are ahead of the committed offset, emitting again needs a restore
                self._to_restore.discard(number)
                self._partitions[number] = partition
                consumer.seek(number, partition.pipeline.next_offset)
                log.info("state kept", partition=number)

    def _drop(self, numbers: Sequence[int]) -> None:
        """Forget these partitions' state and restore them."""
        for number in numbers:
            self._partitions.pop(number, None)
        self._restorer.drop(numbers)
        self._to_restore.update(numbers)

    def _restore(self, consumer: Consumer) -> None:
        if self._to_restore:
            waiting = sorted(self._to_restore)
            if waiting[-1] >= self._topics.partitions:
                self._topics = self._grow()
            consumer.pause(waiting)
            self._restorer.add(waiting, consumer)
            self._to_restore.clear()
        for partition in self._restorer.advance(consumer, RESTORE_SLICE_MS if self._partitions else IDLE_POLL_MS):
            consumer.seek(partition.number, partition.pipeline.next_offset)
            consumer.resume([partition.number])
            self._partitions[partition.number] = partition
            interval_s = self._settings.state.checkpoint_interval_s
            turn = len(self._partitions) / (len(self._partitions) + 1)
            partition.checkpoint_due_s = time.monotonic() + interval_s * turn
            self._metrics.restored(partition)

    # -- commit -----------------------------------------------------------------------------------------------------------

    def _commit(self, producer: Producer, outcomes: Mapping[int, Outcome], membership: Membership) -> None:
        """Steps 2 to 6 of ARCHITECTURE 6: everything these records caused, and one due checkpoint, in one transaction."""
        if not self._exactly_once:
            self._send_untransacted(outcomes)
        due = self._due()
        touched = self._touched(outcomes, due)
        if not touched:
            return
        try:
            producer.begin()
            log.debug("sending", partitions=",".join(str(partition.number) for partition in touched))
            with self._metrics.stage("send"):
                if self._exactly_once:
                    self._send(producer, outcomes)
                marks = {partition.number: self._checkpoint(producer, partition) for partition in due}
            offsets = {p.number: self._offset(p, marks.get(p.number, p.mark)) for p in touched}
            log.debug("committing")
            with self._metrics.stage("commit"):
                producer.commit(offsets, membership)
        except BrokerError as error:
            self._drop([partition.number for partition in touched])
            raise _as_doubt(error) from error
        for partition in touched:
            self._committed(partition, offsets[partition.number], marks.get(partition.number))
        self._metrics.committed(outcomes, offsets)
        log.debug("committed", offsets=offsets, generation=membership.generation)
        self._pace_s = time.monotonic() + self._settings.kafka.poll_interval_ms / 1000

    def _touched(self, outcomes: Mapping[int, Outcome], due: Sequence[Partition]) -> list[Partition]:
        """Partitions whose offsets go into this transaction."""
        moved = outcomes.keys() if self._exactly_once else ()
        return [self._partitions[number] for number in sorted({*moved, *(partition.number for partition in due)})]

    def _due(self) -> list[Partition]:
        """Partitions to checkpoint now: every one that starts an epoch, else the one longest due."""
        ready = [partition for partition in self._partitions.values() if partition.serving]
        starting = [partition for partition in ready if partition.started]
        if starting:
            return starting
        now, most = time.monotonic(), self._settings.state.checkpoint_readings
        due = [p for p in ready if p.readings_since and (p.checkpoint_due_s <= now or p.readings_since >= most)]
        return sorted(due, key=lambda partition: partition.checkpoint_due_s)[:1]

    def _send(self, producer: Producer, outcomes: Mapping[int, Outcome]) -> None:
        topic, dead_topic = self._settings.topic("forecasts"), self._settings.topic("dead_letters")
        for number, outcome in outcomes.items():
            for key, value, headers in outcome.forecasts:
                producer.send(topic, number, key, value, headers)
            for letter in outcome.dead_letters:
                message = codec.dead_letter(*letter, self._topics.dead_letter_bytes)
                producer.send(dead_topic, 0, message.key, message.value, message.headers)

    def _send_untransacted(self, outcomes: Mapping[int, Outcome]) -> None:
        """At least once: out as soon as computed, acknowledged before the turn goes on."""
        if not any(outcome.forecasts or outcome.dead_letters for outcome in outcomes.values()):
            return
        try:
            if self._sender is None:
                self._sender = self._broker.producer(None)
            with self._metrics.stage("send"):
                self._send(self._sender, outcomes)
                self._sender.flush()
        except BrokerError as error:
            self._drop(list(outcomes))
            raise _as_doubt(error) from error

    def _checkpoint(self, producer: Producer, partition: Partition) -> Mark:
        """Send a partition's changed blocks, its mark, and the epoch that starts with it."""
        pipeline, number, topic = partition.pipeline, partition.number, self._settings.topic("state")
        started_s = time.monotonic()
        dirty = pipeline.table.dirty_blocks()
        sent_bytes = 0
        for block in dirty:
            value = blocks.encode_block(block, pipeline.born, *pipeline.table.block(block))
            sent_bytes += len(value)
            producer.send(topic, number, blocks.block_key(block), value)
        for key in partition.stale_blocks:
            producer.send(topic, number, key, None)
        mark = Mark(
            partition.mark.sequence + 1, pipeline.next_offset, pipeline.epoch.first_offset, pipeline.born, len(pipeline.table)
        )
        producer.send(topic, number, MARK_KEY, blocks.encode_mark(mark))
        if partition.started:
            epochs_topic = self._settings.topic("epochs")
            producer.send(epochs_topic, 0, partition.started.key(), partition.started.to_bytes())
            for key in partition.stale_epochs:
                producer.send(epochs_topic, 0, key, None)
        self._metrics.checkpoint(number, len(dirty), sent_bytes, time.monotonic() - started_s)
        log.debug("checkpoint sent", partition=number, sequence=mark.sequence, offset=mark.offset, blocks=len(dirty))
        return mark

    @staticmethod
    def _offset(partition: Partition, mark: Mark) -> Committed:
        return Committed(partition.pipeline.next_offset, blocks.mark_metadata(mark))

    def _committed(self, partition: Partition, committed: Committed, mark: Mark | None) -> None:
        partition.committed = committed
        if mark is None:
            return
        if partition.started:
            log.info("epoch started", partition=partition.number, first_offset=partition.started.first_offset,
                     model_version=partition.started.model_version)  # fmt: skip
            self._metrics.epochs_started.inc()
            self._metrics.arithmetic_changes.inc(partition.new_arithmetic)
        partition.mark = mark
        partition.started, partition.stale_epochs, partition.stale_blocks = None, (), ()
        partition.readings_since = 0
        partition.checkpoint_due_s = time.monotonic() + self._settings.state.checkpoint_interval_s
        partition.pipeline.table.clean()

    # -- failures and the end ---------------------------------------------------------------------------------------------

    def _recover(self, doubt: Doubt) -> None:
        """Replace the producers; the touched partitions are already waiting to be restored."""
        log.warning("transaction in doubt", error=type(doubt).__name__, reason=str(doubt))
        self._metrics.aborted(doubt)
        self._close_producers()
        if isinstance(doubt, Fenced):
            if time.monotonic() - self._fenced_s < FENCED_TWICE_S:
                raise doubt
            self._fenced_s = time.monotonic()

    def _leave_group(self) -> None:
        """Close the consumer; the next turn joins anew and takes back what comes back unchanged."""
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = None
        self._health.set("joined", False, "joining the group again")
        self._restorer.drop(sorted(self._restorer.restoring))
        self._to_restore.clear()
        self._release(list(self._partitions), keep=True)

    def _wait_for_broker(self, error: BrokerError) -> None:
        log.warning("broker unreachable", reason=str(error), retry_in_s=self._backoff_s)
        self._health.set("kafka", False, f"unreachable: {error}")
        self._stopping.wait(self._backoff_s)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_S[1])

    def _connected(self) -> tuple[Consumer, Producer]:
        if self._consumer is None:
            self._consumer = self._broker.consumer()
        if self._producer is None:
            self._producer = self._broker.producer(self._transactional_id)
        return self._consumer, self._producer

    def _pause_under_low_load(self) -> None:
        pause_s = self._pace_s - time.monotonic()
        if pause_s > 0:
            self._stopping.wait(pause_s)

    def _drain(self) -> None:
        """Checkpoint and commit every serving partition, so that the next owner need not catch up."""
        self._health.set("draining", False, "stopping")
        consumer, producer = self._consumer, self._producer
        if consumer is None or producer is None:
            return
        try:
            polled = consumer.poll(0)
            self._follow(polled, consumer)
            due = [p for p in self._partitions.values() if p.serving and (p.readings_since or p.started)]
            if polled.membership is None or not due:
                return
            producer.begin()
            marks = {partition.number: self._checkpoint(producer, partition) for partition in due}
            producer.commit({p.number: self._offset(p, marks[p.number]) for p in due}, polled.membership)
            log.info("drained", partitions=",".join(str(p.number) for p in due))
        except BrokerError as error:
            log.warning("last checkpoint not committed: the next owner catches up", reason=str(error))

    def _close(self) -> None:
        self._restorer.close()
        self._close_producers()
        if self._consumer is not None:
            self._consumer.close()

    def _close_producers(self) -> None:
        for producer in (self._producer, self._sender):
            if producer is not None:
                producer.close()
        self._producer = self._sender = None

    def _guard_against_stalls(self, consumer: Consumer, lags: Mapping[int, int]) -> None:
        """Make the consumer anew when a partition stalls; give up when that did not help."""
        now_s = time.monotonic()
        next_offsets = {number: partition.pipeline.next_offset for number, partition in self._partitions.items()}
        for number in self._stalls.suspects(next_offsets, lags, now_s):
            if consumer.log_range(number)[1] <= next_offsets[number]:
                self._stalls.forgive(number, now_s)  # an upstream transaction is open: nothing to read yet
                continue
            self._metrics.partition_stalls.inc()
            log.error("partition stalled", partition=number, offset=next_offsets[number], lag=lags[number])
            if self._remade_for_stall:
                raise Stalled(f"partition {number} brings no records from offset {next_offsets[number]} on")
            self._remade_for_stall = True
            self._leave_group()
            return

    # -- what is seen from outside ----------------------------------------------------------------------------------------

    def _publish_gauges(self, polled: Polled, consumer: Consumer) -> None:
        waiting = self._to_restore | self._restorer.restoring
        catching_up = [p.number for p in self._partitions.values() if not p.serving]
        behind = sorted(waiting | set(catching_up))
        self._health.set("restored", not behind, f"partitions {behind} are being restored" if behind else "")
        lags = {}
        for number, partition in self._partitions.items():
            end = consumer.high_watermark(number)
            if end is not None:
                lags[number] = max(end - partition.pipeline.next_offset, 0)
        self._metrics.turn(self._partitions, waiting, lags)
        self._guard_against_stalls(consumer, lags)
