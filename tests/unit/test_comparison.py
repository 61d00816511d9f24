"""Comparison: each way in which sent forecasts can be wrong is found and named, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from daemon.comparison import Comparison, Found, Source, difference, field_at
from daemon.records import Message, Record


def fan(*numbers: float) -> dict[str, dict[str, list[float]]]:
    return {"value": {"0.5": list(numbers)}}


def value(offset: int, **changes: Any) -> bytes:
    return json.dumps({"stream": "a", "targets": fan(float(offset), 2.5), "warming": False, **changes}).encode()


DERIVED = [Message(b"a", value(offset), (("source", b"0,%d,0" % offset),)) for offset in range(6)]
SENT = [Record("f", 0, 10 + i, -1, one.key, one.value, one.headers) for i, one in enumerate(DERIVED)]


def compare(sent: Sequence[Record], exact: bool = True, due: int = 99, **options: bool) -> Found:
    found = Found()
    comparison = Comparison("in", iter(sent), found, **options)
    for offset, message in enumerate(DERIVED):
        comparison.take(Source(0, offset, 0), message, exact=exact, due=offset < due)
    comparison.finish()
    return found


def changed(at: int, data: bytes) -> list[Record]:
    return [*SENT[:at], SENT[at]._replace(value=data), *SENT[at + 1 :]]


def test_equal() -> None:
    """What is equal is counted, by stream."""
    found = compare(SENT)
    assert (found.equal, len(found.streams), found.differences) == (6, 1, [])


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_every_flipped_bit_is_found() -> None:
    """One bit in any byte of a value is a difference of that record, whatever the bit makes of the JSON."""
    data = SENT[3].value or b""
    for at in range(len(data)):
        found = compare(changed(3, flipped(data, at)))
        assert (found.equal, found.kinds) == (5, {"differs": 1}), at
        assert found.differences[0].where == "f[0]@13"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (changed(3, value(3, targets=fan(3.0, 2.51))), "f[0]@13, stream a, targets.value.0.5[1]: sent 2.51, derived 2.5"),
        (changed(3, value(3, warming=0)), "f[0]@13, stream a, warming: sent 0, derived False"),
        (changed(3, (SENT[3].value or b"").replace(b": ", b":", 1)), "f[0]@13, stream a: equal as JSON, but byte 10"),
        ([*SENT[:3], *SENT[4:]], "in[0]@3, stream a: its forecast is missing: f[0]@14 is already that of in[0]@4"),
        (SENT[:5], "in[0]@5, stream a: its forecast is missing: nothing follows"),
        ([*SENT[:4], SENT[3], *SENT[4:]], "f[0]@13, stream a: the forecast of in[0]@3 was sent before"),
        ([*SENT, SENT[5]], "f[0]@15, stream a: the forecast of in[0]@5 was sent before"),
        ([*SENT[:3], SENT[4], SENT[3], SENT[5]], "in[0]@3, stream a: its forecast is missing"),
        ([*SENT, SENT[5]._replace(headers=(("source", b"0,7,0"),))], "f[0]@15, stream a: no reading asks for a forecast of in["),
        ([SENT[0]._replace(headers=()), *SENT], "f[0]@10, stream a: its header source is None"),
        ([SENT[0]._replace(headers=(("source", b"1,0,0"),)), *SENT], "header source: it belongs to partition 1"),
        ([SENT[0]._replace(key=b"b"), *SENT[1:]], "f[0]@10, stream b, key: sent b'b', derived b'a'"),
    ],
)  # fmt: skip
def test_first_difference_is_named(sent: list[Record], said: str) -> None:
    """Each kind of difference says where, which stream and which field."""
    assert said in str(compare(sent).differences[0])


def test_one_out_of_order_is_missed_and_found() -> None:
    """A forecast that comes after a later one is two differences: its place is empty, and it stands elsewhere."""
    found = compare([*SENT[:3], SENT[4], SENT[3], SENT[5]])
    assert (found.kinds, found.equal) == ({"missing": 1, "misplaced": 1}, 5)


def test_repetitions_where_they_are_allowed() -> None:
    """Identical repetitions are counted at least once; one with other bytes is a difference; without that each is one."""
    assert compare([*SENT[:4], *SENT[2:]], repeats=True).repeated == 2
    assert compare([*SENT[:4], *SENT[2:]]).kinds == {"doubled": 2}
    assert compare([*SENT[:4], SENT[3]._replace(value=b"{}"), *SENT[4:]], repeats=True).kinds == {"differs": 1}


def test_what_is_not_due_is_not_missed() -> None:
    """Beyond what was committed, and beside a part, nothing is missed; inside it is."""
    assert compare(SENT[:4], due=4).kinds == {}
    assert compare(SENT[2:4], open_start=True, open_end=True).not_due == 4
    assert compare([SENT[1], SENT[3]], open_start=True, open_end=True).kinds == {"missing": 1}


@pytest.mark.parametrize("exact", [True, False])
def test_other_arithmetic_is_compared_to_a_tolerance(exact: bool) -> None:
    """The last of six digits may differ under other arithmetic, and under no other."""
    near = changed(3, value(3, targets=fan(3.00001, 2.5)))
    far = changed(3, value(3, targets=fan(3.0002, 2.5)))
    assert (compare(near, exact).kinds, compare(near, exact).close) == (({"differs": 1}, 0) if exact else ({}, 1))
    assert compare(far, exact).kinds == {"differs": 1}


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("100001", "100000", True),
        ("100002", "100000", False),
        ("[1e-7, 5]", "[2e-7, 5]", True),  # beside a large number
        ("[1e-7, 1e-7]", "[2e-7, 1e-7]", False),
        ("null", "1.0", False),
        ("true", "1", False),
        ('"x"', '"y"', False),
        ("[1]", "[1, 1]", False),
        ('{"a": 1}', '{"b": 1}', False),
        ('{"a": 1.0, "b": 1}', '{"b": 1, "a": 1.0}', False),
    ],
)
def test_tolerance(one: str, other: str, equal: bool) -> None:
    """Numbers to 1e-5 of the largest in their list; everything else exactly."""
    assert (difference(one.encode(), other.encode(), 1e-5) is None) == equal


def test_most_are_kept_and_all_are_counted() -> None:
    """A long list of differences is cut, not its count."""
    found = Found(most=2)
    comparison = Comparison("in", iter([]), found)
    for offset, message in enumerate(DERIVED):
        comparison.take(Source(0, offset, 0), message, exact=True, due=True)
    assert (len(found.differences), found.kinds) == (2, {"missing": 6})


@pytest.mark.parametrize(
    ("at", "field"),
    [(b"7", "a"), (b"8", "b.c[0]"), (b"9", "b.c[1]"), (b"x", "d"), (b"5", "e")],
)
def test_field_of_a_byte(at: bytes, field: str) -> None:
    """A byte is named by the field it falls in, whatever punctuation strings hold."""
    document = b'{"a":7,"b":{"c":[8,9]},"d":"[{,:\\"x","e":5}'
    json.loads(document)
    assert field_at(document, document.index(at)) == field


def test_what_was_sent_before_a_cold_start_is_passed_over() -> None:
    """It cannot be derived any more; from there on all is compared."""
    found = Found()
    comparison = Comparison("in", iter(SENT), found, since=3)
    for offset, message in enumerate(DERIVED[3:], 3):
        comparison.take(Source(0, offset, 0), message, exact=True, due=True)
    comparison.finish()
    assert (found.equal, found.not_due, found.kinds) == (3, 3, {})
