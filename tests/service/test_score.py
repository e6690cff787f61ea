"""/v1/score: one score for each ad, in the given order."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bundle.folder import Bundle
from service.settings import Settings
from tests.service.conftest import call, post
from tests.service.world import Recipe, common_of, demo_records, expected_pctr, make_world, settings_for

CONTEXT: dict[str, object] = {"scene": "feed", "hour": 12}


def test_500_ads_in_the_given_order(bundle: Bundle, settings: Settings) -> None:
    rng = np.random.default_rng(1)
    ads = rng.integers(990, 1310, 500).tolist()
    answer = post(settings, "/v1/score", {"user_id": "anna", "context": CONTEXT, "ads": ads})
    rows = np.array([bundle.ads.index.id_of(ad) for ad in ads])
    expected = expected_pctr(bundle, common_of(bundle, demo_records()["anna"], CONTEXT), rows)
    assert answer["unknown_ads"] == list(dict.fromkeys(ad for ad in ads if not 1000 <= ad < 1300))
    np.testing.assert_allclose(answer["pctr"], expected, atol=1e-6)
    assert answer["scored_by"] == "finerank"


def test_repeated_and_unknown_ads_are_each_answered(settings: Settings) -> None:
    answer = post(settings, "/v1/score", {"user_id": "anna", "ads": [1003, "1003", 4, "rubbish", 1003, 4]})
    assert answer["unknown_ads"] == [4, "rubbish"]
    scores = answer["pctr"]
    assert len(scores) == 6
    assert scores[0] == scores[1] == scores[4]
    assert scores[2] == scores[3]


def test_a_score_that_is_no_number_is_null(tmp_path: Path) -> None:
    settings = settings_for(make_world(tmp_path, Recipe(poisoned=(1001,))))

    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/score", json={"user_id": "anna", "ads": [1000, 1001]})
        first, second = answer.json()["pctr"]
        assert first > 0
        assert second is None
        assert answer.json()["unknown_ads"] == []
        text = (await client.get("/metrics")).text
        assert 'adrank_non_finite_scores_total{stage="finerank"} 1.0' in text

    call(settings, scenario)


def test_concurrent_answers_equal_single_ones(settings: Settings) -> None:
    """No request ever sees another's user, ads or numbers."""
    rng = np.random.default_rng(5)
    bodies = [
        {
            "user_id": ["anna", "bert", "carl", "nobody"][i % 4],
            "context": {"scene": ["feed", "search"][i % 2], "hour": i % 24},
            "ads": rng.integers(1000, 1300, int(rng.integers(1, 60))).tolist(),
        }
        for i in range(60)
    ]

    async def scenario(client: httpx.AsyncClient) -> None:
        async def score(body: dict[str, Any]) -> Any:
            return (await client.post("/v1/score", json=body)).json()["pctr"]

        async def rank(body: dict[str, Any]) -> Any:
            ranked = {name: value for name, value in body.items() if name != "ads"}
            return (await client.post("/v1/rank", json=ranked)).json()["ads"]

        single = [(await score(body), await rank(body)) for body in bodies]
        scores = asyncio.gather(*(score(body) for body in bodies))
        ranks = asyncio.gather(*(rank(body) for body in bodies))
        assert list(zip(await scores, await ranks, strict=True)) == single

    call(settings.model_copy(update={"max_in_flight": 1000, "cascade_threads": 4}), scenario)
