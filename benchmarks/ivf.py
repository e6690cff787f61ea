"""Matching and Qscore by cells, against what is usual: an inverted file of faiss with 8-bit codes (IVF, SQ8).

faiss compares the query with every ad of the lists it visits and keeps the nearest n in a heap. Its lists are made of
the cells' own mean vectors, so that both look at the same ads.
"""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import faiss as untyped
import numpy as np
import numpy.typing as npt

from benchmarks.recall import Asked, Exhaustive, Judge
from benchmarks.report import Report, Table
from benchmarks.timing import Times, p50, p99
from bundle.folder import Bundle
from bundle.schema import FIRST_KNOWN
from service.loaded import LoadedBundle
from service.retrieval import retrieve, worthiest
from service.selection import top

faiss: Any = untyped
"""Its stubs describe the C++ classes, not what the Python wrappers accept."""
CHUNK = 1 << 18
NPROBE = (16, 64, 400)
"""Lists visited of 4,000; 400 hold the 10^5 ads that are matched."""
Rows = npt.NDArray[np.int64]


def ivf_sq8(bundle: Bundle) -> Any:
    """The index over a bundle's ads; its labels are rows."""
    cells, vectors = bundle.cells, bundle.ads.vectors
    centroids = np.ascontiguousarray(cells.centroids)
    nearest, best = faiss.IndexFlatL2(centroids.shape[1]), faiss.IndexFlatIP(centroids.shape[1])
    for each in (nearest, best):
        each.add(centroids)
    index = faiss.IndexIVFScalarQuantizer(
        nearest, nearest.d, len(cells.sizes), faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    rows = bundle.ads.index.size
    learnt_from = np.random.default_rng(0).choice(rows - FIRST_KNOWN, min(CHUNK, rows - FIRST_KNOWN), replace=False)
    index.train(vectors.floats(learnt_from + FIRST_KNOWN))
    for start in range(FIRST_KNOWN, rows, CHUNK):
        piece = np.arange(start, min(start + CHUNK, rows))
        index.add_with_ids(vectors.floats(piece), piece)
    index.quantizer = best  # ads lie in the nearest list, as in cells; visited are those of the largest product
    index.referenced_objects.append(best)
    return index


def against_ivf(report: Report, key: str, live: LoadedBundle, exhaustive: Exhaustive, rounds: int) -> None:
    """`<key>.matching_ms`, matching and Qscore together; `<key>.matching_speedup`: faiss with the same ads ÷ ours."""
    faiss.omp_set_num_threads(1)
    bundle, sizes = live.bundle, live.sizes
    index = ivf_sq8(bundle)

    def ours(asked: Asked) -> Rows:
        found = retrieve(bundle, asked.query, asked.common.histories, sizes.retrieval, None)
        return worthiest(bundle, found, sizes.qscore)

    def nearest(asked: Asked, nprobe: int, n: int) -> Rows:
        index.nprobe = nprobe
        found: Rows = index.search(asked.query[None, :], n)[1][0]
        return found[found >= 0]

    def nearest_then_qscore(asked: Asked, nprobe: int) -> Rows:
        rows = np.sort(nearest(asked, nprobe, sizes.retrieval))
        return rows[top(bundle.ads.worth(rows), sizes.qscore)]

    own, last = "cells, then Qscore", f"faiss, {NPROBE[-1]} lists, nearest {sizes.retrieval:,}, then Qscore"
    ways: dict[str, Callable[[Asked], Rows]] = {own: ours}
    for n in NPROBE:
        ways[f"faiss, {n} lists, nearest {sizes.qscore:,}"] = partial(nearest, nprobe=n, n=sizes.qscore)
    ways[last] = partial(nearest_then_qscore, nprobe=NPROBE[-1])
    times = _times(ways, exhaustive.asked, rounds)
    judges = [Judge.of(exhaustive.values(asked)) for asked in exhaustive.asked]
    rows: list[tuple[str | int | float, ...]] = []
    for name, way in ways.items():
        figures = [judge.figures(way(asked)) for judge, asked in zip(judges, exhaustive.asked, strict=True)]
        rows.append((name, p50(times[name]), p99(times[name]), *(float(each) for each in np.mean(figures, axis=0))))
    report.figures[f"{key}.matching_ms"] = p50(times[own])
    report.figures[f"{key}.matching_speedup"] = p50(times[last]) / p50(times[own])
    columns = ("way", "p50 ms", "p99", "of DQM's best 10", "of its best 1,000", "value lost in the 10")
    title = f"{len(bundle.ads.index):,} ads -> {sizes.qscore:,}: cells and Qscore against faiss IVF-SQ8, one thread"
    report.tables.append(Table(title, columns, rows))


def _times(ways: dict[str, Callable[[Asked], Rows]], asked: list[Asked], rounds: int) -> dict[str, Times]:
    times = {name: np.empty(rounds) for name in ways}
    for i in range(rounds):
        for name in ways if i % 2 == 0 else reversed(list(ways)):
            started = perf_counter()
            ways[name](asked[i % len(asked)])
            times[name][i] = (perf_counter() - started) * 1e3
    return times
