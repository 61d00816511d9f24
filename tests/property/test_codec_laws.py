"""Laws of the codec: it agrees with a slow second reader, never fails in another way, and rounds as Python formats."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config.settings import InputSettings
from daemon.codec import (
    FIRST_TIME_MS,
    LAST_TIME_MS,
    Decoder,
    encode,
    format_time,
    six_digits,
)
from daemon.digits import write_forecasts
from daemon.errors import BadRecord
from daemon.parsing import MAX_DEPTH
from daemon.records import Reading, Record
from models.engine import QuantileForecasts

TIMESTAMP_MS = 1_795_514_400_000
SETTINGS = InputSettings(max_bytes=4096, max_elements=5)
NESTED = InputSettings(max_elements=5, stream="device.id", time="device.at", values={"t": "values.t", "h": "values.h"})
DECODER, NESTED_DECODER = Decoder(SETTINGS), Decoder(NESTED)

unhurried = settings(deadline=None)  # a busy machine breaks no law

number_literals = st.one_of(
    st.integers(-(10**18), 10**18).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["1e400", "-1e400", "1e15", "1.0000000000000001e15", "-0", "1E+2", "0.1e-400", "9" * 309, "1795514400.5"]),
)
times = st.one_of(
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(datetime.isoformat),
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(lambda time: f"{time:%Y-%m-%dT%H:%M:%S}.5-01:00".zfill(28)),
    st.sampled_from(["2026-11-24T10:00:00Z", "0001-01-01T00:00:00+00:01", "noon", "2026-02-29T00:00:00Z", "2026-11-24"]),
)
texts = st.one_of(st.text(max_size=8), st.sampled_from(["__recurd", "a\x00", "a" * 257, "é" * 256, "\u2028"]), times)
literals = st.recursive(
    st.one_of(number_literals, texts.map(json.dumps), st.sampled_from(["null", "true", "false"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.lists(st.tuples(st.sampled_from(["value", "time", "stream", "id", "t", "h"]), inner), max_size=3).map(
            lambda pairs: object_of(pairs)
        ),
    ),
    max_leaves=6,
)


def object_of(pairs: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {literal}" for name, literal in pairs) + "}"


def mostly(right: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Literals of the right type, with others among them."""
    return st.one_of(right, right, right, literals)


flat = st.lists(
    st.one_of(
        st.tuples(st.just("value"), mostly(st.one_of(number_literals, st.just("null")))),
        st.tuples(st.just("time"), mostly(st.one_of(times.map(json.dumps), number_literals))),
        st.tuples(st.just("stream"), mostly(texts.map(json.dumps))),
        st.tuples(st.text(max_size=3), literals),
    ),
    max_size=4,
).map(object_of)
nested = st.lists(
    st.one_of(
        st.tuples(
            st.just("device"),
            mostly(
                st.lists(st.tuples(st.sampled_from(["id", "at", "x"]), mostly(texts.map(json.dumps))), max_size=3).map(object_of)
            ),
        ),
        st.tuples(
            st.just("values"),
            mostly(st.lists(st.tuples(st.sampled_from(["t", "h"]), mostly(number_literals)), max_size=3).map(object_of)),
        ),
    ),
    max_size=3,
).map(object_of)
keys = st.one_of(st.none(), st.binary(max_size=4), st.just(b"pump-7"))
timestamps = st.sampled_from([TIMESTAMP_MS, -1, LAST_TIME_MS + 1])


def several(elements: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    lists = st.lists(elements, max_size=6).map(lambda parts: f"[{', '.join(parts)}]")
    return st.one_of(elements, lists, literals).map(lambda text: text.encode("utf-8", "surrogatepass"))


def outcome(decoder: Decoder, record: Record) -> tuple[str, Any]:
    """The readings, comparable even where NaN is in them; or the reason and the element at fault."""
    try:
        return "readings", repr(decoder.decode(record))
    except BadRecord as bad:
        return bad.reason, bad.index


class Fault(Exception):
    """The reference's finding: reason and element."""


class Slow:
    """The rules of the codec once more, on the standard library's parser: slow, and written from the rules alone."""

    def __init__(self, settings: InputSettings) -> None:
        self.settings = settings
        self.roles = {tuple(settings.stream.split(".")): "stream", tuple(settings.time.split(".")): "time"}
        self.channels = [tuple(path.split(".")) for path in settings.values.values() or [settings.value]]
        self.roles |= dict.fromkeys(self.channels, "value")

    def outcome(self, record: Record) -> tuple[str, Any]:
        try:
            return "readings", repr(self.readings(record))
        except Fault as fault:
            return fault.args[0], fault.args[1]

    def readings(self, record: Record) -> list[Reading]:
        if not record.value:
            raise Fault("no_value", 0)
        if len(record.value) > self.settings.max_bytes:
            raise Fault("too_large", 0)
        parsed = self.parse(record.value)
        if isinstance(parsed, Pairs) or not isinstance(parsed, list):
            return [self.reading(self.typed(parsed, (), 0), record, 0)]
        found = [self.typed(element, (), index) for index, element in enumerate(parsed)]
        if not 0 < len(found) <= self.settings.max_elements:
            raise Fault("type", self.settings.max_elements if found else 0)
        return [self.reading(fields, record, index) for index, fields in enumerate(found)]

    def parse(self, value: bytes) -> Any:
        def no_constant(literal: str) -> None:
            raise ValueError(literal)

        try:
            parsed = json.loads(
                value.decode(), object_pairs_hook=Pairs, parse_int=Number, parse_float=Number, parse_constant=no_constant
            )
            check(parsed)
        except (ValueError, RecursionError):
            raise Fault("syntax", 0) from None
        return parsed

    def typed(self, part: Any, path: tuple[str, ...], index: int) -> dict[tuple[str, ...], Any]:
        """The mapped fields below `path`, in the order of the document."""
        role = self.roles.get(path)
        if role:
            return {path: self.field(role, part, index)}
        if not isinstance(part, Pairs):
            raise wrong_type(part, index)
        found: dict[tuple[str, ...], Any] = {}
        for name, inner in part:
            below = (*path, name)
            if any(known[: len(below)] == below for known in self.roles):
                found = {known: content for known, content in found.items() if known[: len(below)] != below}
                found |= self.typed(inner, below, index)
        for channel in self.channels:
            if channel[: len(path)] == path and channel not in found:
                raise Fault("type", index)
        return found

    def field(self, role: str, part: Any, index: int) -> Any:
        if role == "stream" and type(part) is str:
            return part
        if role == "value" and part is None:
            return math.nan
        if role == "time" and type(part) is str:
            return parse_time_ms(part, index)
        if role in ("time", "value") and isinstance(part, Number) and math.isfinite(float(part)):
            return float(part) if part != "-0" else 0.0  # an integer has no negative zero
        raise wrong_type(part, index)

    def reading(self, fields: dict[tuple[str, ...], Any], record: Record, index: int) -> Reading:
        by_role = {self.roles[path]: content for path, content in fields.items()}
        try:
            stream = by_role["stream"] if "stream" in by_role else (record.key or b"").decode()
        except UnicodeDecodeError:
            raise Fault("stream_id", index) from None
        if not re.fullmatch("(?!__recurd)[^\x00-\x1f\x7f-\x9f]{1,256}", stream):
            raise Fault("stream_id", index)
        time = by_role.get("time", record.timestamp_ms)
        if isinstance(time, float):
            time = round(time) if abs(time) >= 1e11 else round(time * 1000)
        if not FIRST_TIME_MS <= time <= LAST_TIME_MS or ("time" not in by_role and time == -1):
            raise Fault("time", index)
        values = tuple(fields[channel] for channel in self.channels)
        if any(abs(value) > 1e15 for value in values):
            raise Fault("value", index)
        return Reading(stream, time, values)


def wrong_type(part: Any, index: int) -> Fault:
    return Fault("syntax" if isinstance(part, Number) and math.isinf(float(part)) else "type", index)


class Pairs(list[tuple[str, Any]]):
    """A JSON object."""


class Number(str):
    """A JSON number as it was written."""


def check(part: Any, depth: int = 0) -> None:
    """Raise ValueError for lone surrogates and deep nesting."""
    if isinstance(part, str):
        part.encode()
    elif isinstance(part, list):
        if depth == MAX_DEPTH:
            raise ValueError
        for inner in part:
            if isinstance(part, Pairs):
                check(inner[0], depth)
            check(inner[1] if isinstance(part, Pairs) else inner, depth + 1)


def parse_time_ms(text: str, index: int) -> int:
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:?\d\d)?", text, re.ASCII)
    try:
        if not match:
            raise ValueError
        moment = datetime.fromisoformat(f"{match[1]}T{match[2]}").replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        microseconds = since // timedelta(microseconds=1) + round(float(match[3] or 0) * 1_000_000)
        zone = match[4] or "Z"
        if zone not in "Zz":
            hours, minutes = int(zone[1:3]), int(zone[-2:])
            if hours > 23 or minutes > 59:
                raise ValueError
            microseconds -= (1 if zone[0] == "+" else -1) * (hours * 60 + minutes) * 60_000_000
    except ValueError:
        raise Fault("time", index) from None
    return (microseconds + 500) // 1000


def record(value: bytes | None, key: bytes | None = None, timestamp_ms: int = TIMESTAMP_MS) -> Record:
    return Record("readings", 0, 0, timestamp_ms, key, value)


@unhurried
@given(several(flat), keys, timestamps)
@example(b'{"value": "x", "value": 1, ', b"a", TIMESTAMP_MS)
@example(b'{"value": "x", "x": ' + b"[" * 127 + b"]" * 127 + b"}", b"a", TIMESTAMP_MS)
@example(b'{"value": "x", "x": ' + b"[" * 128 + b"]" * 128 + b"}", b"a", TIMESTAMP_MS)
def test_agrees_with_the_slow_reader(value: bytes, key: bytes | None, timestamp_ms: int) -> None:
    """Readings, reasons and the element at fault are those of a reader that was written from the rules alone."""
    given_record = record(value, key, timestamp_ms)
    assert Slow(SETTINGS).outcome(given_record) == outcome(DECODER, given_record)


@unhurried
@given(several(nested), keys)
def test_agrees_on_nested_channels(value: bytes, key: bytes | None) -> None:
    """The same holds of dotted paths and several channels."""
    assert Slow(NESTED).outcome(record(value, key)) == outcome(NESTED_DECODER, record(value, key))


@unhurried
@given(several(flat), st.data())
def test_agrees_on_damaged_records(value: bytes, data: st.DataObject) -> None:
    """The same holds of records that were damaged on their way."""
    damaged = bytearray(value)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged)))
        junk = data.draw(
            st.one_of(st.binary(max_size=2), st.sampled_from([b'"', b"[", b"}", b"\\", b"\\ud800", b",", b"0", b"\xed\xa0\x80"]))
        )
        damaged[place : place + data.draw(st.integers(0, 2))] = junk
    assert Slow(SETTINGS).outcome(record(bytes(damaged), b"a")) == outcome(DECODER, record(bytes(damaged), b"a"))


@unhurried
@given(st.binary(max_size=200))
def test_agrees_on_any_bytes(value: bytes) -> None:
    """The same holds of any bytes at all: they decode or are a bad record, nothing else."""
    assert Slow(SETTINGS).outcome(record(value, b"a")) == outcome(DECODER, record(value, b"a"))


@unhurried
@given(st.text(alphabet='[]{}",:\\a1', max_size=600), st.sampled_from(["", "[" * 140, '{"a":' * 140, "]" * 140]))
def test_agrees_on_brackets(text: str, more: str) -> None:
    """The same holds of heaps of brackets and quotes."""
    for value in (f"{more}{text}".encode(), f'{{"value": 1, "x": {more}{text}}}'.encode()):
        assert Slow(SETTINGS).outcome(record(value, b"a")) == outcome(DECODER, record(value, b"a"))


sound_ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=256).filter(
    lambda text: not text.startswith("__recurd")
)


@unhurried
@given(sound_ids, st.integers(FIRST_TIME_MS, LAST_TIME_MS), st.floats(-1e15, 1e15))
def test_round_trip(stream: str, time_ms: int, value: float) -> None:
    """A sound reading written as JSON comes back to the bit, and its time as this codec writes times."""
    data = json.dumps({"stream": stream, "time": format_time(time_ms), "value": value}).encode()
    assert repr([Reading(stream, time_ms, (value,))]) == repr(DECODER.decode(record(data)))


@unhurried
@given(st.integers(FIRST_TIME_MS, LAST_TIME_MS))
def test_times_are_written_as_datetime_writes_them(time_ms: int) -> None:
    """`format_time` agrees with the standard library over all years."""
    moment = datetime(1970, 1, 1) + timedelta(milliseconds=time_ms)
    assert moment.isoformat(timespec="milliseconds") + "Z" == format_time(time_ms)


@unhurried
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_six_digits_of_any_number(numbers: list[float]) -> None:
    """Numbers are rounded exactly as Python formats them to six significant digits."""
    assert [float(f"{number:.5e}") for number in numbers] == six_digits(np.array(numbers, np.float64)).tolist()


@unhurried
@given(st.integers(-9_999_999, 9_999_999), st.integers(-40, 40), st.integers(-2, 2))
def test_six_digits_beside_ties(digits: int, exponent: int, steps: int) -> None:
    """The same holds on ties of the sixth digit and on their neighbours in float64."""
    number = float(f"{digits}5e{exponent}")
    for _ in range(abs(steps)):
        number = math.nextafter(number, math.copysign(math.inf, steps))
    assert float(f"{number:.5e}") == six_digits(np.array([number]))[0]


def output_of(quantiles: np.ndarray, scores: np.ndarray, intervals: np.ndarray) -> QuantileForecasts:
    encoded = {"quantiles": quantiles, "interval_ms": intervals, "anomaly_score": scores, "warming": scores > 1}
    return QuantileForecasts(**dict.fromkeys(QuantileForecasts._fields, scores) | encoded)


def rows_of(output: QuantileForecasts, rows: np.ndarray) -> QuantileForecasts:
    return QuantileForecasts(*(column[rows] for column in output))


@unhurried
@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.data())
def test_bytes_do_not_depend_on_the_batch(rows: int, seed: int, data: st.DataObject) -> None:
    """A row's bytes are the same alone, among others and in any order, whatever stands beside it."""
    rng = np.random.default_rng(seed)
    quantiles = rng.normal(0, 1, (rows, 2, 5, 3)) * 10.0 ** rng.integers(-30, 30, (rows, 2, 5, 3))
    quantiles[rng.random(quantiles.shape) < 0.1] = math.nan
    output = output_of(quantiles, rng.normal(0, 3, rows), rng.integers(0, 9, rows))
    streams, time_ms = [f"s{i}" for i in range(rows)], rng.integers(FIRST_TIME_MS, LAST_TIME_MS, rows)
    together = encode(output, streams, time_ms, ["a", "b"], [0.1, 0.5, 0.9], "v")
    some = np.array(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=5)))
    apart = encode(rows_of(output, some), [streams[i] for i in some], time_ms[some], ["a", "b"], [0.1, 0.5, 0.9], "v")
    assert [together[i] for i in some] == apart


@unhurried
@given(
    st.lists(
        st.one_of(
            st.floats(),
            st.sampled_from([0.0, 1e-5, 9.999995e-6, 9.999999e15, 1e16, 99999.95, 999999.5]),
            st.decimals(-9, 9, places=4).map(float),
        ),
        min_size=3,
        max_size=40,
    ),
    st.lists(sound_ids, min_size=1, max_size=9),
    st.integers(FIRST_TIME_MS, LAST_TIME_MS),
    st.integers(-(2**63), 2**63 - 1),
)
def test_forecasts_are_written_as_by_the_libraries(
    numbers: list[float], streams: list[str], time_ms: int, interval_ms: int
) -> None:
    """The compiled text is that of orjson, msgspec and numpy: every number, id, time and interval."""
    targets, levels = ("a", '%b"\0'), (0.1, 0.5, 0.9)
    quantiles = np.resize(np.array(numbers), (len(streams), 2, 5, 3))
    scores = np.resize([number if number == 0 or 1e-5 < abs(number) < 1e15 else math.nan for number in numbers], len(streams))
    output = output_of(quantiles, scores, np.full(len(streams), interval_ms))
    encoded = encode(output, streams, np.full(len(streams), time_ms), targets, levels, "v\n")
    for i, stream in enumerate(streams):
        fans = [dict(zip(map(repr, levels), six_digits(fan).T.tolist(), strict=True)) for fan in quantiles[i]]
        expected = {
            "stream": stream,
            "time": format_time(time_ms),
            "interval_ms": interval_ms or None,
            "model_version": "v\n",
            "targets": dict(zip(targets, fans, strict=True)),
            "anomaly_score": float(six_digits(scores[i : i + 1])[0]),
            "warming": bool(scores[i] > 1),
        }
        assert orjson.dumps(expected) == encoded[i]


@unhurried
@given(st.integers(-5, 15), st.integers(100_000, 999_999))
def test_plain_numbers_are_written_compiled(exponent: int, digits: int) -> None:
    """What needs no exponent does not take the long way."""
    number, zero, none = np.array([float(f"{digits}e{exponent - 5}")]), np.zeros(1, np.int64), np.zeros(0, np.uint8)
    ids = np.frombuffer(b"\n", np.uint8)
    text, ends = np.zeros(200, np.uint8), np.zeros(1, np.int64)
    fan, warming = number.reshape(1, 1, 1, 1), np.zeros(1, bool)
    write_forecasts(none, np.zeros(7, np.int64), ids, zero, zero, fan, number, warming, text, ends)
    assert orjson.dumps(float(number[0])) * 2 in text[: ends[0]].tobytes()


@unhurried
@given(sound_ids, st.integers(0, 2**32 - 1))
def test_forecasts_are_json_with_six_digits(stream: str, seed: int) -> None:
    """What goes out is JSON, holds what went in, and every number has at most six significant digits."""
    rng = np.random.default_rng(seed)
    quantiles = rng.normal(0, 1, (1, 1, 4, 3)) * 10.0 ** rng.integers(-300, 300)
    output = output_of(quantiles, rng.normal(0, 3, 1), np.array([1000]))
    (encoded,) = encode(output, [stream], np.array([TIMESTAMP_MS]), ["a"], [0.1, 0.5, 0.9], "v")
    decoded = json.loads(encoded, parse_float=lambda literal: check_digits(literal) and float(literal))
    assert stream == decoded["stream"]
    fan = [[float(f"{number:.5e}") for number in level] for level in quantiles[0, 0].T]
    assert dict(zip(["0.1", "0.5", "0.9"], fan, strict=True)) == decoded["targets"]["a"]


def check_digits(literal: str) -> bool:
    digits = re.sub(r"[eE].*|[-.]", "", literal).lstrip("0").rstrip("0")
    assert len(digits) <= 6, literal
    return True
