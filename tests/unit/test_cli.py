"""The command line: which function gets what, exit codes, and one sentence a mistake."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import daemon
from config import toml
from config.settings import Settings, SettingsError
from daemon import brokers, cli
from daemon.errors import Doubt, OperatorError, RecurdError, StateError

pytestmark = pytest.mark.usefixtures("own_logging")

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RECURD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts functions in the place of a command's module."""

    def put(package: ModuleType, name: str, **functions: Any) -> None:
        stub = SimpleNamespace(**functions)
        monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", stub)
        monkeypatch.setattr(package, name, stub, raising=False)

    return put


def raising(error: BaseException) -> Callable[..., int]:
    def run(*_arguments: object, **_options: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("a sentence."), 2),
        (OperatorError("a sentence."), 1),
        (StateError("a sentence."), 1),
        (Doubt("a sentence."), 1),
        (RecurdError("a sentence."), 1),
        (PermissionError(13, "Permission denied", "/out"), 1),
    ],
)
def test_error_is_one_line_and_a_code(
    put: Callable[..., None], capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    """An error raised on purpose ends a command with its code and its message, without a stack."""
    put(daemon, "demo", run=raising(error))
    assert cli.main(["demo"]) == code
    assert capsys.readouterr().err == f"recurd: {error}\n"


@pytest.mark.parametrize(("error", "code"), [(SettingsError("x"), 2), (OperatorError("x"), 78), (Doubt("x"), 75)])
def test_serve_says_whether_a_restart_helps(put: Callable[..., None], error: Exception, code: int) -> None:
    """A supervisor must not restart what only the operator can mend."""
    put(daemon, "serve", run=raising(error))
    assert cli.main(["serve"]) == code


def test_interrupt(put: Callable[..., None]) -> None:
    """Ctrl-C ends a command as shells expect."""
    put(daemon, "demo", run=raising(KeyboardInterrupt()))
    assert cli.main(["demo"]) == 130


def test_a_mistake_in_the_program_is_not_hidden(put: Callable[..., None]) -> None:
    """What nobody raised on purpose keeps its stack."""
    put(daemon, "demo", run=raising(KeyError("bug")))
    with pytest.raises(KeyError):
        cli.main(["demo"])


def test_settings_reach_the_command(put: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, variables and --set are merged before the command runs, and its exit code is the process's."""
    file = tmp_path / "recurd.toml"
    file.write_text("[kafka]\ngroup_id = 'a'\n[http]\nport = 1\n", "utf-8")
    monkeypatch.setenv("RECURD_HTTP__PORT", "2")
    got: list[Settings] = []
    commands: list[list[str]] = []
    put(daemon, "serve", run=lambda settings, worker: got.append(settings) or commands.append(worker) or 75)
    given = ["--config", str(file), "--set", "log.level=error", "--set", "http.host=::1"]
    assert cli.main(["serve", *given]) == 75
    assert commands[0][-len(given) - 2 :] == ["retrain", "--supervised", *given]
    assert (got[0].kafka.group_id, got[0].http.port, got[0].log.level, got[0].http.host) == ("a", 2, "error", "::1")


def test_replay_options(put: Callable[..., None], tmp_path: Path) -> None:
    """Weights may come several times; paths arrive as paths."""
    got: list[Any] = []
    put(daemon, "replay", run=lambda *arguments, **options: got.append((arguments[1:], options)) or 0)
    assert cli.main(["replay", "a.jsonl", "--weights", "w1", "--weights", "w2", "--out", "f", "--with-source"]) == 0
    arguments, options = got[0]
    assert arguments == (Path("a.jsonl"), [Path("w1"), Path("w2")], Path("f"))
    assert options.pop("say") is print
    assert options == {
        "as_recorded": True,
        "retrain_every_s": None,
        "retrain_from_ms": None,
        "with_source": True,
        "until": None,
        "streams": [],
        "report": None,
        "season_s": None,
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--speed", "2", "--out", "f"], "--speed sends records to a topic and forecasts nothing: remove --out."),
        (["--speed", "2", "--with-source", "--weights", "w"], "nothing: remove --weights, --with-source."),
        (["--topic", "t"], "--topic says where --speed sends records: add --speed N, or remove it."),
    ],
)
def test_replay_options_that_would_do_nothing(capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    """Nobody waits for a file that is never written, or for records that are never sent."""
    assert cli.main(["replay", "a.jsonl", *options]) == 2
    assert capsys.readouterr().err.endswith(f"{said}\n")


def test_train_options(put: Callable[..., None]) -> None:
    """The seed is a number, the time is left as it stands."""
    got: list[Any] = []
    put(daemon, "train", run=lambda *arguments, **options: got.append((arguments[1:], options)) or 0)
    assert cli.main(["train", "a.csv", "--out", "w", "--until", "2026-01-01", "--seed", "7", "--steps", "9"]) == 0
    assert got == [((Path("a.csv"), Path("w")), {"until": "2026-01-01", "seed": 7, "steps": 9})]


def test_broker_options(put: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`broker start` prints the address alone, so that a script can take it; `status` fails where none runs."""
    put(brokers, "dev", start_background=lambda directory, port: f"127.0.0.1:{port}", status=lambda directory: None)
    assert cli.main(["broker", "start", "--port", "1234", "--directory", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "127.0.0.1:1234\n"
    assert cli.main(["broker", "status", "--directory", str(tmp_path)]) == 1
    assert "recurd broker start" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["train"], ["state"], ["train", "x", "--out", "y", "--seed", "-1"], ["broker", "start", "--port", "65536"]],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Wrong usage is exit code 2 with the usage."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: recurd")


def test_config_check(capsys: pytest.CaptureFixture[str]) -> None:
    """`config check` says ok, or one sentence and 2."""
    assert cli.main(["config", "check"]) == 0
    assert capsys.readouterr().out == "ok\n"
    assert cli.main(["config", "check", "--set", "model.hidden=9"]) == 2
    assert "model.hidden = 9" in capsys.readouterr().err


def test_config_show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`config show` prints what is in force without secrets; with --defaults every key and its meaning."""
    monkeypatch.setenv("RECURD_KAFKA__SASL_PASSWORD", "s3cret")
    assert cli.main(["config", "show", "--set", "kafka.group_id=plant"]) == 0
    shown = capsys.readouterr().out
    assert tomllib.loads(shown)["kafka"]["group_id"] == "plant"
    assert "s3cret" not in shown
    assert cli.main(["config", "show", "--defaults"]) == 0
    assert capsys.readouterr().out == toml.defaults()


def test_settings_commands_stay_quick() -> None:
    """`config check` imports neither torch nor a Kafka client."""
    program = "import sys; from daemon import cli; cli.main(['config', 'check']); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    assert not {"torch", "numpy", "kafka"} & set(ran.stdout.split())


def test_a_reader_that_has_enough() -> None:
    """Output into a closed pipe ends without a stack."""
    program = "import sys; from daemon import cli; sys.exit(cli.main(['config', 'show', '--defaults']))"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False, timeout=60
        )
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, "")
