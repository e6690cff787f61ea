"""From a bundle folder to a proved LoadedBundle, or a clear refusal: checksums, interfaces, golden rows, warm-up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.cell_files import check_cells
from bundle.errors import ContractError
from bundle.folder import Bundle, open_bundle
from bundle.golden import GoldenRow, check_golden, compare, load_golden
from bundle.ladder import FULL
from bundle.manifest import GraphSpec
from bundle.row_sets import check_row_sets
from bundle.schema import FIRST_KNOWN
from bundle.signature import check_signature
from service.budget import Budget, Estimates
from service.cascade import Ask, rank, rung_logits
from service.errors import SettingsError
from service.ladder import Ladder, LoadedRung, allowed_rungs, turn_of
from service.load_gate import LoadGate
from service.loaded import LoadedBundle, Proof, Sizes
from service.scorer import Graph
from service.settings import Settings
from service.timing import RequestTiming

WARM_UP_RUNS = 3
"""Full-size requests ranked before the bundle goes live: the first one is several times slower, and the running
estimates that deadlines are held against need a start."""

Pause = Callable[[], None]
"""Called before each step that takes milliseconds; beside traffic it returns when there is time for one."""


def at_once() -> None:
    """The Pause of who has nothing beside it."""


def load_bundle(folder: Path, settings: Settings, *, verify: bool = True, pause: Pause = at_once) -> LoadedBundle:
    """Open, check, prove and warm up. `verify=False`: the gate of this machine did a moment ago what reads every file,
    which is not done again: signature, checksums and the contents of arrays.

    ManifestError, IntegrityError, SignatureError, ContractError, GoldenError, ProviderError or SettingsError name the
    file and the numbers.
    """
    if verify and settings.public_keys:
        check_signature(folder, settings.public_keys)
    return prove(assemble(folder, settings, checksums=verify, contents=verify, pause=pause), settings, pause)


def assemble(
    folder: Path, settings: Settings, *, checksums: bool = True, contents: bool = True, pause: Pause = at_once
) -> LoadedBundle:
    """Open and check, with sessions, but prove nothing yet. Checksums and contents of arrays may be left out.

    Errors as of `load_bundle`, but for SignatureError and GoldenError.
    """
    pause()
    bundle = open_bundle(folder, verify=checksums)
    if contents:
        _check(bundle)
    _check_settings(bundle, settings)
    stages = bundle.manifest.stages

    def graph(spec: GraphSpec) -> Graph:
        pause()
        return Graph(folder, spec, settings.provider, settings.threads)

    query = graph(stages.prerank.query)
    rungs = tuple(
        LoadedRung(name, stage, graph(stage.graph)) for name, stage in allowed_rungs(stages.finerank, settings.ladder)
    )
    _check_inputs(bundle, query, [rung.graph for rung in rungs])
    return LoadedBundle(
        bundle=bundle,
        sizes=Sizes(
            settings.retrieval_keep or stages.retrieval.keep,
            settings.qscore_keep or stages.qscore.keep,
            settings.prerank_keep or stages.prerank.keep,
            stages.finerank.keep,
        ),
        query=query,
        ladder=Ladder(rungs, LoadGate(len(rungs), settings.max_in_flight)),
        proof=Proof(0, 0.0, 0.0),
        estimates=Estimates(),
    )


def prove(loaded: LoadedBundle, settings: Settings, pause: Pause = at_once) -> LoadedBundle:
    """Replay the golden rows on this machine, and warm up. ContractError or GoldenError."""
    folder = loaded.bundle.folder
    golden = load_golden(folder)
    check_golden(folder, golden, loaded.bundle.manifest)
    proved = replace(loaded, proof=_replay(loaded, golden, pause))
    _warm_up(proved, golden[0], settings.provider == "cpu" and settings.threads == 1, pause)
    return proved


def _check_settings(bundle: Bundle, settings: Settings) -> None:
    longest = max((history.max_length for history in bundle.manifest.features.histories), default=0)
    if settings.history_limit < longest:
        raise SettingsError(
            f"history_limit is {settings.history_limit}, a history of {bundle.id} reads {longest} events"
        )


def _check(bundle: Bundle) -> None:
    """What the arrays must hold beyond their shapes."""
    for name, amounts in (("bids", bundle.ads.bids), ("qscores", bundle.ads.qscores)):
        low, high = float(amounts.min()), float(amounts.max())  # a NaN becomes both
        if not 0 <= low <= high < np.inf:
            raise ContractError(
                f"{bundle.folder}/ads/{name}.npy: from {low} to {high}, {name} must be finite and not negative"
            )
    bundle.ads.index.check(bundle.folder / "ads")
    check_cells(bundle.folder / "cells", bundle.cells, bundle.ads.worth(slice(None)))
    fields = bundle.ads.fields
    sizes = [
        field.size for field, place in bundle.manifest.features.ad.slices() for _ in range(place.start, place.stop)
    ]
    if fields.shape[1] and (np.any(fields.min(axis=0) < 0) or np.any(fields.max(axis=0) >= np.array(sizes))):
        raise ContractError(f"{bundle.folder}/ads/fields.npy: an id is outside its field's size {sizes}")
    for name, postings in bundle.postings.items():
        field = next((field for field in bundle.manifest.features.ad.id_fields if field.name == name), None)
        if field is None or len(postings.offsets) != field.size + 1:
            wanted = "no such ad field" if field is None else f"{field.size + 1} are needed"
            raise ContractError(
                f"{bundle.folder}/postings/{name}.offsets.npy: {len(postings.offsets)} offsets, {wanted}"
            )
        _check_range(f"{bundle.folder}/postings/{name}.rows.npy", postings.rows, FIRST_KNOWN, len(bundle.ads.bids))
    for part, by_field in (("filters", bundle.filters), ("targeting", bundle.targeting)):
        for name, sets in by_field.items():
            check_row_sets(bundle.folder / part, name, sets, bundle.ads.index.size)


def _check_range(what: str, values: npt.NDArray[Any], low: int, end: int) -> None:
    if values.size and not (low <= int(values.min()) and int(values.max()) < end):
        raise ContractError(f"{what}: holds {values.min()}..{values.max()}, only {low}..{end - 1} may be there")


def _check_inputs(bundle: Bundle, query: Graph, rungs: list[Graph]) -> None:
    """ContractError unless the service has every input the graphs read, and they give what the cascade reads."""
    common = {"user", "user_numbers", "context", "context_numbers"}
    common |= {f"history_{history.name}" for history in bundle.manifest.features.histories}
    for graph, known, outputs in (
        (query, common, {"query", "offset"}),
        *((rung, common | {"ads", "ad_numbers"}, {"logits"}) for rung in rungs),
    ):
        if strange := sorted(set(graph.inputs) - known):
            raise ContractError(f"{bundle.folder / graph.spec.file}: reads {strange}, the service has {sorted(known)}")
        if (found := {each.name for each in graph.spec.outputs}) != outputs:
            raise ContractError(
                f"{bundle.folder / graph.spec.file}: gives {sorted(found)}, needed are {sorted(outputs)}"
            )


def _replay(loaded: LoadedBundle, golden: list[GoldenRow], pause: Pause) -> Proof:
    """Run the golden rows on this machine. GoldenError names the graph, the row and the difference."""
    allowed = loaded.bundle.manifest.golden
    query_worst = logit_worst = 0.0
    for i, row in enumerate(golden):
        pause()
        values = dict(row.common.feeds())
        found = loaded.query.run(values)
        name = f"{loaded.bundle.folder / loaded.query.spec.file}, golden row {i}"
        query_worst = max(query_worst, compare(f"{name}, query", found["query"], row.query, allowed.query_tolerance))
        query_worst = max(query_worst, compare(f"{name}, offset", found["offset"], row.offset, allowed.query_tolerance))
        for rung in loaded.ladder.rungs:
            logits = rung_logits(loaded, rung, values, row.ads)
            expected = row.logits if rung.name == FULL else row.ladder[rung.name]
            name = f"{loaded.bundle.folder / rung.graph.spec.file}, golden row {i}, logits"
            logit_worst = max(logit_worst, compare(name, logits, expected, allowed.logit_tolerance))
    return Proof(len(golden), query_worst, logit_worst)


def _warm_up(loaded: LoadedBundle, row: GoldenRow, one_thread: bool, pause: Pause) -> None:
    """`one_thread`: what this thread computes is all there is to it. Beside traffic a run takes many times what it
    computes, because requests go first; taken for the cost of a stage, that would drive them down the ladder."""
    share = 1.0
    for run in range(WARM_UP_RUNS):
        if run == WARM_UP_RUNS - 1:  # the first runs allocate; only the last one says what a stage costs
            loaded.estimates.clear()
        for step, rung in enumerate(loaded.ladder.rungs):
            pause()
            budget, timing = Budget(60_000), RequestTiming()
            budget.step = step
            begun, used = perf_counter(), thread_time()
            rank(loaded, Ask(row.common, k=1), budget, timing)
            loaded.estimates.observe(turn_of(rung.name), 1, timing.total_ms)
            share = (thread_time() - used) / (perf_counter() - begun)
    if one_thread:
        loaded.estimates.scale(min(1.0, share))
