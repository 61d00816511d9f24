"""Ends a process whose loop hangs, so that its supervisor starts another. Knows only the loop's last beat.

A Kafka call may block without end and cannot be interrupted from within; what it holds is in the logs of Kafka, so that ending
the process loses nothing.
"""

from __future__ import annotations

import faulthandler
import os
import threading

from daemon import logs
from daemon.errors import EXIT_RESTART
from daemon.http import Health

#: Looks within the time-out. The loop hangs when none of them saw it move: a clock would also count the time in which the whole
#: process was stopped (a debugger, a laptop's lid), and end it as it wakes.
TICKS = 10

log = logs.get("watchdog")


class Watchdog:
    """A thread that ends the process with stacks and exit code 75 when the loop has been silent for too long."""

    def __init__(self, health: Health, timeout_s: float) -> None:
        self._health = health
        self._timeout_s = timeout_s
        self._seen = health.beats
        self._quiet = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._health.beat()
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(self._timeout_s / TICKS):
            if self.tick() >= TICKS:
                self._end()

    def tick(self) -> int:
        """Look once; how often in a row the loop had not moved."""
        still = self._health.beats == self._seen and not self._health.excused()
        self._quiet = self._quiet + 1 if still else 0
        self._seen = self._health.beats
        return self._quiet

    def _end(self) -> None:
        log.error("loop hangs: ending the process", timeout_s=self._timeout_s, exit_code=EXIT_RESTART)
        try:
            faulthandler.dump_traceback(all_threads=True)
        finally:
            os._exit(EXIT_RESTART)
