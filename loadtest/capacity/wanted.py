"""What is asked of `adrank capacity`, and what it assumes where nobody says otherwise."""

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from loadtest.capacity.cluster import Balancing
from loadtest.slo import Slo

KIB = 1024
UNITS = {"B": 1, "KiB": KIB, "MiB": KIB**2, "GiB": KIB**3, "kB": 10**3, "MB": 10**6, "GB": 10**9}
TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3}
NUMBER = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]+)")


def _with_unit(value: object, units: dict[str, float], example: str) -> object:
    if not isinstance(value, str):
        return value
    found = NUMBER.fullmatch(value.strip())
    if found is None or found[2] not in units:
        raise ValueError(f"{value!r} is no number with a unit ({', '.join(units)}), such as {example}")
    return float(found[1]) * units[found[2]]


def _milliseconds(value: object) -> object:
    return _with_unit(value, TIMES, "20ms")


def _bytes(value: object) -> object:
    read = _with_unit(value, dict(UNITS), "16GiB")
    return round(read) if isinstance(read, float) else read


Milliseconds = Annotated[float, BeforeValidator(_milliseconds)]
Bytes = Annotated[int, BeforeValidator(_bytes)]


class Wanted(BaseModel):
    """Every field is an option of the command; where it is not given, its value is an assumption that is printed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rps: float = Field(gt=0, le=1e9, description="Requests a second, at the peak.")
    p99: Milliseconds = Field(gt=0, description="Promised 99th percentile, such as 20ms.")
    error_rate: float = Field(0.001, ge=0, le=1, description="Share of requests that may fail.")
    degraded_rate: float = Field(0.01, ge=0, le=1, description="Share of answers that may do without something.")
    balancing: Balancing = Field(
        "random",
        description="How requests are dealt to processes. The processes of one machine share a socket: its connections "
        "are dealt without regard to load, as random does.",
    )
    workers: int = Field(8, ge=1, le=4096, description="Processes of a replica, one core each.")
    slowdown: float = Field(
        1.1, ge=1, le=100, description="Times as long as measured, because all cores of a machine are busy."
    )
    network: Milliseconds = Field(
        0.5, ge=0, le=60_000, description="Between callers and service, there and back, beyond what was measured."
    )
    zones: int = Field(3, ge=1, le=100, description="Zones that replicas stand in.")
    zones_lost: int = Field(1, ge=0, description="Zones that may be lost at the peak.")
    spare: int = Field(1, ge=0, description="Replicas beyond that: one is being replaced.")
    max_in_flight: int = Field(64, ge=1, description="The service's setting of that name.")
    deadline: Milliseconds = Field(200.0, gt=0.5, description="The service's setting default_deadline_ms.")
    redis_time: Milliseconds = Field(0.3, ge=0, le=60_000, description="From asking Redis for a user to the answer.")
    redis_work: Milliseconds = Field(
        0.15, ge=0, le=60_000, description="Of the process for such a read (docs/performance.md, user features)."
    )
    cache_hits: float = Field(0.0, ge=0, le=1, description="Share of requests whose user a process has in memory.")
    events: float = Field(0.1, ge=0, le=1000, description="Events that users cause, a request; each sent by itself.")
    own_memory: Bytes | None = Field(None, gt=0, description="Of each process alone; else as measured.")
    mapped_memory: Bytes | None = Field(None, ge=0, description="Of files that a machine's processes share; measured.")
    cache_memory: Bytes = Field(64 * KIB**2, ge=0, description="The service's setting cache_bytes.")
    memory_margin: float = Field(
        1.5,
        ge=1,
        le=100,
        description="Times the memory, because another bundle is loaded beside the one that is served.",
    )
    users: int = Field(10_000_000, ge=0, description="Users in Redis.")
    user_bytes: Bytes = Field(
        2000, ge=1, description="Of Redis for each: a record of 50 events and its key (adrank bench capacity)."
    )
    shard_memory: Bytes = Field(16 * KIB**3, gt=0, description="Data that one Redis may hold.")
    shard_operations: float = Field(
        50_000, gt=0, description="Commands a second that one Redis is given: about half of what it can."
    )
    redis_copies: int = Field(2, ge=1, le=100, description="Of all data: a shard and its replicas.")
    requests: int = Field(40_000, ge=1000, le=10_000_000, description="Simulated at each rate.")
    seed: int = Field(1, ge=0, description="Of the simulation.")

    @model_validator(mode="after")
    def _zones_remain(self) -> "Wanted":
        if self.zones_lost >= self.zones:
            raise ValueError(f"zones_lost is {self.zones_lost}, it must be below zones, {self.zones}")
        return self

    @property
    def slo(self) -> Slo:
        """The promise as load tests know it."""
        return Slo(rate=self.rps, p99_ms=self.p99, error_rate=self.error_rate, degraded_rate=self.degraded_rate)
