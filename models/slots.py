"""Which slot a stream lives in, and which stream goes when the partition is full. No tensors here, and no policy elsewhere.

Slots are dense: 0, 1, 2, ... up to the capacity; then a new stream takes the slot of the least recently seen one. The order
of use is the log's order, so the victim is a function of the log alone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from itertools import islice, repeat

import numpy as np

#: The last time of a row that was forgotten: before all times by more than any gap, so that its next reading starts it afresh.
FORGOTTEN_MS = -(1 << 62)

_FIRST_ROOM = 64


class Slots:
    """Stream id -> slot, least recently seen first, with each slot's id and last time."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.ids: list[str] = []  # by slot
        self.last_time_ms = np.zeros(0, np.int64)  # by slot, with room for more; of the last applied reading
        self._by_use: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, stream: str) -> int | None:
        """The slot of a stream, or None. Does not count as use."""
        return self._by_use.get(stream)

    def find_all(self, streams: Sequence[str]) -> np.ndarray:
        """The slots of streams, int64 (B,), -1 for those that have none. Does not count as use."""
        return np.fromiter(map(self._by_use.get, streams, repeat(-1)), np.int64, len(streams))

    def touch(self, stream: str) -> None:
        """Count a reading of a known stream as its most recent use."""
        self._by_use.move_to_end(stream)

    def touch_all(self, streams: Iterable[str]) -> None:
        """`touch` each, in this order."""
        deque(map(self._by_use.move_to_end, streams), maxlen=0)

    def add(self, stream: str) -> tuple[int, bool]:
        """Give an unknown stream a slot, whose last time is `FORGOTTEN_MS`; whether another stream was evicted for it."""
        evicts = len(self.ids) >= self.capacity
        if evicts:
            _, slot = self._by_use.popitem(last=False)
            self.ids[slot] = stream
        else:
            slot = len(self.ids)
            self.ids.append(stream)
            if slot >= len(self.last_time_ms):
                self._make_room(slot + 1)
        self.last_time_ms[slot] = FORGOTTEN_MS
        self._by_use[stream] = slot
        return slot, evicts

    def forget(self, slot: int) -> None:
        """Let the slot's next reading start it afresh. It keeps its id and its place in the order of use."""
        self.last_time_ms[slot] = FORGOTTEN_MS

    def load(self, streams: Iterable[tuple[str, int]]) -> None:
        """Take in (id, last time) by slot order 0, 1, ...; use order must be set with `order` afterwards."""
        loaded = list(streams)
        first = len(self.ids)
        self.ids += [stream for stream, _ in loaded]
        self._make_room(len(self.ids))
        self.last_time_ms[first : len(self.ids)] = [last_time_ms for _, last_time_ms in loaded]

    def _make_room(self, count: int) -> None:
        room = np.zeros(max(2 * len(self.last_time_ms), count, _FIRST_ROOM), np.int64)
        room[: len(self.last_time_ms)] = self.last_time_ms
        self.last_time_ms = room

    def order(self, slots: Iterable[int]) -> None:
        """Set the order of use: least recently seen first."""
        self._by_use = OrderedDict((self.ids[slot], slot) for slot in slots)

    def oldest(self, count: int) -> list[int]:
        """The slots of the `count` least recently seen streams: the next victims."""
        return list(islice(self._by_use.values(), count))

    def by_use(self) -> list[int]:
        """Slots, least recently seen first."""
        return list(self._by_use.values())
