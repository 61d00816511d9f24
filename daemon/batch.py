"""Admission, slots and waves: which readings step, in which slot, in which order. Reading by reading, in log order.

The rules are those of ARCHITECTURE 4. This is the only place that judges a reading against its stream's past.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from config.settings import EngineSettings
from daemon.records import DeadLetter, Reading, Record
from models.engine import Readings
from models.slots import Slots


@dataclass
class Batch:
    """Readings to step, in log order, and what became of the others."""

    streams: list[str] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    waves: list[int] = field(default_factory=list)
    fresh: list[bool] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    values: list[tuple[float, ...]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    elements: list[int] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)  # late, duplicate, incomplete_start
    evicted: int = 0

    def __len__(self) -> int:
        return len(self.streams)

    def readings(self) -> Readings:
        """The columns as arrays, B readings in log order."""
        return Readings(
            values=np.array(self.values, np.float64),
            time_ms=np.array(self.times_ms, np.int64),
            offset=np.array(self.offsets, np.int64),
            element=np.array(self.elements, np.int64),
            fresh=np.array(self.fresh, bool),
        )

    def parts(self, size: int) -> Iterator[np.ndarray]:
        """Positions in the batch to step together: at most `size`, of one wave, waves in order."""
        waves = np.array(self.waves, np.int64)
        order = np.argsort(waves, kind="stable")
        ends: list[int] = np.cumsum(np.bincount(waves)).tolist() if len(waves) else []
        first = 0
        for end in ends:
            for start in range(first, end, size):
                yield order[start : min(start + size, end)]
            first = end


class Batcher:
    """Judges the readings of one partition against its streams' past and gives them slots and waves."""

    def __init__(self, engine: EngineSettings, slots: Slots) -> None:
        self._slots = slots
        self._max_gap_ms = round(engine.input.max_gap_s * 1000)
        self._max_ahead_ms = round(engine.input.max_ahead_s * 1000)
        self._late_is_dead = engine.input.on_late == "dead-letter"

    def batch(self, decoded: Iterable[tuple[Record, Sequence[Reading]]]) -> Batch:
        """Admit readings in log order. Slots are given out here, so `StateTable.reserve` must follow."""
        batch = Batch()
        depth: dict[int, int] = {}  # readings admitted so far, by slot
        for record, readings in decoded:
            ahead = self._ahead(record, readings)
            if ahead is not None:
                batch.dead_letters.append(ahead)
                continue
            for index, reading in enumerate(readings):
                self._admit(batch, depth, record, index, reading)
        return batch

    def _ahead(self, record: Record, readings: Sequence[Reading]) -> DeadLetter | None:
        """The record as a dead letter if a reading lies too far after the record's own timestamp."""
        if record.timestamp_ms < 0:
            return None
        latest = record.timestamp_ms + self._max_ahead_ms
        for index, reading in enumerate(readings):
            if reading.time_ms > latest:
                seconds = (reading.time_ms - record.timestamp_ms) / 1000
                allowed = self._max_ahead_ms / 1000
                message = f"the reading is {seconds:g} s after its record's timestamp; input.max_ahead_s allows {allowed:g}"
                return DeadLetter(record, index, "future", message)
        return None

    def _admit(self, batch: Batch, depth: dict[int, int], record: Record, index: int, reading: Reading) -> None:
        stream, time_ms, values = reading
        slots = self._slots
        slot = slots.find(stream)
        fresh = True
        if slot is not None:
            gap_ms = time_ms - slots.last_time_ms[slot]
            if gap_ms <= 0:
                self._refuse(batch, record, index, "late" if gap_ms else "duplicate")
                return
            fresh = gap_ms > self._max_gap_ms
        if fresh and any(map(math.isnan, values)):
            batch.drops["incomplete_start"] += 1
            return
        if slot is None:
            slot, evicted = slots.add(stream)
            batch.evicted += evicted
        else:
            slots.touch(stream)
        slots.last_time_ms[slot] = time_ms
        wave = depth.get(slot, 0)
        depth[slot] = wave + 1
        batch.streams.append(stream)
        batch.slots.append(slot)
        batch.waves.append(wave)
        batch.fresh.append(fresh)
        batch.times_ms.append(time_ms)
        batch.values.append(values)
        batch.offsets.append(record.offset)
        batch.elements.append(index)

    def _refuse(self, batch: Batch, record: Record, index: int, reason: str) -> None:
        if self._late_is_dead:
            message = f"the reading is not after its stream's last ({reason})"
            batch.dead_letters.append(DeadLetter(record, index, reason, message))
        else:
            batch.drops[reason] += 1
