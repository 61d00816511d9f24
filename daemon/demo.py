"""`recurd demo`: a real Kafka, real sensors, first weights, the daemon, killed half-way, and a summary.

Wiring only. Everything lives in one temporary directory and ends with this process, in whatever way it ends.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from rich.console import Console

from config.settings import Settings
from daemon import demo_screen, demo_summary, demo_weather, logs
from daemon.demo_scores import LEADS, Ledger, SensorScore
from daemon.demo_screen import Facts, Screen
from daemon.demo_steps import Demo
from daemon.demo_traffic import PARTITIONS
from daemon.errors import EXIT_FAILED


def run(settings: Settings) -> int:
    """Run the demo; `model`, `state` and `output` of the settings hold for its daemon, too.

    Returns:
        0; 1 where a reading has no forecast or several.

    Raises:
        OperatorError: Something is not installed, or a process failed; with the end of its log.
    """
    data = demo_weather.locate()
    console = Console(width=None if sys.stdout.isatty() else demo_screen.PLAIN_WIDTH)
    horizon, levels = settings.model.horizon, settings.model.levels
    leads = [lead for lead in LEADS if lead <= horizon]
    facts = Facts(
        ledger=Ledger(PARTITIONS),
        scores={sensor: SensorScore(leads) for sensor in demo_weather.SENSORS},
        lead=max(lead for lead in leads if lead <= 6),
        interval=f"{levels[-1] - levels[0]:.0%}",
    )
    with _left_clean() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recurd-demo-")))
        stack.callback(logs.configure, settings.log)
        logs.configure(settings.log, stack.enter_context((directory / "demo.log").open("w")))  # it would tear the screen
        screen = stack.enter_context(Screen(console, facts))
        Demo(settings, directory, stack, screen).run(data)
    demo_summary.show(facts, screen.elapsed_s(), console)
    return EXIT_FAILED if facts.ledger.lost() or facts.ledger.repeated() else 0


@contextlib.contextmanager
def _left_clean() -> Iterator[contextlib.ExitStack]:
    """A stack that is unwound whatever signal ends the demo; a second Ctrl-C does not interrupt that."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    stack = contextlib.ExitStack()
    try:
        yield stack
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        stack.close()
        for number, handler in before.items():
            signal.signal(number, handler)
