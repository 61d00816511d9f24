"""Scores of a report: against sums written out one by one, with gaps, late readings, a reset and a season."""

from __future__ import annotations

import json
import math

import pytest

from daemon.pipeline import Pipeline
from daemon.records import Record
from daemon.scoring import Scorer
from models.alarms import Alarm
from tests import examples
from tests.examples import MINUTE_MS, T0_MS
from tests.unit.test_control import reset

ENGINE = examples.settings(hidden=8, context=16, horizon=4)
VALUES = [10 + 3 * math.sin(i / 2) + (i * 7 % 5) / 10 for i in range(60)]


def scored(records: list[Record], cuts: int = 7, season_ms: int | None = None) -> tuple[Scorer, list[dict[str, object]]]:
    """A scorer that saw these records, and the forecasts."""
    version, engines = examples.seeded_engines(ENGINE)
    pipeline, scorer, sent = Pipeline(0, [examples.epoch(ENGINE, version=version)], engines), Scorer(season_ms), []
    for first in range(0, len(records), cuts):
        part = records[first : first + cuts]
        outcome = pipeline.process(part)
        scorer.watch(0, part, outcome, pipeline.epochs)
        sent += [json.loads(message.value or b"") for message in outcome.forecasts]
    return scorer, sent


def regular(values: list[float] = VALUES) -> list[Record]:
    return [examples.record(i, ("a", T0_MS + i * MINUTE_MS, value)) for i, value in enumerate(values)]


@pytest.mark.parametrize("cuts", [1, 7, 60])
def test_sums_are_those_of_the_definition(cuts: int) -> None:
    """For each lead of the ladder: medians, last values and values of a season before, of the same pairs."""
    scorer, sent = scored(regular(), cuts, season_ms=600_000)
    scores = scorer.series[0, "a", "value"].scores
    known = [i for i, one in enumerate(sent) if one["interval_ms"]]
    assert sorted(scores) == [1, 2, 4]
    for lead, score in scores.items():
        pairs = [(i, i + lead) for i in known if i + lead < len(VALUES)]
        fans = {i: sent[i]["targets"]["value"] for i, _ in pairs}  # type: ignore[index]
        assert score.pairs == len(pairs)
        assert score.model == pytest.approx(sum(abs(VALUES[j] - fans[i]["0.5"][lead - 1]) for i, j in pairs))
        assert score.naive == pytest.approx(sum(abs(VALUES[j] - VALUES[i]) for i, j in pairs))
        assert score.covered == sum(fans[i]["0.1"][lead - 1] <= VALUES[j] <= fans[i]["0.9"][lead - 1] for i, j in pairs)
        assert score.below == [sum(VALUES[j] <= fans[i][q][lead - 1] for i, j in pairs) for q in ("0.1", "0.5", "0.9")]
        seasonal = [(i, j) for i, j in pairs if j >= 10]
        assert score.seasonal_pairs == len(seasonal)
        assert score.seasonal == pytest.approx(sum(abs(VALUES[j] - VALUES[j - 10]) for _, j in seasonal))


def test_a_season_shorter_than_the_lead_goes_back_further() -> None:
    """Only what was known at the origin counts: with a season of two intervals, lead 4 goes back two of them."""
    scorer, sent = scored(regular(), season_ms=120_000)
    known = [i for i, one in enumerate(sent) if one["interval_ms"] and i + 4 < len(VALUES)]
    assert scorer.series[0, "a", "value"].scores[4].seasonal == pytest.approx(sum(abs(VALUES[i + 4] - VALUES[i]) for i in known))


def test_rows_are_in_units_of_the_first_leads_last_value() -> None:
    """So that streams of any unit can be averaged."""
    one, _ = scored(regular())
    other, _ = scored(regular([1000 * value for value in VALUES]))
    assert one.rows()[0].naive == other.rows()[0].naive == 1.0
    assert next(iter(one.lines())).split() == ["lead", "forecasts", "error", "naive", "seasonal", "to", "naive", "covered"]
    assert len(list(one.lines())) == 4


def test_what_is_no_pair() -> None:
    """Late readings, duplicates, missing values, and targets from before a reset or a long gap are not scored."""
    plain, _ = scored(regular())
    records = regular()
    noise = [records[3], examples.record(0, ("a", T0_MS, 5.0)), Record("in", 0, 0, T0_MS, None, b"{")]
    mixed = [one._replace(offset=i) for i, one in enumerate([*records[:20], *noise, *records[20:]])]
    assert scored(mixed)[0].rows() == plain.rows()
    cut = [one._replace(offset=i) for i, one in enumerate([*records[:30], reset(0, b"a"), *records[30:]])]
    assert scored(cut)[0].rows()[0].pairs < plain.rows()[0].pairs - 1
    gap = [*records[:30], *(examples.record(i, ("a", T0_MS + (i + 20_000) * MINUTE_MS, VALUES[i])) for i in range(30, 60))]
    assert scored(gap)[0].rows()[0].pairs < plain.rows()[0].pairs


def test_anomalies_and_starts() -> None:
    """The highest scores are kept with stream and time, by time too; each epoch is noted where its first record was."""
    values = [*VALUES[:40], 500.0, *VALUES[41:]]
    scorer, _ = scored(regular(values))
    score, stream, time_ms = max(scorer.anomalies.highest)
    assert (stream, time_ms) == ("a", T0_MS + 40 * MINUTE_MS)
    assert scorer.anomalies.buckets[time_ms // scorer.anomalies.bucket_ms] == score
    assert [(one.partition, one.offset, one.timestamp_ms) for one in scorer.starts.values()] == [(0, 0, T0_MS)]
    again = [one._replace(timestamp_ms=T0_MS + 10**9) for one in regular(values)]
    bad = Record("in", 0, 0, T0_MS + 10**9, None, b"no reading")
    (start,) = scored([bad, *again[1:]])[0].starts.values()
    assert (start.offset, start.timestamp_ms, start.time_ms) == (0, T0_MS + 10**9, T0_MS + MINUTE_MS)


def test_alarms_are_counted_by_stream() -> None:
    """By the rule of `models.alarms` over each stream's forecasts; a reset begins anew."""
    values = [VALUES[i % 60] for i in range(400)]
    for place in (150, 210):
        values[place : place + 8] = [500.0, -500.0] * 4
    scorer, sent = scored(regular(values))
    alarm = Alarm()
    raised = [i for i, one in enumerate(sent) if alarm.raised(one["anomaly_score"], bool(one["warming"]))]  # type: ignore[arg-type]
    assert [(time_ms - T0_MS) // MINUTE_MS for time_ms, _, _ in scorer.anomalies.newest_alarms] == raised
    assert scorer.anomalies.alarms == len(raised)
    assert [place // 10 for place in raised] == [15]
    cut = [one._replace(offset=i) for i, one in enumerate([*regular(values[:165]), reset(0, b"a"), *regular(values)[165:]])]
    assert [(time_ms - T0_MS) // MINUTE_MS // 10 for time_ms, _, _ in scored(cut)[0].anomalies.newest_alarms] == [15, 21]


def test_memory_does_not_grow_with_the_readings() -> None:
    """What is kept of a series and of the timeline is bounded, also where a season needs the past."""
    scorer, _ = scored(regular([VALUES[i % 60] for i in range(9000)]), cuts=500, season_ms=3_600_000)
    series = scorer.series[0, "a", "value"]
    assert len(series.times_ms) <= 4200
    assert (len(series.pending) <= 5, len(series.drawn or ()) <= 160, len(scorer.anomalies.buckets) <= 361) == (True, True, True)
