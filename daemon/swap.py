"""The version in force while the daemon runs: followed in the `models` topic by a thread, begun by partitions in turn.

The thread reads, checks and builds; all it hands over is one name, `InForce.version`. The loop begins an epoch with it, a
partition at a time (`daemon.ownership`). An artifact that cannot be used is refused and said; what served goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from config.settings import Settings
from daemon import logs
from daemon.epochs import Epoch
from daemon.errors import BrokerError, StateError
from daemon.metrics import Metrics
from daemon.weights import ModelStore
from models import artifacts
from models.artifacts import ArtifactError
from models.engine import Engine, Rebuilds
from models.forecaster import NAIVE
from models.layout import ENGINE_VERSION

#: Between two looks at the models topic.
WATCH_S = 1.0
#: Rebuilding is timed with so many rows, so many times.
TIMED_ROWS, TIMED_TRIES = 64, 3

log = logs.get("swap")


class InForce:
    """What today's settings and weights ask for: the epoch that a partition should be in."""

    def __init__(self, settings: Settings, fingerprint: str, version: str) -> None:
        self._engine = settings.engine()
        self._fingerprint = fingerprint
        self.version = version  # set by the watcher alone, once all is ready for it
        self.rebuild_s = 0.0  # what that version takes to rebuild a row; set before the version

    def __call__(self, partition: int, offset: int, handover_offsets: int = 0) -> Epoch:
        """The epoch, were it to begin at an offset."""
        engine = self._engine
        return Epoch(
            partition, offset, self.version, engine, ENGINE_VERSION, self._fingerprint, handover_offsets=handover_offsets
        )


class Watcher:
    """Follows `current` and puts it in force once its engine is built."""

    def __init__(self, store: ModelStore, in_force: InForce, engine_for: Callable[[Epoch], Engine], metrics: Metrics) -> None:
        self._store = store
        self._in_force = in_force
        self._engine_for = engine_for
        self._metrics = metrics
        self._considered: str | None = in_force.version
        self._thread = threading.Thread(target=self._run, name="recurd-models", daemon=True)

    def start(self) -> None:
        """Watch until the process ends."""
        self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(WATCH_S)
            try:
                self.look()
            except BrokerError as error:
                log.debug("models topic not read", reason=str(error))

    def look(self) -> None:
        """Read the topic on, and put a new version in force where it can be.

        Raises:
            BrokerError: The topic could not be read; the next look tries again.
        """
        self._store.refresh()
        version = self._store.current
        if version is None or version == self._considered:
            return
        self._considered = version
        try:
            engine = self._checked(version)
        except (ArtifactError, StateError) as error:
            reason = error.reason if isinstance(error, ArtifactError) else "absent"
            self._metrics.models_refused.labels(reason).inc()
            log.error("model refused", version=version, in_force=self._in_force.version, reason=str(error))
            return
        self._in_force.rebuild_s = seconds_of_a_rebuild(engine) if isinstance(engine, Rebuilds) else 0.0
        self._in_force.version = version
        self._metrics.model(version, "forecaster", self._store.training(version))
        log.info("model in force", version=version)

    def _checked(self, version: str) -> Engine:
        data = self._store.versions.get(version)
        if version != NAIVE and data is not None and artifacts.version_of(data) != version:
            raise ArtifactError("corrupt", f"The weights cannot be used: their bytes are not those of version {version}.")
        return self._engine_for(replace(self._in_force(0, 0), model_version=version))


def seconds_of_a_rebuild(engine: Rebuilds) -> float:
    """What rebuilding one of many rows takes here and now, the best of a few tries."""
    rows = np.zeros(TIMED_ROWS, engine.row_dtype)
    rows["count"] = np.iinfo(np.int64).max  # a full window
    best = float("inf")
    for _ in range(TIMED_TRIES):
        began_s = time.perf_counter()
        engine.rebuild(rows)
        best = min(best, time.perf_counter() - began_s)
    return best / TIMED_ROWS
