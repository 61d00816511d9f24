"""Records that must become dead letters, each with the reason that must be given for it.

Made for the default field mapping (`stream`, `time`, `value`) from a seed, without the decoder: what is expected is written
down here by hand. Used by the unit tests of the codec and by the tests that mix thousands of bad records into good ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import NamedTuple

from daemon.records import Record

#: 2026-11-24T10:00:00Z, the time of every sound reading in here unless the caller gives another.
NOON_MS = 1_795_514_400_000
TIME_2099_MS = 4_070_908_800_000


class BadInput(NamedTuple):
    """A key and a value that no forecast may come from."""

    case: str  # the name of the case, for messages of tests
    key: bytes | None
    value: bytes | None
    reasons: frozenset[str]  # words of daemon.errors.REASONS, one of which must be given
    element: int = 0  # the element at fault, where the record is a list and the fault has a place

    def record(self, topic: str = "readings", partition: int = 0, offset: int = 0, timestamp_ms: int = NOON_MS) -> Record:
        """The input as a record at a position."""
        return Record(topic, partition, offset, timestamp_ms, self.key, self.value)


class _Draw(NamedTuple):
    """What a case may draw from."""

    rng: random.Random
    max_bytes: int
    max_elements: int
    time_ms: int

    def reading(self, **fields: object) -> dict[str, object]:
        """A sound reading of a random stream, with `fields` in place of its own."""
        sound = {"stream": f"bad-{self.rng.randrange(50)}", "time": self.time_ms, "value": round(self.rng.gauss(20, 5), 3)}
        return sound | fields

    def raw(self, literal: str, field: str = "value") -> bytes:
        """A reading with JSON of the caller's for one of its fields."""
        return _dump(self.reading(**{field: "@"})).replace(b'"@"', literal.encode())


def bad_records(
    seed: int, n: int, max_bytes: int = 1_048_576, max_elements: int = 1000, time_ms: int = NOON_MS, large_every: int = 500
) -> list[BadInput]:
    """`n` bad inputs: every case in turn, then again with other draws, in random order.

    Args:
        seed: Equal seeds and arguments give equal inputs.
        n: How many; at least `len(CASES)` for every case to be there.
        max_bytes: The setting `input.max_bytes`, at least 4096; some inputs are just larger, others exactly as large.
        max_elements: The setting `input.max_elements`.
        time_ms: Time of sound readings; within an hour of the timestamps that the records will get, except in `future`.
        large_every: Inputs of about `max_bytes` come once in so many, so that ten thousand inputs fit into memory.
    """
    draw = _Draw(random.Random(seed), max_bytes, max_elements, time_ms)
    large = [name for name in CASES if name in LARGE]
    small = [name for name in CASES if name not in LARGE]
    names = [*small, *large][:n]
    while len(names) < n:
        group, turn = (large, len(names) // large_every) if len(names) % large_every == 0 else (small, len(names))
        names.append(group[turn % len(group)])
    draw.rng.shuffle(names)
    return [CASES[name](draw)._replace(case=name) for name in names]


def padded(value: bytes, size: int) -> bytes:
    """The JSON `value` with spaces behind it, exactly `size` bytes."""
    return value + b" " * (size - len(value))


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


def _bad(reason: str, value: bytes | None, key: bytes | None = b"bad-key", element: int = 0) -> BadInput:
    return BadInput("", key, value, frozenset({reason}), element)


def _of(reason: str, *literals: str, field: str = "value") -> Callable[[_Draw], BadInput]:
    """A case: one of the JSON literals in place of a field's value."""
    return lambda draw: _bad(reason, draw.raw(draw.rng.choice(literals), field))


def _bytes(reason: str, *values: bytes | None) -> Callable[[_Draw], BadInput]:
    """A case: one of the values as it stands."""
    return lambda draw: _bad(reason, draw.rng.choice(values))


def _without(reason: str, field: str, key: bytes | None = b"bad-key") -> Callable[[_Draw], BadInput]:
    """A case: a reading without one of its fields."""
    return lambda draw: _bad(reason, _dump({name: part for name, part in draw.reading().items() if name != field}), key)


def _among_sound(reason: str, *literals: str, field: str = "value") -> Callable[[_Draw], BadInput]:
    """A case: one bad element in a list of sound ones."""

    def case(draw: _Draw) -> BadInput:
        elements = [_dump(draw.reading()) for _ in range(draw.rng.randint(1, min(20, draw.max_elements - 1)))]
        element = draw.rng.randint(0, len(elements))
        elements.insert(element, draw.raw(draw.rng.choice(literals), field))
        return _bad(reason, b"[" + b",".join(elements) + b"]", element=element)

    return case


def _truncated(draw: _Draw) -> BadInput:
    value = _dump(draw.reading())
    return _bad("syntax", value[: draw.rng.randint(1, len(value) - 1)])


def _bomb(draw: _Draw) -> BadInput:
    """Brackets as deep as the size allows, or just too deep to be read; closed, left open, or hidden in an ignored field."""
    opening, closing = draw.rng.choice([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
    depth = min(draw.rng.choice([129, 400, 1000, 1_000_000]), draw.max_bytes // 16)
    nested = opening * depth + "1" + closing * depth * draw.rng.randint(0, 1)
    if draw.rng.random() < 0.5:
        nested = _dump(draw.reading(extra="@")).decode().replace('"@"', nested)
    return _bad("syntax", nested.encode())


def _many_digits(draw: _Draw) -> BadInput:
    """An integer of a million digits, or of as many as the size allows."""
    return _bad("syntax", draw.raw("-" * draw.rng.randint(0, 1) + "9" * min(1_000_000, draw.max_bytes - 200)))


def _not_utf8(draw: _Draw) -> BadInput:
    """Bytes that are no UTF-8 in the stream, in a field's name or in a field that nobody reads."""
    junk = draw.rng.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf8\x88\x80\x80\x80"])
    field: dict[str, object] = draw.rng.choice([{"stream": "a@"}, {"extra": "a@"}, {"extra@": 1}])
    return _bad("syntax", _dump(draw.reading(**field)).replace(b"@", junk))


def _too_many_elements(draw: _Draw) -> BadInput:
    elements = [draw.reading(stream="a", value=1) for _ in range(draw.max_elements + 1)]
    value = json.dumps(elements, separators=(",", ":")).encode()
    if len(value) > draw.max_bytes:
        return _bad("too_large", value)
    return _bad("type", value, element=draw.max_elements)


def _largest(draw: _Draw) -> BadInput:
    """Exactly the size that is still read."""
    return _bad("type", padded(draw.raw('"a"'), draw.max_bytes))


def _larger(draw: _Draw) -> BadInput:
    """A sound reading that spaces make one byte too large, or a kilobyte."""
    return _bad("too_large", padded(_dump(draw.reading()), draw.max_bytes + draw.rng.choice([1, 1024])))


def _too_long_id(draw: _Draw) -> BadInput:
    return _bad("stream_id", _dump(draw.reading(stream=draw.rng.choice("aé€😀") * draw.rng.randint(257, 300))))


def _late_error(draw: _Draw) -> BadInput:
    """A wrong type first and broken JSON after it: syntax comes first."""
    return _bad("syntax", _dump({"value": "a"} | draw.reading(value=True))[:-1] + draw.rng.choice([b"", b",", b"]", b"}}"]))


#: Name -> a function that makes one input of the case.
CASES: dict[str, Callable[[_Draw], BadInput]] = {
    "tombstone": _bytes("no_value", None),
    "empty": _bytes("no_value", b""),
    "no JSON": _bytes("syntax", b"hello", b"\x00\x01\x02", b"a value=1", b" ", b"nul", b"\xef\xbb\xbf{}", b"\xff\xfe{\x00"),
    "truncated": _truncated,
    "trailing": lambda draw: _bad("syntax", _dump(draw.reading()) + draw.rng.choice([b"x", b"}", b",{}", b"\x00", b"{}"])),
    "broken inside": _of("syntax", "", "01", "+1", ".5", "1.", "1e", "0x10", "1 2", "{", "[1,]", '{"a":1,}', "tru", '"\\q"'),
    "broken after a wrong type": _late_error,
    "not a number": _of("syntax", "NaN", "Infinity", "-Infinity", "nan", "-inf"),
    "beyond float64": _of("syntax", "1e400", "-1e400", "9" * 400, "1e999999999"),
    "time beyond float64": _of("syntax", "1e400", field="time"),
    "lone surrogate": _of("syntax", '"\\ud800"', '"\\udc00"', '"\\ud83d\\ud83d"', '"a\\ud800\\u0041"', field="stream"),
    "lone surrogate in an ignored field": lambda draw: _bad("syntax", _dump(draw.reading(extra="\ud83d"))),
    "not UTF-8": _not_utf8,
    "nested bomb": _bomb,
    "not an object": _bytes("type", b"1", b"null", b"true", b'"a"', b"1e3", b" -0.0 "),
    "empty list": _bytes("type", b"[]", b" [ ] "),
    "list of no objects": _bytes("type", b"[1]", b"[null]", b"[[]]", b'["a"]', b"[[{}]]"),
    "empty object": _bytes("type", b"{}", b"[{}]"),
    "value missing": _without("type", "value"),
    "value of another type": _of("type", '"21.4"', '"NaN"', "{}", '{"a": 1}', '""'),
    "value of another width": _of("type", "[]", "[1]", "[1.0, 2.0]", "[null]"),
    "value a bool": _of("type", "true", "false"),
    "time of another type": _of("type", "null", "true", "false", "[]", "{}", "[1795514400]", field="time"),
    "stream of another type": _of("type", "null", "7", "1.5", "true", "[]", '["a"]', '{"id": "a"}', field="stream"),
    "too many elements": _too_many_elements,
    "wrong type among sound": _among_sound("type", '"a"', "true", "[1]", "{}"),
    "magnitude among sound": _among_sound("value", "1e16", "-1e300"),
    "no time among sound": _among_sound("time", '"yesterday"', '"2026-13-01T00:00:00Z"', "1e15", field="time"),
    "reserved id among sound": _among_sound("stream_id", '"__recurd"', field="stream"),
    "magnitude": _of("value", "1e16", "-1e16", "1.0000001e15", "1e308", "-1e300", "1000000000000001", "9" * 300),
    "no time": _of("time", '"noon"', '""', '"10:00"', '"1795514400"', '"2026-02-30T00:00:00Z"', '"2026-11-24"', field="time"),
    "time out of range": _of("time", "1e15", "-1e15", "1e300", "253402300800000", "-62135596800001", "-7e10", field="time"),
    "year 0": _of("time", '"0000-01-01T00:00:00Z"', '"0001-01-01T00:00:00+01:00"', '"9999-12-31T23:59:59-01:00"', field="time"),
    "id empty": _of("stream_id", '""', field="stream"),
    "id too long": _too_long_id,
    "id with NUL": _of("stream_id", '"\\u0000"', '"a\\u0000"', '"\\u0000a"', field="stream"),
    "id with a control character": _of("stream_id", '"a\\n"', '"\\u001b[0m"', '"a\\u007f"', '"\\u0085"', '"\\t"', field="stream"),
    "id reserved": _of("stream_id", '"__recurd"', '"__recurd.mark"', '"__recurd__"', '"\\u005f_recurd"', field="stream"),
    "no id": _without("stream_id", "stream", key=None),
    "key not UTF-8": _without("stream_id", "stream", key=b"\xff\xfe"),
    "key empty": _without("stream_id", "stream", key=b""),
    "key reserved": _without("stream_id", "stream", key=b"__recurd"),
    "key with NUL": _without("stream_id", "stream", key=b"a\x00b"),
    "future": _of("future", '"2099-01-01T00:00:00Z"', str(TIME_2099_MS), str(TIME_2099_MS // 1000), field="time"),
    "many digits": _many_digits,
    "largest": _largest,
    "too large": _larger,
}
#: Cases of which each input may be as large as `max_bytes`.
LARGE = frozenset({"nested bomb", "many digits", "largest", "too large", "too many elements"})
