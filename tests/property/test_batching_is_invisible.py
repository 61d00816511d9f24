"""Any split of the same readings into polls gives the same bytes: forecasts, drops, and the rows themselves."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import EngineSettings
from daemon.pipeline import Outcome, Pipeline
from daemon.records import Record
from tests import examples, zoo

SETTINGS = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def log(seed: int, count: int, streams: int, burst: int = 1) -> list[Record]:
    """Readings of some streams: regular, with jitter, gaps, long silences, duplicates, late ones, nulls, jumps, arrays."""
    numbers = random.Random(seed)
    clock = dict.fromkeys(range(streams), examples.T0_MS)
    level = {stream: 10.0 ** numbers.randint(-3, 6) for stream in range(streams)}
    records: list[Record] = []
    while len(records) < count:
        stream = min(numbers.randrange(streams), numbers.randrange(streams))
        readings = []
        for _ in range(numbers.choice((1, 1, 1, 2, 5)) if burst == 1 else burst):
            clock[stream] += numbers.choices(
                (examples.MINUTE_MS, examples.MINUTE_MS + numbers.randrange(999), 5 * examples.MINUTE_MS, 10**9, 0, -50_000),
                (70, 10, 8, 2, 5, 5),
            )[0]
            jump = 1000.0 if numbers.random() < 0.01 else 1.0
            value = None if numbers.random() < 0.05 else level[stream] * jump * (1 + 0.1 * numbers.gauss(0, 1))
            readings.append((f"s{stream}", clock[stream], value))
        records.append(examples.record(len(records), *readings, timestamp_ms=max(time_ms for _, time_ms, _ in readings)))
    return records


def outcome(engine: EngineSettings, records: list[Record], cuts: list[int]) -> tuple[Outcome, bytes]:
    """Everything a partition made of the records when polled in these sizes, and its rows in the end."""
    version, engines = examples.seeded_engines(engine)
    pipeline = Pipeline(0, [examples.epoch(engine, version=version)], engines)
    total = examples.run(pipeline, records, lambda k: cuts[k % len(cuts)])
    table = pipeline.table
    return total, repr(table.slots.ids).encode() + table.gather(np.arange(len(table))).tobytes()


def assert_equal(engine: EngineSettings, records: list[Record], *splits: list[int]) -> None:
    reference, rows = outcome(engine, records, [1])
    assert reference.stepped > 0
    for cuts in splits:
        other, other_rows = outcome(engine, records, cuts)
        assert other.forecasts == reference.forecasts
        assert other.dead_letters == reference.dead_letters
        assert other.drops == reference.drops
        assert other_rows == rows


@SETTINGS
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 400), min_size=1, max_size=5))
def test_any_split_gives_the_same_bytes(seed: int, cuts: list[int]) -> None:
    """Hidden 64: one record at a time, in hypothesis' sizes, and all at once."""
    assert_equal(examples.settings(hidden=64), log(seed, 300, 40), cuts, [300])


def test_a_thousand_rows_in_one_poll() -> None:
    """Several tiles of one wave, the last one not full."""
    records = [examples.record(i, (f"s{i % 1000}", examples.T0_MS + i // 1000 * 60_000, float(i % 97))) for i in range(2500)]
    assert_equal(examples.settings(hidden=64), records, [1000], [2500], [17])


def test_waves_over_twenty_deep() -> None:
    """One stream's thirty readings in one record, beside others."""
    assert_equal(examples.settings(hidden=64), log(5, 60, 3, burst=30), [60], [7])


@pytest.mark.parametrize("cap", [1, 7, 20])
def test_evictions_inside_one_poll(cap: int) -> None:
    """More streams than the cap: victims are chosen in log order, before waves."""
    assert_equal(examples.settings(hidden=64, max_streams_per_partition=cap), log(11, 250, 40), [250], [13])


def test_two_layers_several_channels_and_thinned_output() -> None:
    """The law does not hang on the default shape."""
    engine = examples.settings(hidden=16, layers=2, horizon=5, levels=(0.05, 0.25, 0.5, 0.9), context=32, emit_every=3)
    assert_equal(engine, log(3, 200, 10), [200], [31])


@pytest.mark.parametrize("name", sorted(zoo.KINDS))
def test_every_arrangement(name: str) -> None:
    """The law holds for each kind, cell and depth: small polls and one, thinned where that is allowed."""
    assert_equal(zoo.engine(name), log(17, 150, 30), [150], [13], [64, 1])
    if not name.startswith("many_to_one"):
        assert_equal(zoo.engine(name, emit_every=3), log(3, 90, 8), [90], [31])


@pytest.mark.parametrize("name", sorted(zoo.KINDS))
def test_every_arrangement_over_several_tiles(name: str) -> None:
    """Waves of 300 rows: a full tile and a part of one, against sixteen rows at most."""
    records = [examples.record(i, (f"s{i % 300}", examples.T0_MS + i // 300 * 121_000, float(i % 97))) for i in range(2000)]
    reference, rows = outcome(zoo.engine(name), records, [16])
    other, other_rows = outcome(zoo.engine(name), records, [2000])
    assert reference.forecasts
    assert other.forecasts == reference.forecasts
    assert other_rows == rows
