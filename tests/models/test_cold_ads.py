"""Figures of ads by their training impressions, against a count of the log's rows."""

import numpy as np
import polars as pl
import pytest

from export.assemble import Trained
from models.breakdown import figures
from models.cold_ads import GROUPS, by_exposure, groups_of, shown_in_training
from models.data.spec import DataError
from models.evaluation import network_scorer, score_split
from tests.market import Market


def test_borders_of_the_groups() -> None:
    found = [GROUPS[i] for i in groups_of(np.array([0, 1, 9, 10, 99, 100, 10_000]))]
    assert found == ["never", "1-9", "1-9", "10-99", "10-99", "100+", "100+"]


def test_impressions_are_those_of_the_log(market: Market) -> None:
    log = pl.read_parquet(market.raw / "log/*.parquet")
    train = log.filter(pl.col("time_ms") < market.data.prepared.spec.split.valid_from)
    counts = dict(train.group_by("ad_id").len().iter_rows())
    found = shown_in_training(market.data)
    assert found[:2].tolist() == [0, 0]
    assert found[2:].tolist() == [counts.get(ad, 0) for ad in market.data.ads.index.values.tolist()]


def test_each_group_is_measured_on_its_own_rows(market: Market, trained: Trained) -> None:
    score = network_scorer(trained.finerank.network())
    found = by_exposure(score, market.data, "test", 100)
    assert sum(of_it["impressions"] for of_it in found.values()) == market.data.prepared.splits["test"].impressions
    assert set(found) <= set(GROUPS)
    assert len(found) >= 2
    scored = score_split(score, market.data, "test")
    shown = shown_in_training(market.data)[scored.rows]
    mine = (shown >= 10) & (shown < 100)
    expected = figures(scored.labels[mine], scored.scores[mine], scored.users[mine])
    assert found["10-99"] == pytest.approx(expected, abs=1e-6)


def test_scores_that_are_no_numbers_are_refused(market: Market) -> None:
    with pytest.raises(DataError, match=r"split 'valid', ads shown \S+ in training: \d+ of \d+ scores are not finite"):
        by_exposure(lambda batch: np.full(len(batch.labels), np.nan, np.float32), market.data, "valid")
