"""Which events belong to which answer."""

import json
from typing import Any

import polars as pl

from outcomes.joining import beside, joined, seen_of, served_of, shadowed_of
from outcomes.tables import IMPRESSIONS, SHADOW
from tests.outcomes.feeding import NOON, event, shadow_json

WINDOW = 60_000


def served(*answers: tuple[int, str, list[Any]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers for ann: when, request id, ads."""

    def line(at: int, request_id: str, ads: list[Any]) -> dict[str, Any]:
        head = {"request_id": request_id, "time_ms": at - 9, "user_id": "ann", "version": 2, "status": 200}
        head |= {"arms": {"b": "x", "a": "control"}, "bundle_id": "b1", "total_ms": 1.5, "degraded": False}
        shown = [{"ad_id": ad, "position": i + 1, "pctr": 0.1 * i, "bid": 1.0} for i, ad in enumerate(ads)]
        return {"id": f"{at}-0", "head": head, "answer": {"ads": shown}}

    return served_of(line(*each) for each in answers)


def seen(*events: tuple[int, dict[str, Any]]) -> pl.DataFrame:
    return seen_of({"id": f"{at}-0", "events": [each]} for at, each in events)


def test_impressions_and_clicks_are_those_that_were_reported() -> None:
    requests, shown = served((NOON, "r1", [7, 8, 9]), (NOON + 1, "r2", [7]))
    events = seen(
        (NOON + 10, event("impression", "r1", 8, time_ms=NOON + 4)),
        (NOON + 20, event("impression", "r1", "7")),
        (NOON + 30, event("click", "r1", 8)),
    )
    found = joined(requests, shown, events, WINDOW)
    assert found.schema == pl.Schema(IMPRESSIONS)
    columns = ("request_id", "ad_id", "position", "time_ms", "clicked", "click_time_ms")
    assert found.select(columns).rows() == [
        ("r1", "7", 1, NOON + 20, False, None),
        ("r1", "8", 2, NOON + 4, True, NOON + 30),
    ]
    assert found["arms"].to_list() == [["a:control", "b:x"]] * 2
    assert requests["arms"].to_list() == [["a:control", "b:x"]] * 2


def test_what_is_reported_twice_is_there_once_with_the_first_times() -> None:
    requests, shown = served((NOON, "r1", [7]))
    events = seen(*((NOON + i, event(kind, "r1", 7)) for i in (30, 10, 20) for kind in ("impression", "click")))
    found = joined(requests, shown, events, WINDOW)
    assert found.select("time_ms", "click_time_ms").rows() == [(NOON + 10, NOON + 10)]


def test_events_of_others_of_other_ads_and_out_of_the_window_are_left_out() -> None:
    requests, shown = served((NOON, "r1", [1, 2, 3, 4, 5]))
    events = seen(
        (NOON + 5, event("impression", "r1", 1, user="bob")),
        (NOON + 5, event("impression", "r9", 1)),
        (NOON + 5, event("impression", "r1", 99)),
        (NOON + 5, event("click", "r1", 2)),  # nobody saw it
        (NOON + WINDOW + 1, event("impression", "r1", 3)),
        (NOON + WINDOW, event("impression", "r1", 4)),
        (NOON + WINDOW + 1, event("click", "r1", 4)),
        (NOON - 50, event("impression", "r1", 5)),  # the answer was logged after it was sent
    )
    found = joined(requests, shown, events, WINDOW)
    assert found.select("ad_id", "clicked").rows() == [("4", False), ("5", False)]


def test_events_that_are_no_outcomes_are_no_rows() -> None:
    assert len(seen((NOON, {"user_id": 1, "kind": "search", "values": ["food"], "request_id": "r1"}))) == 0
    assert len(seen((NOON, {"user_id": 1, "kind": "click", "ad_id": 3}))) == 0


def scores(at: int, request_id: str, ads: list[Any], pctr: list[float | None], **given: str) -> dict[str, Any]:
    return {"id": f"{at}-0", "shadow": json.loads(shadow_json(request_id, ads, pctr, **given))}


def test_what_the_shadow_gave_stands_beside_what_was_seen() -> None:
    requests, shown = served((NOON, "r1", [7, 8, 9]), (NOON + 1, "r2", [7]), (NOON + 2, "r3", ["a"]))
    events = seen(
        *((NOON + 10, event("impression", "r1", ad)) for ad in (7, 8)),
        (NOON + 20, event("click", "r1", 8)),
        (NOON + 30, event("impression", "r2", 7)),
        (NOON + 30, event("impression", "r3", "a")),
    )
    impressions = joined(requests, shown, events, WINDOW)
    shadowed = shadowed_of(
        [
            scores(NOON - 3, "r1", [8, 9, 7], [0.3, 0.9, None]),  # ahead of its answer
            scores(NOON + 5, "r1", [8], [0.4]),  # written twice
            scores(NOON + 5, "r2", [7], [0.4], user="bob"),
            scores(NOON + 1 + WINDOW + 1, "r2", [7], [0.4]),
            scores(NOON + 2 + WINDOW, "r3", ["a"], [0.25], bundle="b3"),
            scores(NOON + 5, "r9", [7], [0.4]),
        ]
    )
    found = beside(requests, impressions, shadowed, WINDOW)
    assert found.schema == pl.Schema(SHADOW)
    columns = ("request_id", "ad_id", "bundle_id", "shadow_bundle_id", "pctr", "shadow_pctr", "clicked", "time_ms")
    assert found.select(columns).rows() == [
        ("r1", "7", "b1", "b2", 0.0, None, False, NOON + 10),
        ("r1", "8", "b1", "b2", 0.1, 0.3, True, NOON + 10),
        ("r3", "a", "b1", "b3", 0.0, 0.25, False, NOON + 30),
    ]
