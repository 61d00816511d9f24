"""Keeps `recurd retrain` running beside the daemon that owns partition 0, as a process of its own.

A thread starts it, sees it end, and starts it again with backoff; whatever becomes of it, the loop only ever sets one flag. The
worker ends when its standard input does, so that it never outlives a daemon that was killed. Its output are events for metrics.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Sequence

from daemon import logs
from daemon.metrics import Metrics

#: Between two looks at the process.
LOOK_S = 0.5
#: Before the worker is started again after it ended, doubled up to the second; one that ran for longer starts afresh.
BACKOFF_S = (5.0, 300.0)
#: A worker that is told to end has this long.
END_S = 3.0

log = logs.get("supervise")


class Supervisor:
    """One worker process while it is wanted."""

    def __init__(self, command: Sequence[str], metrics: Metrics) -> None:
        self._command = command
        self._metrics = metrics
        self._wanted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = float("-inf")
        self._backoff_s = BACKOFF_S[0]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recurd-supervisor", daemon=True)

    def start(self) -> None:
        """Begin to look after the worker."""
        self._thread.start()

    def want(self, wanted: bool) -> None:
        """Whether the worker should run here."""
        self._wanted = wanted

    def stop(self) -> None:
        """End the worker and the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(END_S + 1)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            self._look()
        self._end()

    def _look(self) -> None:
        process = self._process
        if process is not None and process.poll() is not None:
            ran_s = time.monotonic() - self._started_s
            self._backoff_s = BACKOFF_S[0] if ran_s > BACKOFF_S[1] else min(2 * self._backoff_s, BACKOFF_S[1])
            self._metrics.worker_ends.inc()
            log.warning("worker ended", exit_code=process.returncode, ran_s=round(ran_s, 1), retry_in_s=self._backoff_s)
            self._process = None
        elif process is not None and not self._wanted:
            self._end()
        elif process is None and self._wanted and time.monotonic() - self._started_s > self._backoff_s:
            self._begin()

    def _begin(self) -> None:
        self._started_s = time.monotonic()
        try:
            process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            log.error("worker not started", reason=str(error))
            return
        self._process = process
        threading.Thread(target=self._listen, args=(process,), name="recurd-worker-events", daemon=True).start()
        log.info("worker started", process=process.pid)

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Take the worker's events until it ends."""
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._metrics.worker.take_line(line)

    def _end(self) -> None:
        """Close its input, which ends it; kill it where that does not help."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
