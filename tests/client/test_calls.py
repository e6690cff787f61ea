"""What is sent, and what is refused before it is."""

import json
import math
from typing import Any

import pytest

from client import ArgumentError, Client, EventIn, Filter, Given
from client.calls import events_call, rank_call, score_call
from client.connection import options


def sent(call: Any) -> Any:
    return json.loads(call.content(None))


def test_only_what_was_given_is_sent() -> None:
    assert sent(rank_call(user_id=7, context=None, k=None)) == {"user_id": 7}
    whole = rank_call(
        user_id="anna",
        context={"scene": "feed", "hour": 9.5, "tags": ["a", 1, None], "new": True, "gone": None},
        k=2,
        candidates=(1, "b"),
        filters={"brand": Filter(none_of=[3])},
        user=Given(profile={"city": "Oslo"}, history={"clicks": [1, "b"], "searches": [["books"]]}),
    )
    assert sent(whole) == {
        "user_id": "anna",
        "context": {"scene": "feed", "hour": 9.5, "tags": ["a", 1, None], "new": True, "gone": None},
        "k": 2,
        "candidates": [1, "b"],
        "filters": {"brand": {"none_of": [3]}},
        "user": {"profile": {"city": "Oslo"}, "history": {"clicks": [1, "b"], "searches": [["books"]]}},
    }
    assert sent(score_call(user_id="7", ads=[2, 2])) == {"user_id": "7", "ads": [2, 2]}
    assert sent(events_call(events=[EventIn(user_id=1, kind="click", ad_id=3)])) == {
        "events": [{"user_id": 1, "kind": "click", "ad_id": 3}]
    }


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"user_id": None}, "user_id"),
        ({"user_id": [1]}, "user_id"),
        ({"user_id": 1, "k": "many"}, "k"),
        ({"user_id": 1, "context": {"hour": math.nan}}, "context.hour"),
        ({"user_id": 1, "context": {"hour": object()}}, "context.hour"),
        ({"user_id": 1, "candidates": "123"}, "candidates"),
        ({"user_id": 1, "sugar": 2}, "sugar"),
    ],
)
def test_what_cannot_be_sent_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{named}") as caught:
        rank_call(**fields)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://h",
        "http://",
        "http://h:port",
        "h",
        None,
        "http://a..b",
        f"http://{'a' * 64}",
        "http://[::1",
    ],
)
def test_an_address_that_is_none(url: Any) -> None:
    with pytest.raises(ArgumentError, match="url is"):
        options(url, None, None)


@pytest.mark.parametrize("url", ["http://me:secret@h", "http://h/?key=secret", "http://h/#secret"])
def test_an_address_with_more_than_a_place(url: str) -> None:
    with pytest.raises(ArgumentError, match="url has a user, a query or a fragment") as caught:
        options(url, None, None)
    assert "secret" not in str(caught.value)


def test_the_key_is_a_bearer_token_and_never_in_a_message() -> None:
    assert options("http://h", "secret", {"X-More": "1"})["headers"].items() >= {
        ("Authorization", "Bearer secret"),
        ("X-More", "1"),
    }
    with pytest.raises(ArgumentError, match="Authorization") as caught:
        options("http://h", "secret\n", None)
    assert "secret" not in str(caught.value)


def test_at_least_one_connection() -> None:
    with pytest.raises(ArgumentError, match="connections is 0"):
        Client("http://h", connections=0)
