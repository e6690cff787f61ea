"""What the gate says of bundles against another one, how long it takes, and what a request pays for being kept."""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.report import Report, Table
from benchmarks.timing import interleaved, p50
from bundle.folder import Bundle, open_bundle
from bundle.schema import FIRST_KNOWN, FieldSpec, Kind
from control.reports import Check
from service.gate import Job
from service.gate_helper import ask_helper
from service.recent import Recent
from service.settings import Settings
from service.user_cache import StoredUser

NAMES = {"overlap@10": "overlap", "shift": "shift", "psi": "psi", "latency": "latency_ratio", "memory": "memory_mib"}
"""Checks whose findings are figures."""
KEPT = 1000
"""Requests kept in one timed run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--live", type=Path, required=True, metavar="DIR", help="bundle that is taken to be live")
    parser.add_argument(
        "--new", type=Path, required=True, nargs="+", metavar="DIR", help="bundles that are to take its place"
    )
    parser.add_argument("--requests", type=int, default=200, metavar="N", help="recent requests (default 200)")


def run(arguments: argparse.Namespace) -> Report:
    """Judge each new bundle."""
    report = Report("gate")
    live = open_bundle(arguments.live, verify=False)
    count = 20 if arguments.quick else arguments.requests
    recent = Recent(count)
    for body, stored in requests(live, count):
        recent.add(body, stored)
    with tempfile.TemporaryDirectory(prefix="adrank-bench-gate-") as work:
        settings = Settings(bundle=arguments.live, bundle_cache=Path(work) / "cache", recent_requests=count)
        recent.write(Path(work) / "requests")
        for folder in arguments.new:
            _judge(report, live, folder, Path(work) / "requests", settings)
    body, stored = requests(live, 1)[0]
    times = interleaved({"kept": lambda: _keep(Recent(200), body, stored)}, 20 if arguments.quick else 200)
    report.figures["gate.keep_us"] = p50(times["kept"]) * 1e3 / KEPT
    return report


def requests(bundle: Bundle, count: int) -> list[tuple[bytes, StoredUser | None]]:
    """Requests of the bundle's demo users in contexts that it knows, drawn evenly."""
    rng = np.random.default_rng(1)
    users = [] if bundle.users is None else list(bundle.users.ids())
    found: list[tuple[bytes, StoredUser | None]] = []
    for _ in range(count):
        user = str(rng.choice(users)) if users else "nobody"
        context: dict[str, object] = {
            name: sets.values.value_of(FIRST_KNOWN + int(rng.integers(len(sets.values))))
            for name, sets in bundle.targeting.items()
        }
        context |= {field.name: _value(bundle, field, rng) for field in bundle.manifest.features.context.fields}
        record = None if bundle.users is None else bundle.users.get(user)
        body = json.dumps({"user_id": user, "context": {k: v for k, v in context.items() if v is not None}})
        found.append((body.encode(), None if record is None else StoredUser(record)))
    return found


def _value(bundle: Bundle, field: FieldSpec, rng: np.random.Generator) -> object:
    if field.kind is Kind.NUMBER:
        return float(rng.normal(field.mean, field.std))
    if field.kind is Kind.BUCKETED:
        return float(rng.choice(field.edges)) if field.edges else 0.0
    vocabulary = bundle.encoder.vocabulary_of(field)
    value = vocabulary.value_of(FIRST_KNOWN + int(rng.integers(len(vocabulary)))) if len(vocabulary) else None
    return value if value is None or field.kind is not Kind.MULTIVALUED else [value]


def _judge(report: Report, live: Bundle, folder: Path, seen: Path, settings: Settings) -> None:
    new = open_bundle(folder, verify=False).id
    job = Job(
        bundle_id=new,
        place=str(folder.absolute().parent),
        cache=str(settings.bundle_cache),
        folder=str(folder.absolute()),
        live_id=live.id,
        live=str(live.folder.absolute()),
        requests=str(seen),
    )
    begun = perf_counter()
    verdict = asyncio.run(ask_helper(job, settings))
    seconds = perf_counter() - begun
    checks = verdict.report.checks
    title = f"{new} against {live.id}: {'passed' if verdict.passed else 'refused'} after {seconds:.1f} s"
    report.tables.append(Table(title, ("check", "passed", "found", "limit", "note"), [_row(each) for each in checks]))
    for each in checks:
        if each.name in NAMES and isinstance(each.found, float):
            report.figures[f"gate.{new}.{NAMES[each.name]}"] = each.found
    report.figures |= {f"gate.{new}.passed": float(verdict.passed), f"gate.{new}.seconds": seconds}


def _row(check: Check) -> tuple[str | int | float, ...]:
    found, limit = ("-" if each is None else each for each in (check.found, check.limit))
    return check.name, "yes" if check.passed else "no", found, limit, check.note


def _keep(recent: Recent, body: bytes, stored: StoredUser | None) -> None:
    for _ in range(KEPT):
        recent.add(body, stored)
