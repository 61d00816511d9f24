"""Streams go over to a new version one by one: by offset and id alone, whatever the polls and stops, as the checker has it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import InputSettings
from daemon.engines import Engines
from daemon.pipeline import Pipeline, Restored
from daemon.records import Message, Record
from tests import checker, examples
from tests.property.test_batching_is_invisible import log
from tests.property.test_restart_is_invisible import checkpoint, restored
from tests.property.test_warming_is_invisible import ENGINE, swapping

SETTINGS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def versions_of(messages: list[Message]) -> list[str]:
    return [json.loads(message.value)["model_version"] for message in messages]


@SETTINGS
@given(
    seed=st.integers(0, 10**6),
    offsets=st.lists(st.integers(1, 299), min_size=1, max_size=4, unique=True).map(sorted),
    handovers=st.lists(st.sampled_from((0, 1, 30, 200)), max_size=4),
    every=st.sampled_from((1, 7, 40)),
)
def test_polls_and_stops_change_no_byte_and_the_checker_agrees(
    seed: int, offsets: list[int], handovers: list[int], every: int
) -> None:
    """Handovers that overlap, end early, and go back and forth; a stop and a restore from bytes after every n-th record."""
    records, changelog = log(seed, 300, 40), dict[int, bytes]()
    whole = swapping(ENGINE, offsets, handovers)
    sent = whole.process(records).forecasts
    pipeline, again = swapping(ENGINE, offsets, handovers), list[Message]()
    for first in range(0, len(records), every):
        again += pipeline.process(records[first : first + every]).forecasts
        checkpoint(pipeline, changelog)
        pipeline = Pipeline(0, pipeline.epochs, pipeline._engine_for, restored(pipeline, changelog))
    assert again == sent
    raw = [checker.Raw(0, r.offset, r.timestamp_ms, r.key, r.value) for r in records]
    epochs = [checker.Epoch(each.to_bytes(), json.loads(each.to_bytes())) for each in whole.epochs]
    judged = checker.judge(raw, {0: epochs})
    assert [due.model_version for due in judged.forecasts] == versions_of(sent)


def test_rebuilding_is_spread_over_the_handover() -> None:
    """200 streams that read in turn: at once all are rebuilt within one round; over 800 offsets in five rounds."""
    engine = ENGINE.model_copy(update={"max_streams_per_partition": 1000})
    records = [examples.record(i, (f"s{i % 200}", examples.T0_MS + i // 200 * examples.MINUTE_MS, 1.0 * i)) for i in range(2000)]
    at_once, spread = (rebuilt(swapping(engine, [400], [length]), records) for length in (0, 800))
    assert at_once == [0, 0, 200, 0, 0, 0, 0, 0, 0, 0]
    assert sum(spread) == 200
    assert all(10 < each < 80 for each in spread[2:7]), spread
    assert spread[7:] == [0, 0, 0]


def test_weights_that_no_row_needs_are_not_asked_for() -> None:
    """Of all versions that ever served only those are loaded that rows still have: not a year of them at every swap."""
    made = [examples.seeded_weights(ENGINE, scale) for scale in (1.0, 0.5, 0.25)]
    firsts, asked = (0, 100, 200), list[str]()
    epochs = [examples.epoch(ENGINE, at, made[k][0], handover_offsets=50) for k, at in enumerate(firsts)]

    def artifact(version: str) -> bytes:
        asked.append(version)
        return dict(made)[version]

    pipeline = Pipeline(0, epochs, Engines(artifact))
    records = [examples.record(i, (f"s{i % 10}", examples.T0_MS + i // 10 * examples.MINUTE_MS, 1.0 * i)) for i in range(300)]
    sent = pipeline.process(records[:200]).forecasts
    del asked[:]
    again = Pipeline(0, epochs, Engines(artifact), Restored(pipeline.table, 0, epochs[1], 200))
    assert set(versions_of(sent + again.process(records[200:]).forecasts)) == {version for version, _ in made}
    assert made[0][0] not in asked


@pytest.mark.parametrize("change", ["release", "order of the channels", "nothing"])
def test_weights_of_before_step_rows_only_where_they_fit(change: str) -> None:
    """Under other settings or another engine version they may not even load: then rows go over at once."""
    channels = ENGINE.model_copy(update={"input": InputSettings(values={"a": "a", "b": "b"})})
    swapped = channels.model_copy(update={"input": InputSettings(values={"b": "b", "a": "a"})})
    (one, data), before = examples.seeded_weights(channels), examples.epoch(channels, 0)
    epochs = [before, examples.epoch(swapped if change.startswith("order") else channels, 20, one, handover_offsets=10**9)]
    epochs[0] = replace(before, engine_version=before.engine_version - (change == "release"))
    pipeline = Pipeline(0, epochs, lambda epoch: Engines({one: data}.get)(replace(epoch, engine=channels)))
    records = [two_channels(i) for i in range(40)]
    sent = pipeline.process(records).forecasts
    assert set(versions_of(sent[20:])) == ({"naive"} if change == "nothing" else {one})
    raw = [checker.Raw(0, r.offset, r.timestamp_ms, r.key, r.value) for r in records]
    judged = checker.judge(raw, {0: [checker.Epoch(each.to_bytes(), json.loads(each.to_bytes())) for each in epochs]})
    assert [due.model_version for due in judged.forecasts] == versions_of(sent)


def two_channels(i: int) -> Record:
    time_ms = examples.T0_MS + i // 5 * examples.MINUTE_MS
    value = json.dumps({"stream": f"s{i % 5}", "time": time_ms, "a": 1.0 * i, "b": 2.0 * i}).encode()
    return Record("readings", 0, i, time_ms, None, value)


def rebuilt(pipeline: Pipeline, records: list[Record]) -> list[int]:
    """Rows rebuilt in each round of 200 records."""
    return [pipeline.process(records[first : first + 200]).rebuilt for first in range(0, len(records), 200)]
