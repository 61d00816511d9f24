"""What `recurd state` shows: the newest whole checkpoint of each partition, from the changelog alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from config.settings import EngineSettings, NetworkSettings
from daemon import state
from daemon.blocks import MARK_KEY, BlockError, Mark, block_key, encode_block, encode_mark
from daemon.epochs import Epoch
from daemon.errors import StateError
from daemon.pipeline import Pipeline
from daemon.records import Record
from daemon.state import Checkpoint, checkpoints_of, row_document
from models.chain import Chain
from models.engine import version_number
from models.layout import row_dtype
from models.table import BLOCK_ROWS, StateTable
from tests import examples

ENGINE = EngineSettings(model=NetworkSettings(hidden=8, context=16, horizon=2))
EPOCH = Epoch(1, 40, "naive", ENGINE, 1, "f")
DTYPE = row_dtype(ENGINE)


def rows(count: int, applied: int = 50) -> np.ndarray:
    filled = np.zeros(count, DTYPE)
    filled["count"] = 3
    filled["applied_offset"] = applied
    filled["version"] = version_number("naive")
    return filled


def names(count: int) -> list[str]:
    return [f"pump-{i}" for i in range(count)]


def checkpoint(sequence: int, count: int, *, born: int = 40, partition: int = 1, applied: int = 50) -> list[Record]:
    """The records of one checkpoint of all rows."""
    values = [
        (
            block_key(number),
            encode_block(
                number, born, names(count)[first : first + BLOCK_ROWS], rows(count, applied)[first : first + BLOCK_ROWS]
            ),
        )
        for number, first in enumerate(range(0, count, BLOCK_ROWS))
    ]
    values.append((MARK_KEY, encode_mark(Mark(sequence, applied + 1, 40, born, count))))
    return [Record("state", partition, offset, -1, key, value) for offset, (key, value) in enumerate(values)]


def epoch_log(*epochs: Epoch) -> list[Record]:
    return [Record("epochs", 0, offset, -1, epoch.key(), epoch.to_bytes()) for offset, epoch in enumerate(epochs)]


def only(changelog: list[Record]) -> Checkpoint:
    (found,) = checkpoints_of(changelog, epoch_log(EPOCH))
    return found


def test_rows_come_back_by_slot() -> None:
    """All blocks of the mark's birth together are the table, in slot order, whatever the order of the records."""
    *blocks, mark = checkpoint(1, 40)
    found = only([*reversed(blocks), mark])
    assert found.ids == names(40)
    assert found.rows.tobytes() == rows(40).tobytes()
    assert found.mark == Mark(1, 51, 40, 40, 40)


def test_newest_block_of_a_key_holds() -> None:
    """A later checkpoint's blocks replace those of an earlier one."""
    found = only([*checkpoint(1, 20), *checkpoint(2, 20, applied=90)])
    assert found.rows["applied_offset"].tolist() == [90] * 20


def test_blocks_of_another_birth_are_passed_over() -> None:
    """Blocks that an emptied table left behind count for nothing."""
    found = only([*checkpoint(1, 40, born=7), *checkpoint(2, 5, born=40)])
    assert found.ids == names(5)


def test_blocks_of_another_layout_are_passed_over() -> None:
    """Blocks that another row layout left behind count for nothing, even of the same birth."""
    old = Record("state", 1, 0, -1, block_key(1), encode_block(1, 40, ["x"], np.zeros(1, Chain.row_dtype)))
    assert only([old, *checkpoint(1, 5)]).ids == names(5)


def test_deleted_block_is_gone() -> None:
    """A tombstone deletes its block."""
    gone = Record("state", 1, 9, -1, block_key(1), None)
    assert only([*checkpoint(1, 20), gone, *checkpoint(2, 16)]).ids == names(16)


def test_checkpoint_without_its_mark_is_not_taken() -> None:
    """Reading that ends amid a checkpoint shows the one before, whole."""
    found = only([*checkpoint(1, 20), *checkpoint(2, 33, applied=90)[:-1]])
    assert (found.mark.sequence, found.ids, found.rows["applied_offset"].max()) == (1, names(20), 50)


def test_partition_without_a_mark_is_left_out() -> None:
    """Partitions are independent, and one that has no checkpoint yet is not shown."""
    changelog = [*checkpoint(1, 3, partition=0)[:-1], *checkpoint(1, 3)]
    assert [found.partition for found in checkpoints_of(changelog, epoch_log(EPOCH))] == [1]


def test_empty_table_is_a_checkpoint() -> None:
    """A checkpoint may hold no streams."""
    assert only(checkpoint(1, 0)).ids == []


def test_missing_block_is_refused() -> None:
    """A block that the mark counts and the changelog lost is an error, not a shorter list."""
    with pytest.raises(BlockError, match="holds 24 streams in 2 blocks where its mark says 40") as caught:
        only(checkpoint(1, 40)[1:])
    assert caught.value.reason == "rows"


def test_damaged_block_is_refused() -> None:
    """A block with a wrong checksum is an error."""
    first, *others = checkpoint(1, 40)
    assert first.value
    with pytest.raises(BlockError, match="checksum"):
        only([first._replace(value=first.value[:-1] + b"\x99"), *others])


def test_mark_without_its_epoch_is_refused() -> None:
    """The epoch gives the layout: without it the rows cannot be read, and the message says what to restore."""
    with pytest.raises(
        StateError, match="partition 1 names an epoch from offset 40 on that the epoch log does not hold: restore"
    ):
        checkpoints_of(checkpoint(1, 3), epoch_log(replace(EPOCH, first_offset=0)))


def test_chain_rows_are_read() -> None:
    """The layout is that of the epoch's kind of engine."""
    epoch = replace(EPOCH, engine=EngineSettings(model=NetworkSettings(kind="chain")))
    block = Record("state", 1, 0, -1, block_key(0), encode_block(0, 40, ["x"], np.zeros(1, Chain.row_dtype)))
    mark = Record("state", 1, 1, -1, MARK_KEY, encode_mark(Mark(1, 51, 40, 40, 1)))
    (found,) = checkpoints_of([block, mark], epoch_log(epoch))
    assert row_document(found, 0)["digest"] == [0] * 32


def test_row_document_is_json() -> None:
    """A row is shown field by field with its shape; NaN and infinities are null, and the version is named."""
    found = only(checkpoint(1, 3))
    found.rows["level"] = np.nan
    found.rows["cell"][:, 0, 1] = np.inf
    document = row_document(found, 2)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["stream"], document["partition"], document["model_version"], document["count"]) == ("pump-2", 1, "naive", 3)
    assert (document["level"], document["cell"]) == ([None], [[0.0, None, *[0.0] * 6]])
    assert set(document) - {"stream", "partition", "model_version", "values"} == set(DTYPE.names or ()) - {"version", "unused"}


@pytest.mark.parametrize("count", [5, 40])
def test_values_are_the_readings_that_a_row_remembers(count: int) -> None:
    """In sensor units and oldest first, the missing ones as such; those before the first are not there."""
    engine = examples.settings(hidden=8, context=16, horizon=2)
    version, engines = examples.seeded_engines(engine)
    pipeline = Pipeline(0, [examples.epoch(engine, version=version)], engines)
    values = [None if i % 4 == 3 else 20.5 + i for i in range(count)]
    pipeline.process([examples.record(i, ("a", examples.T0_MS + i * examples.MINUTE_MS, one)) for i, one in enumerate(values)])
    found = Checkpoint(0, Mark(1, count, 0, 0, 1), ["a"], pipeline.table.rows(0, 1), {})
    assert row_document(found, 0)["values"] == [values[-16:]]


def test_unknown_version_has_no_name() -> None:
    """A row of a version that no epoch names shows none."""
    found = only(checkpoint(1, 1))
    found.rows["version"] = 5
    assert row_document(found, 0)["model_version"] is None


def test_forgotten_row_has_no_time() -> None:
    """After a reset a row is empty until its stream's next reading."""
    table = StateTable(DTYPE, 10)
    table.load(names(2), rows(2))
    table.forget("pump-1")
    found = only(checkpoint(1, 2))._replace(rows=table.rows(0, 2))
    document = row_document(found, 1)
    assert (document["count"], document["last_time_ms"], document["applied_offset"]) == (0, None, 50)
    assert "(reset)" in list(state._lines(found))[1]
