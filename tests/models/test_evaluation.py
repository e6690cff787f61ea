"""A split's metrics do not depend on how it is batched, and use each model's own probabilities."""

import numpy as np
import polars as pl
import pytest
import torch

from export.assemble import Trained
from models.data.batches import Batch, batches
from models.evaluation import evaluate, network_scorer, table_scorer
from models.metrics import auc, gauc, log_loss
from tests.market import Market


@pytest.mark.parametrize("split", ["valid", "test"])
def test_metrics_are_those_of_all_rows_together(market: Market, trained: Trained, split: str) -> None:
    network, data = trained.finerank.network(), market.data
    labels: list[int] = []
    users: list[int] = []
    truth: list[float] = []
    for part in data.parts(split):
        for request in pl.read_parquet(part).iter_rows(named=True):
            labels += request["labels"]
            users += [request["user"]] * len(request["labels"])
            truth += request["truth"]
    with torch.no_grad():
        scores = torch.cat([torch.sigmoid(network(batch)) for batch in batches(data, split, 10)]).numpy()
    found = evaluate(network_scorer(network), data, split)
    assert found["auc"] == pytest.approx(auc(labels, scores), abs=1e-6)
    assert found["gauc"] == pytest.approx(gauc(labels, scores, users).value, abs=1e-6)
    assert found["logloss"] == pytest.approx(log_loss(labels, scores), abs=1e-6)
    assert found["best_auc"] == pytest.approx(auc(labels, np.array(truth, dtype=np.float32)))
    assert (found["impressions"], found["users"]) == (len(labels), len(set(users)))


@pytest.mark.parametrize("size", [1, 37, 100_000])
def test_the_batch_size_does_not_matter(market: Market, trained: Trained, size: int) -> None:
    score = network_scorer(trained.prerank.network())
    found, expected = (evaluate(score, market.data, "valid", size) for size in (size, 4096))
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_network_is_measured_in_evaluation_mode(market: Market, trained: Trained) -> None:
    network = trained.finerank.network().train()
    batch = next(batches(market.data, "valid", 200))
    score = network_scorer(network)
    first = score(batch)
    assert not network.training
    np.testing.assert_array_equal(first, score(batch))
    with torch.no_grad():
        np.testing.assert_array_equal(first, torch.sigmoid(trained.finerank.network()(batch)).numpy())


def test_a_table_scores_by_the_candidates_row(market: Market) -> None:
    table = np.linspace(0, 1, len(market.data.ads.fields)).astype(np.float32)
    batch: Batch = next(batches(market.data, "valid", 200))
    np.testing.assert_array_equal(table_scorer(table)(batch), table[batch.rows])


def test_the_truth_itself_is_the_best(market: Market) -> None:
    def know_all(batch: Batch) -> np.ndarray:
        assert batch.truth is not None
        return batch.truth

    found = evaluate(know_all, market.data, "test")
    assert found["auc"] == found["best_auc"]
    assert found["calibration"] == pytest.approx(1, abs=0.25)
