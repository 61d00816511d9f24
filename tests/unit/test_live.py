"""What the worker sees of the live topic is what the daemon's own pipeline computes."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

from config.settings import Settings, load
from daemon import control
from daemon.engines import Engines
from daemon.epochs import Epoch
from daemon.errors import Unreachable
from daemon.live import Live, Sample
from daemon.pipeline import Pipeline
from daemon.trials import Trial
from models.forecaster import NAIVE, Forecaster
from models.layout import ENGINE_VERSION
from tests import examples
from tests.memory import Logs, Reader

SETTINGS = load(None, {}, ["model.hidden=8", "model.horizon=4", "model.context=16", "kafka.group_id=live"])
ENGINE = SETTINGS.engine()
VERSION, ARTIFACT = examples.seeded_weights(ENGINE)
ENGINES = Engines({VERSION: ARTIFACT}.get)


def epoch(version: str, first_offset: int = 0) -> Epoch:
    return Epoch(0, first_offset, version, ENGINE, ENGINE_VERSION, "test")


def forecaster(version: str) -> Forecaster:
    engine = ENGINES(epoch(version))
    assert isinstance(engine, Forecaster)
    return engine


def filled(count: int, streams: int = 5, partitions: int = 1) -> Logs:
    """Minutes of some streams, with late readings, records that are none, and resets."""
    logs = Logs(SETTINGS.topics.readings, SETTINGS.topic("models"), partitions)
    extend(logs, range(count), streams, partitions)
    return logs


def extend(logs: Logs, minutes: range, streams: int = 5, partitions: int = 1, scale: float = 1.0) -> None:
    rng = random.Random(minutes.start)
    for minute in minutes:
        time_ms = examples.T0_MS + minute * examples.MINUTE_MS
        for stream in range(streams):
            late = minute % 17 == 3
            value = math.sin(minute / 5 + stream) + 0.2 * scale * rng.gauss(0, 1)
            reading = {"stream": f"s{stream}", "time": time_ms - late * 3_600_000, "value": value}
            logs.append(logs.readings, stream % partitions, None, json.dumps(reading).encode(), time_ms)
        if minute % 10 == 0:
            logs.append(logs.readings, 0, None, b"{broken", time_ms)
        if minute % 23 == 7:
            logs.append(logs.readings, 0, control.RESET_KEY, b"s1", time_ms)


def live(logs: Logs, settings: Settings = SETTINGS, version: str = NAIVE, trial: Trial | None = None) -> Live:
    followed = Live(settings, logs, forecaster)  # type: ignore[arg-type]
    followed.follow(version, trial)
    assert followed.look(0)
    return followed


def served(logs: Logs, epochs: list[Epoch], cut: int) -> tuple[float, float, float]:
    """Errors and pairs of the daemon's own pipeline from an offset on, whose pending forecasts of before are dropped there."""
    pipeline = Pipeline(0, epochs, ENGINES)
    records = logs.topics[logs.readings, 0]
    pipeline.process(records[:cut])
    pipeline.table.rows(0, len(pipeline.table))["due_ms"] = 0
    (scores,) = pipeline.process(records[cut:]).scores.values()
    return float(scores.pairs.sum()), float(scores.model.sum()), float(scores.covered.sum())


def test_both_versions_are_scored_as_the_daemon_would_score_them() -> None:
    """From the trial's first offset on: the one as if it had gone on serving, the other as after a swap there, on equal pairs."""
    logs = filled(120)
    cut = 401
    followed = live(logs, trial=Trial(kind="shadow", version=VERSION, against=NAIVE, since={0: cut}))
    against, tried = followed.standing.errors()
    pairs, errors, _ = served(logs, [epoch(NAIVE)], cut)
    assert (against.pairs.sum(), against.model.sum()) == (pairs, pytest.approx(errors, rel=1e-12))
    pairs, errors, covered = served(logs, [epoch(NAIVE), epoch(VERSION, cut)], cut)
    assert (tried.pairs.sum(), tried.model.sum()) == (pairs, pytest.approx(errors, rel=1e-12))
    assert followed.standing.coverage()[1] == pytest.approx(covered / pairs)
    assert against.model.sum() != tried.model.sum()


def test_it_does_not_matter_when_it_looks() -> None:
    """A worker that looked all along and one that was started afterwards find the same trial."""
    trial = Trial(kind="probation", version=VERSION, against=NAIVE, since={0: 300, 1: 290})
    logs = filled(60, partitions=2)
    early = Live(SETTINGS, logs, forecaster)  # type: ignore[arg-type]
    early.follow(VERSION, trial)
    early.look(0)
    for first in range(60, 180, 20):
        extend(logs, range(first, first + 20), partitions=2)
        early.look(0)
    late = live(logs, trial=trial)
    assert late.standing.readings == early.standing.readings > 100
    assert late.standing.errors()[1].model.sum() == pytest.approx(early.standing.errors()[1].model.sum(), rel=1e-12)


def test_a_trial_leaves_the_version_in_force_running() -> None:
    """Passed, the tried version's own rows go on; failed, the others do; either way no row is rebuilt."""
    for version in (VERSION, NAIVE):
        logs = filled(80)
        followed = live(logs, trial=Trial(kind="probation", version=VERSION, against=NAIVE, since={0: 200}))
        followed.follow(version, None)
        (lane,) = followed._partitions[0].lanes
        assert (lane._rows["version"][:5] == forecaster(version).version).all()
        extend(logs, range(80, 100))
        assert followed.look(0)
        assert followed.verdict() is None


def test_drift_of_many_streams_is_seen_and_acted_on_once() -> None:
    """Noise ten times as large in every stream alarms the partition; after a cycle it is quiet."""
    logs = filled(400)
    followed = live(logs)
    assert followed.drifting() == []
    extend(logs, range(400, 500), scale=10.0)
    followed.look(0)
    assert followed.drifting() == [0]
    assert followed.alarmed >= 2
    followed.trained()
    assert followed.drifting() == []


def test_a_broker_that_fails_is_read_on_from_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read twice or left out: the errors are those of a reader that was never disturbed."""
    trial = Trial(kind="shadow", version=VERSION, against=NAIVE, since={0: 100})
    logs = filled(120)
    whole = live(logs, trial=trial)
    calls = iter(range(1000))
    poll = Reader.poll

    def fails(self: Reader, timeout_ms: int) -> object:
        if next(calls) % 2:
            raise Unreachable("no broker")
        return poll(self, timeout_ms)

    disturbed = Live(SETTINGS, logs, forecaster)  # type: ignore[arg-type]
    disturbed.follow(NAIVE, trial)
    monkeypatch.setattr(Reader, "poll", fails)
    failures = 0
    while True:
        try:
            if disturbed.look(0):
                break
        except Unreachable:
            failures += 1
    assert failures > 2
    assert disturbed.standing.readings == whole.standing.readings
    assert np.array_equal(disturbed.standing.errors()[1].model.sum(), whole.standing.errors()[1].model.sum())


def test_a_sample_is_bounded_and_the_same_for_every_worker() -> None:
    """At most so many streams; those with the smallest hashes, in whatever order they come."""
    names = [f"stream-{i}" for i in range(500)]
    kept = []
    for order in (names, names[::-1]):
        sample = Sample(100)
        for _ in range(2):
            chosen = {name for name in order if sample.wants(0, name)}
        assert 50 <= len(sample) <= 100
        assert len(chosen) == len(sample)
        kept.append(chosen)
    small, large = sorted(kept, key=len)
    assert small <= large


def test_only_the_sample_is_followed() -> None:
    """A topic of more streams costs rows and steps of `retrain.live_streams` alone."""
    settings = load(None, {}, ["model.hidden=8", "model.horizon=4", "model.context=16", "retrain.live_streams=4"])
    followed = live(filled(40, streams=20), settings)
    assert len(followed._sample) <= 4
    assert len(followed._partitions[0]._batcher._slots) <= 4
