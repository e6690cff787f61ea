"""Impressions and clicks joined to the answers that showed them.

An event belongs to an answer when it names its request id and its user, the ad is in the answer, and not more than
`window_ms` lie between the two in the streams, whichever came first. That is a property of the two entries alone: what
is written does not depend on when the collector looked, was restarted, or fell behind. What the shadow gave the ads of
an answer belongs to it by the same rule.
"""

from collections.abc import Iterable
from typing import Any

import polars as pl

from outcomes.streams import Id
from outcomes.tables import IMPRESSIONS, REQUESTS, SHADOW

SHOWN = {
    "request_id": pl.String(),
    "ad_id": pl.String(),
    "position": pl.Int64(),
    "pctr": pl.Float64(),
    "bid": pl.Float64(),
}
"""The ads of an answer."""
SEEN = {
    "at_ms": pl.Int64(),
    "request_id": pl.String(),
    "user_id": pl.String(),
    "kind": pl.String(),
    "ad_id": pl.String(),
    "event_ms": pl.Int64(),
}
"""Events that name a request and an ad. `at_ms`: when Redis took it, `event_ms`: when it was, as the caller says."""
SHADOWED = {
    "at_ms": pl.Int64(),
    "request_id": pl.String(),
    "user_id": pl.String(),
    "shadow_bundle_id": pl.String(),
    "ad_id": pl.String(),
    "shadow_pctr": pl.Float64(),
}
"""What the shadow gave the ads of answers."""
SERVED = {"at_ms": pl.Int64()} | REQUESTS
KINDS = ("impression", "click")


def served_of(lines: Iterable[dict[str, Any]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """SERVED and SHOWN of raw answers."""
    requests: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for line in lines:
        head, answer = line["head"], line["answer"]
        arms = [f"{experiment}:{arm}" for experiment, arm in sorted(head["arms"].items())]
        requests.append({"at_ms": Id.of(line["id"]).ms} | head | {"arms": arms})
        ads = answer["ads"] if answer is not None else ()
        shown.extend({"request_id": head["request_id"]} | ad | {"ad_id": str(ad["ad_id"])} for ad in ads)
    return _frame(requests, SERVED), _frame(shown, SHOWN)


def seen_of(lines: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """SEEN of raw events."""
    found = []
    for line in lines:
        at = Id.of(line["id"]).ms
        for event in line["events"]:
            if event.get("request_id") is None or event.get("ad_id") is None or event["kind"] not in KINDS:
                continue
            found.append(
                {
                    "at_ms": at,
                    "request_id": event["request_id"],
                    "user_id": str(event["user_id"]),
                    "kind": event["kind"],
                    "ad_id": str(event["ad_id"]),
                    "event_ms": at if event.get("time_ms") is None else event["time_ms"],
                }
            )
    return _frame(found, SEEN)


def shadowed_of(lines: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """SHADOWED of raw scores of the shadow."""
    found = []
    for line in lines:
        scores = line["shadow"]
        alike = {
            "at_ms": Id.of(line["id"]).ms,
            "request_id": scores["request_id"],
            "user_id": scores["user_id"],
            "shadow_bundle_id": scores["bundle_id"],
        }
        for ad, pctr in zip(scores["ads"], scores["pctr"], strict=True):
            found.append(alike | {"ad_id": str(ad), "shadow_pctr": pctr})
    return _frame(found, SHADOWED)


def joined(requests: pl.DataFrame, shown: pl.DataFrame, seen: pl.DataFrame, window_ms: int) -> pl.DataFrame:
    """IMPRESSIONS of SERVED, SHOWN and SEEN: in the order of requests, then of positions. An ad that was reported
    twice is there once, with the first times. A click on an ad that nobody reported as seen is left out."""
    mine = seen.join(requests.select("request_id", "user_id", answered="at_ms"), on=["request_id", "user_id"])
    mine = mine.filter((pl.col("at_ms") - pl.col("answered")).abs() <= window_ms)
    key = ["request_id", "ad_id"]
    first = {
        kind: mine.filter(pl.col("kind") == kind).group_by(key).agg(pl.col("event_ms").min().alias(name))
        for kind, name in (("impression", "time_ms"), ("click", "click_time_ms"))
    }
    told = requests.with_row_index("number").select("number", "request_id", "user_id", "arms", "bundle_id")
    return (
        shown.unique(key, keep="first", maintain_order=True)
        .join(told, on="request_id")
        .join(first["impression"], on=key)
        .join(first["click"], on=key, how="left")
        .with_columns(clicked=pl.col("click_time_ms").is_not_null())
        .sort("number", "position")
        .select(pl.col(name).cast(kind) for name, kind in IMPRESSIONS.items())
    )


def beside(requests: pl.DataFrame, impressions: pl.DataFrame, shadowed: pl.DataFrame, window_ms: int) -> pl.DataFrame:
    """SHADOW of SERVED, their IMPRESSIONS and SHADOWED, in the order of impressions. Of scores that were written twice
    the first count."""
    mine = shadowed.join(
        requests.select("request_id", "user_id", answered="at_ms"), on=["request_id", "user_id"], maintain_order="left"
    )
    key = ["request_id", "ad_id"]
    first = (
        mine.filter((pl.col("at_ms") - pl.col("answered")).abs() <= window_ms)
        .unique(key, keep="first", maintain_order=True)
        .select(*key, "shadow_bundle_id", "shadow_pctr")
    )
    return impressions.join(first, on=key, maintain_order="left").select(
        pl.col(name).cast(kind) for name, kind in SHADOW.items()
    )


def _frame(rows: list[dict[str, Any]], schema: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame({name: [row.get(name) for row in rows] for name in schema}, schema=schema)
