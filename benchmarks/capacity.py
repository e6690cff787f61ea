"""Whether the model of `adrank capacity` finds the knee that a load test finds, and what one Redis takes.

The load test measures its own knee; the simulation is given only what that load test says of single requests, and looks
for the knee in the same steps with the same judge. Both curves stand side by side.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks import shard
from benchmarks.report import Report, Table
from loadtest import command
from loadtest.capacity.cluster import Cluster, open_loop
from loadtest.capacity.costs import Costs, Rules, rules_of
from loadtest.capacity.knee import knee_of, process_of
from loadtest.capacity.measured import Measured, read_measured

SEED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--bundle", type=Path, default=command.BUNDLE, help="what to serve [%(default)s]")
    parser.add_argument("--slo", type=Path, default=command.SLO, help="what is promised [loadtest/slo.yaml]")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="a load test's --json, instead of a new one")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the new load test's --json there")


def run(arguments: argparse.Namespace) -> Report:
    """Measure, then simulate. OSError where the load test cannot be run, ValueError where it found no knee."""
    requests, users = (10_000, 10_000) if arguments.quick else (40_000, 100_000)
    with tempfile.TemporaryDirectory(prefix="adrank-capacity-") as folder:
        file = arguments.measured or _load_test(arguments, Path(folder))
        measured = read_measured(file)
    report = Report("capacity")
    report.add(_knees(measured, requests))
    one = shard.measure(users, users * 2)
    report.figures |= {
        "capacity.redis_record_bytes": one.record_bytes,
        "capacity.redis_user_bytes": one.user_bytes,
        "capacity.redis_reads_per_second": one.reads,
    }
    columns = ("record, bytes", "user in Redis, bytes", "users read a second")
    row = (round(one.record_bytes), round(one.user_bytes), round(one.reads))
    report.tables.append(Table(f"One Redis, {users:,} users with 50 events, {shard.CLIENTS} clients", columns, [row]))
    return report


def _load_test(arguments: argparse.Namespace, folder: Path) -> Path:
    file = folder / "measured.json"
    asked = ["--bundle", str(arguments.bundle), "--slo", str(arguments.slo), "--json", str(file)]
    if command.main([*asked, *(["--quick"] if arguments.quick else [])]) == 2:
        raise OSError("the load test could not be run")
    if arguments.save is not None:
        shutil.copyfile(file, arguments.save)
    return file


def _knees(measured: Measured, requests: int) -> Report:
    test = measured.test
    if test.knee.rate is None or not test.knee.bounded:
        raise ValueError(f"{measured.source}: the load test found no knee, so there is nothing to compare with")
    rules = rules_of(measured, Rules().max_in_flight, Rules().deadline_s)
    costs = process_of(measured, rules, requests, SEED)
    found = knee_of(Cluster(costs, rules, test.footprint.workers), test.slo, requests, SEED, splits=4)
    if found.rate is None:
        raise ValueError(f"the simulation has no knee: {found.text()}")
    error = found.rate / test.knee.rate - 1
    return Report(
        "knees",
        {
            "capacity.measured_knee": test.knee.rate,
            "capacity.simulated_knee": found.rate,
            "capacity.error": error,
            "capacity.request_ms": costs.busy_s * 1e3,
            "capacity.turn_ms": float(costs.turns_s.mean()) * 1e3,
            "capacity.around_ms": costs.around_s * 1e3,
        },
        [
            Table(
                f"The knee of bundle {test.bundle}",
                ("measured /s", "simulated /s", "error", "a request, ms", "its turn, ms", "around, ms"),
                [
                    (
                        test.knee.rate,
                        found.rate,
                        f"{error:+.1%}",
                        costs.busy_s * 1e3,
                        float(costs.turns_s.mean()) * 1e3,
                        costs.around_s * 1e3,
                    )
                ],
            ),
            _steps(measured, costs, rules, requests),
        ],
    )


def _steps(measured: Measured, costs: Costs, rules: Rules, requests: int) -> Table:
    rows: list[tuple[str | int | float, ...]] = []
    for step in sorted(measured.test.knee.steps, key=lambda step: step.rate):
        cluster = Cluster(costs, rules, measured.test.footprint.workers)
        latency = open_loop(cluster, step.rate, requests / step.rate, SEED).outcome().latency
        theirs = (step.latency_ms.p50, step.latency_ms.p95, step.latency_ms.p99)
        ours = (latency.percentile(50), latency.percentile(95), latency.percentile(99))
        both = [value for pair in zip(theirs, ours, strict=True) for value in pair]
        rows.append((round(step.rate), step.turn_ms.mean, *both, step.verdict))
    columns = (
        "requests/s",
        "turn ms",
        "p50 ms",
        "simulated",
        "p95 ms",
        "simulated",
        "p99 ms",
        "simulated",
        "load test's verdict",
    )
    return Table("Steps", columns, rows)
