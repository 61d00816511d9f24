"""`recurd models list | show | promote | rollback | import | export`: what the `models` topic holds, and what is in force.

Promoting writes one record; every daemon of the group follows it (`daemon.swap`). Artifacts are checked before they are written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from config.settings import Settings
from daemon import epochs, topics, weights
from daemon.brokers import connect
from daemon.brokers.port import Broker
from daemon.codec import format_time
from daemon.errors import OperatorError
from daemon.trials import Trial
from daemon.weights import ModelStore
from models import artifacts, kinds
from models.forecaster import NAIVE

Say = Callable[[str], None]


def list_versions(settings: Settings, say: Say) -> int:
    """Say a line for every version: whether it is in force, bytes, last reading trained on, scores, parent; then the trials."""
    with _store(settings) as (_, store):
        say(f"{'version':<16} {'in force':<8} {'bytes':>10} {'trained until':<24} {'pinball':>8} {'parent':<16}")
        for version, data in sorted(store.versions.items()):
            training = artifacts.manifest(data).training
            until = format_time(training.last_time_ms) if training.last_time_ms is not None else "-"
            pinball = training.scores.get("pinball")
            shown = "-" if pinball is None else f"{pinball:.4f}"
            mark = "yes" if version == store.current else ""
            say(f"{version:<16} {mark:<8} {len(data):>10} {until:<24} {shown:>8} {training.parent or '-':<16}")
        if store.current in (None, NAIVE):
            say(f"in force: {NAIVE}")
        trial = Trial.from_bytes(store.trial)
        if trial:
            say(f"on trial: {trial.version} ({trial.kind}), beside {trial.against}")
        for version in sorted(store.blocked):
            say(f"blocked: {version}, which failed its trial")
    return 0


def show(settings: Settings, version: str, say: Say) -> int:
    """Say a version's manifest as JSON."""
    with _store(settings) as (_, store):
        manifest = artifacts.manifest(_known(store, version))
        say(json.dumps({"version": version, "in_force": version == store.current, **manifest.model_dump(mode="json")}, indent=2))
    return 0


def promote(settings: Settings, version: str, say: Say) -> int:
    """Put a version in force; `naive` is one too."""
    _refuse_unless_replaceable(settings)
    with _store(settings) as (broker, store):
        if version != NAIVE:
            artifacts.load(_known(store, version), settings.engine())
        return _put_in_force(settings, broker, store, version, say)


def rollback(settings: Settings, say: Say) -> int:
    """Put the version in force that forecast before this one, by the epoch log."""
    _refuse_unless_replaceable(settings)
    with _store(settings) as (broker, store):
        version = _before(settings, broker, store.current or NAIVE)
        if version != NAIVE:
            artifacts.load(_known(store, version), settings.engine())
        return _put_in_force(settings, broker, store, version, say)


def import_file(settings: Settings, file: Path, promoted: bool, say: Say) -> int:
    """Publish a weights file, and put it in force where `promoted`."""
    if promoted:
        _refuse_unless_replaceable(settings)
    data = weights.read_file(file)
    artifacts.load(data, settings.engine())
    with _store(settings) as (broker, store):
        version = artifacts.version_of(data)
        weights.publish(settings, broker, data, current=version if promoted else store.current or NAIVE)
        say(f"{version} published{' and in force' if promoted else ''}")
    return 0


def export(settings: Settings, version: str, out: Path, say: Say) -> int:
    """Write a version's artifact to a file."""
    with _store(settings) as (_, store):
        data = _known(store, version)
        out.write_bytes(data)
        say(f"{len(data)} bytes in {out}")
    return 0


def _refuse_unless_replaceable(settings: Settings) -> None:
    if not kinds.replaceable(settings.model.kind):
        raise OperatorError(
            f'model.kind = "{settings.model.kind}" keeps the weights that it began with: only "forecaster" changes them while it '
            "serves. Take a new kafka.group_id for other weights."
        )


@contextmanager
def _store(settings: Settings) -> Iterator[tuple[Broker, ModelStore]]:
    broker = connect(settings)
    topics.ensured(settings, broker)
    with closing(ModelStore(settings, broker)) as store:
        store.refresh()
        yield broker, store


def _known(store: ModelStore, version: str) -> bytes:
    data = store.versions.get(version)
    if data is None:
        raise OperatorError(f"The models topic holds no version {version!r}: `recurd models list` says which it holds.")
    return data


def _put_in_force(settings: Settings, broker: Broker, store: ModelStore, version: str, say: Say) -> int:
    if version == (store.current or NAIVE):
        say(f"{version} is in force already")
        return 0
    weights.publish(settings, broker, None, current=version)
    say(f"{version} is in force, {store.current or NAIVE} was")
    return 0


def _before(settings: Settings, broker: Broker, current: str) -> str:
    """The newest other version among the epochs."""
    with closing(broker.reader()) as reader:
        found = epochs.by_partition(weights.read_all(reader, settings.topic("epochs")))
    for part in found.values():
        others = [epoch.model_version for epoch in part if epoch.model_version != current]
        if others:
            return others[-1]
    raise OperatorError(f"No other version than {current} has ever forecast: promote one with `recurd models promote VERSION`.")
