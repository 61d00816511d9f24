"""Bytes of dead letters: a record that could not be used, as it is sent to the dead-letter topic and read back.

The record's own key, value and headers stay as they were; ours come behind its headers and say where it was and why. This room
knows one letter; which are listed and retried is `daemon.dead_letters`'s affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from daemon.errors import OperatorError
from daemon.records import DeadLetter, Headers, Message, Record

#: Of the record that says that a dead letter was retried: its offset in the dead-letter topic.
RETRIED = "recurd.retried"
#: Of the retried record in the input: how often it was sent there again.
RETRY = "recurd.retry"

#: Our headers of a letter, in their order; the notes are only there where something was cut.
_TOPIC, _PARTITION, _OFFSET = "recurd.topic", "recurd.partition", "recurd.offset"
_INDEX, _ERROR, _MESSAGE = "recurd.index", "recurd.error", "recurd.message"
_NOTES = _KEY_BYTES, _VALUE_BYTES, _HEADERS_DROPPED = "recurd.key_bytes", "recurd.value_bytes", "recurd.headers_dropped"

#: What a dead letter keeps of a value that is cut, bytes.
CUT_BYTES = 65_536
#: Headers of the input that are larger together are left out of a dead letter, bytes.
MAX_HEADER_BYTES = 8192
MAX_MESSAGE_BYTES = 1024
#: What a dead letter needs beyond key and value, at most: 8,192 of the input's headers, 1,024 of message, 249 of topic, 200 of
#: names and numbers, 100 of lengths in our headers, 100 of record and batch; rounded up.
ENVELOPE_BYTES = 16_384
_SHOWN_CHARACTERS = 120


def encode_letter(letter: DeadLetter, max_bytes: int) -> Message:
    """A dead letter as it is sent.

    All of it fits into `max_bytes`. The dead-letter topic takes at least 64 KiB more than the input topic, so nothing is cut of
    a record that came as it is; but compression lets records in that are far larger than the topic's limit. Then

    - the value is cut to its first `CUT_BYTES` (to fewer, where even they do not fit beside the key), and the header
      `recurd.value_bytes` says how long it was;
    - a key that does not fit by itself is cut too, and `recurd.key_bytes` says how long it was;
    - headers beyond `MAX_HEADER_BYTES` together are left out, and `recurd.headers_dropped` says how many there were.

    Args:
        letter: Its message is cut to `MAX_MESSAGE_BYTES` of UTF-8.
        max_bytes: `max.message.bytes` of the dead-letter topic.
    """
    record = letter.record
    key, value, notes = _cut(record.key, record.value, max(0, max_bytes - ENVELOPE_BYTES))
    headers = record.headers
    if sum(len(name.encode()) + len(content or b"") + 10 for name, content in headers) > MAX_HEADER_BYTES:
        notes += ((_HEADERS_DROPPED, b"%d" % len(headers)),)
        headers = ()
    text = letter.message.encode("utf-8", "backslashreplace")[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore")
    return Message(
        key,
        value,
        (
            *headers,
            (_TOPIC, record.topic.encode()),
            (_PARTITION, b"%d" % record.partition),
            (_OFFSET, b"%d" % record.offset),
            (_INDEX, b"%d" % letter.element),
            (_ERROR, letter.reason.encode()),
            (_MESSAGE, text.encode()),
            *notes,
        ),
    )


def _cut(key: bytes | None, value: bytes | None, room: int) -> tuple[bytes | None, bytes | None, Headers]:
    """Key and value within `room` bytes together, and headers that say what was cut."""
    key_bytes, value_bytes = len(key or b""), len(value or b"")
    notes: Headers = ()
    if key_bytes + value_bytes <= room:
        return key, value, notes
    if key and key_bytes > room:
        key = key[:room]
        notes += ((_KEY_BYTES, b"%d" % key_bytes),)
    kept = min(CUT_BYTES, room - len(key or b""))
    if value and value_bytes > kept:
        value = value[:kept]
        notes += ((_VALUE_BYTES, b"%d" % value_bytes),)
    return key, value, notes


class Letter(NamedTuple):
    """A dead letter as it is read back."""

    topic: str  # of the dead letters
    offset: int
    input: str
    partition: int  # of the input
    input_offset: int
    element: int
    reason: str
    message: str
    key: bytes | None
    value: bytes | None
    headers: Headers  # the input's
    whole: bool  # nothing was cut
    retries: int

    def __str__(self) -> str:
        place = f"{self.input}[{self.partition}]@{self.input_offset}"
        again = f", retry {self.retries}" if self.retries else ""
        return f"@{self.offset}  {self.reason}  {place} element {self.element}{again}  {self.message[:_SHOWN_CHARACTERS]}"


def decode_letter(record: Record) -> Letter:
    """The dead letter that a record of the dead-letter topic is.

    Raises:
        OperatorError: It is none of recurd's.
    """
    headers = dict(record.headers)
    try:
        return Letter(
            record.topic,
            record.offset,
            headers[_TOPIC].decode(),
            int(headers[_PARTITION]),
            int(headers[_OFFSET]),
            int(headers[_INDEX]),
            headers[_ERROR].decode(),
            headers[_MESSAGE].decode(),
            record.key,
            record.value,
            tuple(_inputs(record.headers)),
            headers.keys().isdisjoint(_NOTES),
            int(headers.get(RETRY, b"0")),
        )
    except (KeyError, ValueError):
        raise OperatorError(
            f"{record.topic}[{record.partition}]@{record.offset} is no dead letter of recurd: another program writes to this "
            "topic. Stop it, or name another topic in topics.dead_letters."
        ) from None


def _inputs(headers: Headers) -> Iterator[tuple[str, bytes]]:
    """The headers that the input record had, without the count of an earlier retry. Ours come last, from their first name on."""
    ours = max(i for i, (name, _) in enumerate(headers) if name == _TOPIC)
    return (each for each in headers[:ours] if each[0] != RETRY)
