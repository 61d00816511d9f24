"""Tells systemd how the daemon is, by the protocol of sd_notify(3). Reads `Health`; knows nothing else of the daemon.

Ready once every check of `/readyz` holds; until then, and while the loop moves, the time-out of the start is put off: a broker
that is away is no reason to kill the process. The watchdog of the unit is fed only while the loop moves.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping

from daemon import logs
from daemon.http import Health

#: Between two looks.
LOOK_S = 1.0
#: A start may take so much longer from now on.
EXTENSION_US = 30_000_000

log = logs.get("notify")


class Notifier:
    """A thread that tells the service manager; without one, nothing is done."""

    def __init__(self, health: Health, environ: Mapping[str, str] = os.environ, look_s: float = LOOK_S) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._health = health
        self._look_s = look_s
        self._ready = False
        self._status = ""
        self._beats = -1
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recurd-notify", daemon=True)

    def start(self) -> None:
        """Tell from now on."""
        if self._address:
            self._thread.start()

    def stopping(self) -> None:
        """The process is asked to stop, or ends."""
        self._stopped.set()
        self._send("STOPPING=1")

    def _run(self) -> None:
        while not self._stopped.wait(self._look_s):
            self._send(*self.look())

    def look(self) -> list[str]:
        """What is to be said now."""
        failing = [f"{name}: {why}" for name, (ok, why) in self._health.ready().items() if not ok]
        moved = self._health.beats != self._beats or self._health.excused()
        self._beats = self._health.beats
        said = ["WATCHDOG=1"] if moved else []
        if not self._ready and not failing:
            self._ready = True
            said.append("READY=1")
        elif not self._ready and moved:
            said.append(f"EXTEND_TIMEOUT_USEC={EXTENSION_US}")
        status = failing[0] if failing else "serving"
        if status != self._status:
            self._status = status
            said.append(f"STATUS={status}")
        return said

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:  # a service manager that does not listen is no reason to end
            log.debug("not notified", reason=str(error))
