"""New weights while the daemon serves: promoted, taken back, refused; forecasts across all of it equal a replay to the byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import EngineSettings
from daemon.brokers.dev import DevBroker
from tests import examples
from tests.harness import Command, Daemon, Feeder, Reader, Topics, assert_exactly_once, collect, running, wait_until
from tests.load import Load

PARTITIONS = 2
NETWORK = {"model.hidden": 16, "model.horizon": 8, "model.context": 32}
#: Streams go over within seconds, however little the small network needs to rebuild a row.
SMALL = {**NETWORK, "state.max_streams_per_partition": 40, "state.rebuild_share": 1e-3}
ENGINE = examples.settings(hidden=16, horizon=8, context=32)


def weights_file(path: Path, engine: EngineSettings, scale: float) -> tuple[Path, str]:
    """A weights file and its version."""
    version, data = examples.seeded_weights(engine, scale)
    path.write_bytes(data)
    return path, version


@pytest.mark.broker
def test_versions_come_and_go_while_readings_arrive(broker: DevBroker, unique: Callable[[str], str], tmp_path: Path) -> None:
    """naive, a version, another, back; a refused one in between changes nothing; every partition begins each by an epoch."""
    topics = Topics.create(broker.bootstrap, unique("swap"), PARTITIONS)
    daemon, recurd = Daemon(topics, tmp_path, "a", {**SMALL, "kafka.instance_id": "a"}), Command({**topics.settings, **NETWORK})
    (one, first), (two, second) = (weights_file(tmp_path / f"{s}.safetensors", ENGINE, s) for s in (1.0, 0.5))
    other, _ = weights_file(tmp_path / "other.safetensors", examples.settings(hidden=8, horizon=8, context=32), 1.0)
    with running(daemon):
        reader = Reader(topics)
        life = daemon.start()
        daemon.wait_ready()
        feeder = Feeder(topics, Load(31, PARTITIONS, streams=48), records_per_s=300)

        def serves(version: str, times: int = 1) -> None:
            begun = lambda: [e for e in life.named("epoch started") if e.fields["model_version"] == version]  # noqa: E731
            wait_until(lambda: len(begun()) == times * PARTITIONS, f"epochs of {version}")
            before = len(life.named("committed"))
            wait_until(lambda: len(life.named("committed")) > before + 10, "commits")

        def swapped(count: int) -> None:
            """Every stream has gone over, so that the next swap is one of its own."""
            wait_until(lambda: f"recurd_swap_seconds_count {count}.0" in daemon.ready("/metrics")[1], "the swap's end")

        serves("naive")
        assert f"{first} published and in force" in recurd("models", "import", one, "--promote")
        serves(first)
        swapped(1)
        assert recurd("models", "import", two) == f"{second} published\n"
        assert "hidden = 8" in recurd.refused("models", "import", other)
        topics.send([(0, b"current", b"no-such-version", None)], topic="models")
        life.wait_for("model refused")
        assert f"{second} is in force" in recurd("models", "promote", second)
        serves(second)
        swapped(2)
        assert f"{first} is in force" in recurd("models", "rollback")
        serves(first, times=2)
        shown = recurd("models", "list")
        assert [line.split()[:2] for line in shown.splitlines() if line.startswith(first)] == [[first, "yes"]]
        recurd("models", "export", second, "--out", tmp_path / "copy.safetensors")
        assert (tmp_path / "copy.safetensors").read_bytes() == two.read_bytes()
        assert 'recurd_models_refused_total{reason="absent"} 1.0' in daemon.ready("/metrics")[1]
        swapped(3)
        feeder.stop()
        topics.wait_committed()
        assert daemon.stop() == 0, life.tail()
        found = collect(topics)
        seen = reader.stop(len(found.forecasts))
    assert {due.model_version for due in found.judgement.forecasts} == {"naive", first, second}
    assert all(len(epochs) == 4 for epochs in found.epochs.values())
    assert all(any(epoch.document["handover_offsets"] > 100 for epoch in epochs) for epochs in found.epochs.values())
    assert_exactly_once(topics, found, seen, tmp_path, [one, two])
