"""The page's words: what it says of a row is what was read and forecast; and what looking costs the loop."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from daemon.engines import Engines
from daemon.http import Health
from daemon.metrics import Metrics
from daemon.page import PAGE_STREAMS, Page, detail_document, past, stream_document, window
from daemon.pipeline import Pipeline
from daemon.records import Message, Record
from daemon.viewing import RowView, Viewing
from models.table import StateTable
from tests import examples
from tests.examples import MINUTE_MS, T0_MS

ENGINE = examples.settings(hidden=8, horizon=8, context=16)
PLACE = (0, "pump")


def reading(offset: int, value: float | None, gap_ms: int = MINUTE_MS) -> Record:
    document = {"stream": "pump", "time": T0_MS + offset * gap_ms, "value": value}
    return Record("readings", 0, offset, T0_MS + offset * gap_ms, None, json.dumps(document).encode())


@pytest.fixture
def run() -> Any:
    """A pipeline of one stream after some readings, and its messages."""

    def of(values: list[float | None]) -> tuple[Any, list[bytes]]:
        pipeline = examples.pipeline(ENGINE)
        outcome = pipeline.process([reading(offset, value) for offset, value in enumerate(values)])
        return pipeline, [message.value for message in outcome.forecasts]

    return of


def view(pipeline: Any) -> RowView:
    held = {0: SimpleNamespace(pipeline=pipeline)}
    answered = asked(Viewing(), lambda live: live.rows([PLACE]), held)
    return answered[PLACE]


def test_a_stream_is_shown_with_the_version_that_steps_it() -> None:
    """Not with that of the epoch, while streams go over in turn."""
    (one, first), (two, second) = (examples.seeded_weights(ENGINE, scale) for scale in (1.0, 0.5))
    epochs = [examples.epoch(ENGINE, 0, one), examples.epoch(ENGINE, 2, two, handover_offsets=1_000_000_000)]
    pipeline = Pipeline(0, epochs, Engines({one: first, two: second}.get))
    sent = pipeline.process([reading(offset, 1.0 + offset) for offset in range(4)]).forecasts
    assert view(pipeline).version == json.loads(sent[-1].value)["model_version"] == one


def asked(live: Viewing, ask: Any, held: Mapping[int, Any]) -> Any:
    """A viewer's question, answered by turns of a loop."""
    found: list[Any] = []
    viewer = threading.Thread(target=lambda: found.append(ask(live)))
    viewer.start()
    while viewer.is_alive():
        live.turn(held)  # type: ignore[arg-type]
        time.sleep(0.001)
    return found[0]


def test_a_window_is_what_was_read(run: Any) -> None:
    """Times and values of the newest readings, oldest first; a missing one is None; no more than there are, or were asked for."""
    values: list[float | None] = [20.5, 21.0, None, 22.25, 21.75]
    row = view(run(values)[0]).row
    times = [T0_MS + offset * MINUTE_MS for offset in range(5)]
    assert window(row, 0, 100) == (times, values)
    assert window(row, 0, 2) == (times[3:], values[3:])
    many: list[float | None] = [float(value % 7) for value in range(40)]
    assert window(view(run(many)[0]).row, 0, 100)[1] == many[-16:]


def test_the_fan_is_the_newest_forecast(run: Any) -> None:
    """Where the message was seen: all its leads and levels, its anomaly score and state."""
    pipeline, messages = run([20.0, 21.0, 20.5, 21.5])
    told = stream_document(PLACE, view(pipeline), messages, 48)
    forecast = json.loads(messages[-1])
    assert told["fan"]["quantiles"] == forecast["targets"]["value"]
    assert told["fan"]["times_ms"] == [T0_MS + (3 + lead) * MINUTE_MS for lead in range(1, 9)]
    assert (told["anomaly"], told["warming"]) == (forecast["anomaly_score"], forecast["warming"])


def test_before_a_forecast_was_seen_the_row_tells(run: Any) -> None:
    """What is pending in the row: rungs that are due after the newest reading, with the numbers that were sent for them."""
    pipeline, messages = run([20.0, 21.0, 20.5, 21.5])
    fan = stream_document(PLACE, view(pipeline), [], 48)["fan"]
    assert fan["times_ms"] == sorted(fan["times_ms"])
    assert min(fan["times_ms"]) == T0_MS + 4 * MINUTE_MS
    newest = json.loads(messages[-1])["targets"]["value"]
    assert [quantiles[0] for quantiles in fan["quantiles"].values()] == pytest.approx(
        [newest[level][0] for level in newest], rel=1e-5
    )


def test_the_past_is_what_was_forecast_for_then(run: Any) -> None:
    """A point a forecast and lead, at the time that it was for; a forecast that came twice counts once."""
    pipeline, messages = run([20.0, 21.0, 20.5, 21.5])
    found = past(view(pipeline), [*messages, messages[-1]])
    assert found.keys() == {"1", "2", "8"}
    last = json.loads(messages[-1])["targets"]["value"]
    assert found["2"][-1] == [T0_MS + 5 * MINUTE_MS, last["0.1"][1], last["0.5"][1], last["0.9"][1]]
    assert len(found["1"]) == len([message for message in messages if json.loads(message)["interval_ms"]])
    assert json.dumps(detail_document(PLACE, view(pipeline), messages))


def test_nobody_looks_nothing_is_kept() -> None:
    """Messages are kept only of streams that are looked at, and only while they are."""
    live, message = Viewing(), Message(b"pump", b"{}")
    live.sent(0, [message])
    assert live.forecasts([PLACE]) == {PLACE: []}
    live.sent(0, [message, Message(b"other", b"x")])
    live.sent(1, [message])
    assert live.forecasts([PLACE]) == {PLACE: [b"{}"]}


def test_a_loop_that_hangs_gets_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page still says how it is: health and numbers, and no streams."""
    monkeypatch.setattr("daemon.viewing.ANSWER_S", 0.05)
    told = json.loads(Page(Metrics(), Health(30.0), Viewing()).event("").removeprefix(b"data: "))
    assert told["partitions"] is None
    assert "streams" not in told
    assert told["health"]["joined"] == "starting"


# -- a hundred thousand streams -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd() -> dict[int, Any]:
    """Partitions with 100,000 streams between them."""
    held = {}
    for number in range(4):
        pipeline = examples.pipeline(ENGINE)
        table: StateTable = pipeline.table
        for place in range(25_000):
            table.slots.add(f"sensor-{number}-{place:05d}")
        table.reserve()
        table.rows(0, 25_000)["count"] = 1
        held[number] = SimpleNamespace(pipeline=pipeline, serving=True)
    return held


class Loop:
    """A loop that does nothing but answer; how long each turn took it, in its own CPU time."""

    def __init__(self, live: Viewing, held: dict[int, Any]) -> None:
        self.turns_s: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(live, held))
        self._thread.start()

    def _run(self, live: Viewing, held: dict[int, Any]) -> None:
        while not self._ended.wait(0.005):
            began_s = time.thread_time()
            live.turn(held)
            live.sent(0, [])
            self.turns_s.append(time.thread_time() - began_s)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def test_a_crowd_is_found_and_paged(crowd: dict[int, Any]) -> None:
    """100,000 streams: counted, searched by a part of the id, paged to the end; and no turn of the loop pays 10 ms for it."""
    live = Viewing()
    page, loop = Page(Metrics(), Health(30.0), live), Loop(live, crowd)
    try:

        def told(query: str) -> Any:
            return json.loads(page.event(query).removeprefix(b"data: "))

        first = told("")
        assert (first["matching"], first["pages"]) == (100_000, -(-100_000 // PAGE_STREAMS))
        assert [each["stream"] for each in first["streams"]] == [f"sensor-0-{place:05d}" for place in range(PAGE_STREAMS)]
        assert told("page=999999")["page"] == first["pages"] - 1
        found = told("search=-2-0012&page=0&stream=sensor-2-00123&partition=2")
        assert found["matching"] == 10
        assert found["detail"]["stream"] == "sensor-2-00123"
        assert told("search=nobody")["streams"] == []
    finally:
        loop.end()
    assert max(loop.turns_s) < 0.010
    assert float(np.median(loop.turns_s)) < 0.0002


def test_a_stream_that_was_reset_is_empty(run: Any) -> None:
    """No time, no readings, nothing pending, until its next reading."""
    pipeline, _ = run([1.0, 2.0, 3.0])
    pipeline.table.forget("pump")
    told = stream_document(PLACE, view(pipeline), [], 10)
    assert (told["count"], told["time_ms"], told["times_ms"], told["values"], told["fan"]) == (0, None, [], [], None)
