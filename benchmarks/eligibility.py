"""What it costs to know which of 10^6 and 10^7 ads may be shown: targeting, filters and live flags of one request.

Beside it the floor, which is one `and` of two bitmaps and counting the outcome, and the way without bitmaps: comparing
the code of every ad with a table of the values that are asked for.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import numpy.typing as npt

from benchmarks.report import Report, Table
from benchmarks.timing import interleaved, p50, p99, spread
from bundle import bitmap
from bundle.folder import Bundle
from bundle.row_sets import RowSets, load_row_sets, write_row_sets
from bundle.schema import FIRST_KNOWN
from bundle.vocabulary import Vocabulary
from service.ad_flags import FlagView, changed_view, new_view
from service.eligibility import Passed, allowed_by
from service.schemas import Filter

SCENES, REGIONS, CATEGORIES, BRANDS = 3, 200, 50, 100_000
TARGETED = 0.3
"""Share of the ads that are targeted, by scene and by region each."""
FLAGGED = 0.01
CHANGES = 1000
FREQUENT: list[int] = [3, 11, 40]
"""Categories that a request excludes."""
RARE: list[int] = list(range(0, 10_000, 1000))
"""Brands that it excludes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--ads", type=int, nargs="+", metavar="N", help="catalogue sizes (default 10^6 and 10^7)")


def run(arguments: argparse.Namespace) -> Report:
    """Measure every catalogue size."""
    sizes: list[int] = arguments.ads or ([100_000, 1_000_000] if arguments.quick else [1_000_000, 10_000_000])
    report = Report("eligibility")
    with tempfile.TemporaryDirectory(prefix="adrank-eligibility-") as folder:
        for ads in sizes:
            _measure(report, ads, Path(folder) / str(ads), rounds=30 if arguments.quick else 100)
    return report


def _measure(report: Report, ads: int, folder: Path, rounds: int) -> None:
    folder.mkdir()
    rows, random = ads + FIRST_KNOWN, np.random.default_rng(1)
    category = random.integers(FIRST_KNOWN, CATEGORIES + FIRST_KNOWN, rows, dtype=np.int32)
    brand = random.integers(FIRST_KNOWN, BRANDS + FIRST_KNOWN, rows, dtype=np.int32)
    category[:FIRST_KNOWN] = brand[:FIRST_KNOWN] = 0, 1
    filters = {"category": _filter(folder, "category", category), "brand": _filter(folder, "brand", brand)}
    targeting = {
        "scene": _targeting(folder, "scene", SCENES, 2, rows, random),
        "region": _targeting(folder, "region", REGIONS, 3, rows, random),
    }
    index = Vocabulary(np.arange(ads, dtype=np.int64))
    bundle = cast(Bundle, SimpleNamespace(ads=SimpleNamespace(index=index), filters=filters, targeting=targeting))
    flags = {str(ad): 1 + i % 2 for i, ad in enumerate(random.choice(ads, int(FLAGGED * ads), replace=False))}
    view = new_view(bundle, flags)
    work = _requests(bundle, targeting, category, brand, view) | _changes(bundle, flags, view)
    times = interleaved(work, rounds)
    lines = [
        (name, p50(each), spread(each), p99(each), p50(each) / p50(times["floor"])) for name, each in times.items()
    ]
    report.tables.append(
        Table(
            f"Which of {ads:,} ads may be shown, ms", ("work", "p50", "half of them", "p99", "of the floor"), [*lines]
        )
    )
    power = len(str(ads)) - 1
    name = f"eligibility.n1e{power}" if ads == 10**power else f"eligibility.n{ads}"
    report.figures[f"{name}.p50_ms"] = p50(times["flags, targeting and filters"])
    report.figures[f"{name}.codes_over_bitmaps"] = p50(times["both filters, by codes"]) / p50(times["both filters"])
    report.figures[f"{name}.flags_change_ms"] = p50(times[f"{CHANGES} ads change flags"])


def _requests(
    bundle: Bundle,
    targeting: dict[str, RowSets],
    category: npt.NDArray[np.int32],
    brand: npt.NDArray[np.int32],
    view: FlagView,
) -> dict[str, Callable[[], object]]:
    context: dict[str, object] = {"scene": 1, "region": 17}
    frequent, rare = {"category": Filter(none_of=list(FREQUENT))}, {"brand": Filter(none_of=list(RARE))}
    untargeted = cast(Bundle, SimpleNamespace(ads=bundle.ads, filters=bundle.filters, targeting={}))
    one, two = targeting["scene"].bitmaps[0], targeting["region"].bitmaps[0]
    none: Passed = ()

    def by_codes() -> npt.NDArray[np.bool_]:
        mask = np.ones(len(category), dtype=np.bool_)
        mask[:FIRST_KNOWN] = False
        for codes, size, asked in ((category, CATEGORIES, FREQUENT), (brand, BRANDS, RARE)):
            table = np.zeros(size + FIRST_KNOWN, dtype=np.bool_)
            table[np.array(asked, dtype=np.int64) + FIRST_KNOWN] = True
            mask &= ~table[codes]
        return mask

    allowed = allowed_by(untargeted, frequent | rare, context).allowed
    assert allowed is not None
    assert np.array_equal(allowed, bitmap.pack(by_codes()))
    return {
        "floor": lambda: bitmap.count(one & two),
        "targeting": lambda: allowed_by(bundle, {}, context),
        "filter by 3 of 50 values": lambda: allowed_by(untargeted, frequent, context),
        "filter by 10 of 100,000 values": lambda: allowed_by(untargeted, rare, context),
        "both filters": lambda: allowed_by(untargeted, frequent | rare, context, none),
        "both filters, by codes": by_codes,
        "flags, targeting and filters": lambda: allowed_by(bundle, frequent | rare, context, view.passed),
    }


def _changes(bundle: Bundle, flags: dict[str, int], view: FlagView) -> dict[str, Callable[[], object]]:
    """Not of a request: what a worker does when flags change, and when a bundle comes."""
    some = dict(list(flags.items())[:CHANGES])
    return {
        f"{CHANGES} ads change flags": lambda: changed_view(view, some, len(flags)),
        f"all flags of {FLAGGED:.0%} of the ads": lambda: new_view(bundle, flags),
    }


def _filter(folder: Path, name: str, codes: npt.NDArray[np.int32]) -> RowSets:
    values = Vocabulary(np.arange(int(codes.max()) - 1, dtype=np.int64))
    rows = np.arange(FIRST_KNOWN, len(codes))
    write_row_sets(folder, name, values, rows, codes[FIRST_KNOWN:], bitmap.of_rows(rows[:0], len(codes)))
    return load_row_sets(folder, name, len(codes))


def _targeting(folder: Path, name: str, values: int, each: int, rows: int, random: np.random.Generator) -> RowSets:
    """`TARGETED` of the ads may be shown for `each` values only."""
    targeted = random.random(rows) < TARGETED
    targeted[:FIRST_KNOWN] = False
    ads = np.flatnonzero(targeted)
    ids = random.integers(FIRST_KNOWN, values + FIRST_KNOWN, len(ads) * each)
    vocabulary = Vocabulary(np.arange(values, dtype=np.int64))
    write_row_sets(folder, name, vocabulary, np.repeat(ads, each), ids, bitmap.without(bitmap.pack(targeted), rows))
    return load_row_sets(folder, name, rows)
