"""`recurd retrain`: the worker that trains on the newest readings and puts what is clearly better in force.

A cycle: read the window of the input topic, train from the incumbent's weights on all but its tail, judge candidate, incumbent
and last value on the tail with the daemon's own engine, publish or keep. A cycle that fails, or finds nothing better, changes
nothing. All state is in the topics. The transactional id is one per group, so that a second worker fences the first.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from types import MappingProxyType
from typing import NamedTuple
from zlib import crc32

import numpy as np

from config.settings import Settings
from daemon import logs, signals, weights
from daemon.brokers import connect
from daemon.brokers.port import Broker
from daemon.codec import Decoder
from daemon.errors import BrokerError, OperatorError
from daemon.record import read_log
from daemon.train import Streams, facts
from daemon.weights import ModelStore
from models import artifacts, judging
from models.artifacts import ArtifactError, Manifest
from models.forecaster import NAIVE
from models.judging import Judged
from models.networks import NaiveNetwork, Network
from models.training import NotEnoughReadings, Recipe, Report, fit
from models.training_data import Series, tail_ms

#: While there are too few readings for first weights, they are looked for again after this.
IMPATIENT_S = 60.0
#: Streams are sampled in so many parts.
SHARES = 1000
#: The candidate's error may be this many times the incumbent's on the streams it serves worst, and so may its time for a step.
STREAM_LOSS = 1.1
COST = 1.2

log = logs.get("retrain")


class Cycle(NamedTuple):
    """What a cycle came to. Outcomes: promoted, kept, too_few."""

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


def run(settings: Settings, once: bool, supervised: bool, say: Callable[[str], None]) -> int:
    """Run cycles until told to stop, or one.

    Args:
        settings: All of them.
        once: One cycle, and `say` what it came to.
        supervised: End at once when standard input does: the daemon beside which this runs is gone.
        say: Takes the outcome of a single cycle.

    Raises:
        OperatorError: The settings are for an engine without weights, or the incumbent cannot be used.
        BrokerError: With `once`, the broker failed.
    """
    if settings.model.kind != "forecaster":
        raise OperatorError(f'model.kind = "{settings.model.kind}" is not retrained: only "forecaster" is.')
    if once:
        cycle = run_cycle(settings, connect(settings))
        say(f"{cycle.outcome}: {cycle.reason.rstrip('.')}; {cycle.version} is in force")
        return 0
    stopping = threading.Event()
    signals.catch(stopping)  # a second one leaves nothing half done: publishing is one transaction
    if supervised:
        threading.Thread(target=_end_with_input, name="recurd-input", daemon=True).start()
    os.nice(settings.retrain.nice)
    while not stopping.is_set():
        stopping.wait(_cycle_or_wait(settings))
    return 0


def _cycle_or_wait(settings: Settings) -> float:
    """One cycle, whatever becomes of it; seconds until the next."""
    try:
        cycle = run_cycle(settings, connect(settings))
    except (BrokerError, OperatorError, ArtifactError) as error:
        log.error("cycle failed", error=type(error).__name__, reason=str(error))
        return min(IMPATIENT_S, settings.retrain.every_s)
    log.info("cycle", outcome=cycle.outcome, reason=cycle.reason, in_force=cycle.version)
    return min(IMPATIENT_S, settings.retrain.every_s) if cycle.outcome == "too_few" else settings.retrain.every_s


def run_cycle(settings: Settings, broker: Broker) -> Cycle:
    """Read, train, judge; publish what is better."""
    with closing(ModelStore(settings, broker)) as store:
        store.refresh()
    version = store.in_force()
    tried = attempt(settings, read_window(settings, broker), version, store.versions, time.thread_time)
    if tried.artifact is not None:
        version = weights.publish(settings, broker, tried.artifact, identity="retrain")
    return Cycle(tried.outcome, version, tried.reason)


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
    """Why a candidate is not promoted; empty where it is."""
    errors, others = candidate.by_block, incumbent.by_block
    if not others.pairs.sum():
        return "nothing on the held-out tail could be scored"
    if (errors.pairs != others.pairs).any():
        return "some of its forecasts are not numbers"
    if not errors.mae < errors.naive_mae:
        return f"its error on the held-out tail, {errors.mae:.4f}, is not below the last value's, {errors.naive_mae:.4f}"
    better, bound = judging.gain(errors, others)
    if better < min_gain:
        return f"it is {better:.1%} better on the held-out tail, retrain.min_gain asks for {min_gain:.1%}"
    if bound <= 0:
        return f"it is {better:.1%} better on the held-out tail, which may be chance (lower bound {bound:.1%})"
    loss = judging.regression(candidate.by_stream, incumbent.by_stream)
    if loss > STREAM_LOSS:
        return f"a tenth of the streams would have {loss:.2f} times the error and more, {STREAM_LOSS} is allowed"
    return ""


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


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
