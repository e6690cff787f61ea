"""From what one process can do to replicas, cores, memory, and Redis."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from loadtest.capacity.cluster import BALANCINGS, Balancing
from loadtest.capacity.costs import Costs, Rules, rules_of
from loadtest.capacity.errors import CapacityError
from loadtest.capacity.knee import knee_of_process, process_of
from loadtest.capacity.measured import Measured
from loadtest.capacity.wanted import Wanted

EVENT_COMMANDS = 3
"""Of an event: a script that reads the record and writes it, and tells who has it in memory."""
POLLS = 6
"""Commands a second of each process: it looks for another state every 0.2 s, and for flags every second."""


@dataclass(frozen=True, slots=True)
class Process:
    """One worker process, as it will run."""

    costs: Costs
    rules: Rules
    rates: Mapping[Balancing, float]
    """Requests a second within the promise, by how requests are dealt."""

    @property
    def most(self) -> float:
        """Requests a second, whatever they wait."""
        return 1 / self.costs.busy_s


@dataclass(frozen=True, slots=True)
class Plan:
    """What it takes. Sizes in bytes."""

    process_rate: float
    """Requests a second of one process within the promise, as requests are dealt."""
    processes_needed: int
    replicas_needed: int
    """That answer all requests within the promise."""
    replicas: int
    replicas_a_zone: int
    cores: int
    replica_memory: int
    memory: int
    redis_data: int
    redis_memory: int
    redis_commands: float
    """A second."""
    redis_read_bytes: float
    """A second."""
    shards_by_memory: int
    shards_by_commands: int

    @property
    def shards(self) -> int:
        """Both hold."""
        return max(self.shards_by_memory, self.shards_by_commands)

    def summary(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self) | {"shards": self.shards}


def replicas_of(rate: float, wanted: Wanted) -> tuple[int, int, int]:
    """Processes that are needed when each answers `rate` requests a second, replicas for them, and replicas in each
    zone, so that some zones may be lost."""
    processes = ceil(wanted.rps / rate)
    needed = ceil(processes / wanted.workers)
    return processes, needed, ceil((needed + wanted.spare) / (wanted.zones - wanted.zones_lost))


def process(measured: Measured, wanted: Wanted) -> Process:
    """The measured process where it will stand. CapacityError when the promise cannot be held there."""
    measured_rules = rules_of(measured, wanted.max_in_flight, wanted.deadline / 1e3)
    costs = process_of(measured, measured_rules).slower(wanted.slowdown).further(wanted.network / 1e3)
    reading_s = (1 - wanted.cache_hits) * wanted.redis_work / 1e3
    events_s = wanted.events * (costs.intake_s + costs.answer_s)
    costs = replace(costs, intake_s=costs.intake_s + reading_s + events_s)
    rules = replace(measured_rules, redis_s=wanted.redis_time / 1e3, cache_hits=wanted.cache_hits)
    rates = {
        each: knee_of_process(costs, rules, each, wanted.slo, wanted.requests, wanted.seed)
        for each in sorted(BALANCINGS, key=lambda each: each != wanted.balancing)
    }
    return Process(costs, rules, rates)


def plan(measured: Measured, wanted: Wanted, one: Process) -> Plan:
    """Whole replicas, in equal zones. CapacityError where memory is neither measured nor given."""
    rate = one.rates[wanted.balancing]
    processes, needed, a_zone = replicas_of(rate, wanted)
    replicas = a_zone * wanted.zones
    footprint = measured.test.footprint
    own, mapped = wanted.own_memory or footprint.own_bytes, wanted.mapped_memory
    mapped = footprint.mapped_bytes if mapped is None else mapped
    if own is None or mapped is None:
        raise CapacityError(
            f"{measured.source} does not say what memory the service takes, because it asked one by its address: say "
            "it with --own-memory and --mapped-memory"
        )
    replica = round(wanted.memory_margin * (wanted.workers * (own + wanted.cache_memory) + mapped))
    reads = wanted.rps * (1 - wanted.cache_hits)
    commands = reads + wanted.rps * wanted.events * EVENT_COMMANDS + replicas * wanted.workers * POLLS
    data = wanted.users * wanted.user_bytes
    return Plan(
        process_rate=rate,
        processes_needed=processes,
        replicas_needed=needed,
        replicas=replicas,
        replicas_a_zone=a_zone,
        cores=replicas * wanted.workers,
        replica_memory=replica,
        memory=replica * replicas,
        redis_data=data,
        redis_memory=data * wanted.redis_copies,
        redis_commands=commands,
        redis_read_bytes=reads * wanted.user_bytes,
        shards_by_memory=max(ceil(data / wanted.shard_memory), 1),
        shards_by_commands=max(ceil(commands / wanted.shard_operations), 1),
    )
