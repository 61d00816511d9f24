"""Which slot a stream lives in, and which stream goes when the partition is full. No tensors here, and no policy elsewhere.

Slots are dense: 0, 1, 2, ... up to the capacity; then a new stream takes the slot of the least recently seen one. The order
of use is the log's order, so the victim is a function of the log alone.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable

#: The last time of a row that was forgotten: before all times by more than any gap, so that its next reading starts it afresh.
FORGOTTEN_MS = -(1 << 62)


class Slots:
    """Stream id -> slot, least recently seen first, with each slot's id and last time."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.ids: list[str] = []  # by slot
        self.last_time_ms = array("q")  # by slot; of the last applied reading
        self._by_use: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, stream: str) -> int | None:
        """The slot of a stream, or None. Does not count as use."""
        return self._by_use.get(stream)

    def touch(self, stream: str) -> None:
        """Count a reading of a known stream as its most recent use."""
        self._by_use.move_to_end(stream)

    def add(self, stream: str) -> tuple[int, bool]:
        """Give an unknown stream a slot; the second value says whether another stream was evicted for it."""
        evicts = len(self.ids) >= self.capacity
        if evicts:
            _, slot = self._by_use.popitem(last=False)
            self.ids[slot] = stream
        else:
            slot = len(self.ids)
            self.ids.append(stream)
            self.last_time_ms.append(0)
        self._by_use[stream] = slot
        return slot, evicts

    def forget(self, slot: int) -> None:
        """Let the slot's next reading start it afresh. It keeps its id and its place in the order of use."""
        self.last_time_ms[slot] = FORGOTTEN_MS

    def load(self, streams: Iterable[tuple[str, int]]) -> None:
        """Take in (id, last time) by slot order 0, 1, ...; use order must be set with `order` afterwards."""
        for stream, last_time_ms in streams:
            self.ids.append(stream)
            self.last_time_ms.append(last_time_ms)

    def order(self, slots: Iterable[int]) -> None:
        """Set the order of use: least recently seen first."""
        self._by_use = OrderedDict((self.ids[slot], slot) for slot in slots)

    def by_use(self) -> list[int]:
        """Slots, least recently seen first."""
        return list(self._by_use.values())
