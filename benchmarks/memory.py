"""Resident memory of the daemon by stream: the difference between 100,000 and 300,000 streams, ids and all."""

from __future__ import annotations

import time

from benchmarks import machine
from benchmarks.readings import PARTITIONS, backlog
from benchmarks.report import Measure
from benchmarks.site import Site, site

FEW, MANY = 100_000, 300_000
CHECKPOINT_INTERVAL_S = 2.0


def run(scale: float) -> list[Measure]:
    """One daemon: the few streams, then the others."""
    few, many = (max(int(count * scale), 64) for count in (FEW, MANY))
    with site(state__checkpoint_interval_s=CHECKPOINT_INTERVAL_S) as here:
        here.start()
        first = _resident(here, range(few), few)
        second = _resident(here, range(few, many), many)
        peak = machine.resident_bytes(here.pid, "VmHWM")
        return [
            Measure(f"resident with {few:,} streams", first / 2**20, "MiB"),
            Measure(f"resident with {many:,} streams", second / 2**20, "MiB"),
            Measure("peak", peak / 2**20, "MiB"),
            Measure("difference a stream", (second - first) / (many - few), "bytes", at_most=3.5 * 1024),
        ]


def _resident(here: Site, streams: range, total: int) -> int:
    """Resident bytes once these streams' first readings are forecast and no checkpoint is due any more."""
    here.publish(backlog(streams, [0]))
    here.wait_for(lambda look: look.forecasts >= total, f"{total} forecasts")
    here.topics.wait_committed()
    before = -1.0
    while (checkpoints := here.look().metrics["recurd_checkpoint_seconds_count"]) != before:
        before = checkpoints
        time.sleep(2 * PARTITIONS * CHECKPOINT_INTERVAL_S)
    return machine.resident_bytes(here.pid)
