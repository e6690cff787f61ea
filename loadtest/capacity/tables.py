"""The plan as text, and every number that went into it with where it came from."""

from typing import NamedTuple

from loadtest.capacity.measured import Measured
from loadtest.capacity.rehearsal import Rehearsal
from loadtest.capacity.sizing import EVENT_COMMANDS, POLLS, Plan, Process, replicas_of
from loadtest.capacity.wanted import UNITS, Wanted

BYTES = frozenset({"own_memory", "mapped_memory", "cache_memory", "user_bytes", "shard_memory"})
MILLISECONDS = frozenset({"p99", "network", "deadline", "redis_time", "redis_work"})
MEASURED, OPTION, DEFAULT, MODEL = "measured", "option", "default", "model"


class Assumption(NamedTuple):
    """One number, or one thing that the model takes for granted."""

    name: str
    value: str
    source: str
    """`measured`, `option`, `default` or `model`."""
    what: str


def assumptions(measured: Measured, wanted: Wanted, given: set[str], one: Process) -> list[Assumption]:
    """What was measured, every option, and what the model leaves out."""
    return [*_measured(measured, one), *_options(measured, wanted, given), *_model(wanted)]


def _measured(measured: Measured, one: Process) -> list[Assumption]:
    test, turns = measured.test, measured.turns_s * 1e3
    where = "" if test.footprint.processor is None else f", on {test.footprint.processor}"
    share, times = one.costs.slowness[0]
    rows = [
        ("load test", measured.source, f"bundle {test.bundle}, {test.footprint.workers} process(es){where}"),
        ("turn", f"{turns.mean():.2f} ms", f"mean of {len(turns)} in a closed loop; each request draws one of them"),
        ("request", f"{measured.busy_s * 1e3:.2f} ms", "of a process, all included: processes ÷ rate of that loop"),
        ("pauses", f"{times:.2f} times", f"as long everything takes at {share:.0%} of that rate; less at higher ones"),
        ("around", f"{one.costs.around_s * 1e3:.2f} ms", "network and client: the lowest step's median, and --network"),
    ]
    return [Assumption(name, value, MEASURED, what) for name, value, what in rows]


def _options(measured: Measured, wanted: Wanted, given: set[str]) -> list[Assumption]:
    footprint, rows = measured.test.footprint, []
    for name, field in Wanted.model_fields.items():
        value, source = getattr(wanted, name), OPTION if name in given else DEFAULT
        if value is None:
            value, source = (footprint.own_bytes if name == "own_memory" else footprint.mapped_bytes), MEASURED
        rows.append(Assumption(name.replace("_", "-"), shown(name, value), source, field.description or ""))
    return rows


def _model(wanted: Wanted) -> list[Assumption]:
    rows = [
        ("arrivals", "Poisson", "no burst beyond it; --rps is the peak"),
        ("dealt", wanted.balancing, "round-robin and least-requests: by one balancer that deals every request itself"),
        ("replicas", "alike", "same cores, same bundle, same traffic as in the load test"),
        ("a lost zone", "known at once", "its requests under way are lost, new ones go elsewhere without delay"),
        ("an event", f"{EVENT_COMMANDS} commands", "of Redis, and a process's time for a request without its turn"),
        ("a process", f"{POLLS} commands a second", "of Redis, to look for changes"),
        ("a shard", "one Redis", "the service speaks to one: users are dealt to shards before it, each with replicas"),
    ]
    return [Assumption(name, value, MODEL, what) for name, value, what in rows]


def text(
    measured: Measured,
    wanted: Wanted,
    one: Process,
    plan: Plan,
    rehearsal: Rehearsal,
    said: list[Assumption],
) -> str:
    """All of it."""
    lost = f", {wanted.zones_lost} of which may be lost" if wanted.zones_lost else ""
    rows = [
        ("a process", f"{plan.process_rate:.0f} /s", f"within the promise; {one.most:.0f} /s at most"),
        ("processes", f"{plan.processes_needed:,}", "needed"),
        ("replicas", f"{plan.replicas:,}", f"{plan.replicas_a_zone} in each of {wanted.zones} zone(s){lost}"),
        ("", "", f"{plan.replicas_needed} needed, and {wanted.spare} spare, of {wanted.workers} process(es) each"),
        ("cores", f"{plan.cores:,}", "one a process"),
        ("memory", _size(plan.memory), f"{_size(plan.replica_memory)} a replica"),
        ("Redis memory", _size(plan.redis_memory), f"{wanted.redis_copies} × {_size(plan.redis_data)} of data"),
        ("Redis load", f"{plan.redis_commands:,.0f} /s", f"commands; {_size(plan.redis_read_bytes)}/s of users read"),
        ("Redis shards", f"{plan.shards}", f"{plan.shards_by_memory} by memory, {plan.shards_by_commands} by load"),
    ]
    heading = f"{wanted.rps:,.0f} requests/s, p99 {wanted.p99:g} ms, bundle {measured.test.bundle}"
    lines = [heading, "", *(f"{name:<14}{value:>12}  {what}" for name, value, what in rows)]
    lines += ["", "a process within the promise, by how requests are dealt"]
    lines += [
        f"  {name:<16}{rate:>6.0f} /s{replicas_of(rate, wanted)[2] * wanted.zones:>8,} replicas"
        for name, rate in sorted(one.rates.items(), key=lambda each: each[1])
    ]
    lines += ["", f"simulated: {rehearsal.processes} processes at their share of the load"]
    lines += [f"  {'':<14}{'p50':>9}{'p95':>9}{'p99':>9}{'busy':>7}{'degraded':>10}{'errors':>9}"]
    lines += [
        f"  {each.name:<14}{each.p50_ms:>6.1f} ms{each.p95_ms:>6.1f} ms{each.p99_ms:>6.1f} ms{each.busy:>7.0%}"
        f"{each.degraded_rate:>10.2%}{each.error_rate:>9.2%}"
        for each in rehearsal.stretches
    ]
    if len(rehearsal.stretches) > 1:
        lines += [f"  when it is lost, {rehearsal.lost:,.0f} requests are under way in it, and lost with it"]
    names, values = (max(len(str(each[i])) for each in said) for i in (0, 1))
    lines += ["", "assumptions"]
    lines += [f"  {each.name:<{names}}  {each.value:<{values}}  {each.source:<8}  {each.what}" for each in said]
    return "\n".join(lines)


def shown(name: str, value: object) -> str:
    """The value of an option, with its unit."""
    if name in BYTES and isinstance(value, int):
        return _size(value)
    if isinstance(value, float | int):
        return f"{value:,g} ms" if name in MILLISECONDS else f"{value:,}" if isinstance(value, int) else f"{value:,g}"
    return str(value)


def _size(size: float) -> str:
    for limit, unit in ((UNITS["GiB"], "GiB"), (UNITS["MiB"], "MiB"), (10 * UNITS["KiB"], "KiB")):
        if size >= limit:
            return f"{size / UNITS[unit]:.1f} {unit}"
    return f"{size:,.0f} B"
