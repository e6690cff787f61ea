"""/v1/rank: every number of the answer against the world's models in numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.folder import Bundle, open_bundle
from bundle.record import Event, UserRecord
from bundle.schema import FIRST_KNOWN
from service.settings import Settings
from tests.service.conftest import post
from tests.service.world import Recipe, common_of, demo_records, expected_pctr, expected_query, make_world, settings_for

CONTEXT: dict[str, object] = {"scene": "feed", "hour": 12}


def ask(**more: Any) -> dict[str, Any]:
    return {"user_id": "anna", "context": CONTEXT, **more}


def funnel(bundle: Bundle, record: UserRecord, context: dict[str, object], k: int) -> list[tuple[int, float, float]]:
    """(ad id, pctr, ecpm) of the whole funnel, written the slow way."""
    stages, ads = bundle.manifest.stages, bundle.ads
    common = common_of(bundle, record, context)
    query, offset = expected_query(common)
    rows = list(range(FIRST_KNOWN, len(ads.bids)))
    products = ads.vectors.floats(slice(None)) @ query
    cells, bounds = bundle.cells, bundle.cells.offsets.tolist()
    nearest = [r for cell in np.argsort(-(cells.centroids @ query)) for r in range(bounds[cell], bounds[cell + 1])]
    categories = [c for c in reversed(common.histories["clicks"][:, 0].tolist()) if c >= FIRST_KNOWN]
    categories += [c for c in reversed(common.histories["searches"][:, 0].tolist()) if c >= FIRST_KNOWN]
    first = sorted(dict.fromkeys(categories), key=lambda c: -categories.count(c))
    picked: dict[int, None] = {}
    for value in first[: stages.retrieval.interests]:
        mine = [r for r in rows if ads.fields[r, 0] == value]
        picked |= dict.fromkeys(sorted(mine, key=lambda r: -ads.qscores[r])[: stages.retrieval.per_interest])
    for row in nearest:
        if len(picked) < stages.retrieval.keep:
            picked.setdefault(row)
    by_qscore = sorted(picked, key=lambda r: (-ads.qscores[r] * ads.bids[r], r))[: stages.qscore.keep]
    logits = {r: float(products[r] + offset) for r in by_qscore}
    by_product = sorted(by_qscore, key=lambda r: (-ads.bids[r] / (1 + np.exp(-logits[r])), r))[: stages.prerank.keep]
    pctr = dict(zip(by_product, expected_pctr(bundle, common, np.array(by_product)), strict=True))
    best = sorted(by_product, key=lambda r: -pctr[r] * ads.bids[r])[:k]
    return [(int(ads.index.value_of(r)), pctr[r], pctr[r] * float(ads.bids[r])) for r in best]


@pytest.mark.parametrize("user_id", ["anna", "bert", "carl"])
def test_the_answer_is_what_the_models_say(bundle: Bundle, settings: Settings, user_id: str) -> None:
    answer = post(settings, "/v1/rank", ask(user_id=user_id, k=20))
    expected = funnel(bundle, demo_records()[user_id], CONTEXT, 20)
    assert [ad["ad_id"] for ad in answer["ads"]] == [ad for ad, _, _ in expected]
    np.testing.assert_allclose([ad["pctr"] for ad in answer["ads"]], [p for _, p, _ in expected], atol=1e-6)
    np.testing.assert_allclose([ad["ecpm"] for ad in answer["ads"]], [e for _, _, e in expected], atol=1e-6)
    assert [ad["position"] for ad in answer["ads"]] == list(range(1, 21))
    bids = [bundle.ads.bids[bundle.ads.index.id_of(ad["ad_id"])] for ad in answer["ads"]]
    assert [np.float32(ad["bid"]) for ad in answer["ads"]] == bids
    assert all(len(str(ad["bid"])) < 12 for ad in answer["ads"])
    assert answer["user"] == "known"
    assert answer["scored_by"] == "finerank"
    assert answer["degraded"] == []
    assert answer["bundle_id"] == "world"


def test_stages_tell_what_each_saw_and_kept(settings: Settings) -> None:
    answer = post(settings, "/v1/rank", ask(k=7))
    counts = [(stage["name"], stage["in"], stage["out"]) for stage in answer["stages"]]
    assert counts == [
        ("retrieval", 300, 100),
        ("qscore", 100, 60),
        ("prerank", 60, 30),
        ("finerank", 30, 30),
        ("auction", 30, 7),
    ]
    assert all(stage["ms"] >= 0 for stage in answer["stages"])


def test_settings_override_the_stage_sizes(folder: Path) -> None:
    changed = settings_for(folder, retrieval_keep=50, qscore_keep=40, prerank_keep=10)
    answer = post(changed, "/v1/rank", ask(k=10))
    assert [stage["out"] for stage in answer["stages"]] == [50, 40, 10, 10, 10]


def test_an_unknown_user_is_ranked_by_context(bundle: Bundle, settings: Settings) -> None:
    answer = post(settings, "/v1/rank", ask(user_id=123456, k=5))
    expected = funnel(bundle, UserRecord(), CONTEXT, 5)
    assert answer["user"] == "unknown"
    assert answer["degraded"] == []
    assert [ad["ad_id"] for ad in answer["ads"]] == [ad for ad, _, _ in expected]


def test_missing_and_unknown_context_values_are_served(bundle: Bundle, settings: Settings) -> None:
    for context in ({}, {"scene": "never seen", "hour": None}):
        answer = post(settings, "/v1/rank", {"user_id": "anna", "context": context, "k": 5})
        assert [a["ad_id"] for a in answer["ads"]] == [a for a, _, _ in funnel(bundle, demo_records()["anna"], {}, 5)]


def test_features_in_the_request_go_before_the_stored_ones(bundle: Bundle, settings: Settings) -> None:
    given = {"profile": {"city": "Oslo"}, "history": {"clicks": [1007, 1007, 1008]}}
    answer = post(settings, "/v1/rank", ask(user=given, k=5))
    stored = demo_records()["anna"]
    clicks = [Event("click", 0, (ad,)) for ad in (1007, 1007, 1008)]
    searches = [event for event in stored.events if event.kind == "search"]
    record = UserRecord({**stored.profile, "city": "Oslo"}, (*clicks, *searches))
    assert answer["user"] == "given"
    expected = funnel(bundle, record, CONTEXT, 5)
    np.testing.assert_allclose([ad["pctr"] for ad in answer["ads"]], [p for _, p, _ in expected], atol=1e-6)


def test_own_candidates_leave_retrieval_out(bundle: Bundle, settings: Settings) -> None:
    answer = post(settings, "/v1/rank", ask(candidates=[1003, 1100, 1003, "1004", 5, "nothing"], k=10))
    assert sorted(ad["ad_id"] for ad in answer["ads"]) == [1003, 1004, 1100]
    assert answer["unknown_candidates"] == [5, "nothing"]
    first = answer["stages"][0]
    assert (first["name"], first["in"], first["out"]) == ("retrieval", 6, 3)
    assert first["note"] == "own candidates: 2 unknown, 1 repeated, 0 excluded"
    rows = np.array([bundle.ads.index.id_of(ad["ad_id"]) for ad in answer["ads"]])
    expected = expected_pctr(bundle, common_of(bundle, demo_records()["anna"], CONTEXT), rows)
    np.testing.assert_allclose([ad["pctr"] for ad in answer["ads"]], expected, atol=1e-6)


def test_only_unknown_candidates_give_an_empty_answer(settings: Settings) -> None:
    answer = post(settings, "/v1/rank", ask(candidates=[1, 2]))
    assert answer["ads"] == []
    assert answer["unknown_candidates"] == [1, 2]
    assert answer["scored_by"] == "qscore"


def test_fewer_candidates_than_k(settings: Settings) -> None:
    assert len(post(settings, "/v1/rank", ask(candidates=[1003, 1004], k=50))["ads"]) == 2


def test_never_more_ads_than_the_bundle_allows(settings: Settings) -> None:
    assert len(post(settings, "/v1/rank", ask(k=200))["ads"]) == 20


def test_k_has_a_default(settings: Settings) -> None:
    assert len(post(settings, "/v1/rank", ask())["ads"]) == settings.default_k


@pytest.mark.parametrize("filters", [{"category": {"any_of": ["food"]}, "brand": {"any_of": [102, 107]}}])
def test_a_narrow_filter_still_fills_the_answer(bundle: Bundle, settings: Settings, filters: dict[str, Any]) -> None:
    # food is every fifth ad from the third on, brands 102 and 107 are exactly those: 60 ads pass
    answer = post(settings, "/v1/rank", ask(filters=filters, k=20))
    assert [stage["out"] for stage in answer["stages"]] == [60, 60, 30, 30, 20]
    rows = [bundle.ads.index.id_of(ad["ad_id"]) for ad in answer["ads"]]
    assert {bundle.encoder.vocabularies["category"].value_of(int(bundle.ads.fields[row, 0])) for row in rows} == {
        "food"
    }


def test_a_filter_may_exclude_values(bundle: Bundle, settings: Settings) -> None:
    answer = post(settings, "/v1/rank", ask(filters={"category": {"none_of": ["food", "cars", "no such"]}}, k=20))
    rows = [bundle.ads.index.id_of(ad["ad_id"]) for ad in answer["ads"]]
    seen = {bundle.encoder.vocabularies["category"].value_of(int(bundle.ads.fields[row, 0])) for row in rows}
    assert len(rows) == 20
    assert seen <= {"books", "games", "shoes"}


def test_filters_hold_for_own_candidates(settings: Settings) -> None:
    answer = post(settings, "/v1/rank", ask(candidates=[1000, 1002], filters={"category": {"any_of": ["food"]}}))
    assert [ad["ad_id"] for ad in answer["ads"]] == [1002]


def test_filters_that_nothing_passes_give_an_empty_answer(settings: Settings) -> None:
    answer = post(settings, "/v1/rank", ask(filters={"category": {"any_of": ["no such"]}}))
    assert answer["ads"] == []
    assert [stage["out"] for stage in answer["stages"]] == [0, 0, 0, 0, 0]
    assert answer["degraded"] == []


def test_an_empty_catalogue_gives_an_empty_answer(tmp_path: Path) -> None:
    settings = settings_for(make_world(tmp_path, Recipe(ads=0)))
    assert post(settings, "/v1/rank", ask())["ads"] == []
    assert post(settings, "/v1/score", {"user_id": "anna", "ads": [7]})["unknown_ads"] == [7]


def test_ads_with_string_ids(tmp_path: Path) -> None:
    recipe = Recipe(string_ads=True, ads=50)
    settings = settings_for(make_world(tmp_path, recipe))
    answer = post(settings, "/v1/rank", ask(candidates=["ad-00003", "ad-00004", 3], k=10))
    assert sorted(ad["ad_id"] for ad in answer["ads"]) == ["ad-00003", "ad-00004"]


def test_non_finite_scores_go_last_and_are_counted(tmp_path: Path) -> None:
    poisoned = tuple(range(1000, 1040))
    folder = make_world(tmp_path, Recipe(poisoned=poisoned))
    answer = post(settings_for(folder), "/v1/rank", ask(candidates=[1000, 1001, 1100, 1101, 1002], k=5))
    assert {ad["ad_id"] for ad in answer["ads"][:2]} == {1100, 1101}
    assert [(ad["ad_id"], ad["pctr"], ad["ecpm"]) for ad in answer["ads"][2:]] == [
        (1000, None, None),
        (1001, None, None),
        (1002, None, None),
    ]
    assert open_bundle(folder).id == "world"


def test_a_retrieval_model_that_fails_wholly_still_gives_ads(tmp_path: Path) -> None:
    folder = make_world(tmp_path, Recipe(bad_vectors=True))
    answer = post(settings_for(folder), "/v1/rank", ask(k=5))
    assert len(answer["ads"]) == 5
    assert all(ad["pctr"] is not None for ad in answer["ads"])
