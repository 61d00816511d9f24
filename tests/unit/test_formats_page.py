"""docs/formats.md says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from config.settings import EngineSettings, NetworkSettings, Settings
from daemon import outputs
from daemon.blocks import MARK_KEY, decode_mark, encode_block, layout_hash, mark_metadata
from daemon.codec import Decoder
from daemon.epochs import Epoch
from daemon.errors import REASONS
from daemon.recording import Recording
from daemon.records import Record
from daemon.trials import Trial
from models.engine import Answers, Scenarios, Smoothed

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")


def examples(heading: str) -> list[str]:
    """The indented JSON examples below a heading, each on one line."""
    section = re.split(r"^#+ ", PAGE.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"(?:^    .*\n)+", section, flags=re.MULTILINE)
    return [re.sub(r"\n\s*", " ", part).strip() for block in blocks for part in re.split(r"\n(?=    \{)", block)]


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_named(reason: str) -> None:
    """Every reason for a dead letter stands in the table of headers."""
    assert f"`{reason}`" in PAGE.split("| `recurd.error` |", 1)[1].splitlines()[0]


@pytest.mark.parametrize("name", ["forecasts", "state", "epochs", "models", "dead_letters"])
def test_every_topic_is_named(name: str) -> None:
    """Every topic stands in the table by its default name."""
    group = Settings().kafka.group_id
    assert f"| `<group_id>{Settings().topic(name).removeprefix(group)}` |" in PAGE


def test_reading_example_decodes() -> None:
    """The example of a reading is one, by default settings."""
    (example,) = examples("Readings")
    (reading,) = Decoder(Settings().input).decode(Record("readings", 0, 0, -1, None, example.encode()))
    assert (reading.stream, reading.values) == ("pump-7", (21.4,))


def test_mark_example_decodes() -> None:
    """The example of a mark is one, and the metadata is as described."""
    (example,) = examples("Marks")
    mark = decode_mark(example.encode())
    assert mark_metadata(mark) == f"recurd1 {mark.sequence} {mark.offset}"
    assert f"`{MARK_KEY.decode()}`" in PAGE


def test_epoch_fields_are_described() -> None:
    """The fields of an epoch are those of the table, in the example's order."""
    epoch = json.loads(Epoch(3, 0, "naive", EngineSettings(), 1, "f").to_bytes())
    (example,) = examples("Epochs")
    assert list(epoch) == list(json.loads(example.replace("{...}", "{}")))


def test_recording_example_is_read(tmp_path: Path) -> None:
    """The lines of the example are a recording."""
    epoch, record = examples("Recordings")
    assert list(json.loads(epoch.replace("{...}", "{}"))) == ["epoch"]
    (tmp_path / "log.jsonl").write_text(record)
    (read,) = Recording(tmp_path / "log.jsonl")
    assert (read.topic, read.offset, read.key, read.headers) == (
        "readings",
        7,
        b"pump-7",
        (("trace", b"a1"), ("raw", b"\xff\x00")),
    )


def test_block_table_has_the_codes_offsets() -> None:
    """A block picked apart by the offsets of the table gives back what was put in."""
    rows = np.zeros(2, np.dtype([("count", "<i8")]))
    data = encode_block(7, 40, ["a", "é"], rows)
    table = re.findall(r"^\| (\d+) \| (\S+)(?: bytes)? \| (.*?)[:,|]", PAGE, flags=re.MULTILINE)
    starts = {field.split()[0].strip("`"): int(at) for at, _, field in table}
    assert data[:4] == b"RCRD"

    def number(field: str, size: int) -> int:
        return int.from_bytes(data[starts[field] : starts[field] + size], "little")

    assert [number("format", 2), number("layout", 8), number("born", 8)] == [1, layout_hash(rows.dtype), 40]
    assert [number("block", 4), number("rows", 1)] == [7, 2]
    assert data[31:] == b"\x01\x00a\x02\x00\xc3\xa9" + rows.tobytes()


def test_the_trial_is_as_it_is_read() -> None:
    """The example is a trial, field by field."""
    (example,) = examples("Notes of the worker")
    trial = Trial.from_bytes(example.encode())
    assert trial is not None
    assert json.loads(trial.to_bytes()) == json.loads(example)


def test_records_of_other_kinds_are_as_they_are_sent() -> None:
    """Each example has the fields of a record of its kind, in their order."""
    numbers = {"first_ms": np.zeros(1, int), "last_ms": np.zeros(1, int), "readings": np.ones(1, int), "emits": np.ones(1, bool)}
    classes = Answers(np.ones((1, 1, 2)), **numbers), {"predicts": "class", "labels": ("idle", "busy")}
    sent = [
        ("many_to_one", *classes),
        ("many_to_one", Answers(np.ones((1, 1, 3)), **numbers), {}),
        ("one_to_many", Scenarios(np.ones((1, 1, 2, 2)), np.ones(1, int)), {}),
        ("smoother", Smoothed(np.ones((1, 1, 3)), np.ones((1, 1)), np.zeros(1, int), np.ones(1, bool)), {}),
    ]
    for example, (kind, output, settings) in zip(examples("Records of the other kinds"), sent, strict=True):
        engine = EngineSettings(model=NetworkSettings(kind=kind, **settings))  # type: ignore[arg-type]
        (encoded,) = outputs.encode(output, ["pump-7"], np.zeros(1, np.int64), engine, "v")
        assert fields(json.loads(example)) == fields(json.loads(encoded))


def fields(value: object) -> object:
    """Names in their order, all the way down; lists and numbers as such."""
    if isinstance(value, dict):
        return [(name, fields(each)) for name, each in value.items()]
    return [fields(value[0])] if isinstance(value, list) else "a string" if isinstance(value, str) else "a number"
