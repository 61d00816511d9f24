"""One partition's path from records to messages: decode, batch, gather, step, scatter, encode. No I/O, no clock, no Kafka.

The daemon, catch-up, replay, tests and benchmarks all run this object. Its state is a function of the records it was given
and of its epochs; how the records were cut into calls changes no byte.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from config.settings import EngineSettings
from daemon import codec, control, outputs
from daemon.batch import Batch, Batcher
from daemon.epochs import Epoch, epoch_at
from daemon.errors import BadRecord
from daemon.handover import Handover, Stepping
from daemon.records import DeadLetter, Message, Record
from daemon.seasonal import Seasonal, Unit
from models.ahead import Ahead
from models.engine import Engine, Named, QuantileForecasts, Readings, Rebuilds
from models.layout import ladder
from models.slots import Slots
from models.table import StateTable

#: Most rows gathered, stepped and scattered together: a call on small arrays costs as much as its work at 256 rows; four tiles
#: stay in the cache.
PART_ROWS = 1024

#: Names of the targets and leads of the ladder: what the axes of `Scores` are.
ScoreKey = tuple[tuple[str, ...], tuple[int, ...]]

Stage = Callable[[str], AbstractContextManager[Any]]

# `Message(...)` runs Python code for each forecast; this costs 0.2 us less.
_new = tuple.__new__

_EMPTY = Message(b"", b"", ())


@dataclass
class Outcome:
    """What became of some records: every reading is a forecast, a dead letter, or counted in `drops`."""

    forecasts: list[Message] = field(default_factory=list)  # in log order
    dead_letters: list[DeadLetter] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    stepped: int = 0  # readings that advanced a row
    parts: int = 0  # calls of step
    evicted: int = 0
    resets: int = 0  # control records that were followed
    rebuilt: int = 0  # rows whose hidden and cell were of another model version
    times_ms: list[np.ndarray] = field(default_factory=list)  # of the readings that advanced a row, int64
    scores: dict[ScoreKey, Scores] = field(default_factory=dict)

    def score(self, key: ScoreKey, scores: Scores) -> None:
        """Add sums to those of the same targets and leads."""
        self.scores[key] = self.scores[key] + scores if key in self.scores else scores


@dataclass
class Scores:
    """Sums over the forecasts that came due, by target and rung (T, R): for metrics and reports, never for forecasts."""

    pairs: np.ndarray
    model: np.ndarray  # sum of |reading - median| / spread
    naive: np.ndarray  # sum of |reading - last value| / spread
    covered: np.ndarray

    @classmethod
    def of(cls, output: QuantileForecasts) -> Scores:
        """Sums over one step's output."""
        none = np.isnan(output.model_error)  # and so are the others
        columns = (output.model_error, output.naive_error, output.covered)
        return cls(len(none) - none.sum(axis=0), *(np.where(none, 0.0, column).sum(axis=0) for column in columns))

    def __add__(self, other: Scores) -> Scores:
        return Scores(self.pairs + other.pairs, self.model + other.model, self.naive + other.naive, self.covered + other.covered)


@dataclass(frozen=True)
class Restored:
    """What a checkpoint gives back: a table and where it stands."""

    table: StateTable
    born: int  # first offset of the epoch that emptied or renumbered the table
    epoch: Epoch  # the epoch that made it
    next_offset: int


class Pipeline:
    """Records of one partition in, messages out.

    Args:
        partition: The input partition.
        epochs: Its epochs, by rising first offset; the records given must not lie before the first. May grow.
        engine_for: Makes the engine of an epoch.
        restored: A restored table; None starts empty at the first record.
        stage: Called with a stage's name around the stage, for timing.
    """

    def __init__(
        self,
        partition: int,
        epochs: Sequence[Epoch],
        engine_for: Callable[[Epoch], Engine],
        restored: Restored | None = None,
        stage: Stage = lambda _name: nullcontext(),
    ) -> None:
        self.partition = partition
        self.epochs = list(epochs)
        self.epoch = restored.epoch if restored else self.epochs[0]
        self.next_offset = restored.next_offset if restored else self.epoch.first_offset
        self._engine_for = engine_for
        self._stage = stage
        self.seasonal: Seasonal | None = None  # is told of every step, where a replay scores the value of a season before
        cap = self.epoch.engine.max_streams_per_partition
        self.table = restored.table if restored else StateTable(engine_for(self.epoch).row_dtype, cap)
        self.born = restored.born if restored else self.epoch.first_offset
        self._use(self.epoch)

    def process(self, records: Sequence[Record], encodes: bool = True, bare: bool = False) -> Outcome:
        """Run records through the partition's state, in order; they must follow those given before.

        Without `encodes` the outcome's forecasts are empty messages, as many as there would be: for who only counts them. `bare`
        ones have their value alone, neither key nor headers.
        """
        outcome = Outcome()
        for epoch, part in self._by_epoch(records):
            self.begin(epoch)
            for readings, reset in control.cut(part):
                if len(readings):
                    self._run(readings, outcome, encodes, bare)
                if reset is not None:
                    self._reset(reset, outcome)
        if len(records):
            self.next_offset = records[-1].offset + 1
        return outcome

    def _by_epoch(self, records: Sequence[Record]) -> Iterator[tuple[Epoch, Sequence[Record]]]:
        """Cut records where an epoch begins."""
        first = 0
        while first < len(records):
            epoch = epoch_at(self.epochs, records[first].offset)
            later = [other.first_offset for other in self.epochs if other.first_offset > epoch.first_offset]
            end = bisect_left(records, later[0], first, key=lambda record: record.offset) if later else len(records)
            yield epoch, records[first:end]
            first = end

    def begin(self, epoch: Epoch) -> None:
        """Go on under another epoch: a cold one or another row layout starts empty, a smaller cap evicts."""
        if epoch == self.epoch:
            return
        self.epoch = epoch
        row_dtype, cap = self._engine_for(epoch).row_dtype, epoch.engine.max_streams_per_partition
        if epoch.cold or row_dtype != self.table.dtype:
            self.table, self.born = StateTable(row_dtype, cap), epoch.first_offset
        elif len(self.table) > cap:
            self.table, self.born = self.table.shrunk(cap), epoch.first_offset
            if self.seasonal is not None:
                self.seasonal.forget()
        self._use(epoch)

    @property
    def handing_over(self) -> bool:
        """Whether streams still go over to the epoch's version."""
        return self.next_offset < self._handover.end

    def _use(self, epoch: Epoch) -> None:
        self._handover = Handover(self.epochs, epoch, self._engine_for)
        engine = self._handover.own.engine
        self.ahead = Ahead(self.table, engine, epoch.first_offset) if isinstance(engine, Rebuilds) else None
        self._named = engine if isinstance(engine, Named) else None
        self.table.slots.capacity = epoch.engine.max_streams_per_partition
        self._decoder = codec.Decoder(epoch.engine.input)
        self._batcher = Batcher(epoch.engine, self.table.slots)

    def _run(self, records: Sequence[Record], outcome: Outcome, encodes: bool, bare: bool) -> None:
        with self._stage("decode"):
            decoded, refused = self._decoder.decode_all(records)
        with self._stage("batch"):
            batch = self._batcher.batch(decoded)
            self.table.reserve()
        outcome.dead_letters += refused
        outcome.dead_letters += batch.dead_letters
        outcome.drops += batch.drops
        outcome.evicted += batch.evicted
        outcome.stepped += len(batch)
        outcome.times_ms.append(batch.readings.time_ms)
        outcome.forecasts += self._advance(batch, outcome, encodes, bare)

    def _reset(self, record: Record, outcome: Outcome) -> None:
        """Forget the stream that a control record names; one that has no row is forgotten already."""
        try:
            self.table.forget(control.stream_of(record))
            outcome.resets += 1
        except BadRecord as bad:
            outcome.dead_letters.append(DeadLetter(record, bad.index, bad.reason, str(bad)))

    def _advance(self, batch: Batch, outcome: Outcome, encodes: bool, bare: bool) -> list[Message]:
        """Step every admitted reading and encode what is emitted, in log order."""
        messages: list[Message | None] = [None] * len(batch)
        emitted = 0
        for stepping, part in self._by_version(batch):
            readings, slots = Readings(*(column[part] for column in batch.readings)), batch.slots[part]
            with self._stage("gather"):
                rows = self.table.gather(slots)
                if self.ahead and stepping is self._handover.own:
                    self.ahead.use(slots, rows)
                if self._named:
                    starting = np.flatnonzero(readings.fresh)
                    rows[starting] = self._named.named(rows[starting], [batch.streams[i] for i in part[starting]])
            unit = None if self.seasonal is None else Unit.of(rows)
            with self._stage("step"):
                output = stepping.engine.step(rows, readings)
            with self._stage("scatter"):
                self.table.scatter(slots, rows)
            outcome.parts += 1
            if isinstance(output, QuantileForecasts):
                outcome.rebuilt += int(output.rebuilt.sum())
                engine = self.epoch.engine
                outcome.score((engine.targets, ladder(engine.model.horizon)), Scores.of(output))
                if self.seasonal is not None and unit is not None:
                    self.seasonal.add(slots, readings, unit, output, engine)
            with self._stage("encode"):
                emits = _emits(output, rows, self.epoch.engine.emit_every)
                emitted += len(part) if emits is None else int(emits.sum())
                if encodes:
                    if emits is not None:
                        part, output = part[emits], type(output)(*(column[emits] for column in output))
                    made = self._encode(batch, part, stepping.version, output, bare)
                    for place, message in zip(part.tolist(), made, strict=True):
                        messages[place] = message
        outcome.drops["thinned"] += len(batch) - emitted
        return [message for message in messages if message is not None] if encodes else [_EMPTY] * emitted

    def _by_version(self, batch: Batch) -> Iterator[tuple[Stepping, np.ndarray]]:
        """Cut a batch into what is stepped together: positions of one wave whose rows one engine steps."""
        handing_over = len(batch) > 0 and batch.readings.offset[0] < self._handover.end
        for part in batch.parts(PART_ROWS):
            if handing_over:
                yield from self._handover.cut(batch, part, self.table.gather(batch.slots[part])["version"])
            else:
                yield self._handover.own, part

    def _encode(self, batch: Batch, part: np.ndarray, version: str, output: Any, bare: bool) -> Iterator[Message]:
        """The messages of an output, whose rows are those of the batch at `part`."""
        streams = [batch.streams[i] for i in part.tolist()]
        if not streams:
            return iter(())
        values = outputs.encode(output, streams, batch.readings.time_ms[part], self.epoch.engine, version)
        if bare:
            return (_new(Message, (None, value, ())) for value in values)
        keys = "\n".join(streams).encode().split(b"\n")  # no id has a newline
        positions = zip(batch.readings.offset[part].tolist(), batch.readings.element[part].tolist(), strict=True)
        sources = (codec.source_header(self.partition, offset, element) for offset, element in positions)
        rows = zip(keys, values, sources, strict=True)
        return (_new(Message, (key, value, (("source", source),))) for key, value, source in rows)


def _emits(output: Any, rows: np.ndarray, every: int) -> np.ndarray | None:
    """Which of the rows have an output that is emitted, bool (B,); None is all of them."""
    emits: np.ndarray | None = getattr(output, "emits", None)
    if every > 1:
        chosen = (rows["count"] - 1) % every == 0  # (B,)
        emits = chosen if emits is None else emits & chosen
    return emits


def compile_loops(engine: EngineSettings) -> None:
    """Run a reading through the compiled loops of decode, batch and encode, which takes some seconds in a first start."""
    record = Record("", 0, 0, -1, None, b'{"stream":"a","time":0,"value":0}')
    decoded, _ = codec.Decoder(engine.input).decode_all([record])
    Batcher(engine, Slots(1)).batch(decoded)
    shape = (1, len(engine.targets), engine.model.horizon, len(engine.model.levels))
    of_row = {"interval_ms": np.zeros(1, np.int64), "anomaly_score": np.zeros(1), "warming": np.zeros(1, bool)}
    output = QuantileForecasts(**dict.fromkeys(QuantileForecasts._fields, np.zeros(shape)) | of_row)
    outputs.encode(output, ["a"], np.zeros(1, np.int64), engine, "")


if __name__ == "__main__":
    compile_loops(EngineSettings())
