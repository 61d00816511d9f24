"""Admission, slots and waves: which readings step, in which slot, in which order. Reading by reading, in log order.

The rules are those of ARCHITECTURE 4. This is the only place that judges a reading against its stream's past.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from config.settings import EngineSettings
from daemon.codec import Decoded
from daemon.records import DeadLetter
from models.compiled import compiled
from models.engine import Readings
from models.slots import Slots

#: What becomes of a reading.
ADMITTED, LATE, DUPLICATE, INCOMPLETE_START, FUTURE = range(5)
_WORDS = {LATE: "late", DUPLICATE: "duplicate", INCOMPLETE_START: "incomplete_start"}


@dataclass
class Batch:
    """Readings to step, in log order, and what became of the others."""

    streams: list[str]
    slots: np.ndarray  # int64 (B,)
    waves: np.ndarray  # int64 (B,)
    readings: Readings  # B
    dead_letters: list[DeadLetter] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)  # late, duplicate, incomplete_start
    evicted: int = 0

    def __len__(self) -> int:
        return len(self.streams)

    def parts(self, size: int) -> Iterator[np.ndarray]:
        """Positions in the batch to step together: at most `size`, of one wave, waves in order."""
        order = np.argsort(self.waves, kind="stable")
        ends: list[int] = np.cumsum(np.bincount(self.waves)).tolist() if len(self) else []
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
        self._depth = np.zeros(0, np.int64)  # by slot, readings admitted so far; zeros between two batches

    def batch(self, decoded: Decoded) -> Batch:
        """Admit readings in log order. Slots are given out here, so `StateTable.reserve` must follow."""
        count = len(decoded.streams)
        slot, wave, fate = np.zeros((3, count), np.int64)
        judged = _Judged(slot, wave, fate, np.zeros(count, bool), ~np.isnan(decoded.values).any(axis=1))
        dead = self._ahead(decoded, judged)
        self._grow(len(self._slots) + count)
        evicted = self._admit(decoded, judged, np.flatnonzero(judged.fate == ADMITTED))
        admitted = np.flatnonzero(judged.fate == ADMITTED)
        slots = judged.slot[admitted]
        self._depth[slots] = 0
        streams = decoded.streams if len(admitted) == count else [decoded.streams[i] for i in admitted.tolist()]
        columns = (decoded.values, decoded.time_ms, decoded.offset, decoded.element, judged.fresh)
        readings = Readings(*(column[admitted] for column in columns))
        batch = Batch(streams, slots, judged.wave[admitted], readings, dead, evicted=evicted)
        if len(admitted) < count:
            self._count(decoded, judged, batch)
        return batch

    def _ahead(self, decoded: Decoded, judged: _Judged) -> list[DeadLetter]:
        """Refuse each record of which a reading lies too far after the record's own timestamp, whole."""
        ahead = (decoded.timestamp_ms >= 0) & (decoded.time_ms - decoded.timestamp_ms > self._max_ahead_ms)
        dead = []
        records, firsts = np.unique(decoded.record[ahead], return_index=True)
        for place, first in zip(records.tolist(), np.flatnonzero(ahead)[firsts].tolist(), strict=True):
            seconds = (int(decoded.time_ms[first]) - int(decoded.timestamp_ms[first])) / 1000
            allowed = self._max_ahead_ms / 1000
            message = f"the reading is {seconds:g} s after its record's timestamp; input.max_ahead_s allows {allowed:g}"
            dead.append(DeadLetter(decoded.records[place], int(decoded.element[first]), "future", message))
        if dead:
            judged.fate[np.isin(decoded.record, records)] = FUTURE
        return dead

    def _grow(self, size: int) -> None:
        if size > len(self._depth):
            self._depth = np.zeros(2 * size, np.int64)

    def _admit(self, decoded: Decoded, judged: _Judged, places: np.ndarray) -> int:
        """Judge the readings at some places, in order; how many streams were evicted.

        New streams are given their slots before any is judged. Where they could evict a stream that is read here, too, or one
        another, what comes later must be looked up later: halves.
        """
        if not len(places):
            return 0
        slots = self._slots
        streams = decoded.streams if len(places) == len(decoded.streams) else [decoded.streams[i] for i in places.tolist()]
        found = slots.find_all(streams)
        new = np.flatnonzero(found < 0)
        too_many = len(slots) + len(new) - slots.capacity
        if len(new) and too_many > 0 and (too_many > len(slots) or np.isin(found, slots.oldest(too_many)).any()):
            half = len(places) // 2
            return self._admit(decoded, judged, places[:half]) + self._admit(decoded, judged, places[half:])
        evicted = 0
        for i, can_start in zip(new.tolist(), judged.complete[places[new]].tolist(), strict=True):
            slot = slots.find(streams[i])
            if slot is None and can_start:
                slot, evicts = slots.add(streams[i])
                evicted += evicts
            found[i] = -1 if slot is None else slot
        judge(places, found, decoded.time_ms, self._max_gap_ms, slots.last_time_ms, self._depth, *judged)
        fates = judged.fate[places]
        slots.touch_all(streams if not fates.any() else [streams[i] for i in np.flatnonzero(fates == ADMITTED).tolist()])
        return evicted

    def _count(self, decoded: Decoded, judged: _Judged, batch: Batch) -> None:
        """Count what was not admitted, or make dead letters of it; those of one record by element, records in log order."""
        for place in np.flatnonzero((judged.fate != ADMITTED) & (judged.fate != FUTURE)).tolist():
            reason = _WORDS[judged.fate[place]]
            if self._late_is_dead and reason != "incomplete_start":
                message = f"the reading is not after its stream's last ({reason})"
                record = decoded.records[int(decoded.record[place])]
                batch.dead_letters.append(DeadLetter(record, int(decoded.element[place]), reason, message))
            else:
                batch.drops[reason] += 1
        batch.dead_letters.sort(key=lambda letter: (letter.record.offset, letter.element))


class _Judged(NamedTuple):
    """Columns of R readings that admission fills."""

    slot: np.ndarray  # int64
    wave: np.ndarray  # int64
    fate: np.ndarray  # int64
    fresh: np.ndarray  # bool
    complete: np.ndarray  # bool, given: no value is missing


@compiled
def judge(
    places: np.ndarray,
    found: np.ndarray,
    time_ms: np.ndarray,
    max_gap_ms: int,
    last_time_ms: np.ndarray,
    depth: np.ndarray,
    slot: np.ndarray,
    wave: np.ndarray,
    fate: np.ndarray,
    fresh: np.ndarray,
    complete: np.ndarray,
) -> None:
    """Judge readings in order, each against its stream's last time, which the admitted ones move.

    Args:
        places: int64 (P,), which of R readings.
        found: int64 (P,), the slot of each; -1: a stream without one that cannot start.
        time_ms: int64 (R,).
        max_gap_ms: A longer gap starts a stream afresh.
        last_time_ms: int64, by slot; changed.
        depth: int64, by slot: readings admitted so far; changed.
        slot, wave, fate, fresh: Columns of `_Judged` (R,), filled at the places.
        complete: bool (R,), whether a reading can start a stream.
    """
    for i in range(len(places)):
        at, place = found[i], places[i]
        if at < 0:
            fate[place] = INCOMPLETE_START
            continue
        gap_ms = time_ms[place] - last_time_ms[at]
        starts = gap_ms > max_gap_ms
        if gap_ms <= 0:
            fate[place] = LATE if gap_ms < 0 else DUPLICATE
        elif starts and not complete[place]:
            fate[place] = INCOMPLETE_START
        else:
            last_time_ms[at] = time_ms[place]
            slot[place], wave[place], fate[place], fresh[place] = at, depth[at], ADMITTED, starts
            depth[at] += 1
