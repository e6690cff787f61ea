"""Which ads may be shown, against plain Python; and that no stage of an answer ever shows another."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from bundle.bitmap import of_rows, unpack
from bundle.folder import Bundle, open_bundle
from bundle.schema import FIRST_KNOWN
from service.app import create_app
from service.eligibility import Eligibility, allowed_by
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.schemas import Filter
from tests.service.conftest import client_of, post
from tests.service.world import BRANDS, CATEGORIES, TARGETED, Recipe, make_world, settings_for, targets

ADS = 300
RECIPE = Recipe(targeting=TARGETED)
FILTER_VALUES: dict[str, list[Any]] = {
    "category": [*(CATEGORIES.value_of(i) for i in range(2, CATEGORIES.size)), "no such", None],
    "brand": [*(BRANDS.value_of(i) for i in range(2, BRANDS.size)), 7],
}


@pytest.fixture(scope="module")
def targeted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a world with targeted ads."""
    return make_world(tmp_path_factory.mktemp("targeted"), RECIPE)


@pytest.fixture(scope="module")
def world(targeted: Path) -> Bundle:
    return open_bundle(targeted)


def eligible(i: int, context: Mapping[str, object], filters: Mapping[str, Filter], flags: Mapping[int, str]) -> bool:
    """Whether the i-th ad may be shown."""
    own = {"category": CATEGORIES.value_of(FIRST_KNOWN + i % 5), "brand": 100 + i % 10}
    for field in TARGETED:
        if targets(field, i) and context.get(field) not in targets(field, i):
            return False
    for field, asked in filters.items():
        listed = asked.any_of if asked.any_of is not None else asked.none_of or []
        if (own[field] in listed) != (asked.any_of is not None):
            return False
    return i not in flags


def rows_of(bundle: Bundle, numbers: Iterable[int]) -> npt.NDArray[np.int32]:
    """Catalogue rows of the ads with these numbers."""
    return bundle.ads.index.rows[np.array(list(numbers), dtype=np.int64) + FIRST_KNOWN]


def members(found: Eligibility, bundle: Bundle) -> list[int]:
    """Numbers of the allowed ads."""
    assert found.allowed is not None
    rows = np.flatnonzero(unpack(found.allowed, bundle.ads.index.size))
    return sorted((bundle.ads.index.places[rows] - FIRST_KNOWN).tolist())


def draw(random: Random) -> tuple[dict[str, Any], dict[str, Filter]]:
    """A context and filters."""
    context: dict[str, Any] = {}
    if random.random() < 0.8:
        context["scene"] = random.choice(["feed", "search", "story", "elsewhere", None])
    if random.random() < 0.7:
        context["region"] = random.choice(["north", "south", "town-31", "town-63", 5, None])
    filters = {}
    for field, values in FILTER_VALUES.items():
        if random.random() < 0.4:
            chosen = random.sample(values, random.randint(1, len(values) - 1))
            filters[field] = Filter(any_of=chosen) if random.random() < 0.5 else Filter(none_of=chosen)
    return context, filters


def test_nothing_asked_is_every_ad(bundle: Bundle) -> None:
    found = allowed_by(bundle, {}, {"scene": "feed"})
    assert found.allowed is None
    assert found.ads == ADS
    assert found.reasons(np.array([2, 5])) == [None, None]


@pytest.mark.parametrize("seed", range(60))
def test_the_bitmap_is_what_every_condition_allows(world: Bundle, seed: int) -> None:
    random = Random(seed)
    context, filters = draw(random)
    flagged = dict.fromkeys(random.sample(range(ADS), random.choice([0, 1, 200])), "paused")
    stopped = of_rows(rows_of(world, flagged), ADS + 2)
    flags = (("paused", np.bitwise_and(~stopped, of_rows(np.arange(2, ADS + 2), ADS + 2))),) if flagged else ()
    found = allowed_by(world, filters, context, flags)
    wanted = [i for i in range(ADS) if eligible(i, context, filters, flagged)]
    assert members(found, world) == wanted
    assert found.ads == len(wanted)
    reasons = found.reasons(rows_of(world, range(ADS)))
    assert [i for i, why in enumerate(reasons) if why is None] == wanted
    assert {why for i, why in enumerate(reasons) if i in flagged} <= {"paused"}


def test_the_first_reason_is_named(world: Bundle) -> None:
    # ad 0 is for feed and north, ad 1 for search and story, ads 2 and 3 for everywhere, ad 4 for feed
    found = allowed_by(world, {"category": Filter(any_of=["food"])}, {"scene": "story", "region": "south"})
    assert found.reasons(rows_of(world, range(5))) == [
        "targeting: scene",
        "targeting: region",
        "targeting: region",
        "targeting: region",
        "targeting: scene",
    ]
    found = allowed_by(world, {"category": Filter(any_of=["food"])}, {"scene": "feed", "region": "north"})
    assert found.reasons(rows_of(world, range(4))) == ["filter: category", "targeting: scene", None, "filter: category"]


def test_filters_are_conditions_that_all_hold(bundle: Bundle) -> None:
    def ads(filters: dict[str, Filter]) -> list[int]:
        return members(allowed_by(bundle, filters, {}), bundle)

    food = [i for i in range(ADS) if i % 5 == 2]
    assert ads({"category": Filter(any_of=["food"])}) == food
    assert ads({"category": Filter(any_of=["food", "food", "green"])}) == food
    assert ads({"category": Filter(none_of=["food"])}) == [i for i in range(ADS) if i % 5 != 2]
    assert ads({"category": Filter(any_of=["food"]), "brand": Filter(any_of=["102", 107.5, None])}) == food[::2]
    assert ads({"category": Filter(any_of=["green", None])}) == []
    assert ads({"category": Filter(none_of=["green", None])}) == list(range(ADS))


class Asked:
    """A random rank request, and what may be in its answer."""

    def __init__(self, seed: int, flags: Mapping[int, str]) -> None:
        random = Random(seed)
        context, filters = draw(random)
        self.body: dict[str, Any] = {
            "user_id": random.choice(["anna", "bert", "nobody"]),
            "context": context,
            "filters": {field: each.model_dump(exclude_none=True) for field, each in filters.items()},
            "k": random.choice([1, 20, 200]),
        }
        ads = list(range(ADS))
        if random.random() < 0.4:
            ads = random.sample(ads, random.choice([3, 40]))
            self.body["candidates"] = [1000 + i for i in ads] + [5]
        if random.random() < 0.3:
            self.body["deadline_ms"] = 1
        self.right = {1000 + i for i in ads if eligible(i, context, filters, flags)}
        self.wrong = {1000 + i for i in ads} - self.right


@pytest.fixture(scope="module")
def live(targeted: Path) -> LoadedBundle:
    return load_bundle(targeted, settings_for(targeted))


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_no_answer_ever_has_an_ad_that_may_not_be_shown(targeted: Path, live: LoadedBundle, first: int) -> None:
    """Random targeting, filters, flags, own candidates and deadlines; whatever fits is found where little fits."""
    random = Random(first)
    flags: dict[int, str] = {}

    async def scenario() -> None:
        async with client_of(create_app(settings_for(targeted, max_k=200, max_flags=ADS), live)) as client:
            for seed in range(first, first + 50):
                if seed % 10 == 0:
                    await flag(client, random, flags)
                asked = Asked(seed, flags)
                answer = (await client.post("/v1/rank", json=asked.body)).json()
                shown = [ad["ad_id"] for ad in answer["ads"]]
                assert not set(shown) - asked.right, (asked.body, set(shown) - asked.right)
                assert len(shown) == len(set(shown)) == min(asked.body["k"], 20, len(asked.right))
                if "candidates" in asked.body:
                    assert {each["ad_id"] for each in answer["excluded_candidates"]} == asked.wrong
                    assert answer["unknown_candidates"] == [5]
                else:
                    assert answer["stages"][0]["note"] == f"{len(asked.right)} of {ADS} ads eligible"
                    assert answer["excluded_candidates"] == []

    asyncio.run(scenario())


async def flag(client: httpx.AsyncClient, random: Random, flags: dict[int, str]) -> None:
    """Give some ads flags and take those of others back."""
    said: list[dict[str, Any]] = [{"ad_id": 1000 + i, "paused": False, "budget_exhausted": False} for i in flags]
    flags.clear()
    for i in random.sample(range(ADS), random.choice([0, 10, 150, 290])):
        flags[i] = random.choice(["paused", "budget_exhausted"])
        said = [each for each in said if each["ad_id"] != 1000 + i]
        others = {"paused": False, "budget_exhausted": False}
        said.append({"ad_id": 1000 + i} | others | {flags[i]: True})
    if said:
        answer = await client.put("/v1/ads/flags", json={"flags": said})
        assert answer.status_code == 200, answer.text


def test_without_time_for_anything_only_eligible_ads_are_answered(targeted: Path, live: LoadedBundle) -> None:
    settings = settings_for(targeted)
    body = {"user_id": "anna", "context": {"scene": "story"}, "k": 20, "deadline_ms": 1}
    live.estimates.clear()
    for stage in ("retrieval", "prerank", "finerank"):
        live.estimates.observe(stage, 1, 1e6)
    try:
        answer = post(settings, "/v1/rank", body, live)
    finally:
        live.estimates.clear()
    assert "retrieval: deadline" in answer["degraded"]
    assert answer["scored_by"] == "qscore"
    right = {1000 + i for i in range(ADS) if eligible(i, {"scene": "story"}, {}, {})}
    assert len(answer["ads"]) == 20
    assert {ad["ad_id"] for ad in answer["ads"]} <= right
    assert answer["stages"][0]["note"] == f"{len(right)} of {ADS} ads eligible"


def test_a_score_is_given_wherever_an_ad_may_be_shown(targeted: Path, live: LoadedBundle) -> None:
    """Scoring shows nothing: the ads asked for are scored."""
    body = {"user_id": "anna", "context": {"scene": "story", "region": "south"}, "ads": [1000, 1001]}
    assert None not in post(settings_for(targeted), "/v1/score", body, live)["pctr"]


@pytest.mark.parametrize(
    ("context", "field", "bound"),
    [
        ({"region": ["north"]}, "context.region", "one value"),
        ({"scene": ["feed", "story"]}, "context.scene", "one value"),
        ({"town": "x"}, "context.town", "one of: scene, hour, region"),
    ],
)
def test_contexts_that_targeting_cannot_use_are_named(
    targeted: Path, live: LoadedBundle, context: dict[str, Any], field: str, bound: str
) -> None:
    for path, more in (("/v1/rank", {}), ("/v1/score", {"ads": [1000]})):
        body = {"user_id": 1, "context": context, **more}
        error = post(settings_for(targeted), path, body, live, status=422)["error"]
        assert (error["field"], error["bound"]) == (field, bound)
