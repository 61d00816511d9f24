"""Dead letters as bytes: the record as it was and why it could not be used, cut where it must be."""

from __future__ import annotations

import pytest

from daemon.letters import ENVELOPE_BYTES, encode_letter
from daemon.records import DeadLetter, Headers, Message, Record

ROOM_FOR_ALL = 1_048_588 + 65_536


def record(value: bytes | None, key: bytes | None = b"pump-7", headers: Headers = ()) -> Record:
    return Record("readings", 3, 41, 1000, key, value, headers)


def sent(record: Record, index: int, reason: str, message: str) -> Message:
    return encode_letter(DeadLetter(record, index, reason, message), ROOM_FOR_ALL)


def test_dead_letter_is_the_record_and_why() -> None:
    """A dead letter has the input's key, value and headers, then where it was and why it could not be used."""
    letter = sent(record(b"\xff{", b"\x00k", headers=(("trace", b"1"),)), 4, "syntax", "not UTF-8")
    expected = (
        ("trace", b"1"),
        ("recurd.topic", b"readings"),
        ("recurd.partition", b"3"),
        ("recurd.offset", b"41"),
        ("recurd.index", b"4"),
        ("recurd.error", b"syntax"),
        ("recurd.message", b"not UTF-8"),
    )
    assert Message(b"\x00k", b"\xff{", expected) == letter


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"", b"")])
def test_dead_letter_of_nothing(key: bytes | None, value: bytes | None) -> None:
    """A tombstone stays a tombstone, and an empty key an empty key."""
    assert (key, value) == sent(record(value, key), 0, "no_value", "no value")[:2]


def test_dead_letter_of_the_largest_record() -> None:
    """A record that fills the input topic's largest message is not cut."""
    largest = record(b"v" * 1_000_000, b"k" * (1_048_588 - 1_000_000))
    assert (largest.key, largest.value) == sent(largest, 0, "too_large", "large")[:2]


def test_dead_letter_of_a_larger_record() -> None:
    """A record that was larger than a message may be, until it was compressed, keeps 64 KiB of its value and says so."""
    letter = sent(record(b"v" * 3_000_000), 0, "too_large", "large")
    assert letter[:2] == (b"pump-7", b"v" * 65_536)
    assert letter.headers[-1] == ("recurd.value_bytes", b"3000000")


def test_dead_letter_with_a_large_key() -> None:
    """Beside a large key as much of the value is kept as fits; a key that does not fit by itself is cut and says so."""
    room = ROOM_FOR_ALL - ENVELOPE_BYTES
    beside = sent(record(b"v" * 1000, b"k" * (room - 10)), 0, "type", "")
    assert (b"k" * (room - 10), b"v" * 10) == beside[:2]
    beyond = sent(record(b"v", b"k" * (room + 1)), 0, "type", "")
    assert (b"k" * room, b"") == beyond[:2]
    assert (("recurd.key_bytes", b"%d" % (room + 1)), ("recurd.value_bytes", b"1")) == beyond.headers[-2:]


def test_dead_letter_with_large_headers() -> None:
    """Headers of more than 8 KiB together are left out, and their number is told."""
    letter = sent(record(b"v", headers=(("a", b"x" * 5000), ("b", b"x" * 5000))), 0, "type", "")
    assert letter.headers[-1] == ("recurd.headers_dropped", b"2")
    assert letter.headers[0][0] == "recurd.topic"
    kept = sent(record(b"v", headers=(("a", b"x" * 5000),)), 0, "type", "")
    assert kept.headers[0] == ("a", b"x" * 5000)


def test_dead_letter_with_a_long_message() -> None:
    """The message is cut to 1 KiB of sound UTF-8."""
    message = dict(sent(record(b"v"), 0, "type", "x" + "é" * 1000 + "\ud800").headers)["recurd.message"]
    assert message.decode() == "x" + "é" * 511
