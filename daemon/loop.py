"""The loop: poll, run the partitions' pipelines, commit. Single-threaded; other threads only hand values over.

A turn ends with at most one open transaction, which it commits: none is open across a poll. On any doubt the producers are
replaced and the touched partitions are dropped and restored from what is committed: state in memory is never patched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from config.settings import Settings
from daemon import logs
from daemon.brokers.port import Broker, Consumer, Membership, Polled
from daemon.commit import Committer
from daemon.errors import BrokerError, Doubt, FatalBrokerError, Fenced, Stalled
from daemon.http import Health
from daemon.metrics import Metrics
from daemon.ownership import Ownership
from daemon.pipeline import Outcome
from daemon.records import Record
from daemon.stall import StallGuard
from daemon.viewing import Viewing
from daemon.warmer import Warmer

#: How long an idle turn waits for records.
IDLE_POLL_MS = 200
#: In transaction time-outs: a partition that waits longer than this may wait for a transaction that the broker has lost.
HANGING_AFTER = 3
#: Records that are processed before what they caused is sent: the broker works on it while the next ones are processed.
PART_RECORDS = 5000
#: A transaction that was open for this share of its time-out while records are processed is committed in between.
OPEN_SHARE = 0.25
#: Two fencings within this time: another process has our identity for good.
FENCED_TWICE_S = 60.0
#: A partition with records to read that brings none for this long is stalled.
STALL_S = 60.0
#: A group that has been unstable for this long makes the process unready; a rebalance does not.
UNSTABLE_S = 30.0
#: Pause after a failure to reach the broker, doubled up to the second.
BACKOFF_S = (0.5, 10.0)

log = logs.get("loop")


class Loop:
    """One process's life between connecting and leaving the group."""

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        ownership: Ownership,
        committer: Committer,
        metrics: Metrics,
        health: Health,
        stopping: threading.Event,
        owns_first: Callable[[bool], None] = lambda _owns: None,
        viewing: Viewing | None = None,
    ) -> None:
        """`owns_first` is told every turn whether partition 0 is held here: what runs once a group runs beside it.

        `viewing` is where viewers ask.
        """
        self._viewing = viewing or Viewing()
        self._owns_first = owns_first
        self._kafka = settings.kafka
        self._broker = broker
        self._own = ownership
        self._committer = committer
        self._metrics = metrics
        self._warmer = Warmer(metrics)
        self._health = health
        self._stopping = stopping
        self._consumer: Consumer | None = None
        self._backoff_s = BACKOFF_S[0]
        self._next_poll_s = 0.0  # monotonic
        self._fenced_s = float("-inf")
        self._waiting_s = time.monotonic()  # since when partitions wait
        self._stable_s = time.monotonic()
        self._stalls = StallGuard(STALL_S)
        self._remade_for_stall = False

    def run(self) -> None:
        """Serve until `stopping` is set, then checkpoint, commit and leave.

        Raises:
            OperatorError, FatalBrokerError: Only the operator can mend it (exit 78).
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
            self._own.close()
            self._committer.replace()
            self._leave_group()

    def _turn(self) -> None:
        """One turn of the data path. Whatever it raises, no polled record is lost: the handlers rewind.

        Partitions restored in this turn serve from the next poll on: what this poll brought of them is not from where they stand.
        """
        consumer = self._connected()
        self._pause_under_low_load()
        polled = self._poll(consumer)
        self._own.follow(polled, consumer)
        if polled.membership is not None:
            self._committer.connect()  # a broker may have been lost while it waited
            self._work(polled, polled.membership)
        self._warmer.turn(partition.pipeline for partition in self._own.held.values() if partition.serving)
        self._own.restore(consumer)
        self._end_hanging()
        self._show(polled, consumer)

    def _poll(self, consumer: Consumer) -> Polled:
        try:
            with self._metrics.stage("poll"):
                polled = consumer.poll(0 if self._own.waiting else IDLE_POLL_MS)
        except BrokerError:
            self._leave_group()
            raise
        self._metrics.polled(polled.records)
        if sum(map(len, polled.records.values())) < self._kafka.max_poll_records:
            self._next_poll_s = time.monotonic() + self._kafka.poll_interval_ms / 1000
        return polled

    def _work(self, polled: Polled, membership: Membership) -> None:
        """Checkpoint what is due, as it is before this turn's readings; process them, send as they come, commit."""
        times_ms: dict[int, list[np.ndarray]] = {}  # of the readings, by partition
        fresh = self._catch_up(polled.records)
        if not self._warmer.busy:  # one partition at a time
            self._own.swap()
        starting = self._own.starting()
        due = starting or self._own.due()
        touched = {partition.number for partition in due}  # by the open transaction
        with self._dropping(touched):
            self._committer.checkpoint(due)
        for number, outcome in self._process(fresh):
            times_ms.setdefault(number, [np.zeros(0, np.int64)]).extend(outcome.times_ms)
            touched.add(number)
            with self._dropping(touched):
                self._committer.send(number, outcome, self._own.topics)
            self._viewing.sent(number, outcome.forecasts)
            if self._committer.open_s() > self._kafka.transaction_timeout_ms / 1000 * OPEN_SHARE:
                self._commit(touched, membership)
                touched = set()
        self._commit(touched, membership)
        self._own.stagger(starting)
        for number, times in times_ms.items():
            self._metrics.visible(polled.records[number], np.concatenate(times))

    def _commit(self, touched: set[int], membership: Membership) -> None:
        with self._dropping(touched):
            self._committer.commit(self._own.held, touched, membership)

    @contextmanager
    def _dropping(self, touched: set[int]) -> Iterator[None]:
        """What a transaction in doubt touched is restored."""
        try:
            yield
        except BrokerError:
            self._own.drop(touched)
            raise

    def _catch_up(self, records: Mapping[int, Sequence[Record]]) -> dict[int, list[Record]]:
        """Run what an earlier owner has forecast, before an epoch can start behind it; return what is left to forecast."""
        left = {}
        for number in records.keys() & self._own.held.keys():
            partition = self._own.held[number]
            fresh = [record for record in records[number] if record.offset >= partition.pipeline.next_offset]
            left[number] = [record for record in fresh if record.offset >= partition.emit_from]
            caught = fresh[: len(fresh) - len(left[number])]
            if caught:
                stepped = partition.pipeline.process(caught, encodes=False).stepped
                partition.readings_since += len(caught) + stepped
                self._metrics.catch_up_readings.inc(stepped)
        return left

    def _process(self, fresh: Mapping[int, Sequence[Record]]) -> Iterator[tuple[int, Outcome]]:
        """Run records through their partitions, part by part."""
        for number, records in fresh.items():
            partition = self._own.held[number]
            for first in range(0, len(records), PART_RECORDS):
                part = records[first : first + PART_RECORDS]
                outcome = partition.pipeline.process(part)
                partition.readings_since += len(part) + outcome.stepped
                self._metrics.outcome(outcome)
                yield number, outcome

    def _end_hanging(self) -> None:
        """What waits longer than a live transaction lasts may wait for one that the broker has lost."""
        now_s = time.monotonic()
        if not self._own.waiting:
            self._waiting_s = now_s
        elif now_s - self._waiting_s > HANGING_AFTER * self._kafka.transaction_timeout_ms / 1000:
            self._waiting_s = now_s
            self._committer.end_hanging()

    # -- failures and the end ---------------------------------------------------------------------------------------------

    def _recover(self, doubt: Doubt) -> None:
        """Replace the producers; the touched partitions are waiting to be restored."""
        log.warning("transaction in doubt", error=type(doubt).__name__, reason=str(doubt))
        self._metrics.aborted(doubt)
        self._committer.replace()
        self._rewind()
        if isinstance(doubt, Fenced):
            if time.monotonic() - self._fenced_s < FENCED_TWICE_S:
                raise doubt
            self._fenced_s = time.monotonic()

    def _wait_for_broker(self, error: BrokerError) -> None:
        log.warning("broker unreachable", reason=str(error), retry_in_s=self._backoff_s)
        self._health.set("kafka", False, f"unreachable: {error}")
        self._rewind()
        self._stopping.wait(self._backoff_s)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_S[1])

    def _rewind(self) -> None:
        if self._consumer is not None:
            self._own.rewind(self._consumer)

    def _connected(self) -> Consumer:
        self._committer.connect()
        if self._consumer is None:
            self._consumer = self._broker.consumer()
        return self._consumer

    def _leave_group(self) -> None:
        """Close the consumer; a next turn would join anew."""
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = None
        self._health.set("joined", False, "not in the consumer group")
        self._own.leave()

    def _pause_under_low_load(self) -> None:
        """Let records gather for `poll_interval_ms`, unless the last poll was full."""
        pause_s = self._next_poll_s - time.monotonic()
        if pause_s > 0:
            self._stopping.wait(pause_s)

    def _drain(self) -> None:
        """Checkpoint and commit every serving partition, so that the next owner need not catch up."""
        self._health.set("draining", False, "stopping")
        if self._consumer is None:
            return
        try:
            self._committer.connect()
            polled = self._consumer.poll(0)
            self._own.follow(polled, self._consumer)
            unsaved = self._own.unsaved()
            if polled.membership is not None and unsaved:
                self._committer.checkpoint(unsaved)
                self._committer.commit(self._own.held, (), polled.membership)
                log.info("drained", partitions=",".join(str(partition.number) for partition in unsaved))
        except BrokerError as error:
            log.warning("last checkpoint not committed: the next owner catches up", reason=str(error))

    # -- what is seen from outside ----------------------------------------------------------------------------------------

    def _show(self, polled: Polled, consumer: Consumer) -> None:
        """Health, gauges, and a look at partitions that should move."""
        now_s = time.monotonic()
        behind = self._own.behind  # shown before `joined`: no probe may find a new member ready with nothing restored
        self._health.set("restored", not behind, f"partitions {behind} are being restored" if behind else "")
        if polled.membership is not None:
            self._stable_s = now_s
            self._health.set("joined", True)
            self._health.set("kafka", True)
        elif now_s - self._stable_s > UNSTABLE_S:
            self._health.set("joined", False, f"the consumer group has not been stable for {now_s - self._stable_s:.0f} s")
        ends = {number: consumer.high_watermark(number) for number in self._own.held}
        lags = {number: self._lag(consumer, number, end) for number, end in ends.items() if end is not None}
        self._owns_first(0 in self._own.held)
        self._metrics.turn(self._own.held, self._own.waiting, lags)
        self._viewing.turn(self._own.held)
        self._guard_against_stalls(consumer, lags)

    def _lag(self, consumer: Consumer, number: int, end: int) -> int:
        """Offsets up to the log's end that were not read. Behind the last record may be markers of its producer's transaction."""
        behind = self._own.held[number].pipeline.next_offset
        return 0 if end <= behind else max(0, end - max(behind, consumer.position(number) or 0))

    def _guard_against_stalls(self, consumer: Consumer, lags: Mapping[int, int]) -> None:
        """Make the consumer anew when a partition stalls; give up when that did not help."""
        now_s = time.monotonic()
        next_offsets = {number: partition.pipeline.next_offset for number, partition in self._own.held.items()}
        suspects = self._stalls.suspects(next_offsets, lags, now_s)
        if not any(lags.values()):
            self._remade_for_stall = False  # the new consumer brought everything
        for number in suspects:
            if consumer.log_range(number)[1] <= next_offsets[number]:
                self._stalls.forgive(number, now_s)  # an upstream transaction is open: nothing to read yet
                continue
            self._metrics.partition_stalls.inc()
            log.error("partition stalled", partition=number, offset=next_offsets[number], lag=lags[number])
            if self._remade_for_stall:
                raise Stalled(
                    f"partition {number} brings no records from offset {next_offsets[number]} on although the consumer was made "
                    "anew: restart recurd; if it comes back, look at the leader of that partition"
                )
            self._remade_for_stall = True
            for each in next_offsets:
                self._stalls.forgive(each, now_s)  # the new consumer has its own time to bring records
            self._leave_group()
            return
