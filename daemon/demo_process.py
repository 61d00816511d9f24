"""A recurd command as a process of its own, as a user would start it, that cannot outlive the demo.

Its log is JSON lines in a file; what it says there is how the demo knows how far it is. Knows nothing of what the commands do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon.brokers.dev import GUARD
from daemon.errors import OperatorError

TAIL_LINES = 20
#: A daemon drains within ten seconds.
STOP_S = 15.0


class Process:
    """A running command."""

    def __init__(self, directory: Path, name: str, *arguments: str | Path) -> None:
        """Start `recurd ARGUMENTS`.

        Args:
            directory: For its log; a later process of the same name appends.
            name: Of the log.
            arguments: Command and options; they must leave the log on standard error as JSON.
        """
        self.name = name
        self._log = directory / f"{name}.log"
        self._out = directory / f"{name}.out"
        self._position = self._log.stat().st_size if self._log.exists() else 0
        command = [sys.executable, "-m", "daemon.cli", *map(str, arguments)]
        with self._log.open("ab") as log, self._out.open("ab") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=_environment(directory), start_new_session=True
            )
        # Where this process is killed, the guard's pipe closes and the guard kills the command.
        guard = [sys.executable, "-I", "-S", "-c", GUARD, str(self._process.pid)]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)

    def summary(self, name: str) -> str:
        """What it wrote to standard output after this word at the start of a line."""
        for line in self._out.read_text().splitlines():
            word, _, rest = line.partition(" ")
            if word == name:
                return rest.strip()
        raise self.failure(f"did not say {name!r}")

    def events(self) -> list[Mapping[str, Any]]:
        """Log lines since the last call; what is no JSON, such as a traceback, is left to `failure`."""
        with self._log.open("rb") as log:
            log.seek(self._position)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        found = []
        for line in whole.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def running(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise where it has ended with an error, or was killed."""
        if self._process.poll():
            raise self.failure(f"ended with {self._process.returncode}")

    def failure(self, what: str) -> OperatorError:
        """An error with the end of the log."""
        lines = self._log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return OperatorError(f"`recurd {self.name}` {what}; the end of its log:\n" + "\n".join(lines))

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended well.

        Raises:
            OperatorError: It did not, with the end of the log.
        """
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self.failure(f"did not stop within {STOP_S:.0f} s") from None
        self._release_guard()
        self.check()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Does nothing where it has ended."""
        self._process.kill()
        self._process.wait()
        self._release_guard()

    def _release_guard(self) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()


def _environment(directory: Path) -> dict[str, str]:
    """Ours without settings of recurd, which would beat the file that we give; torch leaves a cache where temporary files go."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RECURD_")}
    return kept | {"TMPDIR": str(directory)}
