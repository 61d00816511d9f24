"""The changelog's values: blocks of rows, marks, and the commit metadata that names a mark.

Bytes only: no broker, no table, no engine. Every block says by itself whether it is whole (checksum), whether its rows have a
known shape (layout) and whether it belongs to the living table (born), so that restore can pass over old ones undecoded.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from crc32c import crc32c

from daemon.errors import StateError
from models.migration import Older
from models.table import BLOCK_ROWS

MAGIC = b"RCRD"
FORMAT_VERSION = 1
MARK_KEY = b"mark"

_HEAD = struct.Struct("<4sHQqIB")  # magic, format version, layout, born, block number, rows
_CRC = struct.Struct("<I")  # CRC-32C of everything before and after it
_LENGTH = struct.Struct("<H")
_HEADER_BYTES = _HEAD.size + _CRC.size
_METADATA = re.compile(r"recurd1 (\d{1,19}) (\d{1,19})")


class BlockError(StateError):
    """Bytes that are no usable block. `reason`: truncated, magic, version, checksum, rows, layout, ids or mark."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BlockHeader(NamedTuple):
    """What a block says about itself."""

    layout: int  # `layout_hash` of its rows
    born: int  # first offset of the epoch that last emptied or renumbered the table
    number: int  # its first row is slot number * BLOCK_ROWS
    rows: int  # 1..BLOCK_ROWS


class Block(NamedTuple):
    """A decoded block. `ids` and `rows` are aligned; the caller owns both."""

    header: BlockHeader
    ids: list[str]
    rows: np.ndarray  # structured (header.rows,)


class Mark(NamedTuple):
    """A checkpoint's name and offset."""

    sequence: int  # number of the checkpoint, rising by one
    offset: int  # next offset to apply
    epoch_first_offset: int  # names the epoch in force at `offset`
    born: int  # blocks of another birth are old
    streams: int  # rows of the table


def block_key(number: int) -> bytes:
    """The record key of block `number`: its decimal digits."""
    return b"%d" % number


@lru_cache(maxsize=64)
def layout_hash(dtype: np.dtype[Any]) -> int:
    """The first 8 bytes, little endian, of the SHA-256 of the dtype's `descr` as JSON without spaces."""
    text = json.dumps(dtype.descr, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def encode_block(number: int, born: int, ids: Sequence[str], rows: np.ndarray) -> bytes:
    """The value of a block's record.

    Args:
        number: Block number; row i is slot `number * BLOCK_ROWS + i`.
        born: First offset of the epoch that last emptied or renumbered the table.
        ids: The streams' ids, aligned with rows.
        rows: Structured, little endian (1..BLOCK_ROWS,).
    """
    if not 1 <= len(rows) == len(ids) <= BLOCK_ROWS:
        raise ValueError(f"a block has 1 to {BLOCK_ROWS} rows with as many ids, not {len(rows)} and {len(ids)}")
    head = _HEAD.pack(MAGIC, FORMAT_VERSION, layout_hash(rows.dtype), born, number, len(rows))
    encoded = [text.encode() for text in ids]
    names = b"".join([_LENGTH.pack(len(name)) + name for name in encoded])
    data = np.ascontiguousarray(rows).view(np.uint8).data
    checksum = crc32c(data, crc32c(names, crc32c(head)))
    return b"".join((head, _CRC.pack(checksum), names, data))


def peek_header(data: bytes) -> BlockHeader:
    """The header of a whole block of any layout and birth.

    The checksum is verified, so that a damaged block cannot pass for an old one.

    Raises:
        BlockError: For truncated, magic, version, checksum or rows.
    """
    if len(data) < _HEADER_BYTES:
        raise _damaged("truncated", f"it has {len(data)} bytes")
    magic, version, *fields = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise BlockError(
            "magic",
            f"A record of the changelog begins with {magic!r}, not {MAGIC!r}: another program writes to topic `state`. "
            "Stop it, or name another topic in topics.state.",
        )
    if version != FORMAT_VERSION:
        raise BlockError(
            "version",
            f"A block of the changelog has format {version}, this recurd reads {FORMAT_VERSION}: run the recurd that wrote it.",
        )
    if _checksum(data) != _CRC.unpack_from(data, _HEAD.size)[0]:
        raise _damaged("checksum", f"the checksum of its {len(data)} bytes is wrong")
    header = BlockHeader(*fields)
    if not 1 <= header.rows <= BLOCK_ROWS:
        raise _damaged("rows", f"it claims {header.rows} rows")
    return header


def decode_block(data: bytes, dtype: np.dtype[Any]) -> Block:
    """The block of a record's value, its rows copied.

    Raises:
        BlockError: As `peek_header`, and layout where its rows are of another dtype, ids where they are no UTF-8.
    """
    header, ids, rows = _opened(data, dtype)
    return Block(header, ids, np.frombuffer(rows, dtype).copy())


def _opened(data: bytes, dtype: np.dtype[Any]) -> tuple[BlockHeader, list[str], memoryview]:
    """Header, ids and the bytes of the rows, checked."""
    header = peek_header(data)
    if header.layout != layout_hash(dtype):
        raise BlockError(
            "layout",
            f"Block {header.number} of the changelog has another row layout than the epoch's settings: "
            "run the recurd that wrote it, or take a new kafka.group_id and start cold.",
        )
    ids, first = _ids(data, header)
    if len(data) != first + header.rows * dtype.itemsize:
        raise _damaged(
            "truncated", f"{len(data) - first} bytes are left for {header.rows} rows of {dtype.itemsize}", header.number
        )
    return header, ids, memoryview(data)[first:]


def living_rows(
    values: Iterable[bytes], mark: Mark, dtype: np.dtype[Any], older: Sequence[Older] = ()
) -> tuple[list[str], np.ndarray]:
    """Ids and rows by slot of the table that a mark names; blocks of another birth or layout are old and passed over.

    Args:
        values: The newest value of every block key, in any order.
        mark: The changelog's mark.
        dtype: The row of the mark's epoch.
        older: Layouts that the row had before; their rows are taken over.

    Raises:
        BlockError: A block is damaged; or reason rows, where blocks that the mark counts are missing.
    """
    known = {layout_hash(dtype): Older(dtype, lambda rows: rows), **{layout_hash(each.dtype): each for each in older}}
    headers = [(peek_header(value), value) for value in values]
    living = [(header.number, header.layout, value) for header, value in headers if header.born == mark.born]
    blocks = [_taken_over(value, known[layout]) for _, layout, value in sorted(living) if layout in known]
    filled = [header.rows for header, _, _ in blocks]
    whole = [header.number for header, _, _ in blocks] == list(range(len(blocks))) and set(filled[:-1]) <= {BLOCK_ROWS}
    if not whole or sum(filled) != mark.streams:
        raise BlockError(
            "rows",
            f"The changelog holds {sum(filled)} streams in {len(blocks)} blocks where its mark says {mark.streams}: it was cut "
            "or overwritten. Restore topic `state` from a copy, or take a new kafka.group_id and start cold.",
        )
    # Joined as bytes: numpy would copy structured rows field by field.
    joined = bytearray().join([rows for _, _, rows in blocks])
    return [name for _, ids, _ in blocks for name in ids], np.frombuffer(joined, dtype)


def _taken_over(data: bytes, layout: Older) -> tuple[BlockHeader, list[str], memoryview]:
    header, ids, rows = _opened(data, layout.dtype)
    return header, ids, layout.migrated(np.frombuffer(rows, layout.dtype)).view(np.uint8).data


def encode_mark(mark: Mark) -> bytes:
    """The value of the mark's record: JSON with sorted keys and no spaces."""
    return json.dumps(mark._asdict(), sort_keys=True, separators=(",", ":")).encode()


def decode_mark(data: bytes) -> Mark:
    """The mark of a record's value.

    Raises:
        BlockError: With reason mark.
    """
    try:
        fields = json.loads(data)
        mark = Mark(**fields)
    except (ValueError, TypeError, RecursionError):
        raise _no_mark(data) from None
    if not all(type(value) is int and value >= 0 for value in mark):
        raise _no_mark(data)
    return mark


def mark_metadata(mark: Mark) -> str:
    """The metadata of the commit that writes this mark, and of those until the next: `recurd1 <sequence> <offset>`."""
    return f"recurd1 {mark.sequence} {mark.offset}"


def parse_metadata(text: str) -> tuple[int, int] | None:
    """Sequence and offset of the mark that a commit names, or None where it names none (empty).

    Raises:
        StateError: Another program's metadata.
    """
    if not text:
        return None
    found = _METADATA.fullmatch(text)
    if not found:
        raise StateError(
            f"The committed offset's metadata {text[:80]!r} is not recurd's: another program commits in this consumer group. "
            "Stop it, or give recurd a group of its own with kafka.group_id."
        )
    return int(found[1]), int(found[2])


def _checksum(data: bytes) -> int:
    view = memoryview(data)
    return int(crc32c(view[_HEADER_BYTES:], crc32c(view[: _HEAD.size])))


def _ids(data: bytes, header: BlockHeader) -> tuple[list[str], int]:
    """The ids, and where the rows begin."""
    ids, at = [], _HEADER_BYTES
    try:
        for _ in range(header.rows):
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size + length
            ids.append(data[at - length : at].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise _damaged("ids", f"its ids cannot be read ({error})", header.number) from None
    return ids, at


def _damaged(reason: str, what: str, number: int | None = None) -> BlockError:
    name = "A block" if number is None else f"Block {number}"
    return BlockError(
        reason,
        f"{name} of the changelog is damaged: {what}. Restore topic `state` from a copy, "
        "or take a new kafka.group_id and start cold.",
    )


def _no_mark(data: bytes) -> BlockError:
    return BlockError(
        "mark",
        f"The mark {data[:80]!r} cannot be read: run the recurd that wrote it if it is newer than this one; "
        "otherwise restore topic `state` from a copy, or take a new kafka.group_id and start cold.",
    )
