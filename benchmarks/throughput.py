"""Forecasts a second, exactly once, with a backlog: the daemon alone decides the pace. Where its time goes, by stage."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from benchmarks.readings import backlog
from benchmarks.report import Measure
from benchmarks.site import Look, Site, site
from daemon.metrics import STAGES

STREAMS = 20_000
TURNS = 20
#: Of the readings: start, joining the group and the first poll are over.
WARM = 0.1


#: What runs beside the daemon: made on its site, before it starts.
Beside = Callable[[Site], AbstractContextManager[None]]


def alone(_site: Site) -> AbstractContextManager[None]:
    """Nothing runs beside it."""
    return nullcontext()


def run(scale: float, beside: Beside = alone) -> list[Measure]:
    """A backlog of 20 readings of each of 20,000 streams."""
    with site() as here, beside(here):
        count = here.publish(backlog(range(max(int(STREAMS * scale), 64)), range(TURNS)))
        here.start()
        looks = here.wait_for(lambda look: look.forecasts >= count, f"{count} forecasts")
        here.topics.wait_committed()
        warm = [look for look in looks if look.forecasts >= WARM * count]
        busy = [look for look in warm if look.forecasts < count]
        first, last = (busy[0], busy[-1]) if len(busy) > 1 else (looks[0], looks[-1])
        return [*_rates(here, first, last), *_stages(looks[-1], count)]


def _rates(here: Site, first: Look, last: Look) -> list[Measure]:
    forecasts = last.forecasts - first.forecasts
    microseconds = {thread: 1e6 * (used - first.cpu_s.get(thread, 0)) / forecasts for thread, used in last.cpu_s.items()}
    main = microseconds.pop(here.pid)
    others = sorted(microseconds.values(), reverse=True)
    broker = 1e6 * (last.broker_cpu_s - first.broker_cpu_s) / forecasts
    return [
        Measure("forecasts a second", forecasts / (last.at_s - first.at_s), "1/s", at_least=20_000),
        Measure("CPU of the daemon a forecast", main + sum(others), "us"),
        Measure("  its main thread", main, "us"),
        Measure("  its second busiest thread", others[0] if others else 0.0, "us"),
        Measure("  its other threads", sum(others[1:]), "us"),
        Measure("CPU of the broker a forecast", broker, "us"),
    ]


def _stages(end: Look, count: int) -> list[Measure]:
    sums = ((stage, end.metrics[f"recurd_stage_seconds_sum{{{stage}}}"]) for stage in STAGES)
    return [Measure(f"  {stage}", 1e6 * seconds / count, "us a reading") for stage, seconds in sums]
