"""The tables of outcomes as one row a user, by arm."""

import numpy as np
import polars as pl
import pytest

from control.state import Experiment
from outcomes.arm_users import DAY_MS, Column, Dealt, dealt
from tests.outcomes.simulated import START, experiment, impression, request, tables


def of(requests: list[dict[str, object]], impressions: list[dict[str, object]], one: Experiment | None = None) -> Dealt:
    return dealt(*tables(requests, impressions), one or experiment(), past_days=28)


def test_a_users_row_sums_all_of_the_user() -> None:
    shown = [
        impression("u", "new", clicked=True, pctr=0.25, bid=3.0),
        impression("u", "new", clicked=True, pctr=None, bid=4.0),
        impression("u", "new", pctr=0.5, bid=100.0),
    ]
    (row,) = of([request("u", "new")], shown).rows["new"]
    assert dict(zip(Column, row, strict=True)) == {
        Column.CLICKS: 2,
        Column.IMPRESSIONS: 3,
        Column.REVENUE: 7.0,
        Column.PROMISED: 0.75,
        Column.KEPT: 1,
        Column.CLICKED: 1,
        Column.PAST_CLICKS: 0,
        Column.PAST_IMPRESSIONS: 0,
        Column.PAST: 0,
    }


def test_what_was_before_the_start_is_the_past_as_far_back_as_asked() -> None:
    shown = [
        impression("u", time_ms=START - 1, clicked=True),
        impression("u", "new", time_ms=START - 28 * DAY_MS),
        impression("u", time_ms=START - 28 * DAY_MS - 1, clicked=True),
        impression("u", "new", time_ms=START),
    ]
    (row,) = of([request("u", "new")], shown).rows["new"]
    past = [row[each] for each in (Column.PAST_CLICKS, Column.PAST_IMPRESSIONS, Column.PAST, Column.IMPRESSIONS)]
    assert past == [1, 2, 1, 1]


def test_users_without_impressions_count_and_those_of_other_experiments_do_not() -> None:
    asked = [request("a", "new"), request("b", "control"), request("c"), request("d", time_ms=START - 1)]
    asked.append(request("e", arms=["try-2:new"]))
    found = of(asked, [impression("c"), impression("e", arms=["try-2:new"])])
    assert {name: len(rows) for name, rows in found.rows.items()} == {"control": 1, "new": 1}
    assert not np.any(found.rows["new"])


def test_a_user_whose_request_was_not_logged_counts_by_the_impressions() -> None:
    assert of([], [impression("u", "new", clicked=True)]).rows["new"][0, Column.CLICKS] == 1


def test_a_user_of_two_arms_belongs_to_the_first_and_only_what_it_saw_there_counts() -> None:
    asked = [request("u", "new", time_ms=START + 1), request("u", "control", time_ms=START + 9), request("v", "new")]
    shown = [impression("u", "new"), impression("u", "control", clicked=True)]
    found = of(asked, shown)
    assert found.moved == 1
    assert len(found.rows["control"]) == 0
    assert found.rows["new"][:, Column.IMPRESSIONS].tolist() == [1, 0]
    assert found.rows["new"][:, Column.CLICKS].sum() == 0
    over = experiment(arms=[{"name": "new", "weight": 0.5, "stopped": True}])
    assert of(asked, shown, over).moved == 0


def test_users_of_the_allow_list_were_not_drawn() -> None:
    found = of([request("u", "new"), request("v", "new")], [impression("u", "new")], experiment(allow={"u": "new"}))
    assert len(found.rows["new"]) == 1
    assert found.served["new"].requests == 2


def test_requests_are_counted_by_the_arm_that_answered() -> None:
    asked = [request(f"u{i}", "new", total_ms=float(i), status=[200, 200, 404, 500, 503][i % 5]) for i in range(100)]
    asked += [request("x", "control", degraded=True)]
    found = of(asked, [], experiment(guardrails={"p99_ms": 89.0})).served
    assert (found["new"].requests, found["new"].failed, found["new"].slow) == (100, 40, 10)
    assert found["new"].p50_ms == pytest.approx(49.5)
    assert found["new"].p99_ms == pytest.approx(98.01)
    assert (found["control"].degraded, found["control"].slow) == (1, 0)


def test_empty_tables_are_arms_without_users() -> None:
    found = of([], [])
    assert [rows.shape for rows in found.rows.values()] == [(0, len(Column))] * 2
    assert (found.served, found.moved) == ({}, 0)


def test_lazy_tables_are_taken_too() -> None:
    requests, impressions = tables([request("u", "new")], [impression("u", "new")])
    lazily = dealt(requests.lazy(), impressions.lazy(), experiment(), 28)
    assert isinstance(requests.lazy(), pl.LazyFrame)
    assert lazily.rows["new"].tolist() == dealt(requests, impressions, experiment(), 28).rows["new"].tolist()
