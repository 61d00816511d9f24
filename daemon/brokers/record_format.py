"""Records as Kafka's wire format has them inside a batch (message format 2), for many records at once.

The client writes one record at a time, with a future, locks and checks for each: ten times what the bytes themselves cost; its
reader takes twice the time of this one. This room knows bytes alone: no client, no topic, no batch header (https://kafka.apache.org/documentation/#record).

    record: length, attributes, timestamp delta, offset delta, key, value, headers
    length and deltas are zigzag varints; key, value and header parts have their length in front, -1 where they are null
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from daemon.records import Headers, Message

_NULL = b"\x01"  # zigzag of -1
# `Encoded(...)` runs Python code for each record; this costs 0.2 us less.
_new = tuple.__new__


def varint(number: int) -> bytes:
    """A signed integer as a zigzag varint."""
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


_VARINTS = [varint(number) for number in range(8192)]


def _length(number: int) -> bytes:
    return _VARINTS[number] if number < len(_VARINTS) else varint(number)


def append_records(body: bytearray, messages: Iterable[Message]) -> None:
    """Append the records of one batch, offset deltas 0, 1, ...; all at the batch's own timestamp."""
    for offset, (key, value, headers) in enumerate(messages):
        record = b"".join(
            (
                b"\x00\x00",  # attributes, timestamp delta
                _length(offset),
                _NULL if key is None else _length(len(key)) + key,
                _NULL if value is None else _length(len(value)),
                value or b"",
                _headers(headers),
            )
        )
        body += _length(len(record))
        body += record


def _headers(headers: Headers) -> bytes:
    if not headers:
        return b"\x00"
    parts = [_length(len(headers))]
    for name, value in headers:
        parts += (_name(name), _length(len(value)), value)
    return b"".join(parts)


@lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    encoded = name.encode()
    return _length(len(encoded)) + encoded


class Encoded(NamedTuple):
    """A record as it stands in a batch."""

    size: int  # bytes, without those of the size itself
    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def decode_records(data: bytes | bytearray, at: int, count: int) -> Iterator[Encoded]:
    """The `count` records of one batch, from position `at` to the end of the data.

    Header names that are no UTF-8, which some clients write, come with `?` for each byte that is not ASCII.

    Raises:
        ValueError, IndexError: These are not so many whole records; those before the first broken one have been given.
    """
    for _ in range(count):
        size, first = _read_varint(data, at)
        timestamp_delta, at = _read_varint(data, first + 1)  # after the attributes, one byte
        offset_delta, at = _read_varint(data, at)
        key, at = _read_bytes(data, at)
        value, at = _read_bytes(data, at)
        header_count, at = _read_varint(data, at)
        headers = []
        for _ in range(header_count):
            name, at = _read_bytes(data, at)
            content, at = _read_bytes(data, at)
            headers.append((_text(name), content))
        if at - first != size or header_count < 0:
            raise ValueError(f"a record of {size} bytes has {at - first}")
        yield _new(Encoded, (size, timestamp_delta, offset_delta, key, value, headers))
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes are left after {count} records")


def _read_varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """The zigzag varint at a position, and the position after it."""
    low = data[at]
    if low < 0x80:
        return low >> 1 ^ -(low & 1), at + 1
    high = data[at + 1]
    if high < 0x80:
        low += (high << 7) - 0x80
        return low >> 1 ^ -(low & 1), at + 2
    number, shift = 0, 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number >> 1 ^ -(number & 1), at
        shift += 7
        if shift >= 70:
            raise ValueError("a number is longer than 64 bits")


def _read_bytes(data: bytes | bytearray, at: int) -> tuple[bytes | None, int]:
    """Bytes with their length in front, or None."""
    size, at = _read_varint(data, at)
    if size < 0:
        return None, at
    return bytes(data[at : at + size]), at + size


def _text(name: bytes | None) -> str:
    if name is None:
        raise ValueError("a header has no name")
    try:
        return name.decode()
    except UnicodeDecodeError:
        return bytes(byte if byte < 128 else 63 for byte in name).decode()
