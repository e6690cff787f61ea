"""Arms over HTTP: who gets what, what the answer says of it, and what is counted."""

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle.folder import open_bundle
from bundle.manifest import MANIFEST, read_manifest
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.settings import Settings
from tests.service.plans import KEY, ask, experiment, forcing, planned, serve
from tests.service.world import (
    Recipe,
    common_of,
    demo_records,
    expected_logits,
    expected_pctr,
    make_world,
    settings_for,
)

CONTEXT: dict[str, object] = {"scene": "feed", "hour": 12}
ASK: dict[str, Any] = {"user_id": "anna", "context": CONTEXT, "k": 20}
ADS = list(range(1000, 1060))
SCORE: dict[str, Any] = {"user_id": "anna", "context": CONTEXT, "ads": ADS}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("experiments")
    return [
        make_world(root, Recipe(bundle_id="b1", rungs=("light",))),
        make_world(root, Recipe(bundle_id="b2", prerank=10)),
    ]


@pytest.fixture
def bundles(folders: list[Path]) -> list[LoadedBundle]:
    return [load_bundle(folder, settings_for(folder)) for folder in folders]


@pytest.fixture
def settings(folders: list[Path]) -> Settings:
    return settings_for(folders[0], testing_key=KEY)


def expected(folder: Path, rung: str = "full") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Logits of ADS, and their bids."""
    bundle = open_bundle(folder)
    rows = np.array([bundle.ads.index.id_of(ad) for ad in ADS])
    common = common_of(bundle, demo_records()["anna"], CONTEXT)
    logits = expected_logits(common, bundle.ads.fields[rows], bundle.ads.numbers[rows], rung)
    return logits, bundle.ads.bids[rows].astype(np.float64)


def sigmoid(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))))


def test_the_answer_names_version_arms_and_bundle(settings: Settings, bundles: list[LoadedBundle]) -> None:
    plan = planned(
        bundles,
        experiment("trial", 0.5, overrides={"bundle": "b2"}),
        experiment("other", 0.5, layer="second", overrides={"auction": {"bid_exponent": 0.0}}),
    )

    async def scenario(client: httpx.AsyncClient) -> Counter[tuple[str, str, str, int]]:
        found: Counter[tuple[str, str, str, int]] = Counter()
        for user in range(60):
            for path, body in (("/v1/rank", ASK), ("/v1/score", SCORE)):
                answer = (await client.post(path, json=body | {"user_id": user})).json()
                assert answer["version"] == 7
                assert answer["arms"] == plan.of(str(user), 0.0).arms
                assert answer["bundle_id"] == {"new": "b2", "control": "b1"}[answer["arms"]["trial"]]
                if path == "/v1/rank":  # 30 ads leave the pre-ranker of b1, 10 that of b2
                    kept = answer["stages"][2]["out"]
                    found[answer["arms"]["trial"], answer["arms"]["other"], answer["bundle_id"], kept] += 1
        return found

    found = serve(settings, plan, scenario)
    assert set(found) == {
        (trial, other, bundle, kept)
        for trial, bundle, kept in (("new", "b2", 10), ("control", "b1", 30))
        for other in ("new", "control")
    }


def test_an_id_is_one_user_as_a_number_and_as_a_text(settings: Settings, bundles: list[LoadedBundle]) -> None:
    plan = planned(bundles, experiment("trial", 0.5))

    async def scenario(client: httpx.AsyncClient) -> None:
        for user in range(20):
            asked = [ASK | {"user_id": user}, ASK | {"user_id": str(user)}]
            first, second = [(await client.post("/v1/rank", json=each)).json()["arms"] for each in asked]
            assert first == second

    serve(settings, plan, scenario)


def test_sizes_of_an_arm(settings: Settings, bundles: list[LoadedBundle]) -> None:
    sizes = {"retrieval_keep": 50, "qscore_keep": 40, "prerank_keep": 10}
    plan = planned(bundles, experiment("trial", overrides=sizes))
    answer = ask(settings, plan, "/v1/rank", ASK)
    assert [stage["out"] for stage in answer["stages"]] == [50, 40, 10, 10, 10]
    control = ask(settings, plan, "/v1/rank", ASK, forcing(trial="control"))
    assert [stage["out"] for stage in control["stages"]] == [100, 60, 30, 30, 20]


def test_the_rung_of_an_arm(folders: list[Path], settings: Settings, bundles: list[LoadedBundle]) -> None:
    plan = planned(bundles, experiment("trial", overrides={"rung": "light"}))
    answer = ask(settings, plan, "/v1/score", SCORE)
    assert (answer["rung"], answer["degraded"]) == ("light", [])
    np.testing.assert_allclose(answer["pctr"], sigmoid(expected(folders[0], "light")[0]), atol=1e-6)


def test_the_calibration_of_an_arm(folders: list[Path], settings: Settings, bundles: list[LoadedBundle]) -> None:
    plan = planned(bundles, experiment("trial", overrides={"calibration": {"slope": 0.5, "offset": -1.0}}))
    logits, _ = expected(folders[0])
    np.testing.assert_allclose(ask(settings, plan, "/v1/score", SCORE)["pctr"], sigmoid(0.5 * logits - 1), atol=1e-6)
    plain = ask(settings, plan, "/v1/score", SCORE, forcing(trial="control"))
    np.testing.assert_allclose(plain["pctr"], sigmoid(logits), atol=1e-6)
    ranked = ask(settings, plan, "/v1/rank", ASK | {"candidates": ADS})
    by_ad = dict(zip(ADS, sigmoid(0.5 * logits - 1), strict=True))
    np.testing.assert_allclose(
        [ad["pctr"] for ad in ranked["ads"]], [by_ad[ad["ad_id"]] for ad in ranked["ads"]], atol=1e-6
    )
    assert [ad["ecpm"] for ad in ranked["ads"]] == sorted((ad["ecpm"] for ad in ranked["ads"]), reverse=True)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0])
def test_the_auction_of_an_arm_weighs_bids_otherwise(
    folders: list[Path], settings: Settings, bundles: list[LoadedBundle], exponent: float
) -> None:
    """Every stage sees all 20 candidates, so the order is that of the auction alone."""
    plan = planned(bundles, experiment("trial", overrides={"auction": {"bid_exponent": exponent}}))
    answer = ask(settings, plan, "/v1/rank", ASK | {"candidates": ADS[:20]})
    logits, bids = expected(folders[0])
    order = np.argsort(-(sigmoid(logits) * bids**exponent)[:20])
    assert [ad["ad_id"] for ad in answer["ads"]] == [ADS[i] for i in order]
    np.testing.assert_allclose([ad["ecpm"] for ad in answer["ads"]], (sigmoid(logits) * bids)[order], atol=1e-6)
    control = ask(settings, plan, "/v1/rank", ASK | {"candidates": ADS[:20]}, forcing(trial="control"))
    assert [ad["ad_id"] for ad in control["ads"]] == [ADS[i] for i in np.argsort(-(sigmoid(logits) * bids)[:20])]


def test_the_pre_ranker_keeps_what_the_arms_auction_wants(settings: Settings, bundles: list[LoadedBundle]) -> None:
    overrides = {"auction": {"bid_exponent": 0.0}, "prerank_keep": 5}
    plan = planned(bundles, experiment("trial", overrides=overrides))
    body = ASK | {"candidates": ADS}
    bundle = bundles[0].bundle
    common = common_of(bundle, demo_records()["anna"], CONTEXT)
    rows = np.array([bundle.ads.index.id_of(ad) for ad in ADS])
    query = bundles[0].query.run(dict(common.feeds()))
    by_pctr = np.argsort(-bundle.ads.vectors.products(rows, query["query"]))[:5]
    assert {ad["ad_id"] for ad in ask(settings, plan, "/v1/rank", body)["ads"]} == {ADS[i] for i in by_pctr}


def test_the_reserve_of_an_arm(folders: list[Path], settings: Settings, bundles: list[LoadedBundle]) -> None:
    logits, bids = expected(folders[0])
    values = np.sort((sigmoid(logits) * bids)[:20])
    reserve = float(values[12] + values[13]) / 2
    overrides = {"auction": {"reserve_ecpm": reserve, "bid_exponent": 0.0}}
    plan = planned(bundles, experiment("trial", overrides=overrides))
    answer = ask(settings, plan, "/v1/rank", ASK | {"candidates": ADS[:20]})
    assert sorted(ad["ecpm"] for ad in answer["ads"]) == pytest.approx(values[13:].tolist(), abs=1e-6)
    assert (answer["stages"][-1]["in"], answer["stages"][-1]["out"]) == (20, 7)
    high = planned(bundles, experiment("trial", overrides={"auction": {"reserve_ecpm": 100.0}}))
    assert ask(settings, high, "/v1/rank", ASK)["ads"] == []


def test_without_a_finite_score_no_ad_is_worth_a_reserve(tmp_path: Path) -> None:
    folder = make_world(tmp_path, Recipe(bundle_id="b1", poisoned=(1000,)))
    settings = settings_for(folder)
    loaded = load_bundle(folder, settings)
    body = ASK | {"candidates": [1000, 1001, 1002]}
    for reserve, shown in ((0.0, [1001, 1002, 1000]), (1e-9, [1001, 1002])):
        plan = planned([loaded], control={"auction": {"reserve_ecpm": reserve}})
        found = [ad["ad_id"] for ad in ask(settings, plan, "/v1/rank", body)["ads"]]
        assert sorted(found[:2]) == shown[:2]
        assert found[2:] == shown[2:]


def test_metrics_count_whom_the_hash_dealt(settings: Settings, bundles: list[LoadedBundle]) -> None:
    plan = planned(bundles, experiment("trial", 0.5, overrides={"bundle": "b2"}, deny=["anna"], allow={"bert": "new"}))
    dealt = Counter(plan.of(str(user), 0.0).arms["trial"] for user in range(20))

    async def scenario(client: httpx.AsyncClient) -> str:
        for user in [*range(20), "anna", "bert"]:
            await client.post("/v1/rank", json=ASK | {"user_id": user})
        await client.post("/v1/rank", json=ASK | {"user_id": 0}, headers=forcing(trial="new"))
        await client.post("/v1/rank", json=ASK | {"user_id": 0, "k": 500})
        return (await client.get("/metrics")).text

    metrics = serve(settings, plan, scenario)
    first = plan.of("0", 0.0).arms["trial"]
    for arm in ("new", "control"):
        labels = f'arm="{arm}",experiment="trial"'
        assert f'adrank_arm_requests_total{{{labels},status="200"}} {float(dealt[arm])}' in metrics
        assert f"adrank_arm_request_seconds_count{{{labels}}} {float(dealt[arm] + (arm == first))}" in metrics
    assert f'adrank_arm_requests_total{{arm="{first}",experiment="trial",status="422"}} 1.0' in metrics


def test_the_log_names_version_and_arms(
    settings: Settings, bundles: list[LoadedBundle], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "adrank.request"):
        ask(settings, planned(bundles, experiment("trial")), "/v1/rank", ASK)
        ask(settings, planned(bundles), "/v1/rank", ASK)
    assert " version=7 arms=trial:new bundle=b1 " in caplog.text
    assert " version=7 arms=none bundle=b1 " in caplog.text


def test_all_live_bundles_are_described(settings: Settings, bundles: list[LoadedBundle]) -> None:
    plan = planned(
        bundles,
        experiment("trial", overrides={"bundle": "b2"}),
        control={"prerank_keep": 15},
        shadow={"bundle": "b2", "share": 0.0},
    )

    async def scenario(client: httpx.AsyncClient) -> Any:
        return (await client.get("/v1/bundles")).json()

    found = serve(settings, plan, scenario)
    assert found["shadow"] is None
    described = [(each["bundle_id"], each["serves"], each["sizes"]["prerank"]) for each in found["bundles"]]
    assert described == [("b1", ["control"], 15), ("b2", ["trial:new", "shadow"], 10)]


def test_events_are_taken_that_any_live_bundle_reads(
    tmp_path: Path, settings: Settings, bundles: list[LoadedBundle]
) -> None:
    """b3 reads the kind `like`, of ads, and knows more of them; the control does neither."""
    folder = make_world(tmp_path, Recipe(bundle_id="b3", ads=350))
    manifest = read_manifest(folder)
    first, *others = manifest.features.histories
    histories = (first.model_copy(update={"events": ("click", "like")}), *others)
    features = manifest.features.model_copy(update={"histories": histories})
    (folder / MANIFEST).write_text(manifest.model_copy(update={"features": features}).model_dump_json())
    newer = load_bundle(folder, settings_for(folder))
    like = {"events": [{"user_id": "carl", "kind": "like", "ad_id": ad} for ad in (1000, 1340, 9999)]}
    alone = ask(settings, planned(bundles), "/v1/events", like, status=422)
    assert alone["error"]["bound"] == "one of: click, impression, search"
    plan = planned([*bundles, newer], experiment("trial", overrides={"bundle": "b3"}))
    taken = ask(settings, plan, "/v1/events", like)
    assert (taken["accepted"], taken["ignored"], taken["unknown_ads"]) == (3, 0, 1)
    values = {"events": [{"user_id": "carl", "kind": "like", "values": ["food"]}]}
    assert ask(settings, plan, "/v1/events", values, status=422)["error"]["field"] == "events.0.ad_id"


def test_flags_hold_in_every_arm(settings: Settings, bundles: list[LoadedBundle]) -> None:
    plan = planned(bundles, experiment("trial", 0.5, overrides={"bundle": "b2"}))

    async def scenario(client: httpx.AsyncClient) -> None:
        for user in (*range(12), *range(12)):
            best = (await client.post("/v1/rank", json=ASK | {"user_id": user, "k": 1})).json()["ads"][0]["ad_id"]
            paused = {"flags": [{"ad_id": best, "paused": True}]}
            assert (await client.put("/v1/ads/flags", json=paused)).json()["changed"] == 1
        for user in range(12):
            body = ASK | {"user_id": user, "candidates": [best]}
            answer = (await client.post("/v1/rank", json=body)).json()
            assert answer["excluded_candidates"] == [{"ad_id": best, "reason": "paused"}]

    serve(settings, plan, scenario)


def test_pctr_of_two_bundles_is_each_ones_own(
    folders: list[Path], bundles: list[LoadedBundle], settings: Settings
) -> None:
    """One user asks by turns for both bundles: what was encoded for one is not used for the other."""
    plan = planned(bundles, experiment("trial", overrides={"bundle": "b2"}))

    async def scenario(client: httpx.AsyncClient) -> None:
        for arm, folder in [("new", folders[1]), ("control", folders[0])] * 2:
            answer = (await client.post("/v1/score", json=SCORE, headers=forcing(trial=arm))).json()
            bundle = open_bundle(folder)
            rows = np.array([bundle.ads.index.id_of(ad) for ad in ADS])
            common = common_of(bundle, demo_records()["anna"], CONTEXT)
            np.testing.assert_allclose(answer["pctr"], expected_pctr(bundle, common, rows), atol=1e-6)

    serve(settings, plan, scenario)
