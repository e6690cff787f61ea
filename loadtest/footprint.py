"""What a service takes of its machine, as far as it can be seen from outside: processes, memory, the ladder's rungs."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from client import RungOut

PROC = Path("/proc")


class Rung(BaseModel):
    """A fine-ranker that the service may fall back on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    expected_ms: float | None
    """Of all ads that a request has fine-ranked; None before it ran."""


class Footprint(BaseModel):
    """Of the service that was asked, after the load."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(ge=1)
    """Processes that answer."""
    own_bytes: int | None
    """Of each of them alone, on average: what it made, besides files. None where its processes cannot be seen."""
    mapped_bytes: int | None
    """Of files, which all processes of a machine share; the largest of them."""
    processor: str | None
    """Of the machine; None where it is another one."""
    rungs: list[Rung]
    """Best first."""


def footprint(ladder: Sequence[RungOut], processes: int, pid: int | None) -> Footprint:
    """`ladder`: of the control's bundle. `processes`: of the service, as it says. `pid`: of the service, None for one
    on another machine."""
    rungs = [Rung(name=each.name, expected_ms=each.expected_ms) for each in ladder if each.loaded]
    workers = max(processes, 1)
    own, mapped = (None, None) if pid is None else resident(pid)
    return Footprint(
        workers=workers,
        own_bytes=None if own is None else round(own / workers),
        mapped_bytes=mapped,
        processor=None if pid is None else _processor(),
        rungs=rungs,
    )


def resident(pid: int) -> tuple[int | None, int | None]:
    """Bytes in memory of a process and all that it started: those of their own, added up, and those of files, of the
    one that has most. None where the system does not tell (Linux does)."""
    found = [table for each in family(pid) if (table := _status(each))]
    if not found:
        return None, None
    return sum(each["RssAnon"] for each in found), max(each["RssFile"] for each in found)


def family(pid: int) -> list[int]:
    """The process, its children, theirs, …; those that are gone meanwhile are left out."""
    found = [pid]
    for each in found:  # grows meanwhile
        for task in sorted((PROC / str(each) / "task").glob("*/children")):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def _status(pid: int) -> dict[str, int]:
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return {}
    parts = (line.replace(":", "").split() for line in lines)
    sizes = {part[0]: int(part[1]) * 1024 for part in parts if len(part) == 3 and part[2] == "kB"}
    return sizes if {"RssAnon", "RssFile"} <= set(sizes) else {}  # a zombie has none


def _processor() -> str | None:
    try:
        lines = (PROC / "cpuinfo").read_text().splitlines()
    except OSError:
        return None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None
