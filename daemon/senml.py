"""SenML (RFC 8428) in JSON: packs with base fields, resolved into readings.

A record of a pack with a number or a boolean (1 or 0) is a reading of the stream that its full name names; strings, data and sums
are passed over. Where a name has several units in a pack, each is a stream of its own, `<name>:<unit>`. With several channels
(`input.values`) the records of one base name and time are one reading of the stream that the base name names, each channel found
by the name after it, or by that and the unit. Times below 2^28 are relative to the Kafka record's timestamp.
No library fits: those that there are neither resolve packs strictly nor are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import nan
from typing import Any, NamedTuple

import msgspec

from daemon.errors import BadRecord

#: The newest version of SenML that this reads (RFC 8428, 4.4).
VERSION = 10
#: Times from here on are absolute (RFC 8428, 4.5.3).
ABSOLUTE_S = float(1 << 28)

_NAME = re.compile(r"[A-Za-z0-9][-:./_A-Za-z0-9]*")


class Element(NamedTuple):
    """One reading as it stands in a record, unchecked."""

    stream: str
    time_ms: float
    values: tuple[float, ...]
    at: int  # place of what it was read from


class _Base(NamedTuple):
    """The base fields in force."""

    name: str = ""
    time_s: float = 0.0
    value: float = 0.0
    unit: str = ""


class _Resolved(NamedTuple):
    """A record with a number, without base fields."""

    base: str
    name: str  # after the base name
    unit: str
    time_ms: float
    number: float
    at: int  # place in the pack

    @property
    def with_unit(self) -> str:
        """The name after the base name, and the unit; one of them may be empty."""
        return f"{self.name}:{self.unit}".strip(":")


def elements(value: bytes, timestamp_ms: int, channels: Mapping[str, str]) -> list[Element]:
    """The readings of a pack, in its order.

    Args:
        value: The pack; its brackets must not nest deeper than the parser's recursion goes.
        timestamp_ms: What relative times are relative to; -1: they cannot be read.
        channels: Names after the base name (or `<name>:<unit>`), by channel; empty: each full name is a stream.

    Raises:
        BadRecord: syntax, type, time or stream_id.
    """
    try:
        pack = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRecord("syntax", str(error)) from None
    if not isinstance(pack, list):
        raise BadRecord("type", "a SenML pack is an array")
    resolved = list(_resolved(pack, timestamp_ms))
    if channels:
        return _joined(resolved, channels)
    units: dict[str, set[str]] = {}
    for one in resolved:
        units.setdefault(one.base + one.name, set()).add(one.unit)
    return [Element(_stream(one, units), one.time_ms, (one.number,), one.at) for one in resolved]


def _stream(one: _Resolved, units: Mapping[str, set[str]]) -> str:
    """The full name; with the unit where it has several in the pack, as a position beside a measurement has."""
    name = one.base + one.name
    return f"{name}:{one.unit}" if one.unit and len(units[name]) > 1 else name


def _resolved(pack: list[Any], timestamp_ms: int) -> Iterator[_Resolved]:
    base = _Base()
    for index, record in enumerate(pack):
        _check(record, index)
        base = _Base(
            _text(record, "bn", base.name, index),
            _number(record, "bt", base.time_s, index),
            _number(record, "bv", base.value, index),
            _text(record, "bu", base.unit, index),
        )
        number = _measured(record, base, index)
        if number is None:
            continue
        name = _text(record, "n", "", index)
        if not _NAME.fullmatch(base.name + name):
            raise BadRecord("stream_id", f"{base.name + name!r} is no name of SenML", index)
        time_ms = _time_ms(base.time_s + _number(record, "t", 0.0, index), timestamp_ms, index)
        yield _Resolved(base.name, name, _text(record, "u", base.unit, index), time_ms, number, index)


def _check(record: Any, index: int) -> None:
    if not isinstance(record, dict):
        raise BadRecord("type", "a record of SenML is an object", index)
    if _number(record, "bver", VERSION, index) > VERSION:
        raise BadRecord("type", f"SenML version {record['bver']}, this reads {VERSION}", index)
    for name in record:
        if name.endswith("_"):
            raise BadRecord("type", f"the field {name!r} must be understood and is not", index)


def _measured(record: dict[str, Any], base: _Base, index: int) -> float | None:
    """The number of a record; None where it has none."""
    if "v" in record:
        return base.value + _number(record, "v", 0.0, index)
    if "vb" in record:
        if not isinstance(record["vb"], bool):
            raise BadRecord("type", f"vb is {record['vb']!r}, no boolean", index)
        return float(record["vb"])
    return None


def _time_ms(time_s: float, timestamp_ms: int, index: int) -> float:
    if time_s >= ABSOLUTE_S:
        return time_s * 1000
    if timestamp_ms == -1:
        raise BadRecord("time", "a relative time, and the record has no timestamp", index)
    return timestamp_ms + time_s * 1000


def _joined(resolved: list[_Resolved], channels: Mapping[str, str]) -> list[Element]:
    """Records of one base name and time as one reading, in the order of the first of each."""
    found: dict[tuple[str, float], dict[str, float]] = {}
    first: dict[tuple[str, float], int] = {}
    for one in resolved:
        for name in {one.name, one.with_unit}.intersection(channels.values()):
            found.setdefault((one.base, one.time_ms), {})[name] = one.number
            first.setdefault((one.base, one.time_ms), one.at)
    return [
        Element(base.rstrip(":/"), time_ms, tuple(numbers.get(name, nan) for name in channels.values()), first[base, time_ms])
        for (base, time_ms), numbers in found.items()
    ]


def _number(record: dict[str, Any], name: str, default: float, index: int) -> float:
    value = record.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecord("type", f"{name} is {value!r}, no number", index)
    try:
        return float(value)
    except OverflowError:
        raise BadRecord("syntax", f"{name} is a number that no float64 holds", index) from None


def _text(record: dict[str, Any], name: str, default: str, index: int) -> str:
    value = record.get(name, default)
    if not isinstance(value, str):
        raise BadRecord("type", f"{name} is {value!r}, no string", index)
    return value
