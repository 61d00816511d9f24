"""Which records of a file a replay takes: up to a time, of some streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from config.settings import InputSettings, Settings, SettingsError, parse_time_ms
from daemon.codec import Decoder
from daemon.control import is_control, stream_of
from daemon.csv_log import for_csv, is_csv, read_csv
from daemon.epochs import Epoch, epoch_at
from daemon.errors import BadRecord, RecordingError, StateError
from daemon.recording import Recording
from daemon.records import Record


def until_ms(text: str | None) -> int | None:
    """A time of the command line in epoch milliseconds.

    Raises:
        SettingsError: It is none.
    """
    if text is None:
        return None
    try:
        return parse_time_ms(text)
    except ValueError:
        raise SettingsError(f"--until {text!r} is no time: write it such as 2026-11-24T10:00:00Z.") from None


def until(records: Iterable[Record], until_ms: int) -> Iterator[Record]:
    """Of each partition what comes before its first record with a timestamp of `until_ms` or later: a prefix of the log."""
    ended: set[int] = set()
    for record in records:
        if record.timestamp_ms >= until_ms:
            ended.add(record.partition)
        if record.partition not in ended:
            yield record


def everything(_stream: str) -> bool:
    """Every stream is wanted."""
    return True


def is_all(wanted: Callable[[str], bool]) -> bool:
    """Whether nothing needs to be left out."""
    return wanted is everything


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a stream is wanted: patterns as of the shell, such as `pump-*`; none wants all."""
    if not patterns:
        return everything
    return lru_cache(maxsize=65_536)(lambda stream: any(fnmatchcase(stream, pattern) for pattern in patterns))


def of_streams(
    records: Iterable[Record], wanted: Callable[[str], bool], settings: InputSettings, epochs: Mapping[int, Sequence[Epoch]]
) -> Iterator[Record]:
    """The records that hold a reading of a wanted stream, or reset one; decoded as their epoch says, or else the settings."""
    decoder_of = lru_cache(maxsize=64)(lambda text: Decoder(InputSettings.model_validate_json(text)))
    own = settings.model_dump_json()
    for record in records:
        try:
            known = epochs.get(record.partition)
            text = epoch_at(known, record.offset).engine.input.model_dump_json() if known else own
            if is_control(record):
                streams = [stream_of(record)]
            else:
                streams = [reading.stream for reading in decoder_of(text).decode(record)]
        except (BadRecord, StateError):
            continue
        if any(map(wanted, streams)):
            yield record


class Selected:
    """The records of a file that a replay takes, with the epochs that it carries.

    Args:
        settings: For a file without epochs; the attribute `settings` is what its records are decoded under.
        data: A recording or CSV file.
        as_recorded: Whether the attribute `epochs` has those that a recording carries, by partition; else there are none.
        until_ms: Each partition ends before its first record with this timestamp or a later one.
        streams: Patterns: records without any such stream are left out; none is all.

    Raises:
        OperatorError: The file cannot be opened.
        RecordingError: The epochs cannot be read; the iterators raise it for a record, after those before it were given.
    """

    def __init__(
        self, settings: Settings, data: Path, as_recorded: bool = True, until_ms: int | None = None, streams: Sequence[str] = ()
    ) -> None:
        self.settings = for_csv(settings) if is_csv(data) else settings
        recording = None if is_csv(data) else Recording(data)
        self._all = read_csv(data, settings.input) if recording is None else iter(recording)
        self.epochs = recording.epochs if recording is not None and as_recorded else {}
        self.wanted = matcher(streams)
        self._recording = recording
        self._until_ms = until_ms

    def select(self, records: Iterable[Record]) -> Iterator[Record]:
        """Those that are meant."""
        if self._until_ms is not None:
            records = until(records, self._until_ms)
        if not is_all(self.wanted):
            records = of_streams(records, self.wanted, self.settings.input, self.epochs)
        return iter(records)

    def records(self) -> Iterator[Record]:
        """All that are meant, once."""
        return self.select(self._all)

    def polls(self, size: int) -> Iterator[Sequence[Record]]:
        """All that are meant, once, at most `size` together; those before an unreadable line come before its error."""
        if self._recording is None or self._until_ms is not None or not is_all(self.wanted):
            yield from _polls(self.records(), size)
        else:
            for chunk in self._recording.chunks():
                for first in range(0, len(chunk), size):
                    yield chunk[first : first + size]


def _polls(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """Lists of `size` records; those before an unreadable line come before its error."""
    poll: list[Record] = []
    try:
        for record in records:
            poll.append(record)
            if len(poll) == size:
                yield poll
                poll = []
    except RecordingError:
        yield poll
        raise
    yield poll
