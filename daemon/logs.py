"""Structured log lines on the standard library's logging: an event in a few words and its fields.

    log = logs.get("loop")
    log.info("partition restored", partition=3, seconds=0.4)

One line a life-cycle event and a failure, none a record. Text or JSON on standard error; times are UTC. The Kafka client's
loggers go through the same lines from `warning` on. Nothing here knows what is logged, but it masks what looks like a secret.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from config.settings import LogSettings

ROOT = "recurd"

#: More equal events of one logger than this in one second are counted instead of written.
REPEATS_PER_S = 100

#: Fields of these names are masked, whatever they hold.
SECRET = re.compile(r"password|passwd|secret|token|credential|api_?key", re.IGNORECASE)

#: What a line has besides its fields.
RESERVED = frozenset({"ts", "level", "event", "logger", "traceback"})


class Log:
    """Writes the events of one part of recurd."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, /, **fields: object) -> None:
        """For developers; nearly free while `log.level` is above it."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, /, **fields: object) -> None:
        """A life-cycle event."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, /, **fields: object) -> None:
        """Something went wrong and recurd deals with it."""
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, /, **fields: object) -> None:
        """Something went wrong and somebody must act."""
        self._logger.error(event, extra={"fields": fields})

    def exception(self, event: str, /, **fields: object) -> None:
        """An error with the traceback of the exception being handled."""
        self._logger.exception(event, extra={"fields": fields})


def get(name: str) -> Log:
    """The log of a part; `name` is shown in its lines."""
    return Log(logging.getLogger(f"{ROOT}.{name}"))


class Progress:
    """When a long command says how far it is: every few seconds, and not in the first of them."""

    def __init__(self, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._said_s = clock()

    def is_due(self) -> bool:
        """Whether so much time has passed since it last was."""
        now_s = self._clock()
        if now_s - self._said_s < self._every_s:
            return False
        self._said_s = now_s
        return True


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send all lines of this process to `stream` (default: standard error), as the settings say. May be called again."""
    output = Output(stream or sys.stderr)
    output.setFormatter(JsonLine() if settings.format == "json" else TextLine())
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, Output)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(output)
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(settings.level.upper())
    logging.getLogger("kafka").setLevel(logging.WARNING)
    logging.captureWarnings(True)


class Output(logging.StreamHandler[TextIO]):
    """Writes lines and counts repeats beyond the limit; a stream that cannot be written never stops the process."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._repeats = Repeats(clock)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, unless it is one too many; and how many of others were."""
        for name, event, count in self._repeats.over():
            super().emit(_summary(name, event, count))
        if record.levelno <= logging.DEBUG or self._repeats.admits(record.name, str(record.msg)):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Nothing: a full disk or a closed pipe is no reason to stop forecasting, and there is nowhere to say so."""

    def close(self) -> None:
        """Say what was counted and not yet written."""
        with contextlib.suppress(ValueError, OSError):
            for name, event, count in self._repeats.over(at_end=True):
                super().emit(_summary(name, event, count))
        super().close()


class Repeats:
    """Counts equal events in windows of one second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}  # (logger, event) -> start, events since

    def admits(self, name: str, event: str) -> bool:
        """Count an event; whether it may be written."""
        with self._lock:
            start, count = self._windows.get((name, event), (self._clock(), 0))
            self._windows[name, event] = (start, count + 1)
            return count < REPEATS_PER_S

    def over(self, at_end: bool = False) -> list[tuple[str, str, int]]:
        """Close the windows that are over; what was held back in them, as (logger, event, count)."""
        now = self._clock()
        with self._lock:
            ended = [key for key, (start, _) in self._windows.items() if at_end or now - start >= 1.0]
            counts = [(key, self._windows.pop(key)[1]) for key in ended]
        return [(*key, count - REPEATS_PER_S) for key, count in counts if count > REPEATS_PER_S]


class TextLine(logging.Formatter):
    """`2026-11-24T10:00:00.000Z info loop: partition restored partition=3 seconds=0.4`"""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it where there is one."""
        event, fields = _event(record), _fields(record)
        pairs = "".join(f" {key}={_text(value)}" for key, value in fields.items())
        line = f"{_time(record)} {record.levelname.lower()} {_logger(record)}: {_one_line(event)}{pairs}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLine(logging.Formatter):
    """`{"ts": "...", "level": "info", "event": "partition restored", "logger": "loop", "partition": 3, "seconds": 0.4}`"""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object; a field named like a part of the line gets an underscore behind its name."""
        line: dict[str, object] = {
            "ts": _time(record),
            "level": record.levelname.lower(),
            "event": _event(record),
            "logger": _logger(record),
        }
        line |= {f"{key}_" if key in RESERVED else key: value for key, value in _fields(record).items()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _summary(name: str, event: str, count: int) -> logging.LogRecord:
    record = logging.LogRecord(name, logging.WARNING, "", 0, "repeats not written", (), None)
    record.fields = {"of": event, "count": count}
    return record


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _logger(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{ROOT}.")


def _event(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # another library's wrong format
        return str(record.msg)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return {key: "(hidden)" if SECRET.search(key) else _plain(value) for key, value in fields.items()}


def _plain(value: Any) -> object:
    """A value that JSON can say: floats to a millionth, what is not finite as text, others as their text."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _text(value: object) -> str:
    text = str(value)
    return text if re.fullmatch(r'[^\s="\\\x00-\x1f\x7f-\x9f]+', text) else _one_line(json.dumps(text, ensure_ascii=False))


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: f"\\x{ord(found[0]):02x}", text)
