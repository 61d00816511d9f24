"""Rows of another model version, rebuilt before they step and kept beside the table until they do.

The table itself is left alone: a version that is rolled back finds its rows as it left them. What is kept of a row is used only
while the row is as it was, and is what the step would compute, so no output depends on what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.engine import Rebuilds
from models.table import StateTable

#: Bytes that are kept for one table at most; the most recently seen rows are rebuilt ahead, the others when they step.
MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class Stale:
    """Copies of rows to rebuild."""

    ahead: Ahead
    slots: np.ndarray  # int64 (B,)
    rows: np.ndarray  # structured (B,)

    def rebuilt(self) -> np.ndarray:
        """The rows as the engine rebuilds them, new ones. Reads nothing that another thread may change."""
        rows = self.rows.copy()
        self.ahead.engine.rebuild(rows)
        return rows


class Ahead:
    """What one engine makes ahead of one table's rows; holds nothing until the first `next`."""

    def __init__(self, table: StateTable, engine: Rebuilds, since: int) -> None:
        """Rows seen from offset `since` on are left to their next step, which is near."""
        self.engine = engine
        self._table = table
        self._since = since
        self._left: list[int] | None = None  # slots to rebuild, the longest unseen last; None before the first look
        self._kept = 0
        self._place = np.zeros(0, np.int32)  # by slot, where in `_rows`; -1 is nowhere
        self._ready = np.zeros(0, bool)  # by place
        self._rows = np.zeros(0, self._dtype())

    def _dtype(self) -> np.dtype[Any]:
        kept = {name: self._table.dtype[name] for name in ("applied_offset", "applied_index", *self.engine.rebuilt_fields)}
        return np.dtype([(name, dtype.base, dtype.shape) for name, dtype in kept.items()])

    def next(self, count: int) -> Stale | None:
        """Copies of up to `count` rows of another version, the longest unseen first; None when there are no more."""
        if self._left is None:
            self._begin()
        while self._left:
            slots = np.array(self._left[-count:][::-1], np.int64)
            del self._left[-count:]
            rows = self._table.gather(slots)
            stale = self.engine.stale(rows)  # as yet
            if stale.any():
                return Stale(self, slots[stale], rows[stale])
        return None

    def _begin(self) -> None:
        """Look which rows are stale and unseen, once."""
        rows = self._table.rows(0, len(self._table))
        stale = self.engine.stale(rows) & (rows["applied_offset"] < self._since)
        slots = [slot for slot in self._table.slots.by_use() if stale[slot]] if stale.any() else []
        dtype = self._rows.dtype
        self._left = slots[-(MOST_BYTES // dtype.itemsize) :][::-1]
        self._rows = np.empty(len(self._left), dtype)
        self._place = np.full(len(self._table) if slots else 0, -1, np.int32)
        self._place[self._left] = np.arange(len(self._left))
        self._ready = np.zeros(len(self._left), bool)

    def keep(self, slots: np.ndarray, rebuilt: np.ndarray) -> None:
        """Keep what was made of the rows of these slots."""
        places = self._place[slots]
        for name in self._rows.dtype.names or ():
            self._rows[name][places] = rebuilt[name]
        self._ready[places] = True
        self._kept += len(slots)

    def use(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """Put what is kept into copies of the rows of these slots (B,), where each is as it was."""
        if not self._kept:
            return
        known = np.flatnonzero(slots < len(self._place))
        known = known[self._place[slots[known]] >= 0]
        ready = known[self._ready[self._place[slots[known]]]]
        places = self._place[slots[ready]]
        kept = self._rows[places]
        same = self.engine.stale(rows[ready])
        for name in ("applied_offset", "applied_index"):
            same &= kept[name] == rows[name][ready]
        for name in self.engine.rebuilt_fields:
            rows[name][ready[same]] = kept[name][same]
        self._ready[places] = False
        self._kept -= len(ready)
