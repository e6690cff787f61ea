"""docs/verdict.md: its tables are those of the code."""

from typing import get_args

from control.state import Guardrails
from outcomes.results import Decision, Metric, Reading
from tests.docs import keys
from tests.docs.pages import codes, read, table

PAGE = read("docs/verdict.md")


def test_keys_are_those_of_the_reading() -> None:
    keys.check(PAGE, Reading)


def test_every_decision_is_explained() -> None:
    assert [row[0] for row in table(PAGE, "decisions")] == list(get_args(Decision))


def test_every_guardrail_is_explained() -> None:
    limits = [codes(row[0])[0] for row in table(PAGE, "guardrails")]
    assert [*limits, "min_impressions"] == list(Guardrails.model_fields)


def test_both_metrics_that_may_decide_are_named() -> None:
    (meaning,) = (row[2] for row in table(PAGE, "keys Reading") if codes(row[0]) == ["metric"])
    assert all(metric in meaning for metric in get_args(Metric))
