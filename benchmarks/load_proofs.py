"""Whether a load test's verdict is right, and whether an independent client sees the same.

The service as it is must pass; with a stage slowed by 20 ms it must fail; with a generator that is stopped four fifths
of the time there must be no verdict. Then, at a rate below the knee, wrk and the open loop take turns.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks import wrk
from benchmarks.report import Report, Table
from loadtest.arrivals import constant
from loadtest.command import BUNDLE, SLO
from loadtest.generators import Generators
from loadtest.outcome import Outcome
from loadtest.runner import Phase, Runner
from loadtest.served import PROGRAM, Served, serve
from loadtest.slo import Judged, Slo, Verdict, judge, read_slo
from loadtest.traffic import Mix, make_requests, write_requests
from loadtest.world import Service, give_histories, look

SLOWED_MS = 20
WARM_UP_S = 2.0
STOPPED_S, RUNS_S = 0.08, 0.02
WANTED = {"as it is": Verdict.PASS, "slowed": Verdict.FAIL, "starved generator": Verdict.NONE}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="what to serve [%(default)s]")
    parser.add_argument("--slo", type=Path, default=SLO, help="what is promised [loadtest/slo.yaml]")
    parser.add_argument("--rounds", type=int, default=5, help="of wrk and the open loop in turn [%(default)s]")


def run(arguments: argparse.Namespace) -> Report:
    """Measure. OSError where wrk is missing."""
    seconds = 10 if arguments.quick else 20
    report = Report("load_proofs")
    rows: list[tuple[str | int | float, ...]] = []
    slo = read_slo(arguments.slo)
    cores = sorted(os.sched_getaffinity(0))
    ours, theirs = cores[-1:], cores[:-1] or cores
    with tempfile.TemporaryDirectory(prefix="adrank-proofs-") as name, Generators(1, ours) as generators:
        folder = Path(name)
        for what, program in (
            ("slowed", ("-m", "benchmarks.slowed_service", str(SLOWED_MS))),
            ("as it is", PROGRAM),
        ):
            with serve(arguments.bundle, [], theirs, program) as served:
                runner = _runner(served, generators, folder)
                rows.append(_row(what, *_judged(runner, slo, seconds)))
                if what == "as it is":
                    with _starved(generators.pids):
                        rows.append(_row("starved generator", *_judged(runner, slo, seconds)))
                    report.add(_beside_wrk(runner, slo.rate, seconds, arguments.rounds, folder, ours))
    report.tables.insert(0, Table("Verdicts", ("service", "verdict", "wanted", "p50 ms", "p99 ms", "why"), rows))
    report.figures["load_proofs.right"] = float(sum(row[1] == row[2] for row in rows))
    return report


def _runner(served: Served, generators: Generators, folder: Path) -> Runner:
    service = Service(served.url)
    mix = Mix(context={name: [value] for name, value in served.example["context"].items()})
    world = look(service, mix, [f"load-{i}" for i in range(mix.users)], 1)
    give_histories(service, world, mix, 1)
    service.close()
    write_requests(make_requests(world, mix, 5000, 1), folder / "requests.jsonl")
    return Runner(generators, served.url, folder / "requests.jsonl", {}, 1, 10.0, sys.stderr.isatty())


def _judged(runner: Runner, slo: Slo, seconds: float) -> tuple[Outcome, Judged]:
    outcome = runner.measure(Phase("promise", constant(slo.rate, seconds + WARM_UP_S), WARM_UP_S))
    return outcome, judge(outcome, slo)


def _row(what: str, outcome: Outcome, judged: Judged) -> tuple[str | int | float, ...]:
    broken = [f"{row.name} {row.text(row.measured)}" for row in judged.rows if not row.holds]
    why = "; ".join(judged.reasons or broken) or "everything holds"
    p50, p99 = outcome.latency.percentile(50), outcome.latency.percentile(99)
    return what, judged.verdict.value, WANTED[what].value, p50, p99, why


def _beside_wrk(runner: Runner, rate: float, seconds: int, rounds: int, folder: Path, cores: list[int]) -> Report:
    theirs, ours = [], []
    typical = 5.0
    for i in range(rounds):
        said = wrk.measure(runner.url, runner.requests, rate, seconds, folder, i + 1, typical, cores)
        found = runner.measure(Phase("beside wrk", constant(said.rate, seconds)))
        theirs.append(said)
        ours.append(found)
        typical = said.p50_ms
    both = [(one, two, two.latency) for one, two in zip(theirs, ours, strict=True)]
    rows: list[tuple[str | int | float, ...]] = [
        (one.rate, two.achieved_rate, one.p50_ms, latency.percentile(50), one.p99_ms, latency.percentile(99))
        for one, two, latency in both
    ]
    columns = ("wrk /s", "ours /s", "wrk p50", "ours p50", "wrk p99", "ours p99")
    ratio = median(two.latency.percentile(99) for two in ours) / median(one.p99_ms for one in theirs)
    offered = [abs(two.achieved_rate / two.offered_rate - 1) for two in ours]
    return Report(
        "wrk",
        {"load_proofs.p99_ours_by_wrk": ratio, "load_proofs.rate_missed": max(offered)},
        [Table("Beside wrk, at the same rate", columns, rows)],
    )


@contextmanager
def _starved(pids: list[int]) -> Iterator[None]:
    """Let the processes run for RUNS_S, then stop them for STOPPED_S, again and again."""
    over = threading.Event()

    def again() -> None:
        while not over.is_set():
            for number, pause in ((signal.SIGSTOP, STOPPED_S), (signal.SIGCONT, RUNS_S)):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                over.wait(pause)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
