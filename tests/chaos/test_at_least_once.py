"""At least once: after a crash the readings of one checkpoint interval are sent again, identically; nothing is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import checker
from tests.harness import Command, Daemon, Feeder, Topics, chaos_kills, chaos_seed, collect, running, sound
from tests.load import Load

PARTITIONS = 2
RECORDS_PER_S = 250
SETTINGS = {
    "model.kind": "chain",
    "kafka.delivery": "at_least_once",
    "kafka.instance_id": "a",
    "kafka.session_timeout_ms": 6000,
    "state.checkpoint_interval_s": 1.5,
    "state.max_streams_per_partition": 40,
}


@pytest.mark.slow
@pytest.mark.broker
def test_kill_9_loses_nothing_and_repeats_identically(topics: Callable[[str, int], Topics], tmp_path: Path) -> None:
    """Every forecast is there, every repetition is equal to the first to the byte, and there are repetitions."""
    seed = chaos_seed()
    rng = random.Random(seed)
    place = topics("repeats", PARTITIONS)
    daemon = Daemon(place, tmp_path, "a", SETTINGS)
    kills = max(4, chaos_kills() // 4)
    began_s = time.monotonic()
    with running(daemon):
        daemon.start().wait_for("epoch started", count=PARTITIONS)
        feeder = Feeder(place, Load(seed, PARTITIONS, streams=48), RECORDS_PER_S)
        for _ in range(kills):
            daemon.life.wait_for("committed", count=PARTITIONS)
            time.sleep(rng.uniform(0.0, 1.5))
            daemon.life.kill()
            time.sleep(rng.uniform(0.2, 1.0))
            daemon.start()
        feeder.stop()
        daemon.life.wait_for("restored", count=PARTITIONS)
        place.wait_committed()
        assert daemon.stop() == 0, daemon.life.tail()
        found = collect(place)
    repeated = len(found.forecasts) - len({checker.source_of(record) for record in found.forecasts})
    print(f"{found}\n{kills} kills, {repeated} forecasts sent again; {time.monotonic() - began_s:.0f} s")
    assert repeated > 0, "no kill fell between two checkpoints"
    sound(checker.check_at_least_once(found.judgement, found.forecasts, found.dead_letters))
    sound(checker.check_dead_letter_bytes(found.readings, found.dead_letters))
    audited = Command({**place.settings, "kafka.delivery": "at_least_once"})("audit").splitlines()
    assert f"{repeated} forecasts were repeated, identically, as delivery at least once allows" in audited
    assert audited[-1].endswith("are equal, byte for byte")
