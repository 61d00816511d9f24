"""Which partitions this process holds, and in what state: assigned, restored, serving, revoked, parked.

Follows what the consumer group gives and takes. Decides nothing about records; the loop asks it for the partitions to run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from config.settings import Settings
from daemon import logs
from daemon.brokers.port import Consumer, Polled
from daemon.errors import Pending
from daemon.metrics import Metrics
from daemon.records import Committed
from daemon.restore import Partition, Restorer
from daemon.topics import Topics

#: How long a turn reads changelogs while other partitions serve, and while none does.
RESTORE_SLICE_MS, RESTORE_ALONE_MS = 20, 200
#: A partition whose committed offset is held by an open transaction is asked for again after this.
RETRY_RESTORE_S = 0.5
#: Between the swaps of two partitions, and how long a partition is watched before its own.
SWAP_PAUSE_S = 1.0

log = logs.get("partitions")


class Ownership:
    """The partitions of this process."""

    def __init__(self, settings: Settings, restorer: Restorer, grow: Callable[[], Topics], metrics: Metrics) -> None:
        """`grow` looks at the input topic again and makes the others as large."""
        self._settings = settings
        self._restorer = restorer
        self._grow = grow
        self._metrics = metrics
        self._parked: dict[int, Partition] = {}  # revoked; good for the very next assignment
        self._to_restore: set[int] = set()
        self._retry_s = 0.0
        self._generation = -1
        self._next_swap_s = 0.0
        self._swap_since_s: float | None = None
        self._watched: dict[int, tuple[float, int]] = {}  # since when a partition is behind in a swap, and its offset then
        self.topics = grow()
        self.held: dict[int, Partition] = {}  # restored: serving or catching up

    @property
    def waiting(self) -> frozenset[int]:
        """Assigned partitions that are not restored yet."""
        return self._restorer.restoring | self._to_restore

    @property
    def behind(self) -> list[int]:
        """Partitions that do not serve yet: their changelog is read, or they catch up."""
        return sorted(self.waiting.union(p.number for p in self.held.values() if not p.serving))

    def follow(self, polled: Polled, consumer: Consumer) -> None:
        """Take what the group gave and took; drop what lost its position."""
        for kind, numbers in polled.changes:
            self._metrics.rebalances.labels(kind).inc()
            log.info(kind, partitions=",".join(map(str, sorted(numbers))))
            if kind == "assigned":
                self._to_restore.update(numbers)
            else:
                self.release(numbers, keep=kind == "revoked")
        self.drop(number for number in polled.out_of_range if number in self.held)
        if polled.membership is not None and polled.membership.generation != self._generation:
            self._generation = polled.membership.generation
            self._reclaim(consumer)

    def release(self, numbers: Iterable[int], keep: bool) -> None:
        """These partitions are ours no longer; `keep` parks their state for the very next assignment."""
        gone = list(numbers)
        self._to_restore.difference_update(gone)
        self._restorer.drop(gone)
        for number in gone:
            partition = self.held.pop(number, None)
            if partition and keep:
                self._parked[number] = partition

    def drop(self, numbers: Iterable[int]) -> None:
        """Forget these partitions' state and restore them."""
        dropped = list(numbers)
        self.release(dropped, keep=False)
        self._to_restore.update(dropped)

    def leave(self) -> None:
        """The consumer is closed: what comes back unchanged when it joins anew goes on."""
        self.release([*self.waiting, *self.held], keep=True)
        self._generation = -1

    def restore(self, consumer: Consumer) -> None:
        """Begin with new partitions and read on with those under way; hand over what is whole."""
        if self._to_restore and time.monotonic() >= self._retry_s:
            self._begin(consumer)
        for partition in self._restorer.advance(consumer, RESTORE_SLICE_MS if self.held else RESTORE_ALONE_MS):
            consumer.seek(partition.number, partition.pipeline.next_offset)
            consumer.resume([partition.number])
            self.held[partition.number] = partition
            partition.checkpoint_due_s = time.monotonic() + self._stagger_s()
            self._metrics.restored(partition)

    def rewind(self, consumer: Consumer) -> None:
        """Read every held partition again from where its pipeline stands: polled records may have been lost on the way."""
        for partition in self.held.values():
            consumer.seek(partition.number, partition.pipeline.next_offset)

    def swap(self) -> None:
        """Let one more partition begin an epoch with the version in force: in turn, since its rows are rebuilt as they step."""
        now_s, desired = time.monotonic(), self._restorer.desired
        serving = [partition for partition in self.held.values() if partition.serving]
        behind = [partition for partition in serving if partition.pipeline.epochs[-1].model_version != desired.version]
        self._time_swap(bool(behind) or now_s < self._next_swap_s, now_s)
        paces = [(partition, self._offsets_per_s(partition, now_s)) for partition in behind]
        ready = [(partition, pace) for partition, pace in paces if pace is not None and not partition.started]
        if ready and now_s >= self._next_swap_s:
            partition, pace = ready[0]
            seconds = len(partition.pipeline.table) * desired.rebuild_s / self._settings.state.rebuild_share
            partition.begin(desired(partition.number, partition.pipeline.next_offset, round(pace * seconds)))
            self._next_swap_s = now_s + SWAP_PAUSE_S + seconds

    def _offsets_per_s(self, partition: Partition, now_s: float) -> float | None:
        """What a partition has read since it was first seen behind; None before it was watched for a while."""
        since_s, offset = self._watched.setdefault(partition.number, (now_s, partition.pipeline.next_offset))
        if now_s - since_s < SWAP_PAUSE_S:
            return None
        return max(0.0, (partition.pipeline.next_offset - offset) / (now_s - since_s))

    def _time_swap(self, under_way: bool, now_s: float) -> None:
        if under_way and self._swap_since_s is None:
            self._swap_since_s = now_s
            self._watched.clear()
        elif not under_way and self._swap_since_s is not None:
            self._metrics.swap_seconds.observe(now_s - self._swap_since_s)
            self._swap_since_s = None

    def starting(self) -> list[Partition]:
        """Partitions whose next forecasts begin an epoch: it is recorded, and they are checkpointed, in the same transaction."""
        return [partition for partition in self.held.values() if partition.serving and partition.started]

    def stagger(self, started: Sequence[Partition]) -> None:
        """Partitions that were checkpointed together are due in turn, evenly over the interval."""
        now_s, interval_s = time.monotonic(), self._settings.state.checkpoint_interval_s
        for place, partition in enumerate(started, start=1):
            partition.checkpoint_due_s = now_s + interval_s * place / len(started)

    def due(self) -> list[Partition]:
        """The partition to checkpoint now, the one longest due: at most one."""
        ready = [partition for partition in self.held.values() if partition.serving]
        now_s, most = time.monotonic(), self._settings.state.checkpoint_readings
        due = [p for p in ready if p.readings_since and (p.checkpoint_due_s <= now_s or p.readings_since >= most)]
        return sorted(due, key=lambda partition: partition.checkpoint_due_s)[:1]

    def unsaved(self) -> list[Partition]:
        """Serving partitions with anything that no checkpoint holds."""
        return [p for p in self.held.values() if p.serving and (p.readings_since or p.started)]

    def close(self) -> None:
        """Give up restores under way."""
        self._restorer.close()

    def _begin(self, consumer: Consumer) -> None:
        waiting = sorted(self._to_restore)
        if waiting[-1] >= self.topics.partitions:
            self.topics = self._grow()
        consumer.pause(waiting)
        self._to_restore.difference_update(self._restorer.add(waiting, consumer))
        self._retry_s = time.monotonic() + RETRY_RESTORE_S

    def _reclaim(self, consumer: Consumer) -> None:
        """Go on with parked partitions that came back untouched; forget the others."""
        parked, self._parked = self._parked, {}
        for number in self._to_restore & parked.keys():
            partition = parked[number]
            if not partition.serving or partition.committed is None:
                continue
            # At least once, rows are ahead of the committed offset, and emitting again needs a restore.
            if (
                _committed(consumer, number) == partition.committed
                and partition.pipeline.next_offset == partition.committed.offset
            ):
                self._to_restore.discard(number)
                self.held[number] = partition
                consumer.seek(number, partition.pipeline.next_offset)
                log.info("state kept", partition=number)

    def _stagger_s(self) -> float:
        """When a restored partition's first checkpoint is due: partitions in turn, so that none stalls the rest."""
        held = len(self.held)
        return self._settings.state.checkpoint_interval_s * held / (held + 1)


def _committed(consumer: Consumer, number: int) -> Committed | None:
    """What is committed, or None where that is not known yet."""
    try:
        return consumer.committed(number)
    except Pending:
        return None
