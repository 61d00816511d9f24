"""Every metric of recurd, declared once: what Prometheus sees. Prefix `recurd_`, base units, bounded labels, never a stream id.

The loop says what happened, in its own words; this module knows what is counted of it. All label values that are known are there
from the start, at zero. Counters count work done: readings processed again after an aborted transaction count again.
"""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from importlib import metadata
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from daemon.errors import REASONS, Fenced
from daemon.records import Committed, Record
from daemon.worker_metrics import WorkerMetrics

if TYPE_CHECKING:
    from daemon.http import Health
    from daemon.pipeline import Outcome, Scores
    from daemon.restore import Partition

STAGES = ("poll", "decode", "batch", "gather", "step", "scatter", "encode", "send", "commit")
OUTCOMES = ("forecast", "dead_letter", "late", "duplicate", "incomplete_start", "thinned")
STATES = ("starting", "restoring", "running", "draining", "failed")
TRANSACTIONS = ("committed", "aborted", "fenced", "timeout")
REBALANCES = ("assigned", "revoked", "lost")
LOAD_FAILURES = ("missing", "damaged", "mismatch", "not_finite")
LEADS = ("1", "2", "4", "8", "16", "horizon")
WHO = ("model", "naive")
REFUSALS = ("oversize", "foreign", "truncated", "corrupt", "architecture", "tensors", "non_finite", "absent")

STAGE_BUCKETS_S = (1e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0)
ROWS_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536)
CHECKPOINT_BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RESTORE_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

#: The time of creation of every series would double a scrape and says nothing that `process_start_time_seconds` does not.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """One process's metrics. Written by the loop's thread, read by scrapes.

    Args:
        registry: Where they are declared; a new one by default, so that tests can make several.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._last_timestamps_ms: dict[int, int] = {}  # of the last record read, by partition
        self._shown: set[int] = set()  # partitions with gauges
        #: When a version came in force here, its name, and what it says of itself; newest last.
        self.versions: deque[tuple[float, str, dict[str, Any]]] = deque(maxlen=50)
        self._declare_flow()
        self._declare_transactions()
        self._declare_group()
        self._declare_state()
        self._declare_model()
        self._declare_quality()
        self._declare_process()
        self._stages = {name: self.stage_seconds.labels(name) for name in STAGES}
        self.state("starting")

    # -- declarations -----------------------------------------------------------------------------------------------------

    def _declare_flow(self) -> None:
        self.records_consumed = self._counter("records_consumed", "Records read from the input topic.", partition=())
        self.readings = self._counter("readings", "Readings by what became of them: each is exactly one.", outcome=OUTCOMES)
        self.dead_letters = self._counter("dead_letters", "Dead letters by reason.", reason=REASONS)
        self.stage_seconds = self._histogram("stage_seconds", "Time in a stage of the data path.", STAGE_BUCKETS_S, "stage")
        self.batch_rows = self._histogram("batch_rows", "Readings of one partition and poll that advance rows.", ROWS_BUCKETS)
        self.batches = self._counter("batches", "Calls of step, each of at most 1,024 rows.")
        self.source_latency = LatencyHistogram(
            "recurd_source_latency_seconds", "From a record's Kafka timestamp to its visible result.", LATENCY_BUCKETS_S
        )
        self.e2e_latency = LatencyHistogram(
            "recurd_e2e_latency_seconds", "From a reading's own time to its visible forecast.", LATENCY_BUCKETS_S
        )
        self.registry.register(self.source_latency)
        self.registry.register(self.e2e_latency)

    def _declare_transactions(self) -> None:
        self.transactions = self._counter("transactions", "Transactions by their end.", outcome=TRANSACTIONS)
        reasons = tuple(outcome for outcome in TRANSACTIONS if outcome != "committed")
        self.producer_reinits = self._counter("producer_reinits", "Producers replaced.", reason=reasons)
        self.hanging_transactions = self._counter("hanging_transactions", "Transactions ended that the broker had lost.")
        self.transaction_open_seconds = self._histogram(
            "transaction_open_seconds", "From the begin of a transaction to its end.", STAGE_BUCKETS_S
        )
        self.consumer_lag_records = self._gauge("consumer_lag_records", "Records not yet processed.", "partition")
        self.consumer_lag_seconds = self._gauge("consumer_lag_seconds", "Age of the oldest last record of a lagging partition.")
        self.last_committed_offset = self._gauge("last_committed_offset", "Offset last committed.", "partition")
        self.last_commit_timestamp = self._gauge("last_commit_timestamp_seconds", "When the last commit succeeded.")
        self.partition_stalls = self._counter("partition_stalls", "Partitions with lag that brought no records.")

    def _declare_group(self) -> None:
        self.assigned_partitions = self._gauge("assigned_partitions", "Partitions of this process.")
        self.rebalances = self._counter("rebalances", "Rebalance callbacks.", kind=REBALANCES)
        self.process_state = self._gauge("state", "1 for the state the process is in.", "state", known=STATES)
        self.loop_beat_timestamp = self._gauge("loop_beat_timestamp_seconds", "When the loop last moved.")
        self.check_ok = self._gauge("check_ok", "1 for each check of /readyz that holds.", "check")

    def _declare_state(self) -> None:
        self.streams_active = self._gauge("streams_active", "Streams with a row.")
        self.streams_evicted = self._counter("streams_evicted", "Streams that lost their row to another.")
        self.streams_reset = self._counter("streams_reset", "Control records that made a stream start afresh.")
        self.state_bytes = self._gauge("state_bytes", "Bytes of the rows in use.")
        self.checkpoint_blocks = self._counter("checkpoint_blocks", "Blocks sent to the changelog.")
        self.checkpoint_bytes = self._counter("checkpoint_bytes", "Bytes of blocks sent to the changelog.")
        self.checkpoint_timestamp = self._gauge("checkpoint_timestamp_seconds", "When the last checkpoint was sent.", "partition")
        self.checkpoint_seconds = self._histogram("checkpoint_seconds", "Time to send a checkpoint.", CHECKPOINT_BUCKETS_S)
        self.restore_blocks = self._counter("restore_blocks", "Blocks restored from the changelog.")
        self.restore_seconds = self._histogram(
            "restore_seconds", "Time to restore a partition, without catch-up.", RESTORE_BUCKETS_S
        )
        self.restoring_partitions = self._gauge("restoring_partitions", "Partitions that wait for their changelog or catch up.")
        self.catch_up_readings = self._counter("catch_up_readings", "Readings run again without sending.")

    def _declare_model(self) -> None:
        self.model_info = self._gauge("model_info", "1 for the model version in force.", "version", "kind")
        self.model_trained_until = self._gauge(
            "model_trained_until_timestamp_seconds",
            "Time of the last reading that the weights in force were trained on; 0: none.",
        )
        self.epochs_started = self._counter("epochs_started", "Epochs begun by this process.")
        self.arithmetic_changes = self._counter(
            "arithmetic_changes", "Epochs begun because the engine version or the arithmetic fingerprint changed."
        )
        self.model_load_failures = self._counter("model_load_failures", "Weights that were refused.", reason=LOAD_FAILURES)
        self.worker_ends = self._counter("worker_ends", "Ends of the retraining worker that nobody asked for.")
        self.worker = WorkerMetrics(self.registry)
        self.models_refused = self._counter("models_refused", "Versions that were to be in force and cannot be.", reason=REFUSALS)
        self.swap_seconds = self._histogram(
            "swap_seconds", "From a new version until the last partition here has begun with it.", RESTORE_BUCKETS_S
        )
        self.rows_rebuilt = self._counter(
            "rows_rebuilt", "Rows whose hidden and cell were made anew by another model version.", by=("loop", "warmer")
        )

    def _declare_quality(self) -> None:
        self.prequential_error = self._counter(
            "prequential_abs_error_scaled",
            "Sum of |reading - forecast| / spread; who: the model's median or the last value.",
            who=WHO,
            lead=LEADS,
        )
        self.prequential_pairs = self._counter("prequential_pairs", "Forecasts that came due, the same for both.", lead=LEADS)
        self.nominal_coverage = self._gauge("nominal_coverage_ratio", "Share that the outermost interval should cover.")
        self.prequential_covered = self._counter("prequential_covered", "... of them inside the outermost interval.", lead=LEADS)

    def _declare_process(self) -> None:
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = Info("recurd_build", "Version of recurd and of what its arithmetic rests on.", registry=self.registry)
        build.info({"version": _version("recurd"), "torch": _version("torch"), "python": platform.python_version()})

    def _counter(self, name: str, what: str, **labels: Sequence[str]) -> Counter:
        """A counter whose known label values are there at once; a label given as () has values known later."""
        counter = Counter(f"recurd_{name}", what, tuple(labels), registry=self.registry)
        combinations: list[tuple[str, ...]] = [()] if labels else []
        for values in labels.values():
            combinations = [(*before, value) for before in combinations for value in values]
        for combination in combinations:
            counter.labels(*combination)
        return counter

    def _gauge(self, name: str, what: str, *labels: str, known: Sequence[str] = ()) -> Gauge:
        gauge = Gauge(f"recurd_{name}", what, labels, registry=self.registry)
        for value in known:
            gauge.labels(value)
        return gauge

    def _histogram(self, name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"recurd_{name}", what, labels, buckets=buckets, registry=self.registry)

    # -- what the loop says -----------------------------------------------------------------------------------------------

    def stage(self, name: str) -> Timed:
        """Times a stage: `with metrics.stage("poll"): ...`."""
        return Timed(self._stages[name])

    def state(self, name: str) -> None:
        """The process is in this state of `STATES`."""
        for state in STATES:
            self.process_state.labels(state).set(state == name)

    def polled(self, records: Mapping[int, Sequence[Record]]) -> None:
        """Records were read, by partition."""
        for number, read in records.items():
            if read:
                self.records_consumed.labels(str(number)).inc(len(read))
                self._last_timestamps_ms[number] = read[-1].timestamp_ms

    def outcome(self, outcome: Outcome) -> None:
        """A partition's records were processed."""
        self.readings.labels("forecast").inc(len(outcome.forecasts))
        self.readings.labels("dead_letter").inc(len(outcome.dead_letters))
        for dropped, count in outcome.drops.items():
            self.readings.labels(dropped).inc(count)
        for reason, count in Tally(letter.reason for letter in outcome.dead_letters).items():
            self.dead_letters.labels(reason).inc(count)
        if outcome.stepped:
            self.batch_rows.observe(outcome.stepped)
        self.batches.inc(outcome.parts)
        self.streams_evicted.inc(outcome.evicted)
        self.streams_reset.inc(outcome.resets)
        self.rows_rebuilt.labels("loop").inc(outcome.rebuilt)
        for scores in outcome.scores.values():
            self._scored(scores)

    def _scored(self, scores: Scores) -> None:
        """Sums by rung over all targets; the last rung is the horizon."""
        rungs = scores.pairs.shape[1]
        for rung, lead in enumerate((*LEADS[: rungs - 1], LEADS[-1])):
            _add(self.prequential_pairs.labels(lead), scores.pairs[:, rung])
            _add(self.prequential_covered.labels(lead), scores.covered[:, rung])
            _add(self.prequential_error.labels("model", lead), scores.model[:, rung])
            _add(self.prequential_error.labels("naive", lead), scores.naive[:, rung])

    def visible(self, records: Iterable[Record], times_ms: Sequence[int] | np.ndarray = ()) -> None:
        """What these records and readings (by their own times) caused can be read by others now."""
        now_ms = time.time() * 1000
        stamps = np.array([record.timestamp_ms for record in records], np.float64)
        self.source_latency.observe((now_ms - stamps[stamps >= 0]) / 1000)
        self.e2e_latency.observe((now_ms - np.array(times_ms, np.float64)) / 1000)

    def committed(self, offsets: Mapping[int, Committed]) -> None:
        """A transaction was committed with these offsets."""
        self.transactions.labels("committed").inc()
        self.last_commit_timestamp.set_to_current_time()
        for number, committed in offsets.items():
            self._shown.add(number)
            self.last_committed_offset.labels(str(number)).set(committed.offset)

    def aborted(self, doubt: Exception) -> None:
        """A transaction was aborted or its fate is unknown; the producer is replaced."""
        timed_out = isinstance(doubt.__cause__, TimeoutError) or isinstance(doubt.__context__, TimeoutError)
        reason = "fenced" if isinstance(doubt, Fenced) else "timeout" if timed_out else "aborted"
        self.transactions.labels(reason).inc()
        self.producer_reinits.labels(reason).inc()

    def checkpoint(self, partition: int, blocks: int, sent_bytes: int, seconds: float) -> None:
        """A partition's changed blocks and its mark were sent."""
        self.checkpoint_blocks.inc(blocks)
        self.checkpoint_bytes.inc(sent_bytes)
        self.checkpoint_seconds.observe(seconds)
        self._shown.add(partition)
        self.checkpoint_timestamp.labels(str(partition)).set_to_current_time()

    def restored(self, partition: Partition) -> None:
        """A partition's changelog was read."""
        self.restore_blocks.inc(partition.restored_blocks)
        self.restore_seconds.observe(partition.restored_s)

    def watch(self, health: Health) -> None:
        """Show liveness and readiness, as they are when scraped."""
        self.loop_beat_timestamp.set_function(lambda: time.time() - health.silent_s())
        for name in health.ready():
            self.check_ok.labels(name).set_function(partial(_is_ok, health, name))

    def model(self, version: str, kind: str, facts: Mapping[str, Any] | None = None) -> None:
        """This model version is in force; `facts` are those of its training, where it has any."""
        facts = dict(facts or {})
        self.versions.append((time.time(), version, facts))
        self.model_info.clear()
        self.model_info.labels(version, kind).set(1)
        self.model_trained_until.set((facts.get("last_time_ms") or 0) / 1000)

    def turn(self, partitions: Mapping[int, Partition], waiting: Collection[int], lags: Mapping[int, int]) -> None:
        """A turn is over: partitions held, those that wait for their changelog, and how far each lags, in records."""
        catching_up = sum(not partition.serving for partition in partitions.values())
        behind = len(waiting) + catching_up
        self.state("restoring" if behind else "running")
        self.assigned_partitions.set(len(partitions) + len(waiting))
        self.restoring_partitions.set(behind)
        self.streams_active.set(sum(len(partition.pipeline.table) for partition in partitions.values()))
        self.state_bytes.set(sum(partition.pipeline.table.nbytes for partition in partitions.values()))
        for number, lag in lags.items():
            self._shown.add(number)
            self.consumer_lag_records.labels(str(number)).set(lag)
        self.consumer_lag_seconds.set(self._lag_s(lags))
        self._forget({*partitions, *waiting})

    def _lag_s(self, lags: Mapping[int, int]) -> float:
        """Age of the last record read of the partition furthest behind in time; 0 where nothing lags."""
        stamps = [self._last_timestamps_ms.get(number, -1) for number, lag in lags.items() if lag]
        known = [stamp for stamp in stamps if stamp >= 0]
        return max(time.time() - min(known) / 1000, 0.0) if known else 0.0

    def _forget(self, held: Collection[int]) -> None:
        """Drop the gauges of partitions that others hold now: two processes must not both show them."""
        for number in self._shown.difference(held):
            for gauge in (self.consumer_lag_records, self.last_committed_offset, self.checkpoint_timestamp):
                gauge.remove(str(number))
            self._shown.discard(number)
            self._last_timestamps_ms.pop(number, None)


class Timed:
    """Observes the time between enter and exit."""

    __slots__ = ("_histogram", "_started_s")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def __enter__(self) -> None:
        self._started_s = time.perf_counter()

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        self._histogram.observe(time.perf_counter() - self._started_s)


class LatencyHistogram(Collector):
    """A histogram that takes many values at once: one record at a time would cost a tenth of the loop at 20,000 a second."""

    def __init__(self, name: str, what: str, buckets_s: Sequence[float]) -> None:
        self._name, self._what = name, what
        self._bounds = np.array(buckets_s, np.float64)
        self._counts = np.zeros(len(buckets_s) + 1, np.int64)
        self._sum_s = 0.0
        self._lock = threading.Lock()

    def observe(self, values_s: np.ndarray) -> None:
        """Count latencies in seconds (N,); what lies in the future (a wrong clock) counts as 0."""
        values_s = np.maximum(values_s, 0.0)
        counts = np.bincount(np.searchsorted(self._bounds, values_s), minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._sum_s += float(values_s.sum())

    def collect(self) -> list[HistogramMetricFamily]:
        """Cumulated buckets, as Prometheus wants them."""
        with self._lock:
            cumulated, total_s = np.cumsum(self._counts).tolist(), self._sum_s
        bounds = [*map(str, self._bounds.tolist()), "+Inf"]
        family = HistogramMetricFamily(self._name, self._what)
        family.add_metric([], list(zip(bounds, cumulated, strict=True)), sum_value=total_s)
        return [family]


def _add(counter: Counter, column: np.ndarray) -> None:
    """Add a column's sum; one that is not finite would silence the counter for good."""
    total = float(column.sum())
    if 0 < total < float("inf"):
        counter.inc(total)


def _is_ok(health: Health, name: str) -> bool:
    return health.ready()[name][0]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
