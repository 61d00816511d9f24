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

#: Rows of a table that are rebuilt ahead at most, the most recently seen: about 35 MiB at the defaults.
MOST_ROWS = 65_536


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
    """What one engine made ahead of one table's rows, as they are when it takes over."""

    def __init__(self, table: StateTable, engine: Rebuilds) -> None:
        self.engine = engine
        self._table = table
        self._unchecked = table.slots.by_use()[-MOST_ROWS:][::-1]  # the longest unseen last
        self._kept = 0
        self._ready = np.zeros(len(table), bool)  # by slot
        self._rows = np.empty(len(table), [("applied_offset", "<i8"), ("applied_index", "<i8"), *self._fields()])

    def _fields(self) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
        dtypes = {name: self._table.dtype[name] for name in self.engine.rebuilt_fields}
        return [(name, dtype.base, dtype.shape) for name, dtype in dtypes.items()]

    def next(self, count: int) -> Stale | None:
        """Copies of rows among the next `count` that are of another version, the longest unseen first; None at the end."""
        while self._unchecked:
            slots = np.array(self._unchecked[-count:][::-1], np.int64)
            del self._unchecked[-count:]
            rows = self._table.gather(slots)
            stale = self.engine.stale(rows)
            if stale.any():
                return Stale(self, slots[stale], rows[stale])
        return None

    def keep(self, slots: np.ndarray, rebuilt: np.ndarray) -> None:
        """Keep what was made of the rows of these slots."""
        for name in self._rows.dtype.names or ():
            self._rows[name][slots] = rebuilt[name]
        self._ready[slots] = True
        self._kept += len(slots)

    def use(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """Put what is kept into copies of the rows of these slots (B,), where each is as it was."""
        if not self._kept:
            return
        known = np.flatnonzero(slots < len(self._ready))
        ready = known[self._ready[slots[known]]]
        if not len(ready):
            return
        kept = self._rows[slots[ready]]
        same = np.ones(len(ready), bool)
        for name in ("applied_offset", "applied_index"):
            same &= kept[name] == rows[name][ready]
        same &= self.engine.stale(rows[ready])
        for name in self.engine.rebuilt_fields:
            rows[name][ready[same]] = kept[name][same]
        self._ready[slots[ready]] = False
        self._kept -= len(ready)
