"""How an answer came: attempts, time, and where the service spent it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

PART = re.compile(r'([\w-]+)(?:;desc="([^"]*)")?;dur=([\d.]+)')
"""One part of the Server-Timing header as the service writes it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call, from its first attempt to its answer."""

    attempts: int = 1
    ms: float = 0.0
    """By the caller's clock, waits between attempts included."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of each part, as `Server-Timing` states them: features, queue, stages, total. Empty without it."""
    request_id: str = ""
    """Under which the service logs it."""


def timings(header: str) -> dict[str, float]:
    """Part -> milliseconds of a Server-Timing header."""
    return {name: float(ms) for name, _, ms in PART.findall(header)}
