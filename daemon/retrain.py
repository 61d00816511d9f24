"""A cycle of retraining: train on the newest readings, and put in force what is clearly better.

Read the window of the input topic, train from the incumbent's weights on all but its tail, judge candidate, incumbent and last
value on the tail with the daemon's own engine, publish or keep. A cycle that fails, or finds nothing better, changes nothing. All
state is in the topics. The transactional id is one per group: of two workers that publish at once one is fenced, and one that
comes later finds that the version it judged against is no longer in force.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol
from zlib import crc32

import numpy as np

from config.settings import Settings
from daemon import logs, weights
from daemon.brokers.port import Broker
from daemon.codec import Decoder
from daemon.record import read_log
from daemon.train import Streams, facts
from daemon.trials import Trial
from daemon.weights import ModelStore
from models import artifacts, judging
from models.artifacts import Manifest
from models.descent import NotEnoughReadings, Recipe
from models.forecaster import NAIVE
from models.judging import Judged
from models.networks import NaiveNetwork, Network
from models.training import Report, fit
from models.training_data import Series, tail_ms

#: The end of the transactional id of everything that the worker publishes.
IDENTITY = "retrain"
#: Streams are sampled in so many parts.
SHARES = 1000
#: The candidate's error may be this many times the incumbent's on the streams it serves worst, and so may its time for a step.
STREAM_LOSS = 1.1
COST = 1.2

log = logs.get("retrain")


class Tell(Protocol):
    """Takes events of the worker, for metrics: a kind, and numbers and words by name."""

    def __call__(self, kind: str, /, **facts: Any) -> None: ...


class Cycle(NamedTuple):
    """What a cycle came to: an outcome of `worker_metrics.OUTCOMES`."""

    outcome: str
    version: str  # in force afterwards
    reason: str


class Attempt(NamedTuple):
    """A candidate, trained and judged on a window of readings."""

    outcome: str  # of a cycle
    reason: str
    artifact: bytes | None = None  # what should be in force, if anything
    report: Report | None = None  # of the training
    errors: Mapping[str, float] = MappingProxyType({})  # mean absolute errors on the held-out tail, in spreads, by who


def run_cycle(settings: Settings, broker: Broker, store: ModelStore, tell: Tell | None = None) -> Cycle:
    """Read, train, judge; publish what is better, with the trial that it goes through.

    Args:
        settings: All of them.
        broker: To read and publish with.
        store: The `models` topic.
        tell: Takes what the cycle came to, for metrics.

    Raises:
        OperatorError, ArtifactError: The incumbent cannot be used.
        BrokerError: Nothing was published.
    """
    started_s = time.monotonic()
    store.refresh()
    version = store.in_force()
    tried = attempt(settings, read_window(settings, broker), version, store.versions, time.thread_time)
    cycle = Cycle(tried.outcome, version, tried.reason)
    if tried.artifact is not None:
        cycle = _publish(settings, broker, store, version, tried, tried.artifact)
    if tell is not None:
        seconds, errors = round(time.monotonic() - started_s, 3), dict(tried.errors)
        tell("cycle", outcome=cycle.outcome, reason=cycle.reason, seconds=seconds, errors=errors, **_effort(tried))
    return cycle


def _effort(tried: Attempt) -> dict[str, float]:
    report = tried.report
    if report is None:
        return {}
    return {"readings": report.readings, "gradient": report.largest_gradient, "steps": report.steps, "skipped": report.skipped}


def _publish(settings: Settings, broker: Broker, store: ModelStore, version: str, tried: Attempt, artifact: bytes) -> Cycle:
    """Put a candidate in force, or on trial before that; nothing where it is blocked or another version has come in force."""
    new = artifacts.version_of(artifact)
    if new in store.blocked:
        return Cycle("kept", version, f"{new} has been rolled back before")
    shadow = settings.retrain.shadow_readings > 0
    trial = trial_of("shadow", settings, broker, new, version) if shadow else probation(settings, broker, new, version)
    current = None if shadow else new

    def still() -> bool:
        store.refresh()
        return (store.current or NAIVE) == version

    if not weights.publish(settings, broker, artifact, current, IDENTITY, trial, still):
        return Cycle("overtaken", store.current or NAIVE, f"{store.current} has come in force meanwhile")
    return Cycle("shadow", version, f"{tried.reason}; {new} is on trial") if shadow else Cycle("promoted", new, tried.reason)


def probation(settings: Settings, broker: Broker, version: str, before: str) -> dict[bytes, bytes | None]:
    """The note that puts a version on probation, or ends the trial before, where there is to be none."""
    if not settings.retrain.probation_readings:
        return {weights.TRIAL_KEY: None}
    return trial_of("probation", settings, broker, version, before)


def trial_of(
    kind: Literal["shadow", "probation"], settings: Settings, broker: Broker, version: str, against: str
) -> dict[bytes, bytes | None]:
    """The note of a trial that begins with the records to come."""
    topic = settings.topics.readings
    with closing(broker.reader()) as reader:
        since = {number: reader.high_watermark(topic, number) for number in reader.partitions(topic)}
    return {weights.TRIAL_KEY: Trial(kind=kind, version=version, against=against, since=since).to_bytes()}


def attempt(
    settings: Settings,
    series: Sequence[Series],
    version: str,
    versions: Mapping[str, bytes],
    clock: Callable[[], float] | None = None,
) -> Attempt:
    """Train from the version in force and judge.

    Args:
        settings: All of them.
        series: The window.
        version: The incumbent.
        versions: Artifacts by version.
        clock: By which the cost of a step is judged; None leaves that out, and the outcome is a function of the rest.

    Raises:
        ArtifactError: The incumbent cannot be used.
    """
    retrain, engine = settings.retrain, settings.engine()
    incumbent = NaiveNetwork(engine) if version == NAIVE else artifacts.load(versions[version], engine)[0]
    times = np.concatenate([np.zeros(0, np.int64), *(one.time_ms for one in series)])
    cut_ms = tail_ms(times, retrain.held_out) if len(times) else 0
    try:
        network, report = _fit([one.before(cut_ms) for one in series], settings, incumbent)
    except NotEnoughReadings as error:
        return Attempt("too_few", str(error))
    judged = judging.judge(series, engine, {"candidate": network, "incumbent": incumbent}, cut_ms)
    candidate, other = judged["candidate"], judged["incumbent"]
    errors = {"candidate": candidate.by_block.mae, "incumbent": other.by_block.mae, "naive": candidate.by_block.naive_mae}
    refusal = gate(candidate, other, retrain.min_gain)
    if not refusal and clock is not None and isinstance(incumbent, Network):
        refusal = too_dear(judging.cost(engine, {"candidate": network, "incumbent": incumbent}, clock))
    if refusal:
        return Attempt("kept", refusal, None, report, errors)
    training = facts(report, retrain.seed).model_copy(update={"parent": version})
    artifact = artifacts.dump(network, Manifest.of(engine, training))
    artifacts.load(artifact, engine)  # a daemon would refuse what this does
    reason = f"{1 - candidate.by_block.mae / other.by_block.mae:.1%} better than {version} on the held-out tail"
    return Attempt("promoted", reason, artifact, report, errors)


def _fit(series: Sequence[Series], settings: Settings, incumbent: Network | NaiveNetwork) -> tuple[Network, Report]:
    started_s = time.monotonic()
    retrain = settings.retrain
    start = incumbent if isinstance(incumbent, Network) else None
    network, report = fit(series, settings.engine(), retrain.seed, Recipe(steps=retrain.steps), start=start)
    log.info(
        "trained", readings=report.readings, steps=report.steps, skipped=report.skipped,
        largest_gradient=round(report.largest_gradient, 3), seconds=round(time.monotonic() - started_s, 1),
    )  # fmt: skip
    return network, report


def gate(candidate: Judged, incumbent: Judged, min_gain: float) -> str:
    """Why a candidate is not promoted, by the held-out tail; empty where it is."""
    refusal = judging.refusal(candidate.by_block, incumbent.by_block, min_gain)
    loss = judging.regression(candidate.by_stream, incumbent.by_stream)
    if not refusal and loss > STREAM_LOSS:
        return f"a tenth of the streams would have {loss:.2f} times the error and more, {STREAM_LOSS} is allowed"
    return refusal


def too_dear(seconds: Mapping[str, float]) -> str:
    """Why a candidate costs too much, by the seconds of a step; empty where it does not."""
    ratio = seconds["candidate"] / seconds["incumbent"]
    return f"a step takes {ratio:.2f} times as long, {COST} is allowed" if ratio > COST else ""


def read_window(settings: Settings, broker: Broker) -> list[Series]:
    """The streams of the last `retrain.window_s` by the records' timestamps.

    Where there are more than `retrain.max_readings`, a sample of the streams by a hash of their ids, whole.
    """
    topic, since_ms = settings.topics.readings, int((time.time() - settings.retrain.window_s) * 1000)
    reader = broker.reader()
    try:
        numbers = reader.partitions(topic)
        starts = {number: reader.offset_at(topic, number, since_ms) for number in numbers}
        ends = {number: reader.high_watermark(topic, number) for number in numbers}
        records = sum(max(ends[number] - starts[number], 0) for number in numbers)
        share = min(1.0, settings.retrain.max_readings / max(records, 1))
        streams = Streams(Decoder(settings.input), len(settings.engine().channels), _sampled(share))
        streams.read(read_log(reader, topic, starts, ends), None)
    finally:
        reader.close()
    log.info("window read", records=records, streams=len(streams), share_of_streams=round(share, 3), not_decodable=streams.bad)
    return streams.series()


def _sampled(share: float) -> Callable[[str], bool]:
    limit = max(1, round(share * SHARES))
    return lambda stream: crc32(stream.encode()) % SHARES < limit
