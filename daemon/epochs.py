"""Epochs: what a partition's forecasts depend on besides the log, from an offset on.

An `Epoch` is one record of topic `epochs`, one line of a recording, and what `daemon.pipeline` switches by. This module knows
its bytes and how two of them compare; it does no I/O and runs no engine.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from config.settings import EngineSettings
from daemon.errors import StateError
from daemon.records import Record

_REMEDY = "restore topic `epochs` from a copy, or take a new kafka.group_id and start cold"


@dataclass(frozen=True, eq=False)
class Epoch:
    """What holds for one partition from `first_offset` on, until its next epoch. Equal where the bytes are equal."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    partition: Annotated[int, Field(ge=0)]
    first_offset: Annotated[int, Field(ge=0)]
    model_version: str
    engine: EngineSettings
    engine_version: int
    fingerprint: str
    cold: bool = False  # the rows of before are gone: the operator let a partition start again
    handover_offsets: Annotated[int, Field(ge=0)] = 0  # streams go over to this version within so many (`daemon.handover`)

    def key(self) -> bytes:
        """The key of its record: `<partition>:<first_offset>`."""
        return b"%d:%d" % (self.partition, self.first_offset)

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, ASCII; `engine.input.values` alone keeps its order, that of the channels."""
        return _canonical({**self._beginning(), **self._essence()})

    def essence(self) -> bytes:
        """`to_bytes` without how it begins: equal for epochs that go on as one another."""
        return _canonical(self._essence())

    def _beginning(self) -> dict[str, Any]:
        return {
            "partition": self.partition,
            "first_offset": self.first_offset,
            "cold": self.cold,
            "handover_offsets": self.handover_offsets,
        }

    def _essence(self) -> dict[str, Any]:
        return {
            "model_version": self.model_version,
            "engine": self.engine.model_dump(mode="json"),
            "engine_version": self.engine_version,
            "fingerprint": self.fingerprint,
        }

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Epoch) and self.to_bytes() == other.to_bytes())

    def __hash__(self) -> int:
        return hash(self.to_bytes())


_EPOCH = TypeAdapter(Epoch)


def from_bytes(data: bytes) -> Epoch:
    """The epoch of a record's value.

    Raises:
        StateError: Not an epoch, or one with settings that this version does not know.
    """
    try:
        return _EPOCH.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StateError(
            f"An epoch cannot be read ({where + ': ' if where else ''}{first['msg']}) in {data[:80]!r}: "
            f"upgrade recurd if a newer one wrote it; otherwise {_REMEDY}."
        ) from None


def epoch_at(epochs: Sequence[Epoch], offset: int) -> Epoch:
    """The epoch in force at an offset, of one partition's epochs in rising order.

    Raises:
        StateError: All of them begin later.
    """
    found = bisect_right(epochs, offset, key=lambda epoch: epoch.first_offset)
    if not found:
        first = f"the first begins at {epochs[0].first_offset} of partition {epochs[0].partition}" if epochs else "there is none"
        raise StateError(f"No epoch covers offset {offset}: {first}; {_REMEDY}.")
    return epochs[found - 1]


def by_partition(records: Iterable[Record]) -> dict[int, list[Epoch]]:
    """The epochs of topic `epochs`, rising by first offset; of several records with one key the last holds.

    Raises:
        StateError: A value is no epoch, or its key belongs to another.
    """
    latest = {record.key: record.value for record in records}
    epochs = [_keyed(key, value) for key, value in latest.items() if value is not None]
    found: dict[int, list[Epoch]] = {}
    for epoch in sorted(epochs, key=lambda epoch: (epoch.partition, epoch.first_offset)):
        found.setdefault(epoch.partition, []).append(epoch)
    return found


def same_arithmetic(a: Epoch, b: Epoch) -> bool:
    """Whether one machine with one program can reproduce the bytes of both: engine version and fingerprint are equal."""
    return (a.engine_version, a.fingerprint) == (b.engine_version, b.fingerprint)


def same_forecasts(a: Epoch, b: Epoch) -> bool:
    """Whether both make the same forecasts from the same log: equal in all but partition and first offset."""
    return a.essence() == b.essence()


def _keyed(key: bytes | None, value: bytes) -> Epoch:
    epoch = from_bytes(value)
    if key != epoch.key():
        raise StateError(f"The epoch of key {key!r} says that it is {epoch.key()!r}: {_REMEDY}.")
    return epoch


def _canonical(document: dict[str, Any]) -> bytes:
    ordered = _sorted(document)
    # `channels` is the order of these names, so sorting them would change the forecasts.
    ordered["engine"]["input"]["values"] = document["engine"]["input"]["values"]
    return json.dumps(ordered, separators=(",", ":"), allow_nan=False).encode()


def _sorted(value: Any) -> Any:
    return {key: _sorted(value[key]) for key in sorted(value)} if isinstance(value, dict) else value
