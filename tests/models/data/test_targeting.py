"""Where ads may be shown: what a description asks for, kept in full."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bundle.vocabulary import Vocabulary
from models.data import columns
from models.data.prepare import fingerprint, prepare
from models.data.prepared import PreparedData
from models.data.spec import DataError, DatasetSpec
from tests.models.data.test_refusals import attempt

CONTENT: dict[str, Any] = {
    "name": "shop",
    "source": "table",
    "label": "click",
    "user": "user",
    "ad": "ad",
    "time": "time",
    "context_features": [{"column": "scene"}],
    "ad_features": [{"column": "scenes", "kind": "multivalued", "separator": "|"}],
}
RULES = [{"context": "scene", "ad": "scenes", "separator": "|"}, {"context": "zip", "ad": "only_zip"}]
LOG: dict[str, list[Any]] = {
    "user": [1, 1, 2, 2],
    "ad": [5, 6, 7, 6],
    "time": [10, 20, 30, 40],
    "click": [1, 0, 1, 0],
    "scene": list("abab"),
}
ADS = {"ad": [7, 5, 6], "scenes": ["a|b|a", "", "c|a"], "only_zip": [None, 69001, 13001]}
"""The first of several scenes is all that the feature keeps."""


def kept(data: PreparedData) -> dict[str, dict[int | str, list[int | str]]]:
    """Context field -> ad -> where it may be shown."""
    found: dict[str, dict[int | str, list[int | str]]] = {}
    for rule in data.prepared.spec.targeting:
        values = Vocabulary.load(data.folder / f"targeting/{rule.context}.values.npy")
        codes, offsets = (
            np.load(data.folder / f"targeting/{rule.context}.{part}.npy") for part in ("codes", "offsets")
        )
        assert (codes.dtype, offsets.dtype) == (np.int32, np.int64)
        assert offsets[:3].tolist() == [0, 0, 0]
        assert len(offsets) == len(data.ads.fields) + 1
        found[rule.context] = {
            data.ads.index.value_of(row): [values.value_of(i) for i in codes[offsets[row] : offsets[row + 1]].tolist()]
            for row in range(2, len(data.ads.fields))
        }
    return found


WANTED = {"scene": {5: [], 6: ["c", "a"], 7: ["a", "b", "a"]}, "zip": {5: [69001], 6: [13001], 7: []}}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_values_of_the_table_of_ads_are_kept_in_full(tmp_path: Path, kind: str) -> None:
    for name, table in (("log", LOG), ("ads", ADS)):
        frame = pl.DataFrame(table)
        frame.write_csv(tmp_path / f"{name}.csv") if kind == "csv" else frame.write_parquet(
            tmp_path / f"{name}.parquet"
        )
    files = {"log": f"log.{kind}", "ads": f"ads.{kind}"}
    spec = DatasetSpec.model_validate(CONTENT | {"files": files, "targeting": RULES})
    assert kept(prepare(spec, tmp_path, tmp_path / "out", progress=False)) == WANTED


@pytest.mark.parametrize("chunk_rows", [1, 100])
def test_values_that_sit_in_the_log_are_those_of_the_ads_last_training_row(tmp_path: Path, chunk_rows: int) -> None:
    where = {5: ("", 69001), 6: ("c|a", 13001), 7: ("a|b|a", None)}
    first = dict.fromkeys(where, ("old", 1))
    log = {name: values + values for name, values in LOG.items()} | {"time": [1, 2, 3, 4, 11, 12, 13, 14]}
    log |= {"split": ["train"] * 8}
    log["scenes"] = [(first if i < 4 else where)[ad][0] for i, ad in enumerate(log["ad"])]
    log["only_zip"] = [(first if i < 4 else where)[ad][1] for i, ad in enumerate(log["ad"])]
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    spec = DatasetSpec.model_validate(CONTENT | {"files": {"log": "log.parquet"}, "targeting": RULES})
    assert kept(prepare(spec, tmp_path, tmp_path / "out", progress=False, chunk_rows=chunk_rows)) == WANTED


def test_lists_are_taken_as_they_are(tmp_path: Path) -> None:
    ads = ADS | {"scenes": [["a", "b", "a"], [], ["c", "a"]]}
    pl.DataFrame(LOG).write_parquet(tmp_path / "log.parquet")
    pl.DataFrame(ads).write_parquet(tmp_path / "ads.parquet")
    rules = [{"context": "scene", "ad": "scenes"}, RULES[1]]
    features = [{"column": "scenes", "kind": "multivalued"}]
    spec = DatasetSpec.model_validate(
        CONTENT | {"files": {"log": "log.parquet", "ads": "ads.parquet"}, "targeting": rules, "ad_features": features}
    )
    assert kept(prepare(spec, tmp_path, tmp_path / "out", progress=False)) == WANTED


def test_one_form_for_lists_texts_and_single_values() -> None:
    assert columns.targets(pl.Series([["a"], [], None]), None, "x").to_list() == [["a"], [], []]
    assert columns.targets(pl.Series(["a,b", "", None]), ",", "x").to_list() == [["a", "b"], [], []]
    assert columns.targets(pl.Series(["a", None]), None, "x").to_list() == [["a"], []]
    assert columns.targets(pl.Series([3.0, float("nan")]), None, "x").to_list() == [[3], []]
    assert columns.targets(pl.Series([None, None]), None, "x").to_list() == [[], []]
    with pytest.raises(DataError, match=r"x, row 4: .*, a value is missing"):
        columns.targets(pl.Series([["a"], ["b", None]]), None, "x", 3)
    with pytest.raises(DataError, match=r"x, row 1: 0.5"):
        columns.targets(pl.Series([1.0, 0.5]), None, "x")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"context": "scene", "ad": "where"}], r"ads.parquet: there is no column 'where'; it has ad, brand, bid"),
        ([{"context": "scene", "ad": "brand"}] * 2, "targeting names context 'scene' twice"),
        ([{"context": "a/b", "ad": "brand"}], "targeting: context 'a/b' cannot name a file"),
        ([{"context": "", "ad": "brand"}], "targeting: context '' cannot name a file"),
        ([{"context": "time", "ad": "brand"}], "targeting: context 'time' is bucketed, which has no single values"),
    ],
)
def test_rules_that_cannot_hold_are_refused(tmp_path: Path, rules: list[dict[str, str]], message: str) -> None:
    context = [{"column": "scene"}, {"column": "time", "kind": "bucketed"}]
    with pytest.raises(DataError, match=message):
        attempt(tmp_path, targeting=rules, context_features=context)


def test_a_description_without_targeting_and_end_keeps_its_fingerprint(tmp_path: Path) -> None:
    """What was added to descriptions later is no part of it where it is not given, and neither is a file's time."""
    import hashlib
    import json

    pl.DataFrame(LOG).write_parquet(tmp_path / "log.parquet")
    spec = DatasetSpec.model_validate(CONTENT | {"files": {"log": "log.parquet"}})
    content = hashlib.sha256((tmp_path / "log.parquet").read_bytes()).hexdigest()
    described = spec.model_dump(mode="json")
    del described["targeting"], described["labels"], described["split"]["until"]
    known = json.dumps([3, described, [["log.parquet", content]]])
    assert fingerprint(spec, tmp_path) == hashlib.sha256(known.encode()).hexdigest()
    targeted = spec.model_copy(
        update={"targeting": DatasetSpec.model_validate(CONTENT | {"targeting": RULES}).targeting}
    )
    assert fingerprint(targeted, tmp_path) != fingerprint(spec, tmp_path)
