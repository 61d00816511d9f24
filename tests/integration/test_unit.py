"""The commands of the systemd units, run for real as the units say, with a socket in systemd's place."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.brokers.dev import DevBroker
from tests.harness import PATIENCE_S, STOP_S, Topics, environment, recurd, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"


class Unit:
    """A unit's process, and what it tells its service manager."""

    def __init__(self, name: str, config: Path, directory: Path) -> None:
        text = (DEPLOY / name).read_text("utf-8")
        (line,) = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
        (variables,) = re.findall(r"^Environment=(.+)$", text, re.MULTILINE)
        program, *arguments = shlex.split(line.replace("/etc/recurd/recurd.toml", str(config)))
        assert program == "/opt/recurd/.venv/bin/recurd"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(directory / "notify"))
        self.said: list[str] = []
        given = dict(word.split("=", 1) for word in shlex.split(variables))
        self.log = directory / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).parent / "recurd", *arguments],
                env=environment() | given | {"NOTIFY_SOCKET": str(directory / "notify")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def hear(self, word: str, timeout_s: float = PATIENCE_S) -> None:
        """Return once this is said."""
        deadline_s = time.monotonic() + timeout_s
        self.manager.settimeout(1.0)
        while word not in self.said:
            assert time.monotonic() < deadline_s, f"{word} not said, but {self.said}:\n{self.log.read_text()}"
            try:
                self.said += self.manager.recv(4096).decode().splitlines()
            except TimeoutError:
                continue

    def forget(self) -> None:
        self.said.clear()


@pytest.fixture
def config(broker: DevBroker, unique: Callable[[str], str], tmp_path: Path) -> Path:
    topics = Topics.create(broker.bootstrap, unique("unit"), 1)
    file = tmp_path / "recurd.toml"
    file.write_text(
        f'[kafka]\nbootstrap_servers = "{topics.bootstrap}"\ngroup_id = "{topics.group}"\n'
        f'[topics]\nreadings = "{topics.readings}"\n[model]\nhidden = 16\n[http]\nport = 0\n'
    )
    return file


@pytest.fixture
def start(config: Path, tmp_path: Path) -> Iterator[Callable[[str], Unit]]:
    started: list[Unit] = []

    def begin(name: str) -> Unit:
        started.append(Unit(name, config, tmp_path))
        return started[-1]

    yield begin
    for unit in started:
        unit.process.kill()
        unit.process.wait()
        unit.manager.close()


@pytest.mark.broker
def test_the_daemons_unit(start: Callable[[str], Unit]) -> None:
    """Ready, fed while it runs, stopping, and 0 at SIGTERM."""
    unit = start("recurd.service")
    unit.hear("READY=1")
    unit.forget()
    unit.hear("WATCHDOG=1", timeout_s=5)
    unit.process.send_signal(signal.SIGTERM)
    unit.hear("STOPPING=1", timeout_s=STOP_S)
    assert unit.process.wait(STOP_S) == 0


@pytest.mark.broker
def test_the_workers_unit(start: Callable[[str], Unit], config: Path) -> None:
    """It looks for readings, finds too few, and ends with 0 at SIGTERM."""
    assert recurd("models", "list", "--config", config).returncode == 0  # makes the topics, as a daemon would
    unit = start("recurd-retrain.service")
    wait_until(lambda: '"too_few"' in unit.log.read_text(), "a cycle")
    unit.process.send_signal(signal.SIGTERM)
    assert unit.process.wait(STOP_S) == 0
