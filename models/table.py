"""The state table of one partition: rows by slot, and which blocks of rows changed since the last checkpoint.

One structured array, one row a stream. A row is contiguous, so gather and scatter are one memory copy a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.slots import FORGOTTEN_MS, Slots

#: Rows of one block of the changelog.
BLOCK_ROWS = 16

_FIRST_ROWS = 1024


class StateTable:
    """Rows and slots of one partition. `slots` decides who lives where; this class only moves rows."""

    def __init__(self, dtype: np.dtype[Any], capacity: int) -> None:
        self.dtype = dtype
        self.slots = Slots(capacity)
        self._dirty = np.zeros(0, bool)  # by block
        self._bytes = np.zeros((0, dtype.itemsize), np.uint8)  # (N, row size); np.zeros costs no memory until touched

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows in use."""
        return len(self) * self.dtype.itemsize

    def rows(self, first: int, last: int) -> np.ndarray:
        """Rows first..last-1 as a view, structured (last - first,)."""
        return self._bytes[first:last].view(self.dtype)[:, 0]

    def gather(self, slots: np.ndarray) -> np.ndarray:
        """A copy of the rows of these slots, structured (B,)."""
        return self._bytes.take(slots, axis=0).view(self.dtype)[:, 0]

    def scatter(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """Put rows (B,) back into B different slots and mark their blocks dirty."""
        whole = np.dtype((np.void, self.dtype.itemsize))  # a row is one copy
        self._bytes.view(whole)[:, 0][slots] = rows.view(whole)
        self._dirty[slots // BLOCK_ROWS] = True

    def forget(self, stream: str) -> None:
        """Empty a stream's row, if it has one: its next reading starts it as if it had never been seen.

        The row keeps its slot and its place in the order of use, which the applied position holds across a restore.
        """
        slot = self.slots.find(stream)
        if slot is None:
            return
        old = self.rows(slot, slot + 1)
        row = np.zeros(1, self.dtype)
        for name in ("applied_offset", "applied_index"):
            row[name] = old[name]
        row["last_time_ms"] = FORGOTTEN_MS
        self.scatter(np.array([slot]), row)
        self.slots.forget(slot)

    def reserve(self) -> None:
        """Make room for every slot given out so far."""
        needed = len(self.slots)
        if needed > len(self._bytes):
            size = min(max(_FIRST_ROWS, 2 * len(self._bytes), needed), max(self.slots.capacity, needed))
            grown = np.zeros((size, self.dtype.itemsize), np.uint8)
            grown[: len(self._bytes)] = self._bytes
            self._bytes = grown
            self._dirty = np.concatenate([self._dirty, np.zeros(-(-size // BLOCK_ROWS) - len(self._dirty), bool)])

    def dirty_blocks(self) -> list[int]:
        """Numbers of the blocks changed since `clean`, rising."""
        return np.flatnonzero(self._dirty).tolist()

    def clean(self) -> None:
        """Forget what is dirty: it is in the changelog."""
        self._dirty[:] = False

    def block(self, number: int) -> tuple[list[str], np.ndarray]:
        """Ids and rows (a view) of one block."""
        first = number * BLOCK_ROWS
        last = min(first + BLOCK_ROWS, len(self))
        return self.slots.ids[first:last], self.rows(first, last)

    def load(self, ids: Sequence[str], rows: np.ndarray) -> None:
        """Fill an empty table: row i becomes slot i; the order of use follows the rows' applied positions and ids."""
        assert len(self) == 0, "load fills an empty table"
        self.slots.load(zip(ids, rows["last_time_ms"].tolist(), strict=True))
        self.reserve()
        self._bytes[: len(rows)] = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), self.dtype.itemsize)
        self.slots.order(self._use_order().tolist())

    def shrunk(self, capacity: int) -> StateTable:
        """A table of `capacity` with the most recently seen of these rows, renumbered, all dirty."""
        table = StateTable(self.dtype, capacity)
        keep = np.array(self.slots.by_use()[-capacity:], np.int64)
        table.load([self.slots.ids[slot] for slot in keep], self.gather(keep))
        table._dirty[: -(-len(table) // BLOCK_ROWS)] = True
        return table

    def _use_order(self) -> np.ndarray:
        rows = self.rows(0, len(self))
        ids = np.array(self.slots.ids, dtype=object)
        by_id = np.argsort(ids, kind="stable") if len(ids) else np.zeros(0, np.int64)
        order = np.lexsort((rows["applied_index"][by_id], rows["applied_offset"][by_id]))
        return by_id[order]
