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

import numpy as np

from daemon.records import Headers, Message, Record
from models.compiled import compiled, part

_NULL = b"\x01"  # zigzag of -1
# `Record(...)` runs Python code for each record; this costs 0.2 us less.
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


class Batch(NamedTuple):
    """What the records of one batch have in common."""

    topic: str
    partition: int
    first_offset: int
    first_ms: int  # their timestamps count from here
    broker_ms: int | None = None  # where the broker gives the time: one for all


def decode_records(data: bytes, count: int, batch: Batch) -> Iterator[Record]:
    """The `count` records of one batch, which are all of the data.

    Header names that are no UTF-8, which some clients write, come with `?` for each byte that is not ASCII; null header values
    come empty.

    Raises:
        ValueError: These are not so many whole records; those before the first broken one have been given.
    """
    view, end, left = np.frombuffer(data, np.uint8), 0, count
    while left > 0:
        places = np.empty((min(left, _AT_ONCE), _PLACES), np.int64)
        whole, end = index_records(view, end, places)
        for age_ms, delta, key, key_end, value, value_end, headers, header_count in places[:whole].tolist():
            yield _new(
                Record,
                (
                    batch.topic,
                    batch.partition,
                    batch.first_offset + delta,
                    batch.first_ms + age_ms if batch.broker_ms is None else batch.broker_ms,
                    None if key < 0 else data[key:key_end],
                    None if value < 0 else data[value:value_end],
                    _headers_at(data, headers, header_count) if header_count else (),
                ),
            )
        left -= whole
        if whole < len(places):
            raise ValueError(f"record {count - left} of {count} is no whole record")
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes are left after {count} records")


#: Records of a batch that are looked for at once: a small compressed one may hold millions.
_AT_ONCE = 1024
#: Columns of `index_records`: timestamp and offset less the batch's; where key and value begin (-1: null) and end; where the
#: headers begin and how many they are.
_PLACES = 8


@compiled
def index_records(data: np.ndarray, end: int, places: np.ndarray) -> tuple[int, int]:
    """Find the parts of the next records of a batch.

    Args:
        data: uint8, the records.
        end: Where the record before them ends.
        places: int64 (records, 8), filled; see `_PLACES`.

    Returns:
        How many are whole, and where the last of these ends.
    """
    for i in range(len(places)):
        size, at = _varint_at(data, end)
        start = at
        places[i, 0], at = _varint_at(data, at + 1)  # after the attributes, one byte
        places[i, 1], at = _varint_at(data, at)
        for column in (2, 4):
            length, at = _varint_at(data, at)
            places[i, column] = at if length >= 0 else -1
            at = _after(data, at, length)
            places[i, column + 1] = at
        count, at = _varint_at(data, at)
        places[i, 6], places[i, 7] = at, count
        for _ in range(2 * min(count, len(data))):  # names and values
            length, at = _varint_at(data, at)
            at = _after(data, at, length)
        if at < 0 or at - start != size or count < 0:
            return i, end
        end = at
    return len(places), end


@part
def _varint_at(data: np.ndarray, at: int) -> tuple[int, int]:
    """The zigzag varint at a position, and the position after it: -1 where there is none."""
    number, shift = np.uint64(0), np.uint64(0)
    while 0 <= at < len(data) and shift < 70:
        byte = np.uint64(data[at])
        number |= (byte & np.uint64(0x7F)) << shift
        at += 1
        if byte < 0x80:
            return np.int64(number >> np.uint64(1)) ^ -np.int64(number & np.uint64(1)), at  # type: ignore[return-value]
        shift += np.uint64(7)
    return 0, -1


@part
def _after(data: np.ndarray, at: int, length: int) -> int:
    """The position after so many bytes, none where the length is negative; -1 where they are not there."""
    if at < 0 or length > len(data) - at:
        return -1
    return at + max(length, 0)


def _headers_at(data: bytes, at: int, count: int) -> Headers:
    """`count` headers from a position on, which `index_records` has found whole."""
    found = []
    for _ in range(count):
        name, at = _bytes_at(data, at)
        value, at = _bytes_at(data, at)
        found.append((_text(name), value))
    return tuple(found)


def _bytes_at(data: bytes, at: int) -> tuple[bytes, int]:
    """Bytes with their length in front, none where they are null, and the position after them."""
    number, shift = 0, 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    length = max((number >> 1) ^ -(number & 1), 0)
    return data[at : at + length], at + length


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return bytes(byte if byte < 128 else 63 for byte in name).decode()
