"""What a generator process is told, and what it says: one JSON line each, over its pipes."""

from pydantic import BaseModel, ConfigDict, Field

from loadtest.arrivals import Curve


class Line(BaseModel):
    """A line of a pipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Plan(Line):
    """One phase of load, of which each process sends its part: arrivals `process`, `process + processes`, …"""

    url: str
    curve: Curve
    seed: int
    requests: str
    """File of requests, one JSON line each; they are sent in turn."""
    begin: float
    """When the curve begins, by CLOCK_MONOTONIC, which all processes of a machine share."""
    warm_up_s: float = 0.0
    """What is due before is sent, but not counted."""
    process: int = 0
    processes: int = 1
    connections: int = 256
    """Of this process. An arrival that finds all of them busy waits, and its wait counts."""
    timeout_s: float = 10.0
    headers: dict[str, str] = Field(default_factory=dict)
    closed: int = 0
    """Clients of a closed loop, each of which waits for its answer before it sends the next. 0: open loop."""
    unpaced: bool = False
    """Of a closed loop: send at once instead of when the next request is due, until the curve ends."""


class Tick(Line):
    """What the last second was like, for the display."""

    second: int
    sent: int
    answered: int
    failed: int
    degraded: int
    in_flight: int
    p50_ms: float
    p99_ms: float


class Window(Line):
    """One second of arrivals, warm-up included."""

    offered: int
    answered: int
    """With status 200."""
    failed: int
    degraded: int
    latency: str
    """Histogram of those answered."""


class Part(Line):
    """What one process measured of a phase, its warm-up left out unless said."""

    offered: int
    answered: int
    completed_in_time: int
    """Answers with status 200 that came between the warm-up's end and the curve's."""
    statuses: dict[str, int]
    """HTTP status, or the name of the error; `200` among them."""
    degraded: int
    reasons: dict[str, int]
    latency: str
    """From the intended start to the end of the answer; status 200 only."""
    uncorrected: str
    """The same from when it was sent."""
    lag: str
    """From the intended start to when it was sent, of all requests."""
    stages: dict[str, str]
    """Of Server-Timing; `network`: what lies outside of the service's own total, `work`: the total without waiting for
    its turn, `turn`: eligibility and all stages, which are one piece of work."""
    bundles: dict[str, str]
    """Latency by the bundle that answered."""
    windows: dict[int, Window]
    processor: float
    """Share of one core that the process used while it sent."""
    unsent: int
    """Requests that it gave up to send, because it was too late; they are in none of the other numbers."""
    seconds: float
    """From the warm-up's end to the curve's end, or to the last completion of an unpaced loop."""
