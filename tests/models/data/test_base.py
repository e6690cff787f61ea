"""Data prepared on the features of earlier ones: what a value meant, it goes on meaning."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.schema import Kind
from bundle.vocabulary import Vocabulary
from models.data.base import Base
from models.data.prepare import ensure_prepared, fingerprint
from models.data.prepared import PreparedData
from models.data.spec import DataError
from tests.models.growing import HALF, ROWS, description, early, late, write_shop


class Shop:
    def __init__(self, folder: Path) -> None:
        self.raw = write_shop(folder / "raw")
        self.early = early(self.raw, folder / "early")
        self.base = Base("yesterday", self.early.schema, self.early.vocabularies)
        self.scratch = late(self.raw, folder / "scratch", None)
        self.late = late(self.raw, folder / "late", self.base)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


def field(data: PreparedData, side: str, name: str) -> Any:
    return next(each for each in getattr(data.schema, side).fields if each.name == name)


def test_edges_and_scales_stay(shop: Shop) -> None:
    for side, name in (("user", "age"), ("context", "hour")):
        assert field(shop.late, side, name) == field(shop.early, side, name)
    assert field(shop.scratch, "context", "hour").mean > field(shop.early, "context", "hour").mean + 3
    assert field(shop.scratch, "ad", "price").edges != field(shop.early, "ad", "price").edges
    assert field(shop.late, "ad", "price") == field(shop.early, "ad", "price")


def test_vocabularies_are_united(shop: Shop) -> None:
    for name, vocabulary in shop.late.vocabularies.items():
        old, new = (set(each.vocabularies[name].values.tolist()) for each in (shop.early, shop.scratch))
        assert set(vocabulary.values.tolist()) == old | new, name
        assert vocabulary.size == next(
            each.size
            for side in (shop.late.schema.user, shop.late.schema.context, shop.late.schema.ad)
            for each in side.fields
            if each.vocabulary == name
        )
    assert len(shop.early.vocabularies["ad"]) == 20
    assert len(shop.late.vocabularies["ad"]) == 80


def test_an_old_value_that_the_new_data_lack_stays(shop: Shop, tmp_path: Path) -> None:
    gone = Vocabulary(np.array([*shop.early.vocabularies["ad"].values.tolist(), 999]))
    schema = shop.early.schema
    ad = [f.model_copy(update={"size": gone.size}) if f.name == "ad" else f for f in schema.ad.fields]
    grown = schema.model_copy(update={"ad": schema.ad.model_copy(update={"fields": tuple(ad)})})
    base = Base("yesterday", grown, dict(shop.early.vocabularies) | {"ad": gone})
    data = late(shop.raw, tmp_path / "out", base)
    assert data.vocabularies["ad"].values.tolist() == [*range(80), 999]


def test_an_empty_vocabulary_takes_whatever_comes(shop: Shop) -> None:
    empty, text = Vocabulary.of([]), Vocabulary.of(["a", "bc"])
    base = replace(shop.base, vocabularies=dict(shop.base.vocabularies) | {"brand": empty})
    assert base._united("brand", text) is text
    assert shop.base._united("brand", empty) is shop.base.vocabularies["brand"]


def test_the_base_is_part_of_the_fingerprint(shop: Shop, tmp_path: Path) -> None:
    spec = description(ROWS - 200, None)
    plain, based = fingerprint(spec, shop.raw), fingerprint(spec, shop.raw, shop.base)
    assert plain == shop.scratch.prepared.fingerprint
    assert based == shop.late.prepared.fingerprint != plain
    assert fingerprint(spec, shop.raw, replace(shop.base, origin="elsewhere")) == based
    other = dict(shop.base.vocabularies) | {"brand": Vocabulary.of(["x"])}
    assert fingerprint(spec, shop.raw, replace(shop.base, vocabularies=other)) != based
    first = ensure_prepared(spec, shop.raw, tmp_path, progress=False, base=shop.base)
    assert ensure_prepared(spec, shop.raw, tmp_path, progress=False, base=shop.base).folder == first.folder
    assert ensure_prepared(spec, shop.raw, tmp_path, progress=False).folder != first.folder


def test_an_end_is_part_of_the_fingerprint_where_it_is_given(shop: Shop) -> None:
    found = {fingerprint(description(HALF, until), shop.raw) for until in (None, 2_000, 2_001)}
    assert len(found) == 3


FEATURES = description(HALF, None).model_dump(mode="json")


def changed(side: str, name: str, **changes: Any) -> dict[str, Any]:
    return {side: [each | changes if each["column"] == name else each for each in FEATURES[side]]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_features": FEATURES["user_features"][:1]}, "^shop: user fields lack 'age', which yesterday has$"),
        (
            {"context_features": [*FEATURES["context_features"], {"column": "page"}]},
            "^yesterday: context fields lack 'page', which shop has$",
        ),
        (
            {"ad_features": FEATURES["ad_features"][::-1]},
            r"^shop: the order of ad fields is \['price', 'words', 'brand', 'ad'\], in yesterday \['ad', 'brand',",
        ),
        (
            changed("user_features", "age", kind="number"),
            "^shop: user field 'age': kind is 'number', in yesterday 'bucketed'$",
        ),
        (
            changed("context_features", "hour", log=True),
            "^shop: context field 'hour': log is True, in yesterday False$",
        ),
        (
            changed("ad_features", "words", max_values=3),
            "^shop: ad field 'words': max_values is 3, in yesterday 2$",
        ),
        (
            changed("ad_features", "price", buckets=4),
            "^shop: ad field 'price': buckets is 4, at least 5 are needed for the edges of yesterday, which stay$",
        ),
        ({"histories": []}, "^shop: histories lack 'clicks', which yesterday has$"),
        (
            {"histories": [FEATURES["histories"][0] | {"fields": ["ad"]}]},
            r"^shop: history 'clicks': fields is \('ad',\), in yesterday \('ad', 'brand', 'words'\)$",
        ),
    ],
)
def test_other_features_are_refused(shop: Shop, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        late(shop.raw, tmp_path / "out", shop.base, **changes)
    assert list(tmp_path.iterdir()) == []


def test_values_of_another_type_are_refused(shop: Shop, tmp_path: Path) -> None:
    base = replace(shop.base, vocabularies=dict(shop.base.vocabularies) | {"brand": Vocabulary.of([1, 2])})
    with pytest.raises(DataError, match=r"^'brand' holds text, in yesterday integers: none of its values"):
        late(shop.raw, tmp_path / "out", base)
    assert list(tmp_path.iterdir()) == []


def test_what_may_change(shop: Shop) -> None:
    looser = changed("ad_features", "price", buckets=9) | changed("user_features", "city", min_count=3)
    shop.base.check(description(HALF, None, **looser))
    shop.base.check(description(HALF, None, histories=[FEATURES["histories"][0] | {"max_length": 3}]))
    assert field(shop.late, "ad", "price").kind is Kind.BUCKETED
