"""The tables of outcomes as one row a user, by arm: what the statistics are computed from.

A user belongs to the arm it was first seen in, and what it met in another one does not count: with sticky arms that
happens only when a salt was changed or an arm was forced. Users of `allow` were not dealt by chance and are left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import polars as pl

from control.state import CONTROL, Experiment
from outcomes.statistics.moments import Float64

FAILED = 500
"""Answers from this HTTP status on failed. Below, the request was wrong or refused, whatever the arm."""
DAY_MS = 86_400_000


class Column(IntEnum):
    """Columns of a user's row, all of them sums."""

    CLICKS = 0
    IMPRESSIONS = 1
    REVENUE = 2
    """Bids of the ads that were clicked."""
    PROMISED = 3
    """pCTR of impressions that have one."""
    KEPT = 4
    """Clicks among those."""
    CLICKED = 5
    """1 with any click."""
    PAST_CLICKS = 6
    PAST_IMPRESSIONS = 7
    """Before the experiment; 0 without a past."""
    PAST = 8
    """1 with a past: users without one are told from users who saw and did not click."""


PASTS = (Column.PAST_CLICKS, Column.PAST_IMPRESSIONS, Column.PAST)


@dataclass(frozen=True, slots=True)
class Served:
    """Requests answered in an arm, by whatever users."""

    requests: int = 0
    failed: int = 0
    slow: int = 0
    """Longer than the limit asked for; 0 without one."""
    degraded: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Dealt:
    """An experiment's users since it started."""

    rows: dict[str, Float64]
    """Arm -> [users, Column], the control included."""
    served: dict[str, Served]
    """By arm."""
    moved: int
    """Users seen in another arm after their first, unless that one was stopped."""


def dealt(
    requests: pl.LazyFrame | pl.DataFrame,
    impressions: pl.LazyFrame | pl.DataFrame,
    experiment: Experiment,
    past_days: float,
) -> Dealt:
    """The users of the tables `requests` and `impressions`, by arm. `past_days`: how far back the past reaches."""
    start = int(experiment.started_at * 1000)
    since, names = pl.col("time_ms") >= start, [CONTROL, *(arm.name for arm in experiment.arms)]
    asked = _of_experiment(requests.lazy().filter(since), experiment, names)
    shown = _of_experiment(impressions.lazy().filter(since), experiment, names)
    chosen = ~pl.col("user_id").is_in(list(experiment.allow))
    keys = ("user_id", "arm")
    first = (
        pl.concat([each.filter(chosen).select(*keys, "time_ms") for each in (asked, shown)])
        .group_by(keys)
        .agg(pl.col("time_ms").min())
        .sort("user_id", "time_ms", "arm")
        .group_by("user_id", maintain_order=True)
        .agg(pl.col("arm").first(), others=pl.len() - 1)
    )
    outcome = shown.group_by(keys).agg(*_sums())
    window = pl.col("time_ms").is_between(start - int(past_days * DAY_MS), start, closed="left")
    past = (
        impressions.lazy()
        .filter(window)
        .group_by("user_id")
        .agg(past_clicks=pl.col("clicked").sum(), past_impressions=pl.len(), past=pl.lit(1.0))
    )
    users = first.join(outcome, on=keys, how="left").join(past, on="user_id", how="left").collect()
    over = [arm.name for arm in experiment.arms if arm.stopped]
    moved = users.filter((pl.col("others") > 0) & ~pl.col("arm").is_in(over)).height
    columns = [pl.col(column.name.lower()).cast(pl.Float64).fill_null(0.0) for column in Column]
    rows = {name: users.filter(pl.col("arm") == name).select(columns).to_numpy() for name in names}
    return Dealt({name: np.ascontiguousarray(found) for name, found in rows.items()}, _served(asked, experiment), moved)


def _sums() -> Iterable[pl.Expr]:
    scored, clicked = pl.col("pctr").is_not_null(), pl.col("clicked")
    return (
        clicked.sum().alias("clicks"),
        pl.len().alias("impressions"),
        pl.col("bid").filter(clicked).sum().alias("revenue"),
        pl.col("pctr").sum().alias("promised"),
        (clicked & scored).sum().alias("kept"),
        clicked.any().alias("clicked"),
    )


def _of_experiment(table: pl.LazyFrame, experiment: Experiment, names: list[str]) -> pl.LazyFrame:
    """Rows of the experiment, with `arm`."""
    prefix = f"{experiment.name}:"
    own = pl.element().filter(pl.element().str.starts_with(prefix))
    arm = pl.col("arms").list.eval(own).list.first().str.strip_prefix(prefix)
    return table.with_columns(arm=arm).filter(pl.col("arm").is_in(names))


def _served(asked: pl.LazyFrame, experiment: Experiment) -> dict[str, Served]:
    limit, took = experiment.guardrails.p99_ms, pl.col("total_ms")
    found = asked.group_by("arm").agg(
        requests=pl.len(),
        failed=(pl.col("status") >= FAILED).sum(),
        slow=(took > limit).sum() if limit is not None else pl.lit(0),
        degraded=pl.col("degraded").sum(),
        p50_ms=took.quantile(0.5, "linear"),
        p99_ms=took.quantile(0.99, "linear"),
    )
    return {row.pop("arm"): Served(**row) for row in found.collect().to_dicts()}
