"""Two daemons share the partitions while they come, go, are killed and are frozen: nobody who reads can tell."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.errors import EXIT_RESTART
from tests.harness import (
    Daemon,
    Feeder,
    Reader,
    Topics,
    assert_exactly_once,
    chaos_seed,
    collect,
    running,
    wait_until,
)
from tests.load import Load

PARTITIONS = 4
RECORDS_PER_S = 200
SESSION_S = 6
TRANSACTION_S = 10
SETTINGS = {
    "model.kind": "chain",
    "state.checkpoint_interval_s": 1,
    "state.max_streams_per_partition": 24,
    "kafka.session_timeout_ms": SESSION_S * 1000,
    "kafka.transaction_timeout_ms": TRANSACTION_S * 1000,
}


def wait_works(daemon: Daemon, commits: int = 2) -> None:
    """Wait until a daemon commits again from now on."""
    daemon.life.wait_for("committed", count=len(daemon.life.named("committed")) + commits)


def freeze_in_transaction(daemon: Daemon, rng: random.Random) -> None:
    """SIGSTOP with a transaction open."""
    life, before = daemon.life, len(daemon.life.named("sending"))
    wait_until(lambda: len(life.named("sending")) > before, "a transaction", every_s=0.0005)
    time.sleep(rng.uniform(0.0, 0.02))
    life.signal(signal.SIGSTOP)


def wait_takeover(heir: Daemon, partitions: set[int]) -> None:
    """Wait until the heir serves all of these partitions."""

    def owned() -> set[int]:
        held: set[int] = set()
        for event in list(heir.life.events):
            if event.name in ("assigned", "revoked", "lost"):
                numbers = {int(number) for number in str(event.fields["partitions"]).split(",") if number}
                held = held | numbers if event.name == "assigned" else held - numbers
        return held

    wait_until(lambda: owned() >= partitions, f"{heir.name} takes over {partitions}")
    wait_works(heir)


def supervise(*daemons: Daemon) -> list[str]:
    """Start again what has ended with the code that asks for it; who that was."""
    ended = [daemon for daemon in daemons if not daemon.life.running()]
    for daemon in ended:
        assert daemon.life.end() == EXIT_RESTART, daemon.life.tail()
        daemon.start()
    return [daemon.name for daemon in ended]


@pytest.mark.slow
@pytest.mark.broker
def test_rebalances_under_load(topics: Callable[[str, int], Topics], tmp_path: Path) -> None:
    """Join, leave, kill -9, and a zombie that wakes before and after its transaction has timed out."""
    seed = chaos_seed()
    rng = random.Random(seed)
    place = topics("two", PARTITIONS)
    a, b = (Daemon(place, tmp_path, name, SETTINGS) for name in "ab")
    began_s = time.monotonic()
    with running(a, b):
        reader = Reader(place)
        a.start().wait_for("epoch started", count=PARTITIONS)
        feeder = Feeder(place, Load(seed, PARTITIONS), RECORDS_PER_S)
        b.start().wait_for("restored")
        wait_works(b)
        wait_works(a)
        assert b.stop() == 0, b.life.tail()
        b.start().wait_for("restored")
        wait_works(b)
        b.life.kill()
        wait_takeover(a, set(range(PARTITIONS)))
        b.start().wait_for("restored")
        for asleep_s in (SESSION_S + 2, TRANSACTION_S + 3):
            wait_works(a)
            wait_works(b)
            freeze_in_transaction(a, rng)
            frozen_s = time.monotonic()
            wait_takeover(b, set(range(PARTITIONS)))
            time.sleep(max(0.0, asleep_s - (time.monotonic() - frozen_s)))
            a.life.signal(signal.SIGCONT)
            a.life.wait_for("restored", count=len(a.life.named("restored")) + 1)
        wait_works(a)
        feeder.stop()
        place.wait_committed()
        assert (a.stop(), b.stop()) == (0, 0)
        found = collect(place)
        seen = reader.stop(len(found.forecasts))
    moves = sum(len(life.named("assigned")) for daemon in (a, b) for life in daemon.lives)
    print(f"{moves} assignments, {len(b.lives)} lives of b, 1 kill, 2 zombies; {time.monotonic() - began_s:.0f} s")
    assert len(a.lives) == 1, "a recovers from both freezes without a restart"
    assert moves >= 7
    assert_exactly_once(place, found, seen, tmp_path)


@pytest.mark.slow
@pytest.mark.broker
def test_static_members_under_load(topics: Callable[[str, int], Topics], tmp_path: Path) -> None:
    """Static members keep their partitions through kill -9 and restart; one that is replaced while frozen is fenced."""
    seed = chaos_seed()
    rng = random.Random(seed)
    place = topics("static", PARTITIONS)
    settings = {**SETTINGS, "kafka.session_timeout_ms": 30_000}  # longer than any restart takes
    a, b = (Daemon(place, tmp_path, name, {**settings, "kafka.instance_id": name}) for name in "ab")
    twin = Daemon(place, tmp_path, "a-twin", {**settings, "kafka.instance_id": "a"})
    began_s = time.monotonic()
    with running(a, b, twin):
        reader = Reader(place)
        a.start()
        b.start()
        feeder = Feeder(place, Load(seed, PARTITIONS), RECORDS_PER_S)
        for daemon in (a, b):
            wait_works(daemon)
        restored = len(b.life.named("assigned"))
        for _ in range(3):
            wait_works(a)
            a.life.kill()
            a.start().wait_for("restored", count=2)
        assert len(b.life.named("assigned")) == restored, "b was disturbed by the restarts of a"
        wait_works(a)
        freeze_in_transaction(a, rng)
        twin.start().wait_for("restored")
        wait_works(twin)
        a.life.signal(signal.SIGCONT)
        restarts = fence_out(a, twin)
        feeder.stop()
        place.wait_committed()
        assert (twin.stop(), b.stop()) == (0, 0)
        found = collect(place)
        seen = reader.stop(len(found.forecasts))
    print(f"3 kills, 1 replaced zombie, restarts of the twin: {restarts}; {time.monotonic() - began_s:.0f} s")
    assert_exactly_once(place, found, seen, tmp_path)


def fence_out(zombie: Daemon, twin: Daemon) -> int:
    """Wait until the replaced process has ended with 75, restarting its twin where the quarrel ended that one too."""
    restarts = 0
    deadline_s = time.monotonic() + 60
    while zombie.life.running():
        assert time.monotonic() < deadline_s, f"the replaced process goes on:\n{zombie.life.tail()}"
        restarts += len(supervise(twin))
        time.sleep(0.1)
    assert zombie.life.end() == EXIT_RESTART, zombie.life.tail()
    time.sleep(1)
    restarts += len(supervise(twin))
    wait_works(twin)
    return restarts
