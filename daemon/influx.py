"""Influx line protocol, version 2, resolved into readings: `measurement,tag=value field=1.5 1556813561098000000`.

A line's stream is the value of the tag that `input.stream` names, or else its series: the measurement and its tags, sorted. Its
value is the field that `input.value` names; a line without that field gives a reading for every number in it, each a stream of
its own, `<stream>:<field>`. With several channels (`input.values`) a line is one reading. Timestamps are told apart by magnitude:
nanoseconds from 1e17 on, microseconds from 1e14, milliseconds from 1e11, else seconds; absent: the Kafka record's.
The parser that is kept is for one line and has no word for what is wrong with it, nor for timestamps but nanoseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import nan

from daemon.errors import BadRecord
from daemon.senml import Element

# Every repetition keeps what it took (`++`): an escape is one in any case, and no line is tried in two ways. A bad line could
# otherwise be read in twice as many ways with each escape in it, and its time doubles so.
_KEY = r"(?:\\[, =]|[^, =\n])++"
_VALUE = r'"(?:[^"\\]|\\.)*+"|[^, "\r\n]++'
_LINE = re.compile(
    rf"[ \t]*+(?P<measurement>(?:\\[, ]|[^, \n])++)(?P<tags>(?:,{_KEY}={_KEY})*+) ++"
    rf"(?P<fields>{_KEY}=(?:{_VALUE})(?:,{_KEY}=(?:{_VALUE}))*+)(?: ++(?P<time>-?\d++))?+ *+\r?(?:\n|\Z)",
    re.DOTALL,
)
_TAG = re.compile(rf",({_KEY})=({_KEY})")
_FIELD = re.compile(rf"({_KEY})=({_VALUE})", re.DOTALL)
_SKIPPED = re.compile(r"(?:[ \t]*+(?:#[^\n]*+)?+\r?\n)++|[ \t]*+(?:#[^\n]*+)?+\Z")
_ESCAPED, _ESCAPED_IN_MEASUREMENT = re.compile(r"\\([, =])"), re.compile(r"\\([, ])")
_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_INTEGER = re.compile(r"[-+]?\d+i|\+?\d+u")
_TRUE, _FALSE = ("t", "T", "true", "True", "TRUE"), ("f", "F", "false", "False", "FALSE")
_SECONDS, _MILLISECONDS, _MICROSECONDS = 10**11, 10**14, 10**17


def elements(value: bytes, timestamp_ms: int, stream: str, field: str, channels: Mapping[str, str]) -> list[Element]:
    """The readings of the lines of a record, in order.

    Args:
        value: The lines.
        timestamp_ms: The time of lines without one; -1: they cannot be read.
        stream: The tag that names the stream.
        field: The field that is the value, where a reading has one.
        channels: The fields, by channel, where it has several; a missing one is a missing value.

    Raises:
        BadRecord: syntax, or time.
    """
    found: list[Element] = []
    for index, line in enumerate(_lines(value)):
        tags = dict(_TAG.findall(line["tags"]))
        series = "".join(f",{key}={tags[key]}" for key in sorted(tags, key=_plain))
        named = next((_plain(text) for key, text in tags.items() if _plain(key) == stream), None)
        name = named or _ESCAPED_IN_MEASUREMENT.sub(r"\1", line["measurement"]) + _plain(series)
        time_ms = _time_ms(line["time"], timestamp_ms, index)
        fields = {_plain(key): _number(text, index) for key, text in _FIELD.findall(line["fields"])}
        found += [Element(id, time_ms, values, index) for id, values in _values(name, fields, field, channels)]
    return found


def _values(
    name: str, fields: Mapping[str, float | bool | None], field: str, channels: Mapping[str, str]
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Stream and values of each reading of a line; strings are none, booleans are 1 and 0 where they are asked for."""
    if channels:
        numbers = [fields.get(path) for path in channels.values()]
        if any(number is not None for number in numbers):
            yield name, tuple(nan if number is None else float(number) for number in numbers)
    elif fields.get(field) is not None:
        yield name, (float(fields[field] or 0.0),)
    else:
        for key, number in fields.items():
            if number is not None and not isinstance(number, bool):
                yield f"{name}:{key}", (number,)


def _lines(value: bytes) -> Iterator[re.Match[str]]:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise BadRecord("syntax", f"not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from None
    at = index = 0
    while at < len(text):
        skipped = _SKIPPED.match(text, at)
        if skipped and skipped.end() > at:
            at = skipped.end()
            continue
        line = _LINE.match(text, at)
        if line is None:
            raise BadRecord("syntax", f"no line of line protocol: {text[at : at + 80]!r}", index)
        yield line
        at, index = line.end(), index + 1


def _number(text: str, index: int) -> float | bool | None:
    """A field's number or boolean; None where it is a string."""
    if text.startswith('"'):
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INTEGER.fullmatch(text):
        return float(text[:-1])
    raise BadRecord("syntax", f"{text[:80]!r} is no number, string or boolean", index)


def _time_ms(text: str | None, timestamp_ms: int, index: int) -> float:
    if text is None:
        if timestamp_ms == -1:
            raise BadRecord("time", "neither the line nor the record has a time", index)
        return timestamp_ms
    if len(text) > 25:
        raise BadRecord("time", f"the time {text[:80]} is outside the years 1 to 9999", index)
    time = int(text)
    if abs(time) < _SECONDS:
        return time * 1000
    if abs(time) < _MILLISECONDS:
        return time
    return (time + 500) // 1000 if abs(time) < _MICROSECONDS else (time + 500_000) // 1_000_000


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
