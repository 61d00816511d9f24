"""From committed offset, changelog and epoch log back to a partition that can serve.

Order (ARCHITECTURE 6): 1 the committed offset, stable; 2 the changelog up to the high watermark read uncommitted then; 3 the
mark must be the one the commit names; 4 `plan` says where reading goes on and from where forecasts are sent. Ends compare
positions, never last offsets. Several partitions restore at once; each is handed over as soon as it is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from config.settings import Settings, parse_time_ms
from daemon import blocks, epochs, logs, weights
from daemon.blocks import MARK_KEY, Mark
from daemon.brokers.port import Broker, Consumer, LogReader
from daemon.epochs import Epoch
from daemon.errors import BrokerError, Pending, StateError
from daemon.pipeline import Pipeline, Restored, Stage
from daemon.records import Committed
from daemon.swap import InForce
from models import kinds
from models.engine import Engine
from models.table import StateTable

log = logs.get("restore")


class Plan(NamedTuple):
    """Where a partition goes on."""

    position: int  # first offset to read
    emit_from: int  # first offset whose forecasts are sent; what lies before was sent by an earlier owner
    keep: bool  # whether the changelog's rows are used


@dataclass
class Partition:
    """A restored partition: its pipeline, what is committed of it, and what the next commit owes."""

    number: int
    pipeline: Pipeline
    emit_from: int
    mark: Mark
    committed: Committed | None  # as restored, then as our own commits left it
    started: Epoch | None = None  # an epoch that the next commit must record
    stale_epochs: Sequence[bytes] = ()  # keys of epochs of offsets that were taken back; the next commit deletes them
    stale_blocks: Sequence[bytes] = ()  # keys of blocks that a cold start left behind; the same
    readings_since: int = 0  # records and the readings in them since the mark: a measure of catch-up
    checkpoint_due_s: float = 0.0  # monotonic
    new_arithmetic: bool = False  # `started` begins because engine version or fingerprint changed
    restored_blocks: int = 0
    restored_s: float = 0.0

    @property
    def serving(self) -> bool:
        """Whether catch-up is over."""
        return self.pipeline.next_offset >= self.emit_from

    def begin(self, epoch: Epoch) -> None:
        """Let an epoch begin with the next record; the next commit records it. One that no record was in is replaced."""
        known = self.pipeline.epochs
        if known[-1].first_offset == epoch.first_offset:
            epoch = replace(epoch, cold=known[-1].cold)
            known.pop()
        known.append(epoch)
        self.started = epoch


@dataclass
class _Job:
    """A partition whose changelog is being read."""

    committed: Committed | None
    end: int  # high watermark of its changelog
    started_s: float
    position: int
    values: dict[bytes | None, bytes | None] = field(default_factory=dict)  # the newest of each key; None is deleted


class Restorer:
    """Reads changelogs beside the serving partitions, a bounded time per turn."""

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        engine_for: Callable[[Epoch], Engine],
        desired: InForce,
        stage: Stage,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._engine_for = engine_for
        self.desired = desired
        self._stage = stage
        self._topic = settings.topic("state")
        self._jobs: dict[int, _Job] = {}
        self._reader: LogReader | None = None
        self._epochs: dict[int, list[Epoch]] = {}

    @property
    def restoring(self) -> frozenset[int]:
        """Partitions under way."""
        return frozenset(self._jobs)

    def add(self, partitions: Sequence[int], consumer: Consumer) -> frozenset[int]:
        """Begin with these partitions; returns those begun. One whose newest commit is still open must be added again later."""
        reader = self._open()
        jobs = {}
        for partition in partitions:
            try:
                committed = consumer.committed(partition)
            except Pending:
                log.debug("commit pending", partition=partition)
                continue
            end = reader.high_watermark(self._topic, partition)
            jobs[partition] = _Job(committed, end, time.monotonic(), reader.log_start(self._topic, partition))
            log.info("restore started", partition=partition, committed=committed.offset if committed else None, changelog_end=end)
        self._epochs = epochs.by_partition(weights.read_all(reader, self._settings.topic("epochs")))
        self._jobs.update(jobs)
        self._assign()
        return frozenset(jobs)

    def drop(self, partitions: Sequence[int]) -> None:
        """Forget partitions that are ours no longer."""
        if self._jobs.keys() & set(partitions):
            for partition in partitions:
                self._jobs.pop(partition, None)
            self._assign()

    def advance(self, consumer: Consumer, timeout_ms: int) -> list[Partition]:
        """Read on for about `timeout_ms`; return the partitions that are whole now."""
        if not self._jobs:
            return []
        try:
            self._read(self._open(), timeout_ms)
        except BrokerError:
            self._close_reader()
            raise
        done = [partition for partition, job in self._jobs.items() if job.position >= job.end]
        overtaken = [partition for partition in done if self._overtaken(partition, consumer)]
        if overtaken:
            self.add(overtaken, consumer)
        finished = [self._finish(number, self._jobs[number], consumer) for number in done if number not in overtaken]
        self.drop([partition.number for partition in finished])
        return finished

    def _overtaken(self, partition: int, consumer: Consumer) -> bool:
        """Whether somebody committed since the job began: then the changelog read may hold parts of a newer checkpoint.

        That is no damage. It happens to a process that was stopped for so long that it was replaced, before it is told.
        """
        try:
            newest = consumer.committed(partition)
        except Pending:
            return True
        if newest == self._jobs[partition].committed:
            return False
        log.info("restore overtaken by another owner's commit", partition=partition)
        return True

    def close(self) -> None:
        """Give up everything under way."""
        self._jobs.clear()
        self._close_reader()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open(self) -> LogReader:
        if self._reader is None:
            self._reader = self._broker.reader()
            self._assign()
        return self._reader

    def _assign(self) -> None:
        """Read on with every job where it stands."""
        if self._reader is not None:
            self._reader.assign({(self._topic, partition): job.position for partition, job in self._jobs.items()})

    def _read(self, reader: LogReader, timeout_ms: int) -> None:
        """Take in what the changelogs hold, the newest value of each key."""
        for (_, partition), records in reader.poll(timeout_ms).items():
            self._jobs[partition].values.update((record.key, record.value) for record in records)
        for partition, job in self._jobs.items():
            job.position = reader.position(self._topic, partition)

    def _finish(self, number: int, job: _Job, consumer: Consumer) -> Partition:
        """Decode what was read and decide where to go on."""
        living = {key: value for key, value in job.values.items() if key is not None and value is not None}
        written = living.pop(MARK_KEY, None)
        mark = blocks.decode_mark(written) if written is not None else None
        known = self._epochs.get(number, [])
        name = f"{self._settings.topics.readings}[{number}]"
        log_range = consumer.log_range(number)
        plan = make_plan(
            name, self._settings, job.committed, mark, bool(known), log_range, lambda: self._start(consumer, number, log_range)
        )
        past = [epoch for epoch in known if epoch.first_offset <= (job.committed.offset if job.committed else -1)]
        desired = self.desired(number, plan.emit_from)
        replaces = [epoch for epoch in known if epoch.first_offset == desired.first_offset]
        if (known and not plan.keep) or any(epoch.cold for epoch in replaces):
            desired = replace(desired, cold=True)
        started = None if past and epochs.same_forecasts(past[-1], desired) and plan.keep else desired
        new_arithmetic = self._judge_arithmetic(name, past[-1], desired) if past else False
        valid = [*(epoch for epoch in past if epoch.first_offset < desired.first_offset), desired] if started else past
        if plan.keep and mark:
            restored = self._table(living, mark, valid)
            pipeline = Pipeline(number, valid, self._engine_for, restored, self._stage)
        else:
            pipeline = Pipeline(number, [desired], self._engine_for, None, self._stage)
            mark = Mark(mark.sequence if mark else 0, plan.position, desired.first_offset, desired.first_offset, 0)
        pipeline.next_offset = plan.position
        seconds = time.monotonic() - job.started_s
        log.info(
            "restored", partition=number, streams=len(pipeline.table), mark_offset=mark.offset, position=plan.position,
            emit_from=plan.emit_from, catch_up=plan.emit_from - plan.position, seconds=round(seconds, 3),
        )  # fmt: skip
        stale_epochs = [epoch.key() for epoch in known if epoch.first_offset > desired.first_offset]
        stale_blocks = [] if plan.keep else list(living)
        partition = Partition(number, pipeline, plan.emit_from, mark, job.committed, started, stale_epochs, stale_blocks)
        partition.new_arithmetic = new_arithmetic
        partition.restored_blocks, partition.restored_s = len(living), seconds
        if plan.keep and plan.position > mark.offset:  # records after the mark are gone: it serves no restore but this one
            partition.readings_since = self._settings.state.checkpoint_readings
        return partition

    def _judge_arithmetic(self, name: str, last: Epoch, desired: Epoch) -> bool:
        """Whether the bytes of the last epoch cannot be reproduced here: said aloud, and refused by setting."""
        if epochs.same_arithmetic(last, desired):
            return False
        what = (
            f"{name}: engine version {last.engine_version} with fingerprint {last.fingerprint} made the last epoch, "
            f"here it is {desired.engine_version} with {desired.fingerprint}: its bytes cannot be reproduced."
        )
        if self._settings.state.on_new_arithmetic == "refuse":
            raise StateError(
                f'{what} Run it on a machine like the one before, or set state.on_new_arithmetic = "accept" to begin a new epoch.'
            )
        log.warning("new arithmetic", partition=desired.partition, reason=what)
        return True

    def _start(self, consumer: Consumer, partition: int, log_range: tuple[int, int]) -> int:
        """Where a first start begins: `kafka.start` as an offset."""
        start = self._settings.kafka.start
        if start in ("earliest", "latest"):
            return log_range[0] if start == "earliest" else log_range[1]
        return consumer.offset_at(partition, parse_time_ms(start))

    def _table(self, values: dict[bytes, bytes], mark: Mark, valid: Sequence[Epoch]) -> Restored:
        """The table that the mark names, from the blocks of its birth."""
        made_by = [epoch for epoch in valid if epoch.first_offset == mark.epoch_first_offset]
        if not made_by:
            raise StateError(
                f"The mark of {self._topic} names an epoch from offset {mark.epoch_first_offset} on that the epoch log does not "
                "hold: restore topic epochs from a copy, or take a new kafka.group_id and start cold."
            )
        epoch = made_by[0]
        dtype = self._engine_for(epoch).row_dtype
        table = StateTable(dtype, epoch.engine.max_streams_per_partition)
        table.load(*blocks.living_rows(values.values(), mark, dtype, kinds.layouts_before(epoch.engine)))
        return Restored(table, mark.born, epoch, mark.offset)


def make_plan(
    name: str,
    settings: Settings,
    committed: Committed | None,
    mark: Mark | None,
    has_epochs: bool,
    log_range: tuple[int, int],
    start: Callable[[], int],
) -> Plan:
    """Where to go on, or the named refusal.

    Args:
        name: The input partition, for messages.
        settings: `kafka.on_gap` decides between refusing and going on without what is gone.
        committed: The group's committed offset; None where there is none.
        mark: The changelog's newest mark.
        has_epochs: Whether the epoch log knows the partition.
        log_range: First offset the log holds, and its end.
        start: Where a first start begins.

    Raises:
        StateError: With the remedy.
    """
    skip = settings.kafka.on_gap == "skip"
    first, end = log_range
    if committed is None:
        if mark is None and not has_epochs:
            return _cold(start())
        if not skip:
            raise StateError(
                f"{name} has no committed offset, but state or epochs of this group: the offsets expired or were deleted. "
                'Set kafka.on_gap = "skip" to start that partition cold, or take a new kafka.group_id.'
            )
        return _cold(start())
    if not first <= committed.offset <= end:
        gone = f"is below the low watermark {first}: {first - committed.offset} records are gone"
        rewound = f"is beyond the end of the log {end}: the topic was made anew or cut"
        if not skip:
            below = committed.offset < first
            raise StateError(
                f"committed offset {committed.offset} of {name} {gone if below else rewound}. "
                f'Set kafka.on_gap = "skip" to go on from {first}{"" if below else " with no state"}, or restore the topic.'
            )
        if committed.offset > end:
            return _cold(first)
        return Plan(first, first, keep=_names(name, settings, committed, mark))
    if not _names(name, settings, committed, mark):
        return _cold(committed.offset)
    assert mark is not None
    if mark.offset < first:
        if not skip:
            raise StateError(
                f"the checkpoint of {name} stands at offset {mark.offset}, below the low watermark {first}: "
                f"{first - mark.offset} records that catch-up needs are gone. "
                f'Set kafka.on_gap = "skip" to go on without them, or restore the topic.'
            )
        return Plan(first, committed.offset, keep=True)
    return Plan(mark.offset, committed.offset, keep=True)


def _cold(offset: int) -> Plan:
    return Plan(offset, offset, keep=False)


def _names(name: str, settings: Settings, committed: Committed, mark: Mark | None) -> bool:
    """Whether the commit names this mark; False where the operator chose to go on without state."""
    named = blocks.parse_metadata(committed.metadata)
    if mark is not None and named == (mark.sequence, mark.offset):
        return True
    if settings.kafka.on_gap == "skip":
        return False
    what = "names no checkpoint: another tool set it" if named is None else f"names checkpoint {named[0]} at offset {named[1]}"
    holds = "none" if mark is None else f"checkpoint {mark.sequence} at offset {mark.offset}"
    raise StateError(
        f"committed offset {committed.offset} of {name} {what}, the changelog holds {holds}. "
        'Set kafka.on_gap = "skip" to start that partition cold from the committed offset, or restore topic state.'
    )
