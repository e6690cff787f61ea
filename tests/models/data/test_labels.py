"""Further labels: beside the click in parts and batches, refused like it, and no trace of them where none are named."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from models.data.batches import batches
from models.data.command import summary
from models.data.prepare import FORMAT, fingerprint, prepare
from models.data.prepared import SPLITS, PreparedData, open_prepared
from models.data.spec import DataError, DatasetSpec
from models.labels import labelled, require_label
from tests.market import QSCORE, make_config
from tests.models.data.test_refusals import LOG, attempt

ROWS = 400


def description(**changes: Any) -> DatasetSpec:
    """A log alone, with two further labels; requests have several ads."""
    content = {
        "name": "labels",
        "source": "table",
        "files": {"log": "log.parquet"},
        "label": "click",
        "user": "user",
        "ad": "ad",
        "time": "time",
        "request": ["user", "time"],
        "truth": "p",
        "labels": {"like": {"column": "liked", "truth": "q"}, "long_view": {"column": "long"}},
        "user_features": [{"column": "user"}],
        "ad_features": [{"column": "ad"}],
        "split": {"valid_from": 30, "test_from": 35},
    }
    return DatasetSpec.model_validate(content | changes)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    r = np.random.default_rng(3)
    click = r.integers(0, 2, ROWS)
    pl.DataFrame(
        {
            "user": r.integers(0, 9, ROWS),
            "ad": r.permutation(ROWS),
            "time": r.integers(0, 40, ROWS),
            "click": click,
            "p": r.random(ROWS).astype(np.float32),
            "liked": click * r.integers(0, 2, ROWS),
            "q": r.random(ROWS).astype(np.float32),
            "long": r.integers(0, 2, ROWS) == 1,
        }
    ).write_parquet(folder / "log.parquet")
    return folder


@pytest.fixture(scope="module")
def data(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare(description(), raw, tmp_path_factory.mktemp("out") / "data", partitions=2, progress=False)


def rows(data: PreparedData, label: str) -> Counter[tuple[float, ...]]:
    """Every impression of the batches: ad, label, the others by name, truth (to 6 digits)."""
    found: Counter[tuple[float, ...]] = Counter()
    for split in SPLITS:
        for batch in batches(labelled_by(data, label), split, 16, seed=1):
            others = [batch.further[name].tolist() for name in sorted(batch.further)]
            truth = [-1.0] * len(batch.rows) if batch.truth is None else [round(float(p), 6) for p in batch.truth]
            ads = [int(data.ads.index.value_of(int(row))) for row in batch.rows]
            found.update(zip(ads, batch.labels.tolist(), *others, truth, strict=True))
    return found


def labelled_by(data: PreparedData, label: str) -> PreparedData:
    config = make_config("any", {"kind": "gwen"}, label=label)
    return labelled(config, data)


def logged(raw: Path, columns: list[str]) -> Counter[tuple[float, ...]]:
    """The same of the log itself."""
    log = pl.read_parquet(raw / "log.parquet").with_columns(none=-1.0).cast(pl.Float64)
    return Counter(log.with_columns(pl.col("p", "q").round(6)).select("ad", *columns).rows())


@pytest.mark.parametrize(
    ("label", "columns"),
    [
        ("click", ["click", "liked", "long", "p"]),
        ("like", ["liked", "click", "long", "q"]),
        ("long_view", ["long", "click", "liked", "none"]),
    ],
)
def test_batches_have_all_labels_and_the_asked_one_is_theirs(
    raw: Path, data: PreparedData, label: str, columns: list[str]
) -> None:
    assert rows(data, label) == logged(raw, columns)


def test_requests_have_the_labels_of_flat_rows(raw: Path, data: PreparedData, tmp_path: Path) -> None:
    flat = prepare(description(request=[]), raw, tmp_path / "flat", progress=False)
    assert flat.prepared.splits["train"].requests > 1.5 * data.prepared.splits["train"].requests
    for label in ("click", "like", "long_view"):
        assert rows(flat, label) == rows(data, label)
    assert flat.prepared.splits["test"].further == data.prepared.splits["test"].further


def test_a_byte_an_impression_in_the_parts(data: PreparedData) -> None:
    schema = pq.read_schema(data.parts("train")[0])
    further = {field.name: str(field.type.value_type) for field in schema if field.name.startswith(("label_", "truth"))}
    assert further == {"truth": "float", "label_like": "int8", "label_long_view": "int8", "truth_like": "float"}


def test_sizes_count_them(raw: Path, data: PreparedData) -> None:
    log = pl.read_parquet(raw / "log.parquet")
    sizes = open_prepared(data.folder).prepared.splits
    assert sum(size.further["like"] for size in sizes.values()) == log["liked"].sum()
    assert sum(size.further["long_view"] for size in sizes.values()) == log["long"].sum()
    train = sizes["train"]
    assert f"  like {train.further['like'] / train.impressions:.4f}  long_view" in summary(data)


def test_data_without_further_labels_are_what_they_were(raw: Path, tmp_path: Path) -> None:
    """Columns, fingerprint and schema.json."""
    spec = description(labels={})
    found = prepare(spec, raw, tmp_path / "data", progress=False)
    assert [n for n in pq.read_schema(found.parts("train")[0]).names if n.startswith(("label_", "truth_"))] == []
    path = raw / "log.parquet"
    described = spec.model_dump(mode="json", exclude={"targeting", "labels", "split"})
    described["split"] = {"valid_from": 30, "test_from": 35}
    files = [("log.parquet", hashlib.sha256(path.read_bytes()).hexdigest())]
    earlier = hashlib.sha256(json.dumps([FORMAT, described, files]).encode()).hexdigest()
    assert found.prepared.fingerprint == fingerprint(spec, raw) == earlier
    assert fingerprint(description(), raw) != earlier
    stored = json.loads((found.folder / "schema.json").read_text())
    del stored["spec"]["labels"]
    for size in stored["splits"].values():
        del size["further"]
    (found.folder / "schema.json").write_text(json.dumps(stored))
    assert open_prepared(found.folder).prepared == found.prepared
    assert all(not batch.further for batch in batches(found, "train", 64))


LIKE = {"labels": {"like": {"column": "liked"}}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2, 0], r"log.parquet: column 'liked', row 1: 2, a label must be 0 or 1"),
        ([1, None, 0], r"log.parquet: column 'liked', row 1: None, a label must be 0 or 1"),
        ([0.0, 1.0, 0.5], r"column 'liked', row 2: 0.5"),
        (["1", "0", "1"], r"column 'liked': type String"),
        (None, r"log.parquet: there is no column 'liked'; it has user, ad, time, click, scene"),
    ],
)
def test_what_is_no_label_is_refused(values: list[Any] | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        attempt(tmp_path, log={"liked": values}, **LIKE)


def test_a_wrong_truth_is_refused(tmp_path: Path) -> None:
    labels = {"like": {"column": "liked", "truth": "q"}}
    with pytest.raises(DataError, match=r"column 'q', row 2: 1.5, a probability from 0 to 1 is needed"):
        attempt(tmp_path, log={"liked": [0, 1, 0], "q": [0.0, 1.0, 1.5]}, labels=labels)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"click": {"column": "liked"}}, DataError, "labels has 'click', which is what `label` is called"),
        ({"like": {"column": "click"}}, DataError, "labels.like: column 'click' is that of `label`"),
        ({"Like it": {"column": "liked"}}, ValidationError, "String should match pattern"),
        ({"like": {"column": "liked", "weight": 2}}, ValidationError, "labels.like.weight"),
        ({"like": {}}, ValidationError, "labels.like.column"),
    ],
)
def test_descriptions_are_refused(labels: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    assert "liked" not in LOG
    with pytest.raises(error, match=message):
        attempt(tmp_path, log={"liked": [0, 1, 0]}, labels=labels)


def test_text_files_may_have_them(raw: Path, data: PreparedData, tmp_path: Path) -> None:
    log = pl.read_parquet(raw / "log.parquet").cast({"long": pl.Int8, "q": pl.Float64})
    log.with_columns(q=pl.lit(0)).write_csv(tmp_path / "log.csv")
    spec = description(files={"log": "log.csv"})
    found = prepare(spec, tmp_path, tmp_path / "data", progress=False)
    assert found.prepared.splits["train"].further == data.prepared.splits["train"].further


def test_a_label_that_is_not_there_or_that_nothing_has_is_named(raw: Path, data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no label 'follow', known: click, like, long_view"):
        require_label(data, "follow")
    log = pl.read_parquet(raw / "log.parquet")
    log.with_columns(liked=pl.col("liked") * (pl.col("time") < 30)).write_parquet(tmp_path / "log.parquet")
    found = prepare(description(), tmp_path, tmp_path / "data", progress=False)
    with pytest.raises(DataError, match=r"no impression of split 'valid' has the label 'like'"):
        labelled(make_config("any", {"kind": "gwen"}, label="like"), found)
    related = {"kind": "mtl", "scene": "scene", "related": {"label": "like"}}
    with pytest.raises(DataError, match=r"no impression of split 'valid' has the label 'like'"):
        labelled(make_config("any", related), found)
    assert labelled(make_config("any", QSCORE), found).label == "click"
