"""What a worker that trains all the while costs the daemon beside it: throughput and latency with it to those without it.

The worker is `recurd retrain --once` on a topic of its own on the same broker, started again whenever a cycle has ended.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks import latency, throughput
from benchmarks.readings import PARTITIONS, backlog
from benchmarks.report import Measure
from benchmarks.site import PATIENCE_S, Site
from tests import harness

STREAMS, TURNS = 100, 2000
#: Reading the window and preparing it is over; what follows is training.
PREPARED_S = 20.0


def run(scale: float) -> list[Measure]:
    """Throughput and latency, each without and with a worker."""
    rates = [_value(throughput.run(scale, beside), "forecasts a second") for beside in (throughput.alone, training)]
    worst = [_value(latency.run(scale, beside), "p99") for beside in (throughput.alone, training)]
    return [
        Measure("forecasts a second, without", rates[0], "1/s"),
        Measure("forecasts a second, with", rates[1], "1/s"),
        Measure("with to without", rates[1] / rates[0], "", at_least=0.7),
        Measure("p99 without", worst[0], "ms"),
        Measure("p99 with", worst[1], "ms"),
        Measure("p99 with to without", worst[1] / worst[0], "", at_most=2),
    ]


def _value(measures: list[Measure], name: str) -> float:
    return next(measure.value for measure in measures if measure.name == name)


@contextmanager
def training(here: Site) -> Iterator[None]:
    """A worker trains from here on, one cycle after the other."""
    history = harness.Topics.create(here.broker.bootstrap, "history", PARTITIONS)
    here.publish(backlog(np.arange(STREAMS), range(TURNS)), history.readings)
    command = harness.Command({**history.settings, "log.level": "info"}).line("retrain", "--once")
    done, trains = threading.Event(), threading.Event()
    cycles = threading.Thread(target=_cycles, args=(command, done, trains))
    cycles.start()
    try:
        assert trains.wait(PATIENCE_S)
        yield
        assert cycles.is_alive()
    finally:
        done.set()
        cycles.join(PATIENCE_S)


def _cycles(command: list[str], done: threading.Event, trains: threading.Event) -> None:
    """Run cycles until `done`; `trains` is set when the first has read its window and prepared it."""
    while not done.is_set():
        worker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=harness.environment())
        ends = threading.Thread(target=lambda worker=worker: (done.wait(), worker.kill()), daemon=True)
        ends.start()
        assert worker.stderr is not None
        for line in worker.stderr:
            if "window read" in line and not trains.is_set():
                done.wait(PREPARED_S)
                trains.set()
        worker.wait(PATIENCE_S)
