"""Every network in the fine-rank place, every two towers in the pre-rank place: from a raw log to HTTP answers that are
torch's. Which networks there are is said in tests/models/networks/small.py, so a new one is served here too."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import torch

from bundle.manifest import read_manifest
from bundle.schema import FIRST_KNOWN
from export.assemble import Trained
from export.command import main
from models.checkpoint import Checkpoint, begin, open_checkpoint, save_state, write_json
from models.config import TrainConfig
from models.funnel import with_candidates
from models.networks.config import QscoreConfig
from models.networks.network import TwoTower
from models.networks.registry import build
from models.train import train_one
from service.loaded import LoadedBundle
from service.loading import load_bundle
from tests.end_to_end.offline import all_ads, batch_of
from tests.end_to_end.test_serving_parity import CONTEXT, TOLERANCE, Raw, ranking, scores
from tests.market import Demo, Market, make_config
from tests.models.networks.small import SMALL
from tests.models.world import shake
from tests.service.conftest import call
from tests.service.world import settings_for

SERVED = [
    *sorted({config.kind: name for name, config in reversed(SMALL.items())}.values()),
    "pnn-outer",
    "mtl-related-product",
]
"""The first network of every kind, the other PNN, and one of likes with clicks beside them: 4 s of one core each.
tests/export/test_request_graph.py has the graphs of all."""
NAMES = {
    "tab": "scene",
    "context.tab": "context.scene",
    "ad.ad": "ad.ad_id",
    "ad.tags": "ad.category",
    "ad.price": "ad.price_level",
    "ad.length": "ad.quality",
    "clicks.ad": "clicks.ad_id",
    "clicks.tags": "clicks.category",
}
"""What fields of tests.models.world, which the small configurations name, are called on the marketplace."""


def on_market(value: Any) -> Any:
    """A configuration with the marketplace's names."""
    if isinstance(value, dict):
        return {key: on_market(each) for key, each in value.items()}
    if isinstance(value, list):
        return [on_market(each) for each in value]
    return NAMES.get(value, value) if isinstance(value, str) else value


def config_of(name: str) -> TrainConfig:
    """A small network's. One with a related task learns likes, and clicks beside them."""
    model = on_market(SMALL[name].model_dump(mode="json"))
    label = "like" if model.get("related") else "click"
    if label == "like":
        model["related"] |= {"label": "click"}
    return make_config(f"tiny-{name}", model, epochs=1, evaluations=1, label=label)


def untrained(name: str, market: Market, folder: Path) -> Checkpoint:
    """A checkpoint of a small network with random weights, and nothing measured."""
    config = config_of(name)
    assert not isinstance(config.model, QscoreConfig)
    torch.manual_seed(1)
    network = build(config.model, market.data.schema)
    network.prepare(market.data)
    shake(network)
    begin(folder, config, market.data, seed=1)
    save_state(folder / "best.pt", network.state_dict())
    write_json(folder / "metrics.json", {})
    return open_checkpoint(folder)


@pytest.fixture(scope="module")
def dssm(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("dssm")
    train_one(config_of("dssm"), market.data, folder, seed=1, progress=False)
    return open_checkpoint(folder)


def exported(trained: Trained, folder: Path) -> Path:
    """The bundle that `adrank export` makes of these checkpoints."""
    places = {"finerank": trained.finerank.folder, "prerank": trained.prerank.folder, "qscore": trained.qscore.folder}
    places |= {"prepared": trained.data.folder, "out": folder}
    assert main([*(text for name, place in places.items() for text in (f"--{name}", str(place))), "--id", "any"]) == 0
    return folder / "any"


@pytest.fixture(scope="module", params=SERVED)
def world(
    request: pytest.FixtureRequest,
    market: Market,
    trained: Trained,
    dssm: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Demo:
    """A bundle with this network in the fine-rank place, and before it too where it can be."""
    folder = tmp_path_factory.mktemp("any")
    checkpoint = untrained(request.param, market, folder / "checkpoint")
    towers = isinstance(checkpoint.network(), TwoTower)
    parts = Trained(market.data, checkpoint, checkpoint if towers else dssm, trained.qscore)
    return Demo(folder, exported(parts, folder / "bundles"), market.raw, market.data, parts)


def test_it_is_served_as_torch_computes_it(world: Demo) -> None:
    settings, raw = settings_for(world.bundle), Raw(world)
    loaded = load_bundle(settings.bundle, settings)
    stages = loaded.bundle.manifest.stages
    parts = world.trained
    kinds = (parts.prerank.config.model.kind, parts.finerank.config.model.kind)
    assert (stages.prerank.model, stages.finerank.model) == kinds
    labels = ("click", parts.prerank.config.training.label, parts.finerank.config.training.label)
    assert (stages.qscore.label, stages.prerank.label, stages.finerank.label) == labels
    ads = all_ads(world.data)

    async def scenario(client: httpx.AsyncClient) -> None:
        seen = []
        for user in raw.some():
            expected = raw.pctr(user)
            seen.append(await scores(client, user, ads))
            np.testing.assert_allclose(seen[-1], expected, rtol=0, atol=TOLERANCE)
            ecpm = {ad: pctr * raw.bids[ad] for ad, pctr in zip(ads, expected, strict=True) if ad in raw.eligible}
            ranked = await ranking(client, user, 50)
            found = [each["ecpm"] for each in ranked]
            np.testing.assert_allclose(found, [ecpm[each["ad_id"]] for each in ranked], rtol=0, atol=1e-4)
            np.testing.assert_allclose(found, sorted(ecpm.values(), reverse=True)[:50], rtol=0, atol=1e-4)
        assert np.std(seen, axis=0).max() > 10 * TOLERANCE, "users differ"
        assert np.std(seen, axis=1).max() > 10 * TOLERANCE, "ads differ"

    call(settings, scenario, loaded)


@pytest.fixture(scope="module")
def loaded(trained: Trained, dssm: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    """A DSSM before the usual DIN."""
    parts = Trained(trained.data, trained.finerank, dssm, trained.qscore)
    folder = exported(parts, tmp_path_factory.mktemp("prerank"))
    return load_bundle(folder, settings_for(folder))


def test_stored_vectors_give_the_logits_of_dssm(loaded: LoadedBundle, dssm: Checkpoint) -> None:
    stage = read_manifest(loaded.bundle.folder).stages.prerank
    assert (stage.model, stage.dimension) == ("dssm", 6)
    network, ads = dssm.network(), loaded.bundle.ads
    assert isinstance(network, TwoTower)
    ids, numbers = torch.tensor(ads.fields[FIRST_KNOWN:]).long(), torch.tensor(ads.numbers[FIRST_KNOWN:])
    with torch.no_grad():
        exact = network.ad_vectors(ids, numbers).numpy()
    steps = np.abs(exact).max(axis=1, keepdims=True) / 254
    assert (np.abs(ads.vectors.floats(slice(FIRST_KNOWN, None)) - exact) <= steps * 1.001).all()


def test_the_service_pre_ranks_by_dssm(
    loaded: LoadedBundle, dssm: Checkpoint, market: Market, trained: Trained
) -> None:
    """Twenty of all eligible ads are left for the fine-ranker: those that DSSM, by its logits in torch, values most."""
    keep, raw = 20, Raw(Demo(market.root, loaded.bundle.folder, market.raw, market.data, trained))
    ads = all_ads(market.data)
    bids = np.array([raw.bids[ad] for ad in ads])
    settings = settings_for(loaded.bundle.folder, retrieval_keep=300, qscore_keep=300, prerank_keep=keep)

    def values(user: int) -> npt.NDArray[np.float64]:
        batch = batch_of(market.data, raw.users[user], raw.clicks(user), CONTEXT)
        ids, numbers = (
            torch.from_numpy(each[FIRST_KNOWN:]) for each in (market.data.ads.fields, market.data.ads.numbers)
        )
        with torch.no_grad():
            logits = dssm.network()(with_candidates(batch, ids.long(), numbers))
        found: npt.NDArray[np.float64] = torch.sigmoid(logits.double()).numpy() * bids
        return found

    async def scenario(client: httpx.AsyncClient) -> None:
        for user in raw.some():
            by_ad = dict(zip(ads, values(user), strict=True))
            shown = [each["ad_id"] for each in await ranking(client, user, keep)]
            assert len(shown) == keep
            best = sorted((by_ad[ad] for ad in raw.eligible), reverse=True)[:keep]
            # Vectors of bytes may exchange ads of nearly the same value.
            np.testing.assert_allclose(sorted((by_ad[ad] for ad in shown), reverse=True), best, rtol=0.05)

    call(settings, scenario, load_bundle(settings.bundle, settings))
