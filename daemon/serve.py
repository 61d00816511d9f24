"""`recurd serve`: wiring only. Start in order, run the loop, end in order, answer with an exit code.

Start: log, HTTP, watchdog, service manager, self-check, broker (with backoff), topics, weights, loop. The first signal asks the
loop to drain, a second one forces, and so does a broker that does not answer in time.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from config.settings import Settings
from daemon import garbage, logs, pipeline, signals, topics, weights
from daemon.brokers import connect, in_the_clear
from daemon.commit import Committer
from daemon.engines import Engines
from daemon.errors import EXIT_NO_RESTART, EXIT_RESTART, FatalBrokerError, Fenced, OperatorError, Stalled, Unreachable
from daemon.http import Health, HttpServer
from daemon.loop import BACKOFF_S, Loop
from daemon.metrics import Metrics
from daemon.notify import Notifier
from daemon.ownership import Ownership
from daemon.page import Page
from daemon.restore import Restorer
from daemon.supervise import Supervisor
from daemon.swap import InForce, Watcher
from daemon.viewing import Viewing
from daemon.watchdog import Watchdog
from models import arithmetic, kinds
from models.artifacts import ArtifactError
from models.layout import ENGINE_VERSION

Made = TypeVar("Made")

#: A stop may take this long: less than the ten seconds promised, and less than a commit waits for a broker that is away.
STOP_S = 8.0

#: The self-check may take this long: the first start on a machine compiles, half a minute of a core.
SELF_CHECK_S = 600.0

log = logs.get("serve")


def run(settings: Settings, worker: Sequence[str] = ()) -> int:
    """Serve until a signal; the exit code says whether a restart helps.

    Args:
        settings: All of them.
        worker: The command of `recurd retrain` with these settings, for `retrain.supervised`.
    """
    logs.configure(settings.log)
    metrics = Metrics()
    health = Health(settings.watchdog.timeout_s)
    metrics.watch(health)
    metrics.nominal_coverage.set(settings.model.levels[-1] - settings.model.levels[0])
    stopping = threading.Event()
    notifier = Notifier(health)
    signals.catch(stopping, notifier.stopping, _limit_the_stop)
    viewing = Viewing()
    server = HttpServer(settings.http, metrics.registry, health, page=Page(metrics, health, viewing))
    watchdog = Watchdog(health, settings.watchdog.timeout_s)
    supervisor = Supervisor(worker, metrics)
    server.start()
    watchdog.start()
    notifier.start()
    if settings.retrain.supervised:
        supervisor.start()
    try:
        return _serve(settings, metrics, health, stopping, supervisor, viewing)
    finally:
        notifier.stopping()
        supervisor.stop()
        watchdog.stop()
        server.stop()


def _serve(
    settings: Settings, metrics: Metrics, health: Health, stopping: threading.Event, supervisor: Supervisor, viewing: Viewing
) -> int:
    metrics.state("starting")
    if exposed := in_the_clear(settings.kafka):
        log.warning(
            "Kafka is reached without TLS", hosts=",".join(exposed), remedy='kafka.security_protocol = "SASL_SSL" or "SSL"'
        )
    try:
        health.allow(SELF_CHECK_S)
        fingerprint = _self_check(settings)
        health.beat()
        loop = _patiently(
            lambda: _make_loop(settings, fingerprint, metrics, health, stopping, supervisor, viewing), health, stopping
        )
        if loop is not None:
            metrics.state("running")
            garbage.settle()
            loop.run()
        metrics.state("draining")
        log.info("stopped")
        return 0
    except (OperatorError, ArtifactError, FatalBrokerError, arithmetic.UnstableArithmetic) as error:
        log.error("cannot serve", error=type(error).__name__, reason=str(error))
        code = EXIT_NO_RESTART
    except (Fenced, Stalled) as error:
        log.error("a restart may help", error=type(error).__name__, reason=str(error))
        code = EXIT_RESTART
    metrics.state("failed")
    return code


def _self_check(settings: Settings) -> str:
    """The arithmetic fingerprint, after the self-check; nothing to check where the engine only hashes. Loops are compiled."""
    pipeline.compile_loops(settings.engine())
    if not kinds.has_weights(settings.engine()):
        return kinds.CHAIN
    fingerprint = arithmetic.check(settings.engine())
    log.info("self-check passed", fingerprint=fingerprint, engine_version=ENGINE_VERSION)
    return fingerprint


def _make_loop(
    settings: Settings,
    fingerprint: str,
    metrics: Metrics,
    health: Health,
    stopping: threading.Event,
    supervisor: Supervisor,
    viewing: Viewing,
) -> Loop:
    broker = connect(settings)
    partitions = topics.ensured(settings, broker).partitions
    store = weights.ModelStore(settings, broker)
    version = weights.first_version(settings, broker, store)
    metrics.model(version, settings.model.kind, store.training(version))
    health.set("model", True, "")
    log.info("model in force", version=version, partitions=partitions)
    in_force = InForce(settings, fingerprint, version)
    engine_for = Engines(store.artifact)
    engine_for(in_force(0, 0))  # unusable weights are found now
    restorer = Restorer(settings, broker, engine_for, in_force, metrics.stage)
    ownership = Ownership(settings, restorer, lambda: topics.ensured(settings, broker), metrics)
    committer = Committer(settings, broker, metrics)
    loop = Loop(settings, broker, ownership, committer, metrics, health, stopping, supervisor.want, viewing)
    if kinds.replaceable(settings.model.kind):
        Watcher(store, in_force, engine_for, metrics).start()  # last: what is above may be tried again
    else:
        store.close()
    return loop


def _patiently(make: Callable[[], Made], health: Health, stopping: threading.Event) -> Made | None:
    """Try until the broker answers, with backoff; None when told to stop."""
    pause_s = BACKOFF_S[0]
    while not stopping.is_set():
        health.beat()
        try:
            return make()
        except Unreachable as error:
            log.warning("broker unreachable", reason=str(error), retry_in_s=pause_s)
            health.set("kafka", False, f"unreachable: {error}")
            stopping.wait(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_S[1])
    return None


def _end_undrained() -> None:
    """End without a last checkpoint: as after a crash, all that is committed is whole, and the next owner catches up."""
    log.warning("stopped without a last checkpoint: the next owner catches up", waited_s=STOP_S)
    sys.stderr.flush()
    os._exit(0)


def _limit_the_stop() -> None:
    limit = threading.Timer(STOP_S, _end_undrained)
    limit.daemon = True
    limit.start()
