"""The machine that the numbers are of, and what a process used of it (Linux: /proc)."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("recurd", "torch", "numpy", "kafka-python", "crc32c", "msgspec")

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def facts() -> dict[str, Any]:
    """Processor, memory, versions, date and load: what a number means nothing without."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def resident_bytes(pid: int, field: str = "VmRSS") -> int:
    """Memory of a process: resident now, or `VmHWM`, its peak."""
    return int(_field(f"/proc/{pid}/status", field).split()[0]) * 1024


def thread_cpu_s(pid: int) -> dict[int, float]:
    """CPU time, user and system, of each living thread of a process; the main thread has the process's number."""
    used = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            used[int(task.name)] = _used_s(task)
        except OSError:
            continue  # it has just ended
    return used


def cpu_s(pid: int) -> float:
    """CPU time, user and system, of a process, threads that have ended among it."""
    return _used_s(Path(f"/proc/{pid}"))


def _used_s(folder: Path) -> float:
    """User and system time of the process or thread that a folder of /proc describes."""
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def busy_s() -> float:
    """CPU time that all processes, the kernel and other guests of the machine have had."""
    user, nice, system, _idle, _waiting, *others = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(others)) / _TICKS_PER_S


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
