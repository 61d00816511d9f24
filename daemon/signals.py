"""SIGTERM and SIGINT: the first asks a process to stop, the second ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType


def catch(stopping: threading.Event, *asked: Callable[[], None]) -> None:
    """Set `stopping` at the first signal, and call each of `asked` then."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if stopping.is_set():
            sys.stderr.flush()
            os._exit(128 + number)
        stopping.set()
        for each in asked:
            each()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
