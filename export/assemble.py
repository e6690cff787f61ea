"""Checkpoints of the funnel's models, and the prepared data they were trained on -> one bundle folder."""

import datetime
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from bundle.ad_index import AdIndex
from bundle.cell_files import arrange, save_cells
from bundle.folder import write_bundle
from bundle.golden import save_golden
from bundle.manifest import (
    BundleId,
    Catalogue,
    FinerankStage,
    GoldenSpec,
    Made,
    Manifest,
    PrerankStage,
    QscoreStage,
    RetrievalStage,
    Stages,
)
from bundle.precision import Asked
from bundle.rounding import Coded
from bundle.schema import FeatureSchema, Frozen
from export.catalogue import copy_users, filter_names, targeting_names, user_count, write_catalogue
from export.ladder import check_rungs, logit_tolerance, make_rungs, measured, quality_of, settle_rungs
from export.matching import write_postings
from export.parity import Parity, golden_requests, prove
from export.precision import settle
from export.query_graph import QueryGraph
from export.recording import recorded, tolerance
from export.request_graph import fixed_position, serving_graph
from export.stored_arena import with_given
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from export.work import works
from models.cells import cell_of_ads
from models.checkpoint import Checkpoint
from models.config import ConfigError
from models.data.batches import count
from models.data.prepared import PreparedData
from models.networks.network import Network, TwoTower

CHUNK = 65_536
"""Ads whose vectors are computed at once."""


class FunnelSettings(Frozen):
    """Sizes of the funnel, written into the manifest; each may be overridden when serving."""

    retrieval: int = Field(default=100_000, gt=0)
    qscore: int = Field(default=10_000, gt=0)
    prerank: int = Field(default=1_000, gt=0)
    finerank: int = Field(default=100, gt=0)
    interests: int = Field(default=4, ge=0)
    per_interest: int = Field(default=200, ge=0)


class Target(Frozen):
    """What a bundle is called and how many demo users it carries (None: all); checked before anything is computed."""

    bundle_id: BundleId
    users: int | None = Field(default=None, ge=0)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a bundle is made of."""

    data: PreparedData
    finerank: Checkpoint
    prerank: Checkpoint
    qscore: Checkpoint
    ladder: Mapping[str, Checkpoint] = field(default_factory=dict, kw_only=True)
    """Further fine-rankers by name of their rung, in falling cost."""

    def check(self) -> None:
        """ConfigError unless the parts fit together."""
        for checkpoint in (self.finerank, self.prerank, self.qscore):
            checkpoint.require_same_data(self.data)
        if self.qscore.config.model.kind != "qscore":
            raise ConfigError(f"{self.qscore.folder} holds a {self.qscore.config.model.kind}, a qscore is needed there")
        for checkpoint in (self.finerank, self.prerank):
            checkpoint.calibration()  # now, not after the graphs have been made
        self.finerank.certificate()
        check_rungs(self.ladder, self.finerank, self.data)

    def networks(self) -> tuple[Network, TwoTower]:
        """The fine-ranker and the pre-ranker. ConfigError when they are none."""
        prerank = self.prerank.network()
        if not isinstance(prerank, TwoTower):
            raise ConfigError(
                f"{self.prerank.folder} holds a {self.prerank.config.model.kind}; a network of two towers is needed "
                "there, whose ad vectors can be stored"
            )
        return self.finerank.network(), prerank


def assemble(
    trained: Trained,
    root: Path,
    bundle_id: str,
    settings: FunnelSettings,
    *,
    users: int | None = None,
    precision: Asked = "fp32",
    stored: Coded = "int8",
    seed: int = 0,
) -> tuple[Path, Parity]:
    """Export, prove and write `root/<bundle_id>`; `users` limits the demo users carried along (None: all);
    `stored`: what ad vectors are stored in.

    FileExistsError when the bundle exists, ConfigError when the checkpoints do not fit, LadderError when they are no
    ladder, ParityError when a graph does not compute what its model does, PrecisionError when it does not in the
    precision asked for. Nothing is left behind then.
    """
    Target(bundle_id=bundle_id, users=users)
    trained.check()
    if (root / bundle_id).exists():
        raise FileExistsError(f"{root / bundle_id} exists, and bundles are never changed: choose another bundle id")
    data, schema = trained.data, trained.data.schema
    network, towers = trained.networks()
    qscores, vectors = trained.qscore.qscore().scores, ad_vectors(towers, data)
    worth = qscores * data.ads.bids
    order, cells = arrange(vectors, worth, cell_of_ads(vectors, seed))
    index = AdIndex.ordered(data.ads.index, order)
    interests = posting_fields(schema) if settings.interests and settings.per_interest else ()
    with tempfile.TemporaryDirectory() as temporary:
        graphs = Path(temporary)
        inputs = common_inputs(schema)
        query = export_graph(QueryGraph(towers), inputs, ["query", "offset"], graphs / "query.onnx")
        inputs = inputs | candidate_inputs(schema)
        finerank = export_graph(serving_graph(network), inputs, ["logits"], graphs / "finerank.onnx")
        query, finerank = with_given(query, towers), with_given(finerank, network)
        chosen = golden_requests(data, proof_split(data), requests=8, candidates=64, seed=seed)
        rows, parity = prove(towers, network, query, finerank, graphs, data, chosen)
        rungs, rows = make_rungs(trained.ladder, data, chosen, rows, graphs)
        parity = replace(parity, pctr=max([parity.pctr, *(each.pctr for each in rungs)]))
        if precision != "fp32":
            for_query, for_finerank = works(data, proof_split(data), settings.prerank, vectors, seed + 1)
            query = settle(query, graphs, precision, for_query)
            finerank = settle(finerank, graphs, precision, for_finerank)
            rows = recorded(rows, query, finerank, graphs, data)
            rungs, rows = settle_rungs(rungs, rows, data, graphs, precision, for_finerank)
        split = proof_split(data)
        cost, ladder = measured(trained.finerank, network, finerank, rungs, data, split, graphs)

        def fill(folder: Path) -> None:
            shutil.copytree(graphs, folder, dirs_exist_ok=True)
            save_golden(folder, [replace(row, ads=index.rows[row.ads].astype(np.int64)) for row in rows])
            write_catalogue(data, index, qscores, vectors, folder, stored)
            (folder / "cells").mkdir()
            save_cells(folder / "cells", cells)
            (folder / "postings").mkdir()
            for name in interests:
                write_postings(schema, name, data.ads.fields[order], worth[order], folder / "postings")
            copy_users(data, folder / "users", users)

        manifest = Manifest(
            bundle_id=bundle_id,
            made=made(trained),
            features=schema,
            catalogue=Catalogue(
                ads=len(data.ads.index),
                has_bids=data.prepared.spec.bid is not None,
                filters=filter_names(data),
                targeting=targeting_names(data),
            ),
            stages=Stages(
                retrieval=RetrievalStage(
                    keep=settings.retrieval,
                    cells=len(cells.sizes),
                    posting_fields=interests,
                    interests=settings.interests,
                    per_interest=settings.per_interest,
                ),
                qscore=QscoreStage(keep=settings.qscore, label=trained.qscore.config.training.label),
                prerank=PrerankStage(
                    model=trained.prerank.config.model.kind,
                    label=trained.prerank.config.training.label,
                    query=query,
                    dimension=vectors.shape[1],
                    vectors=stored,
                    keep=settings.prerank,
                    calibration=trained.prerank.calibration(),
                ),
                finerank=FinerankStage(
                    model=trained.finerank.config.model.kind,
                    label=trained.finerank.config.training.label,
                    graph=finerank,
                    position=fixed_position(network),
                    keep=settings.finerank,
                    calibration=trained.finerank.calibration(),
                    certificate=trained.finerank.certificate(),
                    worth=cost,
                    ladder=ladder,
                ),
            ),
            golden=GoldenSpec(
                requests=len(rows), query_tolerance=tolerance(query), logit_tolerance=logit_tolerance(finerank, rungs)
            ),
            quality=quality(trained),
            users=user_count(data, users),
        )
        return write_bundle(root, manifest, fill), parity


def ad_vectors(towers: TwoTower, data: PreparedData) -> npt.NDArray[np.float32]:
    """The stored vector of every catalogue row, float32[rows, d]."""
    ids, numbers = torch.from_numpy(data.ads.fields).long(), torch.from_numpy(data.ads.numbers)
    with torch.inference_mode():
        pieces = [
            towers.ad_vectors(a, n) for a, n in zip(torch.split(ids, CHUNK), torch.split(numbers, CHUNK), strict=True)
        ]
    vectors: npt.NDArray[np.float32] = torch.cat(pieces).numpy()
    return vectors


def posting_fields(schema: FeatureSchema) -> tuple[str, ...]:
    """Fields of the histories that group ads: all but the ad's own id and those with vectors."""
    single = {schema.ad_key, *(field.name for field in schema.ad.id_fields if field.vector)}
    names = [name for history in schema.histories for name in history.fields if name not in single]
    return tuple(dict.fromkeys(names))


def proof_split(data: PreparedData) -> str:
    """The split golden requests are taken from: the latest there is."""
    return next(name for name in ("test", "valid", "train") if count(data, name))


def quality(trained: Trained) -> dict[str, dict[str, float]]:
    """Model -> metric -> value on the test split. Empty for data without one: no other split is an honest stand-in."""
    return {
        checkpoint.config.model.kind: found
        for checkpoint in (trained.finerank, trained.prerank, trained.qscore)
        if (found := quality_of(checkpoint))
    }


def made(trained: Trained) -> Made:
    """Where and when: commit of the code, seed, data and library versions."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return Made(
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=described.stdout.strip() or "unknown",
        seed=trained.finerank.seed,
        data=f"{trained.data.prepared.spec.name} {trained.data.prepared.fingerprint[:12]}",
        versions={name: version(name) for name in ("torch", "onnx", "onnxruntime", "numpy", "faiss-cpu")},
    )
