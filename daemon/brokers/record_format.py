"""Records as Kafka's wire format has them inside a batch (message format 2), for many records at once.

The client writes one record at a time, with a future, locks and checks for each: ten times what the bytes themselves cost. This
room knows bytes alone: no client, no topic, no batch header (https://kafka.apache.org/documentation/#record).

    record: length, attributes, timestamp delta, offset delta, key, value, headers
    length and deltas are zigzag varints; key, value and header parts have their length in front, -1 where they are null
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from daemon.records import Headers, Message

_NULL = b"\x01"  # zigzag of -1


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


def encode_records(messages: Iterable[Message]) -> bytearray:
    """The records of one batch, offset deltas 0, 1, ...; all at the batch's own timestamp."""
    body = bytearray()
    for offset, (key, value, headers) in enumerate(messages):
        record = b"".join(
            (
                b"\x00\x00",  # attributes, timestamp delta
                _length(offset),
                _NULL if key is None else _length(len(key)) + key,
                _NULL if value is None else _length(len(value)) + value,
                _headers(headers),
            )
        )
        body += _length(len(record))
        body += record
    return body


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
