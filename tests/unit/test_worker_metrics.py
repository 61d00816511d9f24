"""What the worker tells is counted, by itself and through a pipe."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from daemon.worker_metrics import OUTCOMES, WorkerMetrics, tell_parent

CYCLE = {"outcome": "kept", "reason": "no better", "seconds": 12.5, "errors": {"candidate": 0.4, "incumbent": 0.5, "naive": 1.0}}
TRAINED = {"readings": 1000, "gradient": 3.5, "steps": 700, "skipped": 2}


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"recurd_{name}", labels)


def test_a_cycle_is_counted() -> None:
    """Outcome, time, readings, the three errors, gradient and skipped steps."""
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    assert [value(registry, "retrain_cycles_total", outcome=outcome) for outcome in OUTCOMES] == [0] * len(OUTCOMES)
    metrics.take("cycle", **CYCLE, **TRAINED)
    assert value(registry, "retrain_cycles_total", outcome="kept") == 1
    assert value(registry, "retrain_seconds_sum") == 12.5
    assert value(registry, "retrain_readings") == 1000
    assert value(registry, "retrain_gradient_norm") == 3.5
    assert value(registry, "retrain_skipped_steps_total") == 2
    assert [value(registry, "retrain_holdout_error_scaled", who=who) for who in ("candidate", "incumbent", "naive")] == [
        0.4,
        0.5,
        1,
    ]
    assert (value(registry, "retrain_last_cycle_timestamp_seconds") or 0) > 1.7e9


def test_a_failed_cycle_is_counted_alone() -> None:
    """It has no time and no scores, and is not the last that did not fail."""
    registry = CollectorRegistry()
    WorkerMetrics(registry).take("cycle", outcome="failed", reason="broken", seconds=0.0, errors={})
    assert value(registry, "retrain_cycles_total", outcome="failed") == 1
    assert value(registry, "retrain_seconds_count") == 0
    assert value(registry, "retrain_last_cycle_timestamp_seconds") == 0


def test_events_pass_through_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """A line an event; NaN is no number to show; garbage and events of another release do no harm."""
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    tell_parent("cycle", **CYCLE)
    tell_parent("trial", kind="probation", passed=False, reason="worse")
    tell_parent("live", alarmed=3, errors={"tried": 0.6, "against": 0.5, "naive": float("nan")})
    tell_parent("later", news=1)
    for line in [*capsys.readouterr().out.encode().splitlines(), b"garbage", b"[]", b'{"event":"cycle"}']:
        metrics.take_line(line)
    assert value(registry, "retrain_cycles_total", outcome="kept") == 1
    assert value(registry, "trials_total", kind="probation", outcome="failed") == 1
    assert value(registry, "drift_streams_active") == 3
    assert value(registry, "trial_error_scaled", who="tried") == 0.6
    assert value(registry, "trial_error_scaled", who="naive") is None
