"""From a raw log to an HTTP answer: the service gives the click probabilities of the trained network."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.settings import Settings
from tests.end_to_end.offline import all_ads, batch_of, pctr_of
from tests.market import Demo
from tests.service.conftest import call
from tests.service.world import settings_for

CONTEXT: dict[str, object] = {"scene": "search", "region": "south"}
"""The scene is a feature; by both, a fifth of the demo's ads are targeted."""
TOLERANCE = 1e-5
Scenario = Callable[[httpx.AsyncClient], Awaitable[Any]]


@pytest.fixture(scope="module")
def settings(demo: Demo) -> Settings:
    return settings_for(demo.bundle)


@pytest.fixture(scope="module")
def loaded(settings: Settings) -> LoadedBundle:
    return load_bundle(settings.bundle, settings)


class Raw:
    """The marketplace's own files."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.users = {row["user_id"]: row for row in pl.read_parquet(demo.raw / "users.parquet").to_dicts()}
        log = pl.read_parquet(demo.raw / "log/*.parquet").sort("time_ms", maintain_order=True)
        self.clicked = {user: list[int]() for user in self.users}
        for user, ad in log.filter(pl.col("click") == 1).select("user_id", "ad_id").iter_rows():
            self.clicked[user].append(ad)
        described = pl.read_parquet(demo.raw / "ads.parquet")
        self.bids = dict(described.select("ad_id", "bid").iter_rows())
        self.eligible = {
            ad
            for ad, *targets in described.select("ad_id", "scenes", "regions").iter_rows()
            if all(not listed or asked in listed for listed, asked in zip(targets, CONTEXT.values(), strict=True))
        }

    def clicks(self, user: int) -> list[int]:
        """All the user ever clicked, oldest first."""
        return [*self.users[user]["initial_history"], *self.clicked[user]]

    def some(self) -> list[int]:
        """Users of short, middling and long histories, one of them empty where there is one."""
        by_length = sorted(self.users, key=lambda user: (len(self.clicks(user)), user))
        return [by_length[i] for i in np.linspace(0, len(by_length) - 1, 7).astype(int)]

    def pctr(self, user: int, more: tuple[int, ...] = ()) -> npt.NDArray[np.float64]:
        """torch's click probability of every ad for this user, after `more` clicks."""
        batch = batch_of(self.demo.data, self.users[user], [*self.clicks(user), *more], CONTEXT)
        return pctr_of(self.demo.trained.finerank, self.demo.data, batch, all_ads(self.demo.data))


@pytest.fixture(scope="module")
def raw(demo: Demo) -> Raw:
    return Raw(demo)


async def scores(client: httpx.AsyncClient, user: int | str, ads: list[int | str]) -> list[float]:
    answer = await client.post("/v1/score", json={"user_id": user, "context": CONTEXT, "ads": ads})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["scored_by"], body["degraded"]) == ("finerank", [])
    assert len(body["pctr"]) == len(ads)
    found: list[float] = body["pctr"]
    return found


async def ranking(client: httpx.AsyncClient, user: int, k: int) -> list[dict[str, Any]]:
    answer = await client.post("/v1/rank", json={"user_id": user, "context": CONTEXT, "k": k})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["scored_by"], body["degraded"], body["user"]) == ("finerank", [], "known")
    ads: list[dict[str, Any]] = body["ads"]
    return ads


def test_scores_are_torchs(settings: Settings, loaded: LoadedBundle, raw: Raw) -> None:
    ads = all_ads(raw.demo.data)
    users = raw.some()
    lengths = [len(raw.clicks(user)) for user in users]
    assert lengths[0] == 0
    assert lengths[-1] > raw.demo.data.schema.histories[0].max_length, "older clicks than are read"

    async def scenario(client: httpx.AsyncClient) -> None:
        seen = []
        for user in users:
            seen.append(await scores(client, user, ads))
            np.testing.assert_allclose(seen[-1], raw.pctr(user), rtol=0, atol=TOLERANCE)
        assert np.std(seen, axis=0).max() > 100 * TOLERANCE, "users differ"
        assert np.std(seen, axis=1).max() > 100 * TOLERANCE, "ads differ"

    call(settings, scenario, loaded)


def test_an_unknown_user_and_an_unknown_ad_are_scored_as_torch_would(
    settings: Settings, loaded: LoadedBundle, raw: Raw
) -> None:
    data = raw.demo.data
    ads = [*all_ads(data)[:20], 4]
    assert data.ads.index.id_of(4) == 1
    expected = pctr_of(raw.demo.trained.finerank, data, batch_of(data, {}, [], CONTEXT), ads)

    async def scenario(client: httpx.AsyncClient) -> None:
        np.testing.assert_allclose(await scores(client, "nobody", ads), expected, rtol=0, atol=TOLERANCE)

    call(settings, scenario, loaded)


def test_ranking_is_by_ecpm_with_the_scores_pctr(settings: Settings, loaded: LoadedBundle, raw: Raw) -> None:
    ads = all_ads(raw.demo.data)

    async def scenario(client: httpx.AsyncClient) -> None:
        for user in raw.some():
            ranked = await ranking(client, user, 50)
            by_ad = dict(zip(ads, await scores(client, user, ads), strict=True))
            assert [each["position"] for each in ranked] == list(range(1, 51))
            ecpm = [each["ecpm"] for each in ranked]
            assert ecpm == sorted(ecpm, reverse=True)
            for each in ranked:
                assert each["pctr"] == pytest.approx(by_ad[each["ad_id"]], abs=1e-6)
                assert each["bid"] == pytest.approx(raw.bids[each["ad_id"]], rel=1e-6)
                assert each["ecpm"] == pytest.approx(each["pctr"] * each["bid"])
            # The funnel is wider than this catalogue: nothing better was lost but ads targeted elsewhere.
            assert 50 < len(raw.eligible) < len(ads)
            best = sorted((by_ad[ad] * raw.bids[ad] for ad in raw.eligible), reverse=True)[:50]
            assert ecpm == pytest.approx(best, abs=1e-5)

    call(settings, scenario, loaded)


def test_events_change_the_next_answer_as_torch_would(settings: Settings, loaded: LoadedBundle, raw: Raw) -> None:
    ads = all_ads(raw.demo.data)
    user = raw.some()[3]
    clicked = tuple(int(ad) for ad in ads[5:8])

    async def scenario(client: httpx.AsyncClient) -> None:
        before = await scores(client, user, ads)
        first = await ranking(client, user, 50)
        events = [{"user_id": user, "kind": "click", "ad_id": ad} for ad in clicked]
        told = await client.post("/v1/events", json={"events": events})
        assert told.json()["accepted"] == 3, told.text
        after = await scores(client, user, ads)
        np.testing.assert_allclose(after, raw.pctr(user, clicked), rtol=0, atol=TOLERANCE)
        assert np.abs(np.array(after) - before).max() > 10 * TOLERANCE
        again = await ranking(client, user, 50)
        assert [each["pctr"] for each in again] != [each["pctr"] for each in first]

    call(settings, scenario, loaded)


def test_requests_at_once_get_their_own_answers(settings: Settings, loaded: LoadedBundle, raw: Raw) -> None:
    ads, users = all_ads(raw.demo.data), raw.some()

    async def scenario(client: httpx.AsyncClient) -> None:
        found = await asyncio.gather(*(scores(client, user, ads) for user in users * 3))
        for user, mine in zip(users * 3, found, strict=True):
            np.testing.assert_allclose(mine, raw.pctr(user), rtol=0, atol=TOLERANCE)

    call(settings, scenario, loaded)
