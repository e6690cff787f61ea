"""pCTR is what the bundle's calibration makes of a stage's logits; without one nothing changes."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bundle.calibration import Calibration
from bundle.folder import open_bundle
from service.loading import load_bundle
from service.selection import sigmoid
from tests.service.conftest import post
from tests.service.test_deadline import slow
from tests.service.world import Recipe, make_world, settings_for

CONTEXT: dict[str, object] = {"scene": "feed", "hour": 12}
ADS = list(range(1000, 1060))
BENT = Calibration(method="isotonic", logits=(-3.0, -2.0), calibrated=(-2.0, 0.5), slope=1.0)


def world(folder: Path, **stages: Calibration) -> Path:
    """The tests' bundle with calibrated stages."""
    bundle = make_world(folder, Recipe())
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    for stage, calibration in stages.items():
        manifest["stages"][stage]["calibration"] = calibration.model_dump(mode="json")
    path.write_text(json.dumps(manifest))
    return bundle


def scores(bundle: Path, ads: list[int] = ADS, *, late: bool = False) -> tuple[npt.NDArray[np.float64], str]:
    """pCTR of the ads and the stage that gave it; `late`: without time for the fine-ranker."""
    settings = settings_for(bundle)
    loaded = load_bundle(bundle, settings)
    if late:
        slow(loaded, "finerank")
    answer = post(settings, "/v1/score", {"user_id": "anna", "context": CONTEXT, "ads": ads}, loaded)
    return np.array(answer["pctr"]), answer["scored_by"]


def test_the_fine_rankers_logits_are_corrected(tmp_path: Path) -> None:
    plain, _ = scores(world(tmp_path / "plain"))
    bent, stage = scores(world(tmp_path / "bent", finerank=BENT))
    assert stage == "finerank"
    np.testing.assert_allclose(bent, sigmoid(BENT.of(np.log(plain / (1 - plain)))), atol=1e-6)
    assert np.abs(bent - plain).max() > 0.05
    np.testing.assert_array_equal(np.argsort(bent, kind="stable"), np.argsort(plain, kind="stable"))


def test_each_stage_has_its_own(tmp_path: Path) -> None:
    """A pre-ranker's correction shows where there is no time for the fine-ranker, and only there."""
    plain, _ = scores(world(tmp_path / "plain"))
    bundle = world(tmp_path / "bent", prerank=BENT)
    np.testing.assert_array_equal(scores(bundle)[0], plain)
    uncorrected, _ = scores(tmp_path / "plain/world", late=True)
    corrected, stage = scores(bundle, late=True)
    assert stage == "prerank"
    np.testing.assert_allclose(corrected, sigmoid(BENT.of(np.log(uncorrected / (1 - uncorrected)))), atol=1e-6)
    assert np.abs(corrected - uncorrected).max() > 0.05


def test_the_auction_weighs_bids_by_corrected_probabilities(tmp_path: Path) -> None:
    bundle = world(tmp_path, finerank=BENT, prerank=BENT)
    answer = post(settings_for(bundle), "/v1/rank", {"user_id": "anna", "context": CONTEXT, "k": 20})
    pctr, _ = scores(bundle, [ad["ad_id"] for ad in answer["ads"]])
    np.testing.assert_allclose([ad["pctr"] for ad in answer["ads"]], pctr, atol=1e-6)
    ecpm = [ad["ecpm"] for ad in answer["ads"]]
    assert ecpm == sorted(ecpm, reverse=True)
    np.testing.assert_allclose(ecpm, [ad["pctr"] * ad["bid"] for ad in answer["ads"]], rtol=1e-6)


@pytest.mark.parametrize("stage", ["prerank", "finerank"])
def test_the_manifest_says_null_without_one(tmp_path: Path, stage: str) -> None:
    bundle = world(tmp_path)
    assert json.loads((bundle / "manifest.json").read_text())["stages"][stage]["calibration"] is None
    assert getattr(open_bundle(bundle).manifest.stages, stage).calibration is None
