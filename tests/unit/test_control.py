"""Control records: a reset makes a stream's next reading start it afresh, at its place in the log, whatever the polls."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from daemon.codec import Decoder
from daemon.control import RESET_KEY, cut, is_control
from daemon.pipeline import Outcome, Pipeline
from daemon.records import Message, Record
from daemon.train import Streams
from tests import examples
from tests.property.test_batching_is_invisible import assert_equal, log
from tests.property.test_restart_is_invisible import forecasts


def reset(offset: int, stream: bytes | None) -> Record:
    return Record("readings", 0, offset, examples.T0_MS, RESET_KEY, stream)


def readings(first: int, count: int, value: float = 3.0, stream: str = "a") -> list[Record]:
    times = [examples.T0_MS + (first + i) * examples.MINUTE_MS for i in range(count)]
    return [examples.record(first + i, (stream, time_ms, value + i % 3)) for i, time_ms in enumerate(times)]


def mixed(seed: int, count: int = 200) -> list[Record]:
    """A log in which resets stand in the place of some records, of streams known and unknown."""
    numbers = random.Random(seed)
    records = log(seed, count, 12)
    return [reset(one.offset, b"s%d" % numbers.randrange(14)) if numbers.random() < 0.08 else one for one in records]


def run(records: Sequence[Record]) -> tuple[Pipeline, Outcome]:
    engine = examples.settings(hidden=8, context=16, horizon=2)
    version, engines = examples.seeded_engines(engine)
    pipeline = Pipeline(0, [examples.epoch(engine, version=version)], engines)
    return pipeline, pipeline.process(records)


def sent(records: Sequence[Record]) -> list[Message]:
    return run(records)[1].forecasts


def test_next_reading_starts_the_stream_as_if_never_seen() -> None:
    """After a reset the forecasts are those of a stream that begins there; before it nothing changes."""
    before, after = readings(0, 30), readings(31, 30, 7.0)
    whole = sent([*before, reset(30, b"a"), *after])
    assert whole == [*sent(before), *sent(after)]
    assert whole != sent([*before, *after])


def test_time_may_begin_before() -> None:
    """A stream with a wrong clock is mended by a reset: earlier readings are late no more."""
    earlier = examples.record(31, ("a", examples.T0_MS - 10**9, 1.0))
    assert len(sent([*readings(0, 30), earlier])) == 30
    assert len(sent([*readings(0, 30), reset(30, b"a"), earlier])) == 31


def test_others_are_left_alone() -> None:
    """One stream of many is forgotten; one without a row is passed over."""
    both = [record for pair in zip(readings(0, 20), readings(100, 20, stream="b"), strict=True) for record in pair]
    both = [record._replace(offset=offset) for offset, record in enumerate(both)]
    values = [json.loads(message.value or b"") for message in sent([*both, reset(40, b"a"), reset(41, b"no such")])]
    assert values == [json.loads(message.value or b"") for message in sent(both)]
    table = run([*both, reset(40, b"a")])[0].table
    assert dict(zip(table.slots.ids, table.rows(0, 2)["count"].tolist(), strict=True)) == {"a": 0, "b": 20}


NAMELESS = [(None, "no_value"), (b"", "no_value"), (b"\xff", "stream_id"), (b"a\nb", "stream_id")]


@pytest.mark.parametrize(("value", "reason"), NAMELESS)
def test_reset_of_nothing_is_a_dead_letter(value: bytes | None, reason: str) -> None:
    """A control record that names no stream changes nothing and is a dead letter."""
    outcome = run([*readings(0, 3), reset(3, value)])[1]
    assert [(letter.record.offset, letter.reason) for letter in outcome.dead_letters] == [(3, reason)]
    assert outcome.resets == 0


def test_records_are_cut_at_control_records() -> None:
    """All records are there, in order, and each control record follows what lies before it."""
    records = [reset(0, b"a"), *readings(1, 2), reset(3, b"b"), reset(4, b"c"), *readings(5, 1)]
    parts = [([one.offset for one in part], control and control.offset) for part, control in cut(records)]
    assert parts == [([], 0), ([1, 2], 3), ([], 4), ([5], None)]
    assert [is_control(record) for record in records] == [True, False, False, True, True, False]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_split_gives_the_same_bytes(seed: int) -> None:
    """With resets between any readings, evictions included: forecasts and rows do not depend on the polls."""
    assert_equal(examples.settings(hidden=8, max_streams_per_partition=9), mixed(seed), [200], [7], [31, 1])


@pytest.mark.parametrize("stop_every", [1, 9, 40])
def test_a_stop_anywhere_changes_nothing(stop_every: int) -> None:
    """A reset survives a restore from the changelog, and so does the order of eviction."""
    engine = examples.settings(hidden=8, max_streams_per_partition=9)
    records = mixed(4)
    assert any(map(is_control, records))
    assert forecasts([(engine, 0)], records, stop_every) == forecasts([(engine, 0)], records, None)


def test_training_passes_over_control_records() -> None:
    """They are no readings, and no bad records."""
    streams = Streams(Decoder(examples.settings().input), 1)
    streams.read([*readings(0, 3), reset(3, b"a")], None)
    assert (len(streams), streams.bad) == (1, 0)
