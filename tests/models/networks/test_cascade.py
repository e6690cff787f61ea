"""An ad's statistic: counted on the training split, without a training row's own label, kept in the checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.schema import FeatureSchema, Side
from models.checkpoint import open_checkpoint
from models.config import TrainConfig
from models.data.batches import batches
from models.data.spec import DataError
from models.networks.cascade import Cascade
from models.networks.config import LrConfig, QscoreConfig
from models.networks.lr import Lr
from models.qscore import fit_qscore
from models.train import train_one
from tests.market import Market, make_config
from tests.models.world import SCHEMA, random_batch


def counted() -> Cascade:
    """Ad 3 was clicked 2 times in 5, ad 4 never in 1; the prior is worth 10 impressions at 20 %."""
    cascade = Cascade(SCHEMA)
    cascade.shown[3], cascade.clicks[3], cascade.shown[4] = 5, 2, 1
    cascade.rate.fill_(0.2)
    cascade.strength.fill_(10)
    return cascade


def odds(clicks: float, shown: float) -> float:
    return float(np.log((clicks + 2) / (shown - clicks + 8)) - np.log(0.2 / 0.8))


def test_a_training_rows_own_label_is_not_in_its_statistic() -> None:
    cascade, batch = counted(), random_batch(1, 5, 3)
    batch.ads[:, 0] = torch.tensor([3, 3, 4, 7, 1])
    batch = replace(batch, labels=torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]))
    left_out = cascade.train()(batch)
    np.testing.assert_allclose(left_out, [odds(1, 4), odds(2, 4), 0, 0, 0], atol=1e-6)
    whole = cascade.eval()(batch)
    np.testing.assert_allclose(whole, [odds(2, 5), odds(2, 5), odds(0, 1), 0, 0], atol=1e-6)
    flipped = cascade.train()(replace(batch, labels=1 - batch.labels))
    assert flipped[0] > left_out[0], "the more so as a click of its own would have raised it"
    assert torch.equal(cascade.eval()(replace(batch, labels=1 - batch.labels)), whole)


def test_counts_are_those_of_the_training_split_and_the_smoothing_qscores(market: Market) -> None:
    cascade = Cascade(market.data.schema).eval()
    cascade.count(market.data)
    size = market.data.prepared.splits["train"]
    assert cascade.shown.sum() == size.impressions
    assert cascade.clicks.sum() == size.clicks
    qscore = fit_qscore(QscoreConfig(kind="qscore"), market.data)
    batch = next(batches(market.data, "test", 200))
    expected = torch.logit(torch.from_numpy(qscore.scores[batch.rows])) - torch.logit(torch.tensor(qscore.mean))
    torch.testing.assert_close(cascade(batch), expected, rtol=1e-4, atol=1e-4)


def test_it_is_trained_with_and_kept_in_the_checkpoint(market: Market, tmp_path: Path) -> None:
    config = make_config("cascade", {"kind": "lr", "cascade": True}, learning_rate=0.01)
    metrics = train_one(config, market.data, tmp_path / "run", seed=1, progress=False)
    assert metrics["model.nonzero_rows"] > 0
    network = open_checkpoint(tmp_path / "run").network()
    assert isinstance(network, Lr)
    assert network.cascade is not None
    assert network.cascade.shown.sum() == market.data.prepared.splits["train"].impressions
    assert network.of_statistic is not None
    assert network.of_statistic.abs() > 0


def test_an_ads_key_that_is_no_feature_is_refused() -> None:
    fields = tuple(field for field in SCHEMA.ad.fields if field.name != "ad")
    schema = FeatureSchema(user_key="user", ad_key="ad", ad=Side(fields=fields))
    with pytest.raises(DataError, match="the ads' key 'ad' is none of their categorical features"):
        Lr(LrConfig(kind="lr", cascade=True), schema)


def test_hidden_ids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown_rate is 0\.1, but a cascade leaves each row's own label out"):
        TrainConfig.model_validate(
            {
                "name": "x",
                "dataset": "x.yaml",
                "model": {"kind": "lr", "cascade": True},
                "training": {"unknown_rate": 0.1},
            }
        )
