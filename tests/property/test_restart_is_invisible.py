"""Stop after any record, write the changed blocks, restore from bytes, go on: the same bytes as without a stop."""

from __future__ import annotations

import numpy as np
import pytest

from config.settings import EngineSettings
from daemon import blocks
from daemon.pipeline import Pipeline, Restored
from daemon.records import Message, Record
from models.table import StateTable
from tests import examples, zoo
from tests.property.test_batching_is_invisible import log


def checkpoint(pipeline: Pipeline, changelog: dict[int, bytes]) -> None:
    """Write the changed blocks over the older ones, as a compacted topic would keep them."""
    for number in pipeline.table.dirty_blocks():
        changelog[number] = blocks.encode_block(number, pipeline.born, *pipeline.table.block(number))
    pipeline.table.clean()


def restored(pipeline: Pipeline, changelog: dict[int, bytes]) -> Restored:
    """A new table from the changelog alone."""
    table = StateTable(pipeline.table.dtype, pipeline.table.slots.capacity)
    living = [value for value in changelog.values() if blocks.peek_header(value).born == pipeline.born]
    decoded = sorted((blocks.decode_block(value, table.dtype) for value in living), key=lambda block: block.header.number)
    ids = [name for block in decoded for name in block.ids]
    table.load(ids, np.concatenate([np.zeros(0, table.dtype), *(block.rows for block in decoded)]))
    return Restored(table, pipeline.born, pipeline.epoch, pipeline.next_offset)


def forecasts(engines_of: list[tuple[EngineSettings, int]], records: list[Record], stop_every: int | None) -> list[Message]:
    version, engines = examples.seeded_engines(engines_of[0][0])
    epochs = [examples.epoch(engine, first, version) for engine, first in engines_of]
    pipeline, changelog, sent = Pipeline(0, epochs, engines), dict[int, bytes](), []
    for first in range(0, len(records), stop_every or len(records)):
        if first:
            checkpoint(pipeline, changelog)
            pipeline = Pipeline(0, epochs, engines, restored(pipeline, changelog))
        sent += pipeline.process(records[first : first + (stop_every or len(records))]).forecasts
    return sent


@pytest.mark.parametrize("stop_every", [1, 3, 50, 111])
def test_a_stop_after_every_nth_record_changes_nothing(stop_every: int) -> None:
    """With eviction at a cap, so that the order of use must survive too."""
    engine = examples.settings(hidden=64, max_streams_per_partition=12)
    records = log(7, 120, 30)
    assert forecasts([(engine, 0)], records, stop_every) == forecasts([(engine, 0)], records, None)


@pytest.mark.parametrize("stop_every", [1, 30])
def test_stops_around_epochs_change_nothing(stop_every: int) -> None:
    """Epochs that shrink the cap and thin the output begin between and at stops."""
    wide, narrow = examples.settings(hidden=64), examples.settings(hidden=64, max_streams_per_partition=5, emit_every=2)
    epochs = [(wide, 0), (narrow, 45), (wide, 60)]
    records = log(8, 120, 30)
    assert forecasts(epochs, records, stop_every) == forecasts(epochs, records, None)


def test_catch_up_equals_the_first_pass() -> None:
    """From an older checkpoint the readings since are run again: rows end up equal to the byte."""
    engine = examples.settings(hidden=64)
    version, engines = examples.seeded_engines(engine)
    records, changelog = log(9, 200, 20), dict[int, bytes]()
    first = Pipeline(0, [examples.epoch(engine, version=version)], engines)
    first.process(records[:80])
    checkpoint(first, changelog)
    again = restored(first, changelog)
    first.process(records[80:])
    second = Pipeline(0, first.epochs, engines, again)
    for record in records[80:]:
        second.process([record])
    assert second.table.rows(0, len(second.table)).tobytes() == first.table.rows(0, len(first.table)).tobytes()


@pytest.mark.parametrize("name", sorted(zoo.KINDS))
@pytest.mark.parametrize("stop_every", [1, 17])
def test_every_arrangement(name: str, stop_every: int) -> None:
    """What a kind carries, its open window, waiting readings or key, is all in the row."""
    engine = zoo.engine(name, max_streams_per_partition=12)
    records = log(7, 90, 20)
    sent = forecasts([(engine, 0)], records, stop_every)
    assert sent
    assert sent == forecasts([(engine, 0)], records, None)
