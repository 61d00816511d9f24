"""One partition from records to messages: the law of outcomes, epochs, emission."""

from __future__ import annotations

import json
from dataclasses import replace

from daemon.engines import Engines
from daemon.pipeline import Pipeline
from daemon.records import Record
from tests.examples import MINUTE_MS, T0_MS, epoch, record, run, settings


def regular(count: int, streams: int = 2, first: int = 0) -> list[Record]:
    return [
        record(i, (f"s{i % streams}", T0_MS + i // streams * MINUTE_MS, 20 + i % 7 + 0.5 * (i % 3)))
        for i in range(first, first + count)
    ]


def source(headers: tuple[tuple[str, bytes], ...]) -> bytes:
    return dict(headers)["source"]


def test_every_reading_has_exactly_one_outcome() -> None:
    """forecast + dead letter + counted drop = readings, and forecasts come in log order with their source."""
    engine = settings(emit_every=2)
    records = [
        record(0, ("a", T0_MS, 1.0), ("b", T0_MS, 2.0)),
        record(1, ("a", T0_MS, 1.0), ("a", T0_MS + 1, 3.0)),  # a duplicate, then a good one that is thinned out
        record(2, ("c", T0_MS, None)),
        Record("readings", 0, 3, T0_MS, None, b"{broken"),
        record(4, ("a", T0_MS + 2, 4.0)),
    ]
    outcome = run(Pipeline(0, [epoch(engine)], Engines({}.get)), records, 5)
    assert [source(message.headers) for message in outcome.forecasts] == [b"0,0,0", b"0,0,1", b"0,4,0"]
    assert dict(+outcome.drops) == {"duplicate": 1, "incomplete_start": 1, "thinned": 1}
    assert [(letter.record.offset, letter.reason) for letter in outcome.dead_letters] == [(3, "syntax")]


def test_naive_forecasts_the_last_value() -> None:
    """Version `naive`: the median of every lead is the reading itself."""
    outcome = run(Pipeline(0, [epoch(settings())], Engines({}.get)), regular(40), 40)
    forecast = json.loads(outcome.forecasts[-1].value or b"")
    assert forecast["model_version"] == "naive"
    assert forecast["targets"]["value"]["0.5"] == [20 + 39 % 7 + 0.5 * (39 % 3)] * 24
    assert forecast["interval_ms"] == MINUTE_MS


def test_a_missing_value_advances_the_state() -> None:
    """null gives a forecast from the model's own median; the next reading goes on."""
    records = [*regular(60, streams=1), record(60, ("s0", T0_MS + 60 * MINUTE_MS, None)), *regular(3, streams=1, first=61)]
    outcome = run(Pipeline(0, [epoch(settings())], Engines({}.get)), records, 64)
    assert len(outcome.forecasts) == 64
    assert json.loads(outcome.forecasts[60].value or b"")["anomaly_score"] is None


def test_epochs_switch_at_their_offset_whatever_the_poll() -> None:
    """From its first offset on an epoch holds, also in the middle of a poll."""
    every, second = settings(), settings(emit_every=2)
    epochs = [epoch(every), epoch(second, first_offset=10)]
    for cuts in (1, 7, 20):
        outcome = run(Pipeline(0, epochs, Engines({}.get)), regular(20), cuts)
        assert len(outcome.forecasts) == 10 + 2 * 2  # each stream emits its 7th and 9th reading


def test_another_row_layout_starts_the_partition_cold() -> None:
    """Rows of another layout cannot go on: every stream is warming again, and older blocks are of another birth."""
    epochs = [epoch(settings()), epoch(settings(hidden=16), first_offset=100)]
    pipeline = Pipeline(0, epochs, Engines({}.get))
    outcome = run(pipeline, regular(110), 50)
    assert pipeline.born == 100
    assert pipeline.table.rows(0, 2)["count"].tolist() == [5, 5]
    assert [json.loads(message.value or b"")["warming"] for message in outcome.forecasts][98:101] == [False, False, True]


def test_a_smaller_cap_keeps_the_most_recently_seen() -> None:
    """A cap below the number of streams evicts at the epoch's first record, in log order."""
    epochs = [epoch(settings()), epoch(settings(max_streams_per_partition=2), first_offset=20)]
    pipeline = Pipeline(0, epochs, Engines({}.get))
    run(pipeline, regular(21, streams=5), 21)
    assert sorted(pipeline.table.slots.ids) == ["s0", "s4"]
    assert pipeline.born == 20


def test_the_chain_engine_links_every_reading() -> None:
    """model.kind = chain: digests depend on everything before, and differ where one reading differs."""
    engine = settings(kind="chain")
    digests = []
    for value in (1.0, 1.0, 2.0):
        records = [record(0, ("a", T0_MS, value)), record(1, ("a", T0_MS + 1, 5.0))]
        outcome = run(Pipeline(0, [epoch(engine, version="chain")], Engines({}.get)), records, 2)
        digests.append(json.loads(outcome.forecasts[-1].value or b"")["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_a_cold_epoch_starts_empty() -> None:
    """Where the operator let a partition start again, a replay must forget what the daemon forgot."""
    epochs = [epoch(settings()), replace(epoch(settings(), first_offset=10), cold=True)]
    pipeline = Pipeline(0, epochs, Engines({}.get))
    run(pipeline, regular(14), 14)
    assert pipeline.table.rows(0, 2)["count"].tolist() == [2, 2]
    assert pipeline.born == 10


def test_scores_of_different_ladders_are_kept_apart() -> None:
    """One poll may span epochs with different horizons."""
    epochs = [epoch(settings()), epoch(settings(horizon=2), first_offset=30)]
    outcome = Pipeline(0, epochs, Engines({}.get)).process(regular(60))
    assert [rungs for _, rungs in outcome.scores] == [(1, 2, 4, 8, 16, 24), (1, 2)]
