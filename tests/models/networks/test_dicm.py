"""DICM against a plain loop; its table of reduced images; what it refuses."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bundle.schema import FeatureSchema
from models.checkpoint import open_checkpoint
from models.config import ConfigError
from models.continuing import base_of, continue_network
from models.data.prepare import prepare
from models.evaluation import evaluate, network_scorer
from models.networks.attention import Pooling
from models.networks.config import DicmConfig
from models.networks.dicm import Dicm
from models.networks.registry import build
from models.train import train_one
from models.training import average
from tests.market import Market, make_config
from tests.models.networks.small import SMALL, small
from tests.models.world import IMAGES, SCHEMA, image_vectors, random_batch, shake

IMAGE = 5
"""Its column on the ad side; in a behaviour it is the last."""


def smooth(**changes: Any) -> Dicm:
    """A network that computes the same in training as in evaluation: without batch statistics."""
    config = SMALL["dicm"].model_copy(update={"activation": "prelu", "attention_activation": "prelu"} | changes)
    torch.manual_seed(0)
    network = Dicm(DicmConfig.model_validate(config.model_dump()), SCHEMA)
    shake(network)
    network.take(image_vectors())
    return network


def asked(unit: nn.Module, q: Tensor, k: Tensor, mode: str) -> Tensor:
    """What a query [r] gets of images [L, r]: the concatenated form of the activation unit, in a loop."""
    assert isinstance(unit, Pooling)
    unit = unit.unit
    scores = []
    for each in k:
        x = unit.first_activation(unit.first(torch.cat([q, each, q - each, q * each])).unsqueeze(0))
        scores.append(unit.out(unit.second_activation(unit.second(x))).squeeze())
    if not scores:
        return torch.zeros_like(q)
    weights = torch.stack(scores)
    if mode == "softmax":
        weights = torch.softmax(weights / len(q) ** 0.5, dim=0)
    return (weights.unsqueeze(1) * k).sum(0)


@pytest.mark.parametrize("mode", ["sum", "softmax"])
@pytest.mark.parametrize("queries", ["both", "image"])
def test_equals_a_loop_over_candidates(queries: str, mode: str) -> None:
    network, batch = smooth(queries=queries, attention=mode).eval(), random_batch(4, 3, 6)
    vectors = torch.from_numpy(image_vectors()).float()
    with torch.no_grad():
        found = network(batch)
        pooled = torch.cat([network.of_request(batch), *network.of_histories(batch.histories)], dim=-1)
        ads = network.of_ads(batch)
        for m in range(12):
            request = int(batch.request[m])
            clicks = batch.histories["clicks"][request]
            behaviours = network.reduction(vectors[clicks[clicks[:, 0] != 0][:, -1]])
            image = network.reduction(vectors[batch.ads[m, IMAGE]])
            parts = [ads[m], image, asked(network.by_image["history_clicks"], image, behaviours, mode)]
            if network.by_fields is not None and network.query is not None:
                parts.append(asked(network.by_fields["history_clicks"], network.query(ads[m]), behaviours, mode))
            logit = network.mlp(torch.cat([pooled[request], *parts])).squeeze()
            assert network.position is not None
            expected = logit + network.position.weight[batch.positions[m], 0]
            torch.testing.assert_close(found[m], expected, rtol=0, atol=1e-5)


def test_training_reduces_the_batchs_images_as_the_table_has_them() -> None:
    network, batch = smooth(), random_batch(5, 4, 6)
    with torch.no_grad():
        trained = network.train()(batch)
        torch.testing.assert_close(network.eval()(batch), trained, rtol=0, atol=1e-5)


def test_the_table_follows_the_reducing_network() -> None:
    network, batch = smooth().eval(), random_batch(5, 4, 6)
    before, table = network(batch), network.images.reduced.clone()
    with torch.no_grad():
        network.train()
        network.reduction.out.weight.mul_(2)
        torch.testing.assert_close(network.images.reduced, table, rtol=0, atol=0)
        network.eval()
    assert (network(batch) - before).abs().max() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(
            network.images.reduced, network.reduction(network.images.vectors(torch.arange(IMAGES)))
        )


def test_averaged_weights_have_a_table_of_their_own_and_read_the_same_vectors() -> None:
    network = smooth()
    averaged = copy.deepcopy(network)
    assert averaged.images.source is network.images.source
    with torch.no_grad():
        network.reduction.out.weight.add_(1.0)
        average(averaged, network, 0.5, 100)
        averaged.eval()
        every = averaged.images.vectors(torch.arange(IMAGES))
        torch.testing.assert_close(averaged.images.reduced, averaged.reduction(every))


def test_an_image_tells_ads_apart_whose_ids_are_unknown() -> None:
    network, batch = smooth().eval(), random_batch(1, 8, 5)
    ads = torch.ones_like(batch.ads)
    ads[:, IMAGE] = torch.arange(2, 10)
    with torch.no_grad():
        logits = network(replace(batch, ads=ads, ad_numbers=torch.zeros(8, 1), positions=torch.zeros(8).long()))
    assert len(set(logits.tolist())) == 8


def test_only_the_images_of_a_batch_are_read() -> None:
    """The rest of the vectors stays on disk."""
    network, batch = smooth().train(), random_batch(2, 2, 3)
    seen = torch.cat([batch.ads[:, IMAGE], batch.histories["clicks"][..., -1].flatten()]).numpy()
    vectors = image_vectors()
    vectors[np.setdiff1d(np.arange(IMAGES), seen)] = np.nan
    network.take(vectors)
    assert torch.isfinite(network(batch)).all()


def test_without_vectors_it_scores_and_does_not_train() -> None:
    network, batch = small("dicm"), random_batch(2, 2, 3)
    fresh = build(SMALL["dicm"], SCHEMA)
    fresh.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(fresh.eval()(batch), network(batch), rtol=0, atol=0)
    with pytest.raises(ConfigError, match="the vectors of 'image' are not there"):
        fresh.train()(batch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": "photo"}, r"model.vectors: 'photo' is not one ad field with vectors, there are \['image'\]"),
        ({"vectors": "ad"}, r"model.vectors: 'ad' is not one ad field with vectors"),
    ],
)
def test_a_field_without_vectors_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(SMALL["dicm"].model_copy(update=changes), SCHEMA)


def test_data_without_images_and_histories_without_them_are_refused() -> None:
    plain = SCHEMA.model_dump()
    plain["ad"]["fields"] = plain["ad"]["fields"][:-1]
    plain["histories"][0]["fields"] = ["ad", "tags"]
    with pytest.raises(ConfigError, match=r"None is not one ad field with vectors, there are \[\]; the dataset's desc"):
        build(SMALL["dicm"], FeatureSchema.model_validate(plain))
    blind = SCHEMA.model_dump()
    blind["histories"][0]["fields"] = ["ad", "tags"]
    with pytest.raises(ConfigError, match="no history has the field 'image', so no behaviour has an image"):
        build(SMALL["dicm"], FeatureSchema.model_validate(blind))


def test_vectors_of_another_size_are_refused(market: Market) -> None:
    network = build(SMALL["dicm"], market.data.schema)
    wrong = replace(market.data, vectors={"image": np.zeros((3, 6), np.float32)})
    with pytest.raises(ConfigError, match=r"vectors of 'image' must be \[302, 6\], they are \[3, 6\]"):
        network.prepare(wrong)
    with pytest.raises(ConfigError, match="they are None"):
        network.prepare(replace(market.data, vectors={}))


def test_a_checkpoint_scores_without_the_vectors_as_the_trained_network(market: Market, tmp_path: Path) -> None:
    metrics = train_one(
        make_config("tiny-dicm", SMALL["dicm"].model_dump(), averaging=0.9), market.data, tmp_path, 1, progress=False
    )
    network = open_checkpoint(tmp_path).network()
    assert evaluate(network_scorer(network), market.data, "test")["auc"] == pytest.approx(metrics["test.auc"], abs=1e-9)
    assert isinstance(network, Dicm)
    assert network.images.source is None
    assert network.images.reduced[2:].std(0).min() > 0
    network.prepare(market.data)
    stored = network.images.reduced.clone()
    network.eval()
    torch.testing.assert_close(network.images.reduced, stored, rtol=0, atol=1e-6)


def test_continuing_keeps_the_reducing_network_and_makes_the_table_of_the_new_vectors(
    market: Market, tmp_path: Path
) -> None:
    config = make_config("tiny-dicm", SMALL["dicm"].model_dump(), epochs=1, evaluations=1)
    spec = market.data.prepared.spec
    assert spec.split.valid_from is not None
    assert spec.split.test_from is not None
    early = spec.split.model_copy(update={"valid_from": spec.split.valid_from // 2 + spec.split.test_from // 2})
    first = prepare(spec, market.raw, tmp_path / "first", progress=False)
    train_one(config, first, tmp_path / "yesterday", 1, progress=False)
    yesterday = open_checkpoint(tmp_path / "yesterday")
    data = prepare(
        spec.model_copy(update={"split": early}),
        market.raw,
        tmp_path / "second",
        progress=False,
        base=base_of(yesterday),
    )
    network, old = build(config.model, data.schema), yesterday.network()  # type: ignore[arg-type]
    assert isinstance(network, Dicm)
    assert isinstance(old, Dicm)
    network.prepare(data)
    continue_network(network, data, yesterday)
    torch.testing.assert_close(network.reduction.state_dict(), old.reduction.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(network.eval().images.reduced, old.images.reduced, rtol=0, atol=1e-6)
    metrics = train_one(config, data, tmp_path / "today", 1, progress=False, earlier=yesterday)
    assert 0 < metrics["test.auc"] < 1
