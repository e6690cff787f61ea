"""Networks with tables of int4 and ad vectors of int4, from a trained checkpoint to an answer."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundle.errors import ContractError, ManifestError
from bundle.folder import open_bundle
from bundle.manifest import MANIFEST
from export.assemble import FunnelSettings, Trained, ad_vectors, assemble
from models.checkpoint import Checkpoint, open_checkpoint
from models.compression.pipeline import compress
from models.compression.recipe import Recipe
from service.loading import load_bundle
from tests.service.conftest import post
from tests.service.world import settings_for

SIZES = FunnelSettings(retrieval=120, qscore=80, prerank=40, finerank=20, interests=3, per_interest=10)
RECIPE = Recipe.model_validate({"name": "small", "steps": [{"step": "values", "tables": "int4"}]})


@pytest.fixture(scope="module")
def small(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The checkpoints with tables in int4."""
    root = tmp_path_factory.mktemp("small")

    def smaller(checkpoint: Checkpoint, name: str) -> Checkpoint:
        compress(checkpoint, RECIPE, trained.data, root / name, 1, progress=False)
        return open_checkpoint(root / name)

    return replace(trained, finerank=smaller(trained.finerank, "din"), prerank=smaller(trained.prerank, "dqm"))


@pytest.fixture(scope="module")
def folder(small: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(small, tmp_path_factory.mktemp("bundles"), "int4", SIZES, users=25, stored="int4")[0]


def test_it_is_proved_and_served(folder: Path, small: Trained) -> None:
    settings = settings_for(folder)
    loaded = load_bundle(folder, settings)
    stages = loaded.bundle.manifest.stages
    assert loaded.proof.requests == 8
    for graph, checkpoint in ((stages.prerank.query, small.prerank), (stages.finerank.graph, small.finerank)):
        tables = checkpoint.network().arena.values
        assert graph.precision.given == dict.fromkeys(tables, "int4")
        assert (graph.precision.tables, graph.precision.is_reduced) == ("fp32", False), "as torch computes"
    assert loaded.bundle.users is not None
    answer = post(settings, "/v1/rank", {"user_id": next(iter(loaded.bundle.users.ids())), "k": 5}, loaded)
    assert (len(answer["ads"]), answer["degraded"]) == (5, [])


def test_ad_vectors_take_half_a_byte_a_number(folder: Path, small: Trained) -> None:
    bundle = open_bundle(folder)
    stored, (_, prerank) = bundle.ads.vectors, small.networks()
    exact = ad_vectors(prerank, small.data)[bundle.ads.index.places]
    step = np.abs(exact).max(axis=1, keepdims=True) / 8
    error = np.abs(stored.floats(slice(None)) - exact)
    assert bundle.manifest.stages.prerank.vectors == "int4"
    assert stored.codes.nbytes == len(exact) * -(-exact.shape[1] // 2)
    assert (error <= step * 1.0001).all()
    assert error.max() > np.abs(exact).max() / 128


def test_a_manifest_that_says_otherwise_is_refused(folder: Path) -> None:
    path = folder / MANIFEST
    text = path.read_text()
    manifest = json.loads(text)
    try:
        manifest["stages"]["prerank"]["vectors"] = "int8"
        path.write_text(json.dumps(manifest))
        with pytest.raises(ContractError, match=r"ads/vectors\.npy: uint8\[.*the manifest needs int8"):
            open_bundle(folder)
        manifest["stages"]["prerank"]["vectors"] = "int2"
        path.write_text(json.dumps(manifest))
        with pytest.raises(ManifestError, match=r"stages\.prerank\.vectors: Input should be 'int8' or 'int4'"):
            open_bundle(folder)
    finally:
        path.write_text(text)
