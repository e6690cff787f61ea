"""Vectors of ad values: brought into the order of ids, kept for ads that training never saw, refused when wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from models.data.base import Base
from models.data.command import summary
from models.data.prepare import fingerprint, prepare
from models.data.prepared import PreparedData, open_prepared
from models.data.spec import DataError, DatasetSpec

IDS: npt.NDArray[Any] = np.array([70, 50, 60, 90])
VECTORS = np.array([[7, 0.5], [5, 0.25], [6, -1], [9, 9]], dtype=np.float16)
IMAGE = {"column": "image", "vectors": {"ids": "ids.npy", "vectors": "vectors.npy"}}


def description(**changes: Any) -> DatasetSpec:
    """Ads 1 to 4, of which 3 comes in the test split only and 4 never."""
    content = {
        "name": "small",
        "source": "table",
        "files": {"log": "log.parquet", "ads": "ads.parquet"},
        "label": "click",
        "user": "user",
        "ad": "ad",
        "time": "time",
        "ad_features": [{"column": "ad"}, IMAGE],
        "histories": [{"name": "clicks", "source": "log", "fields": ["ad", "image"]}],
        "split": {"valid_from": 4, "test_from": 5},
    }
    return DatasetSpec.model_validate(content | changes)


def write(folder: Path, ids: npt.NDArray[Any] = IDS, vectors: npt.NDArray[Any] = VECTORS, **ads: Any) -> None:
    """Ad 4 has an image without a vector; vector 90 is of no ad."""
    pl.DataFrame(
        {"user": [1, 2, 1, 2, 1, 2], "ad": [1, 2, 2, 1, 3, 3], "time": [1, 2, 3, 4, 5, 6], "click": [1, 1, 0, 1, 1, 0]}
    ).write_parquet(folder / "log.parquet")
    pl.DataFrame({"ad": [1, 2, 3, 4], "image": [50, 60, 70, 80]} | ads).write_parquet(folder / "ads.parquet")
    np.save(folder / "ids.npy", ids)
    np.save(folder / "vectors.npy", vectors)


def prepared(folder: Path, spec: DatasetSpec | None = None, base: Base | None = None) -> PreparedData:
    out = folder / f"out-{len(list(folder.iterdir()))}"
    prepare(spec or description(), folder, out, progress=False, base=base)
    return open_prepared(out)


def image_ids(data: PreparedData) -> npt.NDArray[np.int32]:
    """Of ads 1 to 4."""
    found: npt.NDArray[np.int32] = data.ads.fields[data.ads.index.ids_of(np.arange(1, 5))]
    return found[:, data.schema.ad.columns_of("image").start]


def test_every_ad_has_its_vector_seen_in_training_or_not(tmp_path: Path) -> None:
    write(tmp_path)
    data = prepared(tmp_path)
    vectors = data.vectors["image"]
    assert isinstance(vectors, np.memmap)
    assert vectors.dtype == np.float16
    assert vectors[:2].tolist() == [[0, 0], [0, 0]]
    assert vectors[image_ids(data)].tolist() == [[5, 0.25], [6, -1], [7, 0.5], [0, 0]]
    assert data.vocabularies["ad"].values.tolist() == [1, 2], "the ads' own ids are those of training"
    assert data.vocabularies["image"].values.tolist() == [50, 60, 70, 80]
    (field,) = (each for each in data.schema.ad.fields if each.name == "image")
    assert (field.vector, field.size) == (2, 6)
    assert data.prepared.without_vector == {"image": 1}
    assert "image: vectors of 2 numbers; 1 of 4 values have none" in summary(data)


def test_ids_may_be_text_and_vectors_wide(tmp_path: Path) -> None:
    write(tmp_path, np.array(["b", "a", "cc"]), VECTORS[:3].astype(np.float32), image=["a", "b", "cc", None])
    data = prepared(tmp_path)
    assert data.vectors["image"].dtype == np.float32
    assert data.vectors["image"][image_ids(data)].tolist() == [[5, 0.25], [7, 0.5], [6, -1], [0, 0]]
    assert data.prepared.without_vector == {"image": 0}, "an ad without an image has no value"


def test_new_ads_join_what_was_prepared_before(tmp_path: Path) -> None:
    write(tmp_path)
    old = prepared(tmp_path)
    write(tmp_path, np.array([45, 50, 60]), VECTORS[:3], image=[50, 60, 45, 60])
    new = prepared(tmp_path, base=Base("old", old.schema, old.vocabularies))
    assert new.vocabularies["image"].values.tolist() == [45, 50, 60, 70, 80]
    assert new.vectors["image"][image_ids(new)].tolist() == [[5, 0.25], [6, -1], [7, 0.5], [6, -1]]


def test_other_vectors_are_other_data(tmp_path: Path) -> None:
    write(tmp_path)
    before = fingerprint(description(), tmp_path)
    np.save(tmp_path / "vectors.npy", np.concatenate((VECTORS, VECTORS)))
    assert fingerprint(description(), tmp_path) != before


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (IDS, VECTORS[:3], r"ids.npy: int64 \[4\], integers or text \[3\] are needed, one for each vector of vectors"),
        (IDS.astype(np.float64), VECTORS, r"ids.npy: float64 \[4\], integers or text"),
        (np.array([70, 50, 70, 90]), VECTORS, "ids.npy, row 2: 70, this id is there twice"),
        (IDS[:0], VECTORS[:0], r"ids.npy: int64 \[0\]"),
        (IDS, VECTORS[:, 0], r"vectors.npy: float16 \[4\], float16 or float32 \[n, width\] is needed"),
        (IDS, VECTORS[:, :0], r"vectors.npy: float16 \[4, 0\]"),
        (IDS, VECTORS.astype(np.float64), r"vectors.npy: float64 \[4, 2\]"),
        (IDS, np.where(VECTORS == -1, np.float16(np.nan), VECTORS), "vectors.npy, row 2, column 1: nan of id 60"),
        (IDS, np.where(VECTORS == 9, np.float16(np.inf), VECTORS), "vectors.npy, row 3, column 0: inf of id 90"),
        (IDS + 1000, VECTORS, "none of the 4 values of 'image' has a vector; the first value is 50, the first id 1050"),
    ],
)
def test_wrong_arrays_are_refused(
    tmp_path: Path, ids: npt.NDArray[Any], vectors: npt.NDArray[Any], message: str
) -> None:
    write(tmp_path, ids, vectors)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path)
    assert not list(tmp_path.glob("out*"))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "vectors.npy").write_text("no array")
    with pytest.raises(DataError, match=r"vectors.npy: no array"):
        prepared(tmp_path)
    (tmp_path / "vectors.npy").unlink()
    with pytest.raises(DataError, match=r"vectors.npy: no such file"):
        prepared(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ad_features": [{"column": "ad"}, IMAGE | {"min_count": 2}]},
            "'image' is categorical with min_count 2; vect",
        ),
        ({"ad_features": [{"column": "ad"}, IMAGE | {"kind": "multivalued"}]}, "'image' is multivalued"),
        (
            {"context_features": [IMAGE | {"column": "click"}]},
            "context_features: 'click' is categorical with min_count 1",
        ),
        ({"ad_features": [IMAGE, {"column": "ad"}]}, "ad_features: 'image' has vectors, so it must stand last"),
        (
            {"histories": [{"name": "clicks", "source": "log", "fields": ["image", "ad"]}]},
            "history 'clicks': 'image' has vectors, so it must stand last",
        ),
        (
            {"histories": [{"name": "clicks", "source": "log", "fields": ["image"]}]},
            r"history 'clicks': there is no field with ids but \['image'\]",
        ),
    ],
)
def test_descriptions_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, description(**changes))
