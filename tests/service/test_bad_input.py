"""Bad bodies: 4xx with the field and the bound, never a 500, never a trace."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.app import create_app
from service.errors import InvalidRequestError
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.problem import parse
from service.schemas import EventsRequest, RankRequest, ScoreRequest
from tests.service.conftest import call, client_of
from tests.service.world import settings_for

RANK, SCORE, EVENTS = "/v1/rank", "/v1/score", "/v1/events"


def event(**more: Any) -> dict[str, Any]:
    return {"events": [{"user_id": 1, "kind": "click", "ad_id": 1000} | more]}


BAD: list[tuple[str, Any, int, str | None, str | None]] = [
    # path, body (bytes as they are), status, field, part of the bound
    (RANK, b"", 400, None, None),
    (RANK, b"{", 400, None, None),
    (RANK, b"\xff\xfe", 400, None, None),
    (RANK, b'{"user_id": "\\ud800"}', 400, None, None),
    (RANK, b'{"user_id": 1, "k": NaN}', 422, "k", None),
    (RANK, b"[" * 100_000, 400, None, None),
    (RANK, [], 422, None, "object"),
    (RANK, None, 422, None, "object"),
    (RANK, {}, 422, "user_id", "missing"),
    (RANK, {"user_id": None}, 422, "user_id", "int; or string"),
    (RANK, {"user_id": True}, 422, "user_id", "int; or string"),
    (RANK, {"user_id": 1.5}, 422, "user_id", "int; or string"),
    (RANK, {"user_id": ""}, 422, "user_id", "length at least 1"),
    (RANK, {"user_id": "x" * 129}, 422, "user_id", "length at most 128"),
    (RANK, {"user_id": 10**30}, 422, "user_id", "at most"),
    (RANK, {"user_id": 1, "k": 0}, 422, "k", "at least 1"),
    (RANK, {"user_id": 1, "k": 201}, 422, "k", "at most 200"),
    (RANK, {"user_id": 1, "k": 10**9}, 422, "k", "at most 10000"),
    (RANK, {"user_id": 1, "k": "5"}, 422, "k", "int"),
    (RANK, {"user_id": 1, "k": 5.5}, 422, "k", "int"),
    (RANK, {"user_id": 1, "deadline_ms": 0}, 422, "deadline_ms", "at least 1"),
    (RANK, {"user_id": 1, "deadline_ms": 10_001}, 422, "deadline_ms", "at most 10000"),
    (RANK, {"user_id": 1, "users": {}}, 422, "users", "one of: user_id"),
    (RANK, {"user_id": 1, "context": []}, 422, "context", "dict"),
    (RANK, {"user_id": 1, "context": {"scnee": 1}}, 422, "context.scnee", "one of: scene, hour"),
    (RANK, {"user_id": 1, "context": {"scene": {}}}, 422, "context.scene", None),
    (RANK, {"user_id": 1, "context": {"scene": "x" * 1001}}, 422, "context.scene", "length at most 1000"),
    (RANK, {"user_id": 1, "context": {"hour": 10**400}}, 422, "context.hour", None),
    (RANK, b'{"user_id": 1, "context": {"hour": 1e999}}', 422, "context.hour", None),
    (RANK, {"user_id": 1, "context": {"scene": [[1]]}}, 422, "context.scene.0", None),
    (RANK, {"user_id": 1, "candidates": []}, 422, "candidates", "length at least 1"),
    (RANK, {"user_id": 1, "candidates": [1] * 2001}, 422, "candidates", "length at most 2000"),
    (RANK, {"user_id": 1, "candidates": [1, None]}, 422, "candidates.1", "int; or string"),
    (RANK, {"user_id": 1, "candidates": 7}, 422, "candidates", "list"),
    (RANK, {"user_id": 1, "filters": {"price": {"any_of": [1]}}}, 422, "filters.price", "one of: category, brand"),
    (RANK, {"user_id": 1, "filters": {"brand": {}}}, 422, "filters.brand", "any_of or none_of"),
    (
        RANK,
        {"user_id": 1, "filters": {"brand": {"any_of": [1], "none_of": [2]}}},
        422,
        "filters.brand",
        "any_of or none_of",
    ),
    (RANK, {"user_id": 1, "filters": {"brand": {"any_of": []}}}, 422, "filters.brand.any_of", "length at least 1"),
    (
        RANK,
        {"user_id": 1, "filters": {"brand": {"all_of": [1]}}},
        422,
        "filters.brand.all_of",
        "one of: any_of, none_of",
    ),
    (RANK, {"user_id": 1, "user": {"age": 3}}, 422, "user.age", "one of: profile, history"),
    (RANK, {"user_id": 1, "user": {"profile": {"agee": 3}}}, 422, "user.profile.agee", "one of: city, age, income"),
    (RANK, {"user_id": 1, "user": {"history": {"buys": [3]}}}, 422, "user.history.buys", "one of: clicks, searches"),
    (RANK, {"user_id": 1, "user": {"history": {"clicks": [["a"]]}}}, 422, "user.history.clicks.0", "an ad id"),
    (
        RANK,
        {"user_id": 1, "user": {"history": {"searches": [["a", "b"]]}}},
        422,
        "user.history.searches.0",
        "at most 1",
    ),
    (
        RANK,
        {"user_id": 1, "user": {"history": {"clicks": [1] * 1001}}},
        422,
        "user.history.clicks",
        "length at most 1000",
    ),
    (SCORE, {"user_id": 1}, 422, "ads", "missing"),
    (SCORE, {"user_id": 1, "ads": []}, 422, "ads", "length at least 1"),
    (SCORE, {"user_id": 1, "ads": [1] * 2001}, 422, "ads", "length at most 2000"),
    (SCORE, {"user_id": 1, "ads": [1, {}]}, 422, "ads.1", "int; or string"),
    (SCORE, {"user_id": 1, "ads": [1], "k": 3}, 422, "k", "one of: user_id"),
    (EVENTS, {}, 422, "events", "missing"),
    (EVENTS, {"events": []}, 422, "events", "length at least 1"),
    (EVENTS, {"events": [event()["events"][0]] * 1001}, 422, "events", "length at most 1000"),
    (EVENTS, event(kind="buy"), 422, "events.0.kind", "one of: click, impression, search"),
    (EVENTS, event(kind=""), 422, "events.0.kind", "length at least 1"),
    (EVENTS, event(time_ms=-1), 422, "events.0.time_ms", "at least 0"),
    (EVENTS, event(ad_id=None), 422, "events.0", "ad_id or values"),
    (EVENTS, event(values=["food"]), 422, "events.0", "ad_id or values"),
    (EVENTS, event(ad_id=None, values=["food"]), 422, "events.0.ad_id", "an ad id"),
    (EVENTS, event(kind="search"), 422, "events.0.values", "category"),
    (EVENTS, event(kind="search", ad_id=None, values=["a", "b"]), 422, "events.0.values", "length at most 1"),
    (EVENTS, event(who="me"), 422, "events.0.who", "one of: user_id, kind"),
]


def test_every_bad_body_is_named_with_its_field_and_bound(loaded: LoadedBundle, folder: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for path, body, status, field, bound in BAD:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            answer = await client.post(path, content=content)
            what = f"{path} {content[:100]!r}: {answer.text[:500]}"
            assert answer.status_code == status, what
            error = answer.json()["error"]
            assert set(error) == {"code", "message", "field", "bound", "request_id"}, what
            assert error["field"] == field, what
            assert error["message"], what
            assert error["request_id"] == answer.headers["x-request-id"], what
            if bound is not None:
                assert bound in error["bound"], what
            if status == 422:
                assert error["bound"], what
            assert "Traceback" not in answer.text, what
            assert len(answer.content) < 2000, what

    call(settings_for(folder), scenario, loaded)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "unknown_route"),
        ("GET", "/v1/rank", 405, "wrong_method"),
        ("PUT", "/metrics", 405, "wrong_method"),
    ],
)
def test_wrong_routes_and_methods_have_the_same_body(
    loaded: LoadedBundle, folder: Path, method: str, path: str, status: int, code: str
) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.request(method, path)
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error["code"] == code
        assert path in error["message"]
        assert error["request_id"] == answer.headers["x-request-id"]

    call(settings_for(folder), scenario, loaded)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["user_id", "context", "k", "deadline_ms", "candidates", "ads", "filters", "user", "events", "scene", "hour"]
)
NESTED = st.fixed_dictionaries(
    {"user_id": st.integers(1, 9) | st.text(min_size=1, max_size=3)},
    optional={
        "context": st.dictionaries(st.sampled_from(["scene", "hour", "x"]), JSON, max_size=2),
        "k": st.integers(-1, 30) | JSON,
        "candidates": st.lists(st.integers(900, 1400) | st.text(max_size=3), max_size=5),
        "ads": st.lists(st.integers(900, 1400) | JSON, max_size=5),
        "filters": st.dictionaries(
            st.sampled_from(["brand", "category", "x"]),
            st.dictionaries(st.sampled_from(["any_of", "none_of"]), st.lists(SCALARS, max_size=3), max_size=2) | JSON,
            max_size=2,
        ),
        "user": st.fixed_dictionaries(
            {},
            optional={
                "profile": st.dictionaries(st.sampled_from(["city", "age", "income"]), JSON, max_size=3),
                "history": st.dictionaries(
                    st.sampled_from(["clicks", "searches"]),
                    st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=4),
                ),
            },
        )
        | JSON,
        "events": st.lists(
            st.fixed_dictionaries(
                {"user_id": SCALARS, "kind": st.sampled_from(["click", "search"])},
                optional={"ad_id": SCALARS, "values": st.lists(SCALARS, max_size=2)},
            ),
            max_size=3,
        ),
    },
)


def test_no_json_makes_the_service_fail(folder: Path) -> None:
    """Any JSON, near to a valid request or far from it: an answer below 500, and JSON."""
    settings = settings_for(folder)
    app = create_app(settings, load_bundle(folder, settings))
    seen: set[int] = set()

    with asyncio.Runner() as runner:

        async def post(path: str, body: Any) -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                return await client.post(path, content=json.dumps(body).encode())

        @hypothesis_settings(max_examples=150, deadline=None)
        @given(
            path=st.sampled_from([RANK, SCORE, EVENTS]), body=NESTED | JSON | st.dictionaries(KEYS, JSON, max_size=4)
        )
        def attempt(path: str, body: Any) -> None:
            answer = runner.run(post(path, body))
            assert answer.status_code < 500, answer.text
            answer.json()
            seen.add(answer.status_code)

        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        try:
            attempt()
        finally:
            runner.run(lifespan.__aexit__(None, None, None))
    assert {200, 422} <= seen


def test_any_bytes_are_answered(folder: Path, loaded: LoadedBundle) -> None:
    async def scenario() -> None:
        async with client_of(create_app(settings_for(folder), loaded)) as client:
            for content in (
                b"\x00" * 100,
                b'"',
                b"nul",
                b"{}{}",
                b'{"user_id":1}\x00',
                "{é}".encode("latin-1"),
                b"\xef\xbb\xbf{}",
            ):
                answer = await client.post(RANK, content=content)
                assert answer.status_code in (400, 422), content
                assert answer.json()["error"]["message"]

    asyncio.run(scenario())


FULL = 393_216
WORST: list[tuple[type[Any], str, str, str]] = [
    (RankRequest, '{"user_id":1,"candidates":[', "[]", "]}"),
    (RankRequest, '{"user_id":1,"context":{"a":[', "[]", "]}}"),
    (RankRequest, '{"user_id":1,"filters":{"a":{"any_of":[', "{}", "]}}}"),
    (RankRequest, '{"user_id":1,"user":{"history":{"a":[', "[[]]", "]}}}"),
    (ScoreRequest, '{"user_id":1,"ads":[', "[]", "]}"),
    (EventsRequest, '{"events":[', "{}", "]}"),
    (EventsRequest, '{"events":[{"values":[', "[]", "]}]}"),
]


@pytest.mark.parametrize(("model", "head", "element", "end"), WORST)
def test_a_list_of_wrong_elements_has_few_errors(model: type[Any], head: str, element: str, end: str) -> None:
    count = (FULL - len(head) - len(end)) // (len(element) + 1)
    body = (head + ",".join([element] * count) + end).encode()
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(body)
    assert caught.value.error_count() < 20
    with pytest.raises(InvalidRequestError) as named:
        parse(model, body)
    assert named.value.field is not None


def test_an_object_of_unknown_keys_is_not_listed() -> None:
    body = json.dumps({"user_id": 1} | {f"k{i}": 1 for i in range(5000)}).encode()
    with pytest.raises(InvalidRequestError, match="wrong in 5000 places"):
        parse(RankRequest, body)


@pytest.mark.parametrize(
    ("more", "field", "most"),
    [
        ({"context": {str(i): {} for i in range(9000)}}, "context", 256),
        ({"filters": {str(i): 1 for i in range(9000)}}, "filters", 64),
        ({"user": {"history": {str(i): [[{}]] for i in range(9000)}}}, "user.history", 64),
    ],
)
def test_a_large_object_is_refused_before_its_values(more: dict[str, Any], field: str, most: int) -> None:
    body = json.dumps({"user_id": 1} | more).encode()
    with pytest.raises(InvalidRequestError) as caught:
        parse(RankRequest, body)
    assert (caught.value.field, caught.value.bound) == (field, f"length at most {most}")
