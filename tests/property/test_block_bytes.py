"""Blocks: any ids and any row bytes survive encoding; any other bytes are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.blocks import BlockError, decode_block, encode_block, peek_header
from models.table import BLOCK_ROWS

ROW = np.dtype([("count", "<i8"), ("cell", "<f4", (3,)), ("flag", "u1")])
ID = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def contents(draw: st.DrawFn) -> tuple[list[str], np.ndarray]:
    ids = draw(st.lists(ID, min_size=1, max_size=BLOCK_ROWS))
    size = len(ids) * ROW.itemsize
    return ids, np.frombuffer(draw(st.binary(min_size=size, max_size=size)), ROW)


@given(contents(), st.integers(0, 2**32 - 1), st.integers(-(2**63), 2**63 - 1))
def test_block_round_trip(content: tuple[list[str], np.ndarray], number: int, born: int) -> None:
    """Ids, rows (NaN bits too), number and birth come back as they were."""
    ids, rows = content
    block = decode_block(encode_block(number, born, ids, rows), ROW)
    assert (block.header.number, block.header.born, block.ids, block.rows.tobytes()) == (number, born, ids, rows.tobytes())


@given(contents(), st.data())
def test_truncated_block_is_refused(content: tuple[list[str], np.ndarray], data: st.DataObject) -> None:
    """A block cut anywhere is refused with a BlockError, never decoded or crashed on."""
    encoded = encode_block(0, 0, *content)
    with pytest.raises(BlockError):
        decode_block(encoded[: data.draw(st.integers(0, len(encoded) - 1))], ROW)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    """Bytes of another program raise a BlockError."""
    with pytest.raises(BlockError):
        peek_header(data)
