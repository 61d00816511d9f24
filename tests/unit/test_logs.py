"""Log lines: one a line, masked, rate-limited, and never a reason to stop."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest
from pydantic import SecretStr

from config.settings import LogSettings
from daemon import logs

log = logs.get("unit")


pytestmark = pytest.mark.usefixtures("own_logging")


def written(**settings: str) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(LogSettings.model_validate(settings), stream)
    return stream


def test_text_line() -> None:
    """A text line is time, level, logger, event and fields."""
    stream = written()
    log.info("partition restored", partition=3, seconds=0.40000001, why="two words", none=None)
    line = stream.getvalue()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (.*)\n", line)
    assert line.partition(" ")[2] == 'info unit: partition restored partition=3 seconds=0.4 why="two words" none=None\n'


def test_json_line() -> None:
    """A JSON line is one object; a field cannot pose as a part of the line."""
    stream = written(format="json")
    log.warning("broker unreachable", level="fake", retry_in_s=0.5, rate=float("nan"), odd={1})
    line = json.loads(stream.getvalue(), parse_constant=pytest.fail)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "warning", "event": "broker unreachable", "logger": "unit", "level_": "fake", "retry_in_s": 0.5,
        "rate": "nan", "odd": "{1}",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a\nb", "a\r\n2026-01-01T00:00:00.000Z info loop: forged", "\x1b[2J", "\u2028", ""])
def test_text_stays_on_its_line(text: str) -> None:
    """Neither an event nor a field can begin a line or move the cursor."""
    stream = written()
    log.info("event " + text, field=text)
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("format_", ["text", "json"])
def test_secrets_are_masked(format_: str) -> None:
    """Neither a secret value nor a field named like one shows."""
    stream = written(format=format_)
    log.info("settings", value=SecretStr("s3cret"), sasl_password="s3cret", nested=LogSettings(), api_key="s3cret")
    assert "s3cret" not in stream.getvalue()
    assert "(hidden)" in stream.getvalue()


def test_level() -> None:
    """Lines below the level are not written."""
    stream = written(level="warning")
    log.info("quiet")
    log.debug("quieter")
    log.error("loud")
    assert "loud" in stream.getvalue()
    assert "quiet" not in stream.getvalue()


def test_client_from_warning_on() -> None:
    """The Kafka client's lines come from warning on, whatever our own level."""
    stream = written(level="debug")
    logging.getLogger("kafka.conn").info("chatter %s", 1)
    logging.getLogger("kafka.conn").warning("node %d gone", 3)
    assert stream.getvalue().endswith("warning kafka.conn: node 3 gone\n")
    assert "chatter" not in stream.getvalue()


def test_configuring_again_replaces() -> None:
    """A second configuration leaves one line an event."""
    first, second = written(), written()
    log.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_traceback_only_with_exception() -> None:
    """An exception's traceback follows its line, inside the object where the line is JSON."""
    stream = written(format="json")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed", partition=1)
    assert "ValueError: broken" in json.loads(stream.getvalue())["traceback"]


def test_repeats_are_counted() -> None:
    """Equal events beyond the limit in a second are counted, and the count is written when the second is over."""
    now = [0.0]
    stream = io.StringIO()
    output = logs.Output(stream, clock=lambda: now[0])
    output.setFormatter(logs.TextLine())

    def say(event: str) -> None:
        output.handle(logging.LogRecord("recurd.unit", logging.WARNING, "", 0, event, (), None))

    for _ in range(logs.REPEATS_PER_S + 7):
        say("noise")
    say("other")
    assert stream.getvalue().count("noise") == logs.REPEATS_PER_S
    now[0] = 1.0
    say("noise")
    lines = stream.getvalue().splitlines()
    assert "other" in lines[-3]
    assert lines[-2].endswith("warning unit: repeats not written of=noise count=7")
    assert lines[-1].endswith("warning unit: noise")


def test_repeats_are_written_at_the_end() -> None:
    """What was counted is not lost when the process ends."""
    stream = io.StringIO()
    output = logs.Output(stream, clock=lambda: 0.0)
    for _ in range(logs.REPEATS_PER_S + 1):
        output.handle(logging.LogRecord("recurd.unit", logging.WARNING, "", 0, "noise", (), None))
    output.close()
    assert "repeats not written" in stream.getvalue()


def test_a_full_disk_stops_nothing() -> None:
    """A stream that cannot be written raises nothing and prints nothing."""

    class Full(io.StringIO):
        def write(self, _text: str, /) -> int:
            raise OSError(28, "No space left on device")

    logs.configure(LogSettings(), Full())
    log.error("lost")


def test_progress_is_due_every_few_seconds() -> None:
    """Not at the start; after a long pause once and not once for each period that went by."""
    times = iter([0.0, 4.9, 5.0, 9.9, 23.0, 24.0, 28.0])
    progress = logs.Progress(5.0, lambda: next(times))
    assert [progress.is_due() for _ in range(6)] == [False, True, False, True, False, True]
