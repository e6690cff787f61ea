"""fp32, fp16 or int8: tries what was asked for on real requests, takes what pays, and says what it found.

    fp32   the graph that was proved against torch, unchanged
    fp16   the whole graph, for GPU providers; not timed, because the CPU has no such products
    int8   tables in int8, and those matrix products that are faster so on this machine
    auto   tables that are smaller without being slower, and those matrix products that are faster

Nothing is taken that is further from the fp32 graph than export/deviation.py allows.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from bundle.manifest import GraphSpec
from bundle.precision import Asked, Precision, Stored, Trial
from export.dense import Product, in_int8, products
from export.deviation import PrecisionError, complaint
from export.half import to_half
from export.pairs import Paired, compare
from export.tables import store_tables
from export.weights import Model, open_graph, outline, save_graph
from export.work import Work
from export.workbench import Candidate, Timer, Workbench

WORTH = 16 << 20
"""Bytes that smaller tables must save to be taken without being faster: about what a core has of the last cache."""


@dataclass(frozen=True, slots=True)
class _Tried:
    """A candidate, its time ÷ that of what it would replace, and what speaks against it."""

    what: str
    candidate: Candidate
    paired: Paired
    against: str | None

    def trial(self, taken: bool, why: str) -> Trial:
        """The record of it."""
        found = self.candidate
        return Trial(
            what=self.what,
            bytes=found.bytes,
            time_ratio=self.paired.ratio,
            deviation=found.deviation,
            taken=taken,
            why=self.against or why,
        )


def settle(spec: GraphSpec, folder: Path, asked: Asked, work: Work, timer: Timer = compare) -> GraphSpec:
    """Put what was asked for in place of the fp32 graph `folder/<spec.file>`, and say what it now is.

    PrecisionError when what was asked for by name is too far from the fp32 graph, ValueError when fp16 cannot hold it.
    """
    if asked == "fp32":
        return spec
    with tempfile.TemporaryDirectory() as temporary:
        model = open_graph(folder / spec.file)
        bench = Workbench(spec, store_tables(model, "fp32"), Path(temporary), work, timer)
        if asked == "fp16":
            taken, precision = _half(bench, model)
        else:
            taken, tables, trials = _tables(bench, model, asked)
            taken, nodes, more = _dense(bench, taken)
            precision = Precision(
                asked=asked,
                tables=tables,
                dense="int8" if nodes else "fp32",
                int8_nodes=nodes,
                deviation=taken.deviation,
                trials=(*trials, *more),
            )
        weights = spec.weights
        if taken is not bench.base:
            weights = save_graph(open_graph(taken.path), folder / spec.file)
    precision = precision.model_copy(update={"given": spec.precision.given})
    return spec.model_copy(update={"weights": weights, "precision": precision})


def _half(bench: Workbench, model: Model) -> tuple[Candidate, Precision]:
    """The whole graph in fp16."""
    half = bench.whole("half", to_half(model), rounded=True)
    _require(bench, "fp16", half)
    return half, Precision(asked="fp16", tables="fp16", dense="fp16", deviation=half.deviation)


def _tables(bench: Workbench, model: Model, asked: Asked) -> tuple[Candidate, Stored, list[Trial]]:
    """The graph with its tables stored as asked; for `auto` the smallest form that nothing speaks against."""
    forms: tuple[Stored, ...] = ("int8",) if asked == "int8" else ("fp16", "int8", "int4")
    tried: dict[Stored, _Tried] = {}
    for stored in forms:
        candidate = bench.whole(f"tables-{stored}", store_tables(model, stored))
        if asked == "int8":
            _require(bench, "tables in int8", candidate)
        paired = bench.ratio(candidate, bench.base)
        against = complaint(candidate.deviation) or _no_gain(bench.base, candidate, paired) if asked == "auto" else None
        tried[stored] = _Tried(f"tables in {stored}", candidate, paired, against)
    fit = [stored for stored, each in tried.items() if each.against is None]
    best = min(fit, key=lambda stored: tried[stored].candidate.bytes, default=None)
    trials = []
    for stored, each in tried.items():
        saved = f"saves {(bench.base.bytes - each.candidate.bytes) / 2**20:,.1f} MiB"
        why = saved if stored == best else "another form is smaller still"
        trials.append(each.trial(stored == best, "asked for" if asked == "int8" else why))
    return (tried[best].candidate, best, trials) if best else (bench.base, "fp32", trials)


def _no_gain(base: Candidate, candidate: Candidate, paired: Paired) -> str | None:
    """Why smaller tables are not worth it, None when they are."""
    saved = base.bytes - candidate.bytes
    if paired.is_slower:
        return "slower"
    if saved < WORTH and not paired.is_faster:
        return f"saves {saved / 2**20:,.1f} MiB, less than {WORTH >> 20}, and is not faster"
    return None


def _dense(bench: Workbench, base: Candidate) -> tuple[Candidate, tuple[str, ...], list[Trial]]:
    """`base` with those products in int8 that are faster so, each kind alone and all together; `base` when none is."""
    model = outline(base.path)
    found = products(model.graph)
    if not found:
        return base, (), []
    ranges = bench.ranges(base, sorted({name for product in found for name in product.activations}))

    def changed(name: str, kinds: list[list[Product]]) -> Candidate:
        return bench.outlined(name, in_int8(model, bench.folder, [each for kind in kinds for each in kind], ranges))

    kinds: dict[str, list[Product]] = {}
    for product in found:
        kinds.setdefault(product.shared, []).append(product)
    tried: list[tuple[list[Product], _Tried]] = []
    for kind in kinds.values():
        candidate = changed(f"kind-{len(tried)}", [kind])
        paired = bench.ratio(candidate, base)
        against = complaint(candidate.deviation) or (None if paired.is_faster else "not faster")
        what = f"{kind[0].node}{f' and {len(kind) - 1} like it' if len(kind) > 1 else ''} in int8"
        tried.append((kind, _Tried(what, candidate, paired, against)))
    best, chosen, why = base, list[list[Product]](), "faster"
    for kind, each in sorted(tried, key=lambda pair: pair[1].paired.ratio):
        if each.against is None:
            more = changed(f"kinds-{len(chosen)}", [*chosen, kind])
            if complaint(more.deviation) is None:
                best, chosen = more, [*chosen, kind]
    if chosen and not bench.ratio(best, base).is_faster:
        best, chosen, why = base, [], "not faster in the end"
    trials = [
        each.trial(kind in chosen, why if kind in chosen or not chosen else "too far from fp32 with the others")
        for kind, each in tried
    ]
    return best, tuple(product.node for kind in chosen for product in kind), trials


def _require(bench: Workbench, what: str, candidate: Candidate) -> None:
    """PrecisionError when a candidate is too far from the fp32 graph."""
    if wrong := complaint(candidate.deviation):
        raise PrecisionError(
            f"{bench.spec.file} in {what} is too far from fp32 over {len(bench.work.judged)} requests: {wrong}"
        )
