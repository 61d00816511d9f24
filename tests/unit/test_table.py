"""StateTable: rows move whole, and changed blocks are known."""

from __future__ import annotations

import numpy as np

from models.engine import HEADER
from models.layout import padded
from models.table import BLOCK_ROWS, StateTable

DTYPE = padded([*HEADER, ("value", "<f4", (3,))])


def filled(count: int, capacity: int = 1000) -> StateTable:
    table = StateTable(DTYPE, capacity)
    for i in range(count):
        table.slots.add(f"s{i}")
    table.reserve()
    return table


def test_scatter_then_gather_gives_the_rows_back() -> None:
    """A row is one piece of memory: every field comes back."""
    table = filled(40)
    slots = np.array([3, 39, 17])
    rows = table.gather(slots)
    rows["value"] = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    table.scatter(slots, rows)
    assert table.gather(slots).tobytes() == rows.tobytes()
    assert table.gather(np.array([4]))["value"].sum() == 0


def test_gather_copies() -> None:
    """Changing gathered rows changes nothing until they are scattered."""
    table = filled(2)
    table.gather(np.array([0]))["value"] = 5
    assert table.rows(0, 1)["value"].sum() == 0


def test_only_touched_blocks_are_dirty() -> None:
    """A checkpoint writes the blocks that changed since the last one."""
    table = filled(100)
    table.scatter(np.array([0, 1, 50]), table.gather(np.array([0, 1, 50])))
    assert table.dirty_blocks() == [0, 50 // BLOCK_ROWS]
    table.clean()
    assert table.dirty_blocks() == []


def test_growing_keeps_rows_and_dirt() -> None:
    """More streams than rows: the table grows and forgets nothing."""
    table = filled(1, capacity=100_000)
    rows = table.gather(np.array([0]))
    rows["count"] = 7
    table.scatter(np.array([0]), rows)
    for i in range(5000):
        table.slots.add(f"more{i}")
    table.reserve()
    assert table.gather(np.array([0]))["count"] == 7
    assert table.dirty_blocks() == [0]


def test_load_orders_use_by_applied_position_then_id() -> None:
    """The order of use is that of (applied offset, position in the record, id)."""
    rows = np.zeros(4, DTYPE)
    rows["applied_offset"] = [9, 2, 2, 2]
    rows["applied_index"] = [0, 1, 0, 0]
    table = StateTable(DTYPE, 4)
    table.load(["a", "b", "d", "c"], rows)
    assert [table.slots.ids[slot] for slot in table.slots.by_use()] == ["c", "d", "b", "a"]


def test_shrunk_keeps_the_most_recently_seen() -> None:
    """A smaller cap evicts the least recently seen, and every remaining row is written anew."""
    rows = np.zeros(40, DTYPE)
    rows["applied_offset"] = np.arange(40)[::-1]
    table = StateTable(DTYPE, 40)
    table.load([f"s{i}" for i in range(40)], rows)
    small = table.shrunk(20)
    assert sorted(small.slots.ids) == sorted(f"s{i}" for i in range(20))
    assert small.dirty_blocks() == [0, 1]
    assert small.slots.add("new") == (small.slots.by_use()[-1], True)
