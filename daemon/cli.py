"""The command line: names, options and exit codes. Each command's module is imported when it runs, so that the others stay quick.

A command is one function here that calls one function there with settings and plain values; it answers with an exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from config import toml
from config.settings import Settings, SettingsError, load, parse_time_ms
from daemon import logs
from daemon.errors import EXIT_FAILED, EXIT_NO_RESTART, EXIT_RESTART, EXIT_USAGE, REASONS, OperatorError, RecurdError

#: Where `recurd broker` keeps its broker unless told otherwise.
BROKER_DIRECTORY = Path.home() / ".cache" / "recurd" / "broker"
BROKER_PORT = 9092

EXIT_INTERRUPTED = 130

Command = Callable[[Settings, argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; a mistake is one sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        settings = load(options.config, os.environ, options.set)
        logs.configure(settings.log)
        command: Command = options.command
        return _flushed(command(settings, options))
    except SettingsError as error:
        return _said(error, EXIT_USAGE)
    except RecurdError as error:
        return _said(error, EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has enough, as in `recurd state list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:  # a file that cannot be read or written; its text names the file
        return _said(error, EXIT_FAILED)


def _flushed(code: int) -> int:
    sys.stdout.flush()
    return code


def _said(error: Exception, code: int) -> int:
    print(f"recurd: {error}", file=sys.stderr)
    return code


# -- the commands -------------------------------------------------------------------------------------------------------------


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import serve

    given = [
        *(["--config", str(options.config)] if options.config else []),
        *(word for one in options.set for word in ("--set", one)),
    ]
    try:
        return serve.run(settings, [sys.executable, "-m", "daemon.cli", "retrain", "--supervised", *given])
    except OperatorError as error:  # before the log and the probes are there to say it
        return _said(error, EXIT_NO_RESTART)
    except RecurdError as error:
        return _said(error, EXIT_RESTART)


def _demo(settings: Settings, _options: argparse.Namespace) -> int:
    from daemon import demo

    return demo.run(settings)


@contextmanager
def _weights_errors() -> Iterator[None]:
    """Weights or arithmetic that cannot be used, as an operator's error: `models` knows no errors of ours."""
    from models.arithmetic import UnstableArithmetic
    from models.artifacts import ArtifactError

    try:
        yield
    except (ArtifactError, UnstableArithmetic) as error:
        raise OperatorError(str(error)) from error


def _train(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import train

    with _weights_errors():
        return train.run(settings, options.data, options.out, until=options.until, seed=options.seed, steps=options.steps)


def _retrain(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import worker

    with _weights_errors():
        return worker.run(settings, options.once, options.supervised, print)


def _replay(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import garbage, replay

    garbage.settle()
    _check_speed(options)
    if options.speed is not None:
        return _play(settings, options)
    with _weights_errors():
        return replay.run(
            settings,
            options.data,
            options.weights,
            options.out,
            as_recorded=not options.ignore_epochs,
            with_source=options.with_source,
            retrain_every_s=options.retrain_every,
            retrain_from_ms=options.retrain_from,
            until=options.until,
            streams=options.streams,
            report=options.report,
            season_s=options.season,
            say=print,
        )


def _check_speed(options: argparse.Namespace) -> None:
    """Refuse options that would have no effect: with --speed nothing is forecast, without it nothing is sent."""
    if options.speed is None and options.topic is not None:
        raise SettingsError("--topic says where --speed sends records: add --speed N, or remove it.")
    forecasting = ("weights", "out", "report", "season", "retrain_every", "retrain_from", "ignore_epochs", "with_source")
    given = [f"--{name.replace('_', '-')}" for name in forecasting if getattr(options, name)]
    if options.speed is not None and given:
        raise SettingsError(f"--speed sends records to a topic and forecasts nothing: remove {', '.join(given)}.")


def _play(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import playback, selection

    selected = selection.Selected(settings, options.data, True, selection.until_ms(options.until), options.streams)
    return playback.run(settings, options.data, speed=options.speed, topic=options.topic, select=selected.select, say=print)


def _record(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import record

    span = record.Span(*(record.parse_bound(text) if text else record.Bound() for text in (options.first, options.last)))
    return record.run(
        settings,
        options.topic,
        options.out,
        span=span,
        partition=options.partition,
        limit=options.limit,
        follow=options.follow,
        resume=options.resume,
        say=print,
    )


def _audit(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import audit, garbage

    garbage.settle()
    sources = audit.Sources(options.readings, options.forecasts, options.models, options.weights)
    with _weights_errors():
        return audit.run(
            settings, sources, part=options.part, most=options.most, report=options.report, season_s=options.season, say=print
        )


def _state_list(settings: Settings, _options: argparse.Namespace) -> int:
    from daemon import state

    return state.list_streams(settings, print)


def _state_show(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import state

    return state.show(settings, options.stream, options.partition, print)


def _state_export(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import state

    return state.export(settings, options.out, print)


def _state_reset(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import state

    return state.reset(settings, options.stream, options.partition, print)


def _dead_letters_list(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import dead_letters

    return dead_letters.list_letters(settings, _letters(options), print)


def _dead_letters_retry(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import dead_letters

    return dead_letters.retry(settings, _letters(options), print)


def _letters(options: argparse.Namespace) -> Any:
    from daemon import dead_letters

    return dead_letters.Wanted(frozenset(options.reason), options.partition, options.retried)


@_weights_errors()
def _models_list(settings: Settings, _options: argparse.Namespace) -> int:
    from daemon import versions

    return versions.list_versions(settings, print)


@_weights_errors()
def _models_show(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import versions

    return versions.show(settings, options.version, print)


@_weights_errors()
def _models_promote(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import versions

    return versions.promote(settings, options.version, print)


@_weights_errors()
def _models_rollback(settings: Settings, _options: argparse.Namespace) -> int:
    from daemon import versions

    return versions.rollback(settings, print)


@_weights_errors()
def _models_import(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import versions

    return versions.import_file(settings, options.file, options.promote, print)


@_weights_errors()
def _models_export(settings: Settings, options: argparse.Namespace) -> int:
    from daemon import versions

    return versions.export(settings, options.version, options.out, print)


def _config_show(settings: Settings, options: argparse.Namespace) -> int:
    print(toml.defaults() if options.defaults else toml.effective(settings), end="")
    return 0


def _config_check(_settings: Settings, _options: argparse.Namespace) -> int:
    print("ok")
    return 0


def _broker_start(_settings: Settings, options: argparse.Namespace) -> int:
    from daemon.brokers import dev

    print(dev.start_background(options.directory, options.port))
    return 0


def _broker_stop(_settings: Settings, options: argparse.Namespace) -> int:
    from daemon.brokers import dev

    print("stopped" if dev.stop(options.directory) else "no broker ran")
    return 0


def _broker_status(_settings: Settings, options: argparse.Namespace) -> int:
    from daemon.brokers import dev

    running = dev.status(options.directory)
    if running is None:
        raise OperatorError(f"No broker runs on {options.directory}: start one with `recurd broker start`.")
    print(f"{running.bootstrap} (process {running.pid})")
    return 0


# -- the options --------------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="recurd",
        description="Streaming forecasts from carried LSTM state on Kafka.",
        epilog="Settings: a TOML file, RECURD_SECTION__KEY variables, --set; `recurd config show --defaults` explains every key.",
    )
    parser.add_argument("--version", action="version", version=f"recurd {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _command(commands, "serve", _serve, "read readings from Kafka, write forecasts back")
    _command(commands, "demo", _demo, "a broker, sensors and the daemon, watched live for two minutes")
    _add_train(commands)
    retrain = _command(commands, "retrain", _retrain, "train on the newest readings and put in force what is clearly better")
    retrain.add_argument("--once", action="store_true", help="one cycle, then end")
    retrain.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)  # ends with its standard input
    _add_replay(commands)
    _add_record(commands)
    _add_audit(commands)
    _add_state(_group(commands, "state", "the streams' state as it would be restored"))
    _add_dead_letters(_group(commands, "dead-letters", "records that could not be used"))
    _add_models(_group(commands, "models", "model versions, and the one in force"))
    _add_broker(_group(commands, "broker", "a real one-node Kafka on this machine, for development"))
    _add_config(_group(commands, "config", "the settings"))
    return parser


def _version() -> str:
    try:
        return metadata.version("recurd")
    except metadata.PackageNotFoundError:
        return "(not installed)"


_Commands = argparse._SubParsersAction  # argparse has no public name for what `add_subparsers` returns


def _command(commands: _Commands[argparse.ArgumentParser], name: str, command: Command, what: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=what[:1].upper() + what[1:] + ".")
    parser.set_defaults(command=command)
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="one setting; beats file and variables; repeatable",
    )
    return parser


def _group(commands: _Commands[argparse.ArgumentParser], name: str, what: str) -> _Commands[argparse.ArgumentParser]:
    parser = commands.add_parser(name, help=what, description=what[:1].upper() + what[1:] + ".")
    return parser.add_subparsers(metavar="COMMAND", required=True)


def _add_train(commands: _Commands[argparse.ArgumentParser]) -> None:
    train = _command(commands, "train", _train, "fit weights to a recording or CSV file")
    train.add_argument("data", type=Path, metavar="DATA", help="recording or CSV file")
    train.add_argument("--out", type=Path, required=True, metavar="WEIGHTS", help="safetensors file to write")
    train.add_argument("--until", metavar="TIME", help="use readings before this time only")
    train.add_argument("--seed", type=_whole, default=0, help="of first weights and sampling (default 0)")
    train.add_argument("--steps", type=_whole, metavar="N", help="optimizer steps at most, where time matters more than accuracy")


def _add_replay(commands: _Commands[argparse.ArgumentParser]) -> None:
    replay = _command(commands, "replay", _replay, "forecast a recording or CSV file without a broker")
    replay.add_argument("data", type=Path, metavar="DATA", help="recording or CSV file")
    replay.add_argument(
        "--weights", type=Path, action="append", default=[], help="repeatable: a recording's epochs choose; none: version naive"
    )
    replay.add_argument(
        "--out",
        type=Path,
        metavar="FORECASTS",
        help="JSON Lines, compressed if it ends in .zst; without it forecasts are scored alone",
    )
    replay.add_argument("--until", metavar="TIME", help="each partition ends before its first record of this time or later")
    replay.add_argument("--streams", action="append", default=[], metavar="PATTERN", help="such as pump-*; repeatable")
    replay.add_argument("--speed", type=_speed, metavar="N", help="send the records to a topic instead, N times as fast")
    _add_report(replay)
    replay.add_argument("--topic", help="where --speed sends them; default: the input topic")
    replay.add_argument(
        "--ignore-epochs", action="store_true", help="use the settings, not the epochs that the recording carries"
    )
    replay.add_argument(
        "--retrain-every", type=_duration_s, metavar="DURATION", help="retrain as the worker would, such as 7d (event time)"
    )
    replay.add_argument("--retrain-from", type=_time_ms, metavar="TIME", help="and not before this time")
    replay.add_argument("--with-source", action="store_true", help="write each forecast with its record's partition and offset")


def _add_record(commands: _Commands[argparse.ArgumentParser]) -> None:
    record = _command(commands, "record", _record, "write a topic to a recording")
    record.add_argument("--topic", help="its name, or forecasts, models, dead-letters, ...; default: the input topic")
    record.add_argument("--out", type=Path, required=True, metavar="RECORDING", help="JSON Lines; compressed if it ends in .zst")
    record.add_argument("--from", dest="first", metavar="OFFSET|TIME", help="first record of each partition")
    record.add_argument("--to", dest="last", metavar="OFFSET|TIME", help="records before this one")
    record.add_argument("--partition", type=_whole, help="this partition alone")
    record.add_argument("--limit", type=_whole, metavar="N", help="at most N records")
    record.add_argument("--follow", action="store_true", help="go on at the end, until SIGINT or SIGTERM")
    record.add_argument("--resume", action="store_true", help="go on behind what an earlier command of that --out has read")


def _add_audit(commands: _Commands[argparse.ArgumentParser]) -> None:
    audit = _command(commands, "audit", _audit, "derive every forecast again and compare it with what was sent")
    for name, what in (("readings", "the input, with its epochs"), ("forecasts", "the forecasts"), ("models", "the weights")):
        audit.add_argument(f"--{name}", type=Path, metavar="RECORDING", help=f"{what}; default: the topic")
    audit.add_argument("--weights", type=Path, action="append", default=[], metavar="WEIGHTS", help="weights file; repeatable")
    audit.add_argument("--part", action="store_true", help="the recording of the forecasts begins late or ends early")
    _add_report(audit)
    audit.add_argument("--most", type=_whole, default=10, metavar="N", help="differences shown in full (default 10)")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", type=Path, metavar="HTML", help="a page of fans, errors, calibration, anomalies")
    parser.add_argument("--season", type=_duration_s, metavar="DURATION", help="score the value of a season before too: 1d")


def _add_state(state: _Commands[argparse.ArgumentParser]) -> None:
    _command(state, "list", _state_list, "a line for every stream")
    show = _command(state, "show", _state_show, "a stream's row as JSON")
    reset = _command(state, "reset", _state_reset, "let a stream start afresh, by a record in the input topic")
    for parser in (show, reset):
        parser.add_argument("stream", help="stream id")
        parser.add_argument("--partition", type=_whole, help="this partition alone")
    export = _command(state, "export", _state_export, "write every stream's row as JSON Lines")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="compressed if it ends in .zst")


def _add_dead_letters(letters: _Commands[argparse.ArgumentParser]) -> None:
    listed = _command(letters, "list", _dead_letters_list, "a line for every record that could not be used")
    retry = _command(letters, "retry", _dead_letters_retry, "send those records to the input topic again, each once")
    for parser in (listed, retry):
        parser.add_argument("--reason", action="append", default=[], choices=REASONS, help="those alone; repeatable")
        parser.add_argument("--partition", type=_whole, help="of this input partition alone")
        parser.add_argument("--retried", action="store_true", help="those too that were retried already")


def _add_models(models: _Commands[argparse.ArgumentParser]) -> None:
    _command(models, "list", _models_list, "a line for every version")
    show = _command(models, "show", _models_show, "a version's manifest as JSON")
    promote = _command(models, "promote", _models_promote, "put a version in force, without a restart")
    export = _command(models, "export", _models_export, "write a version to a file")
    for parser in (show, promote, export):
        parser.add_argument("version", help="as `recurd models list` shows it; promote also takes naive")
    export.add_argument("--out", type=Path, required=True, metavar="WEIGHTS", help="safetensors file to write")
    _command(models, "rollback", _models_rollback, "put the version in force that forecast before this one")
    imported = _command(models, "import", _models_import, "publish a weights file")
    imported.add_argument("file", type=Path, metavar="WEIGHTS", help="safetensors file, as `recurd train` writes it")
    imported.add_argument("--promote", action="store_true", help="and put it in force")


def _add_broker(broker: _Commands[argparse.ArgumentParser]) -> None:
    start = _command(broker, "start", _broker_start, "start it in the background and print its address")
    start.add_argument("--port", type=_port, default=BROKER_PORT, help=f"default {BROKER_PORT}; 0: a free one")
    stop = _command(broker, "stop", _broker_stop, "stop it; its data stays")
    status = _command(broker, "status", _broker_status, "its address and process; exit code 1 where none runs")
    for parser in (start, stop, status):
        parser.add_argument("--directory", type=Path, default=BROKER_DIRECTORY, help=f"its data (default {BROKER_DIRECTORY})")


def _add_config(config: _Commands[argparse.ArgumentParser]) -> None:
    show = _command(config, "show", _config_show, "print the settings in force as TOML, without secrets")
    show.add_argument("--defaults", action="store_true", help="every key with its default, meaning and unit instead")
    _command(config, "check", _config_check, "say ok, or what is wrong; exit code 2")


def _duration_s(text: str) -> float:
    """Seconds of `90s`, `30m`, `12h` or `7d`."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86_400}.get(text[-1:])
    if unit is None or not text[:-1].isdecimal() or not int(text[:-1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write it such as 12h or 7d")
    return float(int(text[:-1]) * unit)


def _time_ms(text: str) -> int:
    """Epoch milliseconds of an RFC 3339 time."""
    try:
        return parse_time_ms(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write it such as 2026-11-24T10:00:00Z") from None


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no speed: write it such as 1 or 60")
    return speed


def _port(text: str) -> int:
    port = _whole(text)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: 0 to 65535")
    return port


if __name__ == "__main__":
    sys.exit(main())
