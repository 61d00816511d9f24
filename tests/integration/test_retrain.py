"""recurd retrain: reads the topic, trains, judges, puts what is better in force; a daemon that serves follows it."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from config.settings import load
from daemon import retrain, weights
from daemon.brokers import connect
from daemon.brokers.dev import DevBroker
from daemon.weights import ModelStore
from models import artifacts
from tests import examples
from tests.harness import Command, Daemon, Event, Life, Topics, environment, running, wait_until

HOUR_MS = 3_600_000
STREAMS, READINGS = 4, 500
SMALL = {"model.hidden": 8, "model.horizon": 4, "model.context": 32, "retrain.nice": 0}


def seasonal(first_ms: int) -> list[tuple[int, bytes | None, bytes, int]]:
    """Hourly readings with a day's course and a little noise, which the last value forecasts badly."""
    rng = random.Random(5)
    records = []
    for hour in range(READINGS):
        for stream in range(STREAMS):
            value = 10 * math.sin(2 * math.pi * (hour + 5 * stream) / 24) + rng.gauss(0, 0.5)
            time_ms = first_ms + hour * HOUR_MS
            text = json.dumps({"stream": f"s{stream}", "time": time_ms, "value": round(value, 3)})
            records.append((stream % 2, None, text.encode(), time_ms))
    return records


@pytest.mark.broker
def test_a_better_candidate_is_put_in_force_and_served(broker: DevBroker, unique: Callable[[str], str], tmp_path: Path) -> None:
    """Too few readings: kept. Enough: promoted, with its parent and scores. Once more: nothing better. The daemon follows."""
    topics = Topics.create(broker.bootstrap, unique("retrain"), 2)
    command = Command({**topics.settings, **SMALL, "retrain.steps": 150})
    records = seasonal(int(time.time() * 1000) - READINGS * HOUR_MS)
    topics.send(records[:20])
    daemon = Daemon(topics, tmp_path, "a", {**SMALL, "kafka.instance_id": "a"})
    with running(daemon):
        life = daemon.start()
        daemon.wait_ready()
        assert command("retrain", "--once").startswith("too_few: 16 readings are not enough")
        topics.send(records[20:])
        said = command("retrain", "--once")
        assert said.startswith("promoted: "), said
        version = said.split("; ")[1].split()[0]
        facts = json.loads(command("models", "show", version))
        assert facts["in_force"] is True
        assert facts["training"]["parent"] == "naive"
        assert facts["training"]["scores"]["mae"] < facts["training"]["scores"]["naive_mae"]
        assert command("retrain", "--once").startswith("kept: ")
        wait_until(lambda: [e for e in life.named("epoch started") if e.fields["model_version"] == version], "the swap")
        topics.wait_committed()
        assert daemon.stop() == 0, life.tail()


@pytest.mark.broker
def test_the_worker_is_kept_running_and_never_outlives_the_daemon(
    broker: DevBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """It brings weights in force by itself; killed, it is started again; a daemon that is killed takes it along."""
    topics = Topics.create(broker.bootstrap, unique("worker"), 2)
    wanted = {"retrain.supervised": "true", "retrain.steps": 100, "kafka.instance_id": "a", "input.max_gap_s": 604800}
    daemon = Daemon(topics, tmp_path, "a", {**SMALL, **wanted})
    topics.send(seasonal(int(time.time() * 1000) - READINGS * HOUR_MS))
    with running(daemon):
        life = daemon.start()
        wait_until(lambda: [e for e in life.named("epoch started") if e.fields["model_version"] != "naive"], "weights of its own")
        worker = life.named("worker started")[0].fields["process"]
        os.kill(worker, signal.SIGKILL)
        ended = life.wait_for("worker ended")
        assert ended.fields["exit_code"] == -signal.SIGKILL
        again = life.wait_for("worker started", count=2).fields["process"]
        assert life.running()
        life.kill()
        wait_until(lambda: not alive(again), "the end of the worker", timeout_s=10)


@pytest.mark.broker
def test_a_version_that_is_clearly_worse_live_is_rolled_back(
    broker: DevBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """Bad weights on probation: the worker beside the daemon puts the version before in force again and blocks them."""
    topics = Topics.create(broker.bootstrap, unique("probation"), 2)
    given = {**SMALL, "retrain.steps": 100, "retrain.probation_readings": 100, "input.max_gap_s": 604800}
    command = Command({**topics.settings, **given})
    records = seasonal(int(time.time() * 1000) - READINGS * HOUR_MS)
    topics.send(records[: 440 * STREAMS])
    good = command("retrain", "--once").split("; ")[1].split()[0]
    bad = put_on_probation(topics, command, good, tmp_path)
    assert f"on trial: {bad} (probation), beside {good}\n" in command("models", "list")
    kept = {"retrain.supervised": "true", "retrain.min_gain": 0.9, "kafka.instance_id": "a"}  # its cycles promote nothing
    daemon = Daemon(topics, tmp_path, "a", {**given, **kept})
    with running(daemon):
        life = daemon.start()
        daemon.wait_ready()
        topics.wait_committed()
        topics.send(records[440 * STREAMS :])
        ended = life.wait_for("rolled back").fields
        assert (ended["version"], ended["against"], ended["kind"]) == (bad, good, "probation")
        assert ended["error_tried"] > 1.2 * ended["error_against"]
        wait_until(lambda: [e.fields["model_version"] for e in life.named("epoch started")][-2:] == [good, good], "the way back")
        assert json.loads(command("models", "show", good))["in_force"] is True
        listed = command("models", "list")
        assert f"blocked: {bad}, which failed its trial\n" in listed
        assert "on trial" not in listed
        shown = daemon.ready("/metrics")[1]
        assert 'recurd_trials_total{kind="probation",outcome="failed"} 1.0' in shown
        assert daemon.stop() == 0, life.tail()


@pytest.mark.broker
def test_a_candidate_in_shadow_is_promoted_and_passes_probation(
    broker: DevBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """It serves nothing until it has been better on the live topic, and is kept after that; both by the worker alone."""
    topics = Topics.create(broker.bootstrap, unique("shadow"), 2)
    given = {**SMALL, "retrain.steps": 100, "input.max_gap_s": 604800, "kafka.instance_id": "a", "retrain.supervised": "true"}
    trials = {"retrain.shadow_readings": 100, "retrain.probation_readings": 100}
    daemon = Daemon(topics, tmp_path, "a", {**given, **trials})
    records = seasonal(int(time.time() * 1000) - READINGS * HOUR_MS)
    topics.send(records[: 380 * STREAMS])
    with running(daemon):
        life = daemon.start()
        on_trial = lambda: [e for e in life.named("cycle") if e.fields["outcome"] == "shadow"]  # noqa: E731
        wait_until(on_trial, "a candidate on trial")
        assert {e.fields["model_version"] for e in life.named("epoch started")} <= {"naive"}
        topics.send(records[380 * STREAMS : 440 * STREAMS])
        shadow = life.wait_for("trial passed").fields
        assert (shadow["kind"], shadow["against"]) == ("shadow", "naive")
        assert shadow["error_tried"] < shadow["error_against"]
        wait_until(lambda: len(served(life, shadow["version"])) == 2, "the swap of both partitions")
        topics.send(records[440 * STREAMS :])
        probation = life.wait_for("trial passed", count=2).fields
        assert (probation["kind"], probation["version"]) == ("probation", shadow["version"])
        assert daemon.stop() == 0, life.tail()


def served(life: Life, version: str) -> list[Event]:
    return [event for event in life.named("epoch started") if event.fields["model_version"] == version]


@pytest.mark.broker
def test_workers_that_are_killed_at_any_moment_leave_a_sound_version(
    broker: DevBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """Two of a group at once, both killed, again and again: what is in force is whole and was judged; the last one brings it."""
    topics = Topics.create(broker.bootstrap, unique("kills"), 2)
    settings = {**topics.settings, **SMALL, "retrain.steps": 60, "retrain.every_s": 1, "retrain.port": 0}
    topics.send(seasonal(int(time.time() * 1000) - READINGS * HOUR_MS))
    command, rng = Command(settings), random.Random(11)
    command("models", "list")  # makes the topics
    for _ in range(4):
        workers = [subprocess.Popen(command.line("retrain"), stderr=subprocess.DEVNULL, env=environment()) for _ in range(2)]
        time.sleep(rng.uniform(4, 16))
        for worker in workers:
            worker.kill()
            worker.wait()
        in_force(topics)
    last = subprocess.Popen(command.line("retrain"), stderr=subprocess.PIPE, text=True, env=environment())
    assert last.stderr is not None
    try:
        assert "http listening" in last.stderr.readline()  # from here on a signal asks it to end
        wait_until(lambda: in_force(topics), "weights", every_s=1)
    finally:
        last.terminate()
        last.communicate(timeout=120)
    assert last.returncode == 0


def in_force(topics: Topics) -> str | None:
    """The version in force as a new daemon would find it: there, whole, and of these settings."""
    settings = load(None, {}, [f"{key}={value}" for key, value in {**topics.settings, **SMALL}.items()])
    with closing(ModelStore(settings, connect(settings))) as store:
        store.refresh()
        if store.current is not None:
            artifacts.load(store.versions[store.in_force()], settings.engine())
        return store.current


@pytest.mark.broker
def test_a_full_disk_costs_log_lines_and_no_more(broker: DevBroker, unique: Callable[[str], str]) -> None:
    """The worker writes no file; where its log and its report cannot be written, what it publishes is whole all the same."""
    topics = Topics.create(broker.bootstrap, unique("full"), 2)
    command = Command({**topics.settings, **SMALL, "retrain.steps": 60})
    topics.send(seasonal(int(time.time() * 1000) - READINGS * HOUR_MS))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command.line("retrain", "--once"), stdout=full, stderr=full, env=environment(), check=False)
    assert done.returncode == 1
    assert in_force(topics) is not None


def put_on_probation(topics: Topics, command: Command, before: str, directory: Path) -> str:
    """Weights of no use in force, as if the worker had promoted them just now."""
    settings = load(None, {}, [f"{key}={value}" for key, value in {**topics.settings, **SMALL}.items()])
    version, data = examples.seeded_weights(settings.engine())
    (directory / "bad.safetensors").write_bytes(data)
    command("models", "import", directory / "bad.safetensors")
    client = connect(settings)
    weights.publish(settings, client, None, version, "retrain", retrain.probation(settings, client, version, before))
    return version


def alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1]
    except FileNotFoundError:
        return False
