"""A stage that would miss the deadline is left out, and the answer says so."""

import numpy as np
import pytest

from bundle.folder import Bundle
from service.budget import Budget, Estimates
from service.loaded import LoadedBundle
from service.settings import Settings
from tests.service.conftest import post
from tests.service.world import common_of, demo_records, expected_query

SLOW = 1e6
ASK = {"user_id": "anna", "context": {"scene": "feed", "hour": 12}, "k": 5}


def slow(loaded: LoadedBundle, *stages: str) -> None:
    """Let the running estimates say that these stages take far too long, at every size."""
    for stage in stages:
        for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
            for _ in range(100):
                loaded.estimates.observe(stage, size, SLOW)


def sigmoid(x: float) -> float:
    return 1 / (1 + float(np.exp(-x)))


def test_without_time_for_the_fine_ranker_the_pre_rank_order_is_answered(
    settings: Settings, loaded: LoadedBundle, bundle: Bundle
) -> None:
    slow(loaded, "finerank")
    answer = post(settings, "/v1/rank", ASK, loaded)
    assert answer["degraded"] == ["finerank: deadline"]
    assert answer["scored_by"] == "prerank"
    stages = {stage["name"]: stage for stage in answer["stages"]}
    assert stages["finerank"]["degraded"] == "deadline"
    assert stages["finerank"]["in"] == stages["finerank"]["out"] == 30
    query, offset = expected_query(common_of(bundle, demo_records()["anna"], dict(ASK["context"])))  # type: ignore[call-overload]
    rows = [bundle.ads.index.id_of(ad["ad_id"]) for ad in answer["ads"]]
    expected = [sigmoid(float(bundle.ads.vectors.floats(row) @ query) + offset) for row in rows]
    np.testing.assert_allclose([ad["pctr"] for ad in answer["ads"]], expected, atol=1e-6)
    ecpm = [ad["ecpm"] for ad in answer["ads"]]
    assert len(ecpm) == 5
    assert ecpm == sorted(ecpm, reverse=True)


def test_without_time_for_the_pre_ranker_the_qscore_order_is_answered(
    settings: Settings, loaded: LoadedBundle, bundle: Bundle
) -> None:
    slow(loaded, "prerank")
    answer = post(settings, "/v1/rank", ASK, loaded)
    assert answer["degraded"] == ["prerank: deadline", "finerank: deadline"]
    assert answer["scored_by"] == "qscore"
    rows = [bundle.ads.index.id_of(ad["ad_id"]) for ad in answer["ads"]]
    np.testing.assert_allclose([ad["pctr"] for ad in answer["ads"]], bundle.ads.qscores[rows], atol=1e-7)


def test_without_time_for_anything_the_best_qscores_are_answered(settings: Settings, loaded: LoadedBundle) -> None:
    slow(loaded, "retrieval")
    answer = post(settings, "/v1/rank", ASK, loaded)
    assert answer["degraded"] == ["retrieval: deadline", "prerank: deadline", "finerank: deadline"]
    assert [stage["out"] for stage in answer["stages"]] == [300, 60, 60, 60, 5]
    assert len(answer["ads"]) == 5


def test_filters_hold_without_time_for_anything(settings: Settings, loaded: LoadedBundle, bundle: Bundle) -> None:
    slow(loaded, "retrieval")
    answer = post(settings, "/v1/rank", ASK | {"filters": {"brand": {"any_of": [103]}}, "k": 20}, loaded)
    assert len(answer["ads"]) == 20
    assert {int(ad["ad_id"]) % 10 for ad in answer["ads"]} == {3}


def test_scores_come_from_one_stage_when_time_is_short(settings: Settings, loaded: LoadedBundle) -> None:
    slow(loaded, "finerank")
    answer = post(settings, "/v1/score", {"user_id": "anna", "ads": [1000, 7, 1001]}, loaded)
    assert answer["scored_by"] == "prerank"
    assert answer["degraded"] == ["finerank: deadline"]
    assert None not in answer["pctr"]


def test_a_generous_deadline_degrades_nothing(settings: Settings, loaded: LoadedBundle) -> None:
    assert post(settings, "/v1/rank", ASK | {"deadline_ms": 9000}, loaded)["degraded"] == []


def test_a_stage_left_out_is_tried_again_in_time() -> None:
    estimates = Estimates()
    estimates.observe("finerank", 100, 500.0)
    skipped = 0
    while not Budget(100).allows(estimates, "finerank", 100):
        skipped += 1
    assert 10 <= skipped <= 20  # 500 ms x 0.9^n falls below 99 ms at n = 16


def test_the_run_of_a_stage_that_was_left_out_says_what_it_takes() -> None:
    """It is the only fresh measurement: neither the old mean nor what was forgiven counts any more."""
    estimates = Estimates()
    for _ in range(50):
        estimates.observe("finerank", 100, 500.0)
    estimates.forgive("finerank", 100)
    assert estimates.of("finerank", 100) == 450.0
    estimates.observe("finerank", 100, 5.0)
    assert estimates.of("finerank", 100) == 5.0
    estimates.observe("finerank", 100, 15.0)
    assert estimates.of("finerank", 100) == 6.0, "from then on it is a mean again"


def test_of_several_the_best_that_fits_is_taken() -> None:
    estimates = Estimates()
    for stage, ms in (("finerank", 500.0), ("finerank.small", 60.0), ("finerank.light", 5.0)):
        estimates.observe(stage, 100, ms)
    stages = ("finerank", "finerank.small", "finerank.light")
    assert Budget(1000).best(estimates, stages, 100) == 0
    assert Budget(300).best(estimates, stages, 100) == 1
    assert Budget(30).best(estimates, stages, 100) == 2
    late = Budget(3)
    assert late.best(estimates, stages, 100) is None
    assert late.late


def test_a_budget_that_is_spent_allows_nothing_more() -> None:
    estimates = Estimates()
    budget = Budget(0.4)
    assert not budget.allows(estimates, "qscore", 1)
    assert budget.late
    assert not budget.allows(estimates, "finerank", 1)


@pytest.mark.parametrize(("size", "expected"), [(100, 4.0), (120, 4.0), (250, 8.0), (1000, 32.0), (10, 4.0)])
def test_estimates_of_other_sizes_come_from_the_nearest(size: int, expected: float) -> None:
    estimates = Estimates()
    estimates.observe("prerank", 100, 4.0)
    assert estimates.of("prerank", size) == expected
    assert estimates.of("unmeasured", size) == 0.0
