"""Rows rebuilt by the warmer, at any time, or by the loop just before they step: the same bytes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from config.settings import EngineSettings
from daemon.engines import Engines
from daemon.metrics import Metrics
from daemon.pipeline import Pipeline
from daemon.records import Message, Record
from daemon.warmer import Warmer
from models.ahead import Stale
from tests import examples
from tests.harness import wait_until
from tests.property.test_batching_is_invisible import log

SETTINGS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ENGINE = examples.settings(hidden=64, context=16, horizon=4, max_streams_per_partition=25)  # rows learn their maps in it


def swapping(engine: EngineSettings, offsets: list[int], handovers: Sequence[int] = ()) -> Pipeline:
    """A pipeline that begins another version at each offset; streams go over within so many offsets."""
    made = [examples.seeded_weights(engine, scale) for scale in (1.0, 0.5, 0.25)]
    lengths = [0, *handovers, *([0] * len(offsets))]
    epochs = [examples.epoch(engine, first, made[k % 3][0], handover_offsets=lengths[k]) for k, first in enumerate([0, *offsets])]
    return Pipeline(0, epochs, Engines(dict(made).get))


def served(pipeline: Pipeline, records: list[Record], between: Callable[[], None]) -> tuple[list[Message], bytes]:
    """Forecasts of polls of ten records, and the rows in the end."""
    sent: list[Message] = []
    for first in range(0, len(records), 10):
        sent += pipeline.process(records[first : first + 10]).forecasts
        between()
    return sent, rows_of(pipeline).tobytes()


def rows_of(pipeline: Pipeline) -> np.ndarray:
    return pipeline.table.gather(np.arange(len(pipeline.table)))


@SETTINGS
@given(
    seed=st.integers(0, 10**6),
    offsets=st.lists(st.integers(1, 299), max_size=4, unique=True).map(sorted),
    handovers=st.lists(st.sampled_from((0, 1, 30, 200)), max_size=4),
)
def test_whatever_is_rebuilt_ahead_changes_no_byte(seed: int, offsets: list[int], handovers: list[int]) -> None:
    """Portions of any size, kept after any number of polls, across further swaps, back and forth, and evictions."""
    numbers, under_way = random.Random(seed), list[tuple[Stale, np.ndarray]]()
    pipeline = swapping(ENGINE, offsets, handovers)

    def warm() -> None:
        stale = pipeline.ahead.next(numbers.choice((1, 3, 20))) if pipeline.ahead else None
        if stale is not None:
            under_way.append((stale, stale.rebuilt()))
        while under_way and numbers.random() < 0.4:
            done, rebuilt = under_way.pop(numbers.randrange(len(under_way)))
            done.ahead.keep(done.slots, rebuilt)

    records = log(seed, 300, 40)
    assert served(pipeline, records, warm) == served(swapping(ENGINE, offsets, handovers), records, lambda: None)


def test_the_thread_rebuilds_every_row() -> None:
    """After a swap all rows are rebuilt although none steps; the table is left alone, and steps take what is kept."""
    records, metrics = log(3, 200, 20), Metrics(CollectorRegistry())
    warmed, plain, warmer = swapping(ENGINE, [150]), swapping(ENGINE, [150]), Warmer(metrics)
    for pipeline in (warmed, plain):
        pipeline.process(records[:151])
    before = rows_of(warmed).tobytes()

    def idle() -> bool:
        warmer.turn([warmed])
        return not warmer.busy

    wait_until(idle, "the warmer")
    assert rows_of(warmed).tobytes() == before
    assert metrics.registry.get_sample_value("recurd_rows_rebuilt_total", {"by": "warmer"}) == len(warmed.table) - 1
    by_loop, without = warmed.process(records[151:]), plain.process(records[151:])
    assert by_loop.forecasts == without.forecasts
    assert without.rebuilt > 0
    assert by_loop.rebuilt == 0


COUNT_THREADS = """
import os, threading
import numpy as np
from config.settings import EngineSettings
from models.arithmetic import seeded_network
from models.forecaster import Forecaster
engine = EngineSettings()
forecaster = Forecaster(engine, seeded_network(engine), "v")
rows = np.zeros(64, forecaster.row_dtype)
rows["count"], rows["spread"] = 500, 1
forecaster.rebuild(rows.copy())
before = len(os.listdir("/proc/self/task"))
during = []
def rebuild():
    forecaster.rebuild(rows)
    during.append(len(os.listdir("/proc/self/task")))
thread = threading.Thread(target=rebuild)
thread.start()
thread.join()
print(during[0] - before)
"""


def test_the_thread_computes_alone() -> None:
    """The number of torch's threads is each thread's own: a warmer with more would compute as the self-check never did."""
    environment = {**os.environ, "OMP_NUM_THREADS": "4"}
    done = subprocess.run([sys.executable, "-c", COUNT_THREADS], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "1\n"


def test_rows_that_cannot_be_rebuilt_do_not_stop_swaps() -> None:
    """An error in the thread is logged, and the rows are left to the loop."""
    pipeline, warmer = swapping(ENGINE, [20]), Warmer(Metrics(CollectorRegistry()))
    pipeline.process(log(3, 30, 10))

    def broken(rows: np.ndarray) -> None:
        raise MemoryError("none left")

    pipeline.ahead.engine.rebuild = broken  # type: ignore[union-attr, method-assign]

    def idle() -> bool:
        warmer.turn([pipeline])
        return not warmer.busy

    wait_until(idle, "the warmer")
