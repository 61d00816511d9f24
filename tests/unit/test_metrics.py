"""Metrics: names and labels that keep their rules, and what the loop's words count."""

from __future__ import annotations

import re
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from daemon.errors import REASONS, Doubt, Fenced
from daemon.http import CHECKS, Health
from daemon.metrics import LEADS, OUTCOMES, STAGES, STATES, Metrics
from daemon.pipeline import Outcome, Scores
from daemon.records import Committed, DeadLetter, Message, Record

#: Units and kinds that a name ends with.
ENDINGS = re.compile(
    r"recurd_([a-z0-9]+_)*(seconds|bytes|total|info|rows|records|partitions|active|state|offset|ratio|ok|readings|scaled|norm)"
    r"(_sum|_count|_bucket)?$"
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def record(partition: int, offset: int, timestamp_ms: int) -> Record:
    return Record("readings", partition, offset, timestamp_ms, None, b"")


def partition(streams: int, nbytes: int, serving: bool = True) -> Any:
    class Table(SimpleNamespace):
        def __len__(self) -> int:
            return streams

    return SimpleNamespace(serving=serving, pipeline=SimpleNamespace(table=Table(nbytes=nbytes)))


def test_names_keep_the_rules(metrics: Metrics) -> None:
    """Ours have the prefix, a unit or kind at the end, and a meaning; no label can hold a stream id."""
    labels = set()
    for family in metrics.registry.collect():
        assert family.documentation
        if family.name.startswith("recurd"):
            for sample in family.samples:
                assert ENDINGS.match(sample.name), sample.name
                labels |= sample.labels.keys()
    assert labels <= {
        "partition", "outcome", "reason", "stage", "le", "kind", "state", "version", "who", "lead", "by",
            "torch", "python", "check",
    }  # fmt: skip


def test_known_labels_are_there_from_the_start(metrics: Metrics) -> None:
    """What has not happened yet is zero, not absent."""
    for outcome in OUTCOMES:
        assert value(metrics, "recurd_readings_total", outcome=outcome) == 0
    for reason in REASONS:
        assert value(metrics, "recurd_dead_letters_total", reason=reason) == 0
    for stage in STAGES:
        assert value(metrics, "recurd_stage_seconds_count", stage=stage) == 0
    for lead in LEADS:
        assert value(metrics, "recurd_prequential_pairs_total", lead=lead) == 0
        assert value(metrics, "recurd_prequential_abs_error_scaled_total", who="naive", lead=lead) == 0
    for outcome in ("committed", "aborted", "fenced", "timeout"):
        assert value(metrics, "recurd_transactions_total", outcome=outcome) == 0


def test_several_in_one_process() -> None:
    """Two Metrics share nothing."""
    first, second = Metrics(), Metrics()
    first.epochs_started.inc()
    assert value(second, "recurd_epochs_started_total") == 0


def test_process_and_build(metrics: Metrics) -> None:
    """The process and the versions that its arithmetic rests on are shown."""
    assert (value(metrics, "process_resident_memory_bytes") or 0) > 0
    builds = [sample for family in metrics.registry.collect() for sample in family.samples if sample.name == "recurd_build_info"]
    assert builds[0].labels["torch"].startswith("2.")


def test_stage_is_timed_even_where_it_fails(metrics: Metrics) -> None:
    """A stage counts once, whether it ends well or not; an unknown one is a mistake in the program."""
    with metrics.stage("step"):
        pass
    with pytest.raises(ZeroDivisionError), metrics.stage("step"):
        _ = 1 / 0
    assert value(metrics, "recurd_stage_seconds_count", stage="step") == 2
    with pytest.raises(KeyError):
        metrics.stage("stroll")


def test_exactly_one_state(metrics: Metrics) -> None:
    """The states are exclusive."""
    for state in STATES:
        metrics.state(state)
        shown = {other: value(metrics, "recurd_state", state=other) for other in STATES}
        assert shown == {other: float(other == state) for other in STATES}


def test_outcome_counts_every_reading_once(metrics: Metrics) -> None:
    """Forecasts, dead letters and drops add up to the readings; dead letters also count by reason."""
    letters = [DeadLetter(record(0, 0, 0), 0, reason, "") for reason in ("syntax", "syntax", "late")]
    drops = Counter({"late": 2, "duplicate": 1, "incomplete_start": 4, "thinned": 3})
    metrics.outcome(Outcome([Message(None, b"")] * 5, letters, drops, stepped=8, parts=2, evicted=6))
    counted = {outcome: value(metrics, "recurd_readings_total", outcome=outcome) for outcome in OUTCOMES}
    assert counted == {"forecast": 5, "dead_letter": 3, **drops}
    assert value(metrics, "recurd_dead_letters_total", reason="syntax") == 2
    assert value(metrics, "recurd_batch_rows_sum") == 8
    assert value(metrics, "recurd_batches_total") == 2
    assert value(metrics, "recurd_streams_evicted_total") == 6


def test_scores_by_lead(metrics: Metrics) -> None:
    """Sums go to the lead of their rung over all targets, the last rung to the horizon; what is not finite is left out."""
    pairs, model = np.array([[1, 2, 3], [10, 20, 30]]), np.array([[0.5, np.inf, 1.0], [0.5, 1.0, 2.0]])
    metrics.outcome(Outcome(scores={(("value",), (1, 2, 24)): Scores(pairs, model, pairs * 2.0, pairs * 0.5)}))
    assert [value(metrics, "recurd_prequential_pairs_total", lead=lead) for lead in LEADS] == [11, 22, 0, 0, 0, 33]
    errors = [value(metrics, "recurd_prequential_abs_error_scaled_total", who="model", lead=lead) for lead in LEADS]
    assert errors == [1.0, 0, 0, 0, 0, 3.0]
    assert value(metrics, "recurd_prequential_abs_error_scaled_total", who="naive", lead="horizon") == 66
    assert value(metrics, "recurd_prequential_covered_total", lead="1") == 5.5


@pytest.mark.parametrize(
    ("doubt", "cause", "outcome"),
    [(Doubt("x"), None, "aborted"), (Fenced("x"), None, "fenced"), (Doubt("x"), TimeoutError(), "timeout")],
)
def test_doubts_by_kind(metrics: Metrics, doubt: Doubt, cause: Exception | None, outcome: str) -> None:
    """A transaction that did not commit counts once, with the producer that it cost."""
    doubt.__cause__ = cause
    metrics.aborted(doubt)
    assert value(metrics, "recurd_transactions_total", outcome=outcome) == 1
    assert value(metrics, "recurd_producer_reinits_total", reason=outcome) == 1


def test_latency_of_many_at_once(metrics: Metrics) -> None:
    """Latencies are counted by bucket and summed; one in the future is 0, a record without a timestamp counts nowhere."""
    now_ms = round(time.time() * 1000)
    stamps = [now_ms - 40_000, now_ms + 3_600_000, -1]
    metrics.visible([record(0, offset, stamp) for offset, stamp in enumerate(stamps)], times_ms=[now_ms - 2000])
    assert value(metrics, "recurd_source_latency_seconds_count") == 2
    assert value(metrics, "recurd_source_latency_seconds_bucket", le="0.01") == 1
    assert value(metrics, "recurd_source_latency_seconds_bucket", le="30.0") == 1
    assert value(metrics, "recurd_source_latency_seconds_bucket", le="60.0") == 2
    assert value(metrics, "recurd_source_latency_seconds_sum") == pytest.approx(40, abs=1)
    assert value(metrics, "recurd_e2e_latency_seconds_bucket", le="2.5") == 1
    metrics.visible([])
    assert value(metrics, "recurd_source_latency_seconds_bucket", le="+Inf") == 2


def test_turn_shows_what_is_held_and_forgets_the_rest(metrics: Metrics) -> None:
    """Gauges of a partition go when another process takes it over; counters stay."""
    now_ms = round(time.time() * 1000)
    metrics.polled({3: [record(3, 7, now_ms - 60_000)], 4: [record(4, 9, now_ms)], 5: []})
    metrics.committed({3: Committed(8, ""), 4: Committed(10, "")})
    metrics.checkpoint(3, 2, 4096, 0.01)
    metrics.turn({3: partition(2, 100), 4: partition(5, 300, serving=False)}, {6}, {3: 11, 4: 0})
    assert value(metrics, "recurd_assigned_partitions") == 3
    assert value(metrics, "recurd_restoring_partitions") == 2
    assert value(metrics, "recurd_state", state="restoring") == 1
    assert value(metrics, "recurd_streams_active") == 7
    assert value(metrics, "recurd_state_bytes") == 400
    assert value(metrics, "recurd_consumer_lag_records", partition="3") == 11
    assert value(metrics, "recurd_consumer_lag_seconds") == pytest.approx(60, abs=2)
    assert value(metrics, "recurd_last_committed_offset", partition="3") == 8
    metrics.turn({4: partition(5, 300)}, set(), {4: 0})
    assert value(metrics, "recurd_state", state="running") == 1
    assert value(metrics, "recurd_consumer_lag_seconds") == 0
    for name in ("consumer_lag_records", "last_committed_offset", "checkpoint_timestamp_seconds"):
        assert value(metrics, f"recurd_{name}", partition="3") is None
    assert value(metrics, "recurd_last_committed_offset", partition="4") == 10
    assert value(metrics, "recurd_records_consumed_total", partition="3") == 1
    assert value(metrics, "recurd_checkpoint_bytes_total") == 4096


def test_restored_partition(metrics: Metrics) -> None:
    """A restore counts its blocks and its time."""
    metrics.restored(SimpleNamespace(restored_blocks=40, restored_s=0.3))  # type: ignore[arg-type]
    assert value(metrics, "recurd_restore_blocks_total") == 40
    assert value(metrics, "recurd_restore_seconds_sum") == pytest.approx(0.3)


def test_one_model_in_force(metrics: Metrics) -> None:
    """The model version in force replaces the one before."""
    metrics.model("naive", "forecaster")
    metrics.model("a1b2", "forecaster")
    assert value(metrics, "recurd_model_info", version="a1b2", kind="forecaster") == 1
    assert value(metrics, "recurd_model_info", version="naive", kind="forecaster") is None
    assert value(metrics, "recurd_model_trained_until_timestamp_seconds") == 0
    metrics.model("c3d4", "forecaster", {"last_time_ms": 1_700_000_000_500})
    assert value(metrics, "recurd_model_trained_until_timestamp_seconds") == 1_700_000_000.5


def test_health_is_shown_as_it_is_when_scraped(metrics: Metrics) -> None:
    """The loop's last beat ages by itself, and each check of readiness is 0 or 1."""
    now_s = [100.0]
    health = Health(30.0, clock=lambda: now_s[0])
    metrics.watch(health)
    now_s[0] += 50
    assert value(metrics, "recurd_loop_beat_timestamp_seconds") == pytest.approx(time.time() - 50, abs=5)
    health.beat()
    assert value(metrics, "recurd_loop_beat_timestamp_seconds") == pytest.approx(time.time(), abs=5)
    health.set("joined", True)
    assert {name: value(metrics, "recurd_check_ok", check=name) for name in CHECKS} == {
        **dict.fromkeys(CHECKS, 0.0), "joined": 1.0, "draining": 1.0,
    }  # fmt: skip
