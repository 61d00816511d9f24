"""`recurd retrain`: the worker. Follows the topic, begins a cycle when it is time to, and ends trials.

A cycle (`daemon.retrain`) begins when the period is over, when the live error of many streams rose (`models.drift`), or by
command (`--once`). A trial (`daemon.trials`) ends with what it found: kept, promoted, or rolled back and blocked. Whatever fails
here, the daemon and the version in force go on.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing

from prometheus_client import CollectorRegistry, disable_created_metrics

from config.settings import Settings
from daemon import logs, retrain, signals, topics, trials, weights
from daemon.brokers import connect
from daemon.brokers.port import Broker
from daemon.errors import BrokerError, OperatorError, StateError
from daemon.http import CHECKS, Health, HttpServer
from daemon.live import Live
from daemon.retrain import IDENTITY, Tell
from daemon.trials import Trial, Verdict
from daemon.weights import ModelStore
from daemon.worker_metrics import WorkerMetrics, tell_parent
from models import artifacts, kinds
from models.artifacts import ArtifactError
from models.forecaster import NAIVE, Forecaster
from models.networks import NaiveNetwork

#: Between two looks at the topics.
LOOK_S = 1.0
#: While there are too few readings for first weights, and after a failure, the next cycle begins after this.
IMPATIENT_S = 60.0
#: After the broker did not answer.
RETRY_S = 5.0

log = logs.get("retrain")


def run(settings: Settings, once: bool, supervised: bool, say: Callable[[str], None]) -> int:
    """Work until told to stop, or run one cycle.

    Args:
        settings: All of them.
        once: One cycle, and `say` what it came to.
        supervised: End at once when standard input does: the daemon beside which this runs is gone.
        say: Takes the outcome of a single cycle.

    Raises:
        OperatorError: The settings are for an engine without weights, or the incumbent cannot be used.
        BrokerError: With `once`, the broker failed.
    """
    if not kinds.replaceable(settings.model.kind):
        raise OperatorError(f'model.kind = "{settings.model.kind}" is not retrained: only "forecaster" is.')
    os.nice(settings.retrain.nice)
    if once:
        broker = _connected(settings)
        with closing(ModelStore(settings, broker)) as store:
            cycle = retrain.run_cycle(settings, broker, store)
        say(f"{cycle.outcome}: {cycle.reason.rstrip('.')}; {cycle.version} is in force")
        return 0
    stopping = threading.Event()
    signals.catch(stopping)  # a second one leaves nothing half done: publishing is one transaction
    if supervised:
        threading.Thread(target=_end_with_input, name="recurd-input", daemon=True).start()
    worker = Worker(settings, lambda: _connected(settings), tell_parent if supervised else _shown(settings))
    while not stopping.is_set():
        stopping.wait(worker.turn())
    return 0


def _connected(settings: Settings) -> Broker:
    """A client, and the topics that it needs: the worker may be there before any daemon."""
    broker = connect(settings)
    topics.ensured(settings, broker)
    return broker


def _shown(settings: Settings) -> Tell:
    """Metrics on a port of this process's own; there is nothing to be ready for. Without the port it goes on unseen."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry, health = CollectorRegistry(), Health(math.inf)
    for check in CHECKS:
        health.set(check, True)
    try:
        HttpServer(settings.http.model_copy(update={"port": settings.retrain.port}), registry, health).start()
    except OperatorError:
        log.warning("metrics not shown: set retrain.port to a free port", port=settings.retrain.port)
    return WorkerMetrics(registry).take


class Worker:
    """Everything the worker knows; all that must outlive it is in the topics.

    Args:
        settings: All of them.
        connected: Makes a broker's client.
        tell: Takes events, for metrics.
        clock: Seconds, for periods.
    """

    def __init__(
        self,
        settings: Settings,
        connected: Callable[[], Broker],
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._connected, self._tell, self._clock = settings, connected, tell, clock
        self._broker: Broker | None = None
        self._due_s = clock()  # the period's next cycle
        self._calm_s = clock()  # until then drift begins none
        self._known: dict[str, Forecaster] = {}

    def turn(self) -> float:
        """Look at the topics and do what it is time for, whatever becomes of it; seconds until the next turn."""
        try:
            if self._broker is None:
                self._connect()
            return self._turn()
        except BrokerError as error:
            log.warning("broker not reached", reason=str(error))
            return RETRY_S
        except (OperatorError, ArtifactError) as error:
            return self._failed(error)
        except Exception as error:
            log.exception("turn failed")
            return self._failed(error)

    def _connect(self) -> None:
        broker = self._connected()
        self._store = ModelStore(self._settings, broker)
        self._live = Live(self._settings, broker, self._forecaster)
        self._broker = broker

    def _failed(self, error: Exception) -> float:
        log.error("cycle failed", error=type(error).__name__, reason=str(error))
        self._tell_failed(error)
        self._due_s = self._clock() + min(IMPATIENT_S, self._settings.retrain.every_s)
        if self._broker is not None:
            self._live.close()
        return RETRY_S

    def _tell_failed(self, error: Exception) -> None:
        self._tell("cycle", outcome="failed", reason=str(error), seconds=0.0, errors={})

    def _turn(self) -> float:
        self._store.refresh()
        version = self._store.in_force()
        trial = self._trial(version)
        at_end = True
        if trial or self._settings.retrain.drift_share:
            self._live.follow(version, trial)
            at_end = self._live.look(int((time.time() - self._settings.retrain.window_s) * 1000))
            self._tell("live", alarmed=self._live.alarmed, errors=trials.scores(self._live.standing) if trial else {})
        verdict = self._live.verdict()
        if trial and verdict:
            self._end(trial, verdict)
        elif trial is None:
            self._cycle_if_due(at_end)
        return LOOK_S if at_end else 0.0

    def _trial(self, version: str) -> Trial | None:
        """The trial under way; it is over where somebody has put another version in force, or deleted one of the two."""
        trial = Trial.from_bytes(self._store.trial)
        if trial is None:
            return None
        known = {NAIVE, *self._store.versions}
        if version == (trial.against if trial.kind == "shadow" else trial.version) and {trial.version, trial.against} <= known:
            return trial
        log.info("trial given up", kind=trial.kind, version=trial.version, against=trial.against, in_force=version)
        self._publish(trial, None, {weights.TRIAL_KEY: None})
        return None

    def _cycle_if_due(self, at_end: bool) -> None:
        now_s = self._clock()
        drifting = self._live.drifting() if at_end and now_s >= self._calm_s else []
        if now_s < self._due_s and not drifting:
            return
        trigger = "period" if now_s >= self._due_s else "drift"
        log.info("cycle begins", trigger=trigger, drifting=",".join(map(str, drifting)))
        assert self._broker is not None
        try:
            cycle = retrain.run_cycle(self._settings, self._broker, self._store, self._tell)
        except BrokerError as error:
            self._tell_failed(error)
            raise
        log.info("cycle", outcome=cycle.outcome, reason=cycle.reason, in_force=cycle.version)
        every_s = self._settings.retrain.every_s
        self._due_s = self._clock() + (min(IMPATIENT_S, every_s) if cycle.outcome == "too_few" else every_s)
        self._calm_s = self._clock() + self._settings.retrain.drift_pause_s
        self._live.trained()

    def _end(self, trial: Trial, verdict: Verdict) -> None:
        """Write down what a trial found."""
        assert self._broker is not None
        errors = trials.scores(self._live.standing)
        current = None
        notes: dict[bytes, bytes | None] = {weights.TRIAL_KEY: None}
        if not verdict.passed:
            notes[weights.BLOCKED_PREFIX + trial.version.encode()] = verdict.reason.encode()
            current = trial.against if trial.kind == "probation" else None
        elif trial.kind == "shadow":
            current = trial.version
            notes = retrain.probation(self._settings, self._broker, trial.version, trial.against)
        if not self._publish(trial, current, notes):
            return
        say = log.info if verdict.passed else log.warning
        say(
            "trial passed" if verdict.passed else "rolled back" if trial.kind == "probation" else "candidate discarded",
            kind=trial.kind, version=trial.version, against=trial.against, reason=verdict.reason,
            **{f"error_{who}": round(error, 4) for who, error in errors.items()},
        )  # fmt: skip
        self._tell("trial", kind=trial.kind, passed=verdict.passed, reason=verdict.reason)

    def _publish(self, trial: Trial, current: str | None, notes: dict[bytes, bytes | None]) -> bool:
        """Write, unless the trial is another one by then."""
        assert self._broker is not None

        def still() -> bool:
            self._store.refresh()
            return Trial.from_bytes(self._store.trial) == trial

        return weights.publish(self._settings, self._broker, None, current, IDENTITY, notes, still)

    def _forecaster(self, version: str) -> Forecaster:
        """The engine of a version; the last few are kept."""
        if version not in self._known:
            engine = self._settings.engine()
            data = self._store.versions.get(version)
            if version != NAIVE and data is None:
                raise StateError(f"Topic {self._settings.topic('models')!r} does not hold {version}: publish it again.")
            network = NaiveNetwork(engine) if data is None else artifacts.load(data, engine)[0]
            self._known = {**dict(list(self._known.items())[-3:]), version: Forecaster(engine, network, version)}
        return self._known[version]


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
