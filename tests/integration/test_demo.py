"""`recurd demo` as a user runs it, on a pipe: it ends by itself, says how it went, and leaves nothing, whatever ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import environment, wait_until

pytestmark = pytest.mark.broker

#: Against a demo that never ends. How long it takes is measured in docs/demo.md, not asserted: machines have other work.
LIMIT_S = 400.0


class Demo:
    """A demo whose temporary directory lies in `directory`."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory / "tmp"
        self.directory.mkdir()
        self._out, self._err = directory / "out", directory / "err"
        command = [sys.executable, "-m", "daemon.cli", "demo", *options]
        env = environment() | {"TMPDIR": str(self.directory)}
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, preexec_fn=_take_interrupts
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_for(self, text: str, timeout_s: float = 60) -> None:
        def said() -> bool:
            assert self.process.poll() is None, f"ended before {text!r}:\n{self.out}{self.err}"
            return text in self.out

        wait_until(said, f"{text!r} said", timeout_s)

    def processes(self) -> list[str]:
        """Command lines that name its directory: the broker and the commands it runs."""
        return [line for line in command_lines() if str(self.directory) in line]

    def files(self) -> list[str]:
        return [path.name for path in self.directory.iterdir()]


def _take_interrupts() -> None:
    """A test run in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command_lines() -> list[str]:
    answer = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts one; where the test fails, it is stopped."""
    started: list[Demo] = []

    def start(*options: str) -> Demo:
        started.append(Demo(tmp_path, *options))
        return started[-1]

    yield start
    for each in started:
        each.process.terminate()
        each.process.wait(30)


@pytest.mark.slow
def test_it_ends_by_itself_and_says_how_it_went(demo: Callable[..., Demo]) -> None:
    """Every reading has exactly one forecast through the kill, the verdict is there, and nothing is left."""
    running = demo()
    assert running.process.wait(LIMIT_S) == 0, running.out + running.err
    out = running.out
    assert "every reading has exactly one, through the kill" in out
    assert "kill -9 of the daemon" in out
    assert "first forecast" in out
    assert "beats naive at +3, +6, +12, +24 h" in out or "none: not trained within" in out
    assert all(f"\n{airport} {name}" in out for airport in ("EWR", "JFK", "LGA") for name in ("temp", "visib"))
    assert "\x1b" not in out
    assert running.err == ""
    assert (running.processes(), running.files()) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "at", "code"),
    [(signal.SIGINT, "broker: Apache Kafka", 130), (signal.SIGTERM, "broker: starting", 143)],
    ids=["interrupt while training", "terminate while the broker starts"],
)
def test_a_signal_leaves_nothing(demo: Callable[..., Demo], number: signal.Signals, at: str, code: int) -> None:
    """Broker and commands are gone when the demo is, and its files too."""
    running = demo()
    running.wait_for(at)
    wait_until(running.processes, "something started", 60)
    running.process.send_signal(number)
    assert running.process.wait(60) == code
    assert (running.processes(), running.files()) == ([], [])


@pytest.mark.slow
def test_a_killed_demo_takes_its_processes_along(demo: Callable[..., Demo]) -> None:
    """Nothing can tidy up after SIGKILL, but nothing goes on running either."""
    running = demo()
    running.wait_for("broker: Apache Kafka")
    assert len(running.processes()) == 2
    running.process.kill()
    running.process.wait(10)
    wait_until(lambda: not running.processes(), "broker and training gone", 10)


@pytest.mark.slow
def test_a_failure_shows_the_end_of_the_log(demo: Callable[..., Demo]) -> None:
    """A command that fails is named with what it said last; exit 1, and nothing is left."""
    running = demo("--set", "model.kind=chain")
    assert running.process.wait(60) == 1
    assert "recurd: `recurd train` ended with 2" in running.err
    assert 'model.kind = "chain" has no weights to train' in running.err
    assert (running.processes(), running.files()) == ([], [])
