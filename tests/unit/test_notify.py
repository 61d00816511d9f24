"""What systemd is told: ready when ready, fed while the loop moves, stopping when it stops."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.http import CHECKS, Health
from daemon.notify import EXTENSION_US, Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


def notifier(manager: socket.socket, health: Health, look_s: float = 0.01) -> Notifier:
    return Notifier(health, {"NOTIFY_SOCKET": manager.getsockname()}, look_s)


def ready(health: Health) -> None:
    for name in CHECKS:
        health.set(name, True)
    health.beat()


def test_the_start_is_put_off_while_the_loop_moves(manager: socket.socket) -> None:
    """Not ready, but moving: the time-out of the start is extended; not moving: nothing is, and the watchdog is not fed."""
    health = Health(30.0)
    told = notifier(manager, health)
    health.beat()
    assert told.look() == ["WATCHDOG=1", f"EXTEND_TIMEOUT_USEC={EXTENSION_US}", "STATUS=joined: starting"]
    assert told.look() == []


def test_a_start_that_compiles_is_put_off_too(manager: socket.socket) -> None:
    """While the time runs that the self-check is allowed, systemd neither loses patience nor starves the watchdog."""
    health = Health(30.0)
    told = notifier(manager, health)
    health.allow(600.0)
    told.look()
    assert told.look() == ["WATCHDOG=1", f"EXTEND_TIMEOUT_USEC={EXTENSION_US}"]


def test_ready_is_said_once(manager: socket.socket) -> None:
    """READY=1 when every check holds; later failures change the status line alone."""
    health = Health(30.0)
    told = notifier(manager, health)
    ready(health)
    assert told.look() == ["WATCHDOG=1", "READY=1", "STATUS=serving"]
    health.set("kafka", False, "unreachable")
    health.beat()
    assert told.look() == ["WATCHDOG=1", "STATUS=kafka: unreachable"]
    ready(health)
    assert told.look() == ["WATCHDOG=1", "STATUS=serving"]


def test_the_words_reach_the_socket(manager: socket.socket) -> None:
    """One datagram a look, and STOPPING=1 after which nothing more comes."""
    health = Health(30.0)
    ready(health)
    told = notifier(manager, health)
    told.start()
    assert manager.recv(4096) == b"WATCHDOG=1\nREADY=1\nSTATUS=serving"
    told.stopping()
    assert manager.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    """No socket, or one that nobody listens on, is no error."""
    told = Notifier(Health(30.0), environ)
    told.start()
    told.stopping()
