"""Slots: dense, stable, least recently seen first."""

from __future__ import annotations

from models.slots import Slots


def test_slots_are_dense_until_the_capacity() -> None:
    """The n-th new stream gets slot n."""
    slots = Slots(3)
    assert [slots.add(name) for name in "abc"] == [(0, False), (1, False), (2, False)]


def test_a_full_table_evicts_the_least_recently_seen() -> None:
    """The victim is the stream whose last reading lies furthest back in the log."""
    slots = Slots(2)
    slots.add("a")
    slots.add("b")
    slots.touch("a")
    assert slots.add("c") == (1, True)
    assert slots.find("b") is None
    assert slots.find("a") == 0


def test_an_evicted_stream_returns_as_a_new_one() -> None:
    """Nothing of an evicted stream is remembered but by the changelog until its slot is written again."""
    slots = Slots(1)
    slots.add("a")
    slots.add("b")
    assert slots.add("a") == (0, True)
    assert slots.ids == ["a"]


def test_order_restores_the_order_of_use() -> None:
    """After a restore the next victim is the one it would have been."""
    slots = Slots(3)
    slots.load([("a", 1), ("b", 2), ("c", 3)])
    slots.order([2, 0, 1])
    assert slots.by_use() == [2, 0, 1]
    assert slots.add("d") == (2, True)
