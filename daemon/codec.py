"""Bytes to readings and forecasts to bytes: the stages decode and encode.

Pure: what comes out depends on the arguments alone, never on a clock, on other records or on who else is in the batch. This
room knows what a sound reading is and how a forecast is written; it knows no Kafka client, no order of readings and no state.
How JSON is parsed is in `daemon.parsing`; whether a sound reading is late, a duplicate or from the future, in `daemon.batch`.

Rules of decode, in the order in which they are checked (the first broken one names the reason):

1. `no_value`  the value is absent or empty.
2. `too_large` it is longer than `input.max_bytes`; such a value is never parsed.
3. `syntax`    it is not JSON as in RFC 8259: other literals (`NaN`), bytes that are no UTF-8, lone surrogates, or brackets that
               nest deeper than `MAX_DEPTH`, anywhere in it.
4. `type`      it is JSON, but not one reading or a list of 1 to `input.max_elements` of them: a required field is missing, or a
               field has another type. Every channel is required; `null` is a missing value. Booleans are no numbers. Stream ids
               are strings. A `null` stream or time is not an absent one.
   `time`      in the same pass: the time is a string, but no RFC 3339 time.
   `syntax`    in the same pass: a field that a setting names, or an element, is a number that no float64 can hold (`1e400`).
5. Then element by element, in each: `stream_id`, `time`, `value`.

Fields that no setting names are ignored. Where a key repeats in an object, the last one counts, and all must have the type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, UnsetType

from config.settings import InputSettings
from daemon import influx, ordinary, senml
from daemon.chunks import Chunk
from daemon.digits import NUMBER_BYTES, ROW_BYTES, six_digits_or_unsure, write_forecasts
from daemon.errors import BadRecord
from daemon.ordinary import (
    LEAST_CHANNEL_BYTES,
    LEAST_READING_BYTES,
    MOST_FIELDS,
    OFFSET,
    TIMESTAMP,
    VALUE,
    VALUE_END,
    read_readings,
)
from daemon.parsing import Parser, shallow
from daemon.records import DeadLetter, Reading, Record
from daemon.senml import Element
from models.engine import QuantileForecasts

RESERVED_PREFIX, MAX_ID_CHARACTERS = ordinary.RESERVED_PREFIX, ordinary.MAX_ID_CHARACTERS
#: Larger magnitudes are no measurements, and their squares would leave float32.
MAX_MAGNITUDE = 1e15
FIRST_MS, FIRST_TIME_MS, LAST_TIME_MS = ordinary.FIRST_MS, ordinary.FIRST_TIME_MS, ordinary.LAST_TIME_MS
_NEVER_MS = LAST_TIME_MS + 1

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
# Half a millisecond before the epoch: the floor of a difference from it is the nearest millisecond.
_ROUND_NAIVE = datetime(1970, 1, 1) - timedelta(microseconds=500)
_ROUND_UTC = _ROUND_NAIVE.replace(tzinfo=UTC)
# `Reading(...)` runs Python code for each reading; this costs 0.2 us less.
_new = tuple.__new__
_dump = msgspec.json.Encoder().encode


class Decoded(NamedTuple):
    """R readings of N records, in log order, as columns."""

    records: Sequence[Record]
    streams: list[str]
    time_ms: np.ndarray  # int64 (R,)
    values: np.ndarray  # float64 (R, C), NaN is missing
    record: np.ndarray  # int64 (R,), which of the records
    element: np.ndarray  # int64 (R,), place in that record
    offset: np.ndarray  # int64 (R,), of that record
    timestamp_ms: np.ndarray  # int64 (R,), of that record; -1 where it has none

    @classmethod
    def of(cls, decoded: Sequence[tuple[Record, Sequence[Reading]]], channels: int) -> Decoded:
        """What `Decoder.decode` gave of each record."""
        chunk = Chunk.of([record for record, _ in decoded])
        several = [readings for _, readings in decoded]
        counts = np.fromiter(map(len, several), np.int64, len(several))
        return cls.made(chunk, counts, _Columns.of(list(chain.from_iterable(several)), channels))

    @classmethod
    def made(cls, chunk: Chunk, counts: np.ndarray, columns: _Columns) -> Decoded:
        """Readings of a chunk's N records, in their order, so many of each: `counts`, int64 (N,)."""
        record = np.repeat(np.arange(len(chunk)), counts)
        element = np.arange(len(record)) - np.repeat(np.cumsum(counts) - counts, counts)
        offset, timestamp_ms = chunk.columns[:, (OFFSET, TIMESTAMP)][record].T
        return cls(chunk, *columns, record, element, offset, timestamp_ms)


class _Columns(NamedTuple):
    """R readings as columns."""

    streams: list[str]
    time_ms: np.ndarray  # int64 (R,)
    values: np.ndarray  # float64 (R, C)

    @classmethod
    def of(cls, readings: Sequence[Reading], channels: int) -> _Columns:
        streams, times_ms, values = zip(*readings, strict=True) if readings else ((), (), ())
        numbers = np.fromiter(chain.from_iterable(values), np.float64, len(readings) * channels)
        return cls(list(streams), np.array(times_ms, np.int64), numbers.reshape(len(readings), channels))

    def among(self, others: _Columns, is_other: np.ndarray) -> _Columns:
        """These readings and others, where `is_other` says, bool (R,); both stay in order."""
        place = np.empty(len(is_other), np.int64)
        place[~is_other] = np.arange(len(self.streams))
        place[is_other] = np.arange(len(self.streams), len(is_other))
        streams = self.streams + others.streams
        columns = (np.concatenate(pair)[place] for pair in zip(self[1:], others[1:], strict=True))
        return _Columns([streams[i] for i in place.tolist()], *columns)


class Decoder:
    """Turns records into readings, as the input settings map their fields.

    Raises:
        SettingsError: Two settings name one field, or a path that no JSON object of ours can have.
    """

    def __init__(self, settings: InputSettings) -> None:
        parser = Parser(settings)
        self._parse, self._fields = parser.parse, parser.fields
        self._max_bytes = settings.max_bytes
        self._max_elements = settings.max_elements
        self._elements = _elements_of(settings)  # of another format than JSON
        self._channels = max(len(settings.values), 1)
        paths = [settings.stream, settings.time, *(settings.values.values() or [settings.value])]
        names = [path.encode() for path in paths]
        self._names = np.frombuffer(b"".join(names), np.uint8), np.cumsum(list(map(len, names)))
        self._is_flat = self._elements is None and len(paths) <= MOST_FIELDS and not any("." in path for path in paths)

    def decode_all(self, records: Sequence[Record]) -> tuple[Decoded, list[DeadLetter]]:
        """The readings of many records, which `decode` gives of each, in their order; and the records that it refuses."""
        chunk = Chunk.of(records)
        columns, counts = self._ordinary(chunk)
        left = np.flatnonzero(counts == 0)
        if not len(left):
            return Decoded.made(chunk, counts, columns), []
        several, dead = [], []
        for record in chunk.records(left):
            try:
                several.append(self.decode(record))
            except BadRecord as bad:
                several.append([])
                dead.append(DeadLetter(record, bad.index, bad.reason, str(bad)))
        others = _Columns.of(list(chain.from_iterable(several)), self._channels)
        is_other = counts == 0
        counts[left] = np.fromiter(map(len, several), np.int64, len(several))
        if columns.streams:
            others = columns.among(others, np.repeat(is_other, counts))
        return Decoded.made(chunk, counts, others), dead

    def _ordinary(self, chunk: Chunk) -> tuple[_Columns, np.ndarray]:
        """The readings of the records that are ordinary, and how many each has, int64 (N,): 0 where it is not."""
        counts = np.zeros(len(chunk), np.int64)
        if not (self._is_flat and chunk.is_text):
            return _Columns.of([], self._channels), counts
        starts, ends, timestamp_ms = np.ascontiguousarray(chunk.columns.T[[VALUE, VALUE_END, TIMESTAMP]])
        size = int((ends - starts).sum())
        rows = size // (LEAST_READING_BYTES + (self._channels - 1) * LEAST_CHANNEL_BYTES) + len(chunk) + 1
        time_ms, values = np.empty(rows, np.int64), np.empty((rows, self._channels))
        unsure, ids = np.empty((rows * self._channels, 3), np.int64), np.empty(size + 1, np.uint8)
        limits = (self._max_bytes, self._max_elements)
        out = (counts, time_ms, values, unsure, ids)
        count, doubts, used = read_readings(chunk.data, starts, ends, timestamp_ms, *self._names, *limits, *out)
        for place, start, end in unsure[:doubts].tolist():
            values.flat[place] = float(chunk.data[start:end].tobytes())
        streams = ids[:used].tobytes().decode().split("\n")[:-1]
        return _Columns(streams, time_ms[:count], values[:count]), counts

    def decode(self, record: Record) -> list[Reading]:
        """The record's readings in its own order, at least one.

        Every record either decodes or raises BadRecord, and which of the two is a function of its bytes and timestamp.

        Raises:
            BadRecord: Some element is bad, `index` says which where that is known; then the record gives no reading.
        """
        value = record.value
        if not value:
            raise BadRecord("no_value", "the record has no value")
        if len(value) > self._max_bytes:
            raise BadRecord("too_large", f"the value has {len(value)} bytes, input.max_bytes is {self._max_bytes}")
        if self._elements is not None:
            return self._checked(self._elements(value, record.timestamp_ms), record)
        parsed = self._parse(value)
        if type(parsed) is not list:
            return [self._reading(parsed, record, 0)]
        if not 0 < len(parsed) <= self._max_elements:
            raise _wrong_count(len(parsed), self._max_elements)
        return [self._reading(element, record, index) for index, element in enumerate(parsed)]

    def _checked(self, elements: Sequence[Element], record: Record) -> list[Reading]:
        """Elements of another format as readings, after the checks that all readings pass."""
        if not elements:
            raise BadRecord("type", "there is no number in it that would be a reading")
        if len(elements) > self._max_elements:
            raise _wrong_count(len(elements), self._max_elements)
        return [_as_reading(element, record) for element in elements]

    def _reading(self, element: Any, record: Record, index: int) -> Reading:
        """The reading of one parsed element."""
        fields = self._fields(element)
        stream, time, values = fields[0], fields[1], fields[2:]
        if stream is UNSET:
            stream = _id_of_key(record.key, index)
        if not stream or len(stream) > MAX_ID_CHARACTERS or stream[:8] == RESERVED_PREFIX or not stream.isprintable():
            check_id(stream, index)
        if type(time) is datetime:
            since = time - (_ROUND_UTC if time.tzinfo else _ROUND_NAIVE)
            time_ms = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
        else:
            time_ms = _time_ms(time, record.timestamp_ms)
        if not FIRST_TIME_MS <= time_ms <= LAST_TIME_MS:
            raise _no_time(time, record.timestamp_ms, index)
        for value in values:
            if value is None or value > MAX_MAGNITUDE or value < -MAX_MAGNITUDE:
                values = _measured(values, index)
                break
        return _new(Reading, (stream, time_ms, values))


def _elements_of(settings: InputSettings) -> Callable[[bytes, int], list[Element]] | None:
    """What reads a format that is not JSON: a value and its record's timestamp -> elements."""
    if settings.format == "senml":
        return lambda value, timestamp_ms: senml.elements(shallow(value), timestamp_ms, settings.values)
    if settings.format == "influx":
        return lambda value, timestamp_ms: influx.elements(value, timestamp_ms, settings.stream, settings.value, settings.values)
    return None


def _as_reading(element: Element, record: Record) -> Reading:
    check_id(element.stream, element.at)
    if not FIRST_TIME_MS <= element.time_ms <= LAST_TIME_MS:
        raise _no_time(element.time_ms, record.timestamp_ms, element.at)
    for value in element.values:
        if math.isinf(value) or abs(value) > MAX_MAGNITUDE:
            raise BadRecord("value", f"the value {value!r} is beyond {MAX_MAGNITUDE:g}", element.at)
    return Reading(element.stream, round(element.time_ms), element.values)


def _time_ms(time: float | UnsetType, timestamp_ms: int) -> int:
    """Epoch milliseconds, to the nearest, of a number or in the place of an absent time; unchecked, beyond all years for none.

    A number is seconds where its magnitude is below `FIRST_MS`, otherwise milliseconds.
    """
    if isinstance(time, float):
        if -FIRST_MS < time < FIRST_MS:
            return round(time * 1000)
        return round(time) if abs(time) <= MAX_MAGNITUDE else _NEVER_MS  # an integer of 300 digits helps nobody
    return timestamp_ms if timestamp_ms != -1 else _NEVER_MS


def _no_time(time: datetime | float | UnsetType, timestamp_ms: int, index: int) -> BadRecord:
    if time is UNSET and timestamp_ms == -1:
        return BadRecord("time", "neither the reading nor the record has a time", index)
    return BadRecord("time", f"the time {timestamp_ms if time is UNSET else time} is outside the years 1 to 9999", index)


def _measured(values: Sequence[float | None], index: int) -> tuple[float, ...]:
    """The values with NaN for the missing ones, after a look at each."""
    for value in values:
        if value is not None and abs(value) > MAX_MAGNITUDE:
            raise BadRecord("value", f"the value {value!r} is beyond {MAX_MAGNITUDE:g}", index)
    return tuple(math.nan if value is None else value for value in values)


def _id_of_key(key: bytes | None, index: int) -> str:
    """The record's key as a stream id."""
    if key is None:
        raise BadRecord("stream_id", "neither the reading nor the record's key names the stream", index)
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise BadRecord("stream_id", "the record's key, which names the stream, is not UTF-8", index) from None


def check_id(stream: str, index: int) -> None:
    """Raise BadRecord unless `stream` may name a stream; what is not printable is not yet a control character."""
    if not stream:
        raise BadRecord("stream_id", "the stream id is empty", index)
    if len(stream) > MAX_ID_CHARACTERS:
        raise BadRecord("stream_id", f"the stream id has {len(stream)} characters, more than {MAX_ID_CHARACTERS}", index)
    if stream.startswith(RESERVED_PREFIX):
        raise BadRecord("stream_id", f"the stream id {stream!r} begins with the reserved {RESERVED_PREFIX}", index)
    if _CONTROL.search(stream):
        raise BadRecord("stream_id", f"the stream id {stream!r} has a control character", index)


def _wrong_count(count: int, max_elements: int) -> BadRecord:
    if count == 0:
        return BadRecord("type", "the list is empty: it holds no reading")
    return BadRecord("type", f"the list has {count} elements, input.max_elements is {max_elements}", max_elements)


def format_time(time_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds, such as `2026-11-24T10:00:00.000Z`, of a time in the years 1 to 9999."""
    return format_times(np.array([time_ms]))[0]


def format_times(time_ms: np.ndarray) -> list[str]:
    """`format_time` of each; in numpy, because it costs a fifth of `datetime.isoformat`."""
    texts: list[str] = np.datetime_as_string(time_ms.astype("datetime64[ms]"), unit="ms", timezone="UTC").tolist()
    return texts


class _Forecast(msgspec.Struct):
    """One record of the topic `forecasts`. What differs from row to row is filled in later."""

    stream: msgspec.Raw
    time: msgspec.Raw
    interval_ms: msgspec.Raw
    model_version: str
    targets: dict[str, dict[str, msgspec.Raw]]
    anomaly_score: msgspec.Raw
    warming: msgspec.Raw


@lru_cache(maxsize=64)
def _pieces(targets: tuple[str, ...], levels: tuple[float, ...], model_version: str) -> tuple[np.ndarray, np.ndarray]:
    """A forecast without what is a row's own, in the order of `_Forecast`: its pieces, uint8, and where each ends, int64."""
    own = b"\0"  # in no JSON: strings have it escaped
    part = msgspec.Raw(own)
    fan = {repr(float(level)): msgspec.Raw(b"[%b]" % own) for level in levels}
    pieces = _dump(_Forecast(part, part, part, model_version, dict.fromkeys(targets, fan), part, part)).split(own)
    return np.array(list(b"".join(pieces)), np.uint8), np.cumsum(list(map(len, pieces)))


def encode(
    output: QuantileForecasts,
    streams: Sequence[str],
    time_ms: np.ndarray,
    targets: Sequence[str],
    levels: Sequence[float],
    model_version: str,
) -> list[bytes]:
    """One record value for each of the B rows of an output, in their order: JSON, numbers to six significant digits.

    A number that is not finite becomes null. A row's bytes do not depend on the rows beside it.

    Args:
        output: Forecasts of T targets, K leads and Q levels.
        streams: B stream ids, sound (`check_id`).
        time_ms: Times of the readings that the rows follow, int64 (B,), in the years 1 to 9999.
        targets: The T names.
        levels: The Q quantile levels.
        model_version: What made the output.

    Raises:
        ValueError: The output is of another shape.
    """
    count, targets_count, leads, levels_count = output.quantiles.shape
    if (count, targets_count, levels_count) != (len(streams), len(targets), len(levels)):
        wanted = f"{len(streams)} streams, {len(targets)} targets and {len(levels)} levels"
        raise ValueError(f"quantiles of shape {output.quantiles.shape} for {wanted}")
    if not count:
        return []
    ids = np.frombuffer(("\n".join(streams) + "\n").encode(), np.uint8)
    form, cuts = _pieces(tuple(targets), tuple(levels), model_version)
    numbers = targets_count * levels_count * leads + 1
    text = np.empty(count * (len(form) + ROW_BYTES + numbers * NUMBER_BYTES) + 2 * len(ids), np.uint8)
    ends = np.empty(count, np.int64)
    rows = map(np.ascontiguousarray, (time_ms, output.interval_ms, output.quantiles, output.anomaly_score, output.warming))
    write_forecasts(form, cuts, ids, *rows, text, ends)  # type: ignore[call-arg]
    stops = [0, *ends.tolist()]
    data = text[: stops[-1]].tobytes()
    values = [data[start:end] for start, end in pairwise(stops)]
    if not all(values):
        left = [i for i, value in enumerate(values) if not value]
        some = QuantileForecasts(*(column[left] for column in output))
        for i, value in zip(left, _of_any_numbers(some, [streams[i] for i in left], time_ms[left], form, cuts), strict=True):
            values[i] = value
    return values


def _of_any_numbers(
    output: QuantileForecasts, streams: Sequence[str], time_ms: np.ndarray, form: np.ndarray, cuts: np.ndarray
) -> list[bytes]:
    """Forecasts of any numbers at all, by orjson: those that `write_forecasts` leaves out."""
    fans, leads = len(cuts) - 6, output.quantiles.shape[2]
    numbers = six_digits(output.quantiles.transpose(0, 1, 3, 2)).reshape(-1, leads)  # (B T Q, K)
    # All rows' numbers in one call, then cut: one list a row, target and level.
    lists = iter(orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],["))
    rows = zip(
        map(_dump, streams),
        map(_dump, format_times(time_ms)),
        [_dump(interval_ms or None) for interval_ms in output.interval_ms.tolist()],
        *[lists] * fans,
        map(_dump, six_digits(output.anomaly_score).tolist()),
        map(_dump, output.warming.tolist()),
        strict=True,
    )
    pieces = [form[start:end].tobytes() for start, end in pairwise([0, *cuts.tolist()])]
    return [b"".join(chain.from_iterable(zip(pieces, (*row, b""), strict=True))) for row in rows]


def six_digits(numbers: np.ndarray) -> np.ndarray:
    """The float64 nearest to each number's decimal of six significant digits; a new array of the same shape.

    Equal to `float(f"{x:.5e}")` for every finite x, but -0 becomes 0; what is not finite becomes NaN. Where the quick way of
    `daemon.digits` cannot be trusted, the decimal itself is asked.
    """
    flat = np.ascontiguousarray(numbers, np.float64).ravel()
    rounded, unsure = np.empty_like(flat), np.empty(flat.size, bool)
    if six_digits_or_unsure(flat, rounded, unsure):
        (places,) = np.nonzero(unsure & np.isfinite(flat))
        rounded[places] = [float(f"{number:.5e}") for number in flat[places].tolist()]
    return rounded.reshape(numbers.shape)


def source_header(partition: int, offset: int, index: int) -> bytes:
    """The header `source`: the input position of the reading that an output follows."""
    return b"%d,%d,%d" % (partition, offset, index)
