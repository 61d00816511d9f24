"""Every arrangement through a real Kafka: served, killed in the middle, restored, and equal to one uninterrupted replay."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import Settings, load
from daemon import audit, record, replay
from daemon.brokers.dev import DevBroker
from models import artifacts
from models.arithmetic import seeded_network
from tests import checker
from tests.harness import Daemon, Feeder, Topics, running, sound, wait_until
from tests.load import MAX_BYTES, MAX_ELEMENTS, MAX_GAP_S, Load

PARTITIONS = 2
RECORDS = 600
SHAPE = ["model.hidden=16", "model.horizon=4", "state.max_streams_per_partition=40"]
KINDS = {
    "many_to_many": ["model.cell=elman", "model.layers=2"],
    "encoder_decoder": ["model.cell=gru"],
    "many_to_one": ["model.predicts=class", 'model.labels=["idle", "busy"]', "model.session_gap_s=60.5"],
    "one_to_many": ["model.scenarios=3"],
    "smoother": ["model.lag=3"],
}
FIELDS = {"many_to_one": "classes", "one_to_many": "scenarios", "smoother": "quantiles"}


def overrides(topics: Topics, kind: str) -> list[str]:
    common = {**topics.settings, "input.max_bytes": MAX_BYTES, "input.max_elements": MAX_ELEMENTS, "input.max_gap_s": MAX_GAP_S}
    return [*(f"{key}={value}" for key, value in common.items()), f"model.kind={kind}", *SHAPE, *KINDS[kind]]


def weights(settings: Settings, file: Path) -> Path:
    """A file of fixed weights."""
    engine = settings.engine()
    file.write_bytes(artifacts.dump(seeded_network(engine), artifacts.Manifest.of(engine)))
    return file


def daemon(topics: Topics, kind: str, file: Path) -> Daemon:
    chosen = dict(override.split("=", 1) for override in (f"model.kind={kind}", *SHAPE, *KINDS[kind]))
    own = {"model.weights": file, "kafka.instance_id": "a", "state.checkpoint_interval_s": 0.5}
    return Daemon(topics, file.parent, kind, {**chosen, **own})


@pytest.mark.broker
def test_a_kill_in_the_middle_changes_no_byte(broker: DevBroker, unique: Callable[[str], str], tmp_path: Path) -> None:
    """One input, a group for each kind, all daemons killed while they work: what was sent is what replay and audit say."""
    readings = Topics.create(broker.bootstrap, unique("zoo"), PARTITIONS)
    groups = {kind: readings.of_group(unique(kind)) for kind in KINDS}
    settings = {kind: load(None, {}, overrides(groups[kind], kind)) for kind in KINDS}
    files = {kind: weights(settings[kind], tmp_path / f"{kind}.safetensors") for kind in KINDS}
    daemons = {kind: daemon(groups[kind], kind, files[kind]) for kind in KINDS}
    with running(*daemons.values()):
        for each in daemons.values():
            each.start()
        for each in daemons.values():
            each.wait_ready()
        feeder = Feeder(readings, Load(21, PARTITIONS, streams=48), records_per_s=400, most=RECORDS)
        wait_until(lambda: feeder.sent == RECORDS, "the first half sent")
        for group in groups.values():
            group.wait_committed()
        feeder.allow(RECORDS)
        wait_until(lambda: feeder.sent > 1.4 * RECORDS, "half of the second half sent")
        for each in daemons.values():
            each.life.kill()
        for each in daemons.values():
            each.start()
        feeder.join()
        for each in daemons.values():
            each.wait_ready()
        for group in groups.values():
            group.wait_committed()
        assert all(each.stop() == 0 for each in daemons.values())
    assert sum(each.lives[1].catch_up() for each in daemons.values()) > 0
    for kind, group in groups.items():
        judge(kind, settings[kind], group, files[kind], tmp_path)


def judge(kind: str, settings: Settings, group: Topics, file: Path, directory: Path) -> None:
    """Sent against replayed and audited, byte for byte."""
    recording, out, said = directory / f"{kind}.jsonl", directory / f"{kind}.forecasts.jsonl", list[str]()
    record.run(settings, None, recording)
    replay.run(settings, recording, [file], out, with_source=True, say=said.append)
    sent = group.read("forecasts")
    with out.open("rb") as lines:
        sound(checker.check_replay(checker.replayed(lines), sent))
    assert len(sent) > RECORDS / 20
    assert all((FIELDS.get(kind, "targets")).encode() in (each.value or b"") for each in sent)
    began_s = time.monotonic()
    assert audit.run(settings, say=said.append) == 0, said
    assert f"{len(sent)} forecasts of " in said[-1], said
    assert said[-1].endswith("are equal, byte for byte")
    print(f"{kind}: {len(sent)} records equal; {said[0]}; audited in {time.monotonic() - began_s:.1f} s")
