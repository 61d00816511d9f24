"""Which version steps a stream while a partition's streams go over to a new one, each at an offset of its own.

Rebuilding a row costs thirty steps. Where all rows of a busy partition were due at once, its forecasts would wait for them; so
an epoch may say over how many offsets its streams go over (`handover_offsets`), and where in it a stream's place is follows from
its id. Until then its row goes on under the version that made it. It is a function of the log and the epochs like all else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple
from zlib import crc32

import numpy as np

from daemon.batch import Batch
from daemon.epochs import Epoch
from models.engine import Engine, version_number


def turn_of(epoch: Epoch, stream: str) -> int:
    """The offset from which on a stream goes over: the epoch's first, plus CRC-32 of the id modulo the handover's length."""
    return epoch.first_offset + crc32(stream.encode()) % max(epoch.handover_offsets, 1)


class Stepping(NamedTuple):
    """What steps some rows."""

    version: str
    engine: Engine


class Handover:
    """The versions that step rows under one epoch: its own, and those that its rows may still have."""

    def __init__(self, epochs: Sequence[Epoch], epoch: Epoch, engine_for: Callable[[Epoch], Engine]) -> None:
        """`epochs` are the partition's, by rising first offset, `epoch` among them."""
        self.own = Stepping(epoch.model_version, engine_for(epoch))
        self._epoch = epoch
        self._engine_for = engine_for
        older = _versions_before(epochs, epoch) if epoch.handover_offsets else ()
        self._older = {version_number(version): version for version in older}
        self._made = {version_number(epoch.model_version): self.own}  # engines are made when a row needs them

    @property
    def end(self) -> int:
        """First offset at which no stream goes on under an older version."""
        return self._epoch.first_offset + (self._epoch.handover_offsets if self._older else 0)

    def cut(self, batch: Batch, part: np.ndarray, made_by: np.ndarray) -> Iterator[tuple[Stepping, np.ndarray]]:
        """Cut readings of different streams by what steps their rows.

        Args:
            batch: The readings.
            part: Positions in the batch, int64 (B,).
            made_by: The number of the version that made the row of each, uint64 (B,).
        """
        numbers, own = made_by.tolist(), version_number(self.own.version)
        offsets, fresh = batch.readings.offset[part].tolist(), batch.readings.fresh[part].tolist()
        for i, position in enumerate(part.tolist()):
            due = offsets[i] >= turn_of(self._epoch, batch.streams[position])
            if due or fresh[i] or numbers[i] not in self._older:
                numbers[i] = own
        for number in dict.fromkeys(numbers):
            yield self._stepping(number), part[[each == number for each in numbers]]

    def _stepping(self, number: int) -> Stepping:
        """Of a version, by its number.

        Raises:
            StateError, ArtifactError: Its weights are not there or cannot be used, as `Engines`.
        """
        if number not in self._made:
            version = self._older[number]
            self._made[number] = Stepping(version, self._engine_for(replace(self._epoch, model_version=version)))
        return self._made[number]


def _versions_before(epochs: Sequence[Epoch], epoch: Epoch) -> list[str]:
    """Versions that rows may have: of the epochs before, back to where weights need not fit any more or all began cold."""
    if epoch.cold:
        return []
    before = [each for each in epochs if each.first_offset < epoch.first_offset][::-1]
    alike = list(takewhile(lambda each: _fits(each) == _fits(epoch), before))
    warm = list(takewhile(lambda each: not each.cold, alike))
    known = [each.model_version for each in alike[: len(warm) + 1]]  # a cold one's own version counts
    return [version for version in dict.fromkeys(known) if version != epoch.model_version]


def _fits(epoch: Epoch) -> tuple[str, int]:
    """What weights must fit: the settings, order of the channels and all, and what the release computes from them."""
    return epoch.engine.model_dump_json(), epoch.engine_version
