"""A small true bundle without torch: graphs made node by node, whose outputs numpy computes again in a few lines.

300 ads, a user of two histories. `expected_query` and `expected_logits` are the whole models.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bundle.ad_index import AdIndex
from bundle.ad_vectors import AdVectors
from bundle.bitmap import of_rows
from bundle.cell_files import arrange, save_cells
from bundle.encoding import Encoder
from bundle.folder import Bundle, open_bundle, write_bundle
from bundle.golden import Common, GoldenRow, save_golden
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
    TensorSpec,
)
from bundle.record import Event, UserRecord, encode_history, pack
from bundle.row_sets import write_row_sets
from bundle.schema import FIRST_KNOWN, FeatureSchema, FieldSpec, HistorySpec, Kind, Side
from bundle.vocabulary import Vocabulary
from service.settings import Settings
from tests.service.graphs import (
    DIMENSION,
    FINERANK_INPUTS,
    MATCH,
    OFFSET,
    QUERY_INPUTS,
    RUNG_INPUTS,
    RUNGS,
    finerank_graph,
    query_graph,
    rung_graph,
)

Floats = npt.NDArray[np.float32]

CITIES = Vocabulary.of(["Lyon", "Oslo", "Rome"])
SCENES = Vocabulary.of(["feed", "search", "story"])
CATEGORIES = Vocabulary.of(["books", "cars", "food", "games", "shoes"])
BRANDS = Vocabulary.of(range(100, 110))
CELLS = 10
"""Of ads with one brand, and so with one category."""

SCHEMA = FeatureSchema(
    user_key="user_id",
    ad_key="ad_id",
    user=Side(
        fields=(
            FieldSpec(name="city", kind=Kind.CATEGORICAL, vocabulary="city", size=CITIES.size),
            FieldSpec(name="age", kind=Kind.BUCKETED, size=5, edges=(25.0, 45.0)),
            FieldSpec(name="income", kind=Kind.NUMBER, mean=3.0, std=2.0),
        )
    ),
    context=Side(
        fields=(
            FieldSpec(name="scene", kind=Kind.CATEGORICAL, vocabulary="scene", size=SCENES.size),
            FieldSpec(name="hour", kind=Kind.BUCKETED, size=5, edges=(8.0, 18.0)),
        )
    ),
    ad=Side(
        fields=(
            FieldSpec(name="category", kind=Kind.CATEGORICAL, vocabulary="category", size=CATEGORIES.size),
            FieldSpec(name="brand", kind=Kind.CATEGORICAL, vocabulary="brand", size=BRANDS.size),
            FieldSpec(name="price", kind=Kind.NUMBER),
        )
    ),
    histories=(
        HistorySpec(name="clicks", fields=("category", "brand"), max_length=20),
        HistorySpec(name="searches", fields=("category",), of_ads=False, max_length=5, events=("search",)),
    ),
)


def expected_query(common: Common) -> tuple[Floats, float]:
    """The query vector and the offset."""
    likes = np.eye(8, dtype=np.float32)[common.histories["clicks"][:, 0]].sum(axis=0)
    return (likes[2:6] + 0.1 * common.context[0]).astype(np.float32), OFFSET + 0.01 * float(common.user[0])


def expected_logits(common: Common, fields: npt.NDArray[Any], numbers: Floats, rung: str = "full") -> Floats:
    """Fine-rank logits of the ads with these encoded fields and numbers. Further rungs do not look at the history, and
    add what RUNGS says."""
    matches = (common.histories["clicks"][:, 0][:, None] == fields[None, :, 0]).sum(axis=0)
    searched = (common.histories["searches"][:, 0][:, None] == fields[None, :, 0]).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        price = 0.1 * np.log(numbers[:, 0])
    shared = 0.1 * float(common.context[0]) + 0.05 * float(common.user[0]) + 0.2 * float(common.user_numbers[0])
    likes = MATCH * matches + 0.25 * searched if rung == "full" else RUNGS[rung]
    logits = likes + price + 0.01 * fields[:, 1] + shared - 3.0
    return np.asarray(logits, dtype=np.float32)


@dataclass(frozen=True)
class Recipe:
    """What a world is like."""

    ads: int = 300
    poisoned: tuple[int, ...] = ()
    """Ad ids whose fine-rank logit is NaN."""
    bad_vectors: bool = False
    """All ad vectors are NaN."""
    retrieval: int = 100
    qscore: int = 60
    prerank: int = 30
    answer: int = 20
    golden_shift: float = 0.0
    """Added to the golden logits, so that they are wrong."""
    bundle_id: str = "world"
    input_dtype: str = "int64"
    """What the manifest states of the input `user`."""
    string_ads: bool = False
    filters: tuple[str, ...] = ("category", "brand")
    targeting: tuple[str, ...] = ()
    """Any of TARGETED."""
    rungs: tuple[str, ...] = ()
    """Any of RUNGS."""
    rung_shift: float = 0.0
    """Added to the golden logits of rungs, so that they are wrong."""


TARGETED = ("scene", "region")
"""By scene, a feature of the context, and by region, which is nothing but targeting."""


def targets(field: str, i: int) -> list[str]:
    """Where the i-th ad may be shown; everywhere when empty."""
    if field == "scene":
        return [["feed"], ["search", "story"], [], []][i % 4]
    return [["north"], [], ["south", "north"], [], ["south"], [], [], [f"town-{i}"]][i // 4 % 8]


def ad_id(i: int, recipe: Recipe | None = None) -> int | str:
    """The id of the i-th ad, counted from 0."""
    return f"ad-{i:05d}" if recipe is not None and recipe.string_ads else 1000 + i


def make_world(root: Path, recipe: Recipe | None = None) -> Path:
    """Write the bundle and return its folder."""
    recipe = recipe or Recipe()
    manifest = _manifest(recipe)
    return write_bundle(root, manifest, lambda folder: _fill(folder, recipe))


def open_world(root: Path, recipe: Recipe | None = None) -> Bundle:
    """Write the bundle and open it."""
    return open_bundle(make_world(root, recipe))


def settings_for(folder: Path, **changed: Any) -> Settings:
    """Settings for a test: time enough, so that a busy machine degrades nothing."""
    patient = {"default_deadline_ms": 8000, "features_timeout_ms": 1500, "redis_timeout_ms": 1000}
    return Settings(**{"bundle": folder, **patient, **changed})


def demo_records() -> dict[str, UserRecord]:
    """The bundle's demo users."""
    clicks = tuple(Event("click", 1000 + i, (1000 + ad,)) for i, ad in enumerate((0, 5, 10, 1)))
    return {
        "anna": UserRecord({"city": "Lyon", "age": 31, "income": 4.0}, (*clicks, Event("search", 2000, ("food",)))),
        "bert": UserRecord({"city": "Oslo", "age": 60, "income": 1.0}, (Event("click", 1, (1003,)),)),
        "carl": UserRecord({"city": "Rome"}),
    }


def common_of(bundle: Bundle, record: UserRecord, context: dict[str, object]) -> Common:
    """The encoded common features, as the contract's own functions give them."""
    user, user_numbers = bundle.encoder.encode_one(SCHEMA.user, record.profile)
    ids, numbers = bundle.encoder.encode_one(SCHEMA.context, context)
    histories = {
        h.name: encode_history(bundle.encoder, h, record.events, bundle.ads.index, bundle.ads.fields)
        for h in SCHEMA.histories
    }
    return Common(user, user_numbers, ids, numbers, histories)


def _sigmoid(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-x.astype(np.float64)))


def expected_pctr(bundle: Bundle, common: Common, rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """pCTR by the fine-rank model."""
    return _sigmoid(expected_logits(common, bundle.ads.fields[rows], bundle.ads.numbers[rows]))


def _catalogue(recipe: Recipe) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    n = recipe.ads
    categories = [f"{CATEGORIES.value_of(FIRST_KNOWN + i % len(CATEGORIES))}" for i in range(n)]
    brands = np.array([100 + i % 10 for i in range(n)], dtype=np.int64)
    price = np.exp(rng.normal(size=n))
    ids = [ad_id(i, recipe) for i in range(n)]
    price[[i for i, each in enumerate(ids) if each in recipe.poisoned]] = -1.0
    encoder = Encoder(_schema(recipe), _vocabularies())
    columns = {"category": np.array(categories, dtype=object), "brand": brands, "price": price}
    fields, numbers = encoder.encode_rows(SCHEMA.ad, columns, n)
    vectors = np.eye(8, dtype=np.float32)[fields[:, 0]][:, 2:6]
    vectors = (vectors + rng.normal(scale=0.2, size=(n, DIMENSION))).astype(np.float32)
    if recipe.bad_vectors:
        vectors[:] = np.nan
    index = Vocabulary.of(ids) if n else Vocabulary(np.empty(0, dtype=np.int64))  # type: ignore[arg-type]
    arrays = {
        "fields": np.concatenate([np.array([[0, 0], [1, 1]], dtype=np.int32), fields]),
        "numbers": np.concatenate([np.ones((2, 1), dtype=np.float32), numbers]),
        "bids": np.concatenate([[0, 0], rng.uniform(0.5, 2.0, n)]).astype(np.float32),
        "qscores": np.concatenate([[0, 0.05], rng.uniform(0.01, 0.3, n)]).astype(np.float32),
        "vectors": np.concatenate([np.zeros((2, DIMENSION), dtype=np.float32), vectors]),
    }
    order, cells = arrange(arrays["vectors"], arrays["qscores"] * arrays["bids"], np.arange(n) % CELLS)
    return {name: array[order] for name, array in arrays.items()} | {
        "index": AdIndex.ordered(index, order),
        "cells": cells,
    }


def _fill(folder: Path, recipe: Recipe) -> None:
    for name in ("ads", "vocabulary", "filters", "targeting", "postings", "users", "cells"):
        (folder / name).mkdir()
    arrays = _catalogue(recipe)
    index: AdIndex = arrays["index"]
    index.write(folder / "ads")
    save_cells(folder / "cells", arrays["cells"])
    AdVectors.of(arrays["vectors"]).write(folder / "ads")
    for name in ("fields", "numbers", "bids", "qscores"):
        np.save(folder / f"ads/{name}.npy", arrays[name])
    for name, vocabulary in _vocabularies().items():
        vocabulary.save(folder / f"vocabulary/{name}.npy")
    fields = arrays["fields"]
    for column, (name, vocabulary) in enumerate((("category", CATEGORIES), ("brand", BRANDS))):
        if name in recipe.filters:
            nowhere = of_rows(np.empty(0, dtype=np.int64), len(fields))
            write_row_sets(folder / "filters", name, vocabulary, np.arange(2, len(fields)), fields[2:, column], nowhere)
    for name in recipe.targeting:
        listed = [(i + FIRST_KNOWN, value) for i in range(recipe.ads) for value in targets(name, i)]
        values = Vocabulary.of({value for _, value in listed})
        everywhere = [i + FIRST_KNOWN for i in range(recipe.ads) if not targets(name, i)]
        write_row_sets(
            folder / "targeting",
            name,
            values,
            index.rows[[row for row, _ in listed]],
            np.array([values.id_of(value) for _, value in listed]),
            of_rows(index.rows[everywhere], len(fields)),
        )
    order = np.lexsort((-arrays["qscores"][FIRST_KNOWN:], fields[FIRST_KNOWN:, 0]))
    np.save(folder / "postings/category.rows.npy", (order + FIRST_KNOWN).astype(np.int32))
    bounds = np.searchsorted(fields[FIRST_KNOWN:, 0][order], np.arange(CATEGORIES.size + 1))
    np.save(folder / "postings/category.offsets.npy", bounds.astype(np.int64))
    onnx.save(query_graph(), folder / "query.onnx")
    onnx.save(finerank_graph(), folder / "finerank.onnx")
    for name in recipe.rungs:
        onnx.save(rung_graph(name), folder / f"finerank-{name}.onnx")
    _write_users(folder)
    _write_golden(folder, arrays, recipe)


def _write_users(folder: Path) -> None:
    records = demo_records()
    index = Vocabulary.of(list(records))
    index.save(folder / "users/ids.npy")
    packed = [pack(records[value.decode()]) for value in index.values.tolist()]
    np.save(folder / "users/offsets.npy", np.cumsum([0, *map(len, packed)]).astype(np.int64))
    np.save(folder / "users/records.npy", np.frombuffer(b"".join(packed), dtype=np.uint8))


def _write_golden(folder: Path, arrays: dict[str, Any], recipe: Recipe) -> None:
    rng = np.random.default_rng(3)
    rows = []
    for i in range(2):
        common = Common(
            np.array([2 + i, 3]),
            np.array([0.5 * i], dtype=np.float32),
            np.array([2 + i, 2]),
            np.zeros(0, dtype=np.float32),
            {"clicks": np.array([[2, 3], [4, 5], [0, 0]]), "searches": np.array([[2], [0], [0]])},
        )
        ads = rng.integers(1, recipe.ads + FIRST_KNOWN, size=10)
        poisoned = np.flatnonzero(arrays["numbers"][:, 0] < 0)
        ads[np.isin(ads, poisoned)] = 1
        query, offset = expected_query(common)
        logits = expected_logits(common, arrays["fields"][ads], arrays["numbers"][ads]) + recipe.golden_shift
        ladder = {
            name: expected_logits(common, arrays["fields"][ads], arrays["numbers"][ads], name) + recipe.rung_shift
            for name in recipe.rungs
        }
        ladder = {name: each.astype(np.float32) for name, each in ladder.items()}
        rows.append(GoldenRow(common, ads, query, offset, logits.astype(np.float32), ladder))
    save_golden(folder, rows)


def _vocabularies() -> dict[str, Vocabulary]:
    return {"city": CITIES, "scene": SCENES, "category": CATEGORIES, "brand": BRANDS}


def _schema(recipe: Recipe) -> FeatureSchema:
    return SCHEMA.model_copy(update={"key_type": "string"}) if recipe.string_ads else SCHEMA


def _manifest(recipe: Recipe) -> Manifest:
    def graph(file: str, inputs: Any, outputs: Any) -> GraphSpec:
        specs = [TensorSpec(name=n, dtype=d, shape=s) for n, d, s in inputs]
        specs[0] = specs[0].model_copy(update={"dtype": recipe.input_dtype})
        return GraphSpec(
            file=file,
            inputs=tuple(specs),
            outputs=tuple(TensorSpec(name=n, dtype="float32", shape=s) for n, s in outputs),
        )

    return Manifest(
        bundle_id=recipe.bundle_id,
        made=Made(time="2026-01-01T00:00:00Z", commit="none", seed=1, data="world", versions={}),
        features=_schema(recipe),
        catalogue=Catalogue(ads=recipe.ads, has_bids=True, filters=recipe.filters, targeting=recipe.targeting),
        stages=Stages(
            retrieval=RetrievalStage(
                keep=recipe.retrieval,
                cells=min(CELLS, recipe.ads),
                posting_fields=("category",),
                interests=2,
                per_interest=10,
            ),
            qscore=QscoreStage(keep=recipe.qscore),
            prerank=PrerankStage(
                model="dqm",
                query=graph("query.onnx", QUERY_INPUTS, [("query", (DIMENSION,)), ("offset", ())]),
                dimension=DIMENSION,
                keep=recipe.prerank,
            ),
            finerank=FinerankStage(
                model="din",
                graph=graph("finerank.onnx", FINERANK_INPUTS, [("logits", ("ads",))]),
                keep=recipe.answer,
                worth=worth(0) if recipe.rungs else None,
                ladder=tuple(
                    Rung(
                        name=name,
                        model="dnn",
                        graph=graph(f"finerank-{name}.onnx", RUNG_INPUTS, [("logits", ("ads",))]),
                        worth=worth(i + 1),
                    )
                    for i, name in enumerate(recipe.rungs)
                ),
            ),
        ),
        golden=GoldenSpec(requests=2, query_tolerance=1e-5, logit_tolerance=1e-5),
        quality={"din": {"auc": 0.7}},
        users=len(demo_records()),
    )


def worth(place: int) -> Worth:
    """Of the rung at this place: half of what the one above costs."""
    return Worth(
        multiply_adds=1024 >> place,
        request_multiply_adds=0,
        bytes=4096,
        p50_ms=8.0 / 2**place,
        p99_ms=16.0 / 2**place,
        candidates=500,
        requests=200,
        processor="none",
        quality={"auc": (0.7, 0.65, 0.6)[place]},
    )
