"""Which records of a file a replay takes: up to a time, of some streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from config.settings import InputSettings, SettingsError, parse_time_ms
from daemon.codec import Decoder
from daemon.control import is_control, stream_of
from daemon.epochs import Epoch, epoch_at
from daemon.errors import BadRecord, StateError
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
