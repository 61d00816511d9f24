"""Admission, slots and waves, in log order."""

from __future__ import annotations

import math
from typing import Any

import pytest

from daemon.batch import Batch, Batcher
from daemon.codec import Decoded
from daemon.records import Reading, Record
from models.slots import Slots
from tests.examples import MINUTE_MS, T0_MS, settings


def admit(slots: Slots, readings: list[tuple[str, int, float]], **changes: Any) -> Batch:
    """Each reading in a record of its own, minutes after T0."""
    decoded = []
    for offset, (stream, minute, value) in enumerate(readings):
        time_ms = T0_MS + minute * MINUTE_MS
        decoded.append((Record("r", 0, offset, time_ms, None, b"x"), [Reading(stream, time_ms, (value,))]))
    return Batcher(settings(**changes), slots).batch(Decoded.of(decoded, 1))


def test_readings_of_one_stream_go_to_waves_in_order() -> None:
    """A stream steps at most once in a wave."""
    batch = admit(Slots(9), [("a", 0, 1.0), ("b", 0, 1.0), ("a", 1, 2.0), ("a", 2, 3.0)])
    assert batch.waves.tolist() == [0, 0, 1, 2]
    assert [part.tolist() for part in batch.parts(256)] == [[0, 1], [2], [3]]


def test_parts_are_at_most_as_large_as_asked() -> None:
    """A wave larger than a tile is cut."""
    batch = admit(Slots(9), [(f"s{i}", 0, 1.0) for i in range(5)])
    assert [len(part) for part in batch.parts(2)] == [2, 2, 1]


@pytest.mark.parametrize(("minute", "reason"), [(5, "duplicate"), (4, "late")])
def test_a_reading_not_after_the_last_is_dropped(minute: int, reason: str) -> None:
    """Equal time is a duplicate, earlier is late; both are counted and touch nothing."""
    batch = admit(Slots(9), [("a", 5, 1.0), ("a", minute, 2.0)])
    assert len(batch) == 1
    assert batch.drops == {reason: 1}


def test_a_late_reading_can_be_a_dead_letter() -> None:
    """With input.on_late = dead-letter the reading alone goes, with its position."""
    batch = admit(Slots(9), [("a", 5, 1.0), ("a", 4, 2.0)], on_late="dead-letter")
    assert [(letter.reason, letter.record.offset) for letter in batch.dead_letters] == [("late", 1)]
    assert batch.drops == {}


def test_a_long_gap_starts_the_stream_afresh() -> None:
    """More than max_gap_s after the last reading the row starts as if never seen; exactly max_gap_s does not."""
    batch = admit(Slots(9), [("a", 0, 1.0), ("a", 10, 1.0), ("a", 21, 1.0)], max_gap_s=600)
    assert batch.readings.fresh.tolist() == [True, False, True]


def test_a_start_needs_every_value() -> None:
    """A missing value cannot start a stream: counted, and the stream stays unknown."""
    slots = Slots(9)
    batch = admit(slots, [("a", 0, math.nan), ("a", 1, 1.0)])
    assert batch.drops == {"incomplete_start": 1}
    assert batch.readings.time_ms.tolist() == [T0_MS + MINUTE_MS]


def test_a_record_from_the_future_is_refused_whole() -> None:
    """One bad clock must not silence a stream: more than max_ahead_s after the record's timestamp is a dead letter."""
    slots = Slots(9)
    record = Record("r", 0, 7, T0_MS, None, b"x")
    readings = [Reading("a", T0_MS, (1.0,)), Reading("b", T0_MS + 3_600_001, (1.0,))]
    batch = Batcher(settings(), slots).batch(Decoded.of([(record, readings)], 1))
    assert [(letter.reason, letter.element) for letter in batch.dead_letters] == [("future", 1)]
    assert len(slots) == 0


def test_a_slot_that_changes_hands_in_one_poll_steps_in_log_order() -> None:
    """Waves are counted by slot, so the evicted stream's reading steps before the new owner starts."""
    batch = admit(Slots(1), [("a", 0, 1.0), ("b", 0, 2.0), ("a", 1, 3.0)])
    assert batch.slots.tolist() == [0, 0, 0]
    assert batch.waves.tolist() == [0, 1, 2]
    assert batch.readings.fresh.tolist() == [True, True, True]
    assert batch.evicted == 2
