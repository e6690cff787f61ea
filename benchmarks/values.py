"""Tables and ad vectors in fewer bytes a number: what looking them up costs, and what is lost on the way.

Tables: rows of a table of 10^6 rows of 32 numbers, as an exported graph reads them (export/stored_arena.py), one row a
candidate. Ad vectors: inner products of 10^4 of 10^6 ads with a user's query, as pre-ranking does, and how many of the
1,000 best by fp32 vectors are among the 1,000 best.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from benchmarks.market import CHUNK, Market, dqm_query, make_networks
from benchmarks.report import Report, Table
from benchmarks.timing import interleaved, p50, spread
from bundle.ad_vectors import AdVectors
from bundle.precision import Stored
from bundle.rounding import Coded, Float32, row_bytes
from bundle.schema import FIRST_KNOWN, FeatureSchema, FieldSpec, Kind, Side
from export.parity import Run, runner
from export.stored_arena import StoredArena
from export.to_onnx import export_graph
from models.networks.layers import Arena
from service.selection import Rows, top

ROWS, QUICK_ROWS = 1_000_000, 100_000
DIMENSION = 32
LOOKUPS = (300, 1_000)
CANDIDATES, KEPT, BEST = 10_000, 1_000, 10
USERS = 40
FIELD = "item"
FORMS: tuple[Stored, ...] = get_args(Stored)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None but the common ones."""


def run(arguments: argparse.Namespace) -> Report:
    """`values.table.STORED.nN_us` and `.row_bytes`; `values.vectors.STORED.ms`, `.row_bytes`, `.recall` and
    `.recall_best`."""
    torch.set_num_threads(1)
    report, rows, rounds = Report("values"), ROWS, 400
    if arguments.quick:
        rows, rounds = QUICK_ROWS, 50
    with threadpool_limits(1), torch.inference_mode():
        _tables(report, rows, rounds)
        _vectors(report, rows, rounds)
    return report


class Turns:
    """Calls one function after the other, in a circle."""

    def __init__(self, work: list[Callable[[], object]]) -> None:
        self.work = cycle(work)

    def __call__(self) -> None:
        """The next one."""
        next(self.work)()


class Lookup(nn.Module):
    """`ids` [n] -> rows [n, d] of a table."""

    def __init__(self, arena: Arena) -> None:
        super().__init__()
        self.arena = StoredArena(arena)

    def forward(self, feeds: dict[str, Tensor]) -> Tensor:
        """As a graph has it: the ids of one column."""
        ids = feeds["ids"].unsqueeze(-1)
        found: Tensor = self.arena(ids, torch.zeros(1), (FIELD,))
        return found.squeeze(-2)


def _tables(report: Report, rows: int, rounds: int) -> None:
    field = FieldSpec(name=FIELD, kind=Kind.CATEGORICAL, vocabulary=FIELD, size=rows + FIRST_KNOWN)
    schema = FeatureSchema(user_key="user", ad_key=FIELD, ad=Side(fields=(field,)))
    torch.manual_seed(0)
    arena, random = Arena(schema, DIMENSION, 0.1), np.random.default_rng(0)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, Run] = {}
        for form in FORMS:
            arena.values[FIELD] = form
            spec = export_graph(Lookup(arena), {"ids": ("n",)}, ["rows"], Path(folder) / f"{form}.onnx")
            runs[form] = runner(Path(folder), spec)
        for n in LOOKUPS:
            ids = random.integers(FIRST_KNOWN, rows, (USERS, n))
            work: dict[str, Callable[[], object]] = {
                stored: Turns([partial(each, {"ids": row}) for row in ids]) for stored, each in runs.items()
            }
            for stored, found in interleaved(work, rounds).items():
                times.setdefault(stored, []).append(p50(found) * 1e3)
    cells: list[tuple[str | int | float, ...]] = []
    for stored, each in times.items():
        size = row_bytes(stored, DIMENSION)
        report.figures[f"values.table.{stored}.row_bytes"] = size
        report.figures |= {f"values.table.{stored}.n{n}_us": us for n, us in zip(LOOKUPS, each, strict=True)}
        cells.append((stored, size, *each))
    columns = ("stored", "bytes a row", *(f"{n:,} rows, us" for n in LOOKUPS))
    report.tables.append(Table(f"Rows of a table of {rows:,} x {DIMENSION} in a graph, p50", columns, cells))


def _vectors(report: Report, rows: int, rounds: int) -> None:
    networks, market = make_networks(rows, "light"), Market(rows, USERS, 0)
    pieces = torch.split(torch.from_numpy(market.fields(np.arange(rows + FIRST_KNOWN))).long(), CHUNK)
    exact: Float32 = torch.cat([networks.dqm.ad_vectors(ids, torch.zeros(len(ids), 0)) for ids in pieces]).numpy()
    coded: dict[Coded, AdVectors] = {stored: AdVectors.of(exact, stored) for stored in get_args(Coded)}
    halves, random = exact.astype(np.float16), np.random.default_rng(0)
    products: dict[str, Callable[[Rows, Float32], Float32]] = {
        "fp32": lambda ads, query: exact.take(ads, axis=0) @ query,
        "fp16": lambda ads, query: halves.take(ads, axis=0).astype(np.float32) @ query,
    }
    products |= {stored: each.products for stored, each in coded.items()}
    queries = [dqm_query(networks.dqm, market.common(networks.schema, user))[0] for user in range(USERS)]
    asked = [np.sort(random.choice(rows, CANDIDATES, replace=False)) + FIRST_KNOWN for _ in queries]
    pairs = list(zip(asked, queries, strict=True))
    work = {name: Turns([partial(product, *pair) for pair in pairs]) for name, product in products.items()}
    times = interleaved(work, rounds)
    cells: list[tuple[str | int | float, ...]] = []
    for name, product in products.items():
        size, shares = row_bytes(name, exact.shape[1]), []
        for ads, query in pairs:
            kept, wanted = top(product(ads, query), KEPT), products["fp32"](ads, query)
            shares.append([len(np.intersect1d(kept, top(wanted, n))) / n for n in (KEPT, BEST)])
        recall, best = (float(each) for each in np.mean(shares, axis=0))
        figures = {"row_bytes": size, "ms": p50(times[name]), "recall": recall, "recall_best": best}
        report.figures |= {f"values.vectors.{name}.{key}": value for key, value in figures.items()}
        cells.append((name, size, p50(times[name]), spread(times[name]), f"{recall:.4f}", f"{best:.4f}"))
    columns = ("stored", "bytes an ad", "ms", "middle half", f"of the {KEPT:,} best", f"of the {BEST} best")
    title = f"Products of {CANDIDATES:,} of {rows:,} ads with a query, {KEPT:,} kept, {USERS} users, p50"
    report.tables.append(Table(title, columns, cells))
