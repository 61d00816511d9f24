"""What the worker tells of itself, as metrics.

A supervised worker writes events to its standard output, a line each, and the daemon beside it shows them; one that runs alone
shows them on a port of its own. Counts outlive a worker that is killed.
"""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from daemon import logs

#: What cycles come to: in force, on trial, not better, too few readings, another version came in force, an error.
OUTCOMES = ("promoted", "shadow", "kept", "too_few", "overtaken", "failed")
CYCLE_BUCKETS_S = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
#: Whose errors on the held-out tail, and on the live topic while a version is on trial.
HELD_OUT = ("candidate", "incumbent", "naive")
LIVE = ("tried", "against", "naive")
TRIALS = ("shadow", "probation")

log = logs.get("worker")


class WorkerMetrics:
    """Declared in a registry, moved by `take`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lock = threading.Lock()
        self._registry = registry
        self._cycles = self._counter("retrain_cycles", "Cycles of retraining by what they came to.", "outcome")
        self._seconds = Histogram("recurd_retrain_seconds", "Time of a cycle.", buckets=CYCLE_BUCKETS_S, registry=registry)
        self._last = self._gauge("retrain_last_cycle_timestamp_seconds", "When the last cycle ended that did not fail.")
        self._readings = self._gauge("retrain_readings", "Readings that the last training used.")
        self._errors = self._gauge("retrain_holdout_error_scaled", "Mean |reading - median| / spread, held-out.", "who")
        self._gradient = self._gauge("retrain_gradient_norm", "Largest gradient norm of the last training, uncut.")
        self._skipped = self._counter("retrain_skipped_steps", "Steps whose loss or gradient was not finite.")
        self._trials = self._counter("trials", "Trials by their end.", "kind", "outcome")
        self._live = self._gauge("trial_error_scaled", "Mean |reading - median| / spread since a trial began.", "who")
        self._alarmed = self._gauge("drift_streams_active", "Followed streams whose error rose lately.")
        for outcome in OUTCOMES:
            self._cycles.labels(outcome)
        for kind in TRIALS:
            for outcome in ("passed", "failed"):
                self._trials.labels(kind, outcome)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"recurd_{name}", what, labels, registry=self._registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"recurd_{name}", what, labels, registry=self._registry)

    def take(self, kind: str, /, **facts: Any) -> None:
        """An event of the worker: `cycle`, `trial` or `live`. Others, of another release, are passed over."""
        with self._lock:
            if kind == "cycle":
                self._cycle(facts)
            elif kind == "trial":
                self._trials.labels(facts["kind"], "passed" if facts["passed"] else "failed").inc()
            elif kind == "live":
                self._alarmed.set(facts["alarmed"])
                _set(self._live, LIVE, facts["errors"])

    def _cycle(self, facts: Mapping[str, Any]) -> None:
        self._cycles.labels(facts["outcome"]).inc()
        if facts["outcome"] == "failed":
            return
        self._last.set_to_current_time()
        self._seconds.observe(facts["seconds"])
        _set(self._errors, HELD_OUT, facts["errors"])
        if "readings" in facts:
            self._readings.set(facts["readings"])
            self._gradient.set(facts["gradient"])
            self._skipped.inc(facts["skipped"])

    def take_line(self, line: bytes) -> None:
        """An event as `tell_parent` wrote it; what cannot be read is logged and passed over."""
        try:
            event = json.loads(line)
            self.take(event.pop("event"), **event)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("worker's event not read", reason=repr(error), line=line[:200].decode(errors="replace"))


def tell_parent(kind: str, /, **facts: Any) -> None:
    """Write an event to standard output, for the daemon that supervises this process."""
    sys.stdout.write(json.dumps({"event": kind, **facts}) + "\n")
    sys.stdout.flush()


def _set(gauge: Gauge, known: tuple[str, ...], values: Mapping[str, float]) -> None:
    for who in known:
        value = values.get(who)
        if value is not None and math.isfinite(value):
            gauge.labels(who).set(value)
