"""Ads that stand together in histories start close together; ids in no history keep their start. A factorisation
machine trained before hands on what it learnt, whatever interrupts."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.config import ConfigError, Pretraining
from models.networks.config import DinConfig, FmConfig, FnnConfig, LrConfig
from models.networks.din import Din
from models.networks.fnn import Fnn
from models.networks.registry import build
from models.pretraining import cooccurrence_embeddings, machine_before, pretrain
from models.train import train_one
from tests.market import Market, make_config
from tests.models.test_training import at_step, left_in, run, same, steps_of

FNN: dict[str, Any] = {"kind": "fnn", "embedding": 4, "hidden": [12, 6], "dropout": 0.2, "position_bias": True}
FROM_HISTORY = {"history": "clicks", "field": "ad_id", "std": 0.2}


def test_ads_of_the_same_histories_are_neighbours() -> None:
    random = np.random.default_rng(0)
    groups = [np.arange(2, 12), np.arange(12, 22)]
    histories = [random.choice(groups[i % 2], 5, replace=False) for i in range(200)]
    found = cooccurrence_embeddings(histories, 25, 4, std=0.1)
    assert found.shape == (25, 4)
    assert np.abs(found[[0, 1, 22, 23, 24]]).max() < 1e-6, "they stand in no history"
    unit = found[2:22] / np.linalg.norm(found[2:22], axis=1, keepdims=True)
    likeness = unit @ unit.T
    assert likeness[:10, :10].mean() > 0.5 > likeness[:10, 10:].mean() + 0.4
    assert found[2:22].std() == pytest.approx(0.1, rel=1e-3)


def test_equals_the_plain_formula() -> None:
    histories = [np.array([2, 3, 4]), np.array([3, 4]), np.array([4, 5, 2]), np.array([5, 3])]
    together = np.zeros((6, 6))
    for ids in histories:
        for i in ids:
            for j in ids:
                if i != j:
                    together[i, j] += 1 / len(ids)
    total = together.sum(1)
    context = total**0.75
    with np.errstate(divide="ignore", invalid="ignore"):
        ppmi = np.nan_to_num(np.maximum(np.log(together * context.sum() / np.outer(total, context)), 0))
    u, s, _ = np.linalg.svd(ppmi)
    expected = u[:, :2] * np.sqrt(s[:2])
    expected *= 0.3 / expected[total > 0].std()
    found = cooccurrence_embeddings(histories, 6, 2, std=0.3)
    # singular vectors have no sign and no order of their own: what counts are the products between ads
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)


def test_too_few_ads_are_refused_with_numbers() -> None:
    with pytest.raises(ValueError, match="2 different ids in the histories, more than 4 are needed"):
        cooccurrence_embeddings([np.array([2, 3])], 10, 4, std=0.1)


def test_pretraining_changes_one_table_only(market: Market) -> None:
    config = DinConfig(kind="din", embedding=4)
    torch.manual_seed(0)
    plain = Din(config, market.data.schema)
    torch.manual_seed(0)
    started = Din(config, market.data.schema)
    pretrain(started, market.data, Pretraining(history="clicks", field="ad_id", std=0.2))
    changed = (plain.arena.weight != started.arena.weight).any(1).nonzero().flatten()
    first = started.arena.starts["ad_id"] + 2
    size = next(field.size for field in market.data.schema.ad.id_fields if field.name == "ad_id")
    assert len(changed) > 50
    assert first <= int(changed.min())
    assert int(changed.max()) < first + size - 2


@pytest.mark.parametrize(("history", "field"), [("views", "ad_id"), ("clicks", "advertiser")])
def test_a_field_that_is_not_there_is_named(market: Market, history: str, field: str) -> None:
    din = Din(DinConfig(kind="din", embedding=4), market.data.schema)
    with pytest.raises(ConfigError, match=f"no field '{field}' in a history '{history}'"):
        pretrain(din, market.data, Pretraining(history=history, field=field))


def test_the_machine_is_trained_with_the_settings_of_the_network() -> None:
    config = make_config("after", FNN, epochs=5, averaging=0.9, pretraining=FROM_HISTORY | {"fm_epochs": 2})
    assert isinstance(config.model, FnnConfig)
    before = machine_before(config, config.model)
    assert before is not None
    assert (before.name, before.training.epochs, before.training.averaging) == ("after-fm", 2, 0.9)
    assert before.model == FmConfig(kind="fm", embedding=4, position_bias=True)
    assert before.training.pretraining == Pretraining.model_validate(FROM_HISTORY), (
        "the machine starts from co-occurrence"
    )
    assert machine_before(make_config("alone", FNN, pretraining=FROM_HISTORY), config.model) is None


def test_a_network_starts_from_the_machines_best_weights(market: Market, tmp_path: Path) -> None:
    """With a learning rate that moves nothing, the network is still what it started from."""
    config = make_config("still", FNN, epochs=1, learning_rate=1e-12, pretraining={"fm_epochs": 1})
    network = run(market, tmp_path, config)
    assert isinstance(network, Fnn)
    machine = torch.load(tmp_path / "fm/best.pt", weights_only=True)
    torch.testing.assert_close(network.arena.weight, machine["arena.weight"], rtol=0, atol=1e-8)
    torch.testing.assert_close(network.first_order.arena.weight, machine["first_order.arena.weight"], rtol=0, atol=1e-8)
    assert len((tmp_path / "fm/training.jsonl").read_text().splitlines()) == 2, "two evaluations an epoch, as asked for"


@pytest.mark.parametrize("where", ["machine", "network"])
def test_interrupted_in_either_it_ends_the_same(market: Market, tmp_path: Path, where: str) -> None:
    config = make_config("stopped", FNN, pretraining=FROM_HISTORY | {"fm_epochs": 1})
    steps = steps_of(market, config)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(market, whole, config)
    step = 3 if where == "machine" else steps + 3
    with at_step(step, lambda: signal.raise_signal(signal.SIGINT)), pytest.raises(KeyboardInterrupt):
        run(market, broken, config)
    assert (broken / "last.pt").exists() == (where == "network")
    torch.manual_seed(999)
    run(market, broken, config)
    for folder in ("", "fm"):
        assert same(left_in(whole / folder), left_in(broken / folder))


def test_the_time_of_pretraining_is_reported_apart(market: Market, tmp_path: Path) -> None:
    config = make_config("timed", FNN, epochs=1, pretraining={"fm_epochs": 1})
    found = train_one(config, market.data, tmp_path / "timed", seed=1, progress=False)
    assert found["pretraining.seconds"] > 0
    assert json.loads((tmp_path / "timed/metrics.json").read_text())["pretraining.seconds"] > 0


def test_a_linear_model_has_no_embeddings_to_start(market: Market) -> None:
    lr = build(LrConfig(kind="lr"), market.data.schema)
    with pytest.raises(ConfigError, match="behaviours and ads share no 'ad_id' embeddings in this kind of model"):
        pretrain(lr, market.data, Pretraining(history="clicks", field="ad_id"))
