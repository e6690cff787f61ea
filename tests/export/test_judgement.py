"""Networks of a turn against those that are served, on impressions that neither was trained on."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bundle.calibration import Calibration
from bundle.folder import open_bundle
from export.assemble import Trained
from export.judgement import Judgement, Limits, compared, judge, judged, verdict
from export.renewal import Stock, calibrated, continued
from models.checkpoint import Checkpoint, open_checkpoint
from models.data.prepare import prepare
from models.data.prepared import PreparedData, open_prepared
from models.evaluation import Scored
from models.intervals import Interval
from tests.market import Market
from tests.models.growing import GWEN, description, write_shop
from tests.models.growing import trained as trained_on

OFF = Calibration(method="platt", logits=(0.0,), calibrated=(2.0,), slope=1.0)


def spoil(folder: Path) -> None:
    """Shuffle the labels of prepared training data."""
    random = np.random.default_rng(3)
    for path in sorted((folder / "train").glob("part-*.parquet")):
        table = pq.read_table(path)
        place = table.schema.get_field_index("labels")
        lists = table.column(place).combine_chunks()
        values = random.permutation(lists.values.to_numpy())
        shuffled = pa.ListArray.from_arrays(lists.offsets, pa.array(values, lists.type.value_type))
        pq.write_table(table.set_column(place, table.schema.field(place), shuffled.cast(lists.type)), path)


@pytest.fixture(scope="module")
def stock(trained: Trained, exported: Path) -> Stock:
    """What the tiny bundle is made of."""
    return Stock(trained.finerank, trained.prerank, open_bundle(exported))


def renewed(earlier: Checkpoint, data: PreparedData, folder: Path) -> Checkpoint:
    """One epoch further on `data`, calibrated."""
    continued(earlier, data, folder, 1, progress=False)
    calibrated(folder, data)
    return open_checkpoint(folder)


def test_a_turn_that_learnt_is_held_and_one_whose_labels_were_shuffled_is_worse(tmp_path: Path) -> None:
    raw = write_shop(tmp_path / "raw")
    spec = description(2200, None, split={"valid_from": 2200, "test_from": 2400})
    data = prepare(spec, raw, tmp_path / "data", progress=False)
    served = trained_on(GWEN, data, tmp_path / "served", epochs=3, learning_rate=0.05, batch_size=20)
    good = compared(served, None, renewed(served, data, tmp_path / "good"), data, Limits(auc_drop=0.05))
    assert (good.word, good.why, good.impressions) == ("held", "", 600)

    shutil.copytree(data.folder, tmp_path / "spoilt-data")
    spoil(tmp_path / "spoilt-data")
    made = renewed(served, open_prepared(tmp_path / "spoilt-data"), tmp_path / "spoilt")
    found = compared(served, None, made, data, Limits(auc_drop=0.05))
    assert found.word == "worse"
    assert found.differences["auc"].high < 0
    assert found.why.startswith("AUC -0.")
    assert ", limit -0.05" in found.why
    figures = found.figures("finerank")
    assert figures["judge.finerank.word"] == "worse"
    apart = float(figures["judge.finerank.auc.after"]) - float(figures["judge.finerank.auc.before"])
    assert figures["judge.finerank.auc"] == pytest.approx(apart)


@dataclass(frozen=True)
class Shown:
    """What users saw, clicked, and liked."""

    labels: np.ndarray[tuple[int], np.dtype[np.float32]]
    users: np.ndarray[tuple[int], np.dtype[np.int64]]
    liking: np.ndarray[tuple[int], np.dtype[np.float64]]


def shown(users: int) -> Shown:
    """20 impressions of each user."""
    random = np.random.default_rng(1)
    liking = random.normal(size=users * 20)
    clicked = random.random(len(liking)) < 1 / (1 + np.exp(1 - 2 * liking))
    return Shown(clicked.astype(np.float32), np.arange(users * 20) // 20, liking)


def scored(seen: Shown, knows: float, offset: float = 0.0) -> Scored:
    """By a network that knows so much of what is liked."""
    noise = np.random.default_rng(2).normal(size=len(seen.liking))
    logits = -1 + 2 * (knows * seen.liking + (1 - knows) * noise) + offset
    p = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return Scored(seen.labels, seen.users, np.zeros(len(p), np.int32), None, p)


def said(users: int, knows: float, offset: float = 0.0, limits: Limits | None = None) -> Judgement:
    """Of a network against one that knows nearly all."""
    seen = shown(users)
    return judge(scored(seen, 0.9), scored(seen, knows, offset), limits or Limits())


def test_one_that_is_as_good_is_held() -> None:
    found = said(200, 0.9)
    assert (found.word, found.why, found.impressions) == ("held", "", 4000)
    assert found.differences["auc"] == Interval(0.0, 0.0, 0.0)
    assert said(200, 0.95).word == "held"


def test_one_that_ranks_worse_is_refused_with_value_interval_and_limit() -> None:
    found = said(200, 0.6)
    assert found.word == "worse"
    auc = found.differences["auc"]
    assert f"AUC {auc.value:+.4f} [{auc.low:+.4f}, {auc.high:+.4f}], limit -0.02" in found.why


def test_one_that_ranks_as_well_and_promises_too_much_is_refused() -> None:
    found = said(200, 0.9, offset=1.0)
    assert found.word == "worse"
    assert found.why.startswith("log loss +0.")
    assert found.differences["auc"].low == 0.0
    assert said(200, 0.9, offset=1.0, limits=Limits(logloss_rise=1.0)).word == "held"


def test_too_few_impressions_to_tell_are_no_pass() -> None:
    found = said(25, 0.91, limits=Limits(auc_drop=0.0))
    assert found.word == "not told"
    assert found.differences["auc"].low < 0 < found.differences["auc"].high
    few = said(15, 0.9)
    assert few.word == "not told"
    assert few.why == f"{few.users} users of the 300 newest impressions clicked and did not, 20 are needed"
    assert few.figures("finerank").keys() == {f"judge.finerank.{name}" for name in ("word", "impressions", "users")}


@pytest.mark.parametrize("one", ["auc", "logloss"])
def test_an_interval_that_is_not_known_is_no_pass(one: str) -> None:
    fine, unknown = Interval(0.0, 0.0, 0.0), Interval(0.0, float("nan"), float("nan"))
    two = {"auc": fine, "logloss": fine} | {one: unknown}
    assert verdict(two["auc"], two["logloss"], Limits())[0] == "not told"


def test_calibration_of_what_is_served_counts(stock: Stock, market: Market) -> None:
    """The served network itself, with and without the correction that its bundle has."""
    made = {"finerank": stock.finerank, "prerank": stock.prerank}
    same = judged(stock, made, market.data, Limits())["finerank"]
    assert same.differences["logloss"].value == 0.0
    stages = stock.bundle.manifest.stages
    off = stages.finerank.model_copy(update={"calibration": OFF})
    manifest = stock.bundle.manifest.model_copy(update={"stages": stages.model_copy(update={"finerank": off})})
    served = dataclasses.replace(stock, bundle=dataclasses.replace(stock.bundle, manifest=manifest))
    better = judged(served, made, market.data, Limits())["finerank"]
    assert better.differences["logloss"].high < 0, "what is served is off by 2"
    assert better.differences["auc"].value == 0.0
