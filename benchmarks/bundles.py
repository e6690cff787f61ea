"""Bundles of the standard work, of any number of ads: written once, found again the next time."""

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.market import Market, Networks, arrange_ads, make_networks, write_ads, write_users, write_vocabularies
from benchmarks.work import make_din, make_request
from bundle.ad_index import AdIndex
from bundle.folder import write_bundle
from bundle.golden import GoldenRow, save_golden
from bundle.ladder import Worth
from bundle.manifest import (
    Catalogue,
    FinerankStage,
    GoldenSpec,
    GraphSpec,
    Made,
    Manifest,
    PrerankStage,
    QscoreStage,
    RetrievalStage,
    Rung,
    Stages,
)
from bundle.rounding import Coded
from bundle.schema import FIRST_KNOWN, FeatureSchema
from export.certify import CANDIDATES, DISTINCT, in_turns
from export.din_graph import DinServing
from export.ladder import worth_of
from export.parity import GOLDEN_TOLERANCE, Feeds, runner
from export.query_graph import QueryGraph
from export.request_graph import fixed_position
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from models.data.batches import Batch
from models.networks.din import Din

ROOT = Path("artifacts/bench")
"""Where benchmarks keep bundles."""
WRITTEN_BY = (
    "benchmarks/bundles.py",
    "benchmarks/market.py",
    "benchmarks/work.py",
    "bundle/ad_index.py",
    "bundle/ad_vectors.py",
    "bundle/cell_files.py",
    "bundle/folder.py",
    "bundle/golden.py",
    "bundle/ladder.py",
    "bundle/manifest.py",
    "bundle/precision.py",
    "bundle/record.py",
    "bundle/rounding.py",
    "bundle/schema.py",
    "bundle/vocabulary.py",
    "models/cells.py",
    "models/networks/layers.py",
    "models/networks/rounding.py",
    "models/networks/network.py",
    "models/networks/attention.py",
    "models/networks/din.py",
    "models/networks/dqm.py",
    "export/din_graph.py",
    "export/column_attention.py",
    "export/columns.py",
    "export/query_graph.py",
    "export/stored_arena.py",
    "export/to_onnx.py",
    "export/matching.py",
)
"""Code that decides what is in a bundle: after a change it is made anew."""
GOLDEN = 4
GOLDEN_CANDIDATES = 64


def work_bundle(
    root: Path,
    ads: int,
    unit: str,
    *,
    users: int = 1_000,
    seed: int = 0,
    vectors: Coded = "int8",
    rungs: Sequence[str] = (),
) -> Path:
    """The bundle of `ads` ads with the activation unit `unit` of benchmarks.work.UNITS, under `root`; written when it
    is not there yet, and then the one that older code wrote is removed. `rungs`: further units, of a ladder.

    Ads have the ids 0, 1, ...; `users` users with 50 behaviours each have the ids "0", "1", ... The funnel is
    10^5 matched -> 10^4 -> 10^3 -> at most 100 answers. `vectors`: what ad vectors are stored in.
    """
    stored = () if vectors == "int8" else (vectors,)
    name = "-".join(["work", *stored, unit, *rungs, str(ads), str(users), str(seed)])
    target = root / f"{name}-{fingerprint()}"
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two benchmarks that need it, one waits for the other's
        if not target.exists():
            for old in root.glob(f"{name}-*"):
                shutil.rmtree(old)
            _write(root, target.name, ads, unit, users, seed, vectors, rungs)
    return target


def _write(
    root: Path, bundle_id: str, ads: int, unit: str, users: int, seed: int, vectors: Coded, rungs: Sequence[str]
) -> None:
    networks = make_networks(ads, unit, seed)
    market = Market(ads, users, seed)
    with tempfile.TemporaryDirectory() as temporary:
        graphs = Path(temporary)
        inputs = common_inputs(networks.schema)
        query = export_graph(QueryGraph(networks.dqm), inputs, ["query", "offset"], graphs / "query.onnx")
        inputs = inputs | candidate_inputs(networks.schema)
        finerank = export_graph(DinServing(networks.din), inputs, ["logits"], graphs / "finerank.onnx")
        cheaper = {rung: make_din(networks.schema, rung, seed=seed) for rung in rungs}
        specs = {
            rung: export_graph(DinServing(din), inputs, ["logits"], graphs / f"finerank-{rung}.onnx")
            for rung, din in cheaper.items()
        }
        worths = _worths(networks.schema, [networks.din, *cheaper.values()], [finerank, *specs.values()], graphs)

        def fill(folder: Path) -> None:
            shutil.copytree(graphs, folder, dirs_exist_ok=True)
            save_golden(folder, golden_rows(networks, market, shelves.index, cheaper))
            write_vocabularies(networks.schema, folder)
            write_ads(networks, market, shelves, folder)
            write_users(market, folder)

        shelves = arrange_ads(networks, market, vectors)
        manifest = Manifest(
            bundle_id=bundle_id,
            made=Made(time="", commit="", seed=seed, data=f"standard work, {ads:,} ads", versions={}),
            features=networks.schema,
            catalogue=Catalogue(ads=ads, has_bids=True),
            stages=Stages(
                retrieval=RetrievalStage(keep=100_000, cells=len(shelves.cells.sizes), posting_fields=("category",)),
                qscore=QscoreStage(keep=10_000),
                prerank=PrerankStage(
                    model="dqm",
                    query=query,
                    dimension=networks.dqm.config.dimension + 1,
                    vectors=vectors,
                    keep=1_000,
                ),
                finerank=FinerankStage(
                    model="din",
                    graph=finerank,
                    position=fixed_position(networks.din),
                    keep=100,
                    worth=worths[0] if rungs else None,
                    ladder=tuple(
                        Rung(name=rung, model="din", graph=specs[rung], worth=worth)
                        for rung, worth in zip(rungs, worths[1:], strict=True)
                    ),
                ),
            ),
            golden=GoldenSpec(requests=GOLDEN, query_tolerance=GOLDEN_TOLERANCE, logit_tolerance=GOLDEN_TOLERANCE),
            quality={},
            users=users,
        )
        write_bundle(root, manifest, fill)


def fingerprint() -> str:
    """Of the code that writes bundles."""
    digest = hashlib.sha256()
    home = Path(__file__).parents[1]
    for pattern in WRITTEN_BY:
        for path in sorted(home.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _worths(schema: FeatureSchema, dins: Sequence[Din], specs: Sequence[GraphSpec], graphs: Path) -> list[Worth]:
    """Costs of the graphs, which take turns; random weights have no quality. Empty for a single one."""
    if len(dins) == 1:
        return []
    requests: list[Feeds] = [dict(make_request(schema, CANDIDATES, seed).feeds()) for seed in range(DISTINCT)]
    times = in_turns([runner(graphs, spec) for spec in specs], requests)
    return [worth_of(din, graphs / spec.file, ms, {}) for din, spec, ms in zip(dins, specs, times, strict=True)]


def golden_rows(
    networks: Networks, market: Market, index: AdIndex, rungs: Mapping[str, Din] | None = None
) -> list[GoldenRow]:
    """Requests of the first users, each with random ads, and what torch computes for them."""
    random = np.random.default_rng(market.seed)
    rows = []
    for user in range(GOLDEN):
        common = market.common(networks.schema, user)
        ads = random.integers(FIRST_KNOWN - 1, market.ads + FIRST_KNOWN, GOLDEN_CANDIDATES)
        one = {name: torch.from_numpy(each).unsqueeze(0) for name, each in common.feeds().items()}
        ids = torch.from_numpy(market.fields(ads)).long()
        zeros = torch.zeros(len(ads), dtype=torch.int64)
        batch = Batch(
            user=one["user"],
            user_numbers=one["user_numbers"],
            context=one["context"],
            context_numbers=one["context_numbers"],
            histories={name: torch.from_numpy(each).unsqueeze(0) for name, each in common.histories.items()},
            ads=ids,
            ad_numbers=torch.zeros(len(ads), 0),
            request=zeros,
            labels=torch.zeros(len(ads)),
            positions=zeros,
            rows=ads.astype(np.int32),
            users=zeros.numpy(),
            truth=None,
        )
        with torch.inference_mode():
            query, offset = networks.dqm.query(batch)
            logits = networks.din(batch).numpy()
            ladder = {rung: din(batch).numpy() for rung, din in (rungs or {}).items()}
        placed = index.rows[ads].astype(np.int64)
        rows.append(GoldenRow(common, placed, query[0].numpy(), float(offset[0]), logits, ladder))
    return rows
