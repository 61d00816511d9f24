"""kill -9, again and again: what read-committed consumers see is what one uninterrupted replay gives, to the byte."""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import examples
from tests.harness import (
    Daemon,
    Feeder,
    Found,
    Kills,
    Life,
    Reader,
    Swapper,
    Topics,
    assert_exactly_once,
    chaos_kills,
    chaos_seed,
    collect,
    running,
)
from tests.load import Load

PARTITIONS = 3
RECORDS_PER_S = 200
#: Sent while a process starts, which it then finds waiting, and while it serves until it is killed.
RECORDS_WAITING, RECORDS_SERVING = 300, 600
#: A moment inside a transaction is tried so often.
MOST_TRIES = 8
SMALL = {"model.hidden": 16, "model.horizon": 8}
QUICK = {"state.checkpoint_interval_s": 1, "kafka.session_timeout_ms": 6000}

Changes = Callable[[int, random.Random], dict[str, Any]]


def serve_some(life: Life, feeder: Feeder) -> None:
    """Wait for forecasts of this process, with more records under way."""
    life.wait_for("restored", count=PARTITIONS)
    feeder.allow(RECORDS_SERVING)
    life.wait_for("committed", count=3)  # the first may only start an epoch


def strike_serving(daemon: Daemon, feeder: Feeder, rng: random.Random) -> None:
    """At any moment within some seconds of the first forecasts."""
    serve_some(daemon.life, feeder)
    time.sleep(rng.uniform(0.0, 1.5))
    daemon.life.kill()


def strike_transaction(daemon: Daemon, feeder: Feeder, rng: random.Random) -> None:
    """Between the first send of a transaction and its commit: sometimes with nothing sent yet, else with records in the log.

    The process is stopped at a random moment and killed where the broker says that its transaction holds records back.
    """
    life = daemon.life
    serve_some(life, feeder)
    if rng.random() < 0.25:
        feeder.allow(RECORDS_WAITING)
        life.kill_at(lambda each: each.name == "sending")
        life.end(timeout_s=60)
        return
    for _ in range(MOST_TRIES):
        feeder.allow(RECORDS_WAITING)  # a second's worth, so that there are forecasts in the transaction
        life.freeze_at(lambda each: each.name == "committing", delay_s=rng.uniform(0.2, 1.0) * typical_commit_s(life))
        if daemon.topics.hanging():
            break
        life.signal(signal.SIGCONT)
    life.kill()


def typical_commit_s(life: Life) -> float:
    """The median time of this process from `committing` to `committed`."""
    begun, ended = life.named("committing"), life.named("committed")
    return statistics.median(end.at_s - begin.at_s for begin, end in zip(begun, ended, strict=False))


def strike_restore(daemon: Daemon, _feeder: Feeder, rng: random.Random) -> None:
    """While changelogs are read: right after one of the partitions began."""
    life = daemon.life
    number = rng.randrange(PARTITIONS)
    life.kill_at(lambda each: each.name == "restore started" and len(life.named("restore started")) == number)
    life.end(timeout_s=60)


STRIKES = (strike_serving, strike_transaction, strike_restore)


def kill_and_restart(daemon: Daemon, feeder: Feeder, wanted: int, rng: random.Random, changes: Changes) -> Kills:
    """Kill and restart one daemon until enough kills fell where they prove something."""
    kills = Kills()
    life = daemon.start(**changes(0, rng))
    life.wait_for("epoch started", count=PARTITIONS)
    while kills.total < wanted or not kills.enough():
        assert kills.total < 2 * wanted + 10, f"the kills do not fall where they should: {kills}"
        STRIKES[kills.total % len(STRIKES)](daemon, feeder, rng)
        held = daemon.topics.hanging()
        time.sleep(rng.uniform(0.2, 1.0))
        feeder.allow(RECORDS_WAITING)
        heir = daemon.start(**changes(kills.total + 1, rng))
        kills.add(life, [heir], held)
        life = heir
    return kills


def run(
    topics: Topics, directory: Path, settings: dict[str, Any], changes: Changes, weights: Sequence[Path] = ()
) -> tuple[Kills, Found]:
    """One campaign against one daemon, and the verdict."""
    seed = chaos_seed()
    rng = random.Random(seed)
    daemon = Daemon(topics, directory, "a", {**SMALL, **QUICK, "kafka.instance_id": "a", **settings})
    began_s = time.monotonic()
    with running(daemon):
        reader = Reader(topics)
        feeder = Feeder(topics, Load(seed, PARTITIONS), RECORDS_PER_S, most=RECORDS_WAITING)
        kills = kill_and_restart(daemon, feeder, chaos_kills(), rng, changes)
        feeder.stop()
        daemon.life.wait_for("restored", count=PARTITIONS)
        topics.wait_committed()
        assert daemon.stop() == 0, daemon.life.tail()
        found = collect(topics)
        seen = reader.stop(len(found.forecasts))
    print(f"{kills}; {time.monotonic() - began_s:.0f} s")
    assert kills.enough(), kills
    assert found.aborted > 0, "no transaction was cut off after its records had reached the log"
    assert_exactly_once(topics, found, seen, directory, weights)
    return kills, found


def other_policies(_life: int, rng: random.Random) -> dict[str, Any]:
    """Now and then another cap, thinning or treatment of late readings: a new epoch."""
    return {
        "state__max_streams_per_partition": rng.choice([26, 32, 32, 40]),
        "output__emit_every": rng.choice([1, 1, 1, 2, 3]),
        "input__on_late": rng.choice(["drop", "drop", "dead-letter"]),
    }


@pytest.mark.slow
@pytest.mark.broker
def test_kill_9_never_changes_a_digest(topics: Callable[[str, int], Topics], tmp_path: Path) -> None:
    """With the chain engine one lost, doubled, reordered or misplaced state update would change all later digests."""
    _, found = run(topics("chain", PARTITIONS), tmp_path, {"model.kind": "chain"}, other_policies)
    counts = found.judgement.counts
    assert all(counts[name] for name in ("forecast", "dead_letter", "late", "duplicate", "incomplete_start", "thinned")), counts
    assert found.judgement.evicted > 20
    assert found.judgement.restarted > 0
    assert all(len(epochs) > 1 for epochs in found.epochs.values())


@pytest.mark.slow
@pytest.mark.broker
def test_kill_9_never_changes_a_forecast(topics: Callable[[str, int], Topics], tmp_path: Path) -> None:
    """The forecaster: naive at first, another row layout for a while, then weights, then other policies and swaps."""
    engine = examples.settings(hidden=SMALL["model.hidden"], horizon=SMALL["model.horizon"], context=32)
    weights, other = tmp_path / "weights.safetensors", tmp_path / "other.safetensors"
    (first, data), (second, more) = examples.seeded_weights(engine), examples.seeded_weights(engine, 0.5)
    weights.write_bytes(data)
    other.write_bytes(more)
    here, swappers = topics("forecaster", PARTITIONS), []

    def changes(life: int, rng: random.Random) -> dict[str, Any]:
        if life == 1:
            return {"model__context": 40}
        if life == 3:
            return {"model__context": 32, "model__weights": weights}
        if life == 6:  # struck while it serves, so that the second version forecasts for certain
            here.send([(0, second.encode(), more, None), (0, b"current", second.encode(), None)], topic="models")
        if life == 7:
            swappers.append(Swapper(here, [first, "naive", second], rng))
        return other_policies(life, rng) if life > 4 else {}

    gradual = {"model.context": 32, "state.rebuild_share": 1e-3}  # streams go over within seconds
    _, found = run(here, tmp_path, gradual, changes, [weights, other])
    handovers = sum(epoch.document["handover_offsets"] > 0 for epochs in found.epochs.values() for epoch in epochs)
    print(f"{handovers} epochs whose streams went over one by one")
    assert (
        handovers or chaos_kills() < 100
    )  # a swap begins while it serves or at a restart, at once: among few kills there may be none
    versions = {due.model_version for due in found.judgement.forecasts}
    assert versions == {"naive", first, second}
    assert found.judgement.evicted > 0
