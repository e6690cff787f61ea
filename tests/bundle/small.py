"""A small but complete bundle: three ads with string ids, one user field, one history. The graphs are mere bytes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bundle.ad_index import AdIndex
from bundle.ad_vectors import AdVectors
from bundle.bitmap import of_rows
from bundle.cell_files import arrange, save_cells
from bundle.encoding import Encoder
from bundle.folder import write_bundle
from bundle.golden import Common, GoldenRow, save_golden
from bundle.manifest import (
    Catalogue,
    FinerankStage,
    FixedPosition,
    GoldenSpec,
    GraphSpec,
    Made,
    Manifest,
    PrerankStage,
    QscoreStage,
    RetrievalStage,
    Stages,
    TensorSpec,
)
from bundle.record import Event, UserRecord, pack
from bundle.row_sets import write_row_sets
from bundle.schema import FeatureSchema, FieldSpec, HistorySpec, Kind, Side
from bundle.vocabulary import Vocabulary

ADS = Vocabulary.of(["ad-1", "ad-2", "ad-3"])
CATEGORIES = Vocabulary.of([10, 20])
CITIES = Vocabulary.of(["Lyon", "Ulm"])
SCENES = Vocabulary.of(["feed", "search"])
"""ad-1 is only for feed, ad-2 only for search, ad-3 for everywhere."""
DIMENSION = 2

SCHEMA = FeatureSchema(
    user_key="user_id",
    ad_key="ad_id",
    key_type="string",
    user=Side(
        fields=(
            FieldSpec(name="city", kind=Kind.CATEGORICAL, vocabulary="city", size=CITIES.size),
            FieldSpec(name="age", kind=Kind.NUMBER, mean=40.0, std=10.0),
        )
    ),
    ad=Side(fields=(FieldSpec(name="category", kind=Kind.CATEGORICAL, vocabulary="category", size=CATEGORIES.size),)),
    histories=(HistorySpec(name="clicks", fields=("category",), max_length=4),),
)
ENCODER = Encoder(SCHEMA, {"city": CITIES, "category": CATEGORIES})
USERS = {
    "u1": UserRecord({"city": "Ulm", "age": 33}, (Event("click", 1, ("ad-2",)),)),
    "u2": UserRecord({"city": "Lyon"}, ()),
}


def manifest(bundle_id: str = "small-1", users: int = len(USERS)) -> Manifest:
    return Manifest(
        bundle_id=bundle_id,
        made=Made(time="2025-01-01T00:00:00Z", commit="0" * 40, seed=1, data="small", versions={"torch": "2.13.0"}),
        features=SCHEMA,
        catalogue=Catalogue(ads=3, has_bids=True, filters=("category",), targeting=("scene",)),
        stages=Stages(
            retrieval=RetrievalStage(keep=100, cells=1, posting_fields=("category",)),
            qscore=QscoreStage(keep=50),
            prerank=PrerankStage(
                model="dqm",
                query=GraphSpec(
                    file="query.onnx",
                    inputs=(TensorSpec(name="user", dtype="int64", shape=(1,)),),
                    outputs=(TensorSpec(name="query", dtype="float32", shape=(DIMENSION,)),),
                ),
                dimension=DIMENSION,
                keep=20,
            ),
            finerank=FinerankStage(
                model="din",
                label="like",
                graph=GraphSpec(
                    file="finerank.onnx",
                    inputs=(TensorSpec(name="ads", dtype="int64", shape=("candidates", 1)),),
                    outputs=(TensorSpec(name="logits", dtype="float32", shape=("candidates",)),),
                ),
                position=FixedPosition(position=0, bias=-0.25),
                keep=10,
            ),
        ),
        golden=GoldenSpec(requests=2, query_tolerance=1e-5, logit_tolerance=1e-5),
        quality={"din": {"auc": 0.75, "gauc": 0.625}, "qscore": {"auc": 0.5}},
        users=users,
    )


def golden_rows(count: int = 2) -> list[GoldenRow]:
    random = np.random.default_rng(0)
    return [
        GoldenRow(
            Common(
                user=np.array([2 + i % 2]),
                user_numbers=random.random(1, dtype=np.float32),
                context=np.zeros(0, dtype=np.int64),
                context_numbers=np.zeros(0, dtype=np.float32),
                histories={"clicks": np.array([[2], [3]])},
            ),
            ads=np.array([2, 3, 4]),
            query=random.random(DIMENSION, dtype=np.float32),
            offset=0.5,
            logits=random.random(3, dtype=np.float32),
        )
        for i in range(count)
    ]


def fill(folder: Path) -> None:
    for name in ("vocabulary", "ads", "cells", "filters", "targeting", "postings", "users"):
        (folder / name).mkdir()
    CITIES.save(folder / "vocabulary/city.npy")
    CATEGORIES.save(folder / "vocabulary/category.npy")
    vectors, bids = np.ones((5, DIMENSION), dtype=np.float32), np.array([0, 0, 1, 2, 3], dtype=np.float32)
    qscores = np.array([0, 0, 0.3, 0.1, 0.02], dtype=np.float32)
    order, cells = arrange(vectors, qscores * bids, np.zeros(3, dtype=np.int64))
    assert order.tolist() == [0, 1, 2, 3, 4], "worth .3, .2, .06: the rows are in the order of the ids"
    AdIndex.ordered(ADS, order).write(folder / "ads")
    save_cells(folder / "cells", cells)
    np.save(folder / "ads/fields.npy", np.array([[0], [1], [2], [3], [2]], dtype=np.int32))
    np.save(folder / "ads/numbers.npy", np.zeros((5, 0), dtype=np.float32))
    np.save(folder / "ads/bids.npy", bids)
    np.save(folder / "ads/qscores.npy", qscores)
    AdVectors.of(vectors).write(folder / "ads")
    rows = np.array([2, 3, 4])
    write_row_sets(folder / "filters", "category", CATEGORIES, rows, np.array([2, 3, 2]), of_rows(rows[:0], 5))
    write_row_sets(folder / "targeting", "scene", SCENES, rows[:2], np.array([2, 3]), of_rows(rows[2:], 5))
    np.save(folder / "postings/category.rows.npy", np.array([2, 4, 3], dtype=np.int32))
    np.save(folder / "postings/category.offsets.npy", np.array([0, 0, 0, 2, 3], dtype=np.int64))
    packed = [pack(USERS[name]) for name in sorted(USERS)]
    Vocabulary.of(sorted(USERS)).save(folder / "users/ids.npy")
    np.save(folder / "users/offsets.npy", np.cumsum([0, *map(len, packed)]).astype(np.int64))
    np.save(folder / "users/records.npy", np.frombuffer(b"".join(packed), dtype=np.uint8))
    (folder / "query.onnx").write_bytes(b"query graph")
    (folder / "finerank.onnx").write_bytes(b"fine-rank graph")
    save_golden(folder, golden_rows())


def small_bundle(root: Path, change: Callable[[Path], None] = lambda _: None, bundle_id: str = "small-1") -> Path:
    """A bundle under `root`; `change` alters its files before they are checksummed."""

    def altered(folder: Path) -> None:
        fill(folder)
        change(folder)

    return write_bundle(root, manifest(bundle_id), altered)
