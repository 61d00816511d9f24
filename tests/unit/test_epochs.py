"""Epochs: canonical bytes, and how two epochs compare."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from config.settings import EngineSettings, InputSettings, NetworkSettings
from daemon.epochs import Epoch, by_partition, epoch_at, from_bytes, same_arithmetic, same_forecasts
from daemon.errors import StateError
from daemon.records import Record

EPOCH = Epoch(3, 40, "naive", EngineSettings(), 1, "f00d")


def channels(*names: str) -> Epoch:
    return replace(EPOCH, engine=EngineSettings(input=InputSettings(values={name: f"v.{name}" for name in names})))


def log(*epochs: Epoch) -> list[Record]:
    return [Record("epochs", 0, offset, -1, epoch.key(), epoch.to_bytes()) for offset, epoch in enumerate(epochs)]


def test_key_is_partition_and_first_offset() -> None:
    """The key is `<partition>:<first_offset>`, so that compaction keeps one record an epoch."""
    assert EPOCH.key() == b"3:40"


def test_bytes_are_canonical_json() -> None:
    """Keys are sorted and nothing is spaced, so that equal epochs have equal bytes."""
    text = EPOCH.to_bytes().decode()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert text.startswith('{"cold":false,"engine":{"emit_every":1,"input":{"format":"json","max_ahead_s":3600.0,')


def test_from_bytes_gives_the_epoch_back() -> None:
    """An epoch survives its bytes, floats and non-ASCII names too."""
    engine = EngineSettings(
        input=InputSettings(values={"°C": "a.b", "rh": "c"}, max_gap_s=0.1),
        model=NetworkSettings(levels=(0.05, 0.5, 1 / 3 + 0.5), targets=("rh",)),
    )
    epoch = replace(EPOCH, engine=engine)
    assert from_bytes(epoch.to_bytes()) == epoch
    assert from_bytes(epoch.to_bytes()).engine == engine


def test_order_of_channels_survives_and_counts() -> None:
    """The order of input.values is the order of the channels: it is kept, and another order is another epoch."""
    assert from_bytes(channels("b", "a").to_bytes()).engine.channels == ("b", "a")
    assert channels("b", "a") != channels("a", "b")
    assert not same_forecasts(channels("b", "a"), channels("a", "b"))


def test_equal_epochs_hash_alike() -> None:
    """Epochs can be keys of a dict, whatever tables their settings hold."""
    assert {channels("a"): 1}[channels("a")] == 1


@pytest.mark.parametrize(
    "change",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        EPOCH.to_bytes().replace(b'"partition":3', b'"partition":"3"'),
        EPOCH.to_bytes().replace(b'"partition":3', b'"partition":-3'),
        EPOCH.to_bytes().replace(b'"partition":3', b'"partition":3,"more":1'),
        EPOCH.to_bytes().replace(b'"hidden":64', b'"hidden":65'),
        EPOCH.to_bytes()[:-1],
    ],
)
def test_what_is_no_epoch_is_refused(change: bytes) -> None:
    """Bytes that are no epoch raise a StateError with the remedy."""
    with pytest.raises(StateError, match=r"upgrade recurd if a newer one wrote it; otherwise restore topic `epochs`"):
        from_bytes(change)


@pytest.mark.parametrize(("offset", "expected"), [(40, 40), (49, 40), (50, 50), (10**12, 70)])
def test_epoch_at_is_the_last_that_has_begun(offset: int, expected: int) -> None:
    """An epoch holds from its first offset up to the next epoch's."""
    epochs = [replace(EPOCH, first_offset=first) for first in (40, 50, 70)]
    assert epoch_at(epochs, offset).first_offset == expected


@pytest.mark.parametrize(("epochs", "what"), [([], "there is none"), ([EPOCH], "the first begins at 40 of partition 3")])
def test_epoch_at_refuses_an_offset_before_all(epochs: list[Epoch], what: str) -> None:
    """An offset that no epoch covers is an error that says where the first begins."""
    with pytest.raises(StateError, match=f"No epoch covers offset 39: {what}"):
        epoch_at(epochs, 39)


def test_same_arithmetic_compares_engine_version_and_fingerprint() -> None:
    """Whether bytes can be reproduced depends on engine version and fingerprint alone."""
    assert same_arithmetic(EPOCH, replace(EPOCH, model_version="abc", first_offset=99))
    assert not same_arithmetic(EPOCH, replace(EPOCH, engine_version=2))
    assert not same_arithmetic(EPOCH, replace(EPOCH, fingerprint="beef"))


def test_same_forecasts_ignores_only_the_position() -> None:
    """Two epochs make the same forecasts when all but partition and first offset is equal."""
    assert same_forecasts(EPOCH, replace(EPOCH, partition=1, first_offset=0))
    for change in ({"model_version": "x"}, {"engine": EngineSettings(emit_every=2)}, {"engine_version": 2}, {"fingerprint": "x"}):
        assert not same_forecasts(EPOCH, replace(EPOCH, **change))


def test_by_partition_sorts_and_takes_the_last_of_a_key() -> None:
    """The epoch log is read as its compacted form: the last record of a key holds, a tombstone removes it."""
    late, early, other = replace(EPOCH, first_offset=100), replace(EPOCH, first_offset=9), replace(EPOCH, partition=0)
    again = replace(late, model_version="newer")
    gone = Record("epochs", 0, 9, -1, other.key(), None)
    assert by_partition([*log(late, early, other, again), gone]) == {3: [early, again]}


def test_by_partition_refuses_a_key_of_another_epoch() -> None:
    """A key that is not its epoch's own means a damaged log."""
    with pytest.raises(StateError, match="key b'3:41' says that it is b'3:40'"):
        by_partition([Record("epochs", 0, 0, -1, b"3:41", EPOCH.to_bytes())])
