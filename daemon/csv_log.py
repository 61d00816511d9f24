"""CSV files as an input log: every reading becomes a JSON record as the input settings map it, in partition 0.

Long files have a column for the stream; wide ones have none: a time column, and every other numeric column is one stream. One
record a reading, so that a cell which is no number spoils nothing but itself. Judging cells is left to `daemon.codec`: what is
neither number nor missing goes on as a string and becomes a dead letter.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from config.settings import InputSettings, Settings, parse_time_ms
from daemon import logs
from daemon.codec import FIRST_MS, FIRST_TIME_MS, LAST_TIME_MS, Decoder, format_time
from daemon.errors import RecordingError
from daemon.files import lines
from daemon.records import Record

log = logs.get("csv")

_TIME_NAMES = ("date", "time", "timestamp", "ts", "datetime")
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
#: A column is numeric by its first cell that is not missing, among this many rows.
_PEEK_ROWS = 1000


class _Source(NamedTuple):
    """Where one reading of a row comes from."""

    stream: int | str  # the column of the stream id, or the id itself
    values: tuple[int, ...]  # the column of each channel


def is_csv(path: Path) -> bool:
    """Whether a file is CSV rather than a recording, by its name; `.zst` may follow."""
    return path.name.removesuffix(".zst").lower().endswith((".csv", ".tsv"))


def read_csv(path: Path, settings: InputSettings) -> Iterator[Record]:
    """The readings of a CSV file as records, row by row: partition 0, offsets 0, 1, ..., the reading's time as timestamp.

    Columns are found by the input settings' paths (for a channel also by its name), the time column also by its usual names.
    Times without a zone are UTC. Empty cells and NaN are missing values.

    Raises:
        SettingsError: The settings map two fields to one place.
        OperatorError: The file cannot be opened.
        RecordingError: There are no such columns, or a row cannot be read; after the rows before it were given.
    """
    Decoder(settings)  # refuses paths that collide
    rows = _rows(path)
    _, header = next(rows, (1, []))
    time_column, sources = _columns(path, header, settings)
    label = _find([name.strip() for name in header], settings.label) if settings.label else None
    document = _document(settings, labelled=label is not None)
    offset = 0
    for number, cells in rows:
        if len(cells) != len(header):
            raise RecordingError(path, number, f"it has {len(cells)} cells where the header has {len(header)}; was the file cut?")
        time_ms, time = _time(cells[time_column])
        for stream, columns in sources:
            key, name = _names(cells[stream] if isinstance(stream, int) else stream)
            given = [_number(cells[column]) for column in columns]
            if label is not None:
                given.append("null" if _is_missing(cells[label]) else json.dumps(cells[label].strip()))
            value = document(name, time, *given)
            yield Record(path.name, 0, offset, time_ms, key, value.encode())
            offset += 1


def for_csv(settings: Settings) -> Settings:
    """The settings under which the records of `read_csv` are decoded: they are JSON, whatever the topic's are."""
    return settings.model_copy(update={"input": settings.input.model_copy(update={"format": "json"})})


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Cells of the header and of every row, with the line number."""
    numbered = lines(path)
    number, first = next(numbered, (1, b""))
    text = _decoded(path, number, first).removeprefix("\ufeff")
    delimiter = max(",;\t", key=text.count)

    def rest() -> Iterator[str]:
        nonlocal number
        yield text
        for number, line in numbered:
            yield _decoded(path, number, line)

    try:
        for cells in csv.reader(rest(), delimiter=delimiter):
            yield number, cells
    except csv.Error as error:
        raise RecordingError(path, number, f"no CSV ({error})") from None


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise RecordingError(path, number, f"not UTF-8 (byte {error.start})") from None


def _columns(path: Path, header: Sequence[str], settings: InputSettings) -> tuple[int, list[_Source]]:
    """The time column, and where the readings of each row are."""
    names = [name.strip() for name in header]
    time = _find(names, settings.time, *_TIME_NAMES)
    if time is None:
        wanted = ", ".join(dict.fromkeys([repr(settings.time), *_TIME_NAMES]))
        raise RecordingError(path, 1, f"no column {wanted}: name the time with input.time; {_shown(names)}")
    stream = _find(names, settings.stream)
    paths = settings.values or {"": settings.value}
    values = [_find(names, dotted, *([channel] if channel else [])) for channel, dotted in paths.items()]
    found = tuple(column for column in values if column is not None)
    if len(found) == len(values) and (stream is not None or settings.values):
        return time, [_Source(path.name.split(".")[0] if stream is None else stream, found)]
    if stream is not None or settings.values:
        absent = ", ".join(repr(dotted) for dotted, column in zip(paths.values(), values, strict=True) if column is None)
        hint = "name the columns of the values with input.value or input.values"
        raise RecordingError(path, 1, f"no column {absent}: {hint}; {_shown(names)}")
    return time, _wide(path, names, {time, _find(names, settings.label) if settings.label else None})


def _wide(path: Path, names: Sequence[str], others: Collection[int | None]) -> list[_Source]:
    """Every numeric column but time and label, as a stream named after it."""
    with suppress(RecordingError):  # it is raised again, in its place, when the rows are read
        peeked: list[list[str]] = []
        peeked.extend(cells for _, cells in islice(_rows(path), 1, _PEEK_ROWS + 1) if len(cells) == len(names))
    numeric = [i for i, name in enumerate(names) if i not in others and name and _is_numeric(cells[i] for cells in peeked)]
    streams = [names[i] for i in numeric]
    text = [name for i, name in enumerate(names) if i not in others and name and name not in streams]
    if streams and text:
        what = "no stream column is named (input.stream), so each column of numbers is a stream; others are passed over"
        log.warning(what, file=str(path), streams=len(streams), passed_over=", ".join(text))
    if not streams:
        hint = "name them with input.stream and input.value"
        raise RecordingError(path, 1, f"there is no stream column and no numeric one: {hint}; {_shown(names)}")
    if len(set(streams)) < len(streams):
        raise RecordingError(path, 1, "two numeric columns have the same name: rename one")
    return [_Source(name, (i,)) for name, i in zip(streams, numeric, strict=True)]


def _shown(names: Sequence[str]) -> str:
    """The columns that there are, for a message."""
    return f"its columns are {', '.join(map(repr, filter(None, names))) or 'none'}"[:300]


def _find(names: Sequence[str], *wanted: str) -> int | None:
    """The first column of these names: as written, else without regard to case."""
    folded = [name.casefold() for name in names]
    for name in wanted:
        if name in names:
            return names.index(name)
        if name.casefold() in folded:
            return folded.index(name.casefold())
    return None


def _is_numeric(cells: Iterator[str]) -> bool:
    written = next((cell for cell in cells if not _is_missing(cell)), None)
    return written is None or _number(written)[0] != '"'


def _is_missing(cell: str) -> bool:
    return cell.strip().casefold() in _MISSING


def _document(settings: InputSettings, labelled: bool) -> Callable[..., str]:
    """Fills stream, time, values and label, given as JSON, into a JSON object with the fields that the settings name."""
    paths = (settings.stream, settings.time, *(settings.values.values() or [settings.value]), *([settings.label] * labelled))
    document: dict[str, Any] = {}
    for i, path in enumerate(paths):
        *parents, leaf = path.split(".")
        inner = document
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = f"\0{i}"
    text = json.dumps(document, separators=(",", ":"))
    text = text.replace("{", "{{").replace("}", "}}")
    for i in range(len(paths)):
        text = text.replace(json.dumps(f"\0{i}"), f"{{{i}}}")
    return text.format


@lru_cache(maxsize=65_536)
def _names(stream: str) -> tuple[bytes, str]:
    """A stream id as a record's key and as JSON."""
    return stream.encode(), json.dumps(stream)


def _time(cell: str) -> tuple[int, str]:
    """A time as epoch milliseconds and as JSON; -1 and the cell itself where it is none."""
    time_ms = _time_ms(cell.strip())
    if time_ms is None:
        return -1, json.dumps(cell)
    return time_ms, str(time_ms) if time_ms >= FIRST_MS else json.dumps(format_time(time_ms))


def _time_ms(cell: str) -> int | None:
    try:
        number = float(cell)
    except ValueError:
        try:
            return parse_time_ms(cell)
        except (ValueError, OverflowError):
            return None
    if not abs(number) < FIRST_MS * 1e4:
        return None
    time_ms = round(number if abs(number) >= FIRST_MS else number * 1000)
    return time_ms if FIRST_TIME_MS <= time_ms <= LAST_TIME_MS else None


def _number(cell: str) -> str:
    """A cell as JSON: a number, null where it is missing, else a string, which no reading can hold."""
    try:
        number = float(cell)
    except ValueError:
        return "null" if _is_missing(cell) else json.dumps(cell)
    if math.isnan(number):
        return "null"
    return repr(number) if math.isfinite(number) and "_" not in cell else json.dumps(cell)
