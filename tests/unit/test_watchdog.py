"""The watchdog: when it bites, and how."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from daemon.errors import EXIT_RESTART
from daemon.http import Health
from daemon.watchdog import TICKS, Watchdog

ROOT = Path(__file__).parents[2]


def test_a_moving_loop_is_left_alone() -> None:
    """A beat between any two looks keeps the count at none."""
    health = Health(30.0)
    watchdog = Watchdog(health, 30.0)
    quiet = []
    for _ in range(3 * TICKS):
        health.beat()
        quiet.append(watchdog.tick())
    assert quiet == [0] * (3 * TICKS)


def test_silence_is_counted_and_forgotten() -> None:
    """Looks that saw no beat count up, and one that did starts anew."""
    health = Health(30.0)
    watchdog = Watchdog(health, 30.0)
    assert [watchdog.tick() for _ in range(3)] == [1, 2, 3]
    health.beat()
    assert [watchdog.tick() for _ in range(2)] == [0, 1]


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    """However late a look comes, it counts once: a stopped process must get a chance to move after it wakes."""
    now_s = [0.0]
    health = Health(30.0, lambda: now_s[0])
    watchdog = Watchdog(health, 30.0)
    now_s[0] = 10_000.0
    assert watchdog.tick() == 1


def test_stop_ends_the_thread() -> None:
    """A stopped watchdog does not outlive the loop; one never started can be stopped."""
    Watchdog(Health(30.0), 30.0).stop()
    watchdog = Watchdog(Health(3600.0), 3600.0)
    watchdog.start()
    watchdog.stop()
    assert not watchdog._thread.is_alive()


def test_hung_process_ends_with_stacks() -> None:
    """A loop that hangs ends the process with exit 75, a log line, and where every thread stood."""
    program = """
        import threading
        from config.settings import LogSettings
        from daemon import logs
        from daemon.http import Health
        from daemon.watchdog import Watchdog

        def waits_for_ever():
            threading.Event().wait(60)

        logs.configure(LogSettings(format="json"))
        Watchdog(Health(0.2), 0.2).start()
        waits_for_ever()
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert ended.returncode == EXIT_RESTART, ended.stderr
    assert '"event": "loop hangs: ending the process"' in ended.stderr
    assert "waits_for_ever" in ended.stderr


def test_time_that_is_allowed_does_not_count() -> None:
    """A first start that compiles is no hang, neither to the watchdog nor to liveness; when the time is up it is one to both."""
    now_s = [0.0]
    health = Health(30.0, lambda: now_s[0])
    watchdog = Watchdog(health, 30.0)
    health.allow(600.0)
    now_s[0] = 599.0
    assert [watchdog.tick() for _ in range(3)] == [0, 0, 0]
    assert health.silent_s() == 0
    now_s[0] = 631.0
    assert [watchdog.tick() for _ in range(2)] == [1, 2]
    assert not health.live()["loop"][0]
    health.beat()
    now_s[0] = 632.0
    assert [watchdog.tick() for _ in range(2)] == [0, 1]
