"""The whole funnel over large catalogues, in process: encode, matched 10^5 -> 10^4 -> 10^3 -> 10 answers.

A request begins with the packed record of a user and ends with the ads to show, through the service's own functions.
What HTTP and Redis add is measured by `adrank bench http`.
"""

import argparse
import itertools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks import open_loop
from benchmarks.bundles import ROOT, work_bundle
from benchmarks.floor import GemmRate
from benchmarks.ivf import against_ivf
from benchmarks.recall import Exhaustive, recall_table
from benchmarks.report import Report, Table
from benchmarks.timing import Times, p50, p99, spread
from benchmarks.work import multiply_adds
from bundle.bitmap import Bitmap, pack
from bundle.manifest import read_manifest
from bundle.record import unpack
from bundle.schema import FIRST_KNOWN
from service.budget import Budget
from service.cascade import Ask, rank
from service.encode import encode_common
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.settings import Settings
from service.timing import RequestTiming

UNIT = "light"
USERS = 1_000
K = 10
ADS = (1_000_000, 10_000_000)
SMALL = (10_000, 100_000)
"""Further sizes for the curve."""
QUICK = (100_000,)
STANDARD = 1_000_000
"""The catalogue that `cascade.total_over_din` and the comparisons are of."""
BLOCK = 50
"""Requests to one catalogue in a row, before the next takes its turn."""
WARM_UP = 5
"""Requests of a block that are not counted: the catalogue before has taken the caches."""
SHARES = (1.0, 0.5, 0.1, 0.01, 0.0001)
"""Of the ads that may be shown."""
PARTS = ("unpack", "encode", "retrieval", "qscore", "prerank", "finerank", "auction")
PATIENCE_MS = 60_000
STRETCHES = 5
"""At half load: what else the machine does in one of them is not held against the service."""
FEWEST = 10
"""Requests in a stretch, however slow the machine."""
SECONDS = (20.0, 3.0)
"""Of requests at half load, and in the small version."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the catalogues."""
    sizes = " ".join(map(str, ADS))
    parser.add_argument("--ads", type=int, nargs="+", metavar="N", help=f"ads of the catalogues (default {sizes})")


@dataclass
class Measured:
    """Requests to one catalogue, milliseconds."""

    parts: dict[str, list[float]] = field(default_factory=dict)
    kept: dict[str, tuple[int, int]] = field(default_factory=dict)

    def of(self, part: str) -> Times:
        """Of one part, or `total`."""
        return np.array(self.parts[part])


class Requests:
    """Users of a loaded bundle asking in turn."""

    def __init__(self, live: LoadedBundle, allowed: Bitmap | None = None) -> None:
        self.live, self.allowed = live, allowed
        users = live.bundle.users
        assert users is not None
        self.records = [(user, users.get(user) or b"") for user in map(str, range(len(users.index)))]
        self.turn = itertools.cycle(self.records)

    def ask(self, into: Measured | None = None) -> None:
        """One request, from the bytes of a record to the ads; written down in `into`."""
        user, record = next(self.turn)
        started = perf_counter()
        known = unpack(record)
        unpacked = perf_counter()
        common = encode_common(self.live.bundle, user, known, None, {})
        encoded = perf_counter()
        timing = RequestTiming()
        rank(self.live, Ask(common, K, allowed=self.allowed), Budget(PATIENCE_MS), timing)
        ended = perf_counter()
        if into is not None:
            ms = [(unpacked - started) * 1e3, (encoded - unpacked) * 1e3, *(stage.ms for stage in timing.stages)]
            for name, each in zip(PARTS, ms, strict=True):
                into.parts.setdefault(name, []).append(each)
            into.parts.setdefault("total", []).append((ended - started) * 1e3)
            into.kept = {stage.name: (stage.seen, stage.kept) for stage in timing.stages}


def run(arguments: argparse.Namespace) -> Report:
    """`cascade.n<ads>.*`: `p50_ms`, `p99_ms`, `<part>_ms`, `floor_ratio`, `load_s`, `bundle_mib`, recall; and
    `cascade.total_over_din`, `cascade.growth_1e7_over_1e6`, `cascade.p99_over_p50`, `cascade.poisson_p99_over_p50`."""
    torch.set_num_threads(1)
    asked: list[int] = arguments.ads or list(QUICK if arguments.quick else ADS)
    curve = [] if arguments.quick or arguments.ads else list(SMALL)
    report = Report("cascade")
    with threadpool_limits(1):
        loaded = {ads: _load(report, ads) for ads in sorted({*asked, *curve})}
        with tempfile.TemporaryDirectory() as folder:
            gemm, products = GemmRate(Path(folder)), Measured()
            requests = {ads: Requests(live) for ads, live in loaded.items()}
            measured = _in_turns(requests, 3 if arguments.quick else 12, gemm, products)
        for ads, each in measured.items():
            floors = {part: gemm.floor_ms(n, p50(products.of("total"))) for part, n in work(loaded[ads], each).items()}
            _stages(report, ads, each, floors)
        report.series["cascade.catalogue.p50"] = [(ads, p50(each.of("total"))) for ads, each in measured.items()]
        report.series["cascade.catalogue.p99"] = [(ads, p99(each.of("total"))) for ads, each in measured.items()]
        standard = STANDARD if STANDARD in loaded else max(loaded)
        _ratios(report, measured, standard)
        _waterfall(report, measured[standard])
        _eligible(report, loaded[standard], standard, 1 if arguments.quick else 4)
        _half_load(report, loaded[standard], standard, quick=arguments.quick)
        for ads in asked:
            exhaustive = Exhaustive(loaded[ads].bundle, ads, UNIT, 10 if arguments.quick else 40)
            recall_table(report, f"cascade.n{ads}", loaded[ads], exhaustive)
            if ads == standard:
                against_ivf(report, f"cascade.n{ads}", loaded[ads], exhaustive, 10 if arguments.quick else 40)
    return report


def _load(report: Report, ads: int) -> LoadedBundle:
    folder = work_bundle(ROOT, ads, UNIT, users=USERS)
    started = perf_counter()
    live = load_bundle(folder, Settings(bundle=folder))
    report.figures[f"cascade.n{ads}.load_s"] = perf_counter() - started
    report.figures[f"cascade.n{ads}.bundle_mib"] = sum(f.bytes for f in read_manifest(folder).files.values()) / 2**20
    return live


def work(live: LoadedBundle, measured: Measured) -> dict[str, int]:
    """Multiply-adds that the parts of a request cannot do without, and of all of them together."""
    dimension = live.bundle.manifest.stages.prerank.dimension
    parts = {
        "retrieval": len(live.bundle.cells.sizes) * dimension,
        "prerank": measured.kept["prerank"][0] * dimension,
        "finerank": multiply_adds(UNIT, measured.kept["finerank"][0]),
    }
    return parts | {"total": sum(parts.values())}


def _in_turns(catalogues: dict[int, Requests], blocks: int, gemm: GemmRate, products: Measured) -> dict[int, Measured]:
    measured = {ads: Measured() for ads in catalogues}
    for i in range(blocks):
        for _ in range(WARM_UP):
            started = perf_counter()
            gemm.run()
            products.parts.setdefault("total", []).append((perf_counter() - started) * 1e3)
        for ads in list(catalogues) if i % 2 == 0 else reversed(list(catalogues)):
            for _ in range(WARM_UP):
                catalogues[ads].ask()
            for _ in range(BLOCK):
                catalogues[ads].ask(measured[ads])
    return measured


def _stages(report: Report, ads: int, measured: Measured, floors: dict[str, float]) -> None:
    rows: list[tuple[str | int | float, ...]] = []
    for part in (*PARTS, "total"):
        times = measured.of(part)
        seen, kept = measured.kept.get(part, ("", ""))
        share = p50(times) / p50(measured.of("total"))
        rows.append((part, seen, kept, p50(times), spread(times), p99(times), floors.get(part, ""), share))
        report.figures[f"cascade.n{ads}.{part}_ms" if part != "total" else f"cascade.n{ads}.p50_ms"] = p50(times)
    report.figures[f"cascade.n{ads}.p99_ms"] = p99(measured.of("total"))
    report.figures[f"cascade.n{ads}.floor_ratio"] = p50(measured.of("total")) / floors["total"]
    columns = ("part", "sees", "keeps", "p50 ms", "middle half", "p99", "floor ms", "of the total")
    title = f"One request over {ads:,} ads, {len(measured.of('total'))} requests of {USERS:,} users"
    report.tables.append(Table(title, columns, rows))


def _ratios(report: Report, measured: dict[int, Measured], standard: int) -> None:
    one = measured[standard]
    report.figures["cascade.total_over_din"] = p50(one.of("total")) / p50(one.of("finerank"))
    if {1_000_000, 10_000_000} <= measured.keys():
        large, small = (p50(measured[ads].of("total")) for ads in (10_000_000, 1_000_000))
        report.figures["cascade.growth_1e7_over_1e6"] = large / small


def _waterfall(report: Report, measured: Measured) -> None:
    """Medians of the parts, one after the other: the parts of one request would show its accidents."""
    start = 0.0
    for part in PARTS:
        duration = p50(measured.of(part))
        report.series[f"cascade.waterfall.{part}"] = [(start, duration)]
        start += duration


def _eligible(report: Report, live: LoadedBundle, ads: int, blocks: int) -> None:
    random = np.random.default_rng(0)
    requests = {}
    for share in SHARES:
        mask = np.concatenate((np.zeros(FIRST_KNOWN, np.bool_), random.random(ads) < share))
        requests[share] = Requests(live, None if share == 1.0 else pack(mask))
    measured: dict[float, Measured] = {share: Measured() for share in requests}
    for _ in range(blocks):
        for share, each in requests.items():
            for turn in range(WARM_UP + BLOCK):
                each.ask(measured[share] if turn >= WARM_UP else None)
    rows: list[tuple[str | int | float, ...]] = []
    for share, found in measured.items():
        middle = [p50(found.of(part)) for part in ("retrieval", "qscore", "prerank", "finerank", "total")]
        rows.append((f"{share:.2%}", found.kept["retrieval"][1], found.kept["qscore"][1], *middle))
        report.figures[f"cascade.n{ads}.eligible_{share:g}.p50_ms"] = middle[-1]
    columns = ("may be shown", "matched", "after Qscore", "retrieval ms", "qscore ms", "prerank ms", "finerank ms")
    report.tables.append(Table(f"{ads:,} ads of which some may be shown, p50", (*columns, "total ms"), rows))


def _half_load(report: Report, live: LoadedBundle, ads: int, *, quick: bool) -> None:
    requests = Requests(live)
    seconds = SECONDS[quick]
    saturated = open_loop.saturation(requests.ask, seconds / 3)
    rate = saturated / 2
    rows: list[tuple[str | int | float, ...]] = []
    for name, gaps in (("even", open_loop.even), ("poisson", open_loop.poisson)):
        count = max(FEWEST, int(rate * seconds / STRETCHES))
        times = [open_loop.latencies(requests.ask, gaps(rate, count, seed)) for seed in range(STRETCHES)]
        ratio = float(np.median([p99(each) / p50(each) for each in times]))
        middle = [float(np.median([measure(each) for each in times])) for measure in (p50, p99)]
        rows.append((name, rate, count, *middle, ratio, spread(np.array([p99(each) / p50(each) for each in times]))))
        report.figures["cascade.p99_over_p50" if name == "even" else "cascade.poisson_p99_over_p50"] = ratio
    report.figures[f"cascade.n{ads}.requests_per_s"] = saturated
    columns = ("arrivals", "a second", "in a stretch", "p50 ms", "p99", "p99 / p50", "middle half of the stretches")
    title = (
        f"{ads:,} ads, one worker thread at half of its {saturated:.0f} requests a second, from the intended start, "
        f"medians of {STRETCHES} stretches"
    )
    report.tables.append(Table(title, columns, rows))
