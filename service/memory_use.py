"""What this process holds, and what the machine or container has left. Linux; elsewhere nothing is known."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
STATUS = Path("/proc/self/status")
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of a process that are in memory now."""

    own: int
    """Of it alone: arrays it made, sessions."""
    mapped: int
    """Of files, which all processes share."""


def held() -> Held | None:
    """By this process. None where the system does not tell."""
    found = _table(STATUS)
    if "RssAnon" not in found:
        return None
    return Held(found["RssAnon"], found["RssFile"])


def available() -> int | None:
    """Bytes that can be had before the system has to give something up: of the machine, or of the container where that
    has less. None where the system does not tell."""
    found = _table(MEMINFO).get("MemAvailable")
    if found is None:
        return None
    with contextlib.suppress(OSError, ValueError):  # no limit is written as "max"
        limit = int((CGROUP / "memory.max").read_text())
        cached = _stat(CGROUP / "memory.stat", "inactive_file")
        used = int((CGROUP / "memory.current").read_text()) - cached
        found = min(found, max(0, limit - used))
    return found


def _table(path: Path) -> dict[str, int]:
    """Name -> bytes, of lines such as `RssAnon:  1234 kB`."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    parts = (line.replace(":", "").split() for line in lines)
    return {part[0]: int(part[1]) * 1024 for part in parts if len(part) == 3 and part[2] == "kB"}


def _stat(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
