"""CPU time is linear in readings and does not depend on streams that are idle. One pipeline, no broker."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.readings import pipeline, records
from benchmarks.report import Measure
from config.settings import Settings
from daemon.pipeline import Pipeline

ACTIVE = 1000
IDLE = 200_000
#: Readings of each active stream.
TURNS = (20, 40, 80)


def run(scale: float) -> list[Measure]:
    """1,000 active streams: alone, for 20, 40 and 80 readings each; and 40 each between 200,000 idle ones."""
    active = max(int(ACTIVE * scale), 32)
    alone = {turns: _microseconds(active, active, turns) for turns in TURNS}
    crowded = _microseconds(max(int(IDLE * scale), 2 * active), active, TURNS[1])
    return [
        *(Measure(f"{turns * active:,} readings", used, "us a reading") for turns, used in alone.items()),
        Measure("most to fewest readings, a reading", alone[TURNS[-1]] / alone[TURNS[0]], "ratio"),
        Measure("between idle streams", crowded, "us a reading"),
        Measure("with idle streams to without", crowded / alone[TURNS[1]], "ratio"),
    ]


def _microseconds(streams: int, active: int, turns: int) -> float:
    """CPU us a reading of `active` streams spread evenly over a table of `streams`."""
    running = pipeline(Settings())
    first = _feed(running, np.arange(streams), 0, 0)
    chosen = np.arange(active) * (streams // active)
    first = _feed(running, chosen, 1, first)  # the second reading of a stream costs less than the first
    polls = [records(chosen, turn, first + active * (turn - 2)) for turn in range(2, 2 + turns)]
    started_s = time.process_time()
    for poll in polls:
        running.process(poll)
    return 1e6 * (time.process_time() - started_s) / (turns * active)


def _feed(running: Pipeline, streams: np.ndarray, turn: int, first_offset: int) -> int:
    for first in range(0, len(streams), 5000):
        running.process(records(streams[first : first + 5000], turn, first_offset + first))
    return first_offset + len(streams)
