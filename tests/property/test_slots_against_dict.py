"""Slots against the plainest model there is: a list of ids in order of use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.slots import Slots


@given(capacity=st.integers(1, 6), uses=st.lists(st.integers(0, 9), max_size=60))
def test_slots_follow_the_order_of_use(capacity: int, uses: list[int]) -> None:
    """Same members, same victims, every slot held by one stream."""
    slots, by_use = Slots(capacity), []
    for use in uses:
        stream = f"s{use}"
        known = slots.find(stream) is not None
        assert known == (stream in by_use)
        if known:
            slots.touch(stream)
            by_use.remove(stream)
        else:
            _, evicted = slots.add(stream)
            assert evicted == (len(by_use) == capacity)
            by_use = by_use[1:] if evicted else by_use
        by_use.append(stream)
        assert [slots.ids[slot] for slot in slots.by_use()] == by_use
        assert sorted(slots.by_use()) == list(range(len(by_use)))
