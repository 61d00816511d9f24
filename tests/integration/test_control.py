"""Operating a live daemon: a stream is reset through the log, dead letters are listed and retried; an audit agrees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.brokers.dev import DevBroker
from tests import checker
from tests.examples import MINUTE_MS, T0_MS
from tests.harness import Command, Daemon, Topics, collect, running, sound, wait_until

NETWORK = {"model.kind": "chain", "state.checkpoint_interval_s": 0.2, "kafka.session_timeout_ms": 6000}


def reading(stream: str, minute: int, value: object = 1.0) -> tuple[int, bytes, bytes, int]:
    time_ms = T0_MS + minute * MINUTE_MS
    return 0, stream.encode(), json.dumps({"stream": stream, "time": time_ms, "value": value}).encode(), time_ms


@pytest.mark.broker
def test_reset_and_retry(broker: DevBroker, unique: Callable[[str], str], tmp_path: Path) -> None:
    """A reset lets earlier readings in, across a crash; late ones that were dead letters before it are retried after it, once."""
    topics = Topics.create(broker.bootstrap, unique("control"), 1)
    settings = {**NETWORK, "input.on_late": "dead-letter"}
    daemon, recurd = Daemon(topics, tmp_path, "a", settings), Command({**topics.settings, **NETWORK})
    with running(daemon):
        daemon.start().wait_for("epoch started")
        topics.send([*(reading("pump", minute) for minute in range(100, 110)), reading("other", 100)])
        topics.send([reading("pump", minute) for minute in (5, 6)])  # late
        topics.send([(0, b"pump", b"{", T0_MS)])
        wait_until(lambda: len(topics.read("dead-letters")) == 3, "dead letters")
        listed = recurd("dead-letters", "list", "--reason", "late").splitlines()
        assert ["  late  " in line for line in listed] == [True, True, False]
        assert listed[-1] == "2 dead letters (late 2)"
        assert "all 1 partitions" in recurd("state", "reset", "pump")
        topics.wait_committed()
        daemon.life.kill()
        daemon.start().wait_for("restored")
        assert recurd("dead-letters", "retry", "--reason", "late").startswith("2 records sent")
        assert recurd("dead-letters", "retry", "--reason", "late").startswith("0 records sent")
        assert recurd("dead-letters", "list").splitlines()[-1] == "1 dead letters (syntax 1)"
        wait_until(lambda: len(topics.read("forecasts")) == 13, "forecasts of what was retried")
        # The marker of the retry's transaction, which ends the input, is no record that waits.
        wait_until(lambda: 'recurd_consumer_lag_records{partition="0"} 0.0' in daemon.ready("/metrics")[1], "no lag", 20)
        assert daemon.stop() == 0, daemon.life.tail()
        found = collect(topics)
    assert (found.judgement.resets, found.judgement.counts["forecast"], found.judgement.restarted) == (1, 13, 1)
    letters = [letter for letter in found.dead_letters if letter.header("recurd.retried") is None]
    sound(checker.check_exactly_once(found.judgement, found.forecasts, letters))
    assert recurd("audit").splitlines()[-1] == "13 forecasts of 2 streams are equal, byte for byte"
    rows = [line.split() for line in recurd("state", "list").splitlines()[1:3]]
    assert [row[1:3] + row[4:5] for row in rows] == [["other", "10", "1"], ["pump", "16", "2"]]
