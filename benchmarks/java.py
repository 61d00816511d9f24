"""A Java program of ours beside a benchmark: compiled into a folder, run, asked how far it is. Knows no Kafka.

It needs a JDK on the PATH. A program that serves answers each line on its standard input by a line, and ends when that ends, so
that none outlives the benchmark.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

#: The vectors of the JDK: products and activations take a fifth of the time that loops take which the compiler is to vectorize.
MODULES = ("--add-modules", "jdk.incubator.vector")
#: A heap that is there from the start; no counters in a file, which made pauses wait for the disk.
OPTIONS = ("-Xms2g", "-Xmx2g", "-XX:+AlwaysPreTouch", "-XX:+PerfDisableSharedMem")
#: How long it may take to end.
PATIENCE_S = 120.0


def missing() -> list[str]:
    """What of a JDK is not on the PATH."""
    return [name for name in ("javac", "java") if shutil.which(name) is None]


def version() -> str:
    """What `java` says it is."""
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    return told.splitlines()[0]


@dataclass(frozen=True)
class Program:
    """A compiled main class."""

    main: str
    class_path: str

    def command(self, settings: Path, *options: str) -> list[str]:
        """That runs it with a properties file, and with options of the JVM."""
        log = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return ["java", *MODULES, *OPTIONS, *options, log, "-cp", self.class_path, self.main, str(settings)]


def compiled(source: Path, jars: Sequence[Path], into: Path) -> Program:
    """The program of one source file."""
    class_path = os.pathsep.join(map(str, jars))
    run(["javac", *MODULES, "-nowarn", "-cp", class_path, "-d", str(into), str(source)])
    return Program(source.stem, os.pathsep.join((str(into), class_path)))


def run(command: Sequence[str]) -> None:
    """Run a program to its end."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr


def write_properties(file: Path, settings: Mapping[str, object]) -> Path:
    """A properties file; values hold no backslash."""
    file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return file


class Answer(NamedTuple):
    """What a program says of itself."""

    state: str
    done: int


class Running:
    """A program that serves, until `close` or until this process ends."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, bufsize=1
            )

    @property
    def pid(self) -> int:
        """Of the JVM."""
        return self._process.pid

    def ask(self) -> Answer:
        """Its state and how much it has done."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        return self._answer()

    def close(self) -> Answer:
        """End it in good order; what it says at last."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        last = self._answer()
        assert self._process.wait(PATIENCE_S) == 0, self.tail()
        return last

    def kill(self) -> None:
        """Where it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def tail(self) -> str:
        """The end of what it wrote to standard error."""
        return self.log.read_text()[-4000:]

    def _answer(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the JVM has ended:\n{self.tail()}"
        state, done = line.split()
        return Answer(state, int(done))
