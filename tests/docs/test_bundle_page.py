"""docs/bundle.md: files, shapes, keys and reserved rows are those of a bundle that the exporter wrote."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import BaseModel

import bundle.errors
import service.errors
from bundle.cell_files import LEVELS
from bundle.folder import Bundle, open_bundle
from bundle.ladder import Worth
from bundle.manifest import (
    FinerankStage,
    GoldenSpec,
    GraphSpec,
    Manifest,
    PrerankStage,
    QscoreStage,
    RetrievalStage,
    Rung,
)
from bundle.precision import Deviation, Precision, Trial
from bundle.record import pack, unpack
from bundle.row_sets import DENSE
from bundle.schema import FeatureSchema, FieldSpec, HistorySpec, Kind
from export.deviation import PCTR_MAX, PCTR_SHARE, TIE, TOP10
from export.parity import GOLDEN_TOLERANCE, TOLERANCE
from export.recording import REDUCED_TOLERANCE
from export.weights import MAPPED
from models.cells import MOST, SMALLEST
from tests.docs.pages import blocks, codes, read, table

PAGE = read("docs/bundle.md")
DTYPES = {"int8": "i1", "int64": "i8", "int32": "i4", "float32": "f4", "uint8": "u1", "bytes": "S"}


@pytest.fixture(scope="module")
def opened(exported: Path) -> Bundle:
    return open_bundle(exported)


def lengths(of: Bundle) -> dict[str, int]:
    """The letters of the page that are known before an array is read."""
    side = of.manifest.features.ad
    dimension = of.manifest.stages.prerank.dimension
    letters = {"n": of.manifest.catalogue.ads, "C": side.id_columns, "P": side.number_columns, "d": dimension}
    letters["H"] = -(-dimension // 2)
    letters["K"] = of.manifest.stages.retrieval.cells
    return letters | {"U": of.manifest.users, "R": of.manifest.golden.requests, "B": -(-(letters["n"] + 2) // 8)}


def fits(array: npt.NDArray[Any], stated: str, known: dict[str, int]) -> bool:
    """Whether an array has the stated dtype and shape, `int32[n + 2, C]` or `int64[v] or bytes[v]`."""
    for each in stated.split(" or "):
        found = re.fullmatch(r"(\w+)\[(.*)\]", each)
        assert found, stated
        axes = [axis for axis in found[2].split(", ") if axis]
        kind = DTYPES[found[1]]
        if (array.dtype.kind == "S" if kind == "S" else array.dtype == np.dtype(kind)) and len(axes) == array.ndim:
            sizes = [re.fullmatch(r"(\w+)(?: \+ (\d))?", axis) for axis in axes]
            pairs = [(known.get(s[1]), int(s[2] or 0)) for s in sizes if s]
            if len(pairs) == len(axes):
                return all(a is None or a + b == n for (a, b), n in zip(pairs, array.shape, strict=True))
    return False


def test_every_file_is_described_with_its_shape(opened: Bundle) -> None:
    rows = [(name, row[1]) for row in table(PAGE, "files") for name in codes(row[0])]
    seen = set()
    for path in sorted(path for path in opened.folder.rglob("*") if path.is_file()):
        name = path.relative_to(opened.folder).as_posix()
        matching = [row for row in rows if re.fullmatch(re.sub(r"NAME|\bF\b", r"\\w+", row[0]), name)]
        assert len(matching) == 1, f"{name}: {matching}"
        seen.add(matching[0][0])
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            assert fits(array, matching[0][1], lengths(opened)), f"{name}: {array.dtype}{list(array.shape)}"
    assert seen == {name for name, _ in rows}


def test_reserved_rows_are_as_described(opened: Bundle) -> None:
    ads = opened.ads
    assert not ads.fields[0].any()
    for field, place in opened.manifest.features.ad.slices():
        assert ads.fields[1, place].tolist() == [1] + [0] * (field.width - 1)
    assert not ads.numbers[:2].any()
    assert ads.bids[:2].tolist() == [1, 1]
    assert ads.qscores[0] == 0 < ads.qscores[1]
    assert opened.filters
    assert opened.targeting
    for sets in (*opened.filters.values(), *opened.targeting.values()):
        assert not (sets.bitmaps[:, 0] & 3).any()
    assert opened.postings
    assert min(each.rows.min() for each in opened.postings.values()) >= 2


def test_the_manifests_keys_are_all_there() -> None:
    assert [codes(row[0])[0] for row in table(PAGE, "manifest")] == list(Manifest.model_fields)
    described: tuple[type[BaseModel], ...] = (FeatureSchema, FieldSpec, HistorySpec)
    for part in described:
        assert all(f"`{name}`" in PAGE for name in part.model_fields), part.__name__
    kept: tuple[type[BaseModel], ...] = (RetrievalStage, QscoreStage, PrerankStage, FinerankStage)
    stages = dict(zip(("retrieval", "qscore", "prerank", "finerank"), kept, strict=True))
    for (stage, further), (name, model) in zip(table(PAGE, "stages"), stages.items(), strict=True):
        assert codes(stage) == [f"stages.{name}"]
        assert set(codes(further)) == set(model.model_fields) - {"keep"}
    assert all(f"`{kind}`" in PAGE for kind in Kind)
    assert [name for row in table(PAGE, "worth") for name in codes(row[0])] == list(Worth.model_fields)
    assert set(Rung.model_fields) == {*FinerankStage.model_fields, "name"} - {"keep", "ladder", "label"}


def test_golden_arrays_are_as_described(opened: Bundle) -> None:
    said = {name: row[1] for row in table(PAGE, "golden") for name in codes(row[0])}
    with np.load(opened.folder / "golden.npz", allow_pickle=False) as stored:
        found = dict(stored)
    assert {re.sub(r"^history_.*", "history_NAME", name) for name in found} == set(said)
    for name, array in found.items():
        stated = said[re.sub(r"^history_.*", "history_NAME", name)].partition("]")[0] + "]"
        assert fits(array, stated, lengths(opened)), f"{name}: {array.dtype}{list(array.shape)}"
    assert (found["ads"][:, -1] == 1).all()


def test_errors_that_are_named_exist() -> None:
    for row in table(PAGE, "checks"):
        assert hasattr(bundle.errors, row[2]) or hasattr(service.errors, row[2]), row


def test_the_record_shown_is_one() -> None:
    shown = next(block.text for block in blocks(PAGE) if block.text.startswith("{"))
    record = unpack(shown.encode())
    assert pack(record).decode() == shown
    assert [event.kind for event in record.events] == ["click", "click"]


def test_numbers_are_those_of_the_code() -> None:
    assert (TOLERANCE, GOLDEN_TOLERANCE, DENSE) == (1e-5, 1e-4, 128)
    assert (SMALLEST, MOST, LEVELS) == (4, 4_000, 64)
    for text in ("more than 1e-5", "more than 1e-4", "every 4 ads, at most 4,000", "int32[K, 64]"):
        assert text in PAGE


def test_precision_is_described_with_its_bounds() -> None:
    assert [codes(row[0])[0] for row in table(PAGE, "precision")] == list(Precision.model_fields)
    parts: tuple[type[BaseModel], ...] = (Deviation, Trial, GraphSpec, GoldenSpec)
    for part in parts:
        assert all(f"`{name}`" in PAGE for name in part.model_fields), part.__name__
    assert (PCTR_MAX, PCTR_SHARE, TOP10, TIE, REDUCED_TOLERANCE, MAPPED) == (0.02, 0.005, 0.99, 0.005, 0.02, 1 << 20)
    for text in ("above 0.02", "above 0.005", "below 0.99", "within 0.5 %", "0.02 for graphs", "1 MiB and more"):
        assert text in PAGE
