"""The value of a season before: against its definition, written out reading by reading, on the pairs that the engine scores."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from config.settings import Settings
from daemon import seasonal
from daemon.pipeline import Pipeline
from daemon.records import Record
from daemon.seasonal import Seasonal, SeasonalScores, Unit
from models.kernels import SPREAD_PER_DEVIATION
from models.layout import row_dtype
from tests import examples
from tests.examples import MINUTE_MS, T0_MS
from tests.unit.test_control import reset

ENGINE = Settings.model_validate({"model": {"hidden": 8, "context": 16, "horizon": 4}}).engine()
KEY = (("value",), (1, 2, 4))


def values(count: int, streams: int = 3) -> list[tuple[str, int, float | None]]:
    """Readings in turn, some missing, one stream with gaps."""
    made: list[tuple[str, int, float | None]] = []
    for i in range(count):
        for stream in range(streams):
            if stream == 1 and i % 11 == 5:
                continue
            value = None if (i * 7 + stream) % 13 == 1 and i else 10 * stream + 3 * math.sin(i / 2) + (i * 7 % 5) / 10
            made.append((f"s{stream}", T0_MS + i * MINUTE_MS, value))
    return made


def run(records: list[Record], season_ms: int, cuts: int = 9, engine: Any = ENGINE) -> tuple[Pipeline, SeasonalScores]:
    version, engines = examples.seeded_engines(engine)
    pipeline, scores = Pipeline(0, [examples.epoch(engine, version=version)], engines), {KEY: SeasonalScores(1, 3)}
    pipeline.seasonal = Seasonal(season_ms, scores)
    for first in range(0, len(records), cuts):
        pipeline.process(records[first : first + cuts], encodes=False)
    return pipeline, scores[KEY]


def by_definition(readings: list[tuple[str, int, float | None]], season_ms: int) -> SeasonalScores:
    """Of each pair that an engine scores, with everything ever read at hand."""
    version, engines = examples.seeded_engines(ENGINE)
    pipeline, scores = Pipeline(0, [examples.epoch(ENGINE, version=version)], engines), SeasonalScores(1, 3)
    past: dict[str, list[tuple[int, float | None]]] = defaultdict(list)
    for i, (stream, time_ms, value) in enumerate(readings):
        slot = pipeline.table.slots.find(stream)
        row = None if slot is None else pipeline.table.gather(np.array([slot]))[0]
        outcome = pipeline.process([examples.record(i, (stream, time_ms, value))])
        for r, lead in enumerate((1, 2, 4)):
            if row is None or value is None or not outcome.scores[KEY].pairs[0, r]:
                continue
            interval_ms = int(row["interval_ms"])
            wanted_ms = time_ms - math.ceil(lead * interval_ms / season_ms) * season_ms
            known = [one for at_ms, one in past[stream] if abs(at_ms - wanted_ms) <= interval_ms // 2]
            if known and known[0] is not None:
                scores.pairs[0, r] += 1
                scores.errors[0, r] += abs(value - known[0]) / (float(row["spread"][0]) * SPREAD_PER_DEVIATION)
        past[stream].append((time_ms, value))
    return scores


@pytest.mark.parametrize("season", [1, 3, 10, 45])
def test_sums_are_those_of_the_definition(season: int) -> None:
    """Shorter than a lead a season goes back several times; longer than the first ring, the ring grows and loses nothing."""
    readings = values(150)
    expected = by_definition(readings, season * MINUTE_MS)
    records = [examples.record(i, one) for i, one in enumerate(readings)]
    for cuts in (1, 50, 1000):
        _, found = run(records, season * MINUTE_MS, cuts)
        assert found.pairs.tolist() == expected.pairs.tolist()
        assert found.errors == pytest.approx(expected.errors)
    assert expected.pairs.min() > 20


def test_a_perfect_season_has_no_error() -> None:
    """What repeats is foretold exactly, from the second season on."""
    records = [examples.record(i, ("a", T0_MS + i * MINUTE_MS, float(i % 6))) for i in range(60)]
    _, scores = run(records, 6 * MINUTE_MS)
    assert scores.errors.tolist() == [[0.0, 0.0, 0.0]]
    assert scores.pairs[0, 0] == 60 - 6


def test_a_stream_that_starts_afresh_has_no_past() -> None:
    """After a reset, and in the place of an evicted stream, nothing of before is taken for its own."""
    records = [examples.record(i, ("a", T0_MS + i * MINUTE_MS, float(i % 6))) for i in range(24)]
    _, whole = run(records, 6 * MINUTE_MS)
    again = [*records[:12], reset(12, b"a"), *(one._replace(offset=one.offset + 1) for one in records[12:])]
    assert run(again, 6 * MINUTE_MS)[1].pairs[0, 0] == 2 * (12 - 6) < whole.pairs[0, 0]
    one_row = ENGINE.model_copy(update={"max_streams_per_partition": 1})
    other = [*records[:12], *(examples.record(i, ("b", T0_MS + i * MINUTE_MS, float(i % 6))) for i in range(12, 24))]
    assert run(other, 6 * MINUTE_MS, engine=one_row)[1].pairs[0, 0] == 2 * (12 - 6)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams for which there is no room are not scored; the others are."""
    readings = values(60)
    records = [examples.record(i, one) for i, one in enumerate(readings)]
    monkeypatch.setattr(seasonal, "MOST_BYTES", 2 * 32 * 16)
    _, found = run(records, 10 * MINUTE_MS)
    alone = by_definition([one for one in readings if one[0] != "s2"], 10 * MINUTE_MS)
    assert found.pairs.tolist() == alone.pairs.tolist()


def test_it_changes_no_byte() -> None:
    """It only looks."""
    records = [examples.record(i, one) for i, one in enumerate(values(60))]
    watched, _ = run(records, 10 * MINUTE_MS)
    version, engines = examples.seeded_engines(ENGINE)
    plain = Pipeline(0, [examples.epoch(ENGINE, version=version)], engines)
    plain.process(records, encodes=False)
    slots = np.arange(3)
    assert watched.table.gather(slots).tobytes() == plain.table.gather(slots).tobytes()


def test_units_are_those_of_the_engine() -> None:
    """A constant stream's spread is nothing, and its unit is not."""
    unit = Unit.of(np.zeros(1, row_dtype(ENGINE)))
    assert unit is not None
    assert unit.spread.tolist() == [[1e-12]]
    assert Unit.of(np.zeros(1, [("applied_offset", "<i8")])) is None
