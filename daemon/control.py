"""Control records: records of the input topic that say something to recurd instead of holding readings.

Their keys begin with the reserved prefix. They lie in the log, so that catch-up, replay and audit do the same at the same place.
There is one: `__recurd.reset`, whose value is a stream id, forgets that stream of its partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

from daemon.chunks import Chunk
from daemon.codec import RESERVED_PREFIX, check_id
from daemon.errors import BadRecord
from daemon.records import Record

RESET_KEY = f"{RESERVED_PREFIX}.reset".encode()

_key_of = itemgetter(Record._fields.index("key"))


def is_control(record: Record) -> bool:
    """Whether a record is ours and not readings."""
    return record.key == RESET_KEY


def stream_of(record: Record) -> str:
    """The stream that a reset names.

    Raises:
        BadRecord: It names none.
    """
    if not record.value:
        raise BadRecord("no_value", "the reset has no value, which names the stream")
    try:
        stream = record.value.decode()
    except UnicodeDecodeError:
        raise BadRecord("stream_id", "the value of the reset, which names the stream, is not UTF-8") from None
    check_id(stream, 0)
    return stream


def cut(records: Sequence[Record]) -> Iterator[tuple[Sequence[Record], Record | None]]:
    """Records without control records, each with the control record that follows it; usually all and None."""
    first = 0
    for at in _places(records):
        yield records[first:at], records[at]
        first = at + 1
    yield records[first:], None


def _places(records: Sequence[Record]) -> list[int]:
    """Where control records are."""
    if isinstance(records, Chunk):
        return records.with_key(RESET_KEY)
    if RESET_KEY not in map(_key_of, records):  # in C: usually there is none
        return []
    return [at for at, record in enumerate(records) if is_control(record)]
