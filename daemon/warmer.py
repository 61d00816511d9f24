"""Rebuilds rows after a swap, ahead of the loop, in a thread: the same computation as the step's, earlier and on another core.

A row of another model version is rebuilt from its own window just before it steps. The loop hands copies of such rows over, the
longest unseen first, and keeps what comes back beside the table (`models.ahead`): a step takes it where the row is still as it
was. It waits while streams go over in turn (`daemon.handover`), and leaves out what was seen since the swap began: that steps by
itself, and soon. So no forecast depends on whether, or when, the thread did its work.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable

import numpy as np

from daemon import logs
from daemon.metrics import Metrics
from daemon.pipeline import Pipeline
from models.ahead import Stale

#: Rows handed over together, and how many such portions may be under way: enough for the thread to work through a turn.
PORTION_ROWS = 64
PORTIONS = 6

log = logs.get("warmer")


class Warmer:
    """The thread, and what is under way. Used by the loop alone."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._wanted: queue.SimpleQueue[Stale] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Stale, np.ndarray | None]] = queue.SimpleQueue()
        self._under_way = 0
        self._thread = threading.Thread(target=self._run, name="recurd-warmer", daemon=True)

    @property
    def busy(self) -> bool:
        """Whether rows are under way."""
        return self._under_way > 0

    def turn(self, pipelines: Iterable[Pipeline]) -> None:
        """Keep what is done and hand over what is next."""
        self._keep()
        for ahead in [pipeline.ahead for pipeline in pipelines if pipeline.ahead and not pipeline.handing_over]:
            while self._under_way < PORTIONS and (stale := ahead.next(PORTION_ROWS)) is not None:
                self._under_way += 1
                self._wanted.put(stale)
        if self._under_way and not self._thread.is_alive():
            self._thread.start()

    def _keep(self) -> None:
        while not self._done.empty():
            stale, rebuilt = self._done.get()
            self._under_way -= 1
            if rebuilt is not None:
                stale.ahead.keep(stale.slots, rebuilt)
                self._metrics.rows_rebuilt.labels("warmer").inc(len(rebuilt))

    def _run(self) -> None:
        while True:
            stale = self._wanted.get()
            try:
                self._done.put((stale, stale.rebuilt()))
            except Exception as error:  # noqa: BLE001  # the loop meets it where it matters, when such a row steps
                log.error("rows not rebuilt", error=type(error).__name__, reason=str(error))
                self._done.put((stale, None))
