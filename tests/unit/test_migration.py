"""Rows that earlier versions wrote are taken over: every field that both know, and the mask in its new form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from config.settings import EngineSettings, InputSettings, NetworkSettings
from daemon import blocks
from daemon.blocks import Mark
from models.layout import row_dtype
from models.migration import Older, older_layouts

DEFAULT = EngineSettings()
WIDE = EngineSettings(
    input=InputSettings(values={"a": "a", "b": "b", "c": "c"}),
    model=NetworkSettings(hidden=8, layers=2, horizon=5, context=24, levels=(0.25, 0.5, 0.9), targets=("c", "a")),
)
#: By engine version: bytes of a row at the default settings, and the hash by which its blocks name its layout.
WRITTEN = {
    4: (1904, 6245236917255881649),
    3: (2016, 5794824565206668005),
    2: (2016, 5794824565206668005),
    1: (1784, 5894020115658958842),
}


def filled(dtype: np.dtype[Any], count: int) -> np.ndarray:
    """Rows of arbitrary numbers, a reading in ten missing."""
    numbers = np.random.Generator(np.random.PCG64(count))
    rows = np.zeros(count, dtype)
    for name in dtype.names or ():
        rows[name] = numbers.integers(0, 1000, rows[name].shape)
    missing = numbers.random((*rows["anchor"].shape, rows["gap_units"].shape[1])) < 0.1  # oldest first
    by_age = missing.shape != rows["missing"].shape
    rows["missing"] = np.packbits(missing[..., ::-1], axis=-1, bitorder="little") if by_age else missing
    rows["unused" if "unused" in (dtype.names or ()) else "count"] = 0
    return rows


def layout_of(version: int, engine: EngineSettings) -> Older:
    return older_layouts(engine)[{4: 0, 3: 1, 2: 1, 1: 2}[version]]


@pytest.mark.parametrize("version", WRITTEN)
def test_layouts_are_those_that_were_written(version: int) -> None:
    """At the default settings the layout is, to the byte, what that version's blocks say of themselves."""
    dtype = layout_of(version, DEFAULT).dtype
    assert (dtype.itemsize, blocks.layout_hash(dtype)) == WRITTEN[version]


@pytest.mark.parametrize("engine", [DEFAULT, WIDE], ids=["default", "wide"])
@pytest.mark.parametrize("version", WRITTEN)
def test_a_changelog_of_an_earlier_version_is_read(version: int, engine: EngineSettings) -> None:
    """Also where some of its blocks were written anew since."""
    older, today = layout_of(version, engine), row_dtype(engine)
    rows, names = filled(older.dtype, 40), [f"s{i}" for i in range(40)]
    new = older.migrated(rows)
    values = [blocks.encode_block(n, 7, names[16 * n : 16 * n + 16], rows[16 * n : 16 * n + 16]) for n in range(3)]
    values[1] = blocks.encode_block(1, 7, names[16:32], new[16:32])
    mark = Mark(3, 100, 7, 7, 40)
    ids, read = blocks.living_rows(values, mark, today, older_layouts(engine))
    assert ids == names
    assert read.tobytes() == new.tobytes()
    for name in set(older.dtype.names or ()) - {"missing", "unused"}:
        assert np.array_equal(read[name], rows[name])
    if version == 4:
        assert np.array_equal(read["missing"], rows["missing"])
    else:
        for age in range(engine.model.context):
            bits = read["missing"][..., age // 8] >> (age % 8) & 1
            assert np.array_equal(bits, rows["missing"][..., -1 - age])
    assert not read["tails"].any()
    assert not read["surprise"].any()
    assert not read["basis"].any()
    assert not read["own_map"].any()
    if version == 1:
        assert np.array_equal(read["pending_model"], rows["pending"][..., 1])
        assert not read["profile"].any()


def test_other_layouts_are_not_taken_for_older_ones() -> None:
    """Rows of other settings do not count: the mark's streams are missing."""
    other = replace_hidden(DEFAULT)
    value = blocks.encode_block(0, 0, ["a"], filled(older_layouts(other)[0].dtype, 1))
    with pytest.raises(blocks.BlockError, match="its mark says 1"):
        blocks.living_rows([value], Mark(1, 1, 0, 0, 1), row_dtype(DEFAULT), older_layouts(DEFAULT))


def replace_hidden(engine: EngineSettings) -> EngineSettings:
    return engine.model_copy(update={"model": engine.model.model_copy(update={"hidden": 32})})
