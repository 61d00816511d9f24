"""The live page: its files, and what it is told, as JSON. Reads metrics, health and `Viewing`; runs on the HTTP threads alone.

The standard library's server keeps the job: a page for a few operators needs no event loop, and every dependency less is one less
that takes the interpreter's lock beside the loop.
"""

from __future__ import annotations

import time
from importlib import resources
from typing import Any
from urllib.parse import parse_qs

import msgspec
import numpy as np

from daemon.http import EVENT_S, Answer, Health
from daemon.metrics import Metrics
from daemon.viewing import Place, RowView, Viewing
from models.kernels import GAP_UNIT

#: Streams of one page of the list.
PAGE_STREAMS = 24
#: Readings of a sparkline in the list; the detail shows the row's whole window.
SPARK_READINGS = 48

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}

_encode = msgspec.json.Encoder().encode


class Page:
    """What viewers get."""

    def __init__(self, metrics: Metrics, health: Health, live: Viewing) -> None:
        self._metrics = metrics
        self._health = health
        self._live = live
        self._found: tuple[Any, str, list[Place]] = (None, "", [])  # ids searched, for what, with what result
        self._numbers: tuple[float, dict[str, float]] = (float("-inf"), {})

    def file(self, path: str) -> Answer | None:
        """One of the page's files."""
        if path not in FILES:
            return None
        name, content_type = FILES[path]
        return Answer(200, resources.files("daemon").joinpath("static", name).read_bytes(), content_type)

    def event(self, query: str) -> bytes:
        """One message of the event stream: what this viewer looks at, as it is now."""
        asked = {key: values[0] for key, values in parse_qs(query).items()}
        partitions = self._live.partitions()
        told = {
            "time_ms": round(time.time() * 1000),
            "health": self._health_now(),
            "numbers": self._numbers_now(),
            "versions": [
                {"time_ms": round(at_s * 1000), "version": name, "facts": facts} for at_s, name, facts in self._metrics.versions
            ],
            "partitions": None if partitions is None else [each._asdict() for each in partitions],
        }
        if partitions is not None:
            told |= self._streams(asked)
        return b"data: " + _encode(told) + b"\n\n"

    def _health_now(self) -> dict[str, Any]:
        checks = {**self._health.live(), **self._health.ready()}
        return {name: "" if ok else why or "failing" for name, (ok, why) in checks.items()}

    def _numbers_now(self) -> dict[str, float]:
        """Samples of our own metrics by name and labels; buckets of one histogram alone. Collected once for all viewers."""
        at_s, numbers = self._numbers
        if time.monotonic() - at_s > EVENT_S / 2:
            numbers = {}
            for family in self._metrics.registry.collect():
                for sample in family.samples:
                    if _shown(sample.name):
                        labels = ",".join(sample.labels[key] for key in sorted(sample.labels))
                        numbers[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
            self._numbers = (time.monotonic(), numbers)
        return numbers

    # -- streams ----------------------------------------------------------------------------------------------------------

    def _streams(self, asked: dict[str, str]) -> dict[str, Any]:
        matching = self._search(asked.get("search", ""))
        pages = max(1, -(-len(matching) // PAGE_STREAMS))
        number = min(max(_whole(asked.get("page", "")), 0), pages - 1)
        shown = matching[number * PAGE_STREAMS : (number + 1) * PAGE_STREAMS]
        chosen = [(_whole(asked.get("partition", "")), asked["stream"])] if "stream" in asked else []
        forecasts = self._live.forecasts([*shown, *chosen])
        rows = self._live.rows([*shown, *chosen])
        listed = [stream_document(place, rows[place], forecasts[place], SPARK_READINGS) for place in shown if place in rows]
        detail = [detail_document(place, rows[place], forecasts[place]) for place in chosen if place in rows]
        return {
            "matching": len(matching),
            "page": number,
            "pages": pages,
            "streams": listed,
            "detail": detail[0] if detail else None,
        }

    def _search(self, text: str) -> list[Place]:
        """Streams whose id contains a text, in the order of their rows: sorting would hold the interpreter's lock too long."""
        ids = self._live.ids()
        known, searched, found = self._found
        if known is not ids or searched != text:
            found = [(number, stream) for number, streams in sorted(ids.items()) for stream in streams if text in stream]
            self._found = (ids, text, found)
        return found


def stream_document(place: Place, view: RowView, forecasts: list[bytes], readings: int) -> dict[str, Any]:
    """A stream as the list shows it."""
    told: dict[str, Any] = {"partition": place[0], "stream": place[1], "count": int(view.row["count"]), "version": view.version}
    told["time_ms"] = int(view.row["last_time_ms"]) if told["count"] else None  # after a reset there is none
    if not _keeps_readings(view.row):
        return told
    channel = view.channels.index(view.targets[0])
    times, values = window(view.row, channel, readings)
    told |= {"target": view.targets[0], "times_ms": times, "values": values, "interval_ms": int(view.row["interval_ms"])}
    told |= _newest(view, forecasts)
    return told


def detail_document(place: Place, view: RowView, forecasts: list[bytes]) -> dict[str, Any]:
    """One stream in full: its window, and what was forecast for its readings since it is looked at, by lead."""
    told = stream_document(place, view, forecasts, 1 << 16)
    if not _keeps_readings(view.row):
        return told
    spread = float(view.row["spread"][0])
    ratios = [[_number(each) for each in view.row[name][0]] for name in ("model_error", "naive_error")]
    told |= {"spread": _number(spread), "model_error": ratios[0], "naive_error": ratios[1], "past": past(view, forecasts)}
    return told


def _keeps_readings(row: Any) -> bool:
    """Whether it is a row of the forecaster: those of other kinds keep no window, and their records are shown nowhere here."""
    return "window" in (row.dtype.names or ())


def window(row: Any, channel: int, readings: int) -> tuple[list[int], list[float | None]]:
    """Times in ms and values of the newest readings in a row, oldest first; missing ones are None."""
    kept = min(int(row["count"]), row["window"].shape[1], readings)
    if kept == 0:
        return [], []
    gaps_ms = row["gap_units"][-kept:].astype(np.int64) * int(row["interval_ms"]) // GAP_UNIT
    values = float(row["anchor"][channel]) + row["window"][channel, -kept:].astype(np.float64)
    missing = np.unpackbits(row["missing"][channel], bitorder="little")[:kept][::-1]  # by age, the newest first
    times = int(row["last_time_ms"]) - np.append(gaps_ms[1:][::-1].cumsum()[::-1], 0)
    return times.tolist(), [None if gone else _number(value) for value, gone in zip(values, missing, strict=True)]


def _newest(view: RowView, forecasts: list[bytes]) -> dict[str, Any]:
    """The newest forecast's fan, anomaly score and state: of the message where one was seen, else what is pending in the row."""
    if not forecasts:
        return {"fan": pending(view), "anomaly": None, "warming": None}
    told = msgspec.json.decode(forecasts[-1])
    origin_ms, interval_ms = _time_ms(told["time"]), told["interval_ms"] or 0
    quantiles = told["targets"][view.targets[0]]
    leads = len(next(iter(quantiles.values())))
    fan = {"times_ms": [origin_ms + lead * interval_ms for lead in range(1, leads + 1)], "quantiles": quantiles}
    return {"fan": fan if interval_ms else None, "anomaly": told.get("anomaly_score"), "warming": told.get("warming")}


def pending(view: RowView) -> dict[str, Any] | None:
    """The forecasts that a row keeps until they come due, one a rung of the ladder."""
    due = view.row["due_ms"]
    rungs = [rung for rung in np.argsort(due, kind="stable").tolist() if due[rung] > view.row["last_time_ms"]]
    if not rungs or not view.row["count"]:
        return None
    channel = view.channels.index(view.targets[0])
    values = float(view.row["anchor"][channel]) + view.row["pending"][0].astype(np.float64)  # (R, Q)
    quantiles = {f"{level:g}": [_number(values[rung, place]) for rung in rungs] for place, level in enumerate(view.levels)}
    return {"times_ms": [int(due[rung]) for rung in rungs], "quantiles": quantiles}


def past(view: RowView, forecasts: list[bytes]) -> dict[str, Any]:
    """What was forecast earlier, by lead: times that it was for, lowest level, median, highest level."""
    levels = [f"{level:g}" for level in (view.levels[0], 0.5, view.levels[-1])]
    found: dict[int, list[list[Any]]] = {}
    seen: set[str] = set()
    for told in map(msgspec.json.decode, forecasts):
        if told["time"] in seen or not told["interval_ms"]:
            continue  # sent again after an aborted transaction; or its interval is not known yet
        seen.add(told["time"])
        origin_ms, quantiles = _time_ms(told["time"]), told["targets"][view.targets[0]]
        horizon = len(quantiles["0.5"])
        for lead in sorted({1, max(1, horizon // 4), horizon}):
            point = [origin_ms + lead * told["interval_ms"], *(quantiles[level][lead - 1] for level in levels)]
            found.setdefault(lead, []).append(point)
    return {str(lead): points for lead, points in found.items()}


def _shown(name: str) -> bool:
    return name.startswith(("recurd_", "process_resident", "process_start")) and (
        not name.endswith("_bucket") or name.startswith("recurd_source_latency")
    )


def _number(value: Any) -> float | None:
    """A number as JSON has it, short; what is not finite is None."""
    return float(f"{float(value):.6g}") if np.isfinite(value) else None


def _time_ms(text: str) -> int:
    return int(np.datetime64(text.removesuffix("Z"), "ms").astype(np.int64))


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0
