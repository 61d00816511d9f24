"""Record, replay and audit of a live run with a crash, a rebalance and a swap: equal, from the topics and from recordings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.brokers.dev import DevBroker
from tests import examples
from tests.checker import Raw
from tests.harness import Command, Daemon, Feeder, Reader, Topics, assert_exactly_once, collect, running, wait_until
from tests.load import Load

PARTITIONS = 2
NETWORK = {"model.hidden": 16, "model.horizon": 8, "model.context": 32}
SETTINGS = {
    **NETWORK,
    "state.max_streams_per_partition": 40,
    "state.checkpoint_interval_s": 1,
    "kafka.session_timeout_ms": 6000,
    "kafka.transaction_timeout_ms": 6000,
}


def wait_commits(daemon: Daemon, commits: int = 5) -> None:
    """Wait until a daemon has committed so often from now on."""
    daemon.life.wait_for("committed", count=len(daemon.life.named("committed")) + commits)


@pytest.mark.broker
@pytest.mark.slow
def test_round_trip_of_a_live_run(broker: DevBroker, unique: Callable[[str], str], tmp_path: Path) -> None:
    """What was served through a crash, a rebalance and a swap is what is derived again; one sent twice is named."""
    topics = Topics.create(broker.bootstrap, unique("audit"), PARTITIONS)
    a, b = (Daemon(topics, tmp_path, name, SETTINGS) for name in "ab")
    recurd = Command({**topics.settings, **NETWORK})
    version, weights = examples.seeded_weights(examples.settings(hidden=16, horizon=8, context=32))
    (tmp_path / "weights.safetensors").write_bytes(weights)
    with running(a, b):
        reader = Reader(topics)
        a.start().wait_for("epoch started", count=PARTITIONS)
        feeder = Feeder(topics, Load(37, PARTITIONS, streams=48), records_per_s=200)
        wait_commits(a)
        a.life.kill()  # a crash
        a.start().wait_for("restored", count=PARTITIONS)
        wait_commits(a)
        b.start().wait_for("restored")  # a rebalance
        wait_commits(b)
        live = recurd("audit").splitlines()[-1]  # of a running daemon: up to what is committed
        assert live.endswith("are equal, byte for byte")
        recurd("models", "import", tmp_path / "weights.safetensors", "--promote")  # a swap
        begun = lambda: [e for d in (a, b) for e in d.life.named("epoch started") if e.fields["model_version"] == version]  # noqa: E731
        wait_until(lambda: len(begun()) == PARTITIONS, "the swap")
        wait_commits(a)
        wait_commits(b)
        feeder.stop()
        topics.wait_committed()
        assert (a.stop(), b.stop()) == (0, 0)
        found = collect(topics)
        seen = reader.stop(len(found.forecasts))
    assert_exactly_once(topics, found, seen, tmp_path, [tmp_path / "weights.safetensors"])
    streams = {(record.partition, record.key) for record in found.forecasts}
    verdict = f"{len(found.forecasts)} forecasts of {len(streams)} streams are equal, byte for byte"
    assert recurd("audit").splitlines()[-1] == verdict

    files = {name: tmp_path / f"{name}.jsonl.zst" for name in ("readings", "forecasts", "models")}
    for name, path in files.items():
        recurd("record", "--topic", topics.name(name), "--out", path)
    offline = Command({"kafka.bootstrap_servers": "127.0.0.1:1"})  # nobody answers there
    given = [word for name, path in files.items() for word in (f"--{name}", path)]
    assert offline("audit", *given).splitlines()[-1] == verdict

    fake_one_more(topics, found.forecasts[-1])
    doubled = recurd.failed("audit").splitlines()
    last = found.forecasts[-1]
    where = f"doubled: {topics.name('forecasts')}[{last.partition}]@"
    assert doubled[0].startswith(where), doubled
    assert f", stream {json.loads(last.value or b'')['stream']}: the forecast of " in doubled[0]
    assert doubled[-1].startswith("1 DIFFERENCES (1 doubled)")


def fake_one_more(topics: Topics, last: Raw) -> None:
    """A forecast is sent once more, as a program that does not belong here would."""
    headers = [("source", (last.header("source") or "").encode())]
    topics.send([(last.partition, last.key, last.value, None, headers)], topic="forecasts")
