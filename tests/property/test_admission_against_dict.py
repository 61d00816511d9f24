"""Admission against the rules written out for one reading at a time, with a dict in order of use."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.batch import Batcher
from daemon.codec import Decoded
from daemon.records import Reading, Record
from models.slots import FORGOTTEN_MS, Slots
from tests import examples

GAP_MS, AHEAD_MS = 6_000, 9_000

readings = st.builds(Reading, st.sampled_from("abcdef"), st.integers(0, 20_000), st.sampled_from([(1.0,), (1.0,), (math.nan,)]))
logs = st.lists(st.tuples(st.lists(readings, min_size=1, max_size=4), st.sampled_from([-1, 5_000, 20_000])), max_size=30)


class Plain:
    """The rules of ARCHITECTURE 4, one reading after another."""

    def __init__(self, capacity: int, late_is_dead: bool) -> None:
        self.capacity, self.late_is_dead = capacity, late_is_dead
        self.slots: dict[str, int] = {}  # least recently seen first
        self.last_ms: dict[int, int] = {}
        self.admitted: list[tuple[str, int, int, bool, int, int, int]] = []
        self.dead: list[tuple[int, int, str]] = []
        self.drops: Counter[str] = Counter()
        self.evicted = 0

    def take(self, record: Record, several: list[Reading], depth: Counter[int]) -> None:
        for element, reading in enumerate(several):
            if record.timestamp_ms >= 0 and reading.time_ms > record.timestamp_ms + AHEAD_MS:
                self.dead.append((record.offset, element, "future"))
                return
        for element, reading in enumerate(several):
            self.judge(record.offset, element, reading, depth)

    def judge(self, offset: int, element: int, reading: Reading, depth: Counter[int]) -> None:
        stream, time_ms, values = reading
        slot = self.slots.get(stream)
        gap_ms = time_ms - self.last_ms[slot] if slot is not None else GAP_MS + 1
        if gap_ms <= 0:
            reason = "late" if gap_ms else "duplicate"
            if self.late_is_dead:
                self.dead.append((offset, element, reason))
            else:
                self.drops[reason] += 1
            return
        if gap_ms > GAP_MS and math.isnan(values[0]):
            self.drops["incomplete_start"] += 1
            return
        if slot is None:
            slot = len(self.slots)
            if slot == self.capacity:
                slot = self.slots.pop(next(iter(self.slots)))
                self.evicted += 1
        self.slots.pop(stream, None)
        self.slots[stream] = slot
        self.last_ms[slot] = time_ms
        self.admitted.append((stream, slot, depth[slot], gap_ms > GAP_MS, time_ms, offset, element))
        depth[slot] += 1


@settings(deadline=None)
@given(capacity=st.integers(1, 7), late_is_dead=st.booleans(), log=logs, cuts=st.lists(st.integers(0, 30), max_size=3))
def test_admission_is_that_of_one_reading_at_a_time(
    capacity: int, late_is_dead: bool, log: list[tuple[list[Reading], int]], cuts: list[int]
) -> None:
    """Same slots, waves, victims, drops and dead letters, however the log is cut into batches."""
    engine = examples.settings(
        max_gap_s=GAP_MS / 1000, max_ahead_s=AHEAD_MS / 1000, on_late="dead-letter" if late_is_dead else "drop"
    )
    slots, plain = Slots(capacity), Plain(capacity, late_is_dead)
    batcher = Batcher(engine, slots)
    decoded = [(Record("r", 0, offset, stamp, None, b"x"), several) for offset, (several, stamp) in enumerate(log)]
    ends = sorted({*cuts, len(log)})
    for first, end in zip([0, *ends], ends, strict=False):
        before, dead_before, depth = len(plain.admitted), len(plain.dead), Counter[int]()
        drops_before, evicted_before = plain.drops.copy(), plain.evicted
        for record, several in decoded[first:end]:
            plain.take(record, several, depth)
        batch = batcher.batch(Decoded.of(decoded[first:end], 1))
        columns = (batch.slots, batch.waves, batch.readings.fresh, batch.readings.time_ms, batch.readings.offset)
        rows = zip(batch.streams, *(column.tolist() for column in (*columns, batch.readings.element)), strict=True)
        assert plain.admitted[before:] == list(rows)
        assert plain.dead[dead_before:] == [(each.record.offset, each.element, each.reason) for each in batch.dead_letters]
        assert plain.drops - drops_before == batch.drops
        assert plain.evicted - evicted_before == batch.evicted
        assert [(stream, slots.find(stream)) for stream in plain.slots] == [(slots.ids[slot], slot) for slot in slots.by_use()]
        assert {slot: slots.last_time_ms[slot] for slot in slots.by_use()} == {
            at: plain.last_ms[at] for at in plain.slots.values()
        }


def test_a_stream_that_was_forgotten_starts_afresh_at_an_earlier_time() -> None:
    """As after a reset: nothing is late to it, and its slot stays."""
    slots = Slots(3)
    batcher = Batcher(examples.settings(), slots)

    def at(time_ms: int) -> list[bool]:
        readings = [(Record("r", 0, 0, -1, None, b"x"), [Reading("a", time_ms, (1.0,))])]
        fresh: list[bool] = batcher.batch(Decoded.of(readings, 1)).readings.fresh.tolist()
        return fresh

    assert at(5_000) == [True]
    slots.forget(0)
    assert slots.last_time_ms[0] == FORGOTTEN_MS
    assert at(1_000) == [True]
    assert slots.ids == ["a"]
