"""Figures of each scene, against those of its rows alone."""

import math

import numpy as np
import pytest

from export.assemble import Trained
from models.breakdown import by_value, figures, table
from models.data.context_values import restricted
from models.data.spec import DataError
from models.evaluation import evaluate, network_scorer
from tests.market import Market


def test_each_value_is_measured_on_its_own_rows(market: Market, trained: Trained) -> None:
    score = network_scorer(trained.finerank.network())
    found = by_value(score, market.data, "test", "scene", 100)
    assert set(found) == {"feed", "search", "detail"}
    sizes = [of_it["impressions"] for of_it in found.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == market.data.prepared.splits["test"].impressions
    for scene, of_it in found.items():
        alone = evaluate(score, restricted(market.data, "scene", scene), "test")
        for name in ("auc", "gauc", "logloss", "impressions"):
            assert of_it[name] == pytest.approx(alone[name], abs=1e-6)
    assert len({of_it["auc"] for of_it in found.values()}) == 3


def test_a_value_without_clicks_has_no_auc() -> None:
    found = figures(np.zeros(3, np.float32), np.array([0.1, 0.2, 0.3], np.float32), np.arange(3))
    assert math.isnan(found["auc"])
    assert math.isnan(found["gauc"])
    assert (found["click_rate"], found["impressions"]) == (0, 3)
    printed = table("scene", {"feed": found}).splitlines()
    assert printed[1].split() == ["feed", "3", "0.0000", "undefined", "undefined", f"{found['logloss']:.4f}"]


def test_scores_that_are_no_numbers_are_refused_with_the_value(market: Market) -> None:
    with pytest.raises(DataError, match=r"split 'valid', scene '\w+': \d+ of \d+ scores are not finite"):
        by_value(lambda batch: np.full(len(batch.labels), np.nan, np.float32), market.data, "valid", "scene")
