"""Sent forecasts against derived ones: which is missing, doubled, out of place or different, and in which field.

Pure: records and messages in, differences out. The golden files of tests are compared here too. Where the arithmetic is the same
forecasts must be equal to the byte; where it is another, numbers must be equal to `TOLERANCE` and everything else exactly.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from daemon.records import Message, Record

#: Of a number's magnitude, or of the largest beside it in its list: forecasts have six digits, so the last one may differ.
TOLERANCE = 1e-5
#: Repetitions under at-least-once are recognised this far back.
_REMEMBERED = 1_000_000
_SHOWN_BYTES = 40
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{},:]', re.DOTALL)


class Source(NamedTuple):
    """The reading that a forecast follows: its place in the input."""

    partition: int
    offset: int
    element: int


@dataclass(frozen=True)
class Difference:
    """Something that is not as it must be."""

    kind: str  # differs, missing, doubled, extra or misplaced
    where: str  # topic[partition]@offset
    stream: str
    field: str  # such as targets.value.0.5[3]; empty where the whole record is meant
    what: str

    def __str__(self) -> str:
        place = f"{self.where}, stream {self.stream}" + (f", {self.field}" if self.field else "")
        return f"{place}: {self.what}"


@dataclass
class Found:
    """What the comparisons of all partitions have found; of the differences, all are counted and the first `most` kept."""

    most: int = 10
    equal: int = 0  # to the byte
    close: int = 0  # to the tolerance, under other arithmetic
    repeated: int = 0  # identical repetitions, which at-least-once allows
    not_due: int = 0  # derived beyond what was committed, or outside of what is kept, and not sent; sent before that
    streams: set[tuple[int, bytes | None]] = field(default_factory=set)
    differences: list[Difference] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)  # of all differences

    def add(self, difference: Difference) -> None:
        """Count a difference, and keep it if it is among the first."""
        self.kinds[difference.kind] += 1
        if len(self.differences) < self.most:
            self.differences.append(difference)


class Comparison:
    """One partition's sent forecasts against its derived ones, both in order.

    Args:
        topic: The input topic's name, for messages.
        sent: The records of the forecasts topic in that partition.
        found: Where to count.
        repeats: Identical repetitions are allowed (at least once).
        since: What was sent for readings before this offset is passed over: it cannot be derived.
        open_start: What is derived before the first record of `sent` is not missed.
        open_end: What is derived after the last one is not.
    """

    def __init__(
        self,
        topic: str,
        sent: Iterator[Record],
        found: Found,
        *,
        repeats: bool = False,
        since: int = 0,
        open_start: bool = False,
        open_end: bool = False,
    ) -> None:
        self._topic, self._sent, self._found = topic, sent, found
        self._since = since
        self._repeats, self._open_start, self._open_end = repeats, open_start, open_end
        self._next: tuple[Source, Record] | None = None  # sent, and not compared yet
        self._last: Source | None = None  # sent and compared
        self._missing: set[Source] = set()
        self._hashes: OrderedDict[Source, int] = OrderedDict()  # of what was compared, where repetitions are allowed
        self._advance()

    def take(self, source: Source, message: Message, *, exact: bool, due: bool) -> None:
        """Compare a derived forecast with what was sent for its reading.

        Args:
            source: The reading; behind that of the forecast taken before.
            message: The forecast.
            exact: To the byte, or to the tolerance.
            due: It must have been sent.
        """
        while self._next is not None and self._next[0] < source:
            self._stray(*self._next)
            self._advance()
        if self._next is None or self._next[0] > source:
            self._absent(source, message, due)
            return
        self._compare(source, message, self._next[1], exact)
        self._last = source
        self._advance()

    def finish(self) -> None:
        """Nothing more is derived: what is left was sent without a reading that asks for it."""
        while self._next is not None:
            self._stray(*self._next)
            self._advance()

    def _advance(self) -> None:
        """Go to the next sent forecast that can be compared."""
        self._next = None
        for record in self._sent:
            source = self._placed(record)
            if source is not None and source.offset < self._since:
                self._found.not_due += 1
            elif source is not None:
                self._next = source, record
                return

    def _placed(self, record: Record) -> Source | None:
        """Its source, or None where it cannot belong here, which is then a difference."""
        header = next((value for name, value in reversed(record.headers) if name == "source"), None)
        try:
            source = source_of(header or b"")
        except ValueError:
            self._differ("extra", record, "", f"its header source is {header!r}, no partition,offset,element")
            return None
        if source.partition != record.partition:
            self._differ("misplaced", record, "header source", f"it belongs to partition {source.partition}")
            return None
        return source

    def _stray(self, source: Source, record: Record) -> None:
        """A sent forecast that is not the next one derived."""
        if source in self._missing:
            self._differ("misplaced", record, "", f"the forecast of {self._reading(source)} comes after a later one")
        elif self._last is None or source > self._last:
            self._differ("extra", record, "", f"no reading asks for a forecast of {self._reading(source)}")
        elif self._repeats and self._hashes.get(source) == hash((record.key, record.value)):
            self._found.repeated += 1
        elif self._repeats and source in self._hashes:
            self._differ("differs", record, "", f"the forecast of {self._reading(source)} is repeated with other bytes")
        else:
            self._differ("doubled", record, "", f"the forecast of {self._reading(source)} was sent before")

    def _absent(self, source: Source, message: Message, due: bool) -> None:
        """A derived forecast that was not sent in its place."""
        if not due or (self._open_start and self._last is None) or (self._open_end and self._next is None):
            self._found.not_due += 1
            return
        self._missing.add(source)
        before = f"{_place(self._next[1])} is already that of {self._reading(self._next[0])}" if self._next else "nothing follows"
        what = f"its forecast is missing: {before}"
        self._found.add(Difference("missing", self._reading(source), _name(message.key), "", what))

    def _compare(self, source: Source, message: Message, record: Record, exact: bool) -> None:
        self._found.streams.add((source.partition, message.key))
        if self._repeats:
            self._hashes[source] = hash((record.key, record.value))
            if len(self._hashes) > _REMEMBERED:
                self._hashes.popitem(last=False)
        if record.key != message.key:
            self._differ("differs", record, "key", f"sent {record.key!r}, derived {message.key!r}")
        elif record.value == message.value:
            self._found.equal += 1
        else:
            what = difference(record.value or b"", message.value or b"", None if exact else TOLERANCE)
            if what is None:
                self._found.close += 1
            else:
                self._differ("differs", record, *what, stream=_name(message.key))

    def _differ(self, kind: str, record: Record, where: str, what: str, stream: str | None = None) -> None:
        stream = _name(record.key) if stream is None else stream
        self._found.add(Difference(kind, _place(record), stream, where, what))

    def _reading(self, source: Source) -> str:
        element = f" element {source.element}" if source.element else ""
        return f"{self._topic}[{source.partition}]@{source.offset}{element}"


def difference(
    sent: bytes, derived: bytes, tolerance: float | None, names: tuple[str, str] = ("sent", "derived")
) -> tuple[str, str] | None:
    """The first field in which two JSON values differ, and how; None where they do not.

    Args:
        sent: One.
        derived: The other, which is JSON.
        tolerance: Numbers may differ by this share of their magnitude, or of the largest in their list; None: no byte may.
        names: What the two are called in `what`.

    Returns:
        (field, what): where one is no JSON, the field that its first other byte falls in; empty where only the writing differs.
    """
    if sent == derived:
        return None
    at = next((i for i, (a, b) in enumerate(zip(sent, derived, strict=False)) if a != b), min(len(sent), len(derived)))
    near = slice(max(0, at - 8), at - 8 + _SHOWN_BYTES)
    bytes_differ = f"byte {at}: {names[0]} {sent[near]!r}, {names[1]} {derived[near]!r}"
    try:
        one = json.loads(sent)
    except ValueError:
        return field_at(derived, at), f"no JSON any more, {bytes_differ}"
    found = _first("", one, json.loads(derived), tolerance, 1.0, names)
    if found is not None or tolerance is not None:
        return found
    return "", f"equal as JSON, but {bytes_differ}"


def field_at(document: bytes, at: int) -> str:
    """The field of a JSON document in which its byte `at` lies, such as `targets.value.0.5[3]`."""
    path: list[str | int] = []
    name = ""
    for token in _TOKEN.finditer(document):
        if token.start() > at:
            break
        text = token[0]
        if text in (b"{", b"["):
            path.append(0 if text == b"[" else "")
        elif text in (b"}", b"]"):
            path.pop()
        elif text == b"," and path and isinstance(path[-1], int):
            path[-1] += 1
        elif text == b":" and path:
            path[-1] = name
        elif text.startswith(b'"'):
            name = text[1:-1].decode(errors="backslashreplace")
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path if step != "").removeprefix(".")


def _first(
    where: str, sent: Any, derived: Any, tolerance: float | None, scale: float, names: tuple[str, str]
) -> tuple[str, str] | None:
    if isinstance(sent, dict) and isinstance(derived, dict):
        if list(sent) != list(derived):
            return where, f"fields: {names[0]} {list(sent)}, {names[1]} {list(derived)}"
        pairs = [(f"{where}.{name}" if where else name, sent[name], derived[name]) for name in sent]
        return next(filter(None, (_first(name, a, b, tolerance, scale, names) for name, a, b in pairs)), None)
    if isinstance(sent, list) and isinstance(derived, list) and len(sent) == len(derived):
        scale = max((abs(number) for number in derived if isinstance(number, int | float)), default=1.0)
        numbered = enumerate(zip(sent, derived, strict=True))
        return next(filter(None, (_first(f"{where}[{i}]", a, b, tolerance, scale, names) for i, (a, b) in numbered)), None)
    return None if _equal(sent, derived, tolerance, scale) else (where, f"{names[0]} {sent!r}, {names[1]} {derived!r}")


def _equal(sent: Any, derived: Any, tolerance: float | None, scale: float) -> bool:
    """Whether two values that are no objects are equal; numbers to the tolerance."""
    if type(sent) is bool or type(derived) is bool or tolerance is None:
        return type(sent) is type(derived) and bool(sent == derived)
    if isinstance(sent, int | float) and isinstance(derived, int | float):
        # A hair more than the tolerance: one unit of the sixth digit is exactly 1e-5 of a power of ten.
        return math.isclose(sent, derived, rel_tol=tolerance * 1.001, abs_tol=tolerance * 1.001 * scale)
    return bool(sent == derived)


def source_of(header: bytes) -> Source:
    """The place that the header `source` of a forecast names.

    Raises:
        ValueError: It names none.
    """
    partition, offset, element = map(int, header.split(b","))
    return Source(partition, offset, element)


def _place(record: Record) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"


def _name(key: bytes | None) -> str:
    return (key or b"").decode(errors="backslashreplace") or "-"
