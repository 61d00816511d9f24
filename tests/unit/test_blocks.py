"""Changelog values: what a block says about itself, and how a damaged or foreign one is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from crc32c import crc32c

from daemon.blocks import (
    BlockError,
    BlockHeader,
    Mark,
    block_key,
    decode_block,
    decode_mark,
    encode_block,
    encode_mark,
    layout_hash,
    mark_metadata,
    parse_metadata,
    peek_header,
)
from daemon.errors import StateError
from models.table import BLOCK_ROWS

ROW = np.dtype([("count", "<i8"), ("cell", "<f4", (2, 3)), ("flag", "u1")])
OTHER = np.dtype([("count", "<i8"), ("cell", "<f4", (3, 2)), ("flag", "u1")])
MARK = Mark(7, 1200, 40, 0, 16)


def rows(count: int) -> np.ndarray:
    filled = np.zeros(count, ROW)
    filled["count"] = np.arange(count) + 1
    filled["cell"] = np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)
    return filled


def ids(count: int) -> list[str]:
    return [f"pümp-{i}" for i in range(count)]


def resealed(data: bytes) -> bytes:
    """The same bytes with a right checksum."""
    head, rest = data[:27], data[31:]
    return head + struct.pack("<I", crc32c(head + rest)) + rest


BLOCK = encode_block(5, 40, ids(3), rows(3))


def test_block_gives_ids_and_rows_back() -> None:
    """A full block survives its bytes, rows bit for bit."""
    block = decode_block(encode_block(5, 40, ids(BLOCK_ROWS), rows(BLOCK_ROWS)), ROW)
    assert block.header == BlockHeader(layout_hash(ROW), 40, 5, BLOCK_ROWS)
    assert block.ids == ids(BLOCK_ROWS)
    assert block.rows.tobytes() == rows(BLOCK_ROWS).tobytes()


def test_decoded_rows_are_the_callers() -> None:
    """Decoded rows can be written to."""
    decode_block(BLOCK, ROW).rows["count"] = 0


def test_rows_need_not_be_contiguous() -> None:
    """A strided view of rows encodes like its copy."""
    assert encode_block(0, 0, ids(4), rows(8)[::2]) == encode_block(0, 0, ids(4), rows(8)[::2].copy())


def test_bytes_of_a_block_are_fixed() -> None:
    """The format is for strangers: its bytes change only with its version."""
    data = encode_block(2, -1, ["é"], np.zeros(1, np.dtype([("n", "<u2")])))
    assert data.hex() == "524352440100a5c5fef5c6a0bc3dffffffffffffffff0200000001a9ccbb530200c3a90000"


@pytest.mark.parametrize("count", [0, BLOCK_ROWS + 1])
def test_a_block_has_one_to_sixteen_rows(count: int) -> None:
    """No rows or too many are the caller's mistake."""
    with pytest.raises(ValueError, match=f"not {count} and {count}"):
        encode_block(0, 0, ids(count), rows(count))


def test_ids_and_rows_are_aligned() -> None:
    """A block with an id too few is refused before it is written."""
    with pytest.raises(ValueError, match="not 3 and 2"):
        encode_block(0, 0, ids(2), rows(3))


def test_peek_needs_no_layout() -> None:
    """Birth, number and layout of any block are known without its dtype."""
    assert peek_header(BLOCK) == BlockHeader(layout_hash(ROW), 40, 5, 3)
    assert layout_hash(ROW) != layout_hash(OTHER)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (BLOCK[:30], "truncated"),
        (BLOCK[:-1], "checksum"),
        (BLOCK + b"\0", "checksum"),
        (resealed(BLOCK[:-1]), "truncated"),
        (resealed(BLOCK + b"\0"), "truncated"),
        (b"XXXX" + BLOCK[4:], "magic"),
        (BLOCK[:4] + b"\2\0" + BLOCK[6:], "version"),
        (resealed(BLOCK[:26] + b"\x00" + BLOCK[27:]), "rows"),
        (resealed(BLOCK[:26] + b"\x11" + BLOCK[27:]), "rows"),
        (resealed(BLOCK[:31] + b"\xff\xff" + BLOCK[33:]), "ids"),
        (resealed(BLOCK[:31] + b"\xff\xff"), "ids"),
        (resealed(BLOCK[:33] + b"\xff" + BLOCK[34:]), "ids"),
    ],
)
def test_damage_has_a_reason(data: bytes, reason: str) -> None:
    """Whatever is wrong with a block is told apart, with the remedy."""
    with pytest.raises(BlockError, match=r"tart cold|Stop it|run the recurd that wrote it") as caught:
        decode_block(data, ROW)
    assert caught.value.reason == reason


def test_another_layout_is_refused() -> None:
    """Rows of equal size and another shape are not taken for each other."""
    assert ROW.itemsize == OTHER.itemsize
    with pytest.raises(BlockError, match="Block 5 of the changelog has another row layout") as caught:
        decode_block(BLOCK, OTHER)
    assert caught.value.reason == "layout"


def test_every_flipped_bit_is_noticed() -> None:
    """No single flipped bit passes, in the header either: it could make a living block look old."""
    for position in range(len(BLOCK) * 8):
        flipped = bytearray(BLOCK)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(BlockError):
            peek_header(bytes(flipped))


def test_keys_of_blocks_are_digits() -> None:
    """A block's key is its number in decimal, so that no block has the mark's key."""
    assert block_key(1250) == b"1250"


def test_mark_is_canonical_json() -> None:
    """A mark's bytes are sorted JSON."""
    assert encode_mark(MARK) == b'{"born":0,"epoch_first_offset":40,"offset":1200,"sequence":7,"streams":16}'
    assert decode_mark(encode_mark(MARK)) == MARK


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"{}",
        b"[" * 100_000,
        encode_mark(MARK)[:-1],
        encode_mark(MARK._replace(offset=-1)),
        encode_mark(MARK).replace(b"16", b"16.0"),
        encode_mark(MARK).replace(b"16", b"true"),
        encode_mark(MARK).replace(b'"born"', b'"x":1,"born"'),
    ],
)
def test_what_is_no_mark_is_refused(data: bytes) -> None:
    """Bytes that are no mark raise with the reason `mark` and the remedy."""
    with pytest.raises(BlockError, match="start cold") as caught:
        decode_mark(data)
    assert caught.value.reason == "mark"


def test_metadata_names_the_mark() -> None:
    """A commit's metadata carries the mark's sequence and offset there and back."""
    assert mark_metadata(MARK) == "recurd1 7 1200"
    assert parse_metadata(mark_metadata(MARK)) == (7, 1200)


def test_empty_metadata_names_none() -> None:
    """A commit without metadata names no mark."""
    assert parse_metadata("") is None


@pytest.mark.parametrize(
    "text", ["recurd2 7 1200", "recurd1 7", "recurd1 7 1200 9", "recurd1 -7 1200", "recurd1 7 1200\n", "{}", " "]
)
def test_foreign_metadata_is_refused(text: str) -> None:
    """Another program's metadata is an error that names kafka.group_id."""
    with pytest.raises(StateError, match=r"give recurd a group of its own with kafka\.group_id"):
        parse_metadata(text)
